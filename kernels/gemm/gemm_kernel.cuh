// The kernels behind gemm.cuh: one main loop, two ways to multiply (FMA units, tensor cores), one end.
//
// A block computes a BM x BN tile of out[m, j]. Each step of K brings 64 bytes of each of its BM rows of `in` and BN
// rows of `weight` (16 f32 or 32 half-width elements) into one of `Stages` slots of a ring in shared memory, by
// asynchronous copies that run Stages - 1 steps ahead; there is one barrier a step. Warps own WM x WN pieces of the
// tile. On tensor cores the end takes the sums from registers, eight neighbouring channels of a pixel a lane; else they go
// through the same memory, so that a warp has 32 neighbouring channels of a pixel.
//
//   tile     warps  shared KB  FLOP per byte loaded  registers  blocks an SM (A100 and H100)
//                   f32 | mma  f32 | 16 bit          f32 | mma
//   128x128  4      64 | 64    32 | 64               254 | 237  2
//   128x64   2      36 | 48    21 | 43               254 | 243  3-4
//   64x64    4      24 | 32    16 | 32               106 | 114  4
//   128x32   4      30 | 40    13 | 26               108 | 121  3-4; for few columns
//   16x64    2      15 | 20     6 | 13               106 | 96   8-9; for few rows, where memory is the bound
//
// Shared memory moves 128 bytes a cycle. A step reads (WM + WN)·64 of them a warp and writes (BM + BN)·64: of Hopper's tensor
// rate that leaves 67 % to 128x128 with pieces of 64x64 (it would be 50 % with 64x32), 57 % to 128x64, 33 % to 64x64. For
// f32 the instructions are the bound: a lane of a piece of 64x64 loads 24 times for 512 products, one of 32x64 32 times.
// Registers have no room for a second sum: where one block adds up segments, theirs lies in shared memory, and is touched
// once a segment (128x128: 112 KB, 2 blocks on an H100, 1 on an A100). Instructions in the loops: kernels/hot_loops.txt.
#pragma once

#include "kernels/gemm/gemm.cuh"
#include "kernels/winner.h"

namespace switchback::SB_DEVICE {

// What happens to the sums.
enum class GemmMode : uint8_t { forward, pooled, backward };
template <typename T>
struct GemmEnd {
  GemmMode mode = GemmMode::forward;
  ForwardEnd<T> y = {};          // forward; pooled: of the pooled map, but gates as `pool_before_relu` says
  uint8_t* switches = nullptr;   // pooled: or null
  bool pool_before_relu = false;
  BackwardEnd<T> dx = {};
};

template <typename T>
struct GemmArgs {
  GemmProblem problem;
  GemmEnd<T> end;
  // [segments][phases·groups][tiles] of a block's sums, as its threads have them, where each segment has its own blocks: else
  // null.
  float4* partial = nullptr;
  uint32_t* counters = nullptr;  // [phases·groups][tiles], all 0: segments of a tile that are done
  int column_tiles = 0;
  bool dense = false;  // m is the index of the output pixel
  bool eights = false;  // tensor cores: the end takes sums from registers, eight channels at once
};

// Which kernel runs and how.
struct GemmPlan {
  int tile = 0;         // of kGemmTiles
  bool narrow = false;  // rows not aligned to 16 bytes: copies of 4
  bool split = false;   // each segment has blocks of its own; the last of a tile's adds up their sums
  int ring = 0;         // slots: one of kGemmRings, or 0: as many as the kernel has in every build (gemm_launch.cuh)
};

void launch_gemm_f32(Context&, const Launch&, GemmPlan, const GemmArgs<float>&);
void launch_gemm_tf32(Context&, const Launch&, GemmPlan, const GemmArgs<float>&);
void launch_gemm_bf16(Context&, const Launch&, GemmPlan, const GemmArgs<bf16>&);
void launch_gemm_f16(Context&, const Launch&, GemmPlan, const GemmArgs<f16>&);

// The product that a block works on, of those in blockIdx.z's phases, groups and, when split, segments. Axes are read
// from the arguments where they are needed: registers are short.
struct GemmPart {
  int phase_h, phase_w, group;
  int index, segment;  // index = phase·groups + group
  int m_count, steps;  // of the phase
};

template <typename T>
inline constexpr int kStepElements = kGemmStepBytes / int(sizeof(T));

template <typename T>
__device__ __forceinline__ GemmPart gemm_part(const GemmArgs<T>& a, int z, bool split) {
  const GemmProblem& p = a.problem;
  GemmPart part;
  part.segment = split ? z % p.segments : 0;
  part.index = split ? z / p.segments : z;
  part.group = part.index % p.groups;
  const int phase = part.index / p.groups;
  part.phase_h = phase / p.phases_w;
  part.phase_w = phase % p.phases_w;
  const GemmAxis &rows = p.rows[part.phase_h], &cols = p.cols[part.phase_w];
  part.m_count = p.n * rows.outs * cols.outs;
  part.steps = rows.taps * cols.taps * ((p.depth + kStepElements<T> - 1) / kStepElements<T>);
  return part;
}

// Item and position in its phase of row m.
struct GemmRow {
  int n, i, l;
};
__device__ __forceinline__ GemmRow gemm_row(const GemmProblem& p, const GemmPart& part, int m) {
  const int down = p.rows[part.phase_h].outs >> p.pooled, across = p.cols[part.phase_w].outs >> p.pooled;
  const int unit = p.pooled ? m >> 2 : m;  // a window or a pixel
  const int line = unit / across, l = unit - line * across, n = line / down, i = line - n * down;
  return p.pooled ? GemmRow{n, 2 * i + (m >> 1 & 1), 2 * l + (m & 1)} : GemmRow{n, i, l};
}

// ---- the end -------------------------------------------------------------------------------------------------------
//
// Of FMA units' sums, and of what GemmArgs::eights leaves out (the other end is further down).
// Whole warps finish Rows (a multiple of 4) rows of 32 columns at a time, a column a lane. What they read comes before
// what they write: the compiler cannot know that these are different arrays, and would wait for memory row by row.

template <int Rows, typename T>
__device__ __forceinline__ void finish_forward(const GemmArgs<T>& a, const GemmPart& part, int m, int word,
                                               float (&v)[Rows]) {
  finish_pixels(a.end.y, m, min(part.m_count - m, Rows), word, v);
}

// Four places of a 2x2 window, row-major: gates of its pixels, then the winner, its switch and the pooled value.
template <typename T>
__device__ __forceinline__ void finish_window(const GemmArgs<T>& a, const GemmPart& part, int m, int word,
                                              const float* v) {
  const GemmEnd<T>& end = a.end;
  const ForwardEnd<T>& y = end.y;
  const int channel = 32 * word + int(threadIdx.x & 31);
  const bool live = channel < y.channels;
  const float bias = live && y.bias ? y.bias[channel] : 0.f;
  const GemmRow row = gemm_row(a.problem, part, m);
  const int64_t corner = (int64_t(row.n) * a.problem.out_h + row.i) * a.problem.out_w + row.l;
  Winner winner;
#pragma unroll
  for (int place = 0; place < 4; ++place) {
    const float s = v[place] + bias;
    if (y.gates && !end.pool_before_relu)
      write_gates(y, corner + (place >> 1) * a.problem.out_w + (place & 1), word, live, s);
    winner.meet(to_float(from_float<T>(end.pool_before_relu ? s : y.act(s))), place);
  }
  const int64_t pooled = m >> 2;  // index of the pooled pixel
  if (live && end.switches) end.switches[pooled * y.channels + channel] = uint8_t(winner.place);
  ForwardEnd<T> pixel = y;
  pixel.bias = nullptr;
  pixel.relu = y.relu && end.pool_before_relu;
  if (!end.pool_before_relu) pixel.gates = nullptr;
  finish(pixel, pooled, word, winner.best);
}

// Pixel of dx that row m writes, and the pixel whose gates it takes.
struct GemmTarget {
  int pixel, gate_pixel;
};
template <typename T>
__device__ __forceinline__ GemmTarget gemm_target(const GemmArgs<T>& a, const GemmPart& part, int m, int column) {
  const GemmProblem& p = a.problem;
  const BackwardEnd<T>& dx = a.end.dx;
  if (a.dense && !p.whole_map && dx.seeds_per_item == 1) return {m, m};
  GemmRow row{m, 0, 0};
  int place = column / dx.channels;
  if (!p.whole_map) {
    const GemmAxis &rows = p.rows[part.phase_h], &cols = p.cols[part.phase_w];
    row = gemm_row(p, part, m);
    place = (rows.off + row.i * rows.mul) * p.out_w + cols.off + row.l * cols.mul;
  }
  return {row.n * dx.places + place, row.n / dx.seeds_per_item * dx.places + place};
}

template <int Rows, typename T>
__device__ __forceinline__ void finish_backward(const GemmArgs<T>& a, const GemmPart& part, int m, int column,
                                                float (&v)[Rows]) {
  const BackwardEnd<T>& dx = a.end.dx;
  const int rows = min(part.m_count - m, Rows);
  const int channel = a.problem.whole_map ? column % dx.channels : part.group * a.problem.columns + column;
  const bool gated = dx.relu && dx.rule.gate_forward;
  int pixel[Rows];
  float other[Rows];
  uint32_t gates[Rows];
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    if (i >= rows) break;
    const GemmTarget target = gemm_target(a, part, m + i, column);
    pixel[i] = target.pixel;
    if (dx.other) other[i] = to_float(dx.other[int64_t(target.pixel) * dx.channels + channel]);
    if (gated) gates[i] = dx.gates[int64_t(target.gate_pixel) * dx.words + channel / 32];
  }
#pragma unroll
  for (int i = 0; i < Rows; ++i) {
    if (i >= rows) break;
    if (dx.other) v[i] += other[i];
    if (dx.relu) v[i] = apply(dx.rule, !gated || (gates[i] >> (channel & 31) & 1u), v[i]);
    dx.dx[int64_t(pixel[i]) * dx.channels + channel] = from_float<T>(v[i]);
  }
}

// This lane has the sums of rows m, m + 1, … (m a multiple of 4) and column j + lane (j of 32).
template <int Rows, typename T>
__device__ __forceinline__ void finish_rows(const GemmArgs<T>& a, const GemmPart& part, int m, int j,
                                            float (&v)[Rows]) {
  const int column = j + int(threadIdx.x & 31), word = (part.group * a.problem.columns + j) / 32;
  if (a.end.mode == GemmMode::forward) {
    finish_forward(a, part, m, word, v);
  } else if (a.end.mode == GemmMode::pooled) {
#pragma unroll
    for (int i = 0; i < Rows; i += 4)
      if (m + i < part.m_count) finish_window(a, part, m + i, word, v + i);
  } else if (column < a.problem.columns) {
    finish_backward(a, part, m, column, v);
  }
}

__device__ __forceinline__ int segments_of(const GemmProblem& p, const GemmPart& part) {  // at least one, if empty
  return part.steps > p.segment_steps ? (part.steps + p.segment_steps - 1) / p.segment_steps : 1;
}

// Called by the whole block when its partial sums are written: whether it is the last of the tile's segments to come
// here, and so sees the sums of all. Leaves the counter at 0 for the next launch.
template <typename T>
__device__ __forceinline__ bool last_segment(const GemmArgs<T>& a, const GemmPart& part) {
  const Shared<uint32_t> ticket(0, 1);
  __syncthreads();  // everybody's sums are written, and the memory of the tile is free
  if (threadIdx.x == 0) {
    __threadfence();  // one for all: fences are cumulative over the barrier
    uint32_t* counter = a.counters + int64_t(part.index) * gridDim.x + blockIdx.x;
    const uint32_t before = atomicAdd(counter, 1u);
    ticket[0] = before;
    if (before + 1 == uint32_t(segments_of(a.problem, part))) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return ticket[0] + 1 == uint32_t(segments_of(a.problem, part));
}

// ---- loading -------------------------------------------------------------------------------------------------------

// Where the 16-byte chunk `chunk` of a staged row lies, in elements. Rows are 64 bytes; the swizzle puts one chunk of
// eight neighbouring rows into eight different groups of four banks, for ldmatrix and for float4 loads. A thread
// computes it once, since
//   staged(row + 8·n, chunk) = staged(row, chunk) + behind(8·n)
//   staged(row, chunk ^ c)   = staged(row, chunk) ^ flip(c)
// The compiler cannot see that: it does not know that slots and warps' pieces begin at multiples of 8 rows.
template <typename T>
__device__ __forceinline__ int staged(int row, int chunk) {
  return row * kStepElements<T> + (chunk ^ (row >> 1 & 3)) * (16 / int(sizeof(T)));
}
// Rows of `weight` for tensor cores (`row` of theirs): ldmatrix takes rows 0, 1, 8, 9, 16, 17, 24 and 25 together there, and
// behind 8·n rows the chunk is another, staged(row, chunk ^ n).
template <typename T>
__device__ __forceinline__ int staged_dealt(int row, int chunk) {
  return row * kStepElements<T> + (chunk ^ (row >> 3 & 3)) * (16 / int(sizeof(T)));
}
template <typename T>
__device__ __forceinline__ int behind(int rows) {
  return rows * kStepElements<T>;
}
template <typename T>
__device__ __forceinline__ int flip(int chunks) {
  return chunks * (16 / int(sizeof(T)));
}

// A block tile, and the warps' pieces of it.
template <int BlockM, int BlockN, int WarpM, int WarpN>
struct GemmTile {
  static constexpr int BM = BlockM, BN = BlockN, WM = WarpM, WN = WarpN;
  static constexpr int kWarpsN = BN / WN, kThreads = BM / WM * kWarpsN * 32;
};

// Which of the rows m, four to a window, lies in row `row` of a tile where a lane shall have whole windows: of each 32 it has
// rows g, g + 8, g + 16 and g + 24 (finish_windows_dealt).
__device__ __forceinline__ int row_of_window(int row) { return (row & ~31) | (row & 7) << 2 | (row >> 3 & 3); }

// A thread's share of the copies: the same piece of some rows of both operands, step after step. Offsets into the
// operands are 32 bits and count copies (of Bytes), not elements.
template <typename T, class Tile, int Bytes, bool Dealt>
class GemmLoader {
  static constexpr int kCopies = kGemmStepBytes / Bytes;    // of a row in one step
  static constexpr int kStride = Tile::kThreads / kCopies;  // between this thread's rows
  static constexpr int kIn = Tile::BM / kStride, kWeight = Tile::BN / kStride;
  static constexpr int kElements = Bytes / int(sizeof(T));  // of a copy
  static_assert(kIn * kStride == Tile::BM && kWeight * kStride == Tile::BN && kIn + kWeight <= 32);

 public:
  __device__ __forceinline__ GemmLoader(const GemmProblem& p, const GemmPart& part, int m0, int j0, int step, bool windows)
      : p_(p), part_(part), depth_(p.depth / kElements) {
    const int row = int(threadIdx.x) / kCopies, own = int(threadIdx.x) % kCopies;
    const int step_h = p.rows[part.phase_h].step, step_w = p.cols[part.phase_w].step;
#pragma unroll
    for (int r = 0; r < kIn; ++r) {
      const int m = windows ? row_of_window(m0 + row + r * kStride) : m0 + row + r * kStride;
      const GemmRow at = m < part.m_count ? gemm_row(p, part, m) : GemmRow{0, 0, 0};
      h_[r] = m < part.m_count ? at.i * step_h : -(1 << 30);  // no tap reaches the input from there
      w_[r] = at.l * step_w;
      const unsigned pixel = unsigned(at.n * p.in_h + at.i * step_h) * unsigned(p.in_w) + unsigned(w_[r]);
      in_[r] = pixel * unsigned(p.groups * depth_) + unsigned(part.group * depth_ + own);
    }
    there_ = 0;
    const unsigned pitch = unsigned(p.kernel_h * p.kernel_w * depth_);
#pragma unroll
    for (int r = 0; r < kWeight; ++r) {
      const bool there = j0 + row + r * kStride < p.columns;
      weight_[r] = there ? unsigned(part.group * p.columns + j0 + row + r * kStride) * pitch + unsigned(own) : 0u;
      if (there) there_ |= 1u << (kIn + r);
    }
    const int chunks = (depth_ + kCopies - 1) / kCopies, tap = step / chunks;
    c_ = (step - tap * chunks) * kCopies;
    const int taps_w = p.cols[part.phase_w].taps;
    tap_ = part.steps > 0 ? (tap / taps_w) << 16 | tap % taps_w : 0;
    enter_tap();
  }

  // Issues the copies of one step into the slot that begins at row `slot` of the ring, and moves on.
  __device__ __forceinline__ void load(Shared<T> ring, int slot) {
    const bool inside = c_ + int(threadIdx.x) % kCopies < depth_;
    const unsigned there = inside ? there_ : 0u, c = inside ? unsigned(c_) : 0u;
#pragma unroll
    for (int r = 0; r < kIn; ++r)
      copy(ring, place(r * kStride) + behind<T>(slot), p_.in, in_[r] + unsigned(in_offset_) + c, there & 1u << r);
#pragma unroll
    for (int r = 0; r < kWeight; ++r)
      copy(ring, (Dealt ? dealt_place(r * kStride) : place(r * kStride)) + behind<T>(slot + Tile::BM), p_.weight,
           weight_[r] + unsigned(weight_offset_) + c, there & 1u << (kIn + r));
    c_ += kCopies;
    if (c_ >= depth_) next_tap();
  }

 private:
  // Where this thread's piece of the row `rows` behind its first one lies.
  __device__ __forceinline__ int place(int rows) const {
    const int own_row = int(threadIdx.x) / kCopies, chunk = int(threadIdx.x) % kCopies * Bytes / 16;
    return kStride % 8 == 0 ? staged<T>(own_row, chunk) + behind<T>(rows) : staged<T>(own_row + rows, chunk);
  }
  __device__ __forceinline__ int dealt_place(int rows) const {
    const int own_row = int(threadIdx.x) / kCopies, chunk = int(threadIdx.x) % kCopies * Bytes / 16;
    return kStride % 8 == 0 ? (staged_dealt<T>(own_row, chunk) ^ flip<T>(rows >> 3 & 3)) + behind<T>(rows)
                            : staged_dealt<T>(own_row + rows, chunk);
  }
  __device__ __forceinline__ void copy(Shared<T> ring, int at, const void* from, unsigned offset, uint32_t valid) {
    const int byte = int(threadIdx.x) % kCopies * Bytes;
    cp_async<Bytes>(ring, at + byte % 16 / int(sizeof(T)),
                    static_cast<const char*>(from) + uint64_t(offset) * Bytes, valid);
  }
  __device__ __forceinline__ void next_tap() {
    c_ = 0;
    if ((++tap_ & 0xffff) == p_.cols[part_.phase_w].taps) tap_ = ((tap_ >> 16) + 1) << 16;
    enter_tap();
  }
  __device__ __forceinline__ void enter_tap() {
    const GemmAxis &rows = p_.rows[part_.phase_h], &cols = p_.cols[part_.phase_w];
    const int tap_h = tap_ >> 16, tap_w = tap_ & 0xffff;
    const int dh = rows.base + tap_h * rows.spacing, dw = cols.base + tap_w * cols.spacing;
    there_ &= ~((1u << kIn) - 1);
#pragma unroll
    for (int r = 0; r < kIn; ++r)
      if (unsigned(h_[r] + dh) < unsigned(p_.in_h) && unsigned(w_[r] + dw) < unsigned(p_.in_w)) there_ |= 1u << r;
    in_offset_ = (dh * p_.in_w + dw) * p_.groups * depth_;
    const int tap = (rows.first + tap_h * rows.skip) * p_.kernel_w + cols.first + tap_w * cols.skip;
    weight_offset_ = tap * depth_;
  }

  const GemmProblem& p_;
  const GemmPart& part_;
  const int depth_;  // copies that a pixel of a group takes
  // Few registers are left beside the sums, so that some of these share one.
  int c_, tap_;          // of the next step; taps down in the upper half, across in the lower one
  int h_[kIn], w_[kIn];  // where tap offset 0 is
  unsigned in_[kIn];     // offset of pixel (h_, w_), outside the input or not
  unsigned there_;       // bit r: the pixel of row r and this tap lies in the input; bit kIn + r: weight row r exists
  int in_offset_, weight_offset_;
  unsigned weight_[kWeight];  // offset of the row; 0 where there is none
};

// ---- multiplying ---------------------------------------------------------------------------------------------------

// Where sum (row, col) of a warp's piece lies in shared memory on its way to the end: blocks of 32 columns, row by row,
// swizzled so that neither way of dealing out sums to lanes meets bank conflicts, nor does a lane a column.
template <class Piece>
__device__ __forceinline__ int sum_at(int row, int col) {
  return (col / 32 * Piece::Block::WM + row) * 32 + (col % 32 ^ row % 4 * (Piece::kDealt ? 2 : 8));
}

// f32 FMA: lanes lie 4 x 8 over the warp's piece; a lane has rows ly + 4i and columns lx + 8j.
template <class Tile>
struct FmaPiece {
  using Element = float;
  using Block = Tile;
  static constexpr bool kDealt = false;
  static constexpr int kRows = Tile::WM / 4, kCols = Tile::WN / 8;
  float sum[kRows][kCols];

  // One step of K. Every sum takes its products one after the other, whatever the tile.
  __device__ __forceinline__ void multiply(Shared<float> ring, int in_row, int weight_row) {
    const int lane = threadIdx.x & 31, ly = lane / 8, lx = lane % 8;
    const int b0 = behind<float>(weight_row) + staged<float>(lx, 0), a0 = behind<float>(in_row) + staged<float>(ly, 0);
#pragma unroll 1  // more in flight would cost the registers of a second block
    for (int chunk = 0; chunk < 4; ++chunk) {
      float4 b[kCols];
#pragma unroll
      for (int j = 0; j < kCols; ++j)
        b[j] = ring.template load<float4>((b0 ^ flip<float>(chunk)) + behind<float>(8 * j));
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int own = a0 ^ flip<float>(chunk ^ i % 2 * 2);  // four rows on the swizzle is another
        const float4 a = ring.template load<float4>(own + behind<float>(4 * i));
#pragma unroll
        for (int j = 0; j < kCols; ++j)
          sum[i][j] = fmaf(a.w, b[j].w, fmaf(a.z, b[j].z, fmaf(a.y, b[j].y, fmaf(a.x, b[j].x, sum[i][j]))));
      }
    }
  }
  // Every four sums of a row of the piece that this lane has: body(which of the fours, row, the sums).
  template <typename F>
  __device__ __forceinline__ void fours(const F& body) {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kCols; j += 4)
        body((i * kCols + j) / 4, int(threadIdx.x & 31) / 8 + 4 * i, sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]);
  }
  __device__ __forceinline__ void write(Shared<float> sums, int at) const {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kCols; ++j) sums[at + sum_at<FmaPiece>(lane / 8 + 4 * i, lane % 8 + 8 * j)] = sum[i][j];
  }
};

// Tensor cores, T = bf16 or f16, or float multiplied as TF32: one instruction takes 32 bytes of K of 16 rows of `in`
// and 8 of `weight`; ldmatrix deals out 16-byte chunks as the instruction wants them, whatever the element. Which columns an
// instruction takes is ours to choose: so that of each 32 a quad's lane t gets columns 8t … 8t + 7 in four of them, which the
// end then writes at once (column_of).
template <typename T, class Tile>
struct MmaPiece {
  using Element = T;
  using Block = Tile;
  static constexpr bool kDealt = true;
  static constexpr int kRows = Tile::WM / 16, kCols = Tile::WN / 8;
  float sum[kRows][kCols][4];

  __device__ __forceinline__ void multiply(Shared<T> ring, int in_row, int weight_row) {
    const int lane = threadIdx.x & 31;
    const int b0 = behind<T>(weight_row) + staged_dealt<T>(lane % 8 / 2 * 8 + lane % 2 + lane / 16 * 2, lane / 8 % 2);
    const int a0 = behind<T>(in_row) + staged<T>(lane % 16, lane / 16);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t b[kCols][2];
#pragma unroll
      for (int j = 0; j < kCols; j += 2) {
        uint32_t r[4];
        ldmatrix_x4(r, ring, (b0 ^ flip<T>(2 * half)) + behind<T>(j / 4 * 32 + j % 4 * 2));
        for (int k = 0; k < 4; ++k) b[j + k / 2][k % 2] = r[k];
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        uint32_t a[4];
        ldmatrix_x4(a, ring, (a0 ^ flip<T>(2 * half)) + behind<T>(16 * i));
        if constexpr (std::is_same_v<T, float>)  // the weights are rounded already (GemmProblem)
          for (int k = 0; k < 4; ++k) a[k] = to_tf32(__uint_as_float(a[k]));
#pragma unroll
        for (int j = 0; j < kCols; ++j) {
          if constexpr (std::is_same_v<T, float>)
            mma_m16n8k8_tf32(sum[i][j], a, b[j]);
          else
            mma_m16n8k16<T>(sum[i][j], a, b[j]);
        }
      }
    }
  }
  template <typename F>
  __device__ __forceinline__ void fours(const F& body) {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kCols; j += 2)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          body(i * kCols + j + half, 16 * i + 8 * half + int(threadIdx.x & 31) / 4, sum[i][j][2 * half],
               sum[i][j][2 * half + 1], sum[i][j + 1][2 * half], sum[i][j + 1][2 * half + 1]);
  }
  __device__ __forceinline__ void write(Shared<float> sums, int at) const {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kCols; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          sums.template store<float2>(at + sum_at<MmaPiece>(16 * i + 8 * half + lane / 4, column_of(j, lane % 4)),
                                      float2{sum[i][j][2 * half], sum[i][j][2 * half + 1]});
  }
  // Of the piece: the first of the two columns that product j has for a quad's lane t.
  static __device__ __forceinline__ int column_of(int j, int t) { return j / 4 * 32 + 8 * t + j % 4 * 2; }
  // This lane's eight columns from 32·word + 8·(lane % 4) on, of row 16·i + 8·half + lane / 4.
  __device__ __forceinline__ void take(float (&v)[8], int i, int half, int word) const {
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = sum[i][4 * word + k / 2][2 * half + k % 2];
  }
};

template <class Piece>
__device__ __forceinline__ void clear(Piece& piece) {
  float* s = reinterpret_cast<float*>(piece.sum);
#pragma unroll
  for (int i = 0; i < int(sizeof(piece.sum) / sizeof(float)); ++i) s[i] = 0.f;
}
// The sum of segments lies in shared memory behind the ring, so that registers hold one sum only. `first`: of the tile.
template <class Piece>
__device__ __forceinline__ void add_segment(Shared<float> totals, const Piece& piece, bool first) {
  const float* s = reinterpret_cast<const float*>(piece.sum);
#pragma unroll
  for (int i = 0; i < int(sizeof(piece.sum) / sizeof(float)); ++i) {
    const int at = i * Piece::Block::kThreads + int(threadIdx.x);
    totals[at] = (first ? 0.f : totals[at]) + s[i];
  }
}
template <class Piece>
__device__ __forceinline__ void take_totals(Piece& piece, Shared<float> totals) {
  float* s = reinterpret_cast<float*>(piece.sum);
#pragma unroll
  for (int i = 0; i < int(sizeof(piece.sum) / sizeof(float)); ++i)
    s[i] = totals[i * Piece::Block::kThreads + int(threadIdx.x)];
}

// ---- the end of sums in registers ----------------------------------------------------------------------------------
//
// Straight from where tensor cores leave them: a lane finishes eight neighbouring channels of a pixel. GemmArgs::eights says
// where; else sums go through shared memory.

template <class Piece, typename T>
__device__ __forceinline__ void finish_backward_dealt(const GemmArgs<T>& a, const GemmPart& part, int m, int j,
                                                      const Piece& piece) {
  constexpr int kWords = Piece::kCols / 4;
  const BackwardEnd<T>& dx = a.end.dx;
  const int g = int(threadIdx.x & 31) / 4, t = int(threadIdx.x & 3), column = j + 8 * t;
  const int channel = part.group * a.problem.columns + column;
  const bool gated = dx.relu && dx.rule.gate_forward;
#pragma unroll
  for (int i = 0; i < Piece::kRows; ++i) {
    GemmTarget at[2];
    uint32_t gates[2][kWords];
    float other[2][kWords][8];
    const auto each = [&](const auto& body) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int word = 0; word < kWords; ++word)
          if (m + 16 * i + 8 * half + g < part.m_count && column + 32 * word < a.problem.columns) body(half, word);
    };
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (const int row = m + 16 * i + 8 * half + g; row < part.m_count) at[half] = gemm_target(a, part, row, column);
    each([&](int half, int word) {
      if (gated) gates[half][word] = gates_of_eight(dx, at[half].gate_pixel, channel + 32 * word);
      if (dx.other) load_eight(other[half][word], dx.other + int64_t(at[half].pixel) * dx.channels, channel + 32 * word);
    });
    each([&](int half, int word) {
      float v[8];
      piece.take(v, i, half, word);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        if (dx.other) v[k] += other[half][word][k];
        if (dx.relu) v[k] = apply(dx.rule, !gated || (gates[half][word] >> k & 1u), v[k]);
      }
      store_eight(dx.dx + int64_t(at[half].pixel) * dx.channels, channel + 32 * word, v);
    });
  }
}

template <class Piece, typename T>
__device__ __forceinline__ void finish_forward_dealt(const GemmArgs<T>& a, const GemmPart& part, int m, int j,
                                                     const Piece& piece) {
  const int g = int(threadIdx.x & 31) / 4, t = int(threadIdx.x & 3);
#pragma unroll
  for (int word = 0; word < Piece::kCols / 4; ++word) {
    if (j + 32 * word >= a.problem.columns) return;
    const int channel = part.group * a.problem.columns + j + 32 * word + 8 * t;
    float bias[8];
    load_bias(a.end.y, channel, bias);
#pragma unroll
    for (int i = 0; i < Piece::kRows; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = m + 16 * i + 8 * half + g;
        if (row >= part.m_count) continue;
        float v[8];
        piece.take(v, i, half, word);
        finish_eight(a.end.y, true, row, channel, bias, v);
      }
  }
}

// A lane's window: rows g, g + 8, g + 16, g + 24 of 32, by row_of_window places 0 to 3 of window g.
template <class Piece, typename T>
__device__ __forceinline__ void finish_windows_dealt(const GemmArgs<T>& a, const GemmPart& part, int m, int j,
                                                     const Piece& piece) {
  const int g = int(threadIdx.x & 31) / 4, t = int(threadIdx.x & 3);
  const GemmEnd<T>& end = a.end;
  const ForwardEnd<T>& y = end.y;
  ForwardEnd<T> pixel = y;  // what is left for the pooled map, as in finish_window
  pixel.bias = nullptr;
  pixel.relu = y.relu && end.pool_before_relu;
  if (!end.pool_before_relu) pixel.gates = nullptr;
  ForwardEnd<T> met_as = y;
  met_as.relu = y.relu && !end.pool_before_relu;
  const float none[8] = {-0.f, -0.f, -0.f, -0.f, -0.f, -0.f, -0.f, -0.f};
#pragma unroll
  for (int word = 0; word < Piece::kCols / 4; ++word) {
    if (j + 32 * word >= a.problem.columns) return;
    const int channel = part.group * a.problem.columns + j + 32 * word + 8 * t;
    float bias[8];
    load_bias(y, channel, bias);
#pragma unroll
    for (int i = 0; i + 1 < Piece::kRows; i += 2) {
      const int first = m + 16 * i + 4 * g;
      if (first >= part.m_count || channel >= 32 * y.words) continue;
      const GemmRow row = gemm_row(a.problem, part, first);
      const int64_t corner = (int64_t(row.n) * a.problem.out_h + row.i) * a.problem.out_w + row.l;
      Winner winner[8];
#pragma unroll
      for (int place = 0; place < 4; ++place) {
        float v[8];
        piece.take(v, i + place / 2, place % 2, word);
        float met[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) v[k] += bias[k];
        act_eight(met_as, v, met);
#pragma unroll
        for (int k = 0; k < 8; ++k) winner[k].meet(to_float(from_float<T>(met[k])), place);
        if (y.gates && !end.pool_before_relu)
          write_gates_of_eight(y, corner + (place >> 1) * a.problem.out_w + (place & 1), channel, v);
      }
      const int64_t pooled = first >> 2;
      if (end.switches && channel < y.channels) {
        uint32_t places[2] = {0, 0};
#pragma unroll
        for (int k = 0; k < 8; ++k) places[k / 4] |= uint32_t(winner[k].place) << 8 * (k % 4);
        store_as(end.switches + pooled * y.channels + channel, uint2{places[0], places[1]});
      }
      float best[8];
#pragma unroll
      for (int k = 0; k < 8; ++k) best[k] = winner[k].best;
      finish_eight(pixel, true, pooled, channel, none, best);
    }
  }
}

// ---- sums of several blocks ----------------------------------------------------------------------------------------
//
// A segment's block leaves its sums as its threads have them; the last one of a tile takes them all up the same way.

// This thread's first four of a segment's sums of the block's tile; fours follow each other Tile::kThreads apart.
template <class Tile, typename T>
__device__ __forceinline__ float4* partials(const GemmArgs<T>& a, const GemmPart& part, int segment) {
  const int parts = int(gridDim.z) / a.problem.segments;
  const int64_t tile = (int64_t(segment) * parts + part.index) * gridDim.x + blockIdx.x;
  return a.partial + tile * (Tile::BM * Tile::BN / 4) + threadIdx.x;
}

// `m`: of the piece's first row. Rows that do not exist are left out; windows have their rows in another order, and no tail.
template <class Piece, typename T>
__device__ __forceinline__ void keep_partial(const GemmArgs<T>& a, const GemmPart& part, int m, Piece& piece) {
  using Tile = typename Piece::Block;
  float4* to = partials<Tile>(a, part, part.segment);
  piece.fours([&](int i, int row, float s0, float s1, float s2, float s3) {
    if (a.problem.pooled || m + row < part.m_count) store_as(to + i * Tile::kThreads, float4{s0, s1, s2, s3});
  });
}
// Of all segments, in their order.
template <class Piece, typename T>
__device__ __forceinline__ void add_partials(const GemmArgs<T>& a, const GemmPart& part, int m, Piece& piece) {
  using Tile = typename Piece::Block;
  clear(piece);
  const int segments = segments_of(a.problem, part);
  for (int s = 0; s < segments; ++s) {
    const float4* from = partials<Tile>(a, part, s);
    piece.fours([&](int i, int row, float& s0, float& s1, float& s2, float& s3) {
      if (!a.problem.pooled && m + row >= part.m_count) return;
      const float4 v = load_shared_by_blocks(from + i * Tile::kThreads);
      s0 += v.x, s1 += v.y, s2 += v.z, s3 += v.w;
    });
  }
}

// ---- the kernel ----------------------------------------------------------------------------------------------------

template <class Tile, int Stages>
constexpr int gemm_ring_bytes() { return Stages * (Tile::BM + Tile::BN) * kGemmStepBytes; }
template <class Tile, int Stages, bool Segmented>
constexpr int gemm_shared_bytes() {
  const int ring = gemm_ring_bytes<Tile, Stages>(), sums = Tile::BM * Tile::BN * int(sizeof(float));
  return Segmented ? ring + sums : ring > sums ? ring : sums;
}

// Blocks per multiprocessor that the compiler shall leave registers for; sums and the loader's rows are what takes
// them.
template <class Tile, int Bytes, class Piece>
constexpr int gemm_blocks() {
  constexpr int sums = int(sizeof(Piece::sum) / sizeof(float));
  constexpr int rows = (Tile::BM + Tile::BN) * (kGemmStepBytes / Bytes) / Tile::kThreads;
  return 65536 / Tile::kThreads / (sums > 64 ? 255 : sums + 4 * rows > 80 ? 168 : 128);
}

// Adds steps [first, first + count) of K to `piece`.
template <class Tile, int Stages, int Bytes, bool Segmented, class Piece, typename T>
__device__ __forceinline__ void multiply_steps(const GemmProblem& p, const GemmPart& part, int m0, int j0, int first,
                                               int count, bool windows, Piece& piece) {
  constexpr int kSlot = Tile::BM + Tile::BN;
  const Shared<T> ring(0, Stages * kSlot * kStepElements<T>);
  const int warp = int(threadIdx.x) / 32;
  const int in_row = warp / Tile::kWarpsN * Tile::WM, weight_row = Tile::BM + warp % Tile::kWarpsN * Tile::WN;
  GemmLoader<T, Tile, Bytes, Piece::kDealt> loader(p, part, m0, j0, first, Piece::kDealt && windows);
  for (int s = 0; s < Stages - 1; ++s) {
    if (s < count) loader.load(ring, s * kSlot);
    cp_async_commit();
  }
  const Shared<float> totals(gemm_ring_bytes<Tile, Stages>(), Segmented ? Tile::BM * Tile::BN : 0);
  bool first_segment = true;
  int left = p.segment_steps, slot = 0, free = Stages - 1;
  for (int step = 0; step < count; ++step) {
    cp_async_wait<Stages - 2>();
    __syncthreads();  // this step has come, and nobody reads the slot of the step before any more
    if (step + Stages - 1 < count) loader.load(ring, free * kSlot);
    cp_async_commit();
    piece.multiply(ring, slot * kSlot + in_row, slot * kSlot + weight_row);
    free = slot;
    slot = slot + 1 == Stages ? 0 : slot + 1;
    if constexpr (Segmented) {
      if (--left == 0) {
        add_segment(totals, piece, first_segment);
        first_segment = false;
        clear(piece);
        left = p.segment_steps;
      }
    }
  }
  if constexpr (Segmented) {
    if (left < p.segment_steps) add_segment(totals, piece, first_segment);
    if (count > 0) take_totals(piece, totals);
  }
}

// Grid: x row tile · column_tiles + column tile, so that neighbours share rows of `in`; z see gemm_part. `Segmented`:
// one block adds up all segments, in their order.
template <class Tile, int Stages, int Bytes, bool Segmented, class Piece>
__global__ void __launch_bounds__(Tile::kThreads, (gemm_blocks<Tile, Bytes, Piece>()))
    gemm_kernel(const GemmArgs<typename Piece::Element> args) {
  using T = typename Piece::Element;
  const GemmProblem& p = args.problem;
  const bool split = !Segmented && args.partial != nullptr;
  const GemmPart part = gemm_part(args, int(blockIdx.z), split);
  const int m0 = int(blockIdx.x) / args.column_tiles * Tile::BM, j0 = int(blockIdx.x) % args.column_tiles * Tile::BN;
  const int first = part.segment * p.segment_steps;
  if (m0 >= part.m_count || (first > 0 && first >= part.steps)) return;
  const int left = part.steps - first, count = split && left > p.segment_steps ? p.segment_steps : left;

  Piece piece;
  clear(piece);
  multiply_steps<Tile, Stages, Bytes, Segmented, Piece, T>(p, part, m0, j0, first, count, p.pooled && args.eights, piece);
  constexpr int kPiece = Tile::WM * Tile::WN, kAtOnce = 8;
  const int warp = int(threadIdx.x) / 32, lane = threadIdx.x & 31;
  const int m = m0 + warp / Tile::kWarpsN * Tile::WM, j = j0 + warp % Tile::kWarpsN * Tile::WN;
  if (split) {
    keep_partial(args, part, m, piece);
    if (!last_segment(args, part)) return;
    add_partials(args, part, m, piece);
  }
  if constexpr (Piece::kDealt) {
    if (args.eights) {
      if (args.end.mode == GemmMode::forward)
        finish_forward_dealt(args, part, m, j, piece);
      else if (args.end.mode == GemmMode::pooled)
        finish_windows_dealt(args, part, m, j, piece);
      else
        finish_backward_dealt(args, part, m, j, piece);
      return;
    }
  }

  __syncthreads();  // the ring's memory now takes the sums
  const Shared<float> sums(0, Tile::BM * Tile::BN);
  piece.write(sums, warp * kPiece);
  __syncwarp();
  const auto each = [&](const auto& body) {  // groups of rows x 32 columns of the warp's piece
    for (int col = 0; col < Tile::WN && j + col < p.columns; col += 32)
      for (int row = 0; row < Tile::WM && m + row < part.m_count; row += kAtOnce) body(row, col);
  };
  const auto read = [&](int row, int col, float (&v)[kAtOnce]) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) v[i] = sums[warp * kPiece + sum_at<Piece>(row + i, col + lane)];
  };
  each([&](int row, int col) {
    float v[kAtOnce];
    read(row, col, v);
    finish_rows(args, part, m + row, j + col, v);
  });
}

}  // namespace switchback::SB_DEVICE
