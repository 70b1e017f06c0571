// How fast this machine multiplies and adds right now: the calibration that stands beside every benchmark, since
// processors change their clock under us.
#pragma once

#include "engine/run/plan.h"

namespace switchback {

struct Probe {
  double flops = 0;       // multiply and add count 2; all threads together
  const char* kind = "";  // "avx512 fma", "avx2 fma", "avx512_bf16 dot"
};

// Runs independent multiply-add chains in registers for about `seconds` on `threads` threads. For bf16 the bf16 dot
// product of AVX512-BF16 is measured (AMX tiles reach several times that).
Probe probe_peak(int threads, Precision precision, double seconds = 0.05);

// A GPU's rate by its data sheet: multiprocessors x clock x operations a clock of that compute capability; flops = 0
// where this table does not know it.
Probe gpu_peak(const Gpu& gpu, Precision precision);

}  // namespace switchback
