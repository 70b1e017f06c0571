// The methods that `switchback bench --method` repeats. Plans, tapes and buffers are made before the clock starts, as
// they are reused between images in real runs; what is timed begins with the image in memory (NCHW f32) and ends with
// the map in memory.
#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "kernels/noise/noise.h"
#include "kernels/pointwise/pointwise.h"
#include "tools/bench/bench_ops.h"
#include "tools/bench/bench_values.h"
#include "tools/cli/inputs.h"
#include "tools/commands/map_methods.h"
#include "viz/methods/batches.h"
#include "viz/methods/inspect.h"
#include "viz/methods/maximize.h"

namespace switchback {
namespace {

// Forward passes at batch n and, with `seeds` > 0, that many backward passes for each image from the one tape.
struct Passes {
  Passes(Job& job, const PlanOptions& options, Shape image, int64_t n, int64_t seeds, ReluRule rule)
      : job(job),
        image(image),
        n(n),
        seeds(seeds),
        rule(rule),
        images(bench_images(job, this->image, n)),
        plan(job.ctx, job.model, this->image.with_n(n), options),
        input(job.ctx.allocate(images.size() * sizeof(float))) {
    node = logit_node(job.model.network);
    if (seeds > 0) {
      backward.emplace(plan, node, Wanted{.nodes = {0}}, n * seeds);
      map = Tensor({n * seeds, this->image.c, this->image.h, this->image.w});
      output = job.ctx.allocate(size_t(map.count()) * sizeof(float));
    }
  }

  void run() {
    Context& ctx = job.ctx;
    ctx.copy_in(input.data(), images.data(), input.size());
    recording.run(ctx, [&] {
      nchw_to_nhwc(ctx, input.as<float>(), plan.input(n));
      plan.forward(seeds > 0 ? &tape : nullptr);
      if (seeds == 0) return;
      const int64_t classes = plan.shapes()[size_t(node)].c;
      std::vector<SeedUnit> units;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t s = 0; s < seeds; ++s) units.push_back({s % classes});
      one_hot(ctx, backward->seed(n * seeds), units);
      nhwc_to_nchw(ctx, backward->run(tape, {.rule = rule, .seeds_per_item = seeds}), output.as<float>());
    });
    if (seeds == 0)
      logits = plan.read(node);
    else
      ctx.copy_out(map.data(), output.data(), output.size());
  }

  Job& job;
  Shape image;
  int64_t n, seeds;
  ReluRule rule;
  std::vector<float> images;
  Plan plan;
  Tape tape;
  int node = 0;
  Memory input, output;  // NCHW f32 on the device
  Recording recording;
  std::optional<Backward> backward;
  Tensor map, logits;
};

Work passes_work(Job& job, const BenchOptions& o) {
  const Network& network = job.model.network;
  const bool jacobian = o.method == "jacobian", forward = o.method == "forward" || o.method == "classify";
  const PlanOptions options{.precision = job.run.precision, .observe = {logit_node(network)}, .tape = !forward};
  const int64_t n = jacobian ? 1 : batch_size(job.ctx, job.model, network.input, options, job.run, 1 << 20);
  const int64_t seeds = forward ? 0 : jacobian ? network.shapes(network.input)[size_t(logit_node(network))].c : 1;
  auto passes = std::make_shared<Passes>(job, options, network.input, n, seeds, o.rule);
  const double flops = double(network.flops(passes->image));
  Work work{.once = [passes] { passes->run(); },
            .items = double(n),
            .item = jacobian ? "jacobian" : "image",
            .flops = double(n) * flops * double(1 + seeds)};
  work.details = {{"batch", n},
                  {"arena_bytes", passes->plan.arena_bytes()},
                  {"tape_bytes", forward ? 0 : passes->plan.tape_bytes()}};
  if (passes->backward) work.details["backward_arena_bytes"] = passes->backward->arena_bytes();
  if (jacobian) work.details["passes"] = seeds;
  return work;
}

// SmoothGrad and integrated gradients of one image; an item is one perturbed copy, forward and backward.
struct Samples {
  Samples(Job& job, int64_t count)
      : job(job),
        count(count),
        pixels(bench_images(job, image = job.model.network.input, 1)),
        sampler(job.ctx, job.model, image, {}, job.run, count),
        midpoints(job.ctx.allocate(size_t(count) * sizeof(float))) {
    std::vector<float> alpha;
    for (int64_t k = 0; k < count; ++k) alpha.push_back((float(k) + 0.5f) / float(count));
    job.ctx.copy_in(midpoints.data(), alpha.data(), midpoints.size());
  }

  void run(ReluRule rule, bool noisy) {
    const std::vector<Unit> units = {{sampler.node, 0}};
    const float* on_device = sampler.pixels.as<float>();
    job.ctx.copy_in(sampler.pixels.data(), pixels.data(), sampler.pixels.size());
    const auto write = [&](int64_t first, View input) {
      if (noisy)
        return write_noisy_input(job.ctx, on_device, {.sigma = 0.3f, .more_samples = sampler.counter.as<uint32_t>()},
                                 input);
      write_interpolated_input(job.ctx, on_device, nullptr, midpoints.as<float>() + first, input);
    };
    sampler.accumulate(units, rule, count, noisy, write, sum, none, [](int64_t) {});
  }

  Job& job;
  int64_t count;
  Shape image;
  std::vector<float> pixels;
  Sampler sampler;
  Memory midpoints;
  std::vector<double> sum, none;
};

Work samples_work(Job& job, const BenchOptions& o) {
  const bool noisy = o.method == "smoothgrad";
  const int64_t count = noisy ? o.samples : o.steps;
  auto samples = std::make_shared<Samples>(job, count);
  const ReluRule rule = o.rule;
  Work work{.once = [=] { samples->run(rule, noisy); },
            .items = double(count),
            .item = "sample",
            .flops = 2.0 * double(count) * double(job.model.network.flops(samples->image))};
  work.details = {{"batch", samples->sampler.batch},
                  {"samples", count},
                  {"arena_bytes", samples->sampler.plan.arena_bytes()},
                  {"backward_arena_bytes", samples->sampler.backward.arena_bytes()},
                  {"tape_bytes", samples->sampler.plan.tape_bytes()}};
  return work;
}

}  // namespace

std::vector<float> bench_images(const Job& job, Shape& image, int64_t images) {
  if (job.options.inputs.empty()) return random_values(images * image.item(), 7);
  const Tensor x = load_file(job.options.inputs[0], job);
  image = {1, x.dim(1), x.dim(2), x.dim(3)};
  std::vector<float> out;
  for (int64_t i = 0; i < images; ++i) {
    const float* item = x.data() + i % x.dim(0) * image.item();
    out.insert(out.end(), item, item + image.item());
  }
  return out;
}

// Steps of `switchback maximize`, of --images images of the first output: the time of twice --steps less that of --steps, so
// that making the plan and packing the weights are not counted.
Work maximize_work(Job& job, const BenchOptions& o) {
  const int node = logit_node(job.model.network);
  auto drives = std::make_shared<std::vector<Drive>>();
  const int64_t channels = job.model.network.shapes(job.model.network.input)[size_t(node)].c;
  for (int64_t i = 0; i < o.images; ++i) drives->push_back({{node, i % channels, -1, -1}, uint32_t(i), {}});
  auto times = std::make_shared<StepTimes>();
  const auto run = [&job, &o, drives, times](int64_t steps) {
    MaximizeOptions m = recipe(o.recipe);
    static_cast<RunOptions&>(m) = job.run;
    m.scales = 1, m.size = {0, 0}, m.late_steps = 0, m.steps = steps, m.times = times.get();
    const auto start = std::chrono::steady_clock::now();
    maximize(job.ctx, job.model, *drives, {}, m);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  Work work;
  work.items = double(o.steps * o.images);
  work.item = "step";
  // Forward, and backward to the input, which is as much again.
  work.flops = 2 * work.items * double(job.model.network.flops(job.model.network.input));
  work.estimate = [run, steps = o.steps] {
    const double once = run(steps);
    return std::max(1e-9, run(2 * steps) - once);
  };
  work.details = {{"recipe", o.recipe}, {"images", o.images}, {"steps", o.steps}};
  // Of all steps, the first ones included.
  work.after = [times](Json& details) {
    const double all = times->network + times->image + times->places + times->priors + times->update;
    details["profile"] = {{"network", times->network / all}, {"image", times->image / all}, {"places", times->places / all},
                          {"priors", times->priors / all}, {"update", times->update / all}};
  };
  return work;
}

// A map of one image by any method that `compare` knows, all that its command does between image and map. Its arithmetic is not
// counted.
Work map_work(Job& job, const BenchOptions& o) {
  const std::shared_ptr<NamedMethod> named = named_method(job, o.method, {});
  Shape image = job.model.network.input;
  const std::vector<float> values = bench_images(job, image, 1);
  const auto x = std::make_shared<Tensor>(Dims{1, image.c, image.h, image.w});
  std::copy_n(values.begin(), x->count(), x->data());
  Work work;
  work.once = [named, x] { named->method.run(*x, {0}, [](int64_t, int64_t) {}); };
  work.items = 1, work.item = "map";
  return work;
}

Work method_work(Job& job, const BenchOptions& o) {
  const std::vector<std::string> own = {"forward", "classify", "gradient", "jacobian", "smoothgrad", "integrated",
                                        "occlusion", "etalon", "maximize", "train", "read"};
  std::vector<std::string> all = own;
  for (const std::string& name : map_method_names())
    if (std::ranges::find(own, name) == own.end()) all.push_back(name);
  check_choice("--method", o.method, all);
  if (o.samples < 1 || o.steps < 1) throw Error("--samples and --steps must be at least 1", "", true);
  Work work = o.method == "smoothgrad" || o.method == "integrated" ? samples_work(job, o)
              : o.method == "occlusion"                            ? occlusion_work(job, o)
              : o.method == "etalon"                               ? etalon_work(job, o)
              : o.method == "maximize"                             ? maximize_work(job, o)
              : o.method == "train"                                ? train_work(job, o)
              : o.method == "read"                                 ? read_work(job, o)
              : std::ranges::find(own, o.method) == own.end()      ? map_work(job, o)
                                                                   : passes_work(job, o);
  work.details["method"] = o.method;
  const std::vector<std::string> with_rule = {"forward", "classify", "gradient", "jacobian", "smoothgrad", "integrated"};
  if (std::ranges::find(with_rule, o.method) != with_rule.end()) work.details["rule"] = word_of(kRules, o.rule);
  return work;
}

}  // namespace switchback
