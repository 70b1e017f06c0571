#include "kernels/emulator/warp.h"

#include <bit>

#include <fmt/format.h>

#include <type_traits>

namespace switchback::emulator {
namespace {

template <typename T>
T& operand_of(Warp& warp, uint32_t lane) {
  return *static_cast<T*>(warp.waiting[lane].operand);
}

template <typename F>
void for_lanes(uint32_t mask, const F& f) {
  for (; mask; mask &= mask - 1) f(uint32_t(std::countr_zero(mask)));
}

// ---- shuffles ----

struct ShuffleLane {
  uint64_t value;
  uint32_t source;
  uint64_t result;
};

void combine_shuffle(Warp& warp, uint32_t mask) {
  for_lanes(mask, [&](uint32_t lane) {
    auto& mine = operand_of<ShuffleLane>(warp, lane);
    if (!(mask >> mine.source & 1))
      fault(fmt::format("divergent warp operation: {}: lane {} reads lane {}, which is not in the mask {:#x}",
                        warp.waiting[lane].op->name, lane, mine.source, mask));
    mine.result = operand_of<ShuffleLane>(warp, mine.source).value;
  });
}

constexpr WarpOp kShuffles[] = {{"__shfl_sync", combine_shuffle},
                                {"__shfl_xor_sync", combine_shuffle},
                                {"__shfl_down_sync", combine_shuffle},
                                {"__shfl_up_sync", combine_shuffle}};

// The lane that `lane` reads; groups of `width` lanes shuffle among themselves.
uint32_t shuffle_source(Shuffle kind, int lane, int operand, int width) {
  const int first = lane & ~(width - 1), end = first + width;
  switch (kind) {
    case Shuffle::index: return uint32_t(first | (operand & (width - 1)));
    case Shuffle::exclusive_or: return uint32_t((lane ^ operand) < end ? (lane ^ operand) & 31 : lane);
    case Shuffle::down: return uint32_t(lane + operand < end ? lane + operand : lane);
    case Shuffle::up: return uint32_t(lane - operand >= first ? lane - operand : lane);
  }
  return uint32_t(lane);
}

// ---- votes ----

struct VoteLane {
  bool predicate;
  uint32_t result;
};

void combine_ballot(Warp& warp, uint32_t mask) {
  uint32_t ballot = 0;
  for_lanes(mask, [&](uint32_t lane) { ballot |= uint32_t(operand_of<VoteLane>(warp, lane).predicate) << lane; });
  for_lanes(mask, [&](uint32_t lane) { operand_of<VoteLane>(warp, lane).result = ballot; });
}

constexpr WarpOp kVotes[] = {
    {"__ballot_sync", combine_ballot}, {"__any_sync", combine_ballot}, {"__all_sync", combine_ballot}};

// ---- matrices ----

struct MatrixLane {
  uint32_t row[4];  // the 16 bytes that this lane points at
  uint32_t* r;
};

uint32_t half_of(const uint32_t (&row)[4], uint32_t column) { return row[column / 2] >> 16 * (column % 2) & 0xffffu; }

void combine_ldmatrix(Warp& warp, uint32_t) {
  for (uint32_t lane = 0; lane < kWarpSize; ++lane)
    for (uint32_t j = 0; j < 4; ++j)
      operand_of<MatrixLane>(warp, lane).r[j] = operand_of<MatrixLane>(warp, 8 * j + lane / 4).row[lane % 4];
}

void combine_ldmatrix_trans(Warp& warp, uint32_t) {
  for (uint32_t lane = 0; lane < kWarpSize; ++lane)
    for (uint32_t j = 0; j < 4; ++j) {
      const uint32_t first = 8 * j + lane % 4 * 2, column = lane / 4;  // rows 2t and 2t+1 of matrix j
      operand_of<MatrixLane>(warp, lane).r[j] = half_of(operand_of<MatrixLane>(warp, first).row, column) |
                                                half_of(operand_of<MatrixLane>(warp, first + 1).row, column) << 16;
    }
}

constexpr WarpOp kLdmatrix{"ldmatrix_x4", combine_ldmatrix},
    kLdmatrixTrans{"ldmatrix_x4_trans", combine_ldmatrix_trans};

struct MmaLane {
  float* c;
  const uint32_t *a, *b;
};

using Row = float __attribute__((vector_size(32)));  // the 8 columns of C

template <typename T>
float half_value(uint32_t pair, uint32_t which) {
  const uint16_t bits = uint16_t(pair >> 16 * which);
  if constexpr (std::is_same_v<T, f16>) return float(std::bit_cast<_Float16>(bits));  // one instruction
  T v;
  v.bits = bits;
  return float(v);
}

// C[16][8] += A[16][K]·B[K][8], in f32, k in order.
template <int K>
void multiply(Warp& warp, const float (&a)[16][K], const Row (&b)[K]) {
  Row c[16];
  for (uint32_t lane = 0; lane < kWarpSize; ++lane)
    for (uint32_t i = 0; i < 4; ++i)
      c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = operand_of<MmaLane>(warp, lane).c[i];
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < K; ++k) c[m] += a[m][k] * b[k];
  for (uint32_t lane = 0; lane < kWarpSize; ++lane)
    for (uint32_t i = 0; i < 4; ++i)
      operand_of<MmaLane>(warp, lane).c[i] = c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

template <typename T>
void combine_mma_16(Warp& warp, uint32_t) {
  float a[16][16];
  Row b[16];
  for (uint32_t lane = 0; lane < kWarpSize; ++lane) {
    const auto& mine = operand_of<MmaLane>(warp, lane);
    const uint32_t g = lane / 4, t = lane % 4;
    for (uint32_t h = 0; h < 2; ++h) {
      for (uint32_t i = 0; i < 4; ++i) a[g + i % 2 * 8][2 * t + i / 2 * 8 + h] = half_value<T>(mine.a[i], h);
      for (uint32_t i = 0; i < 2; ++i) b[2 * t + i * 8 + h][g] = half_value<T>(mine.b[i], h);
    }
  }
  multiply(warp, a, b);
}

float tf32_value(uint32_t v) { return std::bit_cast<float>(v & ~0x1fffu); }  // tensor cores ignore the low 13 bits

void combine_mma_tf32(Warp& warp, uint32_t) {
  float a[16][8];
  Row b[8];
  for (uint32_t lane = 0; lane < kWarpSize; ++lane) {
    const auto& mine = operand_of<MmaLane>(warp, lane);
    const uint32_t g = lane / 4, t = lane % 4;
    for (uint32_t i = 0; i < 4; ++i) a[g + i % 2 * 8][t + i / 2 * 4] = tf32_value(mine.a[i]);
    for (uint32_t i = 0; i < 2; ++i) b[t + i * 4][g] = tf32_value(mine.b[i]);
  }
  multiply(warp, a, b);
}

constexpr WarpOp kMmas[] = {{"mma_m16n8k16<bf16>", combine_mma_16<bf16>},
                            {"mma_m16n8k16<f16>", combine_mma_16<f16>},
                            {"mma_m16n8k8_tf32", combine_mma_tf32}};

constexpr uint32_t kAllLanes = ~0u;

}  // namespace

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int operand, int width) {
  if (width < 1 || width > kWarpSize || (width & (width - 1))) fault(fmt::format("shuffle of width {}", width));
  ShuffleLane mine{value, shuffle_source(kind, int(machine.lane), operand, width), 0};
  meet(kShuffles[int(kind)], mask, &mine);
  return mine.result;
}

uint32_t vote(Vote kind, uint32_t mask, bool predicate) {
  VoteLane mine{predicate, 0};
  meet(kVotes[int(kind)], mask, &mine);
  if (kind == Vote::ballot) return mine.result;
  return kind == Vote::any ? mine.result != 0 : mine.result == mask;
}

void ldmatrix(uint32_t (&r)[4], uint32_t row, bool transposed) {
  if (row % 16) misaligned("ldmatrix", row, 16);
  MatrixLane mine{{}, r};
  record_read(row, 16);
  std::memcpy(mine.row, machine.shared + row, 16);
  meet(transposed ? kLdmatrixTrans : kLdmatrix, kAllLanes, &mine);
}

void mma(MmaType type, float* c, const uint32_t* a, const uint32_t* b) {
  MmaLane mine{c, a, b};
  meet(kMmas[int(type)], kAllLanes, &mine);
}

}  // namespace switchback::emulator
