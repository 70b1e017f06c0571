#include "viz/batches.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/noise.h"
#include "kernels/pointwise.h"

namespace switchback {
namespace {

// Beyond about the pixels of 16 images of 224x224, a CPU gains nothing from larger batches.
int64_t useful_batch(Shape image) {
  constexpr int64_t kElements = 16 * 3 * 224 * 224;
  return std::clamp<int64_t>(kElements / std::max<int64_t>(1, image.item()), 16, 512);
}

}  // namespace

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
                fmt::format("{} takes [N,{},{},{}]", network.name, network.input.c, network.input.h, network.input.w));
  network.shapes(image);
}

int64_t batch_size(Context& ctx, const Network& network, Shape image, const PlanOptions& plan,
                   const RunOptions& options, int64_t most) {
  if (options.batch > 0) return std::min(options.batch, most);
  const int64_t cap = std::min(most, useful_batch(image));
  const int64_t fits = choose_batch(ctx, network, image, plan, options.memory, 1, cap);
  const int64_t rounds = (most + fits - 1) / fits;
  return (most + rounds - 1) / rounds;  // rounds of equal size
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

Explained explain(const Network& network, const TargetSpec& target, const Tensor& values,
                  const std::vector<std::string>& labels) {
  Explained out;
  out.units = resolve_target(network, target, values, labels);
  const bool classes = values.dims().size() == 2 && target_node(network, target) == logit_node(network);
  const std::vector<double> p = classes ? softmax(values.values()) : std::vector<double>();
  for (const Unit& unit : out.units) {
    out.scores.push_back(score_of(unit, target.score, values));
    out.probabilities.push_back(classes ? p[size_t(unit.channel)] : std::numeric_limits<double>::quiet_NaN());
  }
  return out;
}

Sampler::Sampler(Context& ctx, const Network& network, Shape image, const TargetSpec& target, const RunOptions& options,
                 int64_t samples)
    : ctx(ctx),
      node(target_node(network, target)),
      score(target.score),
      batch(batch_size(ctx, network, image, {.precision = options.precision, .observe = {node}}, options, samples)),
      plan(ctx, network, image.with_n(batch), {.precision = options.precision, .observe = {node}}),
      backward(plan, node, 0, batch) {}

Tensor Sampler::clean(const float* image) {
  nchw_to_nhwc(ctx, image, plan.input(1));
  plan.forward(&tape);
  return plan.read(node);
}

void Sampler::accumulate(const std::vector<Unit>& units, ReluRule rule, int64_t samples,
                         const std::function<void(int64_t, View)>& write, std::vector<double>& sum,
                         std::vector<double>& square, const std::function<void(int64_t)>& progress) {
  const int64_t item = plan.shapes()[0].item();
  sum.assign(units.size() * size_t(item), 0);
  if (!square.empty()) square.assign(sum.size(), 0);
  for (int64_t first = 0; first < samples; first += batch) {
    const int64_t n = std::min(batch, samples - first);
    write(first, plan.input(n));
    plan.forward(&tape);
    // Read before the seeds are written, which reuse the arena.
    const Tensor values = score == Score::logit ? Tensor() : plan.read(node);
    for (size_t t = 0; t < units.size(); ++t) {
      write_seeds(ctx, std::vector<Unit>(size_t(n), units[t]), score, values, 1, backward.seed(n));
      const ConstView g = backward.run(tape, rule);
      accumulate_moments(ctx, g, sum.data() + t * size_t(item),
                         square.empty() ? nullptr : square.data() + t * size_t(item));
    }
    progress(first + n);
  }
}

}  // namespace switchback
