// Implicit GEMM, host side: problems, the choice of tile and split, and the sum over split segments.
#include "kernels/gemm/gemm.cuh"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/gemm/gemm_launch.cuh"
#include "kernels/sliding.h"

namespace switchback::SB_DEVICE {
namespace {

// Tiles of the kernels and their speed when many of them keep the GPU busy, relative to the first's: of FMA kernels, and of
// those on tensor cores, where it is what shared memory lets through (gemm_kernel.cuh).
struct TileChoice {
  int bm, bn;
  double fma, mma;
};
constexpr TileChoice kGemmTiles[] = {
    {128, 128, 1.0, 1.0}, {128, 64, 0.9, 0.85}, {64, 64, 0.75, 0.5}, {128, 32, 0.6, 0.45}, {16, 64, 0.3, 0.25}};
constexpr bool has_narrow(int tile) { return tile == 2 || tile == 4; }

int phases(const GemmProblem& p) { return p.phases_h * p.phases_w; }

// Output pixels of the largest phase: the first on each axis.
int64_t largest_rows(const GemmProblem& p) { return int64_t(p.n) * p.rows[0].outs * p.cols[0].outs; }

int64_t largest_taps(const GemmProblem& p) {
  int h = 0, w = 0;
  for (int i = 0; i < p.phases_h; ++i) h = std::max(h, p.rows[i].taps);
  for (int i = 0; i < p.phases_w; ++i) w = std::max(w, p.cols[i].taps);
  return int64_t(h) * w;
}

int64_t largest_steps(const GemmProblem& p) {
  return largest_taps(p) * ceil_div(int64_t(p.depth) * int64_t(size_of(p.dtype)), kGemmStepBytes);
}

// Segments, so that one image keeps a large GPU busy; no more than are worth their additions. Layer and image alone
// decide (gemm.cuh).
void cut_segments(GemmProblem& p) {
  constexpr int64_t kBlocks = 256, kBlocksOfOneRow = 512, kShortest = 8, kMost = 16;
  const int64_t rows = largest_rows(p) / std::max(p.n, 1), steps = largest_steps(p);
  const int64_t tiles = ceil_div(rows, 64) * ceil_div(p.columns, 64) * p.groups * phases(p);
  const int64_t wanted = (rows <= 16 ? kBlocksOfOneRow : kBlocks) / tiles;
  const int64_t segments = std::clamp<int64_t>(std::min(wanted, steps / kShortest), 1, kMost);
  p.segment_steps = int(std::max<int64_t>(ceil_div(steps, segments), 1));
  p.segments = int(std::max<int64_t>(ceil_div(steps, p.segment_steps), 1));
}

GemmAxis forward_axis(int64_t outs, const SlidingAxis& s) {
  return {.outs = int(outs), .step = int(s.stride), .base = int(s.start(0)), .spacing = int(s.dilation), .taps = int(s.kernel)};
}

// Output e + stride·i meets kernel offset r where stride divides e + pad - r·dilation: every skip-th r from the first
// on.
GemmAxis backward_axis(int64_t e, int64_t outs, const SlidingAxis& s) {
  GemmAxis a{.outs = int(ceil_div(outs - e, s.stride)), .off = int(e), .mul = int(s.stride), .taps = 0};
  int64_t r = 0;
  while (r < s.kernel && (e + s.pad - r * s.dilation) % s.stride != 0) ++r;
  if (r == s.kernel) return a;
  const int64_t skip = s.stride / std::gcd(s.stride, s.dilation);
  a.taps = int(ceil_div(s.kernel - r, skip));
  a.first = int(r);
  a.skip = int(skip);
  a.base = int((e + s.pad - r * s.dilation) / s.stride);
  a.spacing = int(-skip * s.dilation / s.stride);
  return a;
}

bool aligned(const GemmProblem& p) { return p.depth * size_of(p.dtype) % 16 == 0; }

// Kernels count copies in 32 bits, unsigned, and pixels in 31.
constexpr int kMostTaps = 1 << 15;  // on an axis: they count them in 16 bits
constexpr int64_t kInt = int64_t(1) << 31, kUnsigned = int64_t(1) << 32, kLargestTile = 128;
int64_t copy_bytes(const GemmProblem& p) { return aligned(p) ? 16 : 4; }
int64_t pixel_bytes(const GemmProblem& p) { return int64_t(p.groups) * p.depth * int64_t(size_of(p.dtype)); }
int64_t items_at_once(const GemmProblem& p) {
  const int64_t item = int64_t(p.in_h) * p.in_w * std::max<int64_t>(pixel_bytes(p) / copy_bytes(p), 1);
  return std::min((kUnsigned - 1) / item, (kInt - kLargestTile) / (int64_t(p.out_h) * p.out_w));
}

int64_t blocks_of(const GemmProblem& p, int tile) {
  const TileChoice& t = kGemmTiles[tile];
  return ceil_div(largest_rows(p), t.bm) * ceil_div(p.columns, t.bn) * phases(p) * p.groups;
}

// Shared memory of a kernel that adds up segments: RTX cards have too little for the largest.
size_t segmented_bytes(const GemmPlan& plan) {
  const TileChoice& t = kGemmTiles[plan.tile];
  const int ring = (plan.ring > 0 ? plan.ring : kSegmentedRing) * (t.bm + t.bn) * kGemmStepBytes;
  return size_t(ring) + size_t(t.bm) * size_t(t.bn) * sizeof(float);
}

bool fits(const Context& ctx, const GemmProblem& p, const GemmPlan& plan) {
  if (!aligned(p) && (!has_narrow(plan.tile) || plan.ring != 0)) return false;
  if (!plan.split) return p.segments == 1 || segmented_bytes(plan) <= ctx.gpu->shared_per_block;
  // The second bounds the scratch memory, too.
  return p.segments > 1 && blocks_of(p, plan.tile) <= 4 * std::max(ctx.gpu->multiprocessors, 1);
}

// What a multiprocessor does in a cycle, about: products of whole tiles (of Hopper's by what mma.sync and FMA loops reach),
// and bytes of its share of the memory.
double products_a_cycle(const GemmProblem& p) {
  return p.dtype != DType::f32 ? 1024 : p.tf32 ? 512 : 80;
}
constexpr double kBytesACycle = 16;

// In, weights and out, each once.
double operand_bytes(const GemmProblem& p) {
  const double in = double(p.n) * p.in_h * p.in_w * p.depth, out = double(p.n) * p.out_h * p.out_w * p.columns;
  const double weights = double(p.columns) * p.kernel_h * p.kernel_w * p.depth;
  return p.groups * (in + weights + out) * double(size_of(p.dtype));
}

// What should be fastest: the larger of the time for the rounds of blocks, by the tiles' efficiencies, and the time for
// the bytes, to which a split product adds partial sums, written and read.
GemmPlan modelled_plan(const Context& ctx, const GemmProblem& p) {
  const double processors = std::max(ctx.gpu->multiprocessors, 1);
  const double products = double(largest_taps(p)) * p.depth, operands = operand_bytes(p);
  const double sums = 2. * p.segments * phases(p) * p.groups * double(largest_rows(p)) * p.columns * sizeof(float);
  GemmPlan best;
  double least = 0;
  for (int t = 0; t < int(std::size(kGemmTiles)); ++t) {
    const auto [bm, bn, fma, mma] = kGemmTiles[t];
    for (const bool split : {false, true}) {
      const GemmPlan plan{t, !aligned(p), split};
      if (!fits(ctx, p, plan)) continue;
      const double parts = split ? p.segments : 1, rounds = std::ceil(double(blocks_of(p, t)) * parts / processors);
      const double efficiency = p.dtype == DType::f32 && !p.tf32 ? fma : mma;
      const double arithmetic =
          rounds / parts * bm * bn * products / (products_a_cycle(p) * efficiency) * (split ? 1.2 : 1.0);
      const double time = std::max(arithmetic, (operands + (split ? sums : 0)) / (kBytesACycle * processors));
      if (least == 0 || time < least) {
        least = time;
        best = plan;
      }
    }
  }
  return best;
}

GemmKey key_of(const GemmProblem& p, bool backward) {
  return {.arithmetic = arithmetic_of(p.dtype, p.tf32), .backward = backward, .n = p.n,
          .rows = int64_t(p.rows[0].outs) * p.cols[0].outs, .columns = p.columns, .depth = p.depth,
          .taps = largest_taps(p), .phases = phases(p), .groups = p.groups};
}

GemmVariant variant_of(const GemmPlan& plan) {
  return {kGemmTiles[plan.tile].bm, kGemmTiles[plan.tile].bn, plan.ring, plan.split};
}

GemmPlan plan_of(const GemmVariant& v, const GemmProblem& p) {
  const auto* tile = std::find_if(std::begin(kGemmTiles), std::end(kGemmTiles),
                                  [&](const TileChoice& t) { return t.bm == v.rows && t.bn == v.columns; });
  CHECK(tile != std::end(kGemmTiles), "there is no GEMM kernel {}", name_of(v));
  return {int(tile - std::begin(kGemmTiles)), !aligned(p), v.split, v.ring};
}

// The table's choice. One that was measured at another batch may not fit at this one: then, as where there is none, the
// model chooses.
GemmPlan make_plan(const Context& ctx, const GemmProblem& p, bool backward) {
  if (!ctx.gemm_table) return modelled_plan(ctx, p);
  const GemmTable::Entry* entry = ctx.gemm_table->find(key_of(p, backward));
  if (!entry) return modelled_plan(ctx, p);
  const GemmPlan plan = plan_of(entry->variant, p);
  if (fits(ctx, p, plan)) return plan;
  if (entry->n == p.n)
    throw Error(fmt::format("the table of GEMM kernels gives {} to a product that it cannot compute: batch {}, "
                            "{} columns, depth {}", name_of(entry->variant), p.n, p.columns, p.depth),
                "measure the table anew: `switchback bench --sweep`");
  return modelled_plan(ctx, p);
}

template <typename T>
void launch_gemm(Context& ctx, const Launch& l, const GemmPlan& plan, const GemmArgs<T>& args) {
  if constexpr (std::is_same_v<T, bf16>)
    launch_gemm_bf16(ctx, l, plan, args);
  else if constexpr (std::is_same_v<T, f16>)
    launch_gemm_f16(ctx, l, plan, args);
  else
    (args.problem.tf32 ? launch_gemm_tf32 : launch_gemm_f32)(ctx, l, plan, args);
}

template <typename T>
void run(Context& ctx, const char* op, const GemmProblem& p, Shape out, const GemmEnd<T>& end) {
  const int64_t rows = largest_rows(p);
  if (rows == 0 || p.columns == 0) return;
  CHECK(p.n <= items_at_once(p), "{} [{},{},{},{}]: at most {} items fit into one launch", op, out.n, out.c, out.h,
        out.w, items_at_once(p));
  const GemmPlan plan = make_plan(ctx, p, end.mode == GemmMode::backward);
  const TileChoice& tile = kGemmTiles[plan.tile];
  GemmArgs<T> args{.problem = p, .end = end, .column_tiles = int(ceil_div(p.columns, tile.bn))};
  args.dense = phases(p) == 1 && p.rows[0].mul == 1 && !p.pooled;
  // Columns of a whole map are of many pixels, and a window takes 32 rows of a warp.
  const bool windows = tile.bm >= 32 && reinterpret_cast<uintptr_t>(end.switches) % 8 == 0;
  args.eights = p.columns % 8 == 0 && !p.whole_map && (end.mode != GemmMode::pooled || windows) &&
                (end.mode == GemmMode::backward ? by_eights(end.dx) : by_eights(end.y));
  const int products = phases(p) * p.groups;
  const int64_t tiles = ceil_div(rows, tile.bm) * args.column_tiles;
  if (plan.split) {
    args.partial = static_cast<float4*>(ctx.scratch.reserve(size_t(p.segments) * size_t(products) * size_t(tiles) *
                                                            size_t(tile.bm) * size_t(tile.bn) * sizeof(float)));
    args.counters = ctx.counters(products * tiles);
  }
  const int parts = products * (plan.split ? p.segments : 1);
  launch_gemm<T>(ctx, {op, out, dim3(unsigned(tiles), 1, unsigned(parts)), dim3(1)}, plan, args);
}

template <typename T>
GemmEnd<T> pooled_end(const GemmProblem& p, View y, const float* bias, const Epilogue& e) {
  GemmEnd<T> end{.mode = GemmMode::pooled, .y = forward_end<T>(y, bias, e)};
  end.switches = static_cast<uint8_t*>(e.switches);
  end.pool_before_relu = e.pool_before_relu;
  if (end.y.above && !e.pool_before_relu)  // the gates are those of the convolution's map
    end.y.above = e.gates + gate_words(Shape{p.n, y.shape.c, p.out_h, p.out_w});
  return end;
}

}  // namespace

GemmProblem conv_forward_problem(const Conv2d& c, ConstView x, const void* krsc) {
  const Shape y = output_shape(c, x.shape);
  GemmProblem p{.in = x.data, .weight = krsc, .dtype = x.dtype, .n = int(y.n), .groups = int(c.groups)};
  p.in_h = int(x.shape.h), p.in_w = int(x.shape.w), p.out_h = int(y.h), p.out_w = int(y.w);
  p.depth = int(c.in_channels / c.groups), p.columns = int(c.out_channels / c.groups);
  p.kernel_h = int(c.kernel_h), p.kernel_w = int(c.kernel_w);
  p.rows[0] = forward_axis(y.h, sliding_rows(c));
  p.cols[0] = forward_axis(y.w, sliding_columns(c));
  cut_segments(p);
  return p;
}

GemmProblem conv_backward_problem(const Conv2d& c, ConstView dy, Shape dx, const void* crsk) {
  GemmProblem p{.in = dy.data, .weight = crsk, .dtype = dy.dtype, .n = int(dy.shape.n), .groups = int(c.groups)};
  p.in_h = int(dy.shape.h), p.in_w = int(dy.shape.w), p.out_h = int(dx.h), p.out_w = int(dx.w);
  p.depth = int(c.out_channels / c.groups), p.columns = int(c.in_channels / c.groups);
  p.kernel_h = int(c.kernel_h), p.kernel_w = int(c.kernel_w);
  p.phases_h = int(std::min(c.stride_h, dx.h)), p.phases_w = int(std::min(c.stride_w, dx.w));
  for (int e = 0; e < p.phases_h; ++e) p.rows[e] = backward_axis(e, dx.h, sliding_rows(c));
  for (int e = 0; e < p.phases_w; ++e) p.cols[e] = backward_axis(e, dx.w, sliding_columns(c));
  cut_segments(p);
  return p;
}

GemmProblem linear_problem(DType dtype, int64_t n, int64_t in_features, int64_t out_features, const void* in,
                           const void* weight) {
  GemmProblem p{.in = in, .weight = weight, .dtype = dtype, .n = int(n)};
  p.depth = int(in_features), p.columns = int(out_features);
  cut_segments(p);
  return p;
}

bool gemm_supports(const GemmProblem& p) {
  const int64_t weights = (p.columns + kLargestTile) * p.kernel_h * p.kernel_w * pixel_bytes(p);
  return p.depth * int64_t(size_of(p.dtype)) % copy_bytes(p) == 0 && weights / copy_bytes(p) < kUnsigned &&
         std::max(p.kernel_h, p.kernel_w) < kMostTaps && items_at_once(p) > 0 &&
         int64_t(phases(p)) * p.groups * p.segments < 65536;
}

std::string gemm_kernel_name(const Context& ctx, const GemmProblem& p, bool backward) {
  const GemmPlan plan = make_plan(ctx, p, backward);
  const char* f32 = p.tf32 ? "mma_tf32" : "f32";
  const char* kind = p.dtype == DType::bf16 ? "mma_bf16" : p.dtype == DType::f16 ? "mma_f16" : f32;
  std::string name = fmt::format("gemm_{}_{}x{}", kind, kGemmTiles[plan.tile].bm, kGemmTiles[plan.tile].bn);
  if (plan.ring > 0) name += fmt::format("_ring{}", plan.ring);
  if (plan.split) name += fmt::format("_split{}", p.segments);
  return name;
}

std::vector<GemmVariant> gemm_variants() {
  std::vector<int> rings = {0};
  rings.insert(rings.end(), kGemmRings.begin(), kGemmRings.end());
  std::vector<GemmVariant> all;
  for (const TileChoice& tile : kGemmTiles)
    for (const int ring : rings)
      for (const bool split : {false, true}) all.push_back({tile.bm, tile.bn, ring, split});
  return all;
}

GemmOffer gemm_offer(const Context& ctx, const GemmProblem& p, bool backward) {
  GemmOffer offer{key_of(p, backward), variant_of(make_plan(ctx, p, backward)), {}};
  const int usual = offer.key.arithmetic == Arithmetic::fp32 ? kFmaRing : kMmaRing;
  for (const GemmVariant& v : gemm_variants())
    if (v.ring != usual && fits(ctx, p, plan_of(v, p))) offer.fitting.push_back(v);
  return offer;
}

void run_gemm(Context& ctx, const char* op, const GemmProblem& p, View y, const float* bias, const Epilogue& e) {
  by_type(p.dtype, [&]<typename T>(T) {
    run<T>(ctx, op, p, y.shape,
           p.pooled ? pooled_end<T>(p, y, bias, e)
                    : GemmEnd<T>{.mode = GemmMode::forward, .y = forward_end<T>(y, bias, e)});
  });
}

void run_gemm(Context& ctx, const char* op, const GemmProblem& p, View dx, const BackwardEpilogue& e) {
  by_type(p.dtype, [&]<typename T>(T) {
    run<T>(ctx, op, p, dx.shape, GemmEnd<T>{.mode = GemmMode::backward, .dx = backward_end<T>(dx, e)});
  });
}

}  // namespace switchback::SB_DEVICE
