// Naive references in double for every op, NCHW, written for obviousness and sharing no code with the kernels.
// Each returns the value and, per element, the sum of the absolute values of the products that went into it, from which
// the tolerance of a comparison is derived.
#pragma once

#include <array>
#include <vector>

#include "kernels/conv/conv.h"
#include "kernels/linear/linear.h"
#include "kernels/normalize/normalize.h"
#include "kernels/pool/pool.h"
#include "tests/support/harness.h"

namespace switchback::test {

struct Ref {
  Nchw value;
  Nchw terms;  // sum |a||b|
  Nchw error;  // made before already, absolute; empty: none
  Ref() = default;
  explicit Ref(Shape s) : value(s), terms(s) {}
};

// c·eps_f32·terms + error, and where the result is stored in 16 bits the rounding of the store. c covers the longest
// sum: see rounding_steps.
Nchw tolerance(const Ref& ref, double c, DType stored = DType::f32);
// For a sum of `length` products in any order the error is below length·eps·sum|a||b| for certain and, roundings being
// uncorrelated, below 2·sqrt(length)·eps·sum|a||b| for all practical purposes (Higham & Mary 2019).
double rounding_steps(int64_t length);

// y = w·scale * x + bias; w is OIHW, scale and bias may be empty.
Ref conv_forward(const Conv2d& conv, const Nchw& x, const std::vector<float>& w, const std::vector<float>& bias,
                 const std::vector<float>& scale);
Ref conv_backward(const Conv2d& conv, const Nchw& dy, const std::vector<float>& w, const std::vector<float>& scale,
                  Shape x);
Shape conv_shape(const Conv2d& conv, Shape x);

Ref linear_forward(const Nchw& x, const std::vector<float>& w, const std::vector<float>& bias, int64_t out);
Ref linear_backward(const Nchw& dy, const std::vector<float>& w, int64_t in);

Shape pool_shape(const MaxPool2d& pool, Shape x);
Shape pool_shape(const AvgPool2d& pool, Shape x);
struct Pooled {
  Nchw value;
  std::vector<int> switches;  // NCHW, ky * kernel_w + kx
};
Pooled max_pool_forward(const MaxPool2d& pool, const Nchw& x);
Ref max_pool_backward(const MaxPool2d& pool, const Nchw& dy, const std::vector<int>& switches, Shape x, int64_t seeds);
Ref avg_pool_forward(const AvgPool2d& pool, const Nchw& x);
Ref avg_pool_backward(const AvgPool2d& pool, const Nchw& dy, Shape x);
Ref adaptive_forward(const AdaptiveAvgPool2d& pool, const Nchw& x);
Ref adaptive_backward(const AdaptiveAvgPool2d& pool, const Nchw& dy, Shape x);

Ref lrn_forward(const LocalResponseNorm& lrn, const Nchw& x);
Ref lrn_backward(const LocalResponseNorm& lrn, const Nchw& dy, const Nchw& x, int64_t seeds);
Ref softmax_forward(const Nchw& x);
Ref softmax_backward(const Nchw& dy, const Nchw& y, int64_t seeds);  // y: the forward's output

// --- Epilogues -------------------------------------------------------------------------------------------------------

// s = op + residual (null: none), y = min(max(s, 0), clip) where relu. `op` becomes y; the gates belong to s.
struct Activated {
  Nchw s;
  Gates gates;
};
Activated finish_forward(Ref& op, const Nchw* residual, bool relu, double clip);
// 1 where s is nearer to 0 or to the clip than its tolerance, so that rounding may decide the gate.
std::vector<uint8_t> undecided_gates(const Nchw& s, const Nchw& tolerance, double clip);

enum class Rule { gradient, deconv, guided };
inline constexpr Rule kRules[] = {Rule::gradient, Rule::deconv, Rule::guided};
const char* name_of(Rule rule);
ReluRule relu_rule(Rule rule);
// What the papers say: `active` is the unit's gate.
double rule_value(Rule rule, bool active, double g);
// dx = rule(gate, op + other). gates null: no ReLU. Item p uses the gates of item p / seeds (of gates' own batch).
void finish_backward(Ref& op, const Nchw* other, const Gates* gates, Rule rule, int64_t seeds);

// --- Noise -----------------------------------------------------------------------------------------------------------

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);
double normal_noise(uint64_t seed, uint32_t image, uint32_t sample, uint64_t element);

}  // namespace switchback::test
