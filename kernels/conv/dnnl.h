// oneDNN's direct convolutions, with primitives made once per shape (making one costs 5-19 ms) and weights packed once
// per layout that they ask for.
#pragma once

#include <map>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/conv/conv.h"

namespace switchback {

struct DnnlConv {
  dnnl::primitive primitive;
  dnnl::memory::desc source, weights, destination, scratchpad;
  bool as_forward = true;  // a backward-data that runs as a forward convolution with flipped weights
  std::string implementation;
};

// What a primitive depends on. `n` is the batch of one call, not of the layer.
struct DnnlConvKey {
  Conv2d conv;
  Shape x;
  DType dtype;
  bool backward, bias;
  int threads;
  auto tie() const {
    return std::tuple(conv.in_channels, conv.out_channels, conv.kernel_h, conv.kernel_w, conv.stride_h, conv.stride_w,
                      conv.pad_top, conv.pad_left, conv.pad_bottom, conv.pad_right, conv.dilation_h, conv.dilation_w,
                      conv.groups, x.n, x.h, x.w, dtype, backward, bias, threads);
  }
  bool operator<(const DnnlConvKey& other) const { return tie() < other.tie(); }
};

struct DnnlState {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<DnnlConvKey, std::unique_ptr<DnnlConv>> convs;
};
DnnlState& dnnl_state(Context& ctx);

// Weights in the layouts of the primitives that use them.
struct DnnlWeights {
  struct Entry {
    dnnl::memory::desc desc;
    bool transposed;
    dnnl::memory memory;
  };
  std::vector<Entry> entries;
  const dnnl::memory& get(DnnlState& state, const ConvWeights& weights, const DnnlConv& conv, bool backward);
};

const DnnlConv& dnnl_conv(Context& ctx, const DnnlConvKey& key);

// Runs items [first, first + key.x.n) of the views; without any epilogue but the bias.
void dnnl_conv_run(Context& ctx, const DnnlConv& conv, const ConvWeights& weights, DnnlWeights& packed, const void* in,
                   void* out, bool backward);

}  // namespace switchback
