#include "viz/methods/occlusion_runs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "viz/methods/batches.h"

namespace switchback {
namespace {

// Beyond these, a CPU's caches gain nothing from more places at a time; a GPU wants more.
int64_t useful_places(const Context& ctx) { return ctx.gpu ? 256 : 16; }

// Groups of about 32 places and more: each has its own patch sizes, and in the fullest batches.
int classes_for(size_t places) { return std::clamp(int(std::sqrt(double(places) / 32)), 1, 24); }

// Places in one run of a group: as asked for, or what memory allows and still gains, in runs of equal size.
int64_t run_size(const OcclusionOptions& options, int64_t useful, size_t one, size_t limit, int64_t places) {
  int64_t n = options.batch;
  if (n <= 0) {
    if (one > limit)
      throw Error(fmt::format("one place of the mask needs {} MiB, {} MiB are allowed", (one >> 20) + 1, limit >> 20),
                  "allow more with --memory, or use a smaller input");
    n = std::min<int64_t>(useful, int64_t(limit / std::max<size_t>(one, 1)));
  }
  const int64_t rounds = (places + n - 1) / n;
  return (places + rounds - 1) / rounds;
}

}  // namespace

IncrementalOcclusion::IncrementalOcclusion(Context& ctx, const Model& model, Shape image, int node,
                                           const OcclusionOptions& options, const Places& places)
    : options_(options),
      places_(places),
      shared_(ctx, model, image, options.precision, node),
      groups_(group_boxes(shared_, places.boxes, classes_for(places.boxes.size()))) {}

const Tensor& IncrementalOcclusion::set_image(const float* x, const Tensor& filled) {
  shared_.set_image(x, filled.data());
  return shared_.clean_target();
}

void IncrementalOcclusion::run(const OccludedValues& body) {
  double flops = 0;
  for (int64_t i = 0; i < groups(); ++i)
    flops += (options_.pieces.given ? place_flops(i) : run_group(i, body)) * double(group(i).size());
  flop_ratio = flops > 0 ? full_flops() * double(places_.boxes.size()) / flops : 1;
}

double IncrementalOcclusion::run_group(int64_t i, const OccludedValues& body) {
  const std::vector<size_t>& places = group(i);
  const std::vector<Box> boxes = boxes_of(i);
  const size_t limit = options_.memory ? options_.memory : free_memory(shared_.context()) / 2;
  const size_t one = PatchPlan(shared_, boxes, 1).bytes();
  int64_t n = run_size(options_, useful_places(shared_.context()), one, limit, int64_t(places.size()));
  const std::unique_ptr<PatchPlan> plan = make_plan(boxes, n);
  batch = std::max(batch, n);
  // Of a run that is divided its share of each group, whose plan is that of the whole run.
  const size_t end = size_t(options_.pieces.last_of(int64_t(places.size())));
  for (size_t first = size_t(options_.pieces.first_of(int64_t(places.size()))); first < end; first += size_t(n)) {
    const size_t count = std::min(size_t(n), end - first);
    body(std::span(places).subspan(first, count), plan->run(std::span(boxes).subspan(first, count)));
  }
  return plan->flops();
}

double IncrementalOcclusion::place_flops(int64_t i) { return PatchPlan(shared_, boxes_of(i), 1).flops(); }

double IncrementalOcclusion::full_flops() const {
  double sum = 0;
  for (const Step& step : shared_.steps()) sum += shared_.flops(step);
  return sum;
}

std::vector<Box> IncrementalOcclusion::boxes_of(int64_t i) const {
  std::vector<Box> boxes;
  for (size_t place : group(i)) boxes.push_back(places_.boxes[place]);
  return boxes;
}

// With half as many places, again and again, where the device turns out to have less memory.
std::unique_ptr<PatchPlan> IncrementalOcclusion::make_plan(const std::vector<Box>& boxes, int64_t& n) {
  std::unique_ptr<PatchPlan> plan;
  const auto make = [&] {
    plan = std::make_unique<PatchPlan>(shared_, boxes, n);
    return Trial{0, [&] { plan->reserve(); }};
  };
  fit(SIZE_MAX, "a place of the mask", make, [&](bool) { return n > 1 && (n = (n + 1) / 2, true); });
  return plan;
}

FullOcclusion::FullOcclusion(Context& ctx, const Model& model, Shape image, int node,
                             const OcclusionOptions& options, const Places& places)
    : ctx_(ctx),
      node_(node),
      image_(image),
      places_(places),
      pieces_(options.pieces),
      plan_options_{.precision = options.precision, .observe = {node}, .tape = false, .given = {0}},
      batch(batch_size(ctx, model, image, plan_options_, options,
                       options.batch > 0 ? int64_t(places.boxes.size())
                                         : std::min(int64_t(places.boxes.size()), useful_places(ctx)))),
      plan_(ctx, model, image.with_n(batch), plan_options_),
      pixels_(ctx.allocate(bytes())),
      filled_(ctx.allocate(bytes())),
      boxes_(ctx.allocate(size_t(batch) * sizeof(Box))) {}

Tensor FullOcclusion::set_image(const float* x, const Tensor& filled) {
  write_nchw(ctx_, x, {pixels_.data(), image_, type()});
  write_nchw(ctx_, filled.data(), {filled_.data(), image_, type()});
  plan_.given(0, 1);
  ctx_.copy(plan_.given(0, 1).data, pixels_.data(), bytes());
  plan_.forward();
  return plan_.read(node_);
}

void FullOcclusion::run(const OccludedValues& body) {
  std::vector<size_t> all(places_.boxes.size());
  std::iota(all.begin(), all.end(), size_t(0));
  if (pieces_.given) return;
  const size_t end = size_t(pieces_.last_of(int64_t(all.size())));
  for (size_t first = size_t(pieces_.first_of(int64_t(all.size()))); first < end; first += size_t(batch)) {
    const size_t n = std::min(size_t(batch), end - first);
    ctx_.copy_in(boxes_.data(), places_.boxes.data() + first, n * sizeof(Box));
    occlude_images(ctx_, {pixels_.data(), image_, type()}, {filled_.data(), image_, type()}, boxes_.as<Box>(),
                   plan_.given(0, int64_t(n)));
    plan_.forward();
    body(std::span(all).subspan(first, n), plan_.read(node_));
  }
}

}  // namespace switchback
