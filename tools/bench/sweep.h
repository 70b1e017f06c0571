// Which GEMM kernel is fastest for each product of some networks, measured on the GPU at hand: `switchback bench
// --sweep`. Gives a table for --gemm-table (kernels/gemm/gemm_table.h).
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/network.h"
#include "engine/run/plan.h"
#include "kernels/gemm/gemm_table.h"

namespace switchback {

// A convolution or linear layer at one input, wherever it stands in some networks.
struct SweepLayer {
  struct Use {
    std::string network;
    int64_t count;  // of such layers in it
    double share;   // of the network, all of them together: of its arithmetic or its memory traffic, the larger
  };
  Layer layer;  // without bias
  Shape in;     // n = 1
  std::vector<Use> uses;
  double share() const;  // the largest of its uses
};
// Those with the largest share first.
std::vector<SweepLayer> sweep_layers(const std::vector<Network>& networks);

struct SweepOptions {
  std::vector<int64_t> batches = {1, 16, 100};
  std::vector<Precision> precisions = {Precision::fp32, Precision::tf32, Precision::bf16, Precision::fp16};
  double seconds = 600;                    // no product is begun after that
  size_t flush_bytes = size_t(256) << 20;  // read before every run, so that it finds none of its operands in the L2
  int first_runs = 2;                      // of every kernel; twice as many of those that stay, and so on
  int last_runs = 15;                      // of the winner and of the model's choice, in turn
};

struct SweepResult {
  GemmTable table;
  double seconds = 0;
  int64_t measured = 0;  // products
  int64_t left_out = 0;  // layers x batches x precisions x directions, for want of time
  int64_t failed = 0;    // a kernel gave other bits, or something threw
};

// `report` is given a document for each product, and how many layers x batches x precisions x directions are done.
using SweepReport = std::function<void(const nlohmann::ordered_json& document, int64_t done, int64_t all)>;
SweepResult sweep(Context& ctx, const std::vector<SweepLayer>& layers, const SweepOptions& options,
                  const SweepReport& report);

// The last line of a sweep's output: how it went, and the table.
nlohmann::ordered_json summary_of(const Context& ctx, const SweepResult& result);

}  // namespace switchback
