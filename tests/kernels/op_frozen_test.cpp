// Offsets, forward passes that obey a tape, and cut-outs: shapes x devices x element types. Integer data must be exact.
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/check.h"
#include "kernels/frozen/frozen.h"
#include "tests/support/epilogue_check.h"

namespace switchback::test {
namespace {

struct Case {
  const char* name;
  Shape shape;
};
// Channels around vectors and gate words; the last has more pixels than one piece of a sum.
constexpr Case kCases[] = {
    {"c1", {6, 1, 5, 7}},        {"c3", {6, 3, 5, 4}},     {"c31", {6, 31, 3, 2}},  {"c33", {6, 33, 3, 3}},
    {"c64", {6, 64, 3, 2}},      {"c70", {6, 70, 2, 3}},   {"one_element", {6, 1, 1, 1}},
    {"vector", {6, 1000, 1, 1}}, {"pieces", {6, 24, 41, 35}},
};

// Sums that start from other values, since the op adds to what is there.
std::vector<OffsetSum> first_sums(int64_t n) {
  std::vector<OffsetSum> sums;
  for (int64_t p = 0; p < n; ++p) sums.push_back({double(p) - 2, double(p)});
  return sums;
}

using Weight = std::function<double(int64_t item, int64_t channel, int64_t place)>;
using Offsets = std::function<void(ConstView dy, int64_t first, OffsetSum* sums)>;

// Runs `add` on the whole batch and in splits; `weight` is what each element of dy is multiplied with.
void check_offsets(OpRun& run, const Nchw& dy, DType dtype, int64_t least, bool integers, const Weight& weight,
                   const Offsets& add) {
  const Shape s = dy.shape;
  std::vector<OffsetSum> want = first_sums(s.n);
  for (int64_t i = 0; i < s.count(); ++i) {
    const double w = weight(i / s.item(), i / (s.h * s.w) % s.c, i % (s.h * s.w));
    want[size_t(i / s.item())].sum += dy.v[size_t(i)] * w;
    want[size_t(i / s.item())].magnitude += std::abs(dy.v[size_t(i)] * w);
  }
  const Activation in = run.input(dy, dtype);
  const auto sums_of = [&](int64_t first, int64_t count) {
    const std::vector<OffsetSum> begin = first_sums(s.n);
    Guarded& sums = run.bytes(size_t(count) * sizeof(OffsetSum), kPoison);
    sums.write(begin.data() + first, sums.size());
    run.poison_scratch();
    run.ctx.threads = int(count % 3) + 1;  // the number of threads must not matter either
    add(slice(in, first, count), first, sums.as<OffsetSum>());
    return sums.read();
  };
  const std::vector<uint8_t> bytes = sums_of(0, s.n);
  std::vector<OffsetSum> got(size_t(s.n));
  std::memcpy(got.data(), bytes.data(), bytes.size());
  double largest = 0;
  for (int64_t p = 0; p < s.n; ++p) {
    const OffsetSum &a = got[size_t(p)], &b = want[size_t(p)];
    largest = std::max(largest, b.magnitude - double(p));
    // Doubles hold every product of two floats; the magnitude is allowed f32 sums of 4096 terms.
    EXPECT_NEAR(a.sum, b.sum, integers ? 0 : 1e-12 * b.magnitude) << p;
    EXPECT_NEAR(a.magnitude, b.magnitude, integers ? 0 : 4096 * kEpsF32 * b.magnitude) << p;
  }
  EXPECT_GT(largest, 0) << "all zero proves nothing";
  if (least > 1) return;
  EXPECT_EQ(check_splits(s.n, sums_of), "");
}

// Constants of every shape: a bias, one for all, a map, rows, columns.
void check_constant(OpRun& run, const Case& c, DType dtype) {
  const Shape s = c.shape;
  for (const Shape k : {Shape{1, s.c, 1, 1}, Shape{1, 1, 1, 1}, s.with_n(1), Shape{1, 1, s.h, s.w}, Shape{1, s.c, s.h, 1},
                        Shape{1, s.c, 1, s.w}})
    for (const bool integers : {true, false}) {
      if (integers && s.item() < 4) continue;  // may well be zero
      const Nchw dy = integers ? run.integers(s, 9) : run.reals(s, dtype);
      Nchw constant = integers ? run.integers(k, 5) : run.reals(k, DType::f32);
      if (constant.v[0] == 0) constant.v[0] = 3;  // the only one, maybe
      const Activation constant_in = run.input(constant, DType::f32);
      check_offsets(
          run, dy, dtype, 1, integers,
          [&](int64_t, int64_t channel, int64_t place) {
            return constant(0, k.c == 1 ? 0 : channel, k.h == 1 ? 0 : place / s.w, k.w == 1 ? 0 : place % s.w);
          },
          [&](ConstView part, int64_t, OffsetSum* sums) { add_constant_offset(run.ctx, part, constant_in, sums); });
    }
}

constexpr double kStates[] = {-3, 5, 6};  // what is added below, inside, above
constexpr GateConstants kConstants{.inside = 5, .above = 6, .below = -3};

// Gate states 0, 1, 2 at random: below, inside, above; without a second plane there is no above.
Gates random_states(OpRun& run, Shape tape, bool two) {
  Gates gates(size_t(tape.count()));
  for (uint8_t& g : gates) g = uint8_t(run.rng() % (two ? 3 : 2));
  gates[0] = two ? 2 : 1;
  return gates;
}

void check_gate(OpRun& run, const Case& c, DType dtype) {
  const Shape s = c.shape;
  for (const int64_t seeds : {1, 2, 3})
    for (const bool two : {true, false}) {
      const Shape tape = s.with_n(s.n / seeds);
      const Gates gates = random_states(run, tape, two);
      const Guarded& bits = run.input_of(pack_gates(tape, gates, two));
      const Nchw dy = run.integers(s, 9);
      if (s.item() < 4) continue;
      check_offsets(
          run, dy, dtype, seeds, true,
          [&](int64_t item, int64_t channel, int64_t place) {
            return kStates[gates[size_t(item / seeds * s.item() + channel * s.h * s.w + place)]];
          },
          [&](ConstView part, int64_t first, OffsetSum* sums) {
            const uint32_t* words = bits.as<uint32_t>() + first / seeds * gate_words(s.with_n(1));
            add_gate_offset(run.ctx, part, words, two ? words + gate_words(tape) : nullptr, seeds, kConstants, sums);
          });
    }
}

void check_gates_forward(OpRun& run, const Case& c, DType dtype) {
  const Shape s = c.shape;
  for (const int64_t seeds : {1, 3})
    for (const bool two : {true, false})
      for (const bool in_place : {false, true}) {
        const Shape tape = s.with_n(s.n / seeds);
        const Gates gates = random_states(run, tape, two);
        const Guarded& bits = run.input_of(pack_gates(tape, gates, two));
        Nchw x = run.integers(s, 9), want(s);
        for (int64_t i = 0; i < s.count(); ++i) {
          const int state = gates[size_t(i / s.item() / seeds * s.item() + i % s.item())];
          if (state == 0 && i % 5 == 0) x.v[size_t(i)] = std::numeric_limits<double>::quiet_NaN();  // gated away
          want.v[size_t(i)] = (state == 1 ? 2 * x.v[size_t(i)] : 0) + kStates[state];
        }
        const Activation y = in_place ? run.in_place(x, dtype) : run.output(s, dtype);
        const Activation in = in_place ? y : run.input(x, dtype);
        const uint32_t* words = bits.as<uint32_t>();
        frozen_gates_forward(run.ctx, in, words, two ? words + gate_words(tape) : nullptr, 2, kConstants, seeds, y);
        EXPECT_EQ(compare_exact(y.read(), want, Zeros::many_allowed), "") << "seeds " << seeds << ", planes " << 1 + two;
      }
}

struct PoolCase {
  const char* name;
  MaxPool2d pool;
  Shape x;
};
constexpr MaxPool2d kRectangle{.kernel_h = 2, .kernel_w = 3, .stride_h = 1, .stride_w = 2, .pad_top = 1, .pad_right = 1};
const std::vector<PoolCase>& pool_cases() {
  static const std::vector<PoolCase> rows = {
      {"k2_s2", max_pool2d(2, 2), {6, 64, 8, 6}},         {"k3_s2_p1", max_pool2d(3, 2, 1), {6, 5, 9, 8}},
      {"k3_d2_ceil", max_pool2d(3, 2, 1, 2, true), {6, 33, 9, 8}}, {"rectangle", kRectangle, {6, 3, 5, 8}},
      {"two_bytes", max_pool2d(17, 2), {6, 3, 19, 18}},
  };
  return rows;
}

void check_pool(OpRun& run, const PoolCase& c, DType dtype) {
  const Shape in = c.x, out = output_shape(c.pool, in);
  for (const int64_t seeds : {1, 3}) {
    const Shape tape = in.with_n(in.n / seeds);
    const Activation seen = run.input(run.integers(tape, 50), dtype), pooled = run.output(out.with_n(tape.n), dtype);
    Guarded& switches = run.bytes(size_t(pooled.shape.count()) * c.pool.switch_bytes(), kPoisonBits);
    max_pool2d_forward(run.ctx, c.pool, seen, pooled, switches.data());
    if (seeds == 1) {  // its own input gives its own output
      const Activation again = run.output(out, dtype);
      frozen_max_pool2d_forward(run.ctx, c.pool, seen, switches.data(), 1, again);
      EXPECT_EQ(compare_exact(again.read(), pooled.read()), "");
    }
    // Another input: the adjoint of unpooling, exactly.
    const Nchw x = run.integers(in, 9), dy = run.integers(out, 9);
    const Activation picked = run.output(out, dtype), unpooled = run.output(in, dtype);
    frozen_max_pool2d_forward(run.ctx, c.pool, run.input(x, dtype), switches.data(), seeds, picked);
    max_pool2d_backward(run.ctx, c.pool, run.input(dy, dtype), switches.data(), unpooled, {.seeds_per_item = seeds, .rule = kGradient});
    const Nchw y = picked.read();
    if (dtype != DType::f32) continue;  // sums of several windows may need more than 8 bits
    const Nchw dx = unpooled.read();
    double left = 0, right = 0, size = 0;
    for (size_t i = 0; i < y.v.size(); ++i) left += y.v[i] * dy.v[i], size += std::abs(y.v[i]);
    for (size_t i = 0; i < x.v.size(); ++i) right += x.v[i] * dx.v[i];
    EXPECT_EQ(left, right) << "seeds " << seeds;
    EXPECT_GT(size, 0);
  }
}

struct CutCase {
  const char* name;
  CutOut shape;
};
constexpr CutCase kCuts[] = {
    {"byte", {9, 7, 3, 4, 1}},      {"three_bytes", {9, 7, 3, 4, 3}}, {"word", {5, 6, 5, 6, 4}},
    {"two_words", {6, 6, 1, 1, 8}}, {"wide", {8, 9, 4, 7, 64}},       {"six_bytes", {8, 9, 2, 9, 6}},
};

void check_cut(OpRun& run, const CutCase& c, DType) {
  const CutOut& s = c.shape;
  constexpr int64_t kItems = 3, kCount = 5;
  std::vector<uint8_t> from(size_t(kItems * s.map_height * s.map_width * s.pixel_bytes)), want;
  for (uint8_t& b : from) b = uint8_t(run.rng());
  std::vector<Corner> corners;
  for (int64_t p = 0; p < kCount; ++p)
    corners.push_back({int32_t(run.rng() % kItems), int32_t(run.rng() % uint64_t(s.map_height - s.height + 1)),
                       int32_t(run.rng() % uint64_t(s.map_width - s.width + 1))});
  for (const Corner& corner : corners)
    for (int64_t h = 0; h < s.height; ++h)
      for (int64_t w = 0; w < s.width; ++w)
        for (int64_t b = 0; b < s.pixel_bytes; ++b)
          want.push_back(from[size_t(((corner.item * s.map_height + corner.row + h) * s.map_width + corner.column + w) *
                                         s.pixel_bytes + b)]);
  Guarded& to = run.bytes(want.size(), kPoisonBits);
  cut_out(run.ctx, s, run.input_of(from).data(), run.input_of(corners).as<Corner>(), kCount, to.data());
  EXPECT_EQ(to.read(), want);
}

template <typename Cases, typename Check>
void add_all(const char* suite, const Cases& cases, bool typed, Check check) {
  for_each_device(suite, [&](const DeviceRow& device) {
    for (const auto& c : cases)
      for (const DType dtype : typed ? device.types : std::vector{DType::f32})
        add_test(suite, c.name, device, short_name(dtype), [&c, dtype, check](OpRun& run) { check(run, c, dtype); });
  });
}

}  // namespace

void register_frozen_tests() {
  add_all("Op/ConstantOffset", kCases, true, check_constant);
  add_all("Op/GateOffset", kCases, true, check_gate);
  add_all("Op/FrozenGates", kCases, true, check_gates_forward);
  add_all("Op/FrozenMaxPool", pool_cases(), true, check_pool);
  add_all("Op/CutOut", kCuts, false, check_cut);
}

}  // namespace switchback::test
