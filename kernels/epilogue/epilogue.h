// What is fused behind an op: on the way forward bias, residual add, ReLU and its gate bits; on the way back the sum
// of a value's branches and the ReLU rule of the layer before it. Sum first, rule last: deconv and guided clamp and
// are not linear.
#pragma once

#include <cstdint>

#include "kernels/gates.h"
#include "kernels/types.h"

namespace switchback {

struct Context;
struct MaxPool2d;

// y = act(op(x) + bias + residual). The op itself owns its bias.
struct Epilogue {
  const void* residual = nullptr;  // same shape and type as y, or null
  bool relu = false;
  float clip = kNoClip;       // ReLU6: 6
  uint32_t* gates = nullptr;  // where the ReLU's gate bits go (gates.h), or null
  // Where y is some items of a batch (CPU): a clipped ReLU's second plane lies behind the first one of that many items.
  // 0: y is the batch.
  int64_t gate_items = 0;
  int64_t gate_plane(Shape y) const { return gate_words(gate_items ? y.with_n(gate_items) : y); }

  // Where y is some channels of a concatenation (GPUs; convolutions and max pools): the channels of the whole, from pixel
  // to pixel. y's data then points to its first channel. 0: y stands alone.
  int64_t pitch = 0;

  // A max pool behind it all, where conv2d_fuses_pool says so (GPUs only): y is then the pooled map, and no residual is
  // allowed. With pool_before_relu it is relu(pool(s)) and the gates are those of the pooled map, else pool(relu(s))
  // and the gates are those of s, at the convolution's size.
  const MaxPool2d* pool = nullptr;
  void* switches = nullptr;  // of the pool (kernels/pool/pool.h), or null
  bool pool_before_relu = false;

  bool tf32 = false;  // GPUs: the op's f32 products may be rounded to TF32
};

// dx = rule(gate, op^T(dy) + other).
struct BackwardEpilogue {
  const void* other = nullptr;      // gradient from the other branches, same shape and type as dx; never dx itself
  bool relu = false;                // dx belongs to the output of a ReLU: apply `rule` with `gates`
  const uint32_t* gates = nullptr;  // gate bits of the tape, item p of dx uses item p / seeds_per_item
  int64_t seeds_per_item = 1;
  ReluRule rule = {};
  bool tf32 = false;  // GPUs: the op's f32 products may be rounded to TF32
};

// y = act(y + residual) in place, writing gates, for items [first, last) of y: what ops without a fused form run.
void apply_epilogue(Context& ctx, View y, const Epilogue& epilogue, int64_t first, int64_t last);
// dx = rule(gates, dx + other) in place, likewise.
void apply_epilogue(Context& ctx, View dx, const BackwardEpilogue& epilogue, int64_t first, int64_t last);

// The same from f32 sums of these items [first, last) instead of what y or dx holds: they are rounded once.
void store_sums(Context& ctx, const float* sums, View y, const Epilogue& epilogue, int64_t first, int64_t last);
void store_sums(Context& ctx, const float* sums, View dx, const BackwardEpilogue& epilogue, int64_t first, int64_t last);

}  // namespace switchback
