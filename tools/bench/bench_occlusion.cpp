// Occlusion for `switchback bench`. A whole grid of places takes minutes, so a sample of them is timed and the time of
// all is estimated from it, without bias:
//   full         every place costs the same: any few of them
//   incremental  places fall into groups of equal windows, and a group pays once for its plan, so groups are drawn as a
//                whole. Some are drawn at equal distances along the list of all places, groups in the order of their
//                arithmetic, from a random start: each is drawn in proportion to its size, and the mean over the draws
//                of a group's time per place has the mean over all places as its expectation. The order makes it vary
//                little. (Systematic sampling with probabilities proportional to size.)
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "tools/bench/bench_ops.h"
#include "tools/bench/bench_values.h"
#include "viz/methods/occlusion_runs.h"

namespace switchback {
namespace {

struct Draw {
  int64_t group;
  double weight;  // groups that it stands for
};

// About `positions` places in whole groups of these sizes; all groups where that is all places.
std::vector<Draw> draw_groups(const std::vector<int64_t>& sizes, const std::vector<double>& flops, int64_t positions,
                              uint64_t seed) {
  std::vector<int64_t> order(sizes.size());
  std::iota(order.begin(), order.end(), int64_t(0));
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return flops[size_t(a)] < flops[size_t(b)]; });
  double places = 0, squares = 0;
  for (int64_t size : sizes) places += double(size), squares += double(size) * double(size);
  std::vector<Draw> draws;
  if (double(positions) >= places) {
    for (int64_t group : order) draws.push_back({group, 1});
    return draws;
  }
  const double count = std::max(1.0, std::round(double(positions) * places / squares)), distance = places / count;
  std::mt19937_64 random(seed);
  double next = double(random() >> 11) * 0x1p-53 * distance, end = 0;
  for (int64_t group : order) {
    const double size = double(sizes[size_t(group)]);
    double hits = 0;
    for (end += size; next < end; next += distance) ++hits;
    if (hits > 0) draws.push_back({group, hits * distance / size});
  }
  return draws;
}

struct GridWork {
  GridWork(Job& job, const BenchOptions& o) : job(job), node(logit_node(job.model.network)) {
    static_cast<RunOptions&>(options) = job.run;
    std::tie(options.mask_h, options.mask_w) = parse_size("--mask", o.mask);
    std::tie(options.stride_h, options.stride_w) = parse_size("--stride", o.stride);
    options.fill = parse_fill(o.fill);
    image = job.model.network.input;
    pixels = bench_images(job, image, 1);
    grid = occlusion_places(options, image);
    positions = int64_t(grid.boxes.size());
    if (o.positions != "all")
      positions = std::min(positions, parse_whole("--positions", o.positions, 1, int64_t(1) << 40));
  }

  Work work(std::function<double()> estimate, double flops) {
    Work work;
    work.estimate = std::move(estimate);
    work.items = double(grid.boxes.size());
    work.item = "position";
    work.flops = flops;
    work.details = {{"mask", {options.mask_h, options.mask_w}},
                    {"stride", {options.stride_h, options.stride_w}},
                    {"rows", grid.rows},
                    {"cols", grid.cols}};
    return work;
  }

  Job& job;
  int node;
  OcclusionOptions options;
  Shape image;
  std::vector<float> pixels;
  Places grid;
  int64_t positions;
};

struct IncrementalWork : GridWork {
  IncrementalWork(Job& job, const BenchOptions& o)
      : GridWork(job, o),
        method(job.ctx, job.model, image, node, options, grid),
        filled(baseline(options.fill, pixels.data(), image)) {
    std::vector<int64_t> sizes;
    std::vector<double> counts;
    for (int64_t i = 0; i < method.groups(); ++i) {
      sizes.push_back(int64_t(method.group(i).size()));
      counts.push_back(method.place_flops(i));
      flops += counts.back() * double(sizes.back());
    }
    draws = draw_groups(sizes, counts, positions, parse_seed(o.seed));
    for (const Draw& d : draws) {
      timed += sizes[size_t(d.group)];
      sample_flops += d.weight * double(sizes[size_t(d.group)]) * counts[size_t(d.group)];
    }
  }

  double seconds() {
    double start = clock_seconds();
    method.set_image(pixels.data(), filled);
    double sum = clock_seconds() - start;
    for (const Draw& d : draws) {
      start = clock_seconds();
      method.run_group(d.group, [](std::span<const size_t>, const Tensor&) {});
      sum += d.weight * (clock_seconds() - start);
    }
    return sum;
  }

  IncrementalOcclusion method;
  Tensor filled;
  double flops = 0, sample_flops = 0;  // of the whole grid: counted, and estimated as its time is
  std::vector<Draw> draws;
  int64_t timed = 0;
};

struct FullWork : GridWork {
  FullWork(Job& job, const BenchOptions& o)
      : GridWork(job, o),
        sample(sampled(parse_seed(o.seed))),
        method(job.ctx, job.model, image, node, options, sample),
        filled(baseline(options.fill, pixels.data(), image)) {}

  Places sampled(uint64_t seed) const {
    Places some = grid;
    std::mt19937_64 random(seed);
    std::shuffle(some.boxes.begin(), some.boxes.end(), random);
    some.boxes.resize(size_t(positions));
    return some;
  }

  double seconds() {
    const double start = clock_seconds();
    method.set_image(pixels.data(), filled);
    const double middle = clock_seconds();
    method.run([](std::span<const size_t>, const Tensor&) {});
    const double share = double(grid.boxes.size()) / double(sample.boxes.size());
    return middle - start + share * (clock_seconds() - middle);
  }

  Places sample;
  FullOcclusion method;
  Tensor filled;
};

Work incremental_work(Job& job, const BenchOptions& o) {
  auto state = std::make_shared<IncrementalWork>(job, o);
  Work work = state->work([state] { return state->seconds(); }, state->flops);
  const double full = state->method.full_flops();
  work.details.update({{"positions_timed", state->timed},
                       {"window_groups", state->method.groups()},
                       {"window_groups_timed", state->draws.size()},
                       {"sample_flops_share", state->sample_flops / state->flops},
                       {"full_flops_per_item", full},
                       {"flop_ratio", full * work.items / work.flops}});
  work.after = [state](Json& details) { details["batch"] = state->method.batch; };
  return work;
}

Work full_work(Job& job, const BenchOptions& o) {
  auto state = std::make_shared<FullWork>(job, o);
  const IncrementalOcclusion counts(job.ctx, job.model, state->image, state->node, state->options,
                                    state->sample);
  Work work = state->work([state] { return state->seconds(); }, counts.full_flops() * double(state->grid.boxes.size()));
  work.details.update({{"positions_timed", state->sample.boxes.size()}, {"batch", state->method.batch}});
  return work;
}

}  // namespace

Work occlusion_work(Job& job, const BenchOptions& o) {
  const std::string algorithm = o.algorithm.empty() ? "incremental" : o.algorithm;
  check_choice("--algorithm", algorithm, {"incremental", "full"});
  Work work = algorithm == "full" ? full_work(job, o) : incremental_work(job, o);
  work.details["algorithm"] = algorithm;
  work.details["fill"] = o.fill;
  return work;
}

}  // namespace switchback
