// Body of winograd_avx2.cpp and winograd_avx512.cpp, which define SWITCHBACK_WINOGRAD as the function's name.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels/conv/conv_ends.h"
#include "kernels/linear/products.h"
#include "kernels/conv/winograd.h"
#include "kernels/conv/winograd_transforms.h"

namespace switchback {
namespace {

using namespace simd;

constexpr int64_t kBlock = kWinogradBlock;
constexpr int64_t kCols = 64;    // output channels of one U panel
// Channels of one sum, which then goes to M: sums of sums round less (products.h), at 1 to 2 % of the time.
constexpr int64_t kDepth = 32;
constexpr int64_t kFewDepth = kDepth;  // of U at a time for few tiles: 36 x 32 x 64 floats = 295 kB
constexpr int64_t kTiles = 48;   // tiles of one product: M is 36 x 48 x 64 floats = 442 kB, half of an L2 cache

struct Geometry {
  const WinogradProblem& w;
  int64_t tiles_y = (w.p + 3) / 4, tiles_x = (w.q + 3) / 4;
  int64_t cols = std::min(kCols, w.k);  // of a panel of U, and of M
  bool tall = w.k <= kTallCols;         // few columns take more rows (products.h)
  int64_t rows = tall ? kTallRows : kTileRows;  // tiles of a panel of V
  int64_t tiles() const { return w.n * tiles_y * tiles_x; }
  int64_t whole_panels(int64_t count) const { return (count + rows - 1) / rows * rows; }
  // Where tile t of a block lies in V[point]: panels of `rows` tiles, their channels interleaved in pieces of 16.
  int64_t panel_offset(int64_t t) const { return t / rows * rows * w.c + t % rows * kPiece; }
  // From one point to the next. Not a power of two: all 36 would meet in the same lines of the cache.
  int64_t stride_of_u(int64_t depth) const { return depth * cols + kBlock; }
  int64_t stride_of_m(int64_t count) const { return count * cols + kLanes; }
};

struct Tile {
  int64_t image, ty, tx;
  Tile(const Geometry& g, int64_t t)
      : image(t / (g.tiles_y * g.tiles_x)), ty(t / g.tiles_x % g.tiles_y), tx(t % g.tiles_x) {}
};

// V[36][stride] for tiles begin .. end of the block that starts at tile `first`.
void transform_tiles(const Geometry& g, int64_t first, int64_t begin, int64_t end, const float* zeros, float* v,
                     int64_t stride) {
  const WinogradProblem& w = g.w;
  for (int64_t t = first + begin; t < first + end; ++t) {
    const Tile tile(g, t);
    const float* source[36];
    input_tile(w.x + tile.image * w.h * w.w * w.c, {1, w.c, w.h, w.w}, 4 * tile.ty - w.pad_top, 4 * tile.tx - w.pad_left, zeros, source);
    prefetch_tile(w.x + ((tile.image * w.h + 4 * tile.ty - w.pad_top + 6) * w.w + 4 * tile.tx) * w.c, w.w * w.c, 4 * w.c);
    float* base = v + g.panel_offset(t - first);
    for (int64_t c = 0; c < w.c; c += kLanes)
      transform_input_tile(source, c, base + c / kPiece * (g.rows * kPiece) + c % kPiece, stride);
  }
}

// Weights of 16 input channels from c on and 16 output channels from o on: tap t of input channel i lies at
// base + t·tap + i·channel, a vector of output channels.
struct WeightBlock {
  const float* base;
  int64_t tap, channel;
};
// `room`: for what is turned round, [16 c][9 taps][16 o].
WeightBlock weight_block(const WinogradWeights& w, int64_t o, int64_t c, float* room) {
  if (w.packed) return {w.packed + (o / kBlock * (w.c / kBlock) + c / kBlock) * 9 * kBlock * kBlock, kBlock * kBlock, kBlock};
  const float* rows = w.given + (o * w.c + c) * 9;  // 16 of them, in each 16 · 9 values
  for (int64_t i = 0; i < 9; ++i) transpose16(rows + i * kBlock, w.c * 9, room + i * kBlock * kBlock);
  if (w.scale)
    for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
      const Vec scale = load(w.scale + o + lane);
      for (int64_t i = 0; i < 9 * kBlock; ++i) store(room + i * kBlock + lane, scale * load(room + i * kBlock + lane));
    }
  return {room, kBlock, 9 * kBlock};
}

// U[36][stride], each [last - first][cols]: for reduction channels [first, last) (multiples of 16) of output channels
// k0 .. k0+cols; columns beyond k are zero.
void transform_weights(const Geometry& g, int64_t k0, int64_t first, int64_t last, float* u, int64_t stride) {
  const WinogradProblem& w = g.w;
  alignas(64) float block[9 * kBlock * kBlock], room[9 * kBlock * kBlock];
  for (int64_t j = 0; j < g.cols; j += kBlock)
    for (int64_t r0 = first; r0 < last; r0 += kBlock) {
      if (k0 + j >= w.k) {
        for (int64_t r = r0; r < r0 + kBlock; ++r)
          for (int point = 0; point < 36; ++point)
            std::memset(u + point * stride + (r - first) * g.cols + j, 0, kBlock * sizeof(float));
        continue;
      }
      const int64_t o = w.transposed ? r0 : k0 + j, c = w.transposed ? k0 + j : r0;
      WeightBlock from = weight_block(w.weights, o, c, room);
      // What the next call will want, as callers go through the channels: big layers' weights come from memory.
      const float* next = w.weights.packed ? from.base + (last - first) * (w.transposed ? w.weights.c : kBlock) * 9
                                           : w.weights.given + ((o + (w.transposed ? last - first : 0)) * w.weights.c + c +
                                                                (w.transposed ? 0 : last - first)) * 9;
      const int64_t next_row = w.weights.packed ? 9 * kBlock : 9 * w.weights.c;
      if (w.transposed) {
        for (int tap = 0; tap < 9; ++tap) transpose16(from.base + tap * from.tap, from.channel, block + (8 - tap) * kBlock * kBlock);
        from = {block, kBlock * kBlock, kBlock};
      }
      for (int r = 0; r < kBlock; ++r) {
        for (int i = 0; i < 9; ++i) __builtin_prefetch(next + r * next_row + i * kBlock, 0, 2);
        for (int lane = 0; lane < kBlock; lane += kLanes) {
          Vec half[6][3], out[6];
          for (int s = 0; s < 3; ++s) {
            Vec g[3], f[6];
            for (int t = 0; t < 3; ++t)
              g[t] = load(from.base + (3 * t + s) * from.tap + r * from.channel + lane);
            weight_transform(g, f);
            for (int t = 0; t < 6; ++t) half[t][s] = f[t];
          }
          for (int t = 0; t < 6; ++t) {
            weight_transform(half[t], out);
            for (int s = 0; s < 6; ++s) store(u + (6 * t + s) * stride + (r0 - first + r) * g.cols + j + lane, out[s]);
          }
        }
      }
    }
}

// M[36][m_stride] (+)= V·U over the channels [begin, begin + depth) of `count` tiles, for one panel of U; v at channel 0.
// flatten: its calls are many and small.
__attribute__((flatten)) void multiply(const Geometry& g, int64_t count, int64_t begin, int64_t depth, const float* v,
                                       int64_t v_stride, const float* u, int64_t u_stride, int64_t k0, float* m) {
  const int64_t cols = std::min(g.cols, g.w.k - k0), m_stride = g.stride_of_m(count);
  for (int point = 0; point < 36; ++point)
    for (int64_t c = begin; c < begin + depth; c += kDepth)
      for (int64_t t = 0; t < count; t += g.rows) {
        const int rows = int(std::min(g.rows, count - t));
        const Rows a{v + point * v_stride + t * g.w.c + c * g.rows, kPiece, std::min(kDepth, begin + depth - c), g.rows * kPiece};
        const float* b = u + point * u_stride + (c - begin) * g.cols;
        float* to = m + point * m_stride + t * g.cols;
        if (g.tall) multiply_tall_panel(rows, cols, a, b, g.cols, to, g.cols, c > 0);
        else multiply_panel(rows, cols, a, b, g.cols, to, g.cols, c > 0);
      }
}

// The output transform of `count` tiles, and what follows it.
template <typename End>
void finish(const Geometry& g, const End& end, int64_t first, int64_t count, int64_t k0, const float* m) {
  const WinogradProblem& w = g.w;
  const int64_t cols = std::min(g.cols, w.k - k0), m_stride = g.stride_of_m(count);
  for (int64_t t = 0; t < count; ++t) {
    const Tile tile(g, first + t);
    const int64_t rows = std::min<int64_t>(4, w.p - 4 * tile.ty), columns = std::min<int64_t>(4, w.q - 4 * tile.tx);
    const int64_t corner = (tile.image * w.p + 4 * tile.ty) * w.q + 4 * tile.tx, gate_corner = end.gate_pixel(corner);
    for (int64_t k = 0; k < cols; k += kLanes) {
      const float* source = m + t * g.cols + k;
      Vec half[4][6];
      for (int s = 0; s < 6; ++s) {
        Vec column[6], f[4];
        for (int r = 0; r < 6; ++r) column[r] = load(source + (6 * r + s) * m_stride);
        output_transform(column, f);
        for (int r = 0; r < 4; ++r) half[r][s] = f[r];
      }
      for (int64_t r = 0; r < rows; ++r) {
        Vec out[4];
        output_transform(half[r], out);
        for (int64_t s = 0; s < columns; ++s) {
          const int64_t place = r * w.q + s;
          store(w.y + (corner + place) * w.k + k0 + k, end(out[s], corner + place, gate_corner + place, k0 + k));
        }
      }
    }
  }
}

// Many tiles: U once (in memory shared by all), then every thread takes blocks of tiles from input to output.
template <typename End>
void run_by_tiles(Context& ctx, const Geometry& g, const End& end) {
  const WinogradProblem& w = g.w;
  const int threads = ctx.thread_count();
  const int64_t panels = (w.k + g.cols - 1) / g.cols, u_stride = g.stride_of_u(w.c), panel = 36 * u_stride;
  const int64_t rounds = (g.tiles() + threads * kTiles - 1) / (threads * kTiles);  // the same work for every thread
  const int64_t block = g.whole_panels((g.tiles() + rounds * threads - 1) / (rounds * threads));
  const int64_t v_stride = block * w.c + kLanes, v_size = 36 * v_stride, m_size = 36 * g.stride_of_m(block);
  const int64_t zeros_size = w.c;
  float* u = static_cast<float*>(
      ctx.scratch.reserve(size_t(panels * panel + zeros_size + threads * (v_size + m_size)) * sizeof(float)));
  float* zeros = u + panels * panel;
  std::memset(zeros, 0, size_t(zeros_size) * sizeof(float));
  float* per_thread = zeros + zeros_size;
  const int64_t blocks = (g.tiles() + block - 1) / block, strips = w.c / kBlock;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < panels * strips; ++i)
      transform_weights(g, i / strips * g.cols, i % strips * kBlock, (i % strips + 1) * kBlock,
                        u + i / strips * panel + i % strips * kBlock * g.cols, u_stride);
    float* v = per_thread + omp_get_thread_num() * (v_size + m_size);
    float* m = v + v_size;
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = b * block, count = std::min(block, g.tiles() - first);
      transform_tiles(g, first, 0, count, zeros, v, v_stride);
      for (int64_t p = 0; p < panels; ++p) {
        multiply(g, count, 0, w.c, v, v_stride, u + p * panel, u_stride, p * g.cols, m);
        finish(g, end, first, count, p * g.cols, m);
      }
    }
  }
}

// Few tiles (small batches of deep layers): all threads make V of all tiles, then take panels of U. Each is made where
// it is used, and where one product has all tiles, a few channels at a time: it is then read from the cache that it was
// written to. Writing and reading U in memory would take longer than the product.
template <typename End>
void run_by_panels(Context& ctx, const Geometry& g, const End& end) {
  const WinogradProblem& w = g.w;
  const int threads = ctx.thread_count();
  const int64_t panels = (w.k + g.cols - 1) / g.cols;
  const int64_t most = std::max<int64_t>(kTiles, (int64_t(16) << 20) / (36 * w.c * 4) / kTiles * kTiles);
  const int64_t supers = (g.tiles() + most - 1) / most;
  const int64_t super = std::min(most, g.whole_panels((g.tiles() + supers - 1) / supers));
  const int64_t parts = (threads + panels - 1) / panels;  // of the tiles, where there are more threads than panels
  const int64_t depth = (super + parts - 1) / parts <= kTiles ? std::min(kFewDepth, w.c) : w.c;  // of U at a time
  const int64_t u_stride = g.stride_of_u(depth), panel = 36 * u_stride;
  const int64_t v_stride = super * w.c + kLanes, m_size = 36 * g.stride_of_m(kTiles);
  float* v = static_cast<float*>(
      ctx.scratch.reserve(size_t(36 * v_stride + w.c + threads * (panel + m_size)) * sizeof(float)));
  float* zeros = v + 36 * v_stride;
  std::memset(zeros, 0, size_t(w.c) * sizeof(float));
  float* per_thread = zeros + w.c;
#pragma omp parallel num_threads(threads)
  {
    float* u = per_thread + omp_get_thread_num() * (panel + m_size);
    float* m = u + panel;
    for (int64_t first = 0; first < g.tiles(); first += super) {
      const int64_t count = std::min(super, g.tiles() - first);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < count; ++t)
        transform_tiles(g, first, t, t + 1, zeros, v, v_stride);
#pragma omp for schedule(dynamic)
      for (int64_t i = 0; i < panels * parts; ++i) {
        const int64_t p = i / parts, part = i % parts;
        const int64_t begin = std::min(count, g.whole_panels(count * part / parts));
        const int64_t stop = std::min(count, g.whole_panels(count * (part + 1) / parts));
        if (begin == stop) continue;
        for (int64_t t = begin, tiles; t < stop; t += tiles) {
          tiles = std::min(kTiles, stop - t);
          for (int64_t c = 0; c < w.c; c += depth) {
            const int64_t some = std::min(depth, w.c - c);
            if (depth < w.c || t == begin) transform_weights(g, p * g.cols, c, c + some, u, u_stride);
            multiply(g, tiles, c, some, v + t * w.c, v_stride, u, u_stride, p * g.cols, m);
          }
          finish(g, end, first + t, tiles, p * g.cols, m);
        }
      }
    }
  }
}

template <typename End>
void run(Context& ctx, const Geometry& g, const End& end) {
  g.tiles() >= 4 * kTiles ? run_by_tiles(ctx, g, end) : run_by_panels(ctx, g, end);
}

}  // namespace

void SWITCHBACK_WINOGRAD(Context& ctx, const WinogradProblem& w) {
  const Geometry g{w};
  const Shape y{w.n, w.k, w.p, w.q};
  const auto with = [&](const auto& end) { run(ctx, g, end); };
  w.forward ? with_end(*w.forward, w.bias, y, with) : with_end(*w.backward, y, with);
}

}  // namespace switchback
