#include "viz/methods/maximize.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>

#include "kernels/image/image_step.h"
#include "kernels/image/transform.h"
#include "kernels/move/resample.h"
#include "kernels/noise/noise.h"
#include "kernels/pool/pool.h"
#include "viz/methods/batches.h"
#include "viz/methods/parametrisation.h"

namespace switchback {
namespace {

using Parts = MaximizeOptions::Parts;
using Update = MaximizeOptions::Update;
constexpr ReluRule kOpen{false, false};  // every ReLU lets every gradient through
constexpr int64_t kCheckOnGpu = 50;      // steps between looks at the values

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

// Four numbers of (0, 1) for an image's step. counter = (0, 1, step, stream), so that none is a noise's.
std::array<double, 4> draw(uint64_t seed, uint32_t stream, int64_t step) {
  std::array<double, 4> u;
  const auto words = philox4x32({0, 1, uint32_t(step), stream}, {uint32_t(seed), uint32_t(seed >> 32)});
  for (size_t i = 0; i < 4; ++i) u[i] = unit_uniform(words[i]);
  return u;
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
  if (o.scales > 1 && o.parts == Parts::fourier) wrong("Fourier images do not grow", "--scales 1");
  if (o.decorrelated && o.parts != Parts::fourier) wrong("decorrelated colours are of --parametrisation fourier");
  if (o.frames < 0) wrong(fmt::format("--frames {} is negative", o.frames));
  return o;
}

std::array<int64_t, 2> first_size(const Model& model, const MaximizeOptions& o) {
  return o.size[0] > 0 ? o.size : std::array<int64_t, 2>{model.network.input.h, model.network.input.w};
}

// What is to become large, or small.
struct Goal {
  std::function<void(View seed)> seed;                  // [n,c,h,w] of the node; n items from `first` on
  std::function<std::vector<double>(int64_t n)> value;  // of the items that ran last
};

// One size of images, n at a time: all that a step needs.
struct Dream {
  Dream(Context& ctx, const Model& model, Shape net, const MaximizeOptions& o, int64_t n, int64_t margin)
      : ctx(ctx),
        o(o),
        n(n),
        node(model.network.output()),
        net(net.with_n(n)),
        canvas_shape{n, net.c, net.h + margin, net.w + margin},
        margin(margin),
        plan(ctx, model, this->net, {.precision = o.precision, .observe = {}}),
        backward(plan, node, {.nodes = {0}}, n),
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
        maps(ctx.allocate(size_t(6 * n) * sizeof(float))) {
    reset();
    const float none = std::numeric_limits<float>::infinity();
    std::vector<float> range(size_t(net.c), 1.f);
    for (int64_t c = 0; c < net.c; ++c) range.push_back(o.clip_pixels ? units.lowest(size_t(c)) / float(parts.unit(size_t(c))) : -none);
    for (int64_t c = 0; c < net.c; ++c) range.push_back(o.clip_pixels ? units.highest(size_t(c)) / float(parts.unit(size_t(c))) : none);
    limits = ctx.allocate(range.size() * sizeof(float));
    ctx.copy_in(limits.data(), range.data(), limits.size());
  }

  Memory floats(int64_t count) { return ctx.allocate(size_t(count) * sizeof(float)); }
  int states() const { return o.update == Update::momentum ? 2 : o.update == Update::capped ? 0 : o.optimizer.states(); }
  bool moves() const { return o.jitter > 0 || o.rotate > 0 || o.zoom > 0; }
  View on_canvas(const Memory& m) const { return {m.data(), canvas_shape, DType::f32}; }
  View image(const Memory& m) const { return parts.z(m.as<float>(), n); }
  void reset() {  // a fresh optimiser
    ctx.zero(state0.data(), state0.size());
    ctx.zero(state1.data(), state1.size());
  }

  void start(std::span<const Drive> drives, const Tensor& given);
  void place(std::span<const Drive> drives, int64_t step, bool still);
  void see(std::span<const Drive> drives, int64_t step, bool still);
  void add_edges();
  ConstView gradient(const Goal& goal, ReluRule rule);
  void ascend(int64_t step, bool late);
  void run(std::span<const Drive> drives, const Goal& goal, int64_t steps, int64_t& done, Maximized& out, int64_t first,
           int64_t total);
  void read(std::span<const Drive> drives, float* to);

  Context& ctx;
  const MaximizeOptions& o;
  int64_t n;
  int node;
  Shape net, canvas_shape;
  int64_t margin;
  Plan plan;
  Backward backward;
  Tape tape;
  Parametrisation parts;
  PixelUnits units;
  Memory z, dz, good, best, state0, state1, canvas, dcanvas, spare, maps, limits;
};

void Dream::start(std::span<const Drive> drives, const Tensor& given) {
  if (!given.empty()) {
    Tensor x({n, net.c, canvas_shape.h, canvas_shape.w});
    for (int64_t i = 0; i < x.count(); ++i) {
      const int64_t w = i % canvas_shape.w, h = i / canvas_shape.w % canvas_shape.h, c = i / (canvas_shape.w * canvas_shape.h) % net.c;
      const int64_t from_h = std::clamp<int64_t>(h - margin / 2, 0, net.h - 1), from_w = std::clamp<int64_t>(w - margin / 2, 0, net.w - 1);
      const float v = given[(c * net.h + from_h) * net.w + from_w];
      x[i] = o.parts == Parts::pixels ? (v - units.offset[size_t(c)]) / units.scale[size_t(c)] : v / float(parts.unit(size_t(c)));
    }
    write_nchw(ctx, x.data(), on_canvas(z));
    return;
  }
  const int64_t item = parts.item();
  const std::vector<float> middle(static_cast<size_t>(item), float(o.start_mean));
  const Memory mean = ctx.allocate(middle.size() * sizeof(float));
  ctx.copy_in(mean.data(), middle.data(), mean.size());
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

// Where each item's part of the canvas lies in this step; `still`: the middle, upright.
void Dream::place(std::span<const Drive> drives, int64_t step, bool still) {
  std::vector<float> all;
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
void Dream::see(std::span<const Drive> drives, int64_t step, bool still) {
  parts.forward(z.as<float>(), on_canvas(canvas));
  const View in = plan.input(n);
  if (margin > 0 || (moves() && !still)) {
    place(drives, step, still);
    affine_forward(ctx, maps.as<float>(), parts.fill(), on_canvas(canvas), in);
  } else {
    ctx.copy(in.data, canvas.data(), canvas.size());
  }
  plan.forward(&tape);
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
  if (!levels.empty()) mix(ctx, -float(o.edges), levels[0].view(levels[0].gradient), 1, on_canvas(dcanvas));
}

// The gradient at the network's input.
ConstView Dream::gradient(const Goal& goal, ReluRule rule) {
  goal.seed(backward.seed(n));
  return backward.run(tape, {.rule = rule});
}

// `step`: of this optimiser, from 1; `late`: of the further ones.
void Dream::ascend(int64_t step, bool late) {
  const View x = image(z), g = image(dz);
  if (o.natural.tv_weight > 0 || o.natural.range_weight > 0) {
    NaturalPrior prior = o.natural;
    prior.tv_weight /= float(net.h * net.w);
    prior.range_weight /= float(net.h * net.w);
    prior.sign = -1;
    add_natural_gradient(ctx, prior, x, g);
  }
  const float* limit = limits.as<float>();
  const PixelRange range{limit, limit + net.c, limit + 2 * net.c};
  switch (o.update) {
    case Update::optimizer:
      optimizer_step(ctx, o.optimizer, -o.lr, step,
                     {z.as<float>(), dz.as<float>(), state0.size() ? state0.as<float>() : nullptr,
                      state1.size() ? state1.as<float>() : nullptr, n * parts.item()});
      if (o.decay > 0) mix(ctx, 0, x, float(1 - o.decay), x);
      break;
    case Update::capped:
      image_step(ctx, {.rule = ImageStep::Rule::capped, .step = float(o.lr), .decay = float(o.decay)}, range, nullptr, g, {}, x);
      break;
    case Update::momentum:
      momentum_step(ctx, {.rate = float(late ? o.lr / 10 : o.lr), .most = float(o.most_norm)}, g, state0.as<float>(),
                    state1.as<float>(), x);
      break;
  }
  if (o.blur > 0 && step % o.blur_every == 0) {
    ctx.copy(spare.data(), z.data(), z.size());
    filter_image(ctx, gaussian_filter(o.blur), image(spare), x);
  }
  if (o.small.percentile > 0) clip_small_pixels(ctx, o.small, g, x);
}

// Steps on the images that are there. `first`: of these images in `out`.
void Dream::run(std::span<const Drive> drives, const Goal& goal, int64_t steps, int64_t& done, Maximized& out, int64_t first,
                int64_t total) {
  const int64_t item = parts.item();
  std::vector<double> top(size_t(n), -std::numeric_limits<double>::infinity());
  for (int64_t k = 1; k <= steps; ++k, ++done) {
    const bool late = o.more_steps > 0 && k > steps - o.more_steps;
    if (o.clip_pixels) {  // before the gradient is taken, as in Yosinski's program
      const float* limit = limits.as<float>();
      ctx.zero(dz.data(), dz.size());
      image_step(ctx, {.step = 0}, {limit, limit + net.c, limit + 2 * net.c}, nullptr, image(dz), {}, image(z));
    }
    see(drives, done, late);
    if (!ctx.gpu || o.keep_best || k == 1 || k % kCheckOnGpu == 0) {
      const std::vector<double> values = goal.value(n);
      for (int64_t i = 0; i < n; ++i) {
        Driven& d = out.items[size_t(first + i)];
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
    }
    ConstView g = gradient(goal, kGradient);
    const auto zero_items = [&](ConstView v) {
      Tensor values({n, net.c, net.h, net.w});
      read_nchw(ctx, v, values.data());
      std::vector<bool> zero;
      for (int64_t i = 0; i < n; ++i)
        zero.push_back(std::all_of(values.data() + i * net.item(), values.data() + (i + 1) * net.item(), [](float x) { return x == 0; }));
      return std::pair(std::move(values), std::move(zero));
    };
    if (done < std::max<int64_t>(1, o.redirect) || k == steps) {
      auto [values, zero] = zero_items(g);
      for (int64_t i = 0; i < n; ++i) {
        Driven& d = out.items[size_t(first + i)];
        d.dead = zero[size_t(i)] && (done == 0 || d.dead);
      }
      if (done < o.redirect && std::find(zero.begin(), zero.end(), true) != zero.end()) {
        Tensor open({n, net.c, net.h, net.w});
        const ConstView all = gradient(goal, kOpen);
        read_nchw(ctx, all, open.data());
        for (int64_t i = 0; i < n; ++i)
          if (zero[size_t(i)]) std::copy_n(open.data() + i * net.item(), net.item(), values.data() + i * net.item());
        write_nchw(ctx, values.data(), {const_cast<void*>(all.data), all.shape, all.dtype});
        g = all;
      }
    }
    if (margin > 0 || (moves() && !late))
      affine_backward(ctx, maps.as<float>(), g, on_canvas(dcanvas));
    else
      ctx.copy(dcanvas.data(), g.data, dcanvas.size());
    if (o.edges > 0) add_edges();
    parts.backward(z.as<float>(), on_canvas(dcanvas), dz.as<float>());
    ascend(k, late);
    if (o.frames > 0 && (done + 1) * o.frames / total != done * o.frames / total) {
      if (first == 0) {
        out.frames.emplace_back(Dims{int64_t(out.items.size()), net.c, net.h, net.w});
        out.frame_steps.push_back(done + 1);
      }
      const size_t frame = size_t((done + 1) * o.frames / total - 1);
      Tensor& all = out.frames[frame];
      if (all.dim(2) == net.h && all.dim(3) == net.w) read(drives, all.data() + first * net.item());
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
  const View middle{spare.data(), net, DType::f32};
  affine_forward(ctx, maps.as<float>(), parts.fill(), on_canvas(canvas), middle);
  read_nchw(ctx, middle, to);
}

// What is to be driven, over the node's values, NCHW: [n, C·H·W].
std::vector<float> directions(std::span<const Drive> drives, Shape out, bool mean) {
  std::vector<float> all(drives.size() * size_t(out.item()), 0.f);
  const int64_t map = out.h * out.w;
  for (size_t i = 0; i < drives.size(); ++i) {
    const Drive& d = drives[i];
    float* to = all.data() + i * size_t(out.item());
    const float each = mean && d.unit.row < 0 ? 1.f / float(map) : 1.f;
    if (!d.direction.empty())
      CHECK(int64_t(d.direction.size()) == out.c, "a direction of {} numbers for {} channels", d.direction.size(), out.c);
    for (int64_t c = 0; c < out.c; ++c) {
      const float v = d.direction.empty() ? (c == d.unit.channel ? 1.f : 0.f) : d.direction[size_t(c)];
      if (v == 0) continue;
      if (d.unit.row >= 0) to[c * map + d.unit.row * out.w + d.unit.col] = v;
      else std::fill_n(to + c * map, map, each * v);
    }
  }
  return all;
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
    CHECK(h * w * double(channels) < 1e8, "images of {}x{} are too large", h, w);
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
  const Shape last = sizes.back();
  out.x = allocate_maps({images, channels, last.h, last.w});
  out.batch = batch_size(ctx, cut, last, {.precision = o.precision, .observe = {}}, o, images);
  const int64_t margin = o.parts == Parts::fourier || o.rotate > 0 || o.zoom > 0 ? 0 : o.jitter;
  for (int64_t first = 0; first < images; first += out.batch) {
    const int64_t n = std::min(out.batch, images - first);
    const std::span<const Drive> part = drives.subspan(size_t(first), size_t(n));
    std::unique_ptr<Dream> dream;
    int64_t done = 0;
    for (int64_t s = 0; s < o.scales; ++s) {
      auto larger = std::make_unique<Dream>(ctx, cut, sizes[size_t(s)], o, n, margin);
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
      const Goal goal = make_goal(*dream, part);
      dream->run(part, goal, steps_of(o, s), done, out, first, total);
    }
    Dream& d = *dream;
    d.see(part, 0, true);
    const Goal goal = make_goal(d, part);
    const std::vector<double> values = goal.value(n);
    for (int64_t i = 0; i < n; ++i) out.items[size_t(first + i)].value = values[size_t(i)];
    d.read(part, out.x.data() + first * last.item());
  }
  return out;
}

}  // namespace

Maximized maximize(Context& ctx, const Model& model, std::span<const Drive> drives, const Tensor& start,
                   const MaximizeOptions& options) {
  const MaximizeOptions o = checked(options, first_size(model, options));
  CHECK(!drives.empty(), "no unit to drive");
  const int node = drives[0].unit.node;
  for (const Drive& d : drives) CHECK(d.unit.node == node, "units of several layers");
  const Model cut = cut_to(model, node);
  if (!start.empty() && o.parts == Parts::fourier)
    throw Error("--start FILE wants an image of pixels", "--parametrisation pixels", true);
  const auto make_goal = [&](Dream& dream, std::span<const Drive> part) {
    Shape out = dream.plan.shapes()[size_t(node)].with_n(dream.n);
    auto wanted = std::make_shared<std::vector<float>>(directions(part, out, o.mean));
    auto seeds = std::make_shared<Memory>(dream.floats(out.count()));
    std::vector<float> weighted = *wanted;
    for (float& v : weighted) v *= float(o.weight);
    write_nchw(ctx, weighted.data(), {seeds->data(), out, DType::f32});
    return Goal{[&ctx, seeds](View seed) { ctx.copy(seed.data, seeds->data(), seeds->size()); },
                [&dream, wanted, out, node](int64_t n) {
                  const Tensor values = dream.plan.read(node);
                  std::vector<double> sums(size_t(n), 0);
                  for (int64_t i = 0; i < n; ++i)
                    for (int64_t e = i * out.item(); e < (i + 1) * out.item(); ++e)
                      if ((*wanted)[size_t(e)] != 0) sums[size_t(i)] += double((*wanted)[size_t(e)]) * double(values[e]);
                  return sums;
                }};
  };
  return optimise(ctx, cut, drives, start, o, make_goal);
}

Inverted invert(Context& ctx, const Model& model, const Tensor& photo, int node, bool caricature,
                const std::vector<int64_t>& channels, const MaximizeOptions& options) {
  const Shape size{1, photo.dim(1), photo.dim(2), photo.dim(3)};
  const MaximizeOptions o = checked(options, {size.h, size.w});
  const Shape image = image_shape(model.network, photo);
  CHECK(photo.dim(0) == 1 && o.scales == 1, "one image, of one size");
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

double mahendran_rate(int64_t h, int64_t w) { return double(h * w) * 0.05 * 80 * 80 / 6; }

MaximizeOptions recipe(std::string_view name) {
  MaximizeOptions o;
  if (name == "fleuret") {
    o.edges = 1;
    return o;
  }
  if (name == "amirli") {
    o.parts = Parts::pixels;
    o.start_mean = 128. / 255, o.start_noise = 0, o.start_span = 20. / 255;
    o.optimizer.weight_decay = 1e-6;
    o.mean = true;
    o.steps = 20, o.late_steps = 26, o.scales = 12, o.growth = 1.2;
    o.size = {56, 56};
    return o;
  }
  if (name.starts_with("yosinski")) {
    o.parts = Parts::bytes;
    o.start_noise = 10;
    o.update = MaximizeOptions::Update::capped;
    o.clip_pixels = o.keep_best = true;
    if (name == "yosinski") o.decay = 1e-4, o.blur = 1, o.steps = 1000, o.lr = 100;
    else if (name == "yosinski-norm") o.blur = 0.5, o.small = {SmallPixels::By::norm, 50}, o.steps = 500, o.lr = 100;
    else if (name == "yosinski-decay") o.decay = 0.3, o.small = {SmallPixels::By::norm, 20}, o.steps = 750, o.lr = 100;
    else if (name == "yosinski-contribution") o.blur = 0.5, o.small = {SmallPixels::By::contribution, 90}, o.steps = 1000, o.lr = 1e8;
    if (o.steps != 250) return o;
  }
  if (name == "mahendran") {
    constexpr double kBound = 80, kVariation = kBound / 6.5;
    o.parts = Parts::bytes;
    o.update = MaximizeOptions::Update::momentum;
    o.natural = {.range_weight = 1, .bound = float(kBound), .alpha = 6, .tv_weight = float(1 / (kVariation * kVariation)), .beta = 2};
    o.most_norm = 2 * kBound;
    const double reach = kBound / std::sqrt(3) / 0.95;  // 95 % of U(−1, 1) are within 0.95
    o.start_noise = 0, o.start_mean = -reach, o.start_span = 2 * reach;
    o.lr = 0;  // by the size: mahendran_rate
    o.weight = 10;
    o.steps = 300;
    o.jitter = 4;
    return o;
  }
  if (name == "lucid") {
    o.parts = Parts::fourier;
    o.decorrelated = true;
    o.mean = true;
    o.lr = 0.05, o.steps = 512;
    o.jitter = 12, o.rotate = 10, o.zoom = 0.1;
    o.redirect = 16;
    return o;
  }
  throw Error(fmt::format("unknown recipe '{}'", name), fmt::format("one of {}", fmt::join(recipe_names(), ", ")), true);
}

std::vector<std::string> recipe_names() {
  return {"lucid", "fleuret", "amirli", "yosinski", "yosinski-norm", "yosinski-decay", "yosinski-contribution", "mahendran"};
}

ImageMeasures measure_image(const Model& model, const float* x, Shape image) {
  const PixelUnits units = pixel_units(model, image.c);
  ImageMeasures m;
  const int64_t map = image.h * image.w;
  for (int64_t c = 0; c < image.c; ++c) {
    std::vector<double> v(static_cast<size_t>(map));
    double mean = 0;
    for (int64_t i = 0; i < map; ++i) {
      v[size_t(i)] = (double(x[c * map + i]) - double(units.offset[size_t(c)])) / double(units.scale[size_t(c)]);
      mean += v[size_t(i)] / double(map);
    }
    for (int64_t i = 0; i < map; ++i) m.norm += std::pow(v[size_t(i)] - mean, 2);
    int64_t h = image.h, w = image.w;
    for (int64_t i = 0; i < map; ++i) {
      const double d1 = i % w + 1 < w ? v[size_t(i + 1)] - v[size_t(i)] : 0, d2 = i / w + 1 < h ? v[size_t(i + w)] - v[size_t(i)] : 0;
      m.variation += std::hypot(d1, d2);
    }
    constexpr double kTaps[5] = {1. / 16, 4. / 16, 6. / 16, 4. / 16, 1. / 16};
    while (std::min(h, w) > 5) {
      const auto at = [&](int64_t i, int64_t j) { return i < 0 || j < 0 || i >= h || j >= w ? 0.0 : v[size_t(i * w + j)]; };
      for (int64_t i = 0; i < h; ++i)
        for (int64_t j = 0; j < w; ++j) {
          double blurred = 0;
          for (int64_t a = -2; a <= 2; ++a)
            for (int64_t b = -2; b <= 2; ++b) blurred += kTaps[a + 2] * kTaps[b + 2] * at(i + a, j + b);
          m.edges += std::pow(at(i, j) - blurred, 2);
        }
      const int64_t half_h = h / 2 + 1, half_w = w / 2 + 1;
      std::vector<double> half(static_cast<size_t>(half_h * half_w));
      for (int64_t i = 0; i < half_h; ++i)
        for (int64_t j = 0; j < half_w; ++j)
          half[size_t(i * half_w + j)] =
              (at(2 * i - 1, 2 * j - 1) + at(2 * i - 1, 2 * j) + at(2 * i, 2 * j - 1) + at(2 * i, 2 * j)) / 4;
      v = std::move(half);
      h = half_h, w = half_w;
    }
  }
  m.norm = std::sqrt(m.norm);
  return m;
}

}  // namespace switchback
