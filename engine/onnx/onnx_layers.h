// What the operators' files share.
#pragma once

#include "engine/onnx/onnx_graph.h"

namespace switchback {

// Input `input` of n, times weights [out,in], over its last axis, as n's output: a Linear, or a convolution of 1x1 where there
// are tokens or places. Returns its node; a bias is still to be given.
int linear_over_last(OnnxGraph& g, const OnnxNode& n, int input, const OnnxConstant& weight, bool has_bias);
// Where n's output is x·Φ(x) written with Erf, it becomes a GELU.
void fold_gelu(OnnxGraph& g, const OnnxNode& n);

}  // namespace switchback
