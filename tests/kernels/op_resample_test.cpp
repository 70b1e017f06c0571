// Layers that are linear maps of an item, against their lists of terms: resize, pad, slice, channel shuffle, reshape,
// permute, means and sums, transposed convolution. Both directions, and the adjoint identity.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <variant>

#include "kernels/check.h"
#include "tests/support/epilogue_check.h"
#include "tests/support/reference_layers.h"

namespace switchback::test {
namespace {

using Mode = Resize::Mode;
using At = Resize::Coordinates;
using Rounding = Resize::Rounding;
using PadMode = Pad::Mode;
constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

using Layer = std::variant<Resize, Pad, Slice, ChannelShuffle, Take, Reshape, Permute, Transpose, Reduce>;
struct Case {
  std::string name;
  Layer layer;
  Shape x;
  bool dyadic = true;  // weights are multiples of a power of 1/2: integers come out exact
};

std::vector<Case> resize_cases() {
  std::vector<Case> rows = {
      {"nearest_x2", Resize{.scale_h = 2, .scale_w = 2}, {6, 3, 3, 4}},
      {"nearest_x2_c32", Resize{.scale_h = 2, .scale_w = 2}, {6, 32, 2, 3}},
      {"nearest_down", Resize{.out_h = 3, .out_w = 2}, {6, 5, 7, 8}},
      {"nearest_by_0.6", Resize{.scale_h = 0.6f, .scale_w = 1.7f}, {6, 4, 10, 5}},
      {"nearest_from_one", Resize{.out_h = 3, .out_w = 4}, {6, 33, 1, 1}},
      {"bilinear_x2", bilinear_by(2), {6, 3, 4, 5}},
      {"bilinear_x2_c32", bilinear_by(2), {6, 32, 3, 2}},
      {"bilinear_x4_c33", bilinear_by(4), {6, 33, 2, 3}},
      {"bilinear_down", bilinear_to(3, 2), {6, 4, 7, 9}, false},
      {"bilinear_odd", bilinear_to(7, 11), {6, 3, 4, 5}, false},
      {"bilinear_by_1.7", bilinear_by(1.7f), {6, 2, 5, 6}, false},
      {"bilinear_align_corners", bilinear_to(9, 5, true), {6, 7, 5, 3}, true},
      {"bilinear_align_corners_odd", bilinear_to(8, 11, true), {6, 3, 4, 5}, false},
      {"bilinear_to_one", bilinear_to(1, 1), {6, 5, 6, 4}, true},
      {"bilinear_to_one_aligned", bilinear_to(1, 1, true), {6, 5, 3, 4}, true},
      {"bicubic_x2", Resize{.mode = Mode::bicubic, .coordinates = At::half_pixel, .scale_h = 2, .scale_w = 2}, {6, 3, 4, 5}},
      {"bicubic_c33", Resize{.mode = Mode::bicubic, .coordinates = At::half_pixel, .out_h = 7, .out_w = 5}, {6, 33, 4, 3}, false},
      {"bicubic_aligned", Resize{.mode = Mode::bicubic, .coordinates = At::align_corners, .out_h = 9, .out_w = 1}, {6, 2, 5, 4}, false},
      {"bicubic_down", Resize{.mode = Mode::bicubic, .coordinates = At::asymmetric, .scale_h = 0.7f, .scale_w = 0.4f}, {6, 4, 9, 8}, false},
      {"bicubic_inside", Resize{.mode = Mode::bicubic, .coordinates = At::half_pixel, .out_h = 6, .out_w = 3, .cubic_coeff = -0.5f,
                                .exclude_outside = true}, {6, 5, 4, 1}, false},
      {"bilinear_same", bilinear_to(4, 3), {6, 5, 4, 3}, true},
  };
  const char* at_names[] = {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
                            "half_pixel_symmetric"};
  const char* rounding_names[] = {"floor", "round_prefer_floor", "round_prefer_ceil", "ceil"};
  for (const At at : {At::half_pixel, At::pytorch_half_pixel, At::align_corners, At::asymmetric, At::tf_half_pixel_for_nn,
                      At::half_pixel_symmetric}) {
    for (const Rounding rounding : {Rounding::floor, Rounding::round_prefer_floor, Rounding::round_prefer_ceil, Rounding::ceil}) {
      const std::string name = fmt::format("{}_{}", at_names[int(at)], rounding_names[int(rounding)]);
      rows.push_back({name + "_up", Resize{.coordinates = at, .rounding = rounding, .out_h = 10, .out_w = 7}, {6, 1, 4, 3}});
      rows.push_back({name + "_down", Resize{.coordinates = at, .rounding = rounding, .scale_h = 0.5f, .scale_w = 0.4f}, {6, 2, 6, 7}});
    }
    rows.push_back({fmt::format("bilinear_{}", at_names[int(at)]),
                    Resize{.mode = Mode::bilinear, .coordinates = at, .out_h = 7, .out_w = 1}, {6, 2, 3, 4}, false});
    rows.push_back({fmt::format("bilinear_{}_by", at_names[int(at)]),
                    Resize{.mode = Mode::bilinear, .coordinates = at, .scale_h = 2.3f, .scale_w = 0.6f}, {6, 2, 3, 4},
                    false});
  }
  return rows;
}

std::vector<Case> other_cases() {
  return {
      {"pad_zero", Pad{.top = 1, .left = 2, .bottom = 3, .right = 0}, {6, 3, 4, 3}},
      {"pad_zero_c32", Pad{.top = 1, .left = 1, .bottom = 1, .right = 1}, {6, 32, 2, 3}},
      {"pad_value", Pad{.top = 2, .left = 0, .bottom = 1, .right = 1, .value = -7.f}, {6, 5, 3, 3}},
      {"pad_channels", Pad{.front = 2, .back = 3, .value = 4.f}, {6, 4, 3, 2}},
      {"pad_channels_resnet20", Pad{.front = 16, .back = 16}, {6, 32, 2, 2}},
      {"pad_everything", Pad{.top = 1, .left = 1, .bottom = 0, .right = 2, .front = 1, .back = 0, .value = 2.f}, {6, 3, 2, 3}},
      {"pad_cuts", Pad{.top = -1, .left = 2, .bottom = 1, .right = -2, .front = -1}, {6, 4, 4, 5}},
      {"pad_reflect", Pad{.top = 2, .left = 3, .bottom = 1, .right = 2, .mode = PadMode::reflect}, {6, 5, 3, 4}},
      {"pad_reflect_widest", Pad{.top = 3, .left = 1, .bottom = 3, .right = 1, .mode = PadMode::reflect}, {6, 32, 4, 2}},
      {"pad_reflect_cuts", Pad{.top = 1, .left = -1, .bottom = -2, .right = 1, .mode = PadMode::reflect}, {6, 3, 4, 5}},
      {"pad_edge", Pad{.top = 2, .left = 4, .bottom = 5, .right = 1, .mode = PadMode::edge}, {6, 33, 3, 2}},
      {"pad_edge_one", Pad{.top = 2, .left = 1, .bottom = 1, .right = 3, .mode = PadMode::edge}, {6, 6, 1, 1}},
      {"slice_rows_step2", Slice{.h = {0, kEnd, 2}, .w = {0, kEnd, 2}}, {6, 16, 5, 4}},
      {"slice_rows_c32", Slice{.h = {1, 3, 1}, .w = {-2, kEnd, 1}}, {6, 32, 4, 3}},
      {"slice_channels", Slice{.c = {2, 7, 2}}, {6, 9, 3, 2}},
      {"slice_channels_from_end", Slice{.c = {-3, -1, 1}, .h = {-100, 100, 3}}, {6, 40, 4, 3}},
      {"slice_steps", Slice{.c = {1, kEnd, 3}, .h = {2, kEnd, 4}, .w = {0, -1, 2}}, {6, 7, 11, 6}},
      {"slice_all", Slice{}, {6, 5, 2, 3}},
      {"shuffle_g2", ChannelShuffle{2}, {6, 58, 2, 2}},
      {"shuffle_g3", ChannelShuffle{3}, {6, 96, 1, 2}},
      {"shuffle_g4", ChannelShuffle{4}, {6, 8, 3, 3}},
      {"shuffle_g1", ChannelShuffle{1}, {6, 8, 2, 3}},
      {"take_flipped", Take{.c = {4, 3, 2, 1, 0}, .h = {2, 1, 0}, .w = {3, 2, 1, 0}}, {6, 5, 3, 4}},
      {"take_repeated", Take{.h = {1, 1, 0, 3, 1}, .w = {2, 0, 2, 2}}, {6, 32, 4, 3}},
      {"take_channels", Take{.c = {40, 3, 17, 0}, .w = {1}}, {6, 41, 2, 3}},
      {"reshape_to_vector", Reshape{-1, 1, 1}, {6, 5, 3, 4}},
      {"reshape_from_vector", Reshape{5, -1, 4}, {6, 60, 1, 1}},
      {"reshape_map", Reshape{32, 2, -1}, {6, 8, 4, 6}},
      {"reshape_one_channel", Reshape{1, 33, -1}, {6, 33, 2, 3}},
      {"permute_to_nhwc", Permute{{2, 3, 1}}, {6, 5, 3, 4}},
      {"permute_from_nhwc", Permute{{3, 1, 2}}, {6, 4, 3, 33}},
      {"permute_rows_columns", Permute{{1, 3, 2}}, {6, 32, 3, 4}},
      {"permute_reverse", Permute{{3, 2, 1}}, {6, 6, 2, 5}},
      {"permute_swap_first", Permute{{2, 1, 3}}, {6, 6, 2, 5}},
      {"transpose_none", Transpose{{60}, {0}, 5, 3, 4}, {6, 10, 2, 3}},
      {"transpose_heads", Transpose{{5, 3, 8}, {1, 0, 2}, 8, 3, 5}, {6, 24, 5, 1}},
      {"transpose_heads_odd", Transpose{{4, 3, 11}, {1, 0, 2}, 11, 3, 4}, {6, 33, 2, 2}},
      {"transpose_keys", Transpose{{2, 5, 7}, {0, 2, 1}, 5, 2, 7}, {6, 7, 2, 5}},
      {"transpose_windows", Transpose{{2, 3, 2, 2, 4}, {0, 2, 1, 3, 4}, 4, 4, 6}, {6, 4, 6, 4}},
      {"transpose_six", Transpose{{2, 3, 2, 2, 3, 2}, {5, 3, 1, 4, 2, 0}, 6, 3, 8}, {6, 36, 2, 2}},
      {"transpose_c32", Transpose{{6, 32}, {1, 0}, 6, 4, 8}, {6, 32, 2, 3}},
      {"mean_hw", Reduce{.h = true, .w = true}, {6, 5, 4, 2}},
      {"mean_hw_c32", Reduce{.h = true, .w = true}, {6, 32, 8, 4}},
      {"mean_hw_large", Reduce{.h = true, .w = true}, {6, 3, 33, 32}, false},
      {"mean_h", Reduce{.h = true}, {6, 33, 4, 3}},
      {"mean_w", Reduce{.w = true}, {6, 7, 3, 16}},
      {"mean_w_7", Reduce{.w = true}, {6, 7, 3, 7}, false},
      {"mean_c", Reduce{.c = true}, {6, 64, 2, 3}},
      {"mean_c_70", Reduce{.c = true}, {6, 70, 2, 3}, false},
      {"mean_all", Reduce{.c = true, .h = true, .w = true}, {6, 8, 4, 4}},
      {"sum_c", Reduce{.c = true, .mean = false}, {6, 37, 3, 2}},
      {"sum_ch", Reduce{.c = true, .h = true, .mean = false}, {6, 5, 3, 4}},
      {"sum_hw", Reduce{.h = true, .w = true, .mean = false}, {6, 33, 5, 7}},
      {"sum_one_place", Reduce{.h = true, .w = true, .mean = false}, {6, 5, 1, 1}},
  };
}

// The two directions of a layer.
struct Calls {
  std::function<void(ConstView x, View y)> forward;
  std::function<void(ConstView dy, View dx, const BackwardEpilogue&)> backward;
};
template <typename Prepared>
Calls calls_of(OpRun& run, std::shared_ptr<Prepared> layer) {
  if constexpr (std::is_same_v<Prepared, Resampling>)
    return {[&run, layer](ConstView x, View y) { resample_forward(run.ctx, *layer, x, y); },
            [&run, layer](ConstView dy, View dx, const BackwardEpilogue& e) { resample_backward(run.ctx, *layer, dy, dx, e); }};
  else if constexpr (std::is_same_v<Prepared, Rearrangement>)
    return {[&run, layer](ConstView x, View y) { rearrange_forward(run.ctx, *layer, x, y); },
            [&run, layer](ConstView dy, View dx, const BackwardEpilogue& e) { rearrange_backward(run.ctx, *layer, dy, dx, e); }};
  else if constexpr (std::is_same_v<Prepared, Transpose>)
    return {[&run, layer](ConstView x, View y) { transpose_forward(run.ctx, *layer, x, y); },
            [&run, layer](ConstView dy, View dx, const BackwardEpilogue& e) { transpose_backward(run.ctx, *layer, dy, dx, e); }};
  else
    return {[&run, layer](ConstView x, View y) { reduce_forward(run.ctx, *layer, x, y); },
            [&run, layer](ConstView dy, View dx, const BackwardEpilogue& e) { reduce_backward(run.ctx, *layer, dy, dx, e); }};
}
Calls calls_of(OpRun& run, const Layer& layer, Shape x) {
  return std::visit(
      [&](const auto& l) {
        using L = std::decay_t<decltype(l)>;
        if constexpr (std::is_same_v<L, Reduce>) return calls_of(run, std::make_shared<Reduce>(l));
        else if constexpr (std::is_same_v<L, Transpose>) return calls_of(run, std::make_shared<Transpose>(l));
        else if constexpr (std::is_same_v<L, Reshape> || std::is_same_v<L, Permute>)
          return calls_of(run, std::make_shared<Rearrangement>(l, x));
        else return calls_of(run, std::make_shared<Resampling>(l, x));
      },
      layer);
}

void check_both_directions(OpRun& run, const Case& c, const LinearMap& map, const Calls& calls, DType dtype, bool integers) {
  SCOPED_TRACE(integers ? "integers" : "reals");
  const Nchw x = integers ? run.integers(c.x, 8) : run.reals(c.x, dtype);
  const Nchw dy = integers ? run.integers(map.out.with_n(c.x.n), 8) : run.reals(map.out.with_n(c.x.n), dtype);
  const Ref want = apply(map, x), want_back = apply_transposed(map, dy);
  // 3 more for the product of the two axes' weights and the division of a mean.
  const auto accuracy = [&](int64_t longest) {
    Accuracy a = integers ? exact(dtype) : within(dtype, rounding_steps(longest) + 3);
    a.zeros = Zeros::many_allowed;
    return a;
  };
  const Activation in = run.input(x, dtype), y = run.output(want.value.shape, dtype), dy_in = run.input(dy, dtype);
  calls.forward(in, y);
  EXPECT_EQ(accuracy(map.longest_forward()).compare(y.read(), want, Zeros::many_allowed), "");
  for (const int64_t seeds : {1, 2, 3})
    check_backward(run, want_back, accuracy(map.longest_backward()), seeds,
                   [&](View dx, const BackwardEpilogue& e) { calls.backward(dy_in, dx, e); });
  if (integers || !map.constant.empty()) return;
  const Activation dx = run.output(c.x, dtype);
  calls.backward(dy_in, dx, {});
  EXPECT_EQ(check_adjoint(dy, y.read(), accuracy(map.longest_forward()).tolerance(want), dx.read(), x,
                          accuracy(map.longest_backward()).tolerance(want_back)),
            "");
}

void check_splits_of(OpRun& run, const Case& c, const LinearMap& map, const Calls& calls, DType dtype) {
  const Activation x = run.input(run.reals(c.x, dtype), dtype), dy = run.input(run.reals(map.out.with_n(c.x.n), dtype), dtype);
  for (const bool backward : {false, true}) {
    const auto op = [&](int64_t first, int64_t count) {
      const Activation part = run.output((backward ? map.in : map.out).with_n(count), dtype);
      run.ctx.threads = int(count % 3) + 1;
      if (backward) calls.backward(slice(dy, first, count), part, {});
      else calls.forward(slice(x, first, count), part);
      return part.memory->read();
    };
    EXPECT_EQ(check_splits(c.x.n, op), "") << (backward ? "backward" : "forward");
  }
}

void check_case(OpRun& run, const Case& c, DType dtype) {
  const LinearMap map = std::visit([&](const auto& l) { return linear_map(l, c.x); }, c.layer);
  const Shape shape = std::visit([&](const auto& l) { return output_shape(l, c.x); }, c.layer);
  ASSERT_EQ(shape, map.out.with_n(c.x.n));
  const Calls calls = calls_of(run, c.layer, c.x);
  if (c.dyadic) check_both_directions(run, c, map, calls, dtype, true);
  check_both_directions(run, c, map, calls, dtype, false);
  check_splits_of(run, c, map, calls, dtype);
}

// NaN reaches exactly the outputs that read it, and the padding around it stays what it is.
void check_nan(OpRun& run) {
  Nchw x(Shape{1, 3, 4, 4}, 1);
  x(0, 1, 2, 1) = std::nan("");
  for (const Layer& layer : {Layer(Pad{.top = 1, .left = 1, .bottom = 1, .right = 1, .value = 5.f}), Layer(Slice{.h = {1, 4, 1}}),
                             Layer(bilinear_by(2)), Layer(ChannelShuffle{3})}) {
    const LinearMap map = std::visit([&](const auto& l) { return linear_map(l, x.shape); }, layer);
    const Activation y = run.output(map.out, DType::f32);
    calls_of(run, layer, x.shape).forward(run.input(x, DType::f32), y);
    EXPECT_EQ(compare_exact(y.read(), apply(map, x).value), "");
  }
}

TEST(ResampleErrors, LayersThatDoNotFit) {
  const Shape x{1, 4, 5, 6};
  EXPECT_THROW(output_shape(Resize{.out_h = -1}, x), Error);
  EXPECT_THROW(output_shape(Resize{.scale_h = 0.1f}, x), Error);
  EXPECT_THROW(output_shape(Resize{.scale_w = -1}, x), Error);
  EXPECT_THROW(output_shape(Pad{.top = 5, .mode = PadMode::reflect}, x), Error);
  EXPECT_THROW(output_shape(Pad{.front = 1, .mode = PadMode::edge}, x), Error);
  EXPECT_THROW(output_shape(Pad{.left = -3, .right = -3}, x), Error);
  EXPECT_THROW(output_shape(Slice{.h = {3, 3, 1}}, x), Error);
  EXPECT_THROW(output_shape(Slice{.w = {0, 6, 0}}, x), Error);
  EXPECT_THROW(output_shape(ChannelShuffle{3}, x), Error);
  EXPECT_THROW(output_shape(Take{.h = {0, 99}}, x), Error);
  EXPECT_THROW(output_shape(Take{.w = {-1}}, x), Error);
  EXPECT_THROW(output_shape(Take{.c = {1, 0, 1}}, x), Error);
  EXPECT_THROW(output_shape(Reshape{-1, -1, 2}, x), Error);
  EXPECT_THROW(output_shape(Reshape{7, -1, 1}, x), Error);
  EXPECT_THROW(output_shape(Reshape{0, -1, 1}, x), Error);
  EXPECT_THROW(output_shape(Permute{{1, 1, 2}}, x), Error);
  EXPECT_THROW(output_shape(Permute{{0, 1, 2}}, x), Error);
  EXPECT_THROW(output_shape(Transpose{{x.item()}, {0}, 1, 1, 1}, x), Error);
  EXPECT_THROW(output_shape(Transpose{{x.item(), 1}, {0, 0}, x.item(), 1, 1}, x), Error);
  EXPECT_THROW(output_shape(Transpose{{x.item() + 1}, {0}, x.item() + 1, 1, 1}, x), Error);
  EXPECT_THROW(output_shape(Reduce{}, x), Error);
  Context ctx;
  const Resampling twice(bilinear_by(2), x);
  std::vector<float> small(120), wrong(120);
  EXPECT_THROW(resample_forward(ctx, twice, {small.data(), x, DType::f32}, {wrong.data(), x, DType::f32}), Error);
}

}  // namespace

void register_resample_tests() {
  static const std::vector<Case> kResize = resize_cases(), kOther = other_cases();
  const auto add = [](const char* suite, const std::vector<Case>& cases) {
    for_each_device(suite, [&](const DeviceRow& device) {
      for (const Case& c : cases)
        for (const DType dtype : device.types)
          add_test(suite, c.name, device, short_name(dtype), [&c, dtype](OpRun& run) { check_case(run, c, dtype); });
      add_test(suite, "nan", device, "f32", check_nan);
    });
  };
  add("Op/Resize", kResize);
  add("Op/LinearMap", kOther);
}

}  // namespace switchback::test
