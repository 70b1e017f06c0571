#include "viz/methods/gradient.h"

#include <algorithm>

#include "kernels/pointwise/pointwise.h"
#include "viz/methods/batches.h"

namespace switchback {
namespace {

// Items first … first + n of a batch.
ConstView items(ConstView v, int64_t first, int64_t n) {
  const size_t bytes = size_t(v.shape.item()) * size_of(v.dtype);
  return {static_cast<const char*>(v.data) + size_t(first) * bytes, v.shape.with_n(n), v.dtype};
}

// How the work is cut: `items` images per forward pass, `seeds` targets of each per backward pass.
struct Split {
  int64_t items, seeds;
};

Split split(Context& ctx, const Model& model, Shape image, const PlanOptions& plan, const GradientOptions& options,
            int64_t images, int64_t targets) {
  const bool one_batch = !options.save_tape.empty() || !options.load_tape.empty();
  if (one_batch && options.batch > 0 && options.batch < images)
    throw Error(
        fmt::format("a tape file holds one batch, but {} images do not fit into --batch {}", images, options.batch),
        "leave out --batch or give fewer images", true);
  const int64_t passes = batch_size(ctx, model, image, plan, options, std::max(images, targets));
  const int64_t seeds = std::min(targets, passes);
  return {one_batch ? images : std::min(images, std::max<int64_t>(1, passes / seeds)), seeds};
}

}  // namespace

Maps gradient(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
              const std::vector<std::string>& labels, const GradientOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0), targets = check_target(network, image, target, labels);
  const int node = target_node(network, target);
  const PlanOptions plan_options{.precision = options.precision, .observe = {node}};
  const Split cut = split(ctx, model, image, plan_options, options, images, targets);
  Plan plan(ctx, model, image.with_n(cut.items), plan_options);
  Backward backward(plan, node, {.nodes = {0}}, cut.items * cut.seeds);
  Tape tape;
  Maps maps;
  maps.batch = cut.items;
  maps.values = allocate_maps({images, targets, image.c, image.h, image.w});
  for (int64_t first = 0; first < images; first += cut.items) {
    const int64_t n = std::min(cut.items, images - first);
    plan.write(x.data() + first * image.item(), n);
    plan.forward(&tape);
    if (!options.load_tape.empty()) load_tape(ctx, network, tape, options.load_tape);
    if (!options.save_tape.empty()) save_tape(ctx, network, tape, options.save_tape);
    const Tensor values = plan.read(node);
    for (int64_t i = 0; i < n; ++i) maps.explained.push_back(explain(network, target, batch_item(values, i), labels));
    for (int64_t t = 0; t < targets; t += cut.seeds) {
      const int64_t seeds = std::min(cut.seeds, targets - t);
      std::vector<Unit> units;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t k = 0; k < seeds; ++k) units.push_back(maps.explained[size_t(first + i)].units[size_t(t + k)]);
      write_seeds(ctx, units, scoring_of(network, target), values, seeds, backward.seed(n * seeds));
      const ConstView g = backward.run(tape, {.rule = options.rule, .seeds_per_item = seeds});
      for (int64_t i = 0; i < n; ++i)
        read_nchw(ctx, items(g, i * seeds, seeds), maps.values.data() + ((first + i) * targets + t) * image.item());
    }
    if (options.times_input)
      for (int64_t i = first; i < first + n; ++i)
        multiply_maps(maps.values.values().subspan(size_t(i * targets * image.item()), size_t(targets * image.item())),
                      x.data() + i * image.item(), image.item());
    if (options.progress) options.progress(first + n, images);
  }
  return maps;
}

}  // namespace switchback
