// Body of winograd_weights_avx2.cpp and winograd_weights_avx512.cpp, which define SWITCHBACK_WINOGRAD_WEIGHTS as the
// function's name and SWITCHBACK_OUTER_SUMS as the outer products it takes.
#include <algorithm>
#include <cstring>

#include "kernels/conv/winograd_transforms.h"
#include "kernels/conv/winograd_weights.h"
#include "kernels/linear/outer_sums.h"
#include "kernels/parallel.h"

namespace switchback {
namespace {

using namespace simd;

// Channels of one task: its 36 products are 36 x 32 x 64 floats = 295 kB.
constexpr int64_t kOutputs = 32, kInputs = 64;
constexpr int64_t kChain = 128;            // tiles whose products make one sum before it is added to the others
constexpr int64_t kTransformed = 5 << 20;  // elements of transformed maps at a time
constexpr int64_t kNarrow = 32 * 64;       // k·c up to which all 36 sums fit in a thread's cache beside the maps
constexpr int64_t kCached = 128 << 10;     // elements of a thread's transformed maps

// Transformed maps of one group of tiles whose sums are made together: [block of `width` channels][36][tiles][width].
struct Transformed {
  int64_t channels, width, tiles;
  // From one point to the next. No power of two: all 36 would meet in the same lines of the cache.
  int64_t stride = tiles * width + kLanes, block = 36 * stride, size = (channels + width - 1) / width * block;
  int64_t at(int64_t tile, int64_t c) const { return c / width * block + tile * width + c % width; }
};

// B^T x B of one tile of an item, all channels; `to`: which of its group's it is.
void transform_x(const WinogradWeightsProblem& w, int64_t item, int64_t tile, const float* zeros, const Transformed& l,
                 int64_t to, float* out) {
  const float* source[36];
  input_tile(w.x + item * w.h * w.w * w.c, {1, w.c, w.h, w.w}, 4 * (tile / w.tiles_x()) - w.pad_top,
             4 * (tile % w.tiles_x()) - w.pad_left, zeros, source);
  prefetch_tile(w.x + ((item * w.h + 4 * (tile / w.tiles_x()) - w.pad_top + 6) * w.w + 4 * (tile % w.tiles_x())) * w.c, w.w * w.c, 4 * w.c);
  for (int64_t c = 0; c < w.c; c += kLanes) transform_input_tile(source, c, out + l.at(to, c), l.stride);
}

// A dy A^T likewise.
void transform_dy(const WinogradWeightsProblem& w, int64_t item, int64_t tile, const float* zeros, const Transformed& l,
                  int64_t to, float* out) {
  const float *from = w.dy + item * w.p * w.q * w.k, *source[16];
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t s = 0; s < 4; ++s) {
      const int64_t y = 4 * (tile / w.tiles_x()) + r, x = 4 * (tile % w.tiles_x()) + s;
      source[4 * r + s] = y < w.p && x < w.q ? from + (y * w.q + x) * w.k : zeros;
    }
  prefetch_tile(from + (4 * (tile / w.tiles_x() + 1) * w.q + 4 * (tile % w.tiles_x())) * w.k, w.q * w.k, 4 * w.k);
  for (int64_t k = 0; k < w.k; k += kLanes) {
    Vec half[6][4];  // columns done
    for (int s = 0; s < 4; ++s) {
      Vec d[4], f[6];
      for (int r = 0; r < 4; ++r) d[r] = load(source[4 * r + s] + k);
      output_transposed(d, f);
      for (int r = 0; r < 6; ++r) half[r][s] = f[r];
    }
    for (int r = 0; r < 6; ++r) {
      Vec f[6];
      output_transposed(half[r], f);
      for (int s = 0; s < 6; ++s) store(out + l.at(to, k) + (6 * r + s) * l.stride, f[s]);
    }
  }
}

// taps[9][stride] += G^T u G for a vector of input channels; u: 36 values, u_stride apart.
void add_taps(const float* u, int64_t u_stride, float* taps, int64_t stride) {
  Vec half[3][6];
  for (int s = 0; s < 6; ++s) {
    Vec column[6], f[3];
    for (int r = 0; r < 6; ++r) column[r] = load(u + (6 * r + s) * u_stride);
    weight_transposed(column, f);
    for (int r = 0; r < 3; ++r) half[r][s] = f[r];
  }
  for (int r = 0; r < 3; ++r) {
    Vec f[3];
    weight_transposed(half[r], f);
    for (int s = 0; s < 3; ++s) {
      float* at = taps + (3 * r + s) * stride;
      store(at, load(at) + f[s]);
    }
  }
}

// Between dw and taps.
template <typename Each>
void each_tap(Context& ctx, const WinogradWeightsProblem& w, float* taps, const Each& each) {
  parallel_ranges(ctx, w.k, 9 * w.c, [&](int64_t first, int64_t last) {
    for (int64_t o = first; o < last; ++o)
      for (int64_t c = 0; c < w.c; ++c)
        for (int64_t tap = 0; tap < 9; ++tap) each(w.dw[(o * w.c + c) * 9 + tap], taps[(o * 9 + tap) * w.c + c]);
  });
}

// Few channels: a thread takes some tiles from maps to kernels, all in its own cache; then these kernels are added in order.
void by_tiles(Context& ctx, const WinogradWeightsProblem& w) {
  const int64_t all = w.n * w.tiles(), part = w.whole ? kChain : w.tiles(), parts = (all + part - 1) / part;
  const int64_t block = std::clamp<int64_t>(kCached / (36 * (w.c + w.k)), 16, kChain);  // tiles
  const Transformed of_x{w.c, w.c, block}, of_dy{w.k, w.k, block};
  const int64_t at_once = std::clamp<int64_t>(kTransformed / (9 * w.k * w.c), 1, parts);
  const int threads = int(std::min<int64_t>(ctx.thread_count(), at_once));
  const int64_t u_stride = w.k * w.c + kLanes, own_size = of_x.size + of_dy.size + 36 * u_stride, taps_size = 9 * w.k * w.c,
                zeros_size = std::max(w.c, w.k);
  auto* zeros = static_cast<float*>(
      ctx.scratch.reserve(size_t(zeros_size + at_once * taps_size + threads * own_size) * sizeof(float)));
  float *taps = zeros + zeros_size, *own = taps + at_once * taps_size;  // taps: [part][k][9][c]
  std::memset(zeros, 0, size_t(zeros_size) * sizeof(float));
  for (int64_t p0 = 0; p0 < parts; p0 += at_once) {
    const int64_t some = std::min(at_once, parts - p0);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t i = 0; i < some; ++i) {
      float *x = own + omp_get_thread_num() * own_size, *dy = x + of_x.size, *u = dy + of_dy.size;
      const int64_t begin = (p0 + i) * part, end = std::min(all, begin + part);
      for (int64_t t = begin, count; t < end; t += count) {
        count = std::min({block, end - t, kChain - (t - begin) % kChain});
        for (int64_t to = 0; to < count; ++to) {
          transform_x(w, (t + to) / w.tiles(), (t + to) % w.tiles(), zeros, of_x, to, x);
          transform_dy(w, (t + to) / w.tiles(), (t + to) % w.tiles(), zeros, of_dy, to, dy);
        }
        const OuterStart start = t == begin ? OuterStart::fresh : (t - begin) % kChain == 0 ? OuterStart::apart : OuterStart::goes_on;
        for (int64_t point = 0; point < 36; ++point)
          SWITCHBACK_OUTER_SUMS.products(dy + point * of_dy.stride, w.k, x + point * of_x.stride, w.c, {1, count, 0, w.k, 0, w.c},
                                         u + point * u_stride, w.c, start);
      }
      float* to = taps + i * taps_size;
      std::memset(to, 0, size_t(taps_size) * sizeof(float));
      for (int64_t o = 0; o < w.k; ++o)
        for (int64_t c = 0; c < w.c; c += kLanes) add_taps(u + o * w.c + c, u_stride, to + o * 9 * w.c + c, w.c);
    }
    each_tap(ctx, w, taps, [=](float& dw, const float& tap) {
      for (int64_t i = 0; i < some; ++i) dw += (&tap)[i * taps_size];
    });
  }
}

}  // namespace

void SWITCHBACK_WINOGRAD_WEIGHTS(Context& ctx, const WinogradWeightsProblem& w) {
  if (w.k * w.c <= kNarrow) return by_tiles(ctx, w);
  const int64_t outputs = std::min(kOutputs, w.k), inputs = std::min(kInputs, w.c);
  const int64_t across = (w.k + outputs - 1) / outputs, along = (w.c + inputs - 1) / inputs, tasks = across * along;
  const int64_t rounds = std::min(w.n, (36 * w.tiles() * (w.c + w.k) * w.n + kTransformed - 1) / kTransformed);
  const int64_t at_once = (w.n + rounds - 1) / rounds, in_group = w.whole ? at_once : 1;  // items
  const Transformed of_x{w.c, inputs, in_group * w.tiles()}, of_dy{w.k, outputs, in_group * w.tiles()};
  const int64_t threads = std::min<int64_t>(ctx.thread_count(), tasks), groups = at_once / in_group;
  const int64_t u_stride = outputs * inputs + kLanes, u_size = 36 * u_stride, taps_size = w.k * 9 * w.c,
                zeros_size = std::max(w.c, w.k);
  auto* taps = static_cast<float*>(
      ctx.scratch.reserve(size_t(taps_size + zeros_size + groups * (of_x.size + of_dy.size) + threads * u_size) *
                          sizeof(float)));  // [k][9][c]
  float *zeros = taps + taps_size, *x = zeros + zeros_size, *dy = x + groups * of_x.size, *u = dy + groups * of_dy.size;
  std::memset(zeros, 0, size_t(zeros_size) * sizeof(float));
  each_tap(ctx, w, taps, [](float dw, float& tap) { tap = dw; });
  for (int64_t n0 = 0; n0 < w.n; n0 += at_once) {
    const int64_t items = std::min(at_once, w.n - n0);
    parallel_ranges(ctx, items * w.tiles(), 36 * (w.c + w.k), [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t item = i / w.tiles(), tile = i % w.tiles(), group = item / in_group,
                      to = item % in_group * w.tiles() + tile;
        transform_x(w, n0 + item, tile, zeros, of_x, to, x + group * of_x.size);
        transform_dy(w, n0 + item, tile, zeros, of_dy, to, dy + group * of_dy.size);
      }
    });
#pragma omp parallel for num_threads(int(threads)) schedule(dynamic)
    for (int64_t i = 0; i < tasks; ++i) {
      const int64_t o0 = i / along * outputs, o1 = std::min(w.k, o0 + outputs), c0 = i % along * inputs,
                    c1 = std::min(w.c, c0 + inputs);
      float* own = u + omp_get_thread_num() * u_size;
      for (int64_t item = 0; item < items; item += in_group) {
        const int64_t group = item / in_group, tiles = std::min(in_group, items - item) * w.tiles();
        const float *a = dy + group * of_dy.size + of_dy.at(0, o0), *b = x + group * of_x.size + of_x.at(0, c0);
        for (int64_t point = 0; point < 36; ++point)
          for (int64_t t = 0; t < tiles; t += kChain)
            SWITCHBACK_OUTER_SUMS.products(
                a + point * of_dy.stride + t * outputs, o1 - o0, b + point * of_x.stride + t * inputs, c1 - c0,
                {1, std::min(kChain, tiles - t), 0, outputs, 0, inputs}, own + point * u_stride, inputs,
                t == 0 ? OuterStart::fresh : OuterStart::apart);
        for (int64_t o = o0; o < o1; ++o)
          for (int64_t c = c0; c < c1; c += kLanes)
            add_taps(own + (o - o0) * inputs + c - c0, u_stride, taps + o * 9 * w.c + c, w.c);
      }
    }
  }
  each_tap(ctx, w, taps, [](float& dw, float tap) { dw = tap; });
}

}  // namespace switchback
