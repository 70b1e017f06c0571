#include "kernels/pointwise/binary.h"

#include <numeric>
#include <vector>

#include "kernels/pointwise/broadcast.h"
#include "kernels/device/device_ops.h"
#include "kernels/normalize/reduce_loops.h"
#include "kernels/view_check.h"

namespace switchback {
namespace {

// All ones where a compares so with b.
template <int Compare>
SB_INLINE F8 compared(F8 a, F8 b) {
  return _mm256_cmp_ps(a, b, Compare);
}
SB_INLINE F8 one_where(F8 mask) { return _mm256_and_ps(mask, _mm256_set1_ps(1.f)); }
SB_INLINE F8 no_number_or(F8 a, F8 otherwise) { return _mm256_blendv_ps(otherwise, a, compared<_CMP_UNORD_Q>(a, a)); }

SB_INLINE F8 apply8(BinaryFunction f, F8 a, F8 b) {
  switch (f) {
    case BinaryFunction::add: return _mm256_add_ps(a, b);
    case BinaryFunction::sub: return _mm256_sub_ps(a, b);
    case BinaryFunction::mul: return _mm256_mul_ps(a, b);
    case BinaryFunction::div: return _mm256_div_ps(a, b);
    case BinaryFunction::max: return no_number_or(a, _mm256_max_ps(a, b));  // gives b where one is NaN
    case BinaryFunction::min: return no_number_or(a, _mm256_min_ps(a, b));
    case BinaryFunction::where: return _mm256_and_ps(a, compared<_CMP_NEQ_UQ>(b, _mm256_setzero_ps()));
    case BinaryFunction::where_not: return _mm256_and_ps(a, compared<_CMP_EQ_OQ>(b, _mm256_setzero_ps()));
    case BinaryFunction::greater: return one_where(compared<_CMP_GT_OQ>(a, b));
    case BinaryFunction::greater_equal: return one_where(compared<_CMP_GE_OQ>(a, b));
    case BinaryFunction::equal: return one_where(compared<_CMP_EQ_OQ>(a, b));
  }
  return a;
}

// Of max and min: half of g at a tie, nothing where the other one is taken.
SB_INLINE F8 taken8(F8 g, F8 a, F8 b, F8 other_taken) {
  const F8 half = _mm256_mul_ps(g, _mm256_set1_ps(0.5f));
  return _mm256_andnot_ps(other_taken, _mm256_blendv_ps(g, half, compared<_CMP_EQ_OQ>(a, b)));
}

// g·∂(a ∘ b)/∂a, or /∂b.
SB_INLINE F8 gradient8(BinaryFunction f, int operand, F8 g, F8 a, F8 b) {
  switch (f) {
    case BinaryFunction::add: return g;
    case BinaryFunction::sub: return operand == 0 ? g : _mm256_sub_ps(_mm256_setzero_ps(), g);
    case BinaryFunction::mul: return _mm256_mul_ps(g, operand == 0 ? b : a);
    case BinaryFunction::div: {
      const F8 over_b = _mm256_div_ps(g, b);
      return operand == 0 ? over_b : _mm256_mul_ps(over_b, _mm256_div_ps(_mm256_sub_ps(_mm256_setzero_ps(), a), b));
    }
    case BinaryFunction::max:
    case BinaryFunction::min:
      return taken8(g, a, b, (f == BinaryFunction::max) == (operand == 0) ? compared<_CMP_LT_OQ>(a, b) : compared<_CMP_GT_OQ>(a, b));
    case BinaryFunction::where:
    case BinaryFunction::where_not: return operand == 0 ? apply8(f, g, b) : _mm256_setzero_ps();
    case BinaryFunction::greater:
    case BinaryFunction::greater_equal:
    case BinaryFunction::equal: return _mm256_setzero_ps();
  }
  return g;
}

template <typename T>
SB_INLINE F8 load_operand(const Operand& o, int64_t at, int lanes) {
  if (!o.data) return _mm256_setzero_ps();
  if (!o.channels) return _mm256_set1_ps(o.f32 ? o.as<float>()[at] : float(o.as<T>()[at]));
  return o.f32 ? load8(o.as<float>() + at, lanes) : load8(o.as<T>() + at, lanes);
}
// Where an operand's channels from `channel` on lie, given the offset of its place.
SB_INLINE int64_t channel_at(const Operand& o, int64_t offset, int64_t channel) {
  return o.channels ? offset + channel : offset;
}

template <typename T>
void binary_forward_typed(Context& ctx, BinaryFunction f, const Operand& a, const Operand& b, View y,
                          const Epilogue& epilogue) {
  const ForwardTarget<T> target(y, epilogue);
  each_group(ctx, y.shape, 1, 1, [=](const Group& g) SB_LAMBDA {
    const int64_t at_a = channel_at(a, a.offset(g.item, int32_t(g.place)), g.channel);
    const int64_t at_b = channel_at(b, b.offset(g.item, int32_t(g.place)), g.channel);
    target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
      return apply8(f, load_operand<T>(a, channel_at(a, at_a, 8 * v), lanes),
                    load_operand<T>(b, channel_at(b, at_b, 8 * v), lanes));
    });
  });
}

// Constants by channel, and whole maps: then a tensor is one row of values, in which the constants repeat. A pixel of
// few channels does not fill a vector; 32·k of its neighbours' values, a multiple of the channels, do.
constexpr int64_t kMostPeriod = 4096;  // values; what repeats then stays in the L1 cache
int64_t period_of(Shape full) { return std::lcm<int64_t>(full.c, 32); }

bool repeats(ConstView v, Shape full) {
  return v.shape == Shape{1, v.shape.c, 1, 1} && (v.shape.c == 1 || v.shape.c == full.c);
}
bool is_row(ConstView v, Shape full) { return v.shape == full || repeats(v, full); }
bool are_rows(ConstView a, ConstView b, Shape full) {
  return is_row(a, full) && is_row(b, full) && period_of(full) <= kMostPeriod;
}

// One operand of such a row. Null data: it is not needed.
template <typename T>
struct RowOperand {
  // `memory` is where constants are repeated.
  RowOperand(ConstView v, Shape full, std::vector<float>& memory) : data(v.as<T>()) {
    if (v.dtype == DType::f32) f32 = v.as<float>();
    if (!v.data || !repeats(v, full)) return;
    memory.resize(size_t(period_of(full)));
    for (size_t i = 0; i < memory.size(); ++i) {
      const size_t c = v.shape.c == 1 ? 0 : i % size_t(full.c);
      memory[i] = f32 ? f32[c] : float(data[c]);
    }
    repeated = memory.data();
  }
  // Eight values from `element` on, `phase` values behind the start of a period.
  SB_INLINE F8 load(int64_t element, int64_t phase, int lanes) const {
    if (!data) return _mm256_setzero_ps();
    if (repeated) return load8(repeated + phase, lanes);
    return f32 ? load8(f32 + element, lanes) : load8(data + element, lanes);
  }
  const T* data;
  const float *f32 = nullptr, *repeated = nullptr;
};

// body(element, phase, size) for all groups of up to 32 values of such a row.
template <typename Body>
void each_row_group(Context& ctx, Shape full, const Body& body) {
  const int64_t count = full.count(), period = period_of(full);
  parallel_ranges(ctx, (count + period - 1) / period, period, [=](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t start = p * period, size = std::min(period, count - start);
      for (int64_t phase = 0; phase < size; phase += 32) body(start + phase, phase, size - phase);
    }
  });
}

template <typename T>
void binary_forward_row(Context& ctx, BinaryFunction f, ConstView a, ConstView b, View y, const Epilogue& epilogue) {
  const ForwardTarget<T> target(y, epilogue);
  std::vector<float> memory[2];
  const RowOperand<T> first(a, y.shape, memory[0]), second(b, y.shape, memory[1]);
  each_row_group(ctx, y.shape, [=](int64_t element, int64_t phase, int64_t size) SB_LAMBDA {
    target.write_group(element, 0, size, [&](int v, int lanes) SB_LAMBDA {
      return apply8(f, first.load(element + 8 * v, phase + 8 * v, lanes),
                    second.load(element + 8 * v, phase + 8 * v, lanes));
    });
  });
}

template <typename T>
void binary_backward_row(Context& ctx, BinaryFunction f, int operand, ConstView dy, ConstView a, ConstView b, View dx,
                         const BackwardEpilogue& epilogue) {
  const BackwardTarget<T> target(dx, epilogue);
  std::vector<float> memory[2];
  const RowOperand<T> first(a, dx.shape, memory[0]), second(b, dx.shape, memory[1]);
  each_row_group(ctx, dx.shape, [=](int64_t element, int64_t phase, int64_t size) SB_LAMBDA {
    target.write_group(element, 0, size, [&](int v, int lanes) SB_LAMBDA {
      return gradient8(f, operand, load8(dy.as<T>() + element + 8 * v, lanes),
                       first.load(element + 8 * v, phase + 8 * v, lanes),
                       second.load(element + 8 * v, phase + 8 * v, lanes));
    });
  });
}

// The gradient before it is summed over the broadcast places.
template <typename T>
struct Gradient {
  BinaryFunction function;
  int operand;
  const T* dy;
  Operand a, b;
  int64_t channels, places, seeds;  // of dy
  SB_INLINE F8 at(int64_t item, int64_t place, int64_t channel, int lanes) const {
    const int64_t kept = item / seeds;
    const F8 g = load8(dy + (item * places + place) * channels + channel, lanes);
    return gradient8(function, operand, g, load_operand<T>(a, channel_at(a, a.offset(kept, int32_t(place)), channel), lanes),
                     load_operand<T>(b, channel_at(b, b.offset(kept, int32_t(place)), channel), lanes));
  }
};

// A quotient by lanes that are not there is no number, and their sums are not looked at: but channels that are summed up
// share lanes, so those must hold 0.
SB_INLINE F8 live_only(F8 v, int lanes) {
  return lanes == 8 ? v : _mm256_and_ps(v, _mm256_castsi256_ps(first_lanes(lanes)));
}

template <typename T>
void binary_backward_typed(Context& ctx, const Gradient<T>& gradient, Shape full, View dx,
                           const BackwardEpilogue& epilogue) {
  const BackwardTarget<T> target(dx, epilogue);
  if (dx.shape == full) {
    each_group(ctx, full, epilogue.seeds_per_item, 2, [=](const Group& g) SB_LAMBDA {
      target.write_group(g.element, g.word, g.size, [&](int v, int lanes) SB_LAMBDA {
        return gradient.at(g.item, g.place, g.channel + 8 * v, lanes);
      });
    });
    return;
  }
  const int64_t places = dx.shape.h * dx.shape.w, words = gate_words_per_pixel(dx.shape.c);
  reduce_loop(
      ctx, full, dx.shape,
      [&](int64_t item, int64_t place, int64_t channel, int lanes) SB_LAMBDA {
        return live_only(gradient.at(item, place, channel, lanes), lanes);
      },
      [&](const Group& g, const F8 (&sum)[4]) SB_LAMBDA {
        const int64_t word = (g.item / epilogue.seeds_per_item * places + g.place) * words + g.channel / 32;
        target.write_group(g.element, word, g.size, [&](int v, int) SB_LAMBDA { return sum[v]; });
      });
}

void check_operand(const char* op, ConstView v, const View& y) {
  CHECK(v.dtype == y.dtype || v.dtype == DType::f32, "{}: an operand is {} where the result is {}", op, name_of(v.dtype),
        name_of(y.dtype));
}

}  // namespace

Shape broadcast(const Binary&, Shape a, Shape b) {
  const auto size = [&](int64_t p, int64_t q) {
    CHECK(p == q || p == 1 || q == 1, "{} and {} cannot be broadcast against each other", to_string(a), to_string(b));
    return p == 1 ? q : p;
  };
  return {size(a.n, b.n), size(a.c, b.c), size(a.h, b.h), size(a.w, b.w)};
}

Needs needs(const Binary& binary, int operand) {
  switch (binary.function) {
    case BinaryFunction::mul: return {operand == 1, operand == 0};
    case BinaryFunction::div: return {operand == 1, true};
    case BinaryFunction::max:
    case BinaryFunction::min: return {true, true};
    case BinaryFunction::where:
    case BinaryFunction::where_not: return {false, operand == 0};
    default: return {false, false};
  }
}

void binary_forward(Context& ctx, const Binary& binary, ConstView a, ConstView b, View y, const Epilogue& epilogue) {
  CHECK(broadcast(binary, a.shape, b.shape) == y.shape, "binary_forward: {} and {} do not give {}", to_string(a.shape),
        to_string(b.shape), to_string(y.shape));
  check_operand("binary_forward", a, y);
  check_operand("binary_forward", b, y);
  if (ctx.gpu) return ctx.gpu->ops->binary_forward(ctx, binary, a, b, y, epilogue);
  with_type(y.dtype, "binary_forward", [&](auto type) {
    if (!epilogue.gates && are_rows(a, b, y.shape))
      return binary_forward_row<decltype(type)>(ctx, binary.function, a, b, y, epilogue);
    binary_forward_typed<decltype(type)>(ctx, binary.function, operand_of(a, y.shape), operand_of(b, y.shape), y,
                                         epilogue);
  });
}

void binary_backward(Context& ctx, const Binary& binary, int operand, ConstView dy, ConstView a, ConstView b, View dx,
                     const BackwardEpilogue& epilogue) {
  const Shape full = broadcast(binary, a.shape, b.shape), own = operand == 0 ? a.shape : b.shape;
  CHECK(full.with_n(dy.shape.n) == dy.shape && own.with_n(dy.shape.n) == dx.shape && dy.dtype == dx.dtype,
        "binary_backward: operands {} and {} do not give dy {} and dx {}", to_string(a.shape), to_string(b.shape),
        to_string(dy.shape), to_string(dx.shape));
  const Needs needed = needs(binary, operand);
  CHECK((!needed.a || a.data) && (!needed.b || b.data), "binary_backward: a value that the gradient needs is missing");
  check_operand("binary_backward", a, dx);
  check_operand("binary_backward", b, dx);
  check_epilogue(epilogue, "binary_backward");
  if (ctx.gpu) return ctx.gpu->ops->binary_backward(ctx, binary, operand, dy, a, b, dx, epilogue);
  with_type(dx.dtype, "binary_backward", [&](auto type) {
    using T = decltype(type);
    if (dx.shape == dy.shape && !gates_read(epilogue) && epilogue.seeds_per_item == 1 && are_rows(a, b, full))
      return binary_backward_row<T>(ctx, binary.function, operand, dy, a, b, dx, epilogue);
    const Gradient<T> gradient{binary.function, operand, dy.as<T>(), operand_of(a, full), operand_of(b, full), full.c,
                               full.h * full.w, epilogue.seeds_per_item};
    binary_backward_typed(ctx, gradient, dy.shape, dx, epilogue);
  });
}

}  // namespace switchback
