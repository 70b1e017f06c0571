// Patches (kernels/patch/patch.h): cases x devices x element types against whole maps in double. Every sum of an op is
// rounded to f32 and what is written to the element type, so all but the averages of real numbers must match exactly.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <variant>

#include "kernels/check.h"
#include "kernels/patch/patch.h"
#include "tests/support/reference_layers.h"

namespace switchback::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

double f32(double v) { return round_to(DType::f32, v); }

struct Act {
  const char* name;
  bool relu;
  float clip;
  double operator()(double s) const {  // NaN passes
    if (!relu || std::isnan(s)) return s;
    return std::min(std::max(s, 0.0), double(clip));
  }
};
constexpr Act kActs[] = {{"identity", false, kNoClip}, {"relu", true, kNoClip}, {"relu6", true, 6.f}};

enum class Fill { integers, reals, not_finite };
constexpr Fill kFills[] = {Fill::integers, Fill::reals, Fill::not_finite};

// Within [-9, 9], so that clips are met; one in eight not finite where asked for.
Nchw make(OpRun& run, Shape shape, Fill fill, DType dtype) {
  if (fill == Fill::reals) {
    Nchw a = run.reals(shape, dtype);
    for (double& v : a.v) v *= 8;
    return a;
  }
  Nchw a = run.integers(shape, 9);
  if (fill == Fill::integers) return a;
  for (double& v : a.v) {
    const auto draw = run.rng() % 24;
    if (draw < 3) v = draw == 0 ? kInf : draw == 1 ? -kInf : kNan;
  }
  return a;
}

template <typename F>
void for_each_element(Shape s, const F& f) {
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t c = 0; c < s.c; ++c)
      for (int64_t h = 0; h < s.h; ++h)
        for (int64_t w = 0; w < s.w; ++w) f(n, c, h, w);
}

int32_t draw(OpRun& run, int64_t from, int64_t to) {  // to included
  return int32_t(from + int64_t(run.rng() % uint64_t(to - from + 1)));
}

constexpr int64_t kItems = 20;

// All corners, then anywhere in the map, over and over.
std::vector<Origin> origins_inside(OpRun& run, int64_t h, int64_t w, Shape map) {
  const int64_t rows = map.h - h, cols = map.w - w;
  std::vector<Origin> all;
  for (int64_t p = 0; p < kItems; ++p) {
    const bool corner = p % 7 < 4;
    all.push_back({corner ? int32_t(p % 7 / 2 * rows) : draw(run, 0, rows),
                   corner ? int32_t(p % 7 % 2 * cols) : draw(run, 0, cols)});
  }
  return all;
}

// Reaching beyond the map on every side and corner; where a padded convolution reads; all outside of the map; anywhere.
std::vector<Origin> origins_anywhere(OpRun& run, int64_t h, int64_t w, Shape map, const std::vector<Origin>& patches) {
  std::vector<Origin> all;
  for (int64_t p = 0; p < kItems; ++p) {
    const int64_t rows[] = {1 - h, (map.h - h) / 2, map.h - 1}, cols[] = {1 - w, (map.w - w) / 2, map.w - 1};
    const Origin& x = patches[size_t(p)];
    Origin at{draw(run, -h - 1, map.h + 1), draw(run, -w - 1, map.w + 1)};
    if (p < 9) at = {int32_t(rows[p / 3]), int32_t(cols[p % 3])};
    else if (p < 14) at = {x.row - 1, x.col - 1};
    else if (p == 14) at = {int32_t(-h - 3), int32_t(-w - 100)};
    else if (p == 15) at = {int32_t(map.h + 50), int32_t(map.w)};
    all.push_back(at);
  }
  return all;
}

// Maps, and the patches that say the same.
struct Scene {
  Nchw clean;            // [1,C,H,W] before the ReLU
  Nchw values, changes;  // [P,C,H,W] of the whole maps, after it
  std::vector<uint8_t> held;  // [P,H,W]: inside x's patch
  std::vector<Origin> origins;
  Change x;  // on the device

  Shape map() const { return clean.shape; }
  bool holds(int64_t p, int64_t h, int64_t w) const {
    return held[size_t((p * map().h + h) * map().w + w)] != 0;
  }
};

Scene make_scene(OpRun& run, Shape map, int64_t h, int64_t w, const Act& act, Fill fill, DType dtype) {
  Scene s;
  s.clean = make(run, map.with_n(1), fill, dtype);
  const Nchw delta = make(run, {kItems, map.c, h, w}, fill, dtype);
  s.origins = origins_inside(run, h, w, map);
  s.values = s.changes = Nchw(map.with_n(kItems));
  s.held.assign(size_t(kItems * map.h * map.w), 0);
  for_each_element(s.values.shape, [&](int64_t p, int64_t c, int64_t row, int64_t col) {
    const int64_t i = row - s.origins[size_t(p)].row, j = col - s.origins[size_t(p)].col;
    const double clean = s.clean(0, c, row, col);
    const bool held = i >= 0 && i < h && j >= 0 && j < w;
    s.held[size_t((p * map.h + row) * map.w + col)] = held;
    const double value = act(held ? f32(clean + delta(p, c, i, j)) : clean);
    s.values(p, c, row, col) = value;
    s.changes(p, c, row, col) = !held ? 0 : act.relu ? f32(value - act(clean)) : delta(p, c, i, j);
  });
  s.x = {.patch = run.input(delta, dtype), .origins = run.input_of(s.origins).as<Origin>(),
         .clean = run.input(s.clean, dtype), .relu = act.relu, .clip = act.clip};
  return s;
}

// Equal, and not all zeros. (Most often nearly all are: patches are small and change little.) residue: what the
// reference may have left of a sum that is 0, far below the last place of all other values.
void expect_exact(const char* op, const Activation& y, const Nchw& want, double residue = 0) {
  EXPECT_EQ(compare(y.read(), round_to(y.dtype, want), Nchw(want.shape, residue), Zeros::many_allowed), "") << op;
  EXPECT_TRUE(std::any_of(want.v.begin(), want.v.end(), [](double v) { return std::isfinite(v) && v != 0; })) << op;
}

// --- reading a change ------------------------------------------------------------------------------------------------

struct ReadCase {
  const char* name;
  Shape map;
  int64_t h, w;        // of x's patches
  int64_t y_h, y_w;    // of y's
  int64_t channels = 0, channel = 0;  // of a wider y, and the first that is written
};
const std::vector<ReadCase>& read_cases() {
  static const std::vector<ReadCase> rows = {
      {"c32", {1, 32, 9, 8}, 4, 3, 6, 5},
      {"c8", {1, 8, 7, 9}, 3, 5, 5, 7},
      {"odd_channels", {1, 5, 6, 7}, 3, 2, 4, 5},
      {"one_channel", {1, 1, 8, 6}, 3, 3, 5, 4},
      {"many_channels", {1, 70, 4, 5}, 2, 2, 3, 3},
      {"patch_of_one_pixel", {1, 16, 6, 5}, 1, 1, 3, 3},
      {"reads_one_pixel", {1, 16, 5, 5}, 3, 3, 1, 1},
      {"patch_is_the_map", {1, 8, 4, 5}, 4, 5, 6, 7},
      {"map_of_one_pixel", {1, 30, 1, 1}, 1, 1, 3, 2},
      {"rows", {1, 12, 1, 9}, 1, 4, 1, 6},
      {"concat", {1, 8, 6, 6}, 3, 2, 3, 3, 24, 8},
      {"concat_last", {1, 32, 5, 6}, 2, 3, 2, 3, 40, 8},
      {"concat_unaligned", {1, 8, 6, 6}, 2, 4, 3, 3, 16, 3},
      {"concat_odd", {1, 5, 6, 6}, 2, 2, 3, 4, 13, 6},
  };
  return rows;
}

void check_gather_changes(OpRun& run, const ReadCase& c, const Scene& s, DType dtype) {
  const Shape map = s.map(), y_shape{kItems, c.channels ? c.channels : map.c, c.y_h, c.y_w};
  const std::vector<Origin> origins = origins_anywhere(run, c.y_h, c.y_w, map, s.origins);
  Nchw want = run.integers(y_shape, 9);
  const Activation y = run.in_place(want, dtype);
  for_each_element({kItems, map.c, c.y_h, c.y_w}, [&](int64_t p, int64_t channel, int64_t i, int64_t j) {
    const int64_t row = origins[size_t(p)].row + i, col = origins[size_t(p)].col + j;
    const bool on_map = row >= 0 && row < map.h && col >= 0 && col < map.w;
    want(p, c.channel + channel, i, j) = on_map ? s.changes(p, channel, row, col) : 0;
  });
  gather_changes(run.ctx, s.x, run.input_of(origins).as<Origin>(), y, c.channel);
  expect_exact("gather_changes", y, want);
}

// Patches that reach beyond the map and may be larger than it. The clean map is not looked at.
void check_gather_uncut(OpRun& run, const ReadCase& c, Fill fill, DType dtype) {
  const Shape map = c.map, y_shape{kItems, map.c, std::min(c.y_h, map.h), std::min(c.y_w, map.w)};
  const Shape x_shape{kItems, map.c, c.h + 2, c.w + 3};
  const std::vector<Origin> origins = origins_inside(run, y_shape.h, y_shape.w, map);
  const std::vector<Origin> x_origins = origins_anywhere(run, x_shape.h, x_shape.w, map, origins);
  const Nchw delta = make(run, x_shape, fill, dtype);
  Nchw want(y_shape);
  for_each_element(y_shape, [&](int64_t p, int64_t channel, int64_t i, int64_t j) {
    const int64_t h = origins[size_t(p)].row + i - x_origins[size_t(p)].row;
    const int64_t w = origins[size_t(p)].col + j - x_origins[size_t(p)].col;
    if (h >= 0 && h < x_shape.h && w >= 0 && w < x_shape.w) want(p, channel, i, j) = delta(p, channel, h, w);
  });
  const Change x{.patch = run.input(delta, dtype), .origins = run.input_of(x_origins).as<Origin>(),
                 .clean = run.input(Nchw(map, kNan), dtype)};
  const Activation y = run.output(y_shape, dtype);
  gather_changes(run.ctx, x, run.input_of(origins).as<Origin>(), y);
  expect_exact("gather_changes of patches beyond the map", y, want);
}

// The ops whose places lie inside the map; `before` stands in y.
void check_inside(OpRun& run, const ReadCase& c, const Scene& s, Fill fill, DType dtype) {
  const Shape map = s.map(), y_shape{kItems, map.c, std::min(c.y_h, map.h), std::min(c.y_w, map.w)};
  const std::vector<Origin> origins = origins_inside(run, y_shape.h, y_shape.w, map);
  const Origin* places = run.input_of(origins).as<Origin>();
  const Nchw before = make(run, y_shape, fill, dtype);
  Nchw sums(y_shape), values(y_shape), differences(y_shape);
  for_each_element(y_shape, [&](int64_t p, int64_t channel, int64_t i, int64_t j) {
    const int64_t row = origins[size_t(p)].row + i, col = origins[size_t(p)].col + j;
    sums(p, channel, i, j) = before(p, channel, i, j) + s.changes(p, channel, row, col);
    values(p, channel, i, j) = s.values(p, channel, row, col);
    differences(p, channel, i, j) = before(p, channel, i, j) - s.clean(0, channel, row, col);
  });
  const Activation sum = run.in_place(before, dtype), value = run.output(y_shape, dtype);
  const Activation difference = run.in_place(before, dtype);
  add_changes(run.ctx, s.x, places, sum);
  expect_exact("add_changes", sum, sums);
  gather_values(run.ctx, s.x, places, value);
  expect_exact("gather_values", value, values);
  subtract_clean(run.ctx, s.x.clean, places, difference);
  expect_exact("subtract_clean", difference, differences);
}

void check_reading(OpRun& run, const ReadCase& c, DType dtype) {
  for (const Act& act : kActs)
    for (const Fill fill : kFills) {
      SCOPED_TRACE(fmt::format("{}, fill {}", act.name, int(fill)));
      const Scene s = make_scene(run, c.map, c.h, c.w, act, fill, dtype);
      check_gather_changes(run, c, s, dtype);
      check_inside(run, c, s, fill, dtype);
      const Activation whole = run.output(s.values.shape, dtype);
      expand_patches(run.ctx, s.x, whole);
      expect_exact("expand_patches", whole, s.values);
      if (!act.relu) check_gather_uncut(run, c, fill, dtype);
      if (testing::Test::HasFailure()) return;
    }
}

// --- pools -----------------------------------------------------------------------------------------------------------

// Whether the pooling window of output (p, i, j) holds a place of x's patch, tried one by one.
template <typename Pool>
bool meets(const Scene& s, const Pool& pool, int64_t p, int64_t i, int64_t j) {
  int64_t dilation_h = 1, dilation_w = 1;
  if constexpr (std::is_same_v<Pool, MaxPool2d>) dilation_h = pool.dilation_h, dilation_w = pool.dilation_w;
  for (int64_t a = 0; a < pool.kernel_h; ++a)
    for (int64_t b = 0; b < pool.kernel_w; ++b) {
      const int64_t h = i * pool.stride_h + a * dilation_h - pool.pad_top;
      const int64_t w = j * pool.stride_w + b * dilation_w - pool.pad_left;
      if (h >= 0 && h < s.map().h && w >= 0 && w < s.map().w && s.holds(p, h, w)) return true;
    }
  return false;
}

// What y holds of the maps [P,C,H',W'].
Nchw read_at(const Nchw& maps, const std::vector<Origin>& origins, Shape y_shape) {
  Nchw y(y_shape);
  for_each_element(y_shape, [&](int64_t p, int64_t c, int64_t i, int64_t j) {
    y(p, c, i, j) = maps(p, c, origins[size_t(p)].row + i, origins[size_t(p)].col + j);
  });
  return y;
}

struct MaxCase {
  const char* name;
  MaxPool2d pool;
  Shape map;
  int64_t h, w;      // of x's patches
  int64_t y_h, y_w;  // of y's
};
const std::vector<MaxCase>& max_cases() {
  MaxPool2d between = max_pool2d(2, 1, 0, 3);  // columns: places -2 and 1, -1 and 2 (none is on the map), 0 and 3
  between.kernel_h = between.dilation_h = 1;
  between.pad_left = between.pad_right = 2;
  static const std::vector<MaxCase> rows = {
      {"k2_s2", max_pool2d(2, 2), {1, 32, 8, 10}, 4, 5, 3, 4},
      {"k2_s2_odd", max_pool2d(2, 2), {1, 5, 9, 7}, 3, 3, 2, 3},
      {"k3_s2_p1", max_pool2d(3, 2, 1), {1, 8, 9, 8}, 4, 3, 3, 3},
      {"k3_s1_p1", max_pool2d(3, 1, 1), {1, 16, 6, 7}, 3, 2, 5, 4},
      {"k2_s2_ceil", max_pool2d(2, 2, 0, 1, true), {1, 33, 7, 7}, 3, 4, 3, 3},
      {"k3_s2_p1_ceil", max_pool2d(3, 2, 1, 1, true), {1, 3, 8, 9}, 3, 3, 3, 4},
      {"k3_d2", max_pool2d(3, 1, 1, 2), {1, 8, 9, 8}, 3, 2, 5, 4},
      {"k2_d3_p1", max_pool2d(2, 2, 1, 3), {1, 24, 9, 10}, 1, 2, 3, 4},
      {"k2_s3_gaps", max_pool2d(2, 3), {1, 8, 9, 10}, 4, 4, 3, 2},
      {"k4_s2_p2", max_pool2d(4, 2, 2), {1, 32, 9, 9}, 2, 3, 4, 4},
      {"k1", max_pool2d(1, 1), {1, 8, 5, 4}, 2, 3, 4, 4},
      {"patch_of_one_pixel", max_pool2d(3, 2, 1), {1, 32, 7, 8}, 1, 1, 2, 2},
      {"patch_is_the_map", max_pool2d(2, 2), {1, 8, 6, 6}, 6, 6, 3, 3},
      {"whole_map", max_pool2d(3, 3), {1, 35, 3, 3}, 2, 3, 1, 1},
      {"reads_the_map", max_pool2d(3, 2), {1, 70, 7, 7}, 2, 2, 3, 3},
      {"no_places", between, {1, 12, 3, 2}, 2, 1, 2, 3},
      {"rectangle",
       {.kernel_h = 2, .kernel_w = 3, .stride_h = 1, .stride_w = 2, .pad_top = 1, .pad_right = 1},
       {1, 9, 5, 8}, 2, 3, 3, 3},
  };
  return rows;
}

void check_max(OpRun& run, const MaxCase& c, DType dtype) {
  for (const Act& act : kActs)
    for (const Fill fill : kFills) {
      SCOPED_TRACE(fmt::format("{}, fill {}", act.name, int(fill)));
      const Scene s = make_scene(run, c.map, c.h, c.w, act, fill, dtype);
      Nchw before = s.clean;
      for (double& v : before.v) v = act(v);
      Pooled clean = max_pool_forward(c.pool, before);
      for (size_t i = 0; i < clean.switches.size(); ++i)
        if (clean.switches[i] < 0) clean.value.v[i] = -kInf;  // no place on the map
      Nchw maps = max_pool_forward(c.pool, s.values).value;
      for_each_element(maps.shape, [&](int64_t p, int64_t channel, int64_t i, int64_t j) {
        double& v = maps(p, channel, i, j);
        v = meets(s, c.pool, p, i, j) ? f32(v - clean.value(0, channel, i, j)) : 0;
      });
      const Shape y_shape{kItems, c.map.c, c.y_h, c.y_w};
      const std::vector<Origin> origins = origins_inside(run, c.y_h, c.y_w, maps.shape);
      const Activation y = run.output(y_shape, dtype);
      max_pool2d_changes(run.ctx, c.pool, s.x, run.input(clean.value, dtype), run.input_of(origins).as<Origin>(), y);
      expect_exact("max_pool2d_changes", y, read_at(maps, origins, y_shape));
      if (testing::Test::HasFailure()) return;
    }
}

AvgPool2d avg(int64_t kernel, int64_t stride, int64_t pad, bool ceil, bool include) {
  return {.kernel_h = kernel, .kernel_w = kernel, .stride_h = stride, .stride_w = stride, .pad_top = pad,
          .pad_left = pad, .pad_bottom = pad, .pad_right = pad, .ceil_mode = ceil, .count_include_pad = include};
}

struct AvgCase {
  const char* name;
  AvgPool2d pool;
  Shape map;
  int64_t h, w;      // of x's patches
  int64_t y_h, y_w;  // of y's
};
const std::vector<AvgCase>& avg_cases() {
  static const std::vector<AvgCase> rows = {
      {"k2_s2", avg(2, 2, 0, false, true), {1, 32, 8, 10}, 4, 5, 3, 4},
      {"k3_s2_p1", avg(3, 2, 1, false, true), {1, 33, 9, 8}, 4, 3, 3, 3},
      {"k3_s2_p1_without_pad", avg(3, 2, 1, false, false), {1, 5, 9, 8}, 4, 3, 3, 3},
      {"k3_s2_p1_ceil", avg(3, 2, 1, true, true), {1, 8, 8, 10}, 3, 4, 3, 3},
      {"k3_s2_p1_ceil_without_pad", avg(3, 2, 1, true, false), {1, 8, 8, 10}, 3, 4, 3, 3},
      {"k3_s1_p1", avg(3, 1, 1, false, false), {1, 16, 6, 7}, 3, 2, 5, 4},
      {"k2_s3_gaps", avg(2, 3, 0, false, true), {1, 4, 9, 10}, 4, 4, 3, 2},
      {"patch_of_one_pixel", avg(3, 2, 1, false, true), {1, 16, 7, 8}, 1, 1, 2, 2},
      {"patch_is_the_map", avg(3, 2, 1, false, true), {1, 8, 6, 5}, 6, 5, 3, 3},
      {"whole_map", avg(7, 7, 0, false, true), {1, 40, 7, 7}, 3, 4, 1, 1},
      {"asymmetric",
       {.kernel_h = 3, .kernel_w = 4, .stride_h = 2, .stride_w = 1, .pad_top = 1, .pad_left = 2, .pad_bottom = 0,
        .pad_right = 1},
       {1, 6, 7, 9}, 3, 3, 2, 5},
  };
  return rows;
}

void check_avg(OpRun& run, const AvgCase& c, DType dtype) {
  for (const Act& act : kActs)
    for (const Fill fill : kFills) {
      SCOPED_TRACE(fmt::format("{}, fill {}", act.name, int(fill)));
      const Scene s = make_scene(run, c.map, c.h, c.w, act, fill, dtype);
      const Ref maps = avg_pool_forward(c.pool, s.changes);
      const Shape y_shape{kItems, c.map.c, c.y_h, c.y_w};
      const std::vector<Origin> origins = origins_inside(run, c.y_h, c.y_w, maps.value.shape);
      const Activation y = run.output(y_shape, dtype);
      avg_pool2d_changes(run.ctx, c.pool, s.x, run.input_of(origins).as<Origin>(), y);
      const Nchw want = read_at(maps.value, origins, y_shape);
      if (fill == Fill::reals) {  // a sum over the window and a division
        const Nchw allowed = tolerance(maps, rounding_steps(c.pool.kernel_h * c.pool.kernel_w) + 1, dtype);
        EXPECT_EQ(compare(y.read(), want, read_at(allowed, origins, y_shape), Zeros::many_allowed), "");
      } else {
        expect_exact("avg_pool2d_changes", y, want, 1e-12);
      }
      if (testing::Test::HasFailure()) return;
    }
}

// --- Resize, Pad, Slice, ChannelShuffle ------------------------------------------------------------------------------

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

struct ResampleCase {
  const char* name;
  std::variant<Resize, Pad, Slice, ChannelShuffle, Take> layer;
  Shape map;
  int64_t h, w;        // of x's patches
  int64_t y_h, y_w;    // of y's
  bool dyadic = true;  // weights are multiples of a power of 1/2: integers come out exact
};
const std::vector<ResampleCase>& resample_cases() {
  using Mode = Pad::Mode;
  static const std::vector<ResampleCase> rows = {
      {"nearest_x2", Resize{.scale_h = 2, .scale_w = 2}, {1, 32, 5, 4}, 2, 3, 5, 6},
      {"nearest_x2_x3", Resize{.scale_h = 2, .scale_w = 3}, {1, 5, 4, 5}, 2, 1, 4, 5},
      {"nearest_down", Resize{.out_h = 3, .out_w = 4}, {1, 8, 7, 9}, 3, 4, 2, 2},
      {"bilinear_x2", bilinear_by(2), {1, 32, 4, 5}, 2, 3, 6, 7},
      {"bilinear_x2_odd_channels", bilinear_by(2), {1, 3, 4, 5}, 1, 1, 3, 4},
      {"bilinear_align_corners", bilinear_to(9, 5, true), {1, 7, 5, 3}, 2, 2, 5, 3},
      {"bilinear_odd", bilinear_to(7, 11), {1, 9, 4, 5}, 2, 2, 4, 6, false},
      {"bilinear_down", bilinear_to(3, 4), {1, 8, 7, 9}, 3, 4, 2, 3, false},
      {"zero_pad", Pad{.top = 1, .left = 2, .bottom = 0, .right = 1}, {1, 32, 5, 6}, 3, 2, 4, 4},
      {"constant_pad", Pad{.top = 2, .left = 1, .bottom = 1, .right = 3, .value = 5.f}, {1, 6, 4, 5}, 4, 5, 7, 9},
      {"pad_all_around_a_pixel", Pad{.top = 3, .left = 3, .bottom = 3, .right = 3}, {1, 8, 2, 2}, 1, 1, 4, 4},
      {"negative_pad", Pad{.top = -1, .left = 1, .bottom = -2, .right = -1}, {1, 8, 7, 6}, 3, 3, 3, 4},
      {"channel_pad", Pad{.front = 3, .back = 2, .value = 1.f}, {1, 8, 5, 4}, 2, 3, 3, 4},
      {"edge_pad", Pad{.top = 2, .left = 2, .bottom = 1, .right = 2, .mode = Mode::edge}, {1, 16, 4, 5}, 2, 2, 5, 5},
      {"reflect_pad", Pad{.top = 2, .left = 1, .bottom = 2, .right = 3, .mode = Mode::reflect}, {1, 8, 5, 5}, 2, 3, 6,
       5},
      {"slice_channels", Slice{.c = {4, 12}}, {1, 20, 5, 6}, 3, 2, 4, 4},
      {"slice_channels_step", Slice{.c = {1, kEnd, 3}}, {1, 35, 4, 4}, 2, 2, 3, 3},
      {"slice_map", Slice{.h = {1, 5}, .w = {2, kEnd}}, {1, 32, 6, 7}, 3, 3, 3, 4},
      {"slice_map_step", Slice{.h = {1, kEnd, 2}, .w = {0, kEnd, 3}}, {1, 8, 8, 9}, 4, 5, 3, 2},
      {"shuffle", ChannelShuffle{3}, {1, 12, 5, 4}, 2, 3, 3, 4},
      {"shuffle_many", ChannelShuffle{2}, {1, 70, 4, 4}, 1, 2, 2, 3},
      {"take_flipped", Take{.c = {2, 0, 1}, .h = {4, 3, 2, 1, 0}}, {1, 3, 5, 4}, 2, 3, 2, 3},
      {"no_shuffle", ChannelShuffle{1}, {1, 32, 4, 5}, 2, 2, 4, 5},
      {"patch_is_the_map", bilinear_by(2), {1, 8, 3, 4}, 3, 4, 6, 8},
  };
  return rows;
}

void check_resample(OpRun& run, const ResampleCase& c, DType dtype) {
  LinearMap map = std::visit([&](const auto& l) { return linear_map(l, c.map); }, c.layer);
  map.constant.clear();
  const Resampling resampling = std::visit([&](const auto& l) { return Resampling(l, c.map); }, c.layer);
  for (const Act& act : kActs)
    for (const Fill fill : kFills) {
      if (!c.dyadic && fill != Fill::reals) continue;
      SCOPED_TRACE(fmt::format("{}, fill {}", act.name, int(fill)));
      const Scene s = make_scene(run, c.map, c.h, c.w, act, fill, dtype);
      const Ref maps = apply(map, s.changes);
      const Shape y_shape{kItems, map.out.c, c.y_h, c.y_w};
      const std::vector<Origin> origins = origins_inside(run, c.y_h, c.y_w, map.out);
      const Activation y = run.output(y_shape, dtype);
      resample_changes(run.ctx, resampling, s.x, run.input_of(origins).as<Origin>(), y);
      const Nchw want = read_at(maps.value, origins, y_shape);
      if (fill == Fill::reals && map.longest_forward() > 1) {  // 3 more for the weights
        const Nchw allowed = tolerance(maps, rounding_steps(map.longest_forward()) + 3, dtype);
        EXPECT_EQ(compare(y.read(), want, read_at(allowed, origins, y_shape), Zeros::many_allowed), "");
      } else {
        expect_exact("resample_changes", y, want);
      }
      if (testing::Test::HasFailure()) return;
    }
}

// --- boxes -----------------------------------------------------------------------------------------------------------

struct BoxCase {
  const char* name;
  Shape image;
  int64_t h, w;  // of patches
};
constexpr BoxCase kBoxCases[] = {
    {"rgb", {1, 3, 9, 8}, 4, 5},
    {"grey", {1, 1, 7, 9}, 3, 3},
    {"c8", {1, 8, 6, 6}, 6, 6},
    {"one_pixel", {1, 3, 5, 4}, 1, 1},
};

// Inside, beyond each side and corner, all of the image, nothing, outside, and sums that would not fit into 32 bits.
std::vector<Box> boxes_for(Shape image) {
  const int32_t h = int32_t(image.h), w = int32_t(image.w), most = std::numeric_limits<int32_t>::max();
  return {{1, 1, 2, 2},      {0, 0, 1, 1},      {-1, -1, 3, 3},   {-1, 2, 2, 1},      {-2, w - 1, 4, 5},
          {2, -3, 2, 4},     {2, w - 2, 1, 3},  {h - 1, -1, 3, 2}, {h - 2, 1, 5, 2},  {h - 1, w - 1, 2, 2},
          {0, 0, h, w},      {-5, -4, 50, 60},  {1, 1, 0, 0},     {1, 1, 2, 0},       {2, 2, -1, 3},
          {h, 0, 2, w},      {0, w, h, 3},      {-3, -3, 3, 9},   {-9, -9, most, most}, {1, 2, most, most}};
}

void check_boxes(OpRun& run, const BoxCase& c, DType dtype) {
  const std::vector<Box> boxes = boxes_for(c.image);
  ASSERT_EQ(int64_t(boxes.size()), kItems);
  const Box* device_boxes = run.input_of(boxes).as<Box>();
  const auto covers = [&](int64_t p, int64_t row, int64_t col) {
    const Box& b = boxes[size_t(p)];
    return row >= b.row && row < int64_t(b.row) + b.height && col >= b.col && col < int64_t(b.col) + b.width;
  };
  for (const Fill fill : kFills) {
    SCOPED_TRACE(fmt::format("fill {}", int(fill)));
    const Nchw x = make(run, c.image, fill, dtype), baseline = make(run, c.image, fill, dtype);
    const Activation image = run.input(x, dtype), other = run.input(baseline, dtype);
    Nchw images(c.image.with_n(kItems)), changes(images.shape);
    for_each_element(images.shape, [&](int64_t p, int64_t channel, int64_t row, int64_t col) {
      const double s = x(0, channel, row, col), b = baseline(0, channel, row, col);
      images(p, channel, row, col) = covers(p, row, col) ? b : s;
      changes(p, channel, row, col) = covers(p, row, col) ? b - s : 0;
    });
    const Activation whole = run.output(images.shape, dtype);
    occlude_images(run.ctx, image, other, device_boxes, whole);
    expect_exact("occlude_images", whole, images);
    for (int turn = 0; turn < 5; ++turn) {  // every box meets patches in corners and elsewhere
      std::vector<Origin> origins = origins_inside(run, c.h, c.w, c.image);
      std::rotate(origins.begin(), origins.begin() + turn, origins.end());
      const Shape y_shape{kItems, c.image.c, c.h, c.w};
      const Activation y = run.output(y_shape, dtype);
      occlude_patches(run.ctx, image, other, device_boxes, run.input_of(origins).as<Origin>(), y);
      expect_exact("occlude_patches", y, read_at(changes, origins, y_shape));
    }
    if (testing::Test::HasFailure()) return;
  }
}

// --- wrong calls -----------------------------------------------------------------------------------------------------

void check_errors(OpRun& run) {
  const Scene s = make_scene(run, {1, 4, 6, 6}, 2, 3, kActs[1], Fill::integers, DType::f32);
  const Origin* origins = s.x.origins;
  const Activation y = run.output({kItems, 4, 2, 2}, DType::f32), fewer = run.output({3, 4, 2, 2}, DType::f32);
  const Activation large = run.output({kItems, 4, 7, 2}, DType::f32);
  const Activation other = run.output({kItems, 4, 2, 2}, DType::bf16);
  Change no_map = s.x, small_map = s.x;
  no_map.clean.shape.n = 2;
  small_map.clean.shape = {1, 4, 6, 2};
  EXPECT_THROW(gather_changes(run.ctx, s.x, origins, fewer), Error) << "another number of items";
  EXPECT_THROW(gather_changes(run.ctx, s.x, origins, other), Error) << "another element type";
  EXPECT_THROW(gather_changes(run.ctx, s.x, origins, y, 1), Error) << "channels beyond y's";
  EXPECT_THROW(gather_changes(run.ctx, s.x, nullptr, y), Error) << "no origins";
  EXPECT_THROW(gather_changes(run.ctx, no_map, origins, y), Error) << "a clean map an item";
  EXPECT_THROW(gather_changes(run.ctx, small_map, origins, y), Error) << "patches larger than the map";
  EXPECT_THROW(add_changes(run.ctx, s.x, origins, large), Error) << "y larger than the map";
  EXPECT_THROW(gather_values(run.ctx, s.x, origins, large), Error);
  EXPECT_THROW(subtract_clean(run.ctx, s.x.clean, origins, large), Error);
  EXPECT_THROW(expand_patches(run.ctx, s.x, y), Error) << "not the map's shape";
  EXPECT_THROW(max_pool2d_changes(run.ctx, max_pool2d(2, 2), s.x, s.x.clean, origins, y), Error)
      << "not the pooled map";
  EXPECT_THROW(avg_pool2d_changes(run.ctx, avg(4, 4, 0, false, true), s.x, origins, y), Error)
      << "y larger than the pooled map";
  EXPECT_THROW(resample_changes(run.ctx, Resampling(ChannelShuffle{2}, {1, 4, 6, 5}), s.x, origins, y), Error)
      << "tables of another map";
  EXPECT_THROW(resample_changes(run.ctx, Resampling(Slice{.c = {1, 4}}, {1, 4, 6, 6}), s.x, origins, y), Error)
      << "other channels";
  EXPECT_THROW(resample_changes(run.ctx, Resampling(Slice{.h = {0, 1}}, {1, 4, 6, 6}), s.x, origins, y), Error)
      << "y larger than the resampled map";
  const Guarded& boxes = run.input_of(std::vector<Box>(size_t(kItems)));
  EXPECT_THROW(occlude_images(run.ctx, s.x.clean, s.x.clean, boxes.as<Box>(), y), Error) << "not the image's shape";
  EXPECT_THROW(occlude_patches(run.ctx, s.x.clean, s.x.clean, nullptr, origins, y), Error) << "no boxes";
  if (run.ctx.gpu) return;  // only the host can look at origins
  const std::vector<Origin> outside(size_t(kItems), Origin{5, 0}), before(size_t(kItems), Origin{0, -1});
  EXPECT_THROW(gather_values(run.ctx, s.x, outside.data(), y), Error);
  EXPECT_THROW(gather_values(run.ctx, s.x, before.data(), y), Error);
  Change lost = s.x;
  lost.origins = outside.data();
  EXPECT_THROW(gather_changes(run.ctx, lost, origins, y), Error);
}

}  // namespace

void register_patch_tests() {
  const auto add = [](const char* suite, const DeviceRow& device, const auto& cases, auto check) {
    for (const auto& c : cases)
      for (const DType dtype : device.types)
        add_test(suite, c.name, device, short_name(dtype), [&c, dtype, check](OpRun& run) { check(run, c, dtype); });
  };
  for_each_device("Op/Patch", [&](const DeviceRow& device) {
    add("Op/Patch", device, read_cases(), check_reading);
    add_test("Op/Patch", "errors", device, "", check_errors);
  });
  for_each_device("Op/PatchMaxPool", [&](const DeviceRow& d) { add("Op/PatchMaxPool", d, max_cases(), check_max); });
  for_each_device("Op/PatchAvgPool", [&](const DeviceRow& d) { add("Op/PatchAvgPool", d, avg_cases(), check_avg); });
  for_each_device("Op/PatchResample", [&](const DeviceRow& d) {
    add("Op/PatchResample", d, resample_cases(), check_resample);
  });
  for_each_device("Op/PatchBoxes", [&](const DeviceRow& d) { add("Op/PatchBoxes", d, kBoxCases, check_boxes); });
}

}  // namespace switchback::test
