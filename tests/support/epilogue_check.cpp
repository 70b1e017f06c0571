#include "tests/support/epilogue_check.h"

#include <fmt/format.h>

#include <cmath>

namespace switchback::test {

std::string Accuracy::compare(const Nchw& got, const Ref& want, Zeros zeros) const {
  return exact() ? compare_exact(got, round_to(dtype, want.value), zeros)
                 : test::compare(got, want.value, tolerance(want), zeros);
}

Ref Accuracy::stored(Ref op) const {
  if (!stored_before_epilogue || dtype == DType::f32) return op;
  if (exact()) {
    op.value = round_to(dtype, std::move(op.value));
  } else {
    op.error = Nchw(op.value.shape);
    for (size_t i = 0; i < op.error.v.size(); ++i) op.error.v[i] = eps_of(dtype) * std::abs(op.value.v[i]);
  }
  return op;
}

Accuracy exact(DType dtype) { return {dtype, nullptr}; }

Accuracy within(DType dtype, double c) {
  return {dtype, [=](const Ref& ref) { return tolerance(ref, c, dtype); }};
}

namespace {

// Runs must give the same bits. The emulated device repeats launches in other orders of its own accord.
int repeats(const OpRun& run) { return run.device.emulated ? 1 : 2; }

struct ForwardRow {
  bool residual, relu, clipped, gates;
};
constexpr ForwardRow kForwardRows[] = {
    {false, false, false, false}, {true, false, false, false}, {false, true, false, false},
    {false, true, false, true},   {true, true, false, true},   {true, true, false, false},
    {false, true, true, true},    {true, true, true, true},    {false, true, true, false},
};

// A clip that cuts off a good part of the values: 6 on integers, the values' rms otherwise.
float clip_for(const Ref& op, const Accuracy& accuracy) {
  if (accuracy.exact()) return 6;
  double sum = 0;
  for (const double v : op.value.v) sum += v * v;
  return float(round_to(DType::bf16, std::sqrt(sum / double(op.value.v.size()))));
}

Nchw branch(OpRun& run, Shape shape, const Accuracy& accuracy) {
  return accuracy.exact() ? run.integers(shape, 9) : run.reals(shape, accuracy.dtype);
}

std::string sizes(const Shape& s) { return fmt::format("[{},{},{},{}]", s.n, s.c, s.h, s.w); }

void check_forward_row(OpRun& run, const Ref& op, const Accuracy& accuracy, const ForwardCall& call,
                       const ForwardRow& row) {
  const Shape shape = op.value.shape;
  const float clip = row.clipped ? clip_for(op, accuracy) : kNoClip;
  const Nchw residual = branch(run, shape, accuracy);
  Ref want = row.residual || row.relu ? accuracy.stored(op) : op;
  const Activated activated = finish_forward(want, row.residual ? &residual : nullptr, row.relu, clip);

  Epilogue epilogue;
  epilogue.residual = row.residual ? run.input(residual, accuracy.dtype).memory->data() : nullptr;
  epilogue.relu = row.relu;
  epilogue.clip = clip;
  std::vector<uint8_t> first;
  for (int repeat = 0; repeat < repeats(run); ++repeat) {
    const Activation y = run.output(shape, accuracy.dtype);
    Guarded* gates = row.gates ? &run.bytes(size_t(gate_words(shape)) * (row.clipped ? 8 : 4), kPoisonBits) : nullptr;
    epilogue.gates = gates ? gates->as<uint32_t>() : nullptr;
    run.poison_scratch();
    call(y, epilogue);
    if (repeat == 1) {
      EXPECT_EQ(compare_bits(y.memory->read(), first), "") << "second run";
      continue;
    }
    first = y.memory->read();
    EXPECT_EQ(accuracy.compare(y.read(), want, row.relu ? Zeros::many_allowed : accuracy.zeros), "");
    if (!gates) continue;
    std::vector<uint8_t> undecided(want.value.v.size(), 0);
    if (!accuracy.exact()) undecided = undecided_gates(activated.s, accuracy.tolerance(want), clip);
    EXPECT_EQ(compare_gates(shape, gates->read_as<uint32_t>(), activated.gates, row.clipped, &undecided), "");
  }
}

void check_backward_row(OpRun& run, const Ref& op, const Accuracy& accuracy, int64_t seeds, const BackwardCall& call,
                        bool other, const Rule* rule) {
  const Shape shape = op.value.shape;
  const Nchw branch_gradient = branch(run, shape, accuracy);
  Gates gates(size_t(shape.with_n(shape.n / seeds).count()));
  for (uint8_t& g : gates) g = uint8_t(run.rng() % (other ? 3 : 2));
  Ref want = other || rule ? accuracy.stored(op) : op;
  finish_backward(want, other ? &branch_gradient : nullptr, rule ? &gates : nullptr, rule ? *rule : Rule::gradient,
                  seeds);

  BackwardEpilogue epilogue;
  epilogue.relu = rule != nullptr;
  epilogue.seeds_per_item = seeds;
  if (rule) {
    epilogue.rule = relu_rule(*rule);
    epilogue.gates = run.input_of(pack_gates(shape.with_n(shape.n / seeds), gates, other)).as<uint32_t>();
  }
  if (other) epilogue.other = run.input(branch_gradient, accuracy.dtype).memory->data();
  std::vector<uint8_t> first;
  for (int repeat = 0; repeat < repeats(run); ++repeat) {
    const Activation dx = run.output(shape, accuracy.dtype);
    run.poison_scratch();
    call(dx, epilogue);
    if (repeat == 1) {
      EXPECT_EQ(compare_bits(dx.memory->read(), first), "") << "second run";
      continue;
    }
    first = dx.memory->read();
    EXPECT_EQ(accuracy.compare(dx.read(), want, rule ? Zeros::many_allowed : accuracy.zeros), "");
  }
}

}  // namespace

void check_forward(OpRun& run, const Ref& op, const Accuracy& accuracy, const ForwardCall& call) {
  for (const ForwardRow& row : kForwardRows) {
    SCOPED_TRACE(fmt::format("forward to {}, {}, residual {}, relu {}, clipped {}, gates {}", sizes(op.value.shape),
                             accuracy.exact() ? "integers" : "reals", row.residual, row.relu, row.clipped, row.gates));
    check_forward_row(run, op, accuracy, call, row);
    if (testing::Test::HasFailure()) return;
  }
}

void check_backward(OpRun& run, const Ref& op, const Accuracy& accuracy, int64_t seeds, const BackwardCall& call) {
  for (const bool other : {false, true})
    for (const Rule* rule : {static_cast<const Rule*>(nullptr), &kRules[0], &kRules[1], &kRules[2]}) {
      SCOPED_TRACE(fmt::format("backward to {}, {}, other {}, rule {}, {} seeds per item", sizes(op.value.shape),
                               accuracy.exact() ? "integers" : "reals", other, rule ? name_of(*rule) : "none", seeds));
      check_backward_row(run, op, accuracy, seeds, call, other, rule);
      if (testing::Test::HasFailure()) return;
    }
}

std::string check_adjoint(const Nchw& dy, const Nchw& y, const Nchw& y_tolerance, const Nchw& dx, const Nchw& v,
                          const Nchw& dx_tolerance) {
  double left = 0, right = 0, allowed = 0, size = 0;
  for (size_t i = 0; i < dy.v.size(); ++i) {
    left += dy.v[i] * y.v[i];
    size += dy.v[i] * y.v[i] * dy.v[i] * y.v[i];
    allowed += std::abs(dy.v[i]) * y_tolerance.v[i];
  }
  for (size_t i = 0; i < v.v.size(); ++i) {
    right += dx.v[i] * v.v[i];
    allowed += std::abs(v.v[i]) * dx_tolerance.v[i];
  }
  if (!(std::abs(left - right) <= allowed + 1e-12 * std::abs(left)))
    return fmt::format("<dy,Jv> = {:.9g} but <J'dy,v> = {:.9g}, {:.3g} allowed", left, right, allowed);
  if (size == 0) return "<dy,Jv> is 0: this proves nothing";
  return "";
}

std::string check_splits(int64_t batch, const std::function<std::vector<uint8_t>(int64_t, int64_t)>& op) {
  const std::vector<uint8_t> whole = op(0, batch);
  std::vector<std::vector<int64_t>> splits = {std::vector<int64_t>(size_t(batch), 1)};
  if (batch > 2) splits.push_back({2, batch - 2});
  for (const std::vector<int64_t>& split : splits) {
    std::vector<uint8_t> parts;
    int64_t first = 0;
    for (const int64_t count : split) {
      const std::vector<uint8_t> part = op(first, count);
      parts.insert(parts.end(), part.begin(), part.end());
      first += count;
    }
    if (const std::string error = compare_bits(parts, whole); !error.empty())
      return fmt::format("batch {} split as {}: {}", batch, &split != &splits.front() ? "2 + rest" : "single items",
                         error);
  }
  return "";
}

ConstView slice(const Activation& a, int64_t first, int64_t count) {
  return {a.memory->as<uint8_t>() + size_t(first * a.shape.item()) * size_of(a.dtype), a.shape.with_n(count), a.dtype};
}

}  // namespace switchback::test
