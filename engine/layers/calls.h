// How the passes of engine/run call a layer.
#pragma once

#include "engine/layers/layers.h"
#include "engine/run/packed.h"
#include "kernels/epilogue/epilogue.h"
#include "kernels/frozen/frozen.h"
#include "kernels/patch/patch.h"
#include "kernels/pointwise/pointwise.h"

namespace switchback {

// A step of training: what its draws are made of (kernels/noise/dropout.h).
struct Training {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t first_item = 0;  // where the plan's items begin in the batch
};

// One step of a forward pass: y = end(layer(x)).
struct ForwardCall {
  Context& ctx;
  std::span<const ConstView> x;  // of a Concat, null data where a part of y was written in place
  View y;
  const Epilogue& end;           // what is fused behind the op
  uint32_t* gates = nullptr;     // where the layer's own gates go (Keeps::gates), or null
  void* switches = nullptr;      // likewise
  StepWeights weights;
  const Training* training = nullptr;  // null at inference
  float* moments = nullptr;            // where those of a batch norm go in training (kernels/normalize/batch_norm.h)
};

// The gradient of one input: dx = end(layer^T(dy)). Item p of dy belongs to item p / end.seeds_per_item of the tape.
struct BackwardCall {
  Context& ctx;
  ConstView dy;
  View dx;
  int input;                        // which of the inputs dx belongs to
  const BackwardEpilogue& end;
  std::span<const ConstView> x;     // with the tape's n: values where the layer keeps them, else null data with their shapes
  ConstView y;                      // likewise
  const uint32_t* gates = nullptr;  // as the layer keeps them
  const void* switches = nullptr;
  StepWeights weights;
  const Training* training = nullptr;  // as in the forward pass
  const float* moments = nullptr;
  const float* gradients = nullptr;    // in training: as learn has left them for this batch, or null
};

// The gradients of a layer's parameters, added to what is there. In the place of running statistics stand those of this
// batch.
struct LearnCall {
  Context& ctx;
  ConstView dy;                  // the gradient at the layer's result, f32
  std::span<const ConstView> x;  // where Learns::inputs says so
  const float* moments = nullptr;
  bool whole;                    // the batch comes whole, never in pieces: sums need not be cut at items
  StepWeights weights;
  float* gradients;              // laid out as the weights, on the context's device
  float* of(std::string_view name) const { return weights.place(name, gradients); }
};

// A forward pass that obeys the tape of one item instead of deciding: the affine map that the network is around that item
// (Molchanov et al., "Etalon images", algorithm 1). Without biases: its linear part.
struct FrozenCall {
  Context& ctx;
  std::span<const ConstView> x;
  View y;
  bool biases;
  bool tf32 = false;  // as Epilogue has it
  const uint32_t *gates = nullptr, *above = nullptr;  // planes of the layer's gates (kernels/types.h)
  const void* switches = nullptr;
  StepWeights weights;
  int64_t items() const { return y.shape.n; }  // that share the tape's one
  Epilogue end() const { return {.tf32 = tf32}; }
  ForwardCall forward() const { return {ctx, x, y, kNothing, nullptr, nullptr, weights}; }

 private:
  static constexpr Epilogue kNothing = {};
};

// Rows and columns of a patch (kernels/patch/patch.h).
struct PatchSize {
  int64_t h = 0, w = 0;
  bool operator==(const PatchSize&) const = default;
};
// Patches that a layer needs besides its output's: where those of the output (or of the first input) lie, or where a
// convolution with this stride and padding reads for them.
struct PatchScratch {
  int64_t channels = 0;
  PatchSize size;
  bool at_input = false;
  int64_t stride_h = 1, stride_w = 1, pad_top = 0, pad_left = 0;
};

// How the output changes where the inputs do: y = layer(x + Δ) − layer(x), on patches, without what is fused behind it.
struct ChangeCall {
  Context& ctx;
  std::span<const Change> x;
  View y;
  const Origin* places;                              // of y
  ConstView clean;                                   // the output without any change, [1,C,H,W]
  std::span<const View> scratch;                     // as Home::scratch asked
  std::span<const ConstView> read;                   // the same, to read
  std::span<const Origin* const> scratch_places;
  bool tf32;  // as Epilogue has it
  StepWeights weights;
  Epilogue end() const { return {.tf32 = tf32}; }
  ForwardCall forward() const { return {ctx, read, y, kNothing, nullptr, nullptr, weights}; }  // on the scratch patches

 private:
  static constexpr Epilogue kNothing = {};
};

void forward(const Layer& layer, const ForwardCall& call);
void backward(const Layer& layer, const BackwardCall& call);
void learn(const Layer& layer, const LearnCall& call);
void frozen(const Layer& layer, const FrozenCall& call);
std::vector<PatchScratch> scratch(const Layer& layer, Shapes inputs, PatchSize x, PatchSize y);
void change(const Layer& layer, const ChangeCall& call);

// What the layer adds to its op's result, made once; null where that is nothing.
const StepShift* step_shift(const Layer& layer, const StepWeights& weights, Shapes inputs);
// What its own gated units add to scale·x in each state; none for slopes, and for layers without gates.
std::optional<GateConstants> gate_constants(const Layer& layer);

}  // namespace switchback
