// Work that `switchback bench` repeats: a method on a network, or one op on one shape.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tools/job.h"

namespace switchback {

struct BenchOptions : Options {
  std::string method, op, shape, shapes, rule = "gradient";
  int64_t samples = 32, steps = 32, repeat = 5;
  double min_seconds = 0;
  bool backward = false, probe = false;
};

struct Work {
  std::function<void()> once;
  double items = 0;       // that one call does
  const char* item = "";  // what an item is: "image", "sample", "jacobian", "call"
  double flops = 0;       // of one call by the definition of the ops, whatever algorithm runs
  double bytes = 0;       // that one call must at least move (ops only)
  Json details = Json::object();
};

Work method_work(Job& job, const BenchOptions& o);               // bench_methods.cpp
Work op_work(Context& ctx, const BenchOptions& o);               // bench_ops.cpp
std::vector<float> random_values(int64_t count, uint64_t seed);  // uniform in [-1, 1)

}  // namespace switchback
