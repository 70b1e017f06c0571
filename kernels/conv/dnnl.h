// oneDNN's direct convolutions, with primitives made once per shape (making one costs 5-19 ms) and weights packed once
// per layout that they ask for. Which of its implementations runs is a matter of the layer and the size of one image: its
// own choice may depend on the batch and the threads, and so would the results.
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
  int64_t images;  // that it takes at a time
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

struct DnnlChoice {
  std::string implementation;  // empty: none of them is a direct one
  bool as_forward = true;
};

struct DnnlState {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<DnnlConvKey, std::shared_ptr<const DnnlConv>> convs;
  std::map<DnnlConvKey, DnnlChoice> choices;  // of one image and one thread
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

const DnnlChoice& dnnl_choice(Context& ctx, DnnlConvKey key);
// For layers with a direct implementation. Where that doesn't take so many images at a time, one that takes a single one.
std::shared_ptr<const DnnlConv> dnnl_conv(Context& ctx, const DnnlConvKey& key);

// Runs conv.images images; without any epilogue but the bias.
void dnnl_conv_run(Context& ctx, const DnnlConv& conv, const ConvWeights& weights, DnnlWeights& packed, const void* in,
                   void* out, bool backward);

}  // namespace switchback
