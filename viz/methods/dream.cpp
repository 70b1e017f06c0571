#include "viz/methods/dream.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/image/image_step.h"
#include "kernels/image/transform.h"
#include "kernels/noise/noise.h"
#include "kernels/pool/pool.h"
#include "viz/methods/batches.h"
#include "viz/methods/occlusion.h"

namespace switchback {
namespace {

using Parts = MaximizeOptions::Parts;
using Update = MaximizeOptions::Update;
constexpr int64_t kCheckOnGpu = 50;      // steps between looks at the values

// Four numbers of (0, 1) for an image's step. counter = (0, 1, step, stream), so that none is a noise's.
std::array<double, 4> draw(uint64_t seed, uint32_t stream, int64_t step) {
  std::array<double, 4> u;
  const auto words = philox4x32({0, 1, uint32_t(step), stream}, {uint32_t(seed), uint32_t(seed >> 32)});
  for (size_t i = 0; i < 4; ++i) u[i] = unit_uniform(words[i]);
  return u;
}

// Four normal numbers for a crop of an image's step. counter = (crop, 2, step, stream). In double, on the host, as all that crops are
// placed by: kernels/noise/noise_math.h has the same in float for kernels, equal on every device only where it is compiled without
// contraction.
std::array<double, 4> normals(uint64_t seed, uint32_t stream, int64_t step, int64_t crop) {
  std::array<double, 4> z;
  const auto words = philox4x32({uint32_t(crop), 2, uint32_t(step), stream}, {uint32_t(seed), uint32_t(seed >> 32)});
  for (size_t i = 0; i < 4; i += 2) {
    const double r = std::sqrt(-2 * std::log(unit_uniform(words[i]))), angle = 2 * M_PI * unit_uniform(words[i + 1]);
    z[i] = r * std::cos(angle), z[i + 1] = r * std::sin(angle);
  }
  return z;
}

}  // namespace

Dream::Dream(Context& ctx, const Model& model, Shape net, Shape canvas, const MaximizeOptions& o, int64_t n, int64_t per)
    : ctx(ctx),
      model(model),
      o(o),
      n(n),
      per(per),
      node(model.network.output()),
      net(net.with_n(n * per)),
      canvas_shape(canvas.with_n(n)),
      margin(o.crops > 0 ? 0 : canvas.h - net.h),
      plan(ctx, model, this->net, {.precision = o.precision, .observe = {}}),
      backward(plan, node, {.nodes = {0}}, n * per),
      parts(ctx, model, o, canvas_shape),
      units(pixel_units(model, net.c)),
      z(floats(n * parts.item())),
      dz(floats(n * parts.item())),
      good(floats(n * parts.item())),
      best(floats(o.keep_best ? n * parts.item() : 0)),
      state0(floats(states() > 0 ? n * parts.item() : 0)),
      state1(floats(states() > 1 ? n * parts.item() : 0)),
      canvas(floats(canvas_shape.count())),
      dcanvas(floats(canvas_shape.count())),
      spare(floats(canvas_shape.count())),
      maps(ctx.allocate(size_t(6 * n * per) * sizeof(float))),
      weight(floats(o.crops > 0 ? canvas_shape.count() : 0)),
      noise(floats(o.noise > 0 ? this->net.count() : 0)),
      noise_base(floats(o.noise > 0 ? net.item() : 0)) {
  reset();
  ctx.zero(weight.data(), weight.size());
  ctx.zero(noise_base.data(), noise_base.size());
  if (o.noise > 0) {
    std::vector<float> scale;
    for (int64_t i = 0; i < net.item(); ++i) scale.push_back(float(o.noise) * units.scale[size_t(i % net.c)]);
    noise_scale = floats_on_device(ctx, scale);
  }
  const float none = std::numeric_limits<float>::infinity();
  std::vector<float> range(size_t(net.c), 1.f);
  for (int64_t c = 0; c < net.c; ++c) range.push_back(o.clip_pixels ? units.lowest(size_t(c)) / float(parts.unit(size_t(c))) : -none);
  for (int64_t c = 0; c < net.c; ++c) range.push_back(o.clip_pixels ? units.highest(size_t(c)) / float(parts.unit(size_t(c))) : none);
  limits = floats_on_device(ctx, range);
}

int Dream::states() const { return o.update == Update::momentum ? 2 : o.update == Update::optimizer ? o.optimizer.states() : 0; }

void Dream::start(std::span<const Drive> drives, const Tensor& given) {
  if (!given.empty()) {
    Tensor x({n, net.c, canvas_shape.h, canvas_shape.w});
    for (int64_t i = 0; i < x.count(); ++i) {
      const int64_t w = i % canvas_shape.w, h = i / canvas_shape.w % canvas_shape.h, c = i / (canvas_shape.w * canvas_shape.h) % net.c;
      const Shape from = shown();
      const int64_t from_h = std::clamp<int64_t>(h - margin / 2, 0, from.h - 1), from_w = std::clamp<int64_t>(w - margin / 2, 0, from.w - 1);
      const float v = given[(c * from.h + from_h) * from.w + from_w];
      x[i] = o.parts == Parts::pixels ? (v - units.offset[size_t(c)]) / units.scale[size_t(c)] : v / float(parts.unit(size_t(c)));
    }
    write_nchw(ctx, x.data(), on_canvas(z));
    return;
  }
  const int64_t item = parts.item();
  const std::vector<float> middle(static_cast<size_t>(item), float(o.start_mean));
  const Memory mean = floats_on_device(ctx, middle);
  for (int64_t i = 0; i < n; ++i) {
    const View to{z.as<float>() + i * item, parts.fourier() ? Shape{1, item, 1, 1} : canvas_shape.with_n(1), DType::f32};
    if (o.start_span == 0) {
      write_noisy_input(ctx, mean.as<float>(), {.sigma = float(o.start_noise), .seed = o.seed, .image = drives[size_t(i)].stream}, to);
      continue;
    }
    Tensor x({1, net.c, canvas_shape.h, canvas_shape.w});
    std::array<uint32_t, 4> words{};
    for (int64_t e = 0; e < x.count(); ++e) {
      if (e % 4 == 0)
        words = philox4x32({uint32_t(e / 4), 0, 0, drives[size_t(i)].stream}, {uint32_t(o.seed), uint32_t(o.seed >> 32)});
      x[e] = float(o.start_mean + o.start_span * unit_uniform(words[size_t(e % 4)]));
    }
    write_nchw(ctx, x.data(), to);
  }
}

// Where each item's part of the canvas lies in this step; `still`: the middle, upright, or all of it.
void Dream::place(std::span<const Drive> drives, int64_t step, bool still, int64_t pass) {
  std::vector<float> all;
  if (o.crops > 0) {
    const double share = o.steps > 1 ? double(step) / double(o.steps - 1) : 0, middle = 0.5 + (0.05 - 0.5) * share;
    // Corners are pixels' centres, as tf.image.crop_and_resize has them.
    const auto stretch = [](int64_t from, int64_t to) { return double(from - 1) / double(std::max<int64_t>(1, to - 1)); };
    for (int64_t i = 0; i < n * per; ++i) {
      const std::array<double, 4> z = normals(o.seed, drives[size_t(i / per)].stream, step, pass * per + i % per);
      const double side = still ? 1 : std::clamp(middle + 0.05 * z[2], 0.05, 1.0);
      const double top = still ? 0 : 0.5 + 0.15 * z[0] - side / 2, left = still ? 0 : 0.5 + 0.15 * z[1] - side / 2;
      for (const double v : {side * stretch(canvas_shape.h, net.h), 0.0, top * double(canvas_shape.h - 1), 0.0,
                             side * stretch(canvas_shape.w, net.w), left * double(canvas_shape.w - 1)})
        all.push_back(float(v));
    }
    return ctx.copy_in(maps.data(), all.data(), maps.size());
  }
  const double out_h = double(net.h - 1) / 2, out_w = double(net.w - 1) / 2;
  for (int64_t i = 0; i < n; ++i) {
    const std::array<double, 4> u = draw(o.seed, drives[size_t(i)].stream, step);
    const double reach = double(o.jitter);
    const double down = still ? double(margin / 2) : std::floor(u[0] * (reach + 1)) - (margin > 0 ? 0 : std::floor(reach / 2));
    const double right = still ? double(margin / 2) : std::floor(u[1] * (reach + 1)) - (margin > 0 ? 0 : std::floor(reach / 2));
    const double angle = still ? 0 : (2 * u[2] - 1) * o.rotate * M_PI / 180, scale = still ? 1 : 1 + (2 * u[3] - 1) * o.zoom;
    const double c = std::cos(angle) / scale, s = std::sin(angle) / scale;
    for (const double v : {c, -s, out_h - c * out_h + s * out_w + down, s, c, out_w - s * out_h - c * out_w + right})
      all.push_back(float(v));
  }
  ctx.copy_in(maps.data(), all.data(), maps.size());
}

// z -> canvas -> the network's input -> its value.
void Dream::see(std::span<const Drive> drives, int64_t step, bool still, int64_t pass) {
  if (pass == 0) timed(&StepTimes::image, [&] { parts.forward(z.as<float>(), on_canvas(canvas)); });
  const View in = plan.input(n * per);
  timed(&StepTimes::places, [&] {
    if (margin > 0 || o.crops > 0 || (moves() && !still)) {
      place(drives, step, still, pass);
      affine_forward(ctx, maps.as<float>(), parts.fill(), on_canvas(canvas), in);
    } else {
      ctx.copy(in.data, canvas.data(), canvas.size());
    }
    if (o.noise > 0 && !still) add_noise(drives, step, pass);
  });
  timed(&StepTimes::network, [&] { plan.forward(&tape); });
}

// A sample of its own for every part of an image that is seen, behind that of the start.
void Dream::add_noise(std::span<const Drive> drives, int64_t step, int64_t pass) {
  const View in = plan.input(n * per), drawn{noise.data(), net, DType::f32};
  const uint32_t sample = uint32_t(1 + (step * passes(false) + pass) * per);
  for (int64_t i = 0; i < n; ++i)
    write_noisy_input(ctx, noise_base.as<float>(), {.sigma = 1, .seed = o.seed, .image = drives[size_t(i)].stream, .first_sample = sample},
                      {noise.as<float>() + i * per * net.item(), net.with_n(per), DType::f32});
  scale_by(ctx, noise_scale.as<float>(), drawn, drawn);
  mix(ctx, 1, drawn, 1, in);
}

std::vector<double> Dream::values_of(const Goal& goal, bool still) {
  const std::vector<double> seen = timed(&StepTimes::network, [&] { return goal.value(n * per); });
  std::vector<double> values(size_t(n), 0);
  for (size_t i = 0; i < seen.size(); ++i) values[i / size_t(per)] += seen[i] / double(per * passes(still));
  return values;
}

// dcanvas −= edges·∂/∂x Σ_s ‖x_s − g∗x_s‖²; x_0 the canvas, x_{s+1} its 2x2 means.
void Dream::add_edges() {
  const AvgPool2d halve{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
  const SymmetricFilter g = binomial_filter();
  struct Level {
    Shape shape;
    Memory x, gradient, other;
    View view(const Memory& m) const { return {m.data(), shape, DType::f32}; }
  };
  std::vector<Level> levels;
  for (Shape s = canvas_shape; std::min(s.h, s.w) > 5; s.h = s.h / 2 + 1, s.w = s.w / 2 + 1) {
    levels.push_back({s, floats(s.count()), floats(s.count()), floats(s.count())});
    Level& level = levels.back();
    if (levels.size() == 1)
      ctx.copy(level.x.data(), canvas.data(), canvas.size());
    else
      avg_pool2d_forward(ctx, halve, levels[levels.size() - 2].view(levels[levels.size() - 2].x), level.view(level.x));
    filter_image(ctx, g, level.view(level.x), level.view(level.gradient));
    mix(ctx, 1, level.view(level.x), -1, level.view(level.gradient));           // e = x − g∗x
    filter_image(ctx, g, level.view(level.gradient), level.view(level.other));  // g∗e: the filter is symmetric
    mix(ctx, -2, level.view(level.other), 2, level.view(level.gradient));       // 2 (e − g∗e)
  }
  for (size_t s = levels.size(); s-- > 1;) {
    Level &fine = levels[s - 1], &coarse = levels[s];
    avg_pool2d_backward(ctx, halve, coarse.view(coarse.gradient), fine.view(fine.other));
    mix(ctx, 1, fine.view(fine.other), 1, fine.view(fine.gradient));
  }
  const double unit = o.parts == Parts::input ? parts.unit(0) : 1;
  if (!levels.empty()) mix(ctx, -float(o.edges / (unit * unit)), levels[0].view(levels[0].gradient), 1, on_canvas(dcanvas));
}

// The gradient at the network's input.
ConstView Dream::gradient(const Goal& goal) {
  return timed(&StepTimes::network, [&] {
    goal.seed(backward.seed(n * per));
    return backward.run(tape);
  });
}

// zero[i]: the gradient of what is seen is 0 throughout, and then it is redirected where that is wanted.
ConstView Dream::redirected(const Goal& goal, ConstView g, bool redirect, std::vector<bool>& zero) {
  const int64_t item = net.item();
  Tensor values;
  const auto read = [&] {
    values = Tensor({net.n, net.c, net.h, net.w});
    read_nchw(ctx, g, values.data());
  };
  if (ctx.gpu) read();
  const float* all = ctx.gpu ? values.data() : g.as<float>();  // items follow each other in either order
  zero.clear();
  for (int64_t i = 0; i < net.n; ++i) zero.push_back(std::all_of(all + i * item, all + (i + 1) * item, [](float x) { return x == 0; }));
  if (!redirect || std::ranges::find(zero, true) == zero.end()) return g;
  if (!ctx.gpu) read();
  Tensor seen(values.dims());
  read_nchw(ctx, plan.input(net.n), seen.data());
  const View seed = backward.seed(net.n);
  Tensor seeds({net.n, seed.shape.c, seed.shape.h, seed.shape.w});
  goal.seed(seed);
  read_nchw(ctx, seed, seeds.data());
  if (!redirection) redirection = std::make_unique<Redirection>(ctx, model, net);
  for (int64_t i = 0; i < net.n; ++i)
    if (zero[size_t(i)]) {
      const Tensor one = redirection->gradient(seen.data() + i * item, seeds.data() + i * seed.shape.item());
      std::copy_n(one.data(), item, values.data() + i * item);
    }
  const View to = plan.input(net.n);  // what was seen is not needed any more
  write_nchw(ctx, values.data(), to);
  return to;
}

static std::vector<int> relus_of(const Network& network, bool before) {
  std::vector<int> found;
  for (int i = network.output(); i > 0; --i)
    if (std::holds_alternative<ReLU>(network.nodes[size_t(i)].layer) && depends(network, network.output(), i)) found.push_back(before ? network.nodes[size_t(i)].inputs[0] : i);
  return found;
}

static std::vector<int> with_input(std::vector<int> nodes) {
  nodes.insert(nodes.begin(), 0);
  return nodes;
}

Redirection::Redirection(Context& ctx, const Model& model, Shape image)
    : ctx_(ctx),
      model_(model),
      relus_(relus_of(model.network, false)),
      before_(relus_of(model.network, true)),
      plan_(ctx, model, image.with_n(1), {.observe = before_}),
      backward_(plan_, model.network.output(), {.nodes = with_input(before_)}, 1) {}

Tensor Redirection::gradient(const float* x, const float* seed) {
  std::vector<ReluRule> rules(size_t(model_.network.nodes.size()), kGradient);
  plan_.write(x, 1);
  plan_.forward(&tape_);
  const auto run = [&] {
    write_nchw(ctx_, seed, backward_.seed(1));
    backward_.run(tape_, {.rules = rules});
  };
  const auto values_at = [&](int node) {
    const ConstView g = backward_.gradient(node);
    Tensor values({1, g.shape.c, g.shape.h, g.shape.w});
    read_nchw(ctx_, g, values.data());
    return values;
  };
  run();
  for (size_t i = 0; i < relus_.size(); ++i) {
    const Tensor behind = values_at(before_[i]);
    if (std::ranges::any_of(behind.values(), [](float v) { return v != 0; })) continue;
    rules[size_t(relus_[i])] = kDeconv;
    run();
  }
  return values_at(0);
}

// `step`: of this optimiser, from 1; `late`: of the further ones.
void Dream::ascend(int64_t step, bool late) {
  const View x = image(z), g = image(dz);
  if (o.natural.tv_weight > 0 || o.natural.range_weight > 0) {
    NaturalPrior prior = o.natural;
    prior.tv_weight /= float(net.h * net.w);
    prior.range_weight /= float(net.h * net.w);
    prior.sign = -1;
    timed(&StepTimes::priors, [&] { add_natural_gradient(ctx, prior, x, g); });
  }
  const float* limit = limits.as<float>();
  const PixelRange range{limit, limit + net.c, limit + 2 * net.c};
  timed(&StepTimes::update, [&] {
    switch (o.update) {
      case Update::optimizer:
        optimizer_step(ctx, o.optimizer, -o.lr, step,
                       {z.as<float>(), dz.as<float>(), state0.size() ? state0.as<float>() : nullptr,
                        state1.size() ? state1.as<float>() : nullptr, n * parts.item()});
        if (o.decay > 0) mix(ctx, 0, x, float(1 - o.decay), x);
        break;
      case Update::plain:
      case Update::capped: {
        const ImageStep::Rule rule = o.update == Update::plain ? ImageStep::Rule::plain : ImageStep::Rule::capped;
        image_step(ctx, {.rule = rule, .step = float(o.lr), .decay = float(o.decay)}, range, nullptr, g, {}, x);
        break;
      }
      case Update::momentum:
        momentum_step(ctx, {.rate = float(late ? o.lr / 10 : o.lr), .most = float(o.most_norm)}, g, state0.as<float>(),
                      state1.as<float>(), x);
        break;
    }
  });
  timed(&StepTimes::priors, [&] {
    if (o.blur > 0 && step % o.blur_every == 0) {
      ctx.copy(spare.data(), z.data(), z.size());
      filter_image(ctx, gaussian_filter(o.blur), image(spare), x);
    }
    if (o.small.percentile > 0) clip_small_pixels(ctx, o.small, g, x);
  });
}

// Yosinski et al. 2015 call it too slow: what each pixel really adds, by setting it to 0 and running the network. Here only
// what changes is computed.
void Dream::clip_exactly(std::span<const Drive> drives) {
  const int64_t map = net.h * net.w;
  Tensor x({n, net.c, net.h, net.w});
  parts.forward(z.as<float>(), on_canvas(canvas));
  read_nchw(ctx, on_canvas(canvas), x.data());
  Tensor values(x.dims());
  read_nchw(ctx, image(z), values.data());
  const OcclusionOptions single{{.precision = o.precision, .batch = o.batch, .memory = o.memory, .progress = {}}, 1, 1, 1, 1, false, {}, {}};
  for (int64_t i = 0; i < n; ++i) {
    const Unit& u = drives[size_t(i)].unit;
    TargetSpec target;
    if (u.row < 0) target.target = std::to_string(u.channel);
    else target.layer = fmt::format("{}:{}:{},{}", model.network.nodes[size_t(u.node)].name, u.channel, u.row, u.col);
    const Tensor item = batch_item(x, i);
    Tensor one({1, net.c, net.h, net.w});
    std::copy_n(item.data(), item.count(), one.data());
    const OcclusionMaps maps = occlusion(ctx, model, one, target, {}, single);
    std::vector<float> scores(maps.values.values().begin(), maps.values.values().end());
    for (float& v : scores) v = std::abs(v);
    std::vector<float> sorted = scores;
    std::ranges::sort(sorted);
    const double place = o.exact / 100 * double(map - 1), share = place - std::floor(place);
    const size_t low = size_t(place), high = std::min(low + 1, size_t(map - 1));
    const double limit = (1 - share) * double(sorted[low]) + share * double(sorted[high]);
    for (int64_t p = 0; p < map; ++p)
      if (double(scores[size_t(p)]) < limit)
        for (int64_t c = 0; c < net.c; ++c) values[(i * net.c + c) * map + p] = 0;
  }
  write_nchw(ctx, values.data(), image(z));
}

// Steps on the images that are there. `first`: of these images in `out`.
void Dream::run(std::span<const Drive> drives, const Goal& goal, int64_t steps, int64_t& done, Maximized& out, int64_t first,
                int64_t total) {
  const int64_t item = parts.item();
  std::vector<double> top(size_t(n), -std::numeric_limits<double>::infinity());
  ctx.copy(good.data(), z.data(), good.size());  // what is left where not even the first values are finite
  for (int64_t k = 1; k <= steps; ++k, ++done) {
    const bool late = o.more_steps > 0 && k > steps - o.more_steps;
    if (o.clip_pixels) {  // before the gradient is taken, as in Yosinski's program
      const float* limit = limits.as<float>();
      ctx.zero(dz.data(), dz.size());
      image_step(ctx, {.step = 0}, {limit, limit + net.c, limit + 2 * net.c}, nullptr, image(dz), {}, image(z));
    }
    const bool look = !ctx.gpu || o.keep_best || k == 1 || k % kCheckOnGpu == 0;
    std::vector<double> values(size_t(n), 0);
    std::vector<bool> zero(size_t(n), true);
    for (int64_t pass = 0; pass < passes(late); ++pass) {
      see(drives, done, late, pass);
      if (look) {
        const std::vector<double> seen = values_of(goal, late);
        for (size_t i = 0; i < seen.size(); ++i) values[i] += seen[i];
      }
      ConstView g = gradient(goal);
      if (done < std::max<int64_t>(1, o.redirect) || k == steps) {
        std::vector<bool> parts_zero;
        g = redirected(goal, g, done < o.redirect, parts_zero);
        for (size_t i = 0; i < parts_zero.size(); ++i) zero[i / size_t(per)] = zero[i / size_t(per)] && parts_zero[i];
      }
      timed(&StepTimes::places, [&] {
        if (margin > 0 || o.crops > 0 || (moves() && !late))
          affine_backward(ctx, maps.as<float>(), g, on_canvas(dcanvas), pass > 0);
        else
          ctx.copy(dcanvas.data(), g.data, dcanvas.size());
      });
    }
    for (int64_t i = 0; i < n; ++i) {
      Driven& d = out.items[size_t(first + i)];
      if (done < std::max<int64_t>(1, o.redirect) || k == steps) d.dead = zero[size_t(i)] && (done == 0 || d.dead);
      if (!look) continue;
      if (done == 0) d.start = values[size_t(i)];
      if (!std::isfinite(values[size_t(i)])) {
        if (d.stopped < 0) d.stopped = done;
        continue;
      }
      if (d.stopped >= 0) continue;
      const auto keep = [&](const Memory& to) {
        ctx.copy(to.as<float>() + i * item, z.as<float>() + i * item, size_t(item) * sizeof(float));
      };
      keep(good);
      if (o.keep_best && values[size_t(i)] > top[size_t(i)]) {
        top[size_t(i)] = values[size_t(i)];
        keep(best);
      }
    }
    if (o.crops > 0) add_absolute(ctx, on_canvas(dcanvas), on_canvas(weight));
    if (o.edges > 0) timed(&StepTimes::priors, [&] { add_edges(); });
    timed(&StepTimes::image, [&] { parts.backward(z.as<float>(), on_canvas(dcanvas), dz.as<float>()); });
    ascend(k, late);
    if (o.exact > 0) clip_exactly(drives);
    if (o.frames > 0 && (done + 1) * o.frames / total != done * o.frames / total) {
      if (first == 0) {
        out.frames.emplace_back(Dims{int64_t(out.items.size()), net.c, shown().h, shown().w});
        out.frame_steps.push_back(done + 1);
      }
      const size_t frame = size_t((done + 1) * o.frames / total - 1);
      Tensor& all = out.frames[frame];
      if (all.dim(2) == shown().h && all.dim(3) == shown().w) read(drives, all.data() + first * shown().item());
    }
    if (o.progress) o.progress(first * total + (done + 1) * n, int64_t(out.items.size()) * total);
  }
  for (int64_t i = 0; i < n; ++i) {
    const Driven& d = out.items[size_t(first + i)];
    if (d.stopped < 0 && !o.keep_best) continue;
    ctx.copy(z.as<float>() + i * item, (d.stopped >= 0 ? good : best).as<float>() + i * item, size_t(item) * sizeof(float));
  }
}

// What the network sees of the images, upright and in the middle, NCHW.
void Dream::read(std::span<const Drive> drives, float* to) {
  parts.forward(z.as<float>(), on_canvas(canvas));
  if (margin == 0) return read_nchw(ctx, on_canvas(canvas), to);
  place(drives, 0, true);
  const View middle{spare.data(), net, DType::f32};  // margin > 0: there are no crops
  affine_forward(ctx, maps.as<float>(), parts.fill(), on_canvas(canvas), middle);
  read_nchw(ctx, middle, to);
}

}  // namespace switchback
