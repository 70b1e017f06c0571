// The layers of op_activation, op_binary, op_resample and op_conv_transpose_test against PyTorch's float64 results
// (resize modes that it lacks: those of the onnx package), and so their references, by which all else is checked.
#include <cmath>

#include "tests/support/golden_case.h"
#include "tests/support/reference_layers.h"

namespace switchback::test {
namespace {

template <typename E>
E named(const Golden& g, const char* key, std::initializer_list<std::pair<const char*, E>> names) {
  for (const auto& [name, value] : names)
    if (g.params.at(key) == name) return value;
  ADD_FAILURE() << "unknown " << key;
  return names.begin()->second;
}

// --- linear maps

template <typename Forward, typename Backward>
void run_linear_map(OpRun& run, const Golden& g, const LinearMap& map, const Forward& forward, const Backward& backward) {
  const Nchw x = g.map("x"), y_want = g.map("y");
  const Activation y = run.output(y_want.shape, kF32);
  forward(run.input(x, kF32), y);
  expect_golden("y", y.read(), y_want, apply(map, x), false, rounding_steps(map.longest_forward()) + 3);
  if (!g.has("dy")) return;
  const Nchw dy = g.map("dy");
  const Activation dx = run.output(x.shape, kF32);
  backward(run.input(dy, kF32), dx);
  expect_golden("dx", dx.read(), g.map("dx"), apply_transposed(map, dy), false, rounding_steps(map.longest_backward()) + 3);
}

template <typename Layer>
void run_resampling(OpRun& run, const Golden& g, const Layer& layer) {
  const Shape x = g.map("x").shape;
  const Resampling resampling(layer, x);
  run_linear_map(
      run, g, linear_map(layer, x), [&](ConstView in, View y) { resample_forward(run.ctx, resampling, in, y); },
      [&](ConstView dy, View dx) { resample_backward(run.ctx, resampling, dy, dx); });
}

template <typename Layer>
void run_rearrangement(OpRun& run, const Golden& g, const Layer& layer) {
  const Shape x = g.map("x").shape;
  const Rearrangement how(layer, x);
  run_linear_map(
      run, g, linear_map(layer, x), [&](ConstView in, View y) { rearrange_forward(run.ctx, how, in, y); },
      [&](ConstView dy, View dx) { rearrange_backward(run.ctx, how, dy, dx); });
}

void run_resize(OpRun& run, const Golden& g) {
  using At = Resize::Coordinates;
  using Rounding = Resize::Rounding;
  run_resampling(run, g,
                 Resize{.mode = g.params.at("mode") == "nearest" ? Resize::Mode::nearest : Resize::Mode::bilinear,
                        .coordinates = named<At>(g, "coordinates",
                                                 {{"half_pixel", At::half_pixel},
                                                  {"pytorch_half_pixel", At::pytorch_half_pixel},
                                                  {"align_corners", At::align_corners},
                                                  {"asymmetric", At::asymmetric}}),
                        .rounding = named<Rounding>(g, "rounding",
                                                    {{"floor", Rounding::floor},
                                                     {"round_prefer_floor", Rounding::round_prefer_floor},
                                                     {"round_prefer_ceil", Rounding::round_prefer_ceil},
                                                     {"ceil", Rounding::ceil}}),
                        .out_h = g.integer("out_h"),
                        .out_w = g.integer("out_w"),
                        .scale_h = g.real("scale_h"),
                        .scale_w = g.real("scale_w")});
}

void run_pad(OpRun& run, const Golden& g) {
  using Mode = Pad::Mode;
  run_resampling(run, g,
                 Pad{.top = g.integer("top"),
                     .left = g.integer("left"),
                     .bottom = g.integer("bottom"),
                     .right = g.integer("right"),
                     .mode = named<Mode>(g, "mode",
                                         {{"constant", Mode::constant}, {"reflect", Mode::reflect}, {"edge", Mode::edge}}),
                     .value = g.real("value")});
}

void run_slice(OpRun& run, const Golden& g) {
  const auto range = [&](const char* key) {
    const auto v = g.params.at(key).get<std::vector<int64_t>>();
    return SliceRange{v.at(0), v.at(1), v.at(2)};
  };
  run_resampling(run, g, Slice{range("c"), range("h"), range("w")});
}

void run_channel_shuffle(OpRun& run, const Golden& g) { run_resampling(run, g, ChannelShuffle{g.integer("groups")}); }
void run_reshape(OpRun& run, const Golden& g) {
  run_rearrangement(run, g, Reshape{g.integer("c"), g.integer("h"), g.integer("w")});
}
void run_permute(OpRun& run, const Golden& g) {
  run_rearrangement(run, g, Permute{g.params.at("axes").get<std::array<int64_t, 3>>()});
}

void run_reduce(OpRun& run, const Golden& g) {
  const auto flag = [&](const char* key) { return g.params.at(key).get<bool>(); };
  const Reduce reduce{.c = flag("c"), .h = flag("h"), .w = flag("w"), .mean = flag("mean")};
  run_linear_map(
      run, g, linear_map(reduce, g.map("x").shape), [&](ConstView x, View y) { reduce_forward(run.ctx, reduce, x, y); },
      [&](ConstView dy, View dx) { reduce_backward(run.ctx, reduce, dy, dx); });
}

void run_conv_transpose(OpRun& run, const Golden& g) {
  const ConvTranspose2d conv{.in_channels = g.integer("in_channels"),
                             .out_channels = g.integer("out_channels"),
                             .kernel_h = g.integer("kernel_h"),
                             .kernel_w = g.integer("kernel_w"),
                             .stride_h = g.integer("stride_h"),
                             .stride_w = g.integer("stride_w"),
                             .pad_top = g.integer("pad_top"),
                             .pad_left = g.integer("pad_left"),
                             .pad_bottom = g.integer("pad_bottom"),
                             .pad_right = g.integer("pad_right"),
                             .output_pad_h = g.integer("output_pad_h"),
                             .output_pad_w = g.integer("output_pad_w"),
                             .dilation_h = g.integer("dilation_h"),
                             .dilation_w = g.integer("dilation_w"),
                             .groups = g.integer("groups"),
                             .has_bias = g.params.at("has_bias").get<bool>()};
  run.ctx.conv = ConvAlgorithm::direct;
  const std::vector<float> w = g.values("w"), b = g.values("b");
  const ConvTransposeWeights weights(conv, w.data(), b);
  run_linear_map(
      run, g, linear_map(conv, g.map("x").shape, w, b, {}),
      [&](ConstView x, View y) { conv_transpose2d_forward(run.ctx, weights, x, y); },
      [&](ConstView dy, View dx) { conv_transpose2d_backward_data(run.ctx, weights, dy, dx); });
}

// --- activations and binary functions

void run_smooth(OpRun& run, const Golden& g) {
  using F = SmoothFunction;
  const F function = named<F>(
      g, "function", {{"sigmoid", F::sigmoid}, {"tanh", F::tanh}, {"hardswish", F::hardswish}, {"silu", F::silu},
                        {"gelu", F::gelu}, {"gelu_tanh", F::gelu_tanh}});
  const Nchw x = g.map("x"), dy = g.map("dy");
  const Activation in = run.input(x, kF32), y = run.output(x.shape, kF32), dx = run.output(x.shape, kF32);
  switchback::smooth_forward(run.ctx, {function}, in, y);
  switchback::smooth_backward(run.ctx, {function}, run.input(dy, kF32), in, dx);
  expect_golden("y", y.read(), g.map("y"), smooth_forward({function}, x), false, 16);
  expect_golden("dx", dx.read(), g.map("dx"), smooth_backward({function}, dy, x, 1), false, 16);
}

void run_set_norm(OpRun& run, const Golden& g) {
  const Nchw x = g.map("x"), dy = g.map("dy");
  const NormSets sets{g.integer("channels"), g.integer("places"), g.real("eps")};
  NormCase norm{sets, {}, {}, g.integer("by_place"), g.integer("by_channel")};
  NormAffine affine{nullptr, nullptr, norm.by_place, norm.by_channel};
  if (g.has("w")) {
    const std::vector<float> w = g.values("w"), b = g.values("b");
    norm.weight.assign(w.begin(), w.end()), norm.bias.assign(b.begin(), b.end());
    affine.weight = run.input_of(w).as<float>(), affine.bias = run.input_of(b).as<float>();
  }
  const Activation in = run.input(x, kF32), y = run.output(x.shape, kF32), dx = run.output(x.shape, kF32);
  switchback::set_norm_forward(run.ctx, sets, affine, in, y);
  switchback::set_norm_backward(run.ctx, sets, affine, run.input(dy, kF32), in, dx);
  expect_golden("y", y.read(), g.map("y"), set_norm_forward(norm, x), false, 8);
  expect_golden("dx", dx.read(), g.map("dx"), set_norm_backward(norm, dy, x, 1), false, 16);
}

void run_slope(OpRun& run, const Golden& g) {
  const Nchw x = g.map("x"), dy = g.map("dy");
  const std::vector<float> w = g.has("w") ? g.values("w") : std::vector<float>{g.real("slope")};
  const std::vector<double> reference(w.begin(), w.end());
  const Slopes slopes{.all = w[0], .by_channel = w.size() > 1 ? run.input_of(w).as<float>() : nullptr};
  Guarded& gates = run.bytes(size_t(gate_words(x.shape)) * 4, kPoisonBits);
  const Activation y = run.output(x.shape, kF32), dx = run.output(x.shape, kF32);
  switchback::slope_forward(run.ctx, slopes, run.input(x, kF32), y, gates.as<uint32_t>());
  switchback::slope_backward(run.ctx, slopes, run.input(dy, kF32), gates.as<uint32_t>(), kGradient, dx);
  Gates open;
  const Ref forward = slope_forward(reference, x, &open);
  expect_golden("y", y.read(), g.map("y"), forward, false, 1);
  expect_golden("dx", dx.read(), g.map("dx"), slope_backward(reference, dy, open, Rule::gradient, 1), false, 1);
}

void run_ramp(OpRun& run, const Golden& g) {
  Ramp ramp = Clip{g.real("min"), g.real("max")};
  ramp.scale = g.real("scale"), ramp.shift = g.real("shift");
  const Nchw x = g.map("x"), dy = g.map("dy");
  Guarded& gates = run.bytes(size_t(gate_words(x.shape)) * 8, kPoisonBits);
  const Activation y = run.output(x.shape, kF32), dx = run.output(x.shape, kF32);
  switchback::ramp_forward(run.ctx, ramp, run.input(x, kF32), y, gates.as<uint32_t>());
  switchback::ramp_backward(run.ctx, ramp, run.input(dy, kF32), gates.as<uint32_t>(), dx);
  const RampValue want = ramp_forward(ramp.scale, ramp.shift, ramp.min, ramp.max, x);
  expect_golden("y", y.read(), g.map("y"), want.y, false, 2);
  expect_golden("dx", dx.read(), g.map("dx"), ramp_backward(ramp.scale, dy, want.gates, 1), false, 1);
}

void run_binary(OpRun& run, const Golden& g) {
  using F = BinaryFunction;
  const F function = named<F>(g, "function", {{"add", F::add}, {"sub", F::sub}, {"mul", F::mul}, {"div", F::div}});
  const Nchw a = g.map("x"), b = g.map("b"), dy = g.map("dy");
  const Activation a_in = run.input(a, kF32), b_in = run.input(b, kF32), dy_in = run.input(dy, kF32);
  const Activation y = run.output(dy.shape, kF32), da = run.output(a.shape, kF32), db = run.output(b.shape, kF32);
  switchback::binary_forward(run.ctx, {function}, a_in, b_in, y);
  switchback::binary_backward(run.ctx, {function}, 0, dy_in, a_in, b_in, da);
  switchback::binary_backward(run.ctx, {function}, 1, dy_in, a_in, b_in, db);
  const double steps = rounding_steps(dy.shape.item()) + 4;
  expect_golden("y", y.read(), g.map("y"), binary_forward(function, a, b), false, steps);
  expect_golden("da", da.read(), g.map("dx"), binary_backward(function, 0, dy, a, b, 1), false, steps);
  expect_golden("db", db.read(), g.map("db"), binary_backward(function, 1, dy, a, b, 1), false, steps);
}

const std::map<std::string, GoldenRunner>& runners() {
  static const std::map<std::string, GoldenRunner> rows = {
      {"resize", run_resize},
      {"pad", run_pad},
      {"slice", run_slice},
      {"channel_shuffle", run_channel_shuffle},
      {"reshape", run_reshape},
      {"permute", run_permute},
      {"reduce", run_reduce},
      {"conv_transpose2d", run_conv_transpose},
      {"smooth", run_smooth},
      {"set_norm", run_set_norm},
      {"slope", run_slope},
      {"ramp", run_ramp},
      {"binary", run_binary},
  };
  return rows;
}

}  // namespace

void register_golden_layer_tests() {
  register_golden_cases("Op/GoldenLayers", "layers.safetensors", 100, runners());
}

}  // namespace switchback::test
