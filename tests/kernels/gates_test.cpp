// Gates (kernels/gates.h) and winners (kernels/winner.h) mean the same in every op on every device: whatever is fused
// behind it, s = ±∞, NaN, ±0 and the edges of a clip have one state and one value, and a window has one winner.
#include "kernels/gates.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "kernels/device/device_ops.h"
#include "kernels/winner.h"
#include "tests/support/harness.h"

namespace switchback::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

// --- the definition

TEST(Gates, Definition) {
  using enum GateState;
  const struct {
    float min, max, s;
    GateState state;
    float value;
  } rows[] = {
      // a ReLU
      {0, kNoClip, 1, inside, 1}, {0, kNoClip, kInf, inside, kInf}, {0, kNoClip, 0, below, 0}, {0, kNoClip, -0.f, below, 0},
      {0, kNoClip, -1, below, 0}, {0, kNoClip, -kInf, below, 0}, {0, kNoClip, kNan, below, kNan},
      {0, kNoClip, 1e-45f, inside, 1e-45f},
      // a clipped one
      {0, 6, 5, inside, 5}, {0, 6, 6, above, 6}, {0, 6, 7, above, 6}, {0, 6, kInf, above, 6}, {0, 6, 0, below, 0},
      {0, 6, -kInf, below, 0}, {0, 6, kNan, below, kNan},
      {0, 0, 1, above, 0}, {0, 0, 0, above, 0}, {0, 0, -1, below, 0},
      // other ramps
      {-1, 2, -1, below, -1}, {-1, 2, 0, inside, 0}, {-1, 2, 2, above, 2}, {-1, 2, kNan, below, kNan},
      {-1, 0, -0.f, above, 0}, {-kInf, 2, -kInf, inside, -kInf}, {-kInf, 2, kNan, below, kNan},
      {-1, kInf, kInf, inside, kInf}, {-kInf, kInf, kInf, inside, kInf}, {-kInf, kInf, kNan, below, kNan},
  };
  for (const auto& row : rows) {
    const Limits limits{row.min, row.max};
    SCOPED_TRACE(fmt::format("min {}, max {}, s {}", row.min, row.max, row.s));
    EXPECT_EQ(limits.state(row.s), row.state);
    EXPECT_EQ(limits.inside(row.s), row.state == inside);
    EXPECT_EQ(limits.above(row.s), row.state == above);
    const float value = limits.value(row.s);
    EXPECT_TRUE(std::isnan(row.value) ? std::isnan(value)
                                      : std::bit_cast<uint32_t>(value) == std::bit_cast<uint32_t>(row.value))
        << value;
  }
}

TEST(Gates, Bits) {
  const uint32_t in[] = {0x80000001u, 0, 1u << 3}, over[] = {0, 1u, 1u << 3 | 1u << 5};
  EXPECT_EQ(gate_words({2, 65, 3, 5}), 2 * 3 * 5 * 3);
  for (int c = 0; c < 96; ++c) EXPECT_EQ(gate_bit(in, c), c == 0 || c == 31 || c == 67) << c;
  EXPECT_EQ(gate_state(in, over, 67), GateState::inside);
  EXPECT_EQ(gate_state(in, over, 69), GateState::above);
  EXPECT_EQ(gate_state(in, over, 70), GateState::below);
  EXPECT_EQ(gate_state(in, static_cast<const uint32_t*>(nullptr), 69), GateState::below);
}

// --- the gates of every op

// What differs between ops if anything does, representable in every element type.
std::vector<float> special_values(DType dtype) {
  const float under6 = dtype == DType::f32 ? std::nextafter(6.f, 0.f) : 5.96875f;
  const float least = dtype == DType::f16 ? 0x1p-14f : 0x1p-126f;
  return {kInf, -kInf, kNan, 0.f, -0.f, 6.f, under6, 7.f, 1.f, -1.f, least, -least, -6.f};
}

// [n,c,h,w] of them, another in each channel and at each place.
Nchw specials(Shape shape, DType dtype, bool by_place = true) {
  const std::vector<float> all = special_values(dtype);
  Nchw x(shape);
  for (int64_t n = 0; n < shape.n; ++n)
    for (int64_t c = 0; c < shape.c; ++c)
      for (int64_t h = 0; h < shape.h; ++h)
        for (int64_t w = 0; w < shape.w; ++w)
          x(n, c, h, w) = all[size_t(c + (by_place ? 5 * w + 3 * h + n : 0)) % all.size()];
  return x;
}

std::string text(double v) { return std::signbit(v) && v == 0 ? "-0" : fmt::format("{}", v); }

// Equal in every bit, but for which NaN it is.
void expect_same(const Nchw& got, const Nchw& want, const char* what) {
  ASSERT_EQ(got.shape, want.shape);
  for (size_t i = 0; i < got.v.size(); ++i) {
    const double a = got.v[i], b = want.v[i];
    if ((std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b))) continue;
    FAIL() << what << " " << i << " is " << text(a) << ", must be " << text(b);
  }
}

using Call = std::function<void(View y, const Epilogue& e)>;

// `call` runs an op whose values before the ReLU are `s`, with a ReLU behind it.
void check_gates(OpRun& run, const Nchw& s, DType dtype, const std::string& what, const Call& call) {
  for (const float clip : {kNoClip, 6.f, 0.f}) {
    SCOPED_TRACE(fmt::format("{}, {}, clip {}", what, short_name(dtype), clip));
    const Limits limits = relu_limits(clip);
    Nchw value = s;
    Gates states;
    for (double& v : value.v) {
      states.push_back(uint8_t(limits.state(float(v))));
      v = double(limits.value(float(v)));
    }
    const bool clipped = clip != kNoClip;
    const Activation y = run.output(s.shape, dtype);
    Guarded& gates = run.bytes(size_t(gate_words(s.shape)) * (clipped ? 8 : 4), kPoisonBits);
    run.poison_scratch();
    call(y, {.relu = true, .clip = clip, .gates = gates.as<uint32_t>()});
    expect_same(y.read(), value, "value");
    EXPECT_EQ(compare_gates(s.shape, gates.read_as<uint32_t>(), states, clipped), "");
  }
}

void check_pointwise(OpRun& run, DType dtype) {
  for (const int64_t channels : {3, 33, 64}) {
    const Shape shape{2, channels, 3, 13};
    const Nchw s = specials(shape, dtype);
    const Activation x = run.input(s, dtype), minus_zero = run.input(Nchw(shape, -0.0), dtype);
    const auto* nothing = run.input_of(std::vector<float>(size_t(channels), -0.f)).as<float>();
    const auto* one = run.input_of(std::vector<float>(size_t(channels), 1.f)).as<float>();
    check_gates(run, s, dtype, "ReLU", [&](View y, const Epilogue& e) { relu_forward(run.ctx, x, y, e); });
    check_gates(run, s, dtype, "residual", [&](View y, Epilogue e) {
      e.residual = x.memory->data();
      relu_forward(run.ctx, minus_zero, y, e);
    });
    check_gates(run, s, dtype, "sum", [&](View y, const Epilogue& e) { add_forward(run.ctx, x, minus_zero, y, e); });
    check_gates(run, s, dtype, "batch norm",
                [&](View y, const Epilogue& e) { channel_affine_forward(run.ctx, x, one, nothing, y, e); });
    check_gates(run, s, dtype, "binary", [&](View y, const Epilogue& e) {
      binary_forward(run.ctx, {BinaryFunction::add}, x, minus_zero, y, e);
    });
    if (!run.ctx.gpu)
      check_gates(run, s, dtype, "pass behind libraries", [&](View y, const Epilogue& e) {
        run.ctx.copy(y.data, x.memory->data(), x.memory->size());
        apply_epilogue(run.ctx, y, e, 0, shape.n);
      });
  }
}

// Ramps have gates of their own; slopes are 0 < x.
void check_ramps(OpRun& run, DType dtype) {
  const Shape shape{2, 33, 3, 13};
  const Nchw s = specials(shape, dtype);
  const Activation x = run.input(s, dtype);
  for (const Clip& clip : {Clip{-1, 6}, Clip{-kInf, 6}, Clip{-1, kInf}, Clip{-1, 0}, Clip{0, 6}, Clip{}}) {
    SCOPED_TRACE(fmt::format("{}, ramp from {} to {}", short_name(dtype), clip.min, clip.max));
    const Limits limits{clip.min, clip.max};
    Nchw value = s;
    Gates states;
    for (double& v : value.v) {
      // 1·x + 0, of which the sum of −0 and 0 is 0
      const float before = float(v) + 0.f;
      states.push_back(uint8_t(limits.state(before)));
      v = double(limits.value(before));
    }
    const bool clipped = clip.max != kNoClip;
    const Activation y = run.output(shape, dtype);
    Guarded& gates = run.bytes(size_t(gate_words(shape)) * (clipped ? 8 : 4), kPoisonBits);
    ramp_forward(run.ctx, clip, x, y, gates.as<uint32_t>());
    expect_same(y.read(), value, "value");
    EXPECT_EQ(compare_gates(shape, gates.read_as<uint32_t>(), states, clipped), "");
  }
  const Activation y = run.output(shape, dtype);
  Guarded& gates = run.bytes(size_t(gate_words(shape)) * 4, kPoisonBits);
  Gates states;
  for (const double v : s.v) states.push_back(relu_limits(kNoClip).inside(float(v)));
  slope_forward(run.ctx, {.all = 0.25f}, x, y, gates.as<uint32_t>());
  EXPECT_EQ(compare_gates(shape, gates.read_as<uint32_t>(), states, false), "") << "slopes";
}

void check_pools(OpRun& run, DType dtype) {
  for (const int64_t kernel : {2, 3, 5}) {  // all places of a window hold the same
    const Shape y_shape{2, 40, 3, 13};
    const Nchw s = specials(y_shape, dtype);
    Nchw x({2, 40, 3 * kernel, 13 * kernel});
    for (int64_t i = 0; i < x.shape.n * x.shape.c; ++i)
      for (int64_t h = 0; h < x.shape.h; ++h)
        for (int64_t w = 0; w < x.shape.w; ++w)
          x.v[size_t((i * x.shape.h + h) * x.shape.w + w)] = s.v[size_t((i * 3 + h / kernel) * 13 + w / kernel)];
    const Activation in = run.input(x, dtype);
    check_gates(run, s, dtype, fmt::format("{0}x{0} max pool", kernel), [&](View y, const Epilogue& e) {
      max_pool2d_forward(run.ctx, max_pool2d(kernel, kernel), in, y, nullptr, e);
    });
  }
}

// The algorithms of a device, and what they are called.
struct Algorithm {
  const char* name;
  ConvAlgorithm conv;
};
std::vector<Algorithm> algorithms(const OpRun& run) {
  if (!run.ctx.gpu)
    return {{"automatic", ConvAlgorithm::automatic}, {"direct", ConvAlgorithm::direct}, {"winograd", ConvAlgorithm::winograd}};
  std::vector<Algorithm> all = {{"own", ConvAlgorithm::own}, {"gemm", ConvAlgorithm::gemm}, {"direct", ConvAlgorithm::direct}};
  bool vendor = true;
  for (const std::string& line : run.ctx.gpu->ops->vendor_libraries(*run.ctx.gpu)) vendor &= line.find("not found") == line.npos;
  if (vendor) all.push_back({"vendor", ConvAlgorithm::vendor});
  return all;
}

// Sums of zeros, so that s is the bias: another special value for each output channel.
void check_products(OpRun& run, DType dtype) {
  if (!run.device.computes_in(dtype)) return;
  const struct {
    const char* name;
    Conv2d conv;
    Shape x;
  } layers[] = {
      {"1x1", conv2d(16, 70, 1), {2, 16, 3, 5}},
      {"3x3", conv2d(16, 48, 3, 1, 1), {2, 16, 6, 7}},
      {"3x3/2 of 3 channels", conv2d(3, 40, 3, 2, 1), {2, 3, 9, 8}},
      {"3x3 dilated", conv2d(64, 72, 3, 1, 2, 2), {2, 64, 18, 17}},
      {"depthwise", conv2d(40, 40, 3, 1, 1, 1, 40), {2, 40, 5, 6}},
      {"depthwise/2", conv2d(20, 40, 3, 2, 1, 1, 20), {2, 20, 5, 6}},
      {"whole map", conv2d(8, 40, 4), {2, 8, 4, 4}},
  };
  for (const auto& [name, conv, x_shape] : layers) {
    const std::vector<float> w(size_t(conv.out_channels * conv.in_channels / conv.groups * conv.kernel_h * conv.kernel_w), 1);
    Nchw s = specials(output_shape(conv, x_shape), dtype, false);
    const Nchw first = specials({1, conv.out_channels, 1, 1}, dtype, false);
    const std::vector<float> bias(first.v.begin(), first.v.end());
    for (double& v : s.v) v += 0.0;  // 0 + −0 is 0
    const ConvWeights weights(conv, w.data(), bias);
    const Activation x = run.input(Nchw(x_shape), dtype);
    for (const Algorithm& a : algorithms(run)) {
      run.ctx.conv = a.conv;
      const std::string which = conv2d_algorithm(run.ctx, weights, x_shape, dtype, false);
      check_gates(run, s, dtype, fmt::format("{} by {} ({})", name, a.name, which),
                  [&](View y, const Epilogue& e) { conv2d_forward(run.ctx, weights, x, y, e); });
    }
  }
  const std::vector<float> w(size_t(64 * 70), 1);
  const Nchw first = specials({1, 70, 1, 1}, dtype, false);
  const std::vector<float> bias(first.v.begin(), first.v.end());
  for (const int64_t n : {1, 3, 20}) {
    Nchw s = specials({n, 70, 1, 1}, dtype, false);
    for (double& v : s.v) v += 0.0;
    const Activation x = run.input(Nchw(Shape{n, 64, 1, 1}), dtype);
    const LinearWeights weights{{64, 70}, w.data(), bias.data()};
    for (const Algorithm& a : algorithms(run)) {
      run.ctx.conv = a.conv;
      check_gates(run, s, dtype, fmt::format("linear layer of {} items by {}", n, a.name),
                  [&](View y, const Epilogue& e) { linear_forward(run.ctx, weights, x, y, e); });
    }
  }
}

// GPUs: a max pool behind a convolution, with the gates of the convolution's map or of the pooled one. The first of two
// input channels is the pixel's value.
struct FusedPool {
  int64_t kernel;
  ConvAlgorithm conv;
};
constexpr FusedPool kFusedPools[] = {{2, ConvAlgorithm::gemm}, {1, ConvAlgorithm::direct}, {2, ConvAlgorithm::direct}, {3, ConvAlgorithm::direct}};

void check_fused_pool(OpRun& run, DType dtype, const FusedPool& fused) {
  constexpr int64_t kChannels = 40;
  const Conv2d conv = conv2d(2, kChannels, 1);
  const MaxPool2d pool = max_pool2d(fused.kernel, fused.kernel);
  const Shape small{2, kChannels, 3, 13}, large{2, kChannels, 3 * fused.kernel, 13 * fused.kernel};
  const std::vector<float> w(2 * kChannels, 1);
  const Nchw values = specials({1, kChannels, 1, 1}, dtype, false);
  const std::vector<float> bias(values.v.begin(), values.v.end());
  const ConvWeights weights(conv, w.data(), bias);
  const Activation x = run.input(Nchw(Shape{2, 2, large.h, large.w}), dtype);
  run.ctx.conv = fused.conv;
  ASSERT_TRUE(conv2d_fuses_pool(run.ctx, conv, x.shape, dtype, pool));
  for (const bool before_relu : {false, true})
    for (const float clip : {kNoClip, 6.f, 0.f}) {
      SCOPED_TRACE(fmt::format("{}, clip {}, {}", short_name(dtype), clip, before_relu ? "pool, ReLU" : "ReLU, pool"));
      const Shape gated = before_relu ? small : large;
      const Limits limits = relu_limits(clip);
      Nchw value = specials(small, dtype, false), s = specials(gated, dtype, false);
      Gates states;
      for (double& v : value.v) v = double(limits.value(float(v)));
      for (const double v : s.v) states.push_back(uint8_t(limits.state(float(v))));
      const bool clipped = clip != kNoClip;
      const Activation y = run.output(small, dtype);
      Guarded& gates = run.bytes(size_t(gate_words(gated)) * (clipped ? 8 : 4), kPoisonBits);
      conv2d_forward(run.ctx, weights, x, y, {.relu = true, .clip = clip, .gates = gates.as<uint32_t>(), .pool = &pool,
                                              .pool_before_relu = before_relu});
      expect_same(y.read(), value, "value");
      EXPECT_EQ(compare_gates(gated, gates.read_as<uint32_t>(), states, clipped), "");
    }
}

// --- winners

// Every 2x2 window of six values, or many 3x3 windows: window w of channel c is number w·channels + c.
constexpr float kCandidates[] = {kNan, -kInf, -0.f, 0.f, 1.f, kInf};
int candidate(int64_t kernel, int64_t number, int64_t place) {
  if (kernel == 2) {
    for (int64_t i = 0; i < place; ++i) number /= 6;
    return int(number % 6);
  }
  const uint64_t hash = (uint64_t(number) * 9 + uint64_t(place) + 1) * 0x9e3779b97f4a7c15u;
  return int((hash >> 40) % 6);
}

// x [1,c,k,13·k] of 13 windows side by side, and the winner of each.
struct Windows {
  Nchw x, value;
  std::vector<int> places;  // NCHW of value
};
Windows windows_of(int64_t kernel, int64_t channels) {
  Windows out{Nchw({1, channels, kernel, 13 * kernel}), Nchw({1, channels, 1, 13}), {}};
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t w = 0; w < 13; ++w) {
      Winner winner;
      for (int64_t place = 0; place < kernel * kernel; ++place) {
        const float v = kCandidates[candidate(kernel, w * channels + c, place)];
        out.x(0, c, place / kernel, w * kernel + place % kernel) = double(v);
        winner.meet(v, int(place));
      }
      out.value(0, c, 0, w) = double(winner.best);
      out.places.push_back(winner.place);
    }
  return out;
}

std::vector<int> places_of(const Guarded& switches, Shape s) {  // NHWC bytes -> NCHW
  const std::vector<uint8_t> bytes = switches.read();
  std::vector<int> places;
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t c = 0; c < s.c; ++c)
      for (int64_t p = 0; p < s.h * s.w; ++p) places.push_back(bytes[size_t((n * s.h * s.w + p) * s.c + c)]);
  return places;
}

void check_winners(OpRun& run, DType dtype) {
  for (const int64_t kernel : {2, 3})
    for (const int64_t channels : {101, 128}) {  // 13·101 windows are more than the 6^4 that there are of 2x2
      const Windows windows = windows_of(kernel, channels);
      const MaxPool2d pool = max_pool2d(kernel, kernel);
      const Activation x = run.input(windows.x, dtype);
      for (const bool residual : {false, true}) {  // with an epilogue the CPU has another loop
        SCOPED_TRACE(fmt::format("{}x{} of {} channels, {}, residual {}", kernel, kernel, channels, short_name(dtype), residual));
        const Activation y = run.output(windows.value.shape, dtype);
        Guarded& switches = run.bytes(size_t(windows.value.shape.count()), kPoisonBits);
        const Activation none = run.input(Nchw(windows.value.shape, -0.0), dtype);
        max_pool2d_forward(run.ctx, pool, x, y, switches.data(), {.residual = residual ? none.memory->data() : nullptr});
        expect_same(y.read(), windows.value, "maximum");
        EXPECT_EQ(places_of(switches, windows.value.shape), windows.places);
      }
      // As a change from 0 of a patch that covers the map: x + −0 is x in every bit.
      const Activation y = run.output(windows.value.shape, dtype), zero = run.input(Nchw(windows.value.shape), dtype);
      const auto* corner = run.input_of(std::vector<Origin>(1)).as<Origin>();
      const Change change{.patch = run.input(Nchw(windows.x.shape, -0.0), dtype), .origins = corner, .clean = x};
      max_pool2d_changes(run.ctx, pool, change, zero, corner, y);
      expect_same(y.read(), windows.value, "maximum of a patch");
    }
}

void check_fused_winners(OpRun& run, DType dtype, const FusedPool& fused) {
  const Windows windows = windows_of(fused.kernel, 101);
  const MaxPool2d pool = max_pool2d(fused.kernel, fused.kernel);
  // The channels' maps one below the other, each as the first channel of an image: a sum 0 + 1·x + 1·0.
  const Shape all{1, 1, 101 * fused.kernel, 13 * fused.kernel}, pooled{1, 40, 101, 13};
  Nchw x({1, 2, all.h, all.w}), value(pooled);
  std::copy(windows.x.v.begin(), windows.x.v.end(), x.v.begin());
  std::vector<int> places;
  for (int64_t c = 0; c < pooled.c; ++c) {
    std::copy(windows.value.v.begin(), windows.value.v.end(), value.v.begin() + c * 101 * 13);
    places.insert(places.end(), windows.places.begin(), windows.places.end());
  }
  for (double& v : value.v) v += 0.0;
  const Conv2d conv = conv2d(2, pooled.c, 1, 1, 0, 1, 1, false);
  const std::vector<float> w(size_t(2 * pooled.c), 1);
  const ConvWeights weights(conv, w.data());
  run.ctx.conv = fused.conv;
  const Activation in = run.input(x, dtype), y = run.output(pooled, dtype);
  ASSERT_TRUE(conv2d_fuses_pool(run.ctx, conv, in.shape, dtype, pool));
  Guarded& switches = run.bytes(size_t(pooled.count()), kPoisonBits);
  conv2d_forward(run.ctx, weights, in, y, {.pool = &pool, .switches = switches.data()});
  expect_same(y.read(), value, "maximum");
  EXPECT_EQ(places_of(switches, pooled), places);
}

// A patch's values and changes go through the ReLU as maps do.
void check_patches(OpRun& run, DType dtype) {
  const Shape map{1, 33, 3, 13};
  const Nchw s = specials(map, dtype);
  const auto* corner = run.input_of(std::vector<Origin>(1)).as<Origin>();
  for (const float clip : {kNoClip, 6.f}) {
    SCOPED_TRACE(fmt::format("{}, clip {}", short_name(dtype), clip));
    Change change{.patch = run.input(Nchw(map, -0.0), dtype), .origins = corner, .clean = run.input(s, dtype), .relu = true,
                  .clip = clip};
    Nchw value = s;
    for (double& v : value.v) v = double(relu_limits(clip).value(float(v)));
    const Activation y = run.output(map, dtype);
    gather_values(run.ctx, change, corner, y);
    expect_same(y.read(), value, "value");
  }
}

}  // namespace

void register_gates_tests() {
  const auto add = [](const char* name, const DeviceRow& device, const auto& check) {
    for (const DType dtype : device.types)
      add_test("Op/Gates", name, device, short_name(dtype), [=](OpRun& run) { check(run, dtype); });
  };
  for_each_device("Op/Gates", [&](const DeviceRow& device) {
    add("pointwise", device, check_pointwise);
    add("ramps", device, check_ramps);
    add("pools", device, check_pools);
    add("products", device, check_products);
    add("winners", device, check_winners);
    add("patches", device, check_patches);
    if (!device.gpu) return;
    for (const FusedPool& fused : kFusedPools) {
      const std::string which = fmt::format("{}_{}x{}", fused.conv == ConvAlgorithm::gemm ? "gemm" : "direct", fused.kernel,
                                            fused.kernel);
      add(("pool_behind_" + which).c_str(), device, [fused](OpRun& run, DType t) { check_fused_pool(run, t, fused); });
      add(("winners_behind_" + which).c_str(), device, [fused](OpRun& run, DType t) { check_fused_winners(run, t, fused); });
    }
  });
}

}  // namespace switchback::test
