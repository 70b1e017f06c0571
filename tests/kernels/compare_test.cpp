// The checker itself, with wrong answers that it must reject, and the references against facts known without them.
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/support/epilogue_check.h"

namespace switchback::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();
constexpr Shape kShape{2, 3, 5, 4};

Nchw numbers(Shape s = kShape) {
  Nchw a(s);
  for (size_t i = 0; i < a.v.size(); ++i) a.v[i] = double(i % 17) - 8 + double(i % 3);
  return a;
}

TEST(Compare, AcceptsTheRightAnswer) {
  EXPECT_EQ(compare_exact(numbers(), numbers()), "");
  Nchw near = numbers();
  for (double& v : near.v) v += 1e-7;
  EXPECT_EQ(compare(near, numbers(), Nchw(kShape, 2e-7)), "");
}

TEST(Compare, RejectsOneUlpOnExactData) {
  Nchw got = numbers();
  got.v[33] = std::nextafter(float(got.v[33]), 1e9f);
  EXPECT_NE(compare_exact(got, numbers()), "");
}

TEST(Compare, RejectsOneWrongElementWhereverItIs) {
  for (size_t i = 0; i < numbers().v.size(); ++i) {
    Nchw got = numbers();
    got.v[i] += 1;
    EXPECT_NE(compare(got, numbers(), Nchw(kShape, 0.5)), "") << i;
  }
}

TEST(Compare, RejectsJustOutsideTheTolerance) {
  Nchw got = numbers();
  got.v[7] += 0.0101;
  EXPECT_NE(compare(got, numbers(), Nchw(kShape, 0.01)), "");
  got.v[7] -= 0.0002;
  EXPECT_EQ(compare(got, numbers(), Nchw(kShape, 0.01)), "");
}

TEST(Compare, RejectsNanLeftOver) {
  Nchw got = numbers();
  got.v.back() = kNan;
  EXPECT_NE(compare(got, numbers(), Nchw(kShape, 0.5)).find("1 NaN left over"), std::string::npos);
  EXPECT_NE(compare_exact(numbers(), got), "") << "a NaN that is wanted and missing";
  EXPECT_EQ(compare_exact(got, got), "") << "a NaN where one is wanted";
}

TEST(Compare, RejectsInfinities) {
  Nchw want = numbers(), got = numbers();
  got.v[3] = kInf;
  EXPECT_NE(compare(got, want, Nchw(kShape, 0.5)), "");
  EXPECT_NE(compare(want, got, Nchw(kShape, 0.5)), "");
  want.v[3] = -kInf;
  EXPECT_NE(compare(got, want, Nchw(kShape, 0.5)), "");
  want.v[3] = kInf;
  EXPECT_EQ(compare(got, want, Nchw(kShape, 0.5)), "");
}

TEST(Compare, RejectsAShiftedMap) {
  Nchw got(kShape);
  const Nchw want = numbers();
  for (int64_t n = 0; n < 2; ++n)
    for (int64_t c = 0; c < 3; ++c)
      for (int64_t h = 0; h < 5; ++h)
        for (int64_t w = 0; w < 4; ++w) got(n, c, h, w) = want(n, c, h, (w + 3) % 4);
  EXPECT_NE(compare(got, want, Nchw(kShape, 0.5)), "");
}

TEST(Compare, RejectsTransposedMapsAndChannels) {
  const Shape square{1, 4, 4, 3};
  const Nchw want = numbers(square);
  Nchw rows(square);
  for (int64_t c = 0; c < 4; ++c)
    for (int64_t h = 0; h < 4; ++h)
      for (int64_t w = 0; w < 3; ++w) rows(0, c, h, w) = want(0, h, c, w);
  EXPECT_NE(compare(rows, want, Nchw(square, 0.5)), "");
  Nchw nhwc = want;  // the same memory read in the other order
  for (int64_t i = 0; i < int64_t(want.v.size()); ++i) nhwc.v[size_t(i)] = want(0, i % 4, i / 12, i / 4 % 3);
  EXPECT_NE(compare(nhwc, want, Nchw(square, 0.5)), "");
}

TEST(Compare, RejectsZeros) {
  EXPECT_NE(compare(Nchw(kShape), numbers(), Nchw(kShape, 0.5)), "") << "all zeros";
  EXPECT_NE(compare_exact(Nchw(kShape), Nchw(kShape)), "") << "a case that wants nothing but zeros";
  EXPECT_EQ(compare_exact(Nchw(kShape), Nchw(kShape), Zeros::many_allowed), "");
  Nchw few(kShape);
  few.v[5] = few.v[50] = 1;
  EXPECT_NE(compare_exact(few, few), "") << "mostly zeros";
}

TEST(Compare, RejectsAToleranceThatHidesEverything) { EXPECT_NE(compare(numbers(), numbers(), Nchw(kShape, 3.0)), ""); }

TEST(Compare, RejectsOtherShapes) {
  EXPECT_NE(compare_exact(numbers({2, 3, 4, 5}), numbers()), "");
  EXPECT_NE(compare_exact(numbers(), numbers({1, 3, 5, 4})), "");
  EXPECT_NE(compare_exact(Nchw(Shape{0, 3, 5, 4}), Nchw(Shape{0, 3, 5, 4})), "") << "nothing compared";
}

TEST(Compare, RejectsScaledAndNegatedResults) {
  const Nchw tol = Nchw(kShape, 1e-3);
  Nchw got = numbers();
  for (double& v : got.v) v *= 1.01;
  EXPECT_NE(compare(got, numbers(), tol), "");
  got = numbers();
  for (double& v : got.v) v = -v;
  EXPECT_NE(compare(got, numbers(), tol), "");
}

TEST(CompareBits, SeesASingleBit) {
  std::vector<uint8_t> a(100, 7), b = a;
  EXPECT_EQ(compare_bits(a, b), "");
  b[99] ^= 0x80;
  EXPECT_NE(compare_bits(a, b), "");
  EXPECT_NE(compare_bits(a, std::vector<uint8_t>(99, 7)), "");
  EXPECT_NE(compare_bits({}, {}), "");
}

TEST(CompareGates, SeesEveryBitAndThePadding) {
  for (const int64_t channels : {1, 3, 31, 32, 33, 64, 70}) {
    const Shape shape{2, channels, 2, 3};
    Gates states(size_t(shape.count()));
    for (size_t i = 0; i < states.size(); ++i) states[i] = uint8_t(i * 7 % 3);
    for (const bool clipped : {false, true}) {
      const std::vector<uint32_t> right = pack_gates(shape, states, clipped);
      ASSERT_EQ(int64_t(right.size()), gate_words(shape) * (clipped ? 2 : 1));
      EXPECT_EQ(compare_gates(shape, right, states, clipped), "");
      for (size_t word = 0; word < right.size(); ++word)
        for (int bit = 0; bit < 32; ++bit) {
          std::vector<uint32_t> wrong = right;
          wrong[word] ^= 1u << bit;
          ASSERT_NE(compare_gates(shape, wrong, states, clipped), "") << word << " " << bit;
        }
    }
  }
}

TEST(CompareGates, UndecidedGatesMayFallEitherWay) {
  const Shape shape{1, 33, 1, 1};
  Gates states(33, 1);
  std::vector<uint8_t> undecided(33, 0);
  std::vector<uint32_t> got = pack_gates(shape, states, false);
  got[1] ^= 1;
  EXPECT_NE(compare_gates(shape, got, states, false, &undecided), "");
  undecided[32] = 1;
  EXPECT_EQ(compare_gates(shape, got, states, false, &undecided), "");
}

TEST(GuardedBuffer, SeesWritesOutsideAndChangedInputs) {
  for (const DeviceRow& device : devices()) {
    if (!device.why_not().empty()) continue;
    Context ctx(device.open());
    for (const size_t size : {1, 4, 37, 4096}) {
      Guarded b(ctx, size);
      EXPECT_EQ(b.damage(), "");
      b.fill(0);
      EXPECT_EQ(b.damage(), "");
    }
    for (const int64_t offset : {-4096, -64, -1, 37, 38, 100, 37 + 4095}) {
      Guarded b(ctx, 37);
      const uint8_t byte = 0;
      ctx.copy_in(b.as<uint8_t>() + offset, &byte, 1);
      EXPECT_NE(b.damage(), "") << offset;
    }
    Guarded input(ctx, 64);
    input.fill(3);
    input.freeze();
    EXPECT_EQ(input.damage(), "");
    input.fill(4);
    EXPECT_NE(input.damage(), "");
  }
}

TEST(GuardedBuffer, OutputsStartAsNanInAllTypes) {
  for (const DeviceRow& device : devices()) {
    if (!device.why_not().empty()) continue;
    OpRun run(device, "outputs");
    for (const DType dtype : device.types)
      for (const double v : run.output(kShape, dtype).read().v) EXPECT_TRUE(std::isnan(v));
    const Nchw values = run.integers(kShape, 200);
    for (const DType dtype : device.types)
      EXPECT_EQ(compare_exact(run.input(values, dtype).read(), values), "") << "what goes in comes out, NCHW to NHWC";
    const Activation a = run.input(values, DType::f32);
    EXPECT_EQ(a.memory->read_as<float>()[1], values(0, 1, 0, 0)) << "channels are fastest";
  }
}

TEST(Adjoint, RejectsAWrongTranspose) {
  const Conv2d conv = conv2d(3, 4, 3, 1, 1);
  const Shape xs{1, 3, 5, 5};
  Nchw x = numbers(xs), dy = numbers({1, 4, 5, 5});
  std::vector<float> w(4 * 3 * 9);
  for (size_t i = 0; i < w.size(); ++i) w[i] = float(i % 7) - 3;
  const Ref y = conv_forward(conv, x, w, {}, {}), dx = conv_backward(conv, dy, w, {}, xs);
  const Nchw zero_y(y.value.shape), zero_x(xs);
  EXPECT_EQ(check_adjoint(dy, y.value, zero_y, dx.value, x, zero_x), "");
  Nchw wrong = dx.value;
  wrong.v[10] += 1;
  EXPECT_NE(check_adjoint(dy, y.value, zero_y, wrong, x, zero_x), "");
}

TEST(Splits, RejectsABatchDependentResult) {
  EXPECT_EQ(check_splits(4,
                         [](int64_t first, int64_t count) {
                           std::vector<uint8_t> out;
                           for (int64_t i = first; i < first + count; ++i) out.push_back(uint8_t(i));
                           return out;
                         }),
            "");
  EXPECT_NE(check_splits(4, [](int64_t, int64_t count) { return std::vector<uint8_t>(size_t(count), uint8_t(count)); }),
            "");
}

// A 1-pixel kernel at a corner shifts the map; a stride takes every other pixel; groups do not mix.
TEST(Reference, ConvolutionOfKnownCases) {
  const Nchw x = numbers({1, 2, 4, 5});
  std::vector<float> w(2 * 2 * 9, 0.f);
  w[0 * 18 + 1 * 9 + 0] = 1;  // out 0 = channel 1 shifted by (+1,+1)
  w[1 * 18 + 0 * 9 + 4] = 3;  // out 1 = 3 * channel 0
  const Ref y = conv_forward(conv2d(2, 2, 3, 1, 1), x, w, {0.5f, 0}, {1, 2});
  EXPECT_EQ(y.value(0, 0, 0, 0), 0.5);
  EXPECT_EQ(y.value(0, 0, 2, 3), 0.5 + x(0, 1, 1, 2));
  EXPECT_EQ(y.value(0, 1, 2, 3), 6 * x(0, 0, 2, 3));
  EXPECT_EQ(y.terms(0, 1, 2, 3), 6 * std::abs(x(0, 0, 2, 3)));
  const Ref s = conv_forward(conv2d(2, 2, 1, 2, 0, 1, 2), x, {1, 10}, {}, {});
  EXPECT_EQ(s.value.shape, (Shape{1, 2, 2, 3}));
  EXPECT_EQ(s.value(0, 1, 1, 2), 10 * x(0, 1, 2, 4));
}

TEST(Reference, MaxPoolTiesAndCeilMode) {
  Nchw x({1, 1, 1, 5});
  x.v = {0, 0, -1, 2, 2};
  const Pooled floor = max_pool_forward({.kernel_h = 1, .kernel_w = 2, .stride_h = 1, .stride_w = 2}, x);
  EXPECT_EQ(floor.value.v, (std::vector<double>{0, 2}));
  EXPECT_EQ(floor.switches, (std::vector<int>{0, 1}));
  const Pooled ceil =
      max_pool_forward({.kernel_h = 1, .kernel_w = 2, .stride_h = 1, .stride_w = 2, .ceil_mode = true}, x);
  EXPECT_EQ(ceil.value.v, (std::vector<double>{0, 2, 2}));
  EXPECT_EQ(ceil.switches, (std::vector<int>{0, 1, 0}));
}

TEST(Reference, RoundsToBf16) {
  EXPECT_EQ(round_to(DType::bf16, 257), 256);
  EXPECT_EQ(round_to(DType::bf16, 259), 260);
  EXPECT_EQ(round_to(DType::bf16, 1 + 0x1p-8), 1);  // half way: to even
  EXPECT_EQ(round_to(DType::bf16, 1 + 3 * 0x1p-8), 1 + 0x1p-6);
  EXPECT_EQ(round_to(DType::f32, 16777217), 16777216);
}

// f16 against its definition: every one of its values survives the way through float, and what lies between two
// neighbours goes to the nearer one, halves to the even one.
TEST(Reference, RoundsToF16) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    f16 h;
    h.bits = uint16_t(bits);
    const float v = h;
    if (std::isnan(v)) {
      EXPECT_TRUE(std::isnan(float(f16(v))));
      continue;
    }
    ASSERT_EQ(f16(v).bits, bits) << v;
    if ((bits & 0x7fff) >= 0x7bff) continue;
    f16 next;
    next.bits = uint16_t(bits + 1);
    const double middle = (double(v) + double(float(next))) / 2;
    ASSERT_EQ(f16(float(middle)).bits, bits & 1 ? bits + 1 : bits) << middle;
    ASSERT_EQ(f16(std::nextafter(float(middle), v)).bits, bits) << middle;
    ASSERT_EQ(f16(std::nextafter(float(middle), float(next))).bits, bits + 1) << middle;
  }
  EXPECT_EQ(f16(65519.f).bits, 0x7bff);
  EXPECT_EQ(f16(65520.f).bits, 0x7c00);
  EXPECT_EQ(f16(-1e30f).bits, 0xfc00);
  EXPECT_EQ(f16(1e-9f).bits, 0);
}

TEST(Reference, PhiloxKnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

}  // namespace
}  // namespace switchback::test
