// Body of conv_im2col_avx2.cpp and conv_im2col_avx512.cpp, which define the functions' names.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <numeric>
#include <span>

#include "kernels/conv/conv_ends.h"
#include "kernels/conv/conv_im2col.h"
#include "kernels/linear/products.h"
#include "kernels/sliding.h"

namespace switchback {
namespace {

using namespace simd;

constexpr int64_t kPanel = kTileCols;
static_assert(kPanel == (kLanes == 16 ? kPanelAvx512 : kPanelAvx2).panel);
static_assert(kLanes == (kLanes == 16 ? kPanelAvx512 : kPanelAvx2).vector);
constexpr int64_t kPixels = 48;           // of a panel whose sums stay in the first cache
constexpr int64_t kBlockMacs = 200'000;   // multiply-adds of what one thread makes at a time, but at least kPixels
constexpr int64_t kDepth = 192;           // of one sum (products.h), and of a product before the next panel's turn: it stays in the first cache
constexpr int64_t kBackwardRows = 16;     // rows of dx that one thread makes at a time by patches
constexpr int64_t kSerialMacs = 200'000;  // multiply-adds below which starting threads costs more than it saves

int threads_for(Context& ctx, int64_t work) { return work < kSerialMacs ? 1 : ctx.thread_count(); }

// The product of one group. Its depth is cut into chunks; panels take turns behind each.
struct Product {
  const float* packed;
  int64_t groups, taps, depth, columns;  // depth: of one tap
  int64_t panels = (columns + kPanel - 1) / kPanel, rows = taps * depth;
  int64_t macs() const { return rows * columns * groups; }  // of a pixel
  int64_t blocks = (depth + kDepth - 1) / kDepth, taps_per_chunk = std::max<int64_t>(1, kDepth / depth);
  int64_t chunks = (taps + taps_per_chunk - 1) / taps_per_chunk * blocks;
  int64_t chunk_end(int64_t chunk) const {  // the first row behind it
    return blocks > 1 ? chunk / blocks * depth + depth * (chunk % blocks + 1) / blocks : (chunk + 1) * taps_per_chunk * depth;
  }
  // Groups whose columns don't fill whole vectors are finished together, as many as do.
  bool compact = groups > 1 && columns % kLanes != 0;
  int64_t panels_together = compact ? kLanes / std::gcd(columns, int64_t(kLanes)) * panels : 1;
  int64_t shares() const { return (groups * panels + panels_together - 1) / panels_together; }
  int64_t channel(int64_t panel) const { return panel / panels * columns + panel % panels * kPanel; }  // its first
  int64_t columns_of(int64_t panel) const { return std::min(kPanel, columns - panel % panels * kPanel); }
  const float* panel(int64_t i) const {
    return packed + i / panels * rows * round_up(columns, kLanes) + i % panels * rows * kPanel;
  }
};

// The windows' pieces in the order of their chunks; `from`: of the first pixel's first channel.
void add_tap(const Product& w, int64_t tap, int64_t from, std::vector<Piece>& pieces) {
  for (int64_t b = 0; b < w.blocks; ++b) {
    const int64_t c0 = w.depth * b / w.blocks, c1 = w.depth * (b + 1) / w.blocks;
    const Piece piece{from + c0, tap * w.depth + c0, c1 - c0};
    Piece* last = !pieces.empty() && w.blocks == 1 && tap % w.taps_per_chunk != 0 ? &pieces.back() : nullptr;
    if (last && last->from + last->length == piece.from && last->first + last->length == piece.first)
      last->length += piece.length;  // neighbours in one chunk
    else
      pieces.push_back(piece);
  }
}

// Consecutive pixels of one output row, or every `step`th one, with the pieces of their windows.
struct Strip {
  const float* data;  // of the source, from pixel to pixel `stride` on
  int64_t stride, pixels, first, step;
  std::span<const Piece> pieces;
  const Piece *chunk = pieces.data(), *next = chunk;  // of those in the chunk that is multiplied
};

// sums[pixels, cols] (+)= a · panel; its own function, or every end would bring all tiles along.
__attribute__((noinline, flatten)) void multiply_pixels(int64_t pixels, int64_t cols, Windows a, const float* panel,
                                                        float* sums, bool accumulate) {
  for (int64_t i = 0, rows; i < pixels; i += rows, a.data += rows * a.stride, sums += rows * kPanel) {
    rows = tile_rows(pixels - i, cols);
    if (cols <= kTallCols)
      multiply_tall_panel(int(rows), cols, a, panel, cols, sums, kPanel, accumulate);
    else
      multiply_panel(int(rows), cols, a, panel, cols, sums, kPanel, accumulate);
  }
}

// Columns [k, k + columns) of one output pixel.
template <typename End>
__attribute__((always_inline)) inline void finish_pixel(const End& end, int64_t pixel, int64_t k, int64_t columns,
                                                        const float* sums, float* out) {
  const int64_t gate_pixel = end.gate_pixel(pixel);
  float* to = out + pixel * end.channels + k;
  int64_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) store(to + j, end(load(sums + j), pixel, gate_pixel, k + j));
  if (const int lanes = int(columns - j); lanes > 0)
    store_first(to + j, end(load_first(sums + j, lanes), pixel, gate_pixel, k + j, lanes), lanes);
}

// Floats of scratch memory that multiply_and_finish needs for a block.
int64_t scratch_size(const Product& w, int64_t pixels) {
  const int64_t sums = w.chunks > 1 ? w.groups * w.panels * pixels : kPixels;
  return sums * kPanel + (w.compact ? pixels * (w.groups * w.columns + kLanes) : 0);
}

// out = end(windows · panels [first, last)). `end` is a copy: results that are stored could change no other.
template <typename End>
void multiply_and_finish(const Product& w, const End end, std::vector<Strip>& block, int64_t first, int64_t last,
                         float* scratch, float* out) {
  int64_t pixels = 0;
  for (const Strip& s : block) pixels += s.pixels;
  const int64_t channel = w.channel(first);
  const int64_t channels = w.channel(last - 1) + w.columns_of(last - 1) - channel, row = channels + kLanes;
  float* compact = scratch + (w.chunks > 1 ? (last - first) * pixels : kPixels) * kPanel;  // [pixels][row]
  for (int64_t chunk = 0; chunk < w.chunks; ++chunk) {
    for (Strip& s : block)
      for (s.chunk = s.next; s.next < s.pieces.data() + s.pieces.size() && s.next->first < w.chunk_end(chunk);) ++s.next;
    for (int64_t panel = first; panel < last; ++panel) {
      const int64_t k = w.channel(panel), columns = w.columns_of(panel), width = round_up(columns, kLanes);
      int64_t done = 0;
      for (const Strip& s : block) {
        Windows a{s.data + panel / w.panels * w.depth, s.stride, s.chunk, s.next - s.chunk};
        for (int64_t i = 0, rows; i < s.pixels; i += rows, done += rows, a.data += rows * a.stride) {
          rows = std::min(kPixels, s.pixels - i);
          float* sums = scratch + (w.chunks > 1 ? (panel - first) * pixels + done : 0) * kPanel;
          multiply_pixels(rows, width, a, w.panel(panel), sums, chunk > 0);
          if (chunk + 1 < w.chunks) continue;
          for (int64_t r = 0; r < rows; ++r, sums += kPanel)
            if (w.compact)  // the next panel overwrites what stands behind this one's columns
              for (int64_t j = 0; j < columns; j += kLanes) store(compact + (done + r) * row + k - channel + j, load(sums + j));
            else
              finish_pixel(end, s.first + (i + r) * s.step, k, columns, sums, out);
        }
      }
    }
  }
  if (!w.compact) return;
  for (const Strip& s : block)
    for (int64_t i = 0; i < s.pixels; ++i, compact += row)
      finish_pixel(end, s.first + i * s.step, channel, channels, compact, out);
}

// Work in pieces [0, count): whole ones, or some shares of each where they are too few for the threads.
// run(piece, first share, last share)
template <typename Run>
void share_out(int threads, int64_t count, int64_t shares, const Run& run) {
  const int64_t parts = count >= 4 * threads ? 1 : std::min(shares, (4 * threads + count - 1) / count);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t i = 0; i < count * parts; ++i) {
    const int64_t part = i % parts;
    run(i / parts, part * shares / parts, (part + 1) * shares / parts);
  }
}

// Blocks [0, count) of at most `pixels` outputs; fill(block, its number, `size` floats of scratch memory) makes one.
template <typename End, typename Fill>
void run_blocks(Context& ctx, const Im2colProblem& problem, const Product& w, const End& end, int64_t count, int64_t pixels,
                int64_t size, const Fill& fill) {
  const int64_t outputs = std::min(problem.in.shape.pixels(), problem.out.shape.pixels());
  const int threads = threads_for(ctx, outputs * w.macs());
  const int64_t sums = scratch_size(w, pixels), all = round_up(size + sums, 16);
  float* scratch = static_cast<float*>(ctx.scratch.reserve(size_t(threads * all) * sizeof(float)));
  share_out(threads, count, w.shares(), [&](int64_t i, int64_t first, int64_t last) {
    static thread_local std::vector<Strip> block;  // keeps its room from call to call
    float* own = scratch + omp_get_thread_num() * all;
    block.clear();
    fill(block, i, own + sums);
    multiply_and_finish(w, end, block, first * w.panels_together, std::min(last * w.panels_together, w.groups * w.panels), own,
                        problem.out.as<float>());
  });
}

// 1x1 convolutions in both directions: out[pixel, :] = end(in[pixel, :] · packed), without any copy.
template <typename End>
void run_pointwise(Context& ctx, const Im2colProblem& problem, const Product& w, const End& end) {
  const int64_t pixels = problem.in.shape.pixels(), channels = problem.in.shape.c;
  const int64_t enough = pixels / (32 * ctx.thread_count()), work = kBlockMacs / w.macs();
  const int64_t together = kPixels * std::clamp<int64_t>(std::min(enough, work) / kPixels, 1, 8);
  std::vector<Piece> pieces;
  add_tap(w, 0, 0, pieces);
  run_blocks(ctx, problem, w, end, ceil_div(pixels, together), together, 0, [&](std::vector<Strip>& block, int64_t i, float*) {
    const int64_t first = i * together;
    block.push_back({problem.in.as<float>() + first * channels, channels, std::min(together, pixels - first), first, 1, pieces});
  });
}

// One axis, in either direction; backward the taps are flipped. Places out, out + down, … see the same taps, `up` further on.
struct Axis {
  Axis(const SlidingAxis& along, bool back, int64_t count)
      : window(along), backward(back), up(back ? 1 : along.stride), down(back ? along.stride : 1), outputs(count) {}
  SlidingAxis window;
  bool backward;
  int64_t up, down, outputs;
  // What `out` sees at a tap, be it inside the source or not; SlidingAxis::kNowhere between two places.
  int64_t source(int64_t out, int64_t tap) const {
    return backward ? window.output(out, window.kernel - 1 - tap) : window.input(out, tap);
  }
};

// Outputs first, first + down, … and the taps that see the map from any of them, with the first one's place in the source.
struct Run {
  int64_t first, count;
  std::vector<std::pair<int64_t, int64_t>> taps;
};
std::vector<Run> runs_along(const Axis& along, int64_t inputs) {
  std::vector<Run> runs;
  for (int64_t phase = 0; phase < std::min(along.down, along.outputs); ++phase) {
    const int64_t count = ceil_div(along.outputs - phase, along.down);
    struct Sight {
      int64_t tap, source, begin, end;  // which of the outputs see the map
    };
    std::vector<Sight> all;
    std::vector<int64_t> cuts;
    for (int64_t tap = 0; tap < along.window.kernel; ++tap) {
      const int64_t source = along.source(phase, tap);
      if (source == SlidingAxis::kNowhere || source >= inputs) continue;
      const auto [begin, end] = SlidingAxis{1, along.up, -source, 1}.through({0, inputs}, count);
      if (begin >= end) continue;
      all.push_back({tap, source, begin, end});
      cuts.insert(cuts.end(), {begin, end});
    }
    // Wide paddings are worth a cut, for what is zero needs no product; it must leave whole tiles.
    std::erase_if(cuts, [&](int64_t cut) { return count - cut < kTileRows; });
    std::sort(cuts.begin(), cuts.end());
    cuts.push_back(count);
    int64_t begin = 0;
    for (const int64_t cut : cuts) {
      if (cut < count && cut - begin < kTileRows) continue;
      runs.push_back({phase + begin * along.down, cut - begin, {}});
      for (const Sight& s : all)
        if (s.begin < cut && s.end > begin) runs.back().taps.emplace_back(s.tap, s.source + begin * along.up);
      begin = cut;
    }
  }
  return runs;
}

// The kernel's rows from which some rows of outputs see the map, and for each run the pieces of its windows in copies of
// what they see, one row behind the other.
struct Sight {
  std::vector<int64_t> rows;
  std::vector<std::vector<Piece>> pieces;
};

// Columns [left, left + width) of one row of x, with zeros where there are none.
void copy_row(const float* x, int64_t columns, int64_t channels, int64_t left, int64_t width, float* to) {
  const int64_t first = std::clamp<int64_t>(0, left, left + width), last = std::clamp(columns, first, left + width);
  std::memset(to, 0, size_t((first - left) * channels) * sizeof(float));
  std::memcpy(to + (first - left) * channels, x + first * channels, size_t((last - first) * channels) * sizeof(float));
  std::memset(to + (last - left) * channels, 0, size_t((left + width - last) * channels) * sizeof(float));
}

// What the windows of one layer see on maps of one size.
struct Sights {
  Sights(const Conv2d& v, bool back, Shape in, Shape out, const Product& w)
      : conv(v), backward(back), source(in), outputs(out), down(sliding_rows(v), back, out.h),
        along(sliding_columns(v), back, out.w), runs(runs_along(along, in.w)) {
    int64_t right = INT64_MIN;
    for (const Run& run : runs)
      for (const auto& [tap, column] : run.taps) {
        left = std::min(left, column);
        right = std::max(right, column + (run.count - 1) * along.up + 1);
      }
    if (left > right) left = right = 0;  // padding alone
    width = right - left, row_size = width * in.c;
    std::vector<int64_t> rows;
    for (int64_t y = 0; y < out.h; ++y) {
      rows.clear();
      for (int64_t r = 0; r < v.kernel_h; ++r)
        if (const int64_t row = down.source(y, r); row >= 0 && row < in.h) rows.push_back(r);
      const auto seen = std::find_if(all.begin(), all.end(), [&](const Sight& s) { return s.rows == rows; });
      of_row.push_back(size_t(seen - all.begin()));
      if (seen == all.end()) all.push_back({rows, pieces_of(rows, w)});
    }
  }
  std::vector<std::vector<Piece>> pieces_of(const std::vector<int64_t>& rows, const Product& w) const {
    std::vector<std::vector<Piece>> pieces(runs.size());
    for (size_t i = 0; i < runs.size(); ++i)
      for (size_t r = 0; r < rows.size(); ++r)
        for (const auto& [tap, column] : runs[i].taps)
          add_tap(w, rows[r] * conv.kernel_w + tap, int64_t(r) * row_size + (column - left) * source.c, pieces[i]);
    return pieces;
  }
  bool serves(const Conv2d& v, bool back, Shape in, Shape out) const {
    return conv == v && backward == back && source.h == in.h && source.w == in.w && outputs.h == out.h && outputs.w == out.w;
  }
  Conv2d conv;
  bool backward;
  Shape source, outputs;
  Axis down, along;
  std::vector<Run> runs;
  int64_t left = INT64_MAX, width = 0, row_size = 0;  // the columns that are seen
  std::vector<Sight> all;
  std::vector<size_t> of_row;  // of outputs: most see all rows of the kernel
};

// Small maps take less time than planning does, so the latest plans are kept.
const Sights& sights_of(const Conv2d& v, bool backward, Shape in, Shape out, const Product& w) {
  constexpr size_t kKept = 32;
  static thread_local std::list<Sights> latest;
  const auto found =
      std::find_if(latest.begin(), latest.end(), [&](const Sights& s) { return s.serves(v, backward, in, out); });
  if (found == latest.end()) {
    if (latest.size() == kKept) latest.pop_back();
    latest.emplace_front(v, backward, in, out, w);
  } else {
    latest.splice(latest.begin(), latest, found);
  }
  return latest.front();
}

// Any other: the windows of a row of outputs overlap in copies of the rows that they see.
template <typename End>
void run_windows(Context& ctx, const Im2colProblem& problem, const Product& w, const End& end) {
  const Shape in = problem.in.shape, out = problem.out.shape;
  const Sights& sights = sights_of(problem.conv, problem.backward != nullptr, in, out, w);
  // Small maps are cut for the threads' sake alone.
  const int64_t a_thread = ceil_div<int64_t>(threads_for(ctx, out.pixels() * w.macs()), out.n);
  const int64_t blocks = std::clamp<int64_t>(std::max(ceil_div(out.h * out.w, kPixels), a_thread), 1, out.h);
  const int64_t together = (out.h + blocks - 1) / blocks, of_image = (out.h + together - 1) / together;
  run_blocks(ctx, problem, w, end, out.n * of_image, together * out.w, together * problem.conv.kernel_h * sights.row_size,
             [&](std::vector<Strip>& block, int64_t i, float* copies) {
    const int64_t n = i / of_image, y0 = i % of_image * together, y1 = std::min(out.h, y0 + together);
    for (int64_t y = y0; y < y1; ++y) {
      const Sight& sight = sights.all[sights.of_row[size_t(y)]];
      for (size_t j = 0; j < sights.runs.size(); ++j)
        block.push_back({copies, sights.along.up * in.c, sights.runs[j].count, (n * out.h + y) * out.w + sights.runs[j].first,
                         sights.along.down, sight.pieces[j]});
      for (const int64_t r : sight.rows) {
        const float* row = problem.in.as<float>() + (n * in.h + sights.down.source(y, r)) * in.w * in.c;
        copy_row(row, in.w, in.c, sights.left, sights.width, copies);
        copies += sights.row_size;
      }
    }
  });
}

// patch[rows][cols] = a[rows][depth] · b[depth][cols], all rows of one output row.
void multiply(int64_t rows, int64_t cols, int64_t depth, const float* a, const float* b, float* c) {
  for (int64_t i = 0; i < rows; i += kTileRows)
    multiply_panel(int(std::min<int64_t>(kTileRows, rows - i)), cols, Rows{a + i * depth, depth, depth}, b, cols,
                   c + i * cols, cols, false);
}

// to[q·step + i] += from[q·stride + i] for i < span: the patches of one row of pixels, each over the end of the last.
// `sums` is scratch for one such row and a vector more.
void add_patches(const float* from, int64_t stride, int64_t span, int64_t pixels, int64_t step,
                 [[maybe_unused]] float* sums, float* to) {
#if defined(__AVX512F__)
  // Unfinished sums wait in a register and finished ones are only stored, each store's surplus under the next one's
  // lanes: a load so soon behind an overlapping store would wait for it.
  if (span <= kLanes && step < span) {
    const ShiftDown shift{int(step)};
    Vec sum = zero();
    for (int64_t q = 0; q < pixels; ++q, from += stride) {
      sum = sum + load_first(from, int(span));
      store(sums + q * step, sum);
      sum = shift(sum);
    }
    const int64_t width = (pixels - 1) * step + span;
    for (int64_t i = 0; i < width; i += kLanes) {
      const int lanes = int(std::min<int64_t>(kLanes, width - i));
      store_first(to + i, load_first(to + i, lanes) + load_first(sums + i, lanes), lanes);
    }
    return;
  }
#endif
  for (int64_t q = 0; q < pixels; ++q, from += stride, to += step) {
    int64_t i = 0;
    for (; i + kLanes <= span; i += kLanes) store(to + i, load(to + i) + load(from + i));
    if (i < span) {
      const int lanes = int(span - i);
      store_first(to + i, load_first(to + i, lanes) + load_first(from + i, lanes), lanes);
    }
  }
}

}  // namespace

void SWITCHBACK_IM2COL_WINDOWS(Context& ctx, const Im2colProblem& problem) {
  const Conv2d& v = problem.conv;
  const Product w{.packed = problem.packed, .groups = v.groups, .taps = v.kernel_h * v.kernel_w,
                  .depth = problem.in.shape.c / v.groups, .columns = problem.out.shape.c / v.groups};
  const auto run = [&](const auto& end) {
    is_pointwise(v) ? run_pointwise(ctx, problem, w, end) : run_windows(ctx, problem, w, end);
  };
  if (problem.forward)
    with_end(*problem.forward, problem.bias, problem.out.shape, run);
  else
    with_end(*problem.backward, problem.out.shape, run);
}

void SWITCHBACK_IM2COL_PATCHES(Context& ctx, const Im2colProblem& problem) {
  const Conv2d& v = problem.conv;
  const Shape dy = problem.in.shape, dx = problem.out.shape;
  const int64_t span = v.kernel_w * v.in_channels, padded = round_up(v.kernel_h * span, 16);
  const int64_t row_blocks = (dx.h + kBackwardRows - 1) / kBackwardRows;
  const int threads = threads_for(ctx, dy.pixels() * padded * dy.c);
  // A row of dx with the columns that only padding sees on both sides.
  const int64_t width = std::max(dx.w + v.pad_left, (dy.w - 1) * v.stride_w + v.kernel_w);
  const int64_t row_size = round_up(width * dx.c, 16);
  // Rows of dy that are multiplied at a time: narrow maps fill a register tile only together.
  const int64_t together = std::clamp<int64_t>(48 / dy.w, 1, dy.h), patch_size = round_up(together * dy.w * padded, 16);
  const int64_t size = patch_size + (kBackwardRows + 1) * row_size + 16;
  float* scratch = static_cast<float*>(ctx.scratch.reserve(size_t(threads * size) * sizeof(float)));
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t item = 0; item < dx.n * row_blocks; ++item) {
    float *patch = scratch + omp_get_thread_num() * size, *rows = patch + patch_size;
    const int64_t n = item / row_blocks, y0 = item % row_blocks * kBackwardRows, y1 = std::min(dx.h, y0 + kBackwardRows);
    std::memset(rows, 0, size_t((y1 - y0) * row_size) * sizeof(float));
    // Output rows p whose window p·stride - pad .. + kernel meets [y0, y1).
    const int64_t first = std::max<int64_t>(0, (y0 + v.pad_top - v.kernel_h + v.stride_h) / v.stride_h);
    const int64_t last = std::min(dy.h, (y1 - 1 + v.pad_top) / v.stride_h + 1);
    for (int64_t p = first; p < last; ++p) {
      if ((p - first) % together == 0)
        multiply(std::min(together, last - p) * dy.w, padded, dy.c,
                 problem.in.as<float>() + (n * dy.h + p) * dy.w * dy.c, problem.packed, patch);
      const float* row_patch = patch + (p - first) % together * dy.w * padded;
      for (int64_t r = 0; r < v.kernel_h; ++r) {
        const int64_t y = p * v.stride_h + r - v.pad_top;
        if (y >= y0 && y < y1)
          add_patches(row_patch + r * span, padded, span, dy.w, v.stride_w * dx.c, rows + kBackwardRows * row_size,
                      rows + (y - y0) * row_size);
      }
    }
    for (int64_t y = y0; y < y1; ++y)
      std::memcpy(problem.out.as<float>() + (n * dx.h + y) * dx.w * dx.c,
                  rows + (y - y0) * row_size + v.pad_left * dx.c, size_t(dx.w * dx.c) * sizeof(float));
  }
  apply_epilogue(ctx, problem.out, *problem.backward, 0, dx.n);
}

}  // namespace switchback
