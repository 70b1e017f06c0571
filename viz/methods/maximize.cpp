#include "viz/methods/maximize.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/image/priors.h"
#include "kernels/move/resample.h"
#include "viz/methods/batches.h"
#include "viz/methods/dream.h"

namespace switchback {
namespace {

using Parts = MaximizeOptions::Parts;
using Update = MaximizeOptions::Update;

// The network up to `node`, which then is its output: nothing behind a unit is computed.
Model cut_to(const Model& model, int node) {
  Model cut;
  cut.network = Network(model.network.name, model.network.input);
  for (int i = 1; i <= node; ++i) {
    const Node& n = model.network.nodes[size_t(i)];
    cut.network.add(n.name, n.layer, n.inputs);
  }
  cut.weights = Weights(cut.network);
  for (const Parameter& p : std::vector(cut.weights.list())) {
    const std::span<const float> from = model.weights.values(p.node, p.name);
    std::copy(from.begin(), from.end(), cut.weights.edit(p).begin());
  }
  cut.preprocess = model.preprocess;
  return cut;
}

// With the step size that follows from the image's size, where none is given.
MaximizeOptions checked(const MaximizeOptions& options, std::array<int64_t, 2> size) {
  MaximizeOptions o = options;
  if (o.update == Update::momentum && o.lr == 0) o.lr = mahendran_rate(size[0], size[1]);
  const auto wrong = [](const std::string& what, const std::string& hint = "") { throw Error(what, hint, true); };
  if (o.precision != Precision::fp32 && o.precision != Precision::tf32)
    wrong("images are optimised in fp32 or tf32", "leave out --precision");
  if (o.steps < 1) wrong(fmt::format("--steps {} is less than 1", o.steps));
  if (!(std::isfinite(o.lr) && o.lr > 0)) wrong(fmt::format("--lr {} is not above 0", o.lr));
  if (!(o.edges >= 0 && o.blur >= 0 && o.natural.tv_weight >= 0 && o.natural.range_weight >= 0 && o.decay >= 0 && o.decay < 1))
    wrong("a prior's weight is negative, or --decay not below 1");
  if (o.blur > 8) wrong(fmt::format("--blur {} is above 8 pixels", o.blur));
  if (o.blur_every < 1) wrong(fmt::format("--blur-every {} is less than 1", o.blur_every));
  if (o.small.percentile < 0 || o.small.percentile >= 100) wrong(fmt::format("percentile {} is not from 0 to below 100", o.small.percentile));
  if (o.jitter < 0 || o.rotate < 0 || !(o.zoom >= 0 && o.zoom < 0.9)) wrong("--jitter and --rotate are at least 0, --zoom from 0 to 0.9");
  if (o.scales < 1 || (o.scales > 1 && !(o.growth > 1 && o.growth <= 4))) wrong("--scales is at least 1, --growth from 1 to 4");
  const bool fourier = o.parts == Parts::fourier || o.parts == Parts::phase;
  if (o.scales > 1 && fourier) wrong("Fourier images do not grow", "--scales 1");
  if (o.decorrelated && !fourier) wrong("decorrelated colours are of --parametrisation fourier or phase");
  if (fourier && (o.blur > 0 || o.natural.tv_weight > 0 || o.natural.range_weight > 0 || o.small.percentile > 0))
    wrong("--blur, --tv, --range-weight and clipping are of images of pixels, not of Fourier coefficients", "--parametrisation pixels");
  if (fourier && o.update != Update::optimizer)
    wrong("this recipe's steps are of images of pixels, not of Fourier coefficients", "--optimizer adam");
  if (size[0] * size[1] == 1 && (o.jitter > 0 || o.rotate > 0 || o.zoom > 0 || o.crops > 0 || fourier))
    wrong("this recipe is of images, but the network takes vectors", "--recipe fleuret");
  if (o.crops < 0 || o.crops > 4096) wrong(fmt::format("--crops {} is not from 0 to 4096", o.crops));
  if (!(o.noise >= 0 && o.noise <= 1)) wrong(fmt::format("--noise {} is not from 0 to 1 (of the range of pixels)", o.noise));
  if (o.crops > 0 && (o.jitter > 0 || o.rotate > 0 || o.zoom > 0 || o.scales > 1))
    wrong("crops are neither moved, turned, scaled nor of images that grow", "leave out --crops");
  if (o.crops > 0 && o.diversity > 0) wrong("--diversity compares images that are seen whole", "--crops 0");
  if (!(o.exact >= 0 && o.exact < 100)) wrong(fmt::format("percentile {} is not from 0 to below 100", o.exact));
  if (o.exact > 0 && (o.parts == Parts::pixels || fourier || o.crops > 0 || o.noise > 0 || o.jitter > 0 || o.rotate > 0 || o.zoom > 0))
    wrong("exact clipping wants pixels whose 0 is the input's, and an image that is not moved", "--recipe yosinski");
  if (!(o.diversity >= 0)) wrong(fmt::format("--diversity {} is negative", o.diversity));
  if (o.frames < 0) wrong(fmt::format("--frames {} is negative", o.frames));
  return o;
}

std::array<int64_t, 2> first_size(const Model& model, const MaximizeOptions& o) {
  return o.size[0] > 0 ? o.size : std::array<int64_t, 2>{model.network.input.h, model.network.input.w};
}

// each(channel, place of the map, weight) for what a drive sums up of its node's values.
template <typename Each>
void each_weight(const Drive& d, Shape out, bool mean, const Each& each) {
  const int64_t map = out.h * out.w, place = d.unit.row >= 0 ? d.unit.row * out.w + d.unit.col : -1;
  if (!d.direction.empty())
    CHECK(int64_t(d.direction.size()) == out.c, "a direction of {} numbers for {} channels", d.direction.size(), out.c);
  const float share = mean && place < 0 ? 1.f / float(map) : 1.f;
  const auto channel = [&](int64_t c, float weight) {
    if (place >= 0) return each(c, place, weight);
    for (int64_t p = 0; p < map; ++p) each(c, p, share * weight);
  };
  if (d.direction.empty()) return channel(d.unit.channel, 1.f);
  for (int64_t c = 0; c < out.c; ++c)
    if (d.direction[size_t(c)] != 0) channel(c, d.direction[size_t(c)]);
}

// What is to be driven, over the node's values, NCHW: [n, C·H·W].
std::vector<float> directions(std::span<const Drive> drives, Shape out, bool mean) {
  std::vector<float> all(drives.size() * size_t(out.item()), 0.f);
  for (size_t i = 0; i < drives.size(); ++i) {
    float* to = all.data() + i * size_t(out.item());
    each_weight(drives[i], out, mean, [&](int64_t c, int64_t p, float weight) { to[c * out.h * out.w + p] = weight; });
  }
  return all;
}

// The sums themselves; value(item, channel, place).
template <typename Value>
std::vector<double> sums_of(std::span<const Drive> drives, Shape out, bool mean, const Value& value) {
  std::vector<double> sums(drives.size(), 0);
  for (size_t i = 0; i < drives.size(); ++i)
    each_weight(drives[i], out, mean, [&](int64_t c, int64_t p, float weight) {
      if (weight != 0) sums[i] += double(weight) * double(value(int64_t(i), c, p));
    });
  return sums;
}

int64_t steps_of(const MaximizeOptions& o, int64_t scale) {
  return (o.late_steps > 0 && scale >= 7 ? o.late_steps : o.steps) + o.more_steps;
}

// Runs the recipe on `n` drives at a time. make_goal: for the plan of one size and the drives first … first + n.
using MakeGoal = std::function<Goal(Dream&, std::span<const Drive>)>;
Maximized optimise(Context& ctx, const Model& cut, std::span<const Drive> drives, const Tensor& start, const MaximizeOptions& o,
                   const MakeGoal& make_goal) {
  const int64_t images = int64_t(drives.size()), channels = cut.network.input.c;
  std::vector<Shape> sizes;
  const std::array<int64_t, 2> size = first_size(cut, o);
  double h = double(size[0]), w = double(size[1]);
  for (int64_t s = 0; s < o.scales; ++s, h = std::floor(h * o.growth), w = std::floor(w * o.growth)) {
    sizes.push_back({1, channels, int64_t(h), int64_t(w)});
    if (h * w * double(channels) > 1e8) throw Error(fmt::format("images of {}x{} are too large", h, w), "--size chooses another", true);
    if (o.crops > 0) break;
    try {
      check_image_shape(cut.network, sizes.back());
    } catch (const Error& e) {
      throw Error(fmt::format("images of {}x{}: {}", h, w, e.what()),
                  o.scales > 1 ? "a recipe that grows its images wants a convolutional --layer" : "--size chooses another", true);
    }
  }
  Maximized out;
  out.items.resize(size_t(images));
  int64_t total = 0;
  for (int64_t s = 0; s < o.scales; ++s) total += steps_of(o, s);
  out.steps = total;
  if (o.frames > total) throw Error(fmt::format("{} frames of {} steps", o.frames, total), "--frames is at most the number of steps", true);
  const Shape last = sizes.back();
  out.x = allocate_maps({images, channels, last.h, last.w});
  // Of crops the network sees several of one image at a time, or those of several images.
  const Shape net = o.crops > 0 ? cut.network.input : last;
  const int64_t each = std::max<int64_t>(1, o.crops);
  const int64_t fits = batch_size(ctx, cut, net, {.precision = o.precision, .observe = {}}, o, images * each);
  out.batch = std::max<int64_t>(1, fits / each);
  int64_t per = std::min(fits, each);
  while (each % per != 0) --per;
  if (o.diversity > 0) out.batch = std::min(images, ceil_div(out.batch, o.copies) * o.copies);  // copies see each other
  const bool fixed = o.parts == Parts::fourier || o.parts == Parts::phase || o.crops > 0 || o.rotate > 0 || o.zoom > 0;
  const int64_t margin = fixed ? 0 : o.jitter;
  if (o.crops > 0) out.weight = allocate_maps({images, 1, last.h, last.w});
  for (int64_t first = 0; first < images; first += out.batch) {
    const int64_t n = std::min(out.batch, images - first);
    const std::span<const Drive> part = drives.subspan(size_t(first), size_t(n));
    std::vector<Drive> seen;  // what the network sees
    for (const Drive& d : part) seen.insert(seen.end(), size_t(per), d);
    std::unique_ptr<Dream> dream;
    int64_t done = 0;
    for (int64_t s = 0; s < o.scales; ++s) {
      const Shape now = sizes[size_t(s)], canvas{1, channels, now.h + margin, now.w + margin};
      auto larger = std::make_unique<Dream>(ctx, cut, o.crops > 0 ? net.with_n(1) : now, canvas, o, n, per);
      if (!dream) {
        larger->start(part, start);
      } else {
        const Shape to = larger->canvas_shape;
        const Resampling enlarge(Resize{.mode = Resize::Mode::bicubic, .coordinates = Resize::Coordinates::half_pixel,
                                        .out_h = to.h, .out_w = to.w},
                                 dream->canvas_shape.with_n(1));
        resample_forward(ctx, enlarge, dream->image(dream->z), larger->on_canvas(larger->spare));
        filter_image(ctx, box_filter(5), larger->on_canvas(larger->spare), larger->image(larger->z));
      }
      dream = std::move(larger);
      const Goal goal = make_goal(*dream, seen);
      dream->run(part, goal, steps_of(o, s), done, out, first, total);
    }
    Dream& d = *dream;
    d.see(part, 0, true);
    const Goal goal = make_goal(d, seen);
    const std::vector<double> values = d.values_of(goal, true);
    for (int64_t i = 0; i < n; ++i) out.items[size_t(first + i)].value = values[size_t(i)];
    d.read(part, out.x.data() + first * last.item());
    if (out.weight.empty()) continue;
    Tensor sums({n, channels, last.h, last.w});
    read_nchw(ctx, d.on_canvas(d.weight), sums.data());
    const int64_t map = last.h * last.w;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t p = 0; p < map; ++p) {
        double sum = 0;
        for (int64_t c = 0; c < channels; ++c) sum += std::abs(double(d.units.scale[size_t(c)])) * double(sums[(i * channels + c) * map + p]);
        out.weight[(first + i) * map + p] = float(sum);
      }
  }
  return out;
}

}  // namespace

std::vector<double> drive_values(std::span<const Drive> drives, const Tensor& values, bool mean) {
  const Dims& d = values.dims();
  const Shape out{d[0], d[1], d.size() > 2 ? d[2] : 1, d.size() > 3 ? d[3] : 1};
  CHECK(out.n >= int64_t(drives.size()), "values of {} items for {} drives", out.n, drives.size());
  return sums_of(drives, out, mean, [&](int64_t i, int64_t c, int64_t p) { return values[(i * out.c + c) * out.h * out.w + p]; });
}

double similarity(const Tensor& values, int64_t copies, Tensor& gradient) {
  const int64_t n = values.dim(0), channels = values.dim(1), map = values.count() / n / channels;
  gradient = Tensor::zeros(values.dims());
  double total = 0;
  for (int64_t first = 0; first < n; first += copies) {
    const auto at = [&](int64_t i) { return values.data() + (first + i) * channels * map; };
    // Unit Gram matrices Ĝ and their sum.
    std::vector<std::vector<double>> unit;
    std::vector<double> norms, sum(size_t(channels * channels), 0);
    for (int64_t i = 0; i < copies; ++i) {
      std::vector<double> g(sum.size());
      double squares = 0;
      for (int64_t a = 0; a < channels; ++a)
        for (int64_t b = 0; b <= a; ++b) {
          double dot = 0;
          for (int64_t p = 0; p < map; ++p) dot += double(at(i)[a * map + p]) * double(at(i)[b * map + p]);
          g[size_t(a * channels + b)] = g[size_t(b * channels + a)] = dot;
          squares += (a == b ? 1 : 2) * dot * dot;
        }
      norms.push_back(std::sqrt(squares));
      for (size_t e = 0; e < g.size(); ++e) {
        g[e] = norms.back() > 0 ? g[e] / norms.back() : 0;
        sum[e] += g[e];
      }
      unit.push_back(std::move(g));
    }
    // Each pair counts once: ½ (‖Σ Ĝ‖² − n). ∂/∂A_i = 2·(S_i − ⟨S_i, Ĝ_i⟩ Ĝ_i)·A_i / ‖G_i‖ with S_i the others' sum.
    for (int64_t i = 0; i < copies; ++i) {
      const std::vector<double>& own = unit[size_t(i)];
      double cosine = 0;
      for (size_t e = 0; e < own.size(); ++e) cosine += (sum[e] - own[e]) * own[e];
      total += cosine / 2;
      if (!(norms[size_t(i)] > 0)) continue;
      float* to = gradient.data() + (first + i) * channels * map;
      for (int64_t a = 0; a < channels; ++a) {
        std::vector<double> row(static_cast<size_t>(map), 0);
        for (int64_t b = 0; b < channels; ++b) {
          const size_t e = size_t(a * channels + b);
          const double factor = 2 * (sum[e] - own[e] - cosine * own[e]) / norms[size_t(i)];
          for (int64_t p = 0; p < map; ++p) row[size_t(p)] += factor * double(at(i)[b * map + p]);
        }
        std::ranges::copy(row, to + a * map);
      }
    }
  }
  return total;
}

Maximized maximize(Context& ctx, const Model& model, std::span<const Drive> drives, const Tensor& start,
                   const MaximizeOptions& options) {
  const MaximizeOptions o = checked(options, first_size(model, options));
  CHECK(!drives.empty(), "no unit to drive");
  const int node = drives[0].unit.node;
  for (const Drive& d : drives) {
    CHECK(d.unit.node == node, "units of several layers");
    if (o.exact > 0 && !d.direction.empty()) throw Error("exact clipping is of units, not of directions", "--clip-contribution", true);
  }
  CHECK(o.copies > 0 && int64_t(drives.size()) % o.copies == 0, "{} drives of {} copies each", drives.size(), o.copies);
  const Model cut = cut_to(model, node);
  if (!start.empty() && (o.parts == Parts::fourier || o.parts == Parts::phase))
    throw Error("--start FILE wants an image of pixels", "--parametrisation pixels", true);
  const auto make_goal = [&](Dream& dream, std::span<const Drive> part) {
    const Shape out = dream.plan.shapes()[size_t(node)].with_n(dream.net.n);
    std::vector<float> weighted = directions(part, out, o.mean);
    for (float& v : weighted) v *= float(o.weight / double(std::max<int64_t>(1, o.crops)));
    auto seeds = std::make_shared<Memory>(dream.floats(out.count()));
    write_nchw(ctx, weighted.data(), {seeds->data(), out, DType::f32});
    const auto seed = [&ctx, &dream, &o, seeds, out, node](View to) {
      ctx.copy(to.data, seeds->data(), seeds->size());
      if (o.diversity == 0 || o.copies == 1) return;
      Tensor gradient;
      similarity(dream.plan.read(node), o.copies, gradient);
      const Memory more = dream.floats(out.count());
      const View on{more.data(), out, DType::f32};
      write_nchw(ctx, gradient.data(), on);
      mix(ctx, float(-o.diversity), on, 1, to);
    };
    const auto value = [&ctx, &dream, part, &o, node, out](int64_t) {
      if (ctx.gpu) return drive_values(part, dream.plan.read(node), o.mean);
      const ConstView all = dream.plan.value(node);  // NHWC, where it lies
      return sums_of(part, out, o.mean, [&](int64_t i, int64_t c, int64_t p) {
        return all.as<float>()[(i * out.h * out.w + p) * out.c + c];
      });
    };
    return Goal{seed, value};
  };
  return optimise(ctx, cut, drives, start, o, make_goal);
}

Inverted invert(Context& ctx, const Model& model, const Tensor& photo, int node, bool caricature,
                const std::vector<int64_t>& channels, const MaximizeOptions& options) {
  const Shape size{1, photo.dim(1), photo.dim(2), photo.dim(3)};
  const MaximizeOptions o = checked(options, {size.h, size.w});
  const Shape image = image_shape(model.network, photo);
  CHECK(photo.dim(0) == 1 && o.scales == 1, "one image, of one size");
  if (o.crops > 0) throw Error("pre-images are seen whole", "a recipe without crops", true);
  const Model cut = cut_to(model, node);
  Plan clean(ctx, cut, image, {.precision = o.precision, .observe = {}, .tape = false});
  clean.write(photo.data(), 1);
  clean.forward();
  const Tensor target = clean.read(node);
  const Shape out = clean.shapes()[size_t(node)];
  std::vector<float> counts(size_t(out.item()), channels.empty() ? 1.f : 0.f);
  for (const int64_t c : channels) std::fill_n(counts.begin() + c * out.h * out.w, out.h * out.w, 1.f);
  double squares = 0;
  for (int64_t i = 0; i < out.item(); ++i) squares += counts[size_t(i)] * std::pow(double(target[i]), 2);
  if (!(squares > 0)) throw Error("the layer's values are all 0 for this image", "name another layer", false);
  const Drive drive{{node, 0, -1, -1}, 0, {}};
  const auto distance = [&](const Tensor& values) {
    double sum = 0;
    for (int64_t i = 0; i < out.item(); ++i) sum += counts[size_t(i)] * std::pow(double(values[i]) - double(target[i]), 2);
    return std::sqrt(sum / squares);
  };
  MaximizeOptions sized = o;
  sized.size = {image.h, image.w};
  const auto make_goal = [&](Dream& dream, std::span<const Drive>) {
    // seed = −2·weight/‖Φ0‖²·(Φ − Φ0), or constant: weight·relu(Φ0)/‖Φ0‖².
    std::vector<float> constant(size_t(out.item())), slope(size_t(out.item()));
    for (size_t i = 0; i < constant.size(); ++i) {
      const double unit = counts[i] * o.weight / squares;
      constant[i] = float(caricature ? unit * std::max(0.0, double(target[int64_t(i)])) : 2 * unit * double(target[int64_t(i)]));
      slope[i] = float(caricature ? 0 : -2 * unit);
    }
    auto constants = std::make_shared<Memory>(dream.floats(out.item())), slopes = std::make_shared<Memory>(dream.floats(out.item()));
    write_nchw(ctx, constant.data(), {constants->data(), out, DType::f32});
    write_nchw(ctx, slope.data(), {slopes->data(), out, DType::f32});
    return Goal{[&ctx, &dream, constants, slopes, out, node](View seed) {
                  scale_by(ctx, slopes->as<float>(), dream.plan.value(node), seed);
                  mix(ctx, 1, {constants->data(), out, DType::f32}, 1, seed);
                },
                [&, caricature](int64_t) {
                  const Tensor values = dream.plan.read(node);
                  if (!caricature) return std::vector<double>{-distance(values)};
                  double sum = 0;
                  for (int64_t i = 0; i < out.item(); ++i)
                    sum += counts[size_t(i)] * std::max(0.0, double(target[i])) * double(values[i]) / squares;
                  return std::vector<double>{sum};
                }};
  };
  Inverted result;
  result.image = optimise(ctx, cut, std::span(&drive, 1), {}, sized, make_goal);
  clean.write(result.image.x.data(), 1);
  clean.forward();
  result.error = distance(clean.read(node));
  return result;
}

}  // namespace switchback
