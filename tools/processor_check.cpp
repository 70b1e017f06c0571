// Says so where the processor lacks what the command is compiled for. Runs before any other code of it, and is compiled
// for the oldest x86-64 (CMakeLists.txt), so nothing may stand here whose inline functions other files share.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace {

__attribute__((constructor(101))) void check_processor() {
  __builtin_cpu_init();
  const char* limit = getenv("SWITCHBACK_CPU");  // x86-64: as if it were such a processor
  const bool old = limit && strcmp(limit, "x86-64") == 0;
  if (!old && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) return;
  const char text[] =
      "switchback: error: this processor has no AVX2 and FMA, which switchback needs (processors since 2013 have them; on a "
      "virtual machine choose a newer CPU model)\n";
  _exit(write(STDERR_FILENO, text, sizeof text - 1) < 0 ? 2 : 1);
}

}  // namespace
