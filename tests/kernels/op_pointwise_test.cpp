// ReLU with gates, sums of branches, per-channel affine maps, layouts and flatten: shapes x devices x element types.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/check.h"
#include "kernels/pointwise/pointwise.h"
#include "tests/support/epilogue_check.h"

namespace switchback::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

struct Case {
  const char* name;
  Shape shape;
};
// Channels around the 32 bits of a gate word, and maps around the vector lengths.
constexpr Case kCases[] = {
    {"c1", {6, 1, 5, 7}},        {"c3", {6, 3, 5, 4}},     {"c31", {6, 31, 3, 2}}, {"c32", {6, 32, 2, 5}},
    {"c33", {6, 33, 3, 3}},      {"c64", {6, 64, 3, 2}},   {"c70", {6, 70, 2, 3}}, {"one_element", {6, 1, 1, 1}},
    {"vector", {6, 1000, 1, 1}}, {"c128", {6, 128, 7, 5}},
    {"c24", {6, 24, 3, 5}},      {"c40_threads", {6, 40, 10, 9}}, {"c3_strips", {6, 3, 20, 17}},
    {"c300_strips", {6, 300, 1, 2}},
};

Ref plain(const Nchw& values) {
  Ref r(values.shape);
  r.value = values;
  return r;
}

Accuracy exact_values(DType dtype) {
  Accuracy a = exact(dtype);
  a.zeros = Zeros::many_allowed;
  return a;
}

// Every special value in every channel: the gate is 0 < s (< clip), NaN passes with its gate off.
void check_relu_table(OpRun& run, int64_t channels, DType dtype) {
  const double below6 = dtype == DType::f32 ? std::nextafter(6.f, 0.f) : 5.96875;
  const double values[] = {0.0, -0.0, 1, -1, 6, below6, 7, kInf, -kInf, kNan, 0x1p-126, -0x1p-126, 3e38, -3e38};
  const Shape shape{1, channels, 1, int64_t(std::size(values))};
  Nchw x(shape);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t w = 0; w < shape.w; ++w)
      x(0, c, 0, w) = round_to(dtype, values[size_t(w + c * 5) % std::size(values)]);
  for (const double clip : {double(kNoClip), 6.0}) {
    Ref want = plain(x);
    const Activated activated = finish_forward(want, nullptr, true, clip);
    for (const bool in_place : {false, true}) {
      const Activation y = in_place ? run.in_place(x, dtype) : run.output(shape, dtype);
      const Activation in = in_place ? y : run.input(x, dtype);
      const bool clipped = clip < kInf;
      Guarded& gates = run.bytes(size_t(gate_words(shape)) * (clipped ? 8 : 4), kPoisonBits);
      relu_forward(run.ctx, in, y, {.relu = true, .clip = float(clip), .gates = gates.as<uint32_t>()});
      EXPECT_EQ(compare_exact(y.read(), want.value, Zeros::many_allowed), "") << "clip " << clip;
      EXPECT_EQ(compare_gates(shape, gates.read_as<uint32_t>(), activated.gates, clipped), "") << "clip " << clip;
    }
  }
}

void check_relu(OpRun& run, const Case& c, DType dtype) {
  check_relu_table(run, c.shape.c, dtype);
  const Nchw x = run.integers(c.shape, 12);
  const Activation in = run.input(x, dtype);
  check_forward(run, plain(x), exact_values(dtype),
                [&](View y, const Epilogue& e) { relu_forward(run.ctx, in, y, e); });
  const Nchw dy = run.integers(c.shape, 9);
  const Activation dy_in = run.input(dy, dtype);
  for (const int64_t seeds : {1, 2, 3})
    check_backward(run, plain(dy), exact_values(dtype), seeds,
                   [&](View dx, const BackwardEpilogue& e) { combine_backward(run.ctx, dy_in, dx, e); });
}

// In place and on some items at a time, as behind libraries' convolutions (host memory only).
void check_apply_epilogue(OpRun& run, const Case& c, DType dtype) {
  const Nchw x = run.integers(c.shape, 9);
  const Activation in = run.input(x, dtype);
  const auto run_in_parts = [&](View y, const auto& epilogue, int64_t step) {
    std::memcpy(y.data, in.memory->data(), size_t(c.shape.count()) * size_of(dtype));
    for (int64_t n = 0; n < c.shape.n; n += step) apply_epilogue(run.ctx, y, epilogue, n, std::min(n + step, c.shape.n));
  };
  for (const int64_t step : {6, 4, 1}) {
    check_forward(run, plain(x), exact_values(dtype), [&](View y, const Epilogue& e) { run_in_parts(y, e, step); });
    for (const int64_t seeds : {1, 2, 3})
      check_backward(run, plain(x), exact_values(dtype), seeds,
                     [&](View dx, const BackwardEpilogue& e) { run_in_parts(dx, e, step); });
  }
}

// dx may be dy itself.
void check_combine_in_place(OpRun& run, const Case& c, DType dtype) {
  const Nchw dy = run.integers(c.shape, 9), other = run.integers(c.shape, 9);
  Gates gates(dy.v.size());
  for (uint8_t& g : gates) g = uint8_t(run.rng() % 2);
  for (const Rule rule : kRules) {
    Ref want = plain(dy);
    finish_backward(want, &other, &gates, rule, 1);
    const Activation dx = run.in_place(dy, dtype);
    combine_backward(run.ctx, dx, dx,
                     {.other = run.input(other, dtype).memory->data(),
                      .relu = true,
                      .gates = run.input_of(pack_gates(c.shape, gates, false)).as<uint32_t>(),
                      .rule = relu_rule(rule)});
    EXPECT_EQ(compare_exact(dx.read(), want.value, Zeros::many_allowed), "") << name_of(rule);
  }
}

void check_add(OpRun& run, const Case& c, DType dtype) {
  const Nchw a = run.integers(c.shape, 9), b = run.integers(c.shape, 9);
  Ref sum = plain(a);
  for (size_t i = 0; i < a.v.size(); ++i) sum.value.v[i] += b.v[i];
  const Activation a_in = run.input(a, dtype), b_in = run.input(b, dtype);
  check_forward(run, sum, exact_values(dtype),
                [&](View y, const Epilogue& e) { add_forward(run.ctx, a_in, b_in, y, e); });
}

void check_affine(OpRun& run, const Case& c, DType dtype) {
  for (const bool integers : {true, false}) {
    const Nchw x = integers ? run.integers(c.shape, 9) : run.reals(c.shape, dtype);
    const std::vector<float> scale = integers ? run.integers(c.shape.c, 4) : run.reals(c.shape.c, DType::f32);
    const std::vector<float> shift = integers ? run.integers(c.shape.c, 9) : run.reals(c.shape.c, DType::f32);
    Accuracy accuracy = integers ? exact(dtype) : within(dtype, 4);
    accuracy.zeros = Zeros::many_allowed;
    const Activation in = run.input(x, dtype);
    const Guarded& scale_in = run.input_of(scale);
    const Guarded& shift_in = run.input_of(shift);
    for (const bool with_shift : {true, false}) {
      Ref y(c.shape);
      for (size_t i = 0; i < x.v.size(); ++i) {
        const size_t channel = size_t(int64_t(i) / (c.shape.h * c.shape.w) % c.shape.c);
        const double b = with_shift ? shift[channel] : 0;
        y.value.v[i] = scale[channel] * x.v[i] + b;
        y.terms.v[i] = std::abs(scale[channel] * x.v[i]) + std::abs(b);
      }
      check_forward(run, y, accuracy, [&](View out, const Epilogue& e) {
        channel_affine_forward(run.ctx, in, scale_in.as<float>(), with_shift ? shift_in.as<float>() : nullptr, out, e);
      });
      if (with_shift) continue;
      for (const int64_t seeds : {1, 2, 3})
        check_backward(run, y, accuracy, seeds, [&](View dx, const BackwardEpilogue& e) {
          channel_affine_backward(run.ctx, in, scale_in.as<float>(), dx, e);
        });
    }
  }
}

void check_layouts(OpRun& run, const Case& c, DType dtype) {
  const Nchw x = run.reals(c.shape, dtype);
  const std::vector<float> nchw(x.v.begin(), x.v.end());
  const Activation nhwc = run.output(c.shape, dtype);
  nchw_to_nhwc(run.ctx, run.input_of(nchw).as<float>(), nhwc);
  EXPECT_EQ(compare_exact(nhwc.read(), x), "");
  Guarded& back = run.bytes(nchw.size() * sizeof(float), kPoison);
  nhwc_to_nchw(run.ctx, run.input(x, dtype), back.as<float>());
  EXPECT_EQ(back.read_as<float>(), nchw);
  if (dtype != DType::f32) {  // values that the type does not hold are rounded to nearest, ties to even
    const Nchw fine = run.reals(c.shape, DType::f32);
    const Activation rounded = run.output(c.shape, dtype);
    nchw_to_nhwc(run.ctx, run.input_of(std::vector<float>(fine.v.begin(), fine.v.end())).as<float>(), rounded);
    EXPECT_EQ(compare_exact(rounded.read(), round_to(dtype, fine)), "");
  }
}

void check_flatten(OpRun& run, const Case& c, DType dtype) {
  const Nchw x = run.integers(c.shape, 100);
  Nchw flat = x;
  flat.shape = {c.shape.n, c.shape.item(), 1, 1};  // CHW order: the memory of NCHW
  const Activation y = run.output(flat.shape, dtype);
  flatten_forward(run.ctx, run.input(x, dtype), y);
  EXPECT_EQ(compare_exact(y.read(), flat), "");
  const Activation dy = run.input(flat, dtype);
  for (const int64_t seeds : {1, 2, 3})
    check_backward(run, plain(x), exact_values(dtype), seeds,
                   [&](View dx, const BackwardEpilogue& e) { flatten_backward(run.ctx, dy, dx, e); });
}

// Three parts of 1, c and 3 channels into one map and back, with every epilogue on the way back.
// A part between two others of so many channels.
void check_concat(OpRun& run, const Case& c, DType dtype, int64_t before, int64_t behind) {
  const Shape s = c.shape;
  const int64_t channels[] = {before, s.c, behind}, all = before + s.c + behind;
  const Activation whole = run.output({s.n, all, s.h, s.w}, dtype);
  Nchw want({s.n, all, s.h, s.w});
  int64_t first = 0;
  for (const int64_t count : channels) {
    const Nchw part = run.integers({s.n, count, s.h, s.w}, 100);
    for (int64_t i = 0; i < part.shape.count(); ++i) {
      const int64_t pixels = s.h * s.w, n = i / part.shape.item(), channel = i / pixels % count;
      want.v[size_t((n * all + first + channel) * pixels + i % pixels)] = part.v[size_t(i)];
    }
    concat_forward(run.ctx, run.input(part, dtype), whole, first);
    first += count;
  }
  EXPECT_EQ(compare_exact(whole.read(), want), "");
  const Activation dy = run.input(want, dtype);
  Nchw middle(s);
  for (int64_t n = 0; n < s.n; ++n)
    std::copy_n(want.v.begin() + (n * all + before) * s.h * s.w, s.item(), middle.v.begin() + n * s.item());
  for (const int64_t seeds : {1, 2, 3})
    check_backward(run, plain(middle), exact_values(dtype), seeds,
                   [&](View dx, const BackwardEpilogue& e) { concat_backward(run.ctx, dy, before, dx, e); });
}

void check_concat(OpRun& run, const Case& c, DType dtype) {
  check_concat(run, c, dtype, 1, 3);
  if (c.shape.c % 32 == 0) check_concat(run, c, dtype, 8, 8);  // aligned
}

void check_one_hot(OpRun& run, const Case& c, DType dtype) {
  const Shape s = c.shape;
  const Activation seed = run.output(s, dtype);
  std::vector<SeedUnit> units;
  Nchw want(s);
  for (int64_t n = 0; n < s.n; ++n) {
    const int64_t channel = 7 * n % s.c, row = n % 3 == 0 ? -1 : n % s.h, column = row < 0 ? -1 : 5 * n % s.w;
    units.push_back({channel, row, column});
    for (int64_t h = 0; h < s.h; ++h)
      for (int64_t w = 0; w < s.w; ++w) want(n, channel, h, w) = row < 0 || (h == row && w == column);
  }
  one_hot(run.ctx, seed, units);
  EXPECT_EQ(compare_exact(seed.read(), want, Zeros::many_allowed), "");
}

void check_errors(OpRun& run) {
  const Activation a = run.input(Nchw(Shape{1, 2, 3, 4}, 1), DType::f32);
  const Activation other = run.input(Nchw(Shape{1, 2, 4, 3}, 1), DType::f32);
  const Activation y = run.output({1, 2, 3, 4}, DType::f32), half = run.output({1, 2, 3, 4}, DType::bf16);
  EXPECT_THROW(add_forward(run.ctx, a, other, y), Error);
  EXPECT_THROW(add_forward(run.ctx, a, a, half), Error);
  EXPECT_THROW(relu_forward(run.ctx, other, y, {.relu = true}), Error);
  EXPECT_THROW(flatten_forward(run.ctx, a, y), Error);
}

}  // namespace

void register_pointwise_tests() {
  struct Op {
    const char* suite;
    void (*check)(OpRun&, const Case&, DType);
  };
  constexpr Op kOps[] = {{"Op/Relu", check_relu},      {"Op/CombineInPlace", check_combine_in_place},
                         {"Op/Add", check_add},        {"Op/ChannelAffine", check_affine},
                         {"Op/Layout", check_layouts}, {"Op/Flatten", check_flatten},
                         {"Op/Concat", check_concat},  {"Op/OneHot", check_one_hot}};
  for (const Op& op : kOps)
    for_each_device(op.suite, [&](const DeviceRow& device) {
      for (const Case& c : kCases)
        for (const DType dtype : device.types)
          add_test(op.suite, c.name, device, short_name(dtype),
                   [&c, dtype, check = op.check](OpRun& run) { check(run, c, dtype); });
      if (op.check == check_add) add_test(op.suite, "errors", device, "", check_errors);
    });
  for (const DeviceRow& device : devices()) {
    if (device.gpu) continue;
    for (const Case& c : kCases)
      for (const DType dtype : device.types)
        add_test("Op/ApplyEpilogue", c.name, device, short_name(dtype),
                 [&c, dtype](OpRun& run) { check_apply_epilogue(run, c, dtype); });
  }
}

}  // namespace switchback::test
