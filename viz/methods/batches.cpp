#include "viz/methods/batches.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/learn/loss.h"
#include "kernels/noise/noise.h"

namespace switchback {
// Beyond about the pixels of 16 images of 224x224, a CPU gains nothing from larger batches; a GPU wants more.
int64_t useful_batch(const Context& ctx, Shape image) {
  constexpr int64_t kElements = 3 * 224 * 224;
  const int64_t images = ctx.gpu ? 128 : 16;
  return std::clamp<int64_t>(images * kElements / std::max<int64_t>(1, image.item()), images, 32 * images);
}

Shape image_shape(const Network& network, const Tensor& x) {
  const Dims& d = x.dims();
  CHECK(d.size() == 4 && d[0] > 0, "input of shape {}; [N,C,H,W] with N > 0 is wanted", to_string(d));
  const Shape image{1, d[1], d[2], d[3]};
  check_image_shape(network, image);
  return image;
}

void check_image_shape(const Network& network, Shape image) {
  if (image.c != network.input.c)
    throw Error(fmt::format("input with {} channels, but {} takes {}", image.c, network.name, network.input.c),
                network.input.h * network.input.w == 1
                    ? fmt::format("{} takes vectors [N,{}]", network.name, network.input.c)
                    : fmt::format("{} takes [N,{},{},{}]", network.name, network.input.c, network.input.h, network.input.w));
  network.shapes(image);
}

int64_t batch_size(Context& ctx, const Model& model, Shape image, const PlanOptions& plan,
                   const RunOptions& options, int64_t most) {
  int64_t n = std::min(options.batch, most);
  if (options.batch <= 0) {
    const int64_t cap = std::min(most, useful_batch(ctx, image));
    const int64_t fits = batch_within(ctx, model, image, plan, options.memory, cap);
    const int64_t rounds = (most + fits - 1) / fits;
    n = (most + rounds - 1) / rounds;  // rounds of equal size
  }
  return batch_to_be_had(ctx, model, image, plan, n);
}

Tensor allocate_maps(Dims dims) {
  double bytes = sizeof(float);
  for (int64_t d : dims) bytes *= double(d);
  const size_t available = free_memory();
  if (bytes > 1e15 || bytes > 0.9 * double(available))
    throw Error(fmt::format("maps of shape {} take {:.1f} GiB, more than the {:.1f} GiB that are free", to_string(dims),
                            bytes / double(1 << 30), double(available) / double(1 << 30)),
                "choose fewer targets or images at a time");
  return Tensor(std::move(dims));
}

void multiply_maps(std::span<float> maps, const float* x, int64_t item) {
  for (size_t i = 0; i < maps.size(); ++i) maps[i] *= x[int64_t(i) % item];
}

Memory floats_on_device(Context& ctx, const std::vector<float>& values) {
  Memory memory = ctx.allocate(values.size() * sizeof(float));
  ctx.copy_in(memory.data(), values.data(), memory.size());
  return memory;
}

Explained explain(const Network& network, const TargetSpec& target, const Tensor& values,
                  const std::vector<std::string>& labels) {
  Explained out;
  out.units = resolve_target(network, target, values, labels);
  const Scoring scoring = scoring_of(network, target);
  const bool vector = values.count() == values.dim(0) * values.dim(1);
  const bool answer = vector && target_node(network, target) == logit_node(network);
  const std::vector<double> p = answer ? probabilities(values.values(), scoring.outputs) : std::vector<double>();
  for (const Unit& unit : out.units) {
    out.scores.push_back(score_of(unit, scoring, values));
    out.probabilities.push_back(answer ? p[size_t(unit.channel)] : std::numeric_limits<double>::quiet_NaN());
  }
  return out;
}

Passes::Passes(Context& ctx, const Model& model, Shape image, int node, const RunOptions& options, int64_t most)
    : ctx(ctx),
      node(node),
      batch(batch_size(ctx, model, image, {.precision = options.precision, .observe = {node}}, options, most)),
      plan(ctx, model, image.with_n(batch), {.precision = options.precision, .observe = {node}}),
      backward(plan, node, {.nodes = {0}}, batch) {}

ClassPasses::ClassPasses(Context& ctx, const Model& model, Shape image, const RunOptions& options, int64_t most)
    : Passes(ctx, model, image, logit_node(model.network), options, most),
      units(pixel_units(model, image.c)),
      pixels(ctx, units),
      x(ctx.allocate(size_t(batch * image.item()) * sizeof(float))),
      losses(ctx.allocate(size_t(batch) * sizeof(double))),
      labels(ctx.allocate(size_t(batch) * sizeof(int32_t))),
      best(ctx.allocate(size_t(batch) * sizeof(int32_t))) {}

void ClassPasses::read(int64_t n) {
  const View in = plan.input(n);
  ctx.copy(in.data, x.data(), size_t(in.shape.count()) * sizeof(float));
  plan.forward(&tape);
  cross_entropy(ctx, {}, plan.value(node), labels.as<int32_t>(), 1, backward.seed(n), losses.as<double>(), best.as<int32_t>());
}

Sampler::Sampler(Context& ctx, const Model& model, Shape image, const TargetSpec& target, const RunOptions& options,
                 int64_t samples)
    : Passes(ctx, model, image, target_node(model.network, target), options, samples),
      scoring(scoring_of(model.network, target)),
      pixels(ctx.allocate(size_t(image.item()) * sizeof(float))),
      counter(ctx.allocate(sizeof(uint32_t))) {}

Tensor Sampler::value(const float* image) {
  plan.write(image, 1);
  plan.forward(&tape);
  return plan.read(node);
}

Tensor Sampler::clean(const float* image) {
  ctx.copy_in(pixels.data(), image, pixels.size());
  return value(image);
}

void Sampler::accumulate(const std::vector<Unit>& units, ReluRule rule, int64_t samples, bool by_counter,
                         const std::function<void(int64_t, View)>& write, std::vector<double>& sum,
                         std::vector<double>& square, const std::function<void(int64_t)>& progress,
                         const PiecesOfRun& pieces) {
  const size_t item = size_t(plan.shapes()[0].item());
  const Memory sums = ctx.allocate(units.size() * item * sizeof(double));
  const Memory squares = ctx.allocate(square.empty() ? 0 : sums.size());
  ctx.zero(sums.data(), sums.size());
  ctx.zero(squares.data(), squares.size());
  ctx.zero(counter.data(), sizeof(uint32_t));
  const int64_t begin = pieces.first_of(samples), end = pieces.last_of(samples);
  advance(ctx, counter.as<uint32_t>(), uint32_t(begin));
  std::vector<float> maps(pieces.keep ? size_t(batch) * item : 0);  // of one unit
  const auto keep = [&](ConstView g, int64_t first, size_t t) {
    read_nchw(ctx, g, maps.data());
    for (int64_t i = 0; i < g.shape.n; ++i)
      std::copy_n(maps.data() + size_t(i) * item, item,
                  pieces.keep->values.data() + (size_t(first - begin + i) * units.size() + t) * item);
  };
  for (int64_t i = begin; i < end && pieces.keep; ++i) pieces.keep->numbers.push_back(i);
  if (pieces.keep) pieces.keep->values.resize(size_t(end - begin) * units.size() * item);
  const auto step = [&](int64_t first, int64_t n) {
    write(by_counter ? 0 : first, plan.input(n));
    plan.forward(&tape);
    const Tensor values = scoring.score == Score::logit ? Tensor() : plan.read(node);
    for (size_t t = 0; t < units.size(); ++t) {
      write_seeds(ctx, std::vector<Unit>(size_t(n), units[t]), scoring, values, 1, backward.seed(n));
      const ConstView g = backward.run(tape, {.rule = rule});
      if (pieces.keep) keep(g, first, t);
      accumulate_moments(ctx, g, sums.as<double>() + t * item, square.empty() ? nullptr : squares.as<double>() + t * item);
    }
    if (by_counter) advance(ctx, counter.as<uint32_t>(), uint32_t(n));
  };
  Recording recording;
  for (int64_t first = begin; first < end; first += batch) {
    const int64_t n = std::min(batch, end - first);
    if (by_counter && !pieces.keep && scoring.score == Score::logit && n == batch)
      recording.run(ctx, [&] { step(first, n); });
    else
      step(first, n);
    ctx.synchronize();
    progress(first + n);
  }
  sum.resize(units.size() * item);
  ctx.copy_out(sum.data(), sums.data(), sums.size());
  if (!square.empty()) {
    square.resize(sum.size());
    ctx.copy_out(square.data(), squares.data(), squares.size());
  }
}

}  // namespace switchback
