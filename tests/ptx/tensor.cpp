#include "tests/ptx/tensor.h"

#include <fmt/format.h>
#include <immintrin.h>

#include <bit>
#include <cstring>

#include "tests/ptx/machine.h"

namespace switchback::ptx {
namespace {

// ---- mma ----

enum class Element { bf16, f16, tf32 };

template <Element E>
float element_of(uint32_t word, uint32_t half) {
  if constexpr (E == Element::tf32)
    return std::bit_cast<float>(word & 0xffffe000u);  // its low 13 bits are not looked at
  const uint16_t bits = uint16_t(word >> 16 * half);
  if constexpr (E == Element::f16) return _cvtsh_ss(bits);
  return std::bit_cast<float>(uint32_t(bits) << 16);
}

// D = A·B + C for m16n8: A is row-major, B column-major. Products are exact in f32; sums are rounded one by one, k in
// order (the ISA leaves order and rounding open). Lists: 4 registers of D, 4 of A, 2 of B, 4 of C.
template <Element E, uint32_t K>
void mma(Warp& w, const Instruction& i, uint32_t lanes) {
  if (lanes != ~0u) fault("mma of fewer than 32 lanes");
  constexpr uint32_t kPerRegister = E == Element::tf32 ? 1 : 2;
  const Register* list = w.launch->kernel->lists.data() + i.list;
  float a[16][K], c[16][8];
  alignas(32) float b[K][8];
  for (uint32_t r = 0; r < 4; ++r) {
    const uint32_t* word = w.lanes<uint32_t>(list[4 + r]);
    for (uint32_t h = 0; h < kPerRegister; ++h) {
      const uint32_t n = r * kPerRegister + h;  // a_n of the ISA's tables
      for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const uint32_t group = lane >> 2, in_group = lane % 4;
        uint32_t row, column;
        if constexpr (E == Element::tf32) {
          row = n == 0 || n == 2 ? group : group + 8;
          column = n < 2 ? in_group : in_group + 4;
        } else {
          row = n < 2 || (n >= 4 && n < 6) ? group : group + 8;
          column = in_group * 2 + (n & 1) + (n >= 4 ? 8 : 0);
        }
        a[row][column] = element_of<E>(word[lane], h);
      }
    }
  }
  for (uint32_t r = 0; r < 2; ++r) {
    const uint32_t* word = w.lanes<uint32_t>(list[8 + r]);
    for (uint32_t h = 0; h < kPerRegister; ++h) {
      const uint32_t n = r * kPerRegister + h;  // b_n
      for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const uint32_t in_group = lane % 4;
        const uint32_t row = E == Element::tf32 ? in_group + 4 * n : in_group * 2 + (n & 1) + (n >= 2 ? 8 : 0);
        b[row][lane >> 2] = element_of<E>(word[lane], h);
      }
    }
  }
  const auto place = [](uint32_t n, uint32_t lane, auto& matrix) -> auto& {
    return matrix[n < 2 ? lane >> 2 : (lane >> 2) + 8][lane % 4 * 2 + (n & 1)];
  };
  for (uint32_t n = 0; n < 4; ++n) {
    const float* from = w.lanes<float>(list[10 + n]);
    for (uint32_t lane = 0; lane < kLanes; ++lane) place(n, lane, c) = from[lane];
  }
  for (uint32_t row = 0; row < 16; ++row) {
    __m256 sum = _mm256_loadu_ps(c[row]);
    for (uint32_t k = 0; k < K; ++k) sum = _mm256_fmadd_ps(_mm256_set1_ps(a[row][k]), _mm256_load_ps(b[k]), sum);
    _mm256_storeu_ps(c[row], sum);
  }
  for (uint32_t n = 0; n < 4; ++n) {
    float* to = w.lanes<float>(list[n]);
    for (uint32_t lane = 0; lane < kLanes; ++lane) to[lane] = place(n, lane, c);
  }
}

// ---- ldmatrix ----

// Matrix j has 8 rows of 16 bytes, at the addresses that lanes 8j … 8j+7 give. Lane l receives, of each matrix, the
// elements 2·(l % 4) and + 1 of row l / 4; transposed, those of column l / 4.
template <bool Transposed>
void ldmatrix(Warp& w, const Instruction& i, uint32_t lanes) {
  if (lanes != ~0u) fault("ldmatrix of fewer than 32 lanes");
  const Register* list = w.launch->kernel->lists.data() + i.list;
  uint16_t rows[kLanes][8] = {};
  for (uint32_t lane = 0; lane < 8u * i.count; ++lane) {
    const uint32_t address = i.a.bytes == 8 ? uint32_t(w.lanes<uint64_t>(i.a)[lane]) : w.lanes<uint32_t>(i.a)[lane];
    std::memcpy(rows[lane], shared_row(w, lane, address + uint32_t(i.offset)), 16);
  }
  for (uint32_t j = 0; j < i.count; ++j) {
    uint32_t* to = w.lanes<uint32_t>(list[j]);
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const uint32_t first = lane % 4 * 2, second = first + 1, line = lane / 4;
      const uint16_t low = Transposed ? rows[8 * j + first][line] : rows[8 * j + line][first];
      const uint16_t high = Transposed ? rows[8 * j + second][line] : rows[8 * j + line][second];
      to[lane] = uint32_t(high) << 16 | low;
    }
  }
}

std::string joined(const std::vector<std::string_view>& words) {
  std::string all;
  for (const std::string_view w : words) all += std::string(all.empty() ? "" : ".") + std::string(w);
  return all;
}

}  // namespace

bool decode_mma(Decoder& d, const std::vector<std::string_view>& op) {
  static constexpr std::pair<const char*, Instruction::Run> kForms[] = {
      {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", mma<Element::bf16, 16>},
      {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", mma<Element::f16, 16>},
      {"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", mma<Element::tf32, 8>}};
  const std::string form = joined(op);
  Instruction& i = *d.now;
  for (const auto& [name, run] : kForms)
    if (form == name) i.run = run;
  if (!i.run || d.operands.size() != 4) return false;
  const uint32_t first = uint32_t(d.kernel.lists.size()), sizes[] = {4, 4, 2, 4};
  for (size_t n = 0; n < 4; ++n) {
    d.elements(n, n == 0);
    if (i.count != sizes[n]) return false;
  }
  for (uint32_t n = 0; n < 14; ++n)
    if (d.kernel.lists[first + n].bytes != 4) return false;
  i.list = first;
  i.kind = Instruction::Kind::warp_operation;
  return true;
}

bool decode_ldmatrix(Decoder& d, const std::vector<std::string_view>& op) {
  const std::string form = joined(op);
  Instruction& i = *d.now;
  uint32_t count = 0;
  for (const auto& [x, n] : {std::pair{"x1", 1u}, {"x2", 2u}, {"x4", 4u}}) {
    if (form == fmt::format("ldmatrix.sync.aligned.m8n8.{}.shared.b16", x)) count = n, i.run = ldmatrix<false>;
    if (form == fmt::format("ldmatrix.sync.aligned.m8n8.{}.trans.shared.b16", x)) count = n, i.run = ldmatrix<true>;
  }
  if (!i.run || d.operands.size() != 2) return false;
  d.elements(0, true);
  d.address(1);
  i.kind = Instruction::Kind::warp_operation;
  return i.count == count;
}

}  // namespace switchback::ptx
