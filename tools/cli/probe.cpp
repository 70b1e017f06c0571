#include "tools/cli/probe.h"

#include <immintrin.h>
#include <omp.h>

#include <chrono>

#include "kernels/device/context.h"

namespace switchback {
namespace {

using Clock = std::chrono::steady_clock;

// One round: 12 independent chains (16 registers hold them on AVX2) of 256 multiply-adds, converging to a constant, so
// that nothing overflows or becomes denormal.
constexpr int kSteps = 256, kChains = 12;

__attribute__((target("avx2,fma"))) void round_avx2() {
  __m256 a = _mm256_set1_ps(0.5f);
  __m256 b = _mm256_set1_ps(0.25f);
  asm volatile("" : "+x"(a), "+x"(b));  // nothing is known of them
  __m256 c0 = b, c1 = b, c2 = b, c3 = b, c4 = b, c5 = b, c6 = b, c7 = b, c8 = b, c9 = b, c10 = b, c11 = b;
  for (int s = 0; s < kSteps; ++s) {
    c0 = _mm256_fmadd_ps(c0, a, b);
    c1 = _mm256_fmadd_ps(c1, a, b);
    c2 = _mm256_fmadd_ps(c2, a, b);
    c3 = _mm256_fmadd_ps(c3, a, b);
    c4 = _mm256_fmadd_ps(c4, a, b);
    c5 = _mm256_fmadd_ps(c5, a, b);
    c6 = _mm256_fmadd_ps(c6, a, b);
    c7 = _mm256_fmadd_ps(c7, a, b);
    c8 = _mm256_fmadd_ps(c8, a, b);
    c9 = _mm256_fmadd_ps(c9, a, b);
    c10 = _mm256_fmadd_ps(c10, a, b);
    c11 = _mm256_fmadd_ps(c11, a, b);
    // Keeps equal chains from being merged into one.
    asm volatile(""
                 : "+x"(c0), "+x"(c1), "+x"(c2), "+x"(c3), "+x"(c4), "+x"(c5), "+x"(c6), "+x"(c7), "+x"(c8), "+x"(c9),
                   "+x"(c10), "+x"(c11));
  }
}

__attribute__((target("avx512f"))) void round_avx512() {
  __m512 a = _mm512_set1_ps(0.5f);
  __m512 b = _mm512_set1_ps(0.25f);
  asm volatile("" : "+v"(a), "+v"(b));  // nothing is known of them
  __m512 c0 = b, c1 = b, c2 = b, c3 = b, c4 = b, c5 = b, c6 = b, c7 = b, c8 = b, c9 = b, c10 = b, c11 = b;
  for (int s = 0; s < kSteps; ++s) {
    c0 = _mm512_fmadd_ps(c0, a, b);
    c1 = _mm512_fmadd_ps(c1, a, b);
    c2 = _mm512_fmadd_ps(c2, a, b);
    c3 = _mm512_fmadd_ps(c3, a, b);
    c4 = _mm512_fmadd_ps(c4, a, b);
    c5 = _mm512_fmadd_ps(c5, a, b);
    c6 = _mm512_fmadd_ps(c6, a, b);
    c7 = _mm512_fmadd_ps(c7, a, b);
    c8 = _mm512_fmadd_ps(c8, a, b);
    c9 = _mm512_fmadd_ps(c9, a, b);
    c10 = _mm512_fmadd_ps(c10, a, b);
    c11 = _mm512_fmadd_ps(c11, a, b);
    // Keeps equal chains from being merged into one.
    asm volatile(""
                 : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3), "+v"(c4), "+v"(c5), "+v"(c6), "+v"(c7), "+v"(c8), "+v"(c9),
                   "+v"(c10), "+v"(c11));
  }
}

__attribute__((target("avx512f,avx512bf16"))) void round_bf16() {
  __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f));
  __m512 b = _mm512_set1_ps(0.25f);
  asm volatile("" : "+v"(a), "+v"(b));  // nothing is known of them
  __m512 c0 = b, c1 = b, c2 = b, c3 = b, c4 = b, c5 = b, c6 = b, c7 = b, c8 = b, c9 = b, c10 = b, c11 = b;
  for (int s = 0; s < kSteps; ++s) {
    c0 = _mm512_dpbf16_ps(c0, a, a);
    c1 = _mm512_dpbf16_ps(c1, a, a);
    c2 = _mm512_dpbf16_ps(c2, a, a);
    c3 = _mm512_dpbf16_ps(c3, a, a);
    c4 = _mm512_dpbf16_ps(c4, a, a);
    c5 = _mm512_dpbf16_ps(c5, a, a);
    c6 = _mm512_dpbf16_ps(c6, a, a);
    c7 = _mm512_dpbf16_ps(c7, a, a);
    c8 = _mm512_dpbf16_ps(c8, a, a);
    c9 = _mm512_dpbf16_ps(c9, a, a);
    c10 = _mm512_dpbf16_ps(c10, a, a);
    c11 = _mm512_dpbf16_ps(c11, a, a);
    // Keeps equal chains from being merged into one.
    asm volatile(""
                 : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3), "+v"(c4), "+v"(c5), "+v"(c6), "+v"(c7), "+v"(c8), "+v"(c9),
                   "+v"(c10), "+v"(c11));
  }
}

struct Method {
  const char* kind;
  void (*round)();
  double flops;  // of one round
};

Method choose(Precision precision) {
  const CpuFeatures& cpu = cpu_features();
  if (precision == Precision::bf16 && cpu.avx512_bf16)
    return {"avx512_bf16 dot", round_bf16, 2.0 * 32 * kChains * kSteps};
  if (cpu.avx512) return {"avx512 fma", round_avx512, 2.0 * 16 * kChains * kSteps};
  return {"avx2 fma", round_avx2, 2.0 * 8 * kChains * kSteps};
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

Probe gpu_peak(const Gpu& gpu, Precision precision) {
  struct Row {
    int major, minor;
    double fma, tf32, half;  // operations a clock and multiprocessor, multiply and add count 2; dense
  };
  constexpr Row kRows[] = {{8, 0, 128, 1024, 2048}, {8, 6, 256, 256, 512},   {8, 9, 256, 256, 512},
                           {9, 0, 256, 2048, 4096}, {10, 0, 256, 4096, 8192}};
  for (const Row& row : kRows) {
    if (row.major != gpu.major || row.minor != gpu.minor) continue;
    const double rate = precision == Precision::fp32 ? row.fma : precision == Precision::tf32 ? row.tf32 : row.half;
    return {rate * gpu.multiprocessors * gpu.clock_hz,
            precision == Precision::fp32 ? "fma by the data sheet" : "tensor cores by the data sheet"};
  }
  return {0, "unknown"};
}

}  // namespace switchback
