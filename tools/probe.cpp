#include "tools/probe.h"

#include <immintrin.h>
#include <omp.h>

#include <chrono>

#include "kernels/context.h"

namespace switchback {
namespace {

using Clock = std::chrono::steady_clock;

// One round: 16 independent chains of 256 multiply-adds. The chains converge to a small constant, so nothing overflows
// or becomes denormal; the empty asm keeps the compiler from knowing the values.
constexpr int kSteps = 256, kChains = 16;

__attribute__((target("avx2,fma"))) void round_avx2() {
  __m256 chain[12];  // 16 registers in all
  const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
  for (auto& c : chain) c = b;
  for (int s = 0; s < kSteps; ++s)
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) {
      chain[k] = _mm256_fmadd_ps(chain[k], a, b);
      asm volatile("" : "+x"(chain[k]));
    }
}

__attribute__((target("avx512f"))) void round_avx512() {
  __m512 chain[kChains];
  const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
  for (auto& c : chain) c = b;
  for (int s = 0; s < kSteps; ++s)
#pragma GCC unroll 16
    for (int k = 0; k < kChains; ++k) {
      chain[k] = _mm512_fmadd_ps(chain[k], a, b);
      asm volatile("" : "+v"(chain[k]));
    }
}

__attribute__((target("avx512f,avx512bf16"))) void round_bf16() {
  __m512 chain[kChains];
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f));
  for (auto& c : chain) c = _mm512_set1_ps(0.25f);
  for (int s = 0; s < kSteps; ++s)
#pragma GCC unroll 16
    for (int k = 0; k < kChains; ++k) {
      chain[k] = _mm512_dpbf16_ps(chain[k], a, a);
      asm volatile("" : "+v"(chain[k]));
    }
}

struct Method {
  const char* kind;
  void (*round)();
  double flops;  // of one round
};

Method choose(Precision precision) {
  const CpuFeatures& cpu = cpu_features();
  if (precision == Precision::bf16 && cpu.avx512_bf16) return {"avx512_bf16 dot", round_bf16, 2.0 * 32 * kChains * kSteps};
  if (cpu.avx512) return {"avx512 fma", round_avx512, 2.0 * 16 * kChains * kSteps};
  return {"avx2 fma", round_avx2, 2.0 * 8 * 12 * kSteps};
}

}  // namespace

Probe probe_peak(int threads, Precision precision, double seconds) {
  const Method method = choose(precision);
  double rounds = 0;
  const auto start = Clock::now();
#pragma omp parallel num_threads(threads) reduction(+ : rounds)
  {
    do {
      for (int i = 0; i < 64; ++i) method.round();
      rounds += 64;
    } while (std::chrono::duration<double>(Clock::now() - start).count() < seconds);
  }
  const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  return {rounds * method.flops / elapsed, method.kind};
}

}  // namespace switchback
