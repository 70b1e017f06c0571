#include "viz/methods/adversarial.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/run/recording.h"
#include "kernels/image/image_step.h"
#include "kernels/noise/noise.h"
#include "viz/methods/batches.h"
#include "viz/methods/inspect.h"
#include "viz/methods/pixels.h"

namespace switchback {
namespace {

using Method = AdversarialOptions::Method;
constexpr uint32_t kNormalSamples = 1u << 31;  // normals from here on; uniform numbers before

void check(const AdversarialOptions& o, int64_t classes) {
  const auto wrong = [](const std::string& what, const std::string& hint) { throw Error(what, hint, true); };
  if (o.steps < 1) wrong(fmt::format("--steps {} is less than 1", o.steps), "");
  if (!(std::isfinite(o.step) && o.step > 0)) wrong(fmt::format("--step {} is not above 0", o.step), "");
  if (!(o.epsilon >= 0)) wrong(fmt::format("--epsilon {} is negative", o.epsilon), "it is in pixels from 0 to 1: 8/255");
  if (o.method != Method::pgd_l2 && o.epsilon > 1)
    wrong(fmt::format("--epsilon {} is above 1", o.epsilon), "it is in pixels from 0 to 1, whatever the normalisation: 8/255");
  if (o.target >= classes)
    wrong(fmt::format("--targeted {}, but there are {} classes", o.target, classes), fmt::format("0 to {}", classes - 1));
  if (o.sphere < 0) wrong(fmt::format("--sphere {} is negative", o.sphere), "");
}

// A number of the open interval (0, 1) for element e: block e/4, lane e%4.
float uniform(const AdversarialOptions& o, uint32_t image, int64_t e) {
  const uint64_t block = uint64_t(e / 4);
  const std::array<uint32_t, 4> words =
      philox4x32({uint32_t(block), uint32_t(block >> 32), 0, image}, {uint32_t(o.seed), uint32_t(o.seed >> 32)});
  return float(unit_uniform(words[size_t(e % 4)]));
}

double norm(const Tensor& t) {
  double sum = 0;
  for (const float v : t.values()) sum += double(v) * double(v);
  return std::sqrt(sum);
}

// Everything that is reused from batch to batch.
struct Attack : ClassPasses {
  Attack(Context& ctx, const Model& model, Shape image, const AdversarialOptions& o, int64_t images)
      : ClassPasses(ctx, model, image, o, images),
        options(o),
        clean(ctx.allocate(x.size())),
        history(ctx.allocate(size_t(batch * (o.steps + 1)) * sizeof(int32_t))),
        origin(ctx.allocate(size_t(o.sphere > 0 ? image.item() : 0) * sizeof(float))) {
    if (origin.size() > 0) ctx.zero(origin.data(), origin.size());
  }

  void keep_classes(int64_t n, int64_t step) {
    ctx.copy(history.as<int32_t>() + step * batch, best.data(), size_t(n) * sizeof(int32_t));
  }
  ImageStep rule() const {
    const float sign = options.target >= 0 ? -1.f : 1.f;  // down the target's loss, or up the own class's
    const float epsilon = float(options.epsilon), step = float(options.step);
    switch (options.method) {
      case Method::ascent: return {.step = sign * step};
      case Method::fgsm: return {ImageStep::Rule::sign, ImageStep::Ball::inf, sign * epsilon, epsilon};
      case Method::pgd: return {ImageStep::Rule::sign, ImageStep::Ball::inf, sign * step, epsilon};
      case Method::pgd_l2: return {ImageStep::Rule::l2, ImageStep::Ball::l2, sign * step, epsilon};
    }
    return {};
  }
  // Of a plain ascent pixels may leave 0 to 1.
  PixelRange range() const { return options.method == Method::ascent ? unlimited->range() : pixels.range(); }

  void start(const float* images, int64_t first, int64_t n);
  void run(int64_t n);
  void sphere(const Tensor& from, const Tensor& to, uint32_t image, Attacked& item);

  const AdversarialOptions& options;
  std::optional<DevicePixels> unlimited;
  Memory clean, history;  // clean: NHWC f32
  Memory origin;          // zeros, an image: what noise is added to
};

// Writes n clean images, and x where the attack starts.
void Attack::start(const float* images, int64_t first, int64_t n) {
  const Shape s = plan.shapes()[0].with_n(n);
  write_nchw(ctx, images, view(clean, n));
  if (!options.random_start || options.method == Method::ascent || options.method == Method::fgsm) {
    ctx.copy(x.data(), clean.data(), size_t(s.count()) * sizeof(float));
    return;
  }
  Tensor moved({s.n, s.c, s.h, s.w});
  const int64_t map = s.h * s.w;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t image = options.images.empty() ? uint32_t(first + i) : options.images[size_t(first + i)];
    const float* from = images + i * s.item();
    float* to = moved.data() + i * s.item();
    if (options.method == Method::pgd) {
      for (int64_t e = 0; e < s.item(); ++e) {
        const float u = 2 * uniform(options, image, e) - 1, scale = units.scale[size_t(e / map)];
        to[e] = from[e] + float(options.epsilon) * scale * u;
      }
    } else {
      Tensor direction({1, s.c, s.h, s.w});
      Context host;
      const Tensor zeros = Tensor::zeros({s.c, s.h, s.w});
      const View at{direction.data(), {1, s.item(), 1, 1}, DType::f32};  // as a vector: in NCHW order
      write_noisy_input(host, zeros.data(), {.sigma = 1, .seed = options.seed, .image = image, .first_sample = kNormalSamples}, at);
      const double length = options.epsilon * double(uniform(options, image, 0)) / norm(direction);
      for (int64_t e = 0; e < s.item(); ++e) to[e] = from[e] + float(length) * units.scale[size_t(e / map)] * direction[e];
    }
    for (int64_t e = 0; e < s.item(); ++e)
      to[e] = std::clamp(to[e], units.lowest(size_t(e / map)), units.highest(size_t(e / map)));
  }
  write_nchw(ctx, moved.data(), view(x, n));
}

void Attack::run(int64_t n) {
  const StopRule stop{best.as<int32_t>(), labels.as<int32_t>(), options.target >= 0};
  const auto step = [&] {
    read(n);
    const ConstView g = backward.run(tape);
    image_step(ctx, rule(), range(), clean.as<float>(), g, options.stop_early ? stop : StopRule{}, view(x, n));
  };
  Recording recording;
  for (int64_t k = 0; k < options.steps; ++k) {
    recording.run(ctx, step);
    keep_classes(n, k);
  }
  read(n);
  keep_classes(n, options.steps);
}

// Samples around `from` on the sphere of radius 2‖to − from‖, in input units as in the lecture.
void Attack::sphere(const Tensor& from, const Tensor& to, uint32_t image, Attacked& item) {
  const Shape s = plan.shapes()[0].with_n(1);
  double squares = 0;
  for (int64_t i = 0; i < s.item(); ++i) squares += std::pow(double(to[i]) - double(from[i]), 2);
  write_nchw(ctx, from.data(), view(clean, 1));
  for (int64_t first = 0; first < options.sphere; first += batch) {
    const int64_t n = std::min(batch, options.sphere - first);
    const View samples = plan.input(n);
    write_noisy_input(ctx, origin.as<float>(),
                      {.sigma = 1, .seed = options.seed, .image = image,
                       .first_sample = kNormalSamples + 1 + uint32_t(first)},
                      samples);
    scale_to_sphere(ctx, clean.as<float>(), float(2 * std::sqrt(squares)), samples);
    plan.forward(&tape);
    const Tensor values = plan.read(node);
    const int64_t classes = values.dim(1);
    for (int64_t i = 0; i < n; ++i) {
      const float* v = values.data() + i * classes;
      item.sphere_same += std::max_element(v, v + classes) - v == item.clean;
    }
  }
}

}  // namespace

Adversarial adversarial(Context& ctx, const Model& model, const Tensor& x, const std::vector<int64_t>& labels,
                        const AdversarialOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0);
  const int node = logit_node(network);
  const Shape out = network.shapes(image)[node];
  const Outputs outputs = outputs_of(network, model.preprocess.output_is_probability);
  if (out.h * out.w != 1 || out.c < 2 || outputs != Outputs::classes)
    throw Error(fmt::format("attacks want a network that names one of several classes; {} gives {} of shape {}", network.name,
                            name_of(outputs), to_string(Dims{out.c, out.h, out.w})),
                "", true);
  if (options.precision != Precision::fp32 && options.precision != Precision::tf32)
    throw Error("attacks run in fp32 or tf32", "leave out --precision", true);
  check(options, out.c);
  CHECK(labels.empty() || int64_t(labels.size()) == images, "{} labels for {} images", labels.size(), images);
  Attack attack(ctx, model, image, options, options.sphere > 0 ? std::max(images, options.sphere) : images);
  if (options.method == Method::ascent) {
    PixelUnits free = attack.units;
    free.known = false;
    attack.unlimited.emplace(ctx, free);
  }
  Adversarial result;
  result.batch = attack.batch;
  result.x = allocate_maps({images, image.c, image.h, image.w});
  const int64_t map = image.h * image.w;
  for (int64_t first = 0; first < images; first += attack.batch) {
    const int64_t n = std::min(attack.batch, images - first);
    const float* from = x.data() + first * image.item();
    // The clean images' classes.
    attack.plan.write(from, n);
    attack.plan.forward(&attack.tape);
    const Tensor values = attack.plan.read(node);
    std::vector<int32_t> goals;
    const auto answer = [&](const Tensor& all, int64_t i, int64_t& read_as, double& probability) {
      const std::span<const float> v = all.values().subspan(size_t(i * out.c), size_t(out.c));
      read_as = std::max_element(v.begin(), v.end()) - v.begin();
      probability = probabilities(v, outputs)[size_t(read_as)];
    };
    for (int64_t i = 0; i < n; ++i) {
      Attacked item;
      answer(values, i, item.clean, item.clean_probability);
      item.label = labels.empty() ? item.clean : labels[size_t(first + i)];
      CHECK(item.label >= 0 && item.label < out.c, "class {} of {}", item.label, out.c);
      goals.push_back(int32_t(options.target >= 0 ? options.target : item.label));
      result.items.push_back(item);
    }
    ctx.copy_in(attack.labels.data(), goals.data(), goals.size() * sizeof(int32_t));
    attack.start(from, first, n);
    attack.run(n);
    const Tensor after = attack.plan.read(node);
    float* to = result.x.data() + first * image.item();
    read_nchw(ctx, attack.view(attack.x, n), to);
    std::vector<int32_t> history(size_t(attack.batch * (options.steps + 1)));
    ctx.copy_out(history.data(), attack.history.data(), attack.history.size());
    for (int64_t i = 0; i < n; ++i) {
      Attacked& item = result.items[size_t(first + i)];
      answer(after, i, item.now, item.now_probability);
      for (int64_t k = 0; k <= options.steps; ++k) item.classes.push_back(history[size_t(k * attack.batch + i)]);
      item.reached = options.target >= 0 ? item.now == options.target : item.now != item.label;
      double squares = 0;
      for (int64_t e = i * image.item(); e < (i + 1) * image.item(); ++e) {
        const double change = (double(to[e]) - double(from[e])) / double(attack.units.scale[size_t(e % image.item() / map)]);
        if (!std::isfinite(change))
          throw Error(fmt::format("image {} is not finite any more after {} steps of {}", first + i, options.steps, options.step),
                      "take a smaller --step");
        item.linf = std::max(item.linf, std::abs(change));
        squares += change * change;
      }
      item.l2 = std::sqrt(squares);
    }
    if (options.sphere > 0)
      for (int64_t i = first; i < first + n; ++i)
        attack.sphere(batch_item(x, i), batch_item(result.x, i),
                      options.images.empty() ? uint32_t(i) : options.images[size_t(i)], result.items[size_t(i)]);
    if (options.progress) options.progress(first + n, images);
  }
  return result;
}

}  // namespace switchback
