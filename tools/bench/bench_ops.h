// Work that `switchback bench` repeats: a method on a network, or one op on one shape.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tools/cli/job.h"

namespace switchback {

struct BenchOptions : Options {
  std::string method, op, shape, shapes;
  std::string recipe = "fleuret";  // of maximize
  ReluRule rule = kGradient;
  int64_t samples = 32, steps = 32, repeat = 5, warm_up = 2;
  double min_seconds = 0;
  bool backward = false, probe = false;
  // sweep
  std::string sweep, batches = "1,16,100", precisions = "fp32,tf32,bf16,fp16", save_table;
  double minutes = 10;
  // occlusion and etalon
  std::string algorithm;  // "": the method's default
  std::string mask = "32", stride = "2", fill = "0", positions = "256";
  std::string outputs = "all";
  int64_t images = 1;
  bool full_maps = false;
};

struct Work {
  std::function<void()> once;
  // Instead of it, where a call times a sample of its items: the seconds that all of them take.
  std::function<double()> estimate = nullptr;
  double items = 0;       // that one call does
  const char* item = "";  // what an item is: "image", "sample", "jacobian", "position", "etalon", "call"
  double flops = 0;       // of one call by the definition of the ops, whatever convolution algorithm runs
  double bytes = 0;       // that one call must at least move (ops only)
  Json details = Json::object();
  std::function<void(Json&)> after = nullptr;  // adds the details that only a run tells
};

Work method_work(Job& job, const BenchOptions& o);               // bench_methods.cpp
Work occlusion_work(Job& job, const BenchOptions& o);            // bench_occlusion.cpp
Work etalon_work(Job& job, const BenchOptions& o);               // bench_etalon.cpp
Work train_work(Job& job, const BenchOptions& o);                // bench_train.cpp
Work read_work(Job& job, const BenchOptions& o);
Work op_work(Context& ctx, const BenchOptions& o);               // bench_ops.cpp
void bench_sweep(const BenchOptions& o);                         // bench_sweep.cpp

// `images` items in the network's input units: those of the first INPUT argument, repeated, or random ones. `image` is
// the network's input shape and becomes theirs.
std::vector<float> bench_images(const Job& job, Shape& image, int64_t images);

}  // namespace switchback
