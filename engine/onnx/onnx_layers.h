// What the operators' files share.
#pragma once

#include <set>

#include "engine/onnx/onnx_graph.h"

namespace switchback {

// Input `input` of n, times weights [out,in], over its last axis, as n's output: a Linear, or a convolution of 1x1 where there
// are tokens or places. Returns its node; a bias is still to be given.
int linear_over_last(OnnxGraph& g, const OnnxNode& n, int input, const OnnxConstant& weight, bool has_bias);
int linear_over_last(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const OnnxConstant& weight, bool has_bias);
// a ∘ b, broadcast by ONNX's rules; either may be constant. Set as n's output, too.
OnnxValue binary_value(OnnxGraph& g, const OnnxNode& n, BinaryFunction function, const OnnxValue& a, const OnnxValue& b);
OnnxValue constant_number(float value);
// x broadcast with `to`, by ONNX's rules (onnx_sizes.cpp).
OnnxValue expanded(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, Dims to, const std::string& name);
void is_no_number(OnnxGraph& g, const OnnxNode& n);  // 1 where input 0 is NaN, as n's output (onnx_choices.cpp)
void differs_from_zero(OnnxGraph& g, const OnnxNode& n);  // 1 where input 0 does, as n's output (onnx_choices.cpp)
// Of x, over axes that are in order; their sizes become 1 (onnx_reductions.cpp).
OnnxValue reduced(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::set<int64_t>& axes, bool mean);
// A layer that sees one element at a time, of input 0 as n's output (onnx_activations.cpp).
void pointwise(OnnxGraph& g, const OnnxNode& n, Layer layer);
void identity(OnnxGraph& g, const OnnxNode& n);  // n's output is another name of its input 0 (onnx_reshapes.cpp)
// The axes of a value in another order.
OnnxValue with_axes(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::vector<int64_t>& axes);
// y[…,i,…] = x[…,indices[i],…] of data, for any indices, as copies (onnx_movements.cpp).
OnnxValue selected(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, int64_t axis, const std::vector<int64_t>& indices);
// Products of matrices, a [..., m, k] and b [..., k, n] with the same axes before them, the batch's among these; attention, where
// that is what they are (onnx_tokens.cpp).
OnnxValue matrix_product(OnnxGraph& g, const OnnxNode& n, const OnnxValue& a, const OnnxValue& b);
void einsum(OnnxGraph& g, const OnnxNode& n);  // onnx_einsum.cpp
// Softmax attention of q [groups,T,d], k [groups,S,d] and v [groups,S,e], with biases [groups,T,S] or none.
int add_attention(OnnxGraph& g, const OnnxNode& n, int q, int k, int v, double scale, const std::vector<double>& bias);
void attention_operator(OnnxGraph& g, const OnnxNode& n);  // onnx_attention.cpp
// Where n's output is x·Φ(x) written with Erf, it becomes a GELU.
void fold_gelu(OnnxGraph& g, const OnnxNode& n);

}  // namespace switchback
