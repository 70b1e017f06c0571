// Sums, products and quotients of two values, or of a value and a constant.
#pragma once

#include "engine/layers/home.h"

namespace switchback {

inline std::string_view name_of(BinaryFunction f) {
  switch (f) {
    case BinaryFunction::add: return "Add";
    case BinaryFunction::sub: return "Sub";
    case BinaryFunction::mul: return "Mul";
    case BinaryFunction::div: return "Div";
    case BinaryFunction::max: return "Max";
    case BinaryFunction::min: return "Min";
    case BinaryFunction::where: return "Where";
    case BinaryFunction::where_not: return "WhereNot";
    case BinaryFunction::greater: return "Greater";
    case BinaryFunction::greater_equal: return "GreaterOrEqual";
    case BinaryFunction::equal: return "Equal";
  }
  return "";
}
inline bool is_sum(BinaryFunction f) { return f == BinaryFunction::add || f == BinaryFunction::sub; }

template <>
struct Home<Add> : NoArguments, NoParameters, AddsNothing, KeepsNothing, OnePlace, FreezesAsIs<Add>, NoScratch {
  static std::string_view name(const Add&) { return "Add"; }
  static Shape shape(const Add& l, Shapes x) {
    check_count(x, 2, name(l));
    const Shape a = x[0], b = x[1];
    CHECK(a == b, "cannot add [{},{},{}] and [{},{},{}]", a.c, a.h, a.w, b.c, b.h, b.w);
    return a;
  }
  static int64_t flops(const Add&, Shapes x) { return x[0].count(); }
  static Facts facts(const Add&) { return {.affine = true, .takes_relu = true, .passes_gradient = true}; }
  static void forward(const Add&, const ForwardCall& c) { add_forward(c.ctx, c.x[0], c.x[1], c.y, c.end); }
  static void backward(const Add&, const BackwardCall& c) { combine_backward(c.ctx, c.dy, c.dx, c.end); }
  static void change(const Add&, const ChangeCall& c) {
    gather_changes(c.ctx, c.x[0], c.places, c.y);
    add_changes(c.ctx, c.x[1], c.places, c.y);
  }
};

template <>
struct Home<Binary> : NoArguments, NoParameters, AddsNothing, OnePlace, ScratchForInputs {
  static std::string_view name(const Binary& l) { return name_of(l.function); }
  static Shape shape(const Binary& l, Shapes x) {
    check_count(x, 2, name(l));
    return broadcast(l, x[0], x[1]);
  }
  static int64_t flops(const Binary& l, Shapes x) { return shape(l, x).count(); }
  static Facts facts(const Binary& l) { return {.affine = is_sum(l.function), .takes_relu = true}; }
  static Keeps keeps(const Binary& l, Shapes) {
    const Needs first = needs(l, 0), second = needs(l, 1);
    return {.inputs = first.a || first.b || second.a || second.b};
  }
  static void forward(const Binary& l, const ForwardCall& c) { binary_forward(c.ctx, l, c.x[0], c.x[1], c.y, c.end); }
  static void backward(const Binary& l, const BackwardCall& c) {
    binary_backward(c.ctx, l, c.input, c.dy, c.x[0], c.x[1], c.dx, c.end);
  }
  static void frozen(const Binary& l, const FrozenCall& c) { forward(l, c.forward()); }
  static void change(const Binary& l, const ChangeCall& c) {
    if (!is_sum(l.function)) return ChangesByValues<Binary>::change(l, c);
    for (size_t i = 0; i < 2; ++i) gather_changes(c.ctx, c.x[i], c.places, c.scratch[i]);
    forward(l, c.forward());
  }
};

template <>
struct Home<BinaryConstant> : NoParameters, OnePlace {
  static std::string_view name(const BinaryConstant& l) { return name_of(l.function); }
  static std::string arguments(const BinaryConstant& l) {
    const std::string what = l.values.size() == 1 ? fmt::format("{}", l.values[0])
                                                  : fmt::format("[{},{},{}]", l.shape.c, l.shape.h, l.shape.w);
    return l.reversed ? what + ", x" : "x, " + what;
  }
  static Shape shape(const BinaryConstant& l, Shapes x) {
    check_count(x, 1, name(l));
    CHECK(l.shape.n == 1 && l.shape.item() == int64_t(l.values.size()), "a constant [{},{},{},{}] with {} values", l.shape.n,
          l.shape.c, l.shape.h, l.shape.w, l.values.size());
    return broadcast({l.function}, x[0], l.shape);
  }
  static int64_t flops(const BinaryConstant& l, Shapes x) { return shape(l, x).count(); }
  static Facts facts(const BinaryConstant& l) {
    return {.affine = is_sum(l.function) || is_linear(l), .takes_relu = true};
  }
  static Keeps keeps(const BinaryConstant& l, Shapes) {  // of the operand that is no constant
    const Needs own = needs({l.function}, l.reversed ? 1 : 0);
    return {.inputs = l.reversed ? own.b : own.a};
  }
  static Reach reach(const BinaryConstant& l, Shapes, bool) {
    const bool alike = l.shape.h * l.shape.w == 1;  // a constant for each place is not cut
    if (!alike && !passes_changes(l)) return {};
    return {.kind = Reach::Kind::same, .cuts = alike};
  }
  static void shift(const BinaryConstant& l, const StepWeights& w, Shapes, StepShift& shift) {
    if (!is_sum(l.function)) return;
    shift.shape = l.shape;
    shift.array.values = constant(l, w).values;
    if (l.function == BinaryFunction::sub && !l.reversed)
      for (float& v : shift.array.values) v = -v;
  }
  static std::optional<GateConstants> constants(const BinaryConstant&) { return std::nullopt; }
  static void forward(const BinaryConstant& l, const ForwardCall& c) { run(l, constant(l, c.weights).on(c.ctx), c); }
  static void backward(const BinaryConstant& l, const BackwardCall& c) {
    const ConstView fixed{constant(l, c.weights).on(c.ctx), l.shape, DType::f32};
    binary_backward(c.ctx, {l.function}, l.reversed ? 1 : 0, c.dy, l.reversed ? fixed : c.x[0], l.reversed ? c.x[0] : fixed,
                    c.dx, c.end);
  }
  static void frozen(const BinaryConstant& l, const FrozenCall& c) {
    const bool adds = is_sum(l.function) && !c.biases;
    run(l, (adds ? zeros(l, c.weights) : constant(l, c.weights)).on(c.ctx), c.forward());
  }
  static std::vector<PatchScratch> scratch(const BinaryConstant& l, Shapes x, PatchSize, PatchSize y) {
    return passes_changes(l) ? std::vector<PatchScratch>() : ScratchForInputs::scratch(l, x, {}, y);
  }
  static void change(const BinaryConstant& l, const ChangeCall& c) {
    if (passes_changes(l)) return gather_changes(c.ctx, c.x[0], c.places, c.y);
    if (!is_linear(l)) return ChangesByValues<BinaryConstant>::change(l, c);
    gather_changes(c.ctx, c.x[0], c.places, c.scratch[0]);
    forward(l, c.forward());
  }

 private:
  // Sums and differences with a constant: a change passes through them.
  static bool passes_changes(const BinaryConstant& l) {
    return l.function == BinaryFunction::add || (l.function == BinaryFunction::sub && !l.reversed);
  }
  // Products with a constant, quotients by one and choices by one act on a change as on a value.
  static bool is_linear(const BinaryConstant& l) {
    using enum BinaryFunction;
    const bool by_constant = l.function == div || l.function == where || l.function == where_not;
    return l.function == mul || (by_constant && !l.reversed);
  }
  // In NHWC, n = 1.
  static const DeviceArray& constant(const BinaryConstant& l, const StepWeights& s) {
    return s.packed<DeviceArray>([&] {
      const int64_t channels = l.shape.c, places = l.shape.h * l.shape.w;
      std::vector<float> values;
      for (int64_t p = 0; p < places; ++p)
        for (int64_t c = 0; c < channels; ++c) values.push_back(l.values[c * places + p]);
      return DeviceArray(std::move(values));
    });
  }
  static const DeviceArray& zeros(const BinaryConstant& l, const StepWeights& s) {
    return s.packed<DeviceArray>([&] { return DeviceArray(std::vector<float>(l.values.size(), 0.f)); }, {0});
  }
  static void run(const BinaryConstant& l, const float* values, const ForwardCall& c) {
    ConstView a = c.x[0], b{values, l.shape, DType::f32};
    if (l.reversed) std::swap(a, b);
    binary_forward(c.ctx, {l.function}, a, b, c.y, c.end);
  }
};

}  // namespace switchback
