#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests. From any folder:
#   tools/test.sh                    the test suite (Release build)
#   tools/test.sh --all              also sanitizers, warnings, the installed library, PyTorch, fuzzing, CUDA
#   tools/test.sh --build-dir DIR    build there instead of in build/
# shellcheck disable=SC2317  # the stages are called by name
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/setup.sh
. tools/common.sh

all=no
folder=build
while [ $# -gt 0 ]; do
  case $1 in
    --all) all=yes ;;
    --build-dir)
      folder=${2:?--build-dir wants a folder}
      shift
      ;;
    -h | --help)
      sed -n '2,5s/^# //p' tools/test.sh
      exit 0
      ;;
    *)
      echo "test.sh: unknown option $1 (--all, --build-dir DIR)" >&2
      exit 2
      ;;
  esac
  shift
done

passed=0
failed=0
skipped=0

# Adds up the results that the shards of one suite left. A shard that died leaves none and counts as one failure.
count_suite() {
  local build=$1 code=$2 file ran bad left=0
  local -a shards
  mapfile -t shards < <(ctest --test-dir "$build" -N -R '^unit-' | sed -n 's/.*: \(unit-[0-9]*\)$/\1/p')
  for shard in "${shards[@]}"; do
    file=$build/test-results/$shard.json
    if [ ! -f "$file" ]; then
      echo "$shard ended without a result (crash or time limit)"
      failed=$((failed + 1)) left=$((left + 1))
      continue
    fi
    # Quotes inside messages are escaped in JSON, so these patterns meet only the report's own keys.
    ran=$(grep -c '"result": "COMPLETED"' "$file" || true)
    bad=$(grep -c '"failures": \[' "$file" || true)
    passed=$((passed + ran - bad)) failed=$((failed + bad)) left=$((left + bad))
    skipped=$((skipped + $(grep -c '"result": "SKIPPED"' "$file" || true)))
  done
  if [ "$code" -ne 0 ] && [ "$left" -eq 0 ]; then failed=$((failed + 1)); fi # a leak reported at exit, say
  if [ "$code" -eq 0 ] && [ "${#shards[@]}" -eq 0 ]; then
    echo "no tests were found in $build"
    failed=$((failed + 1))
  fi
}

# A check that is one pass or fail.
check() {
  local before=$STEPS_FAILED
  step "$@"
  if [ "$STEPS_FAILED" -ne "$before" ]; then
    failed=$((failed + 1))
  elif [[ "$STEP_TABLE" =~ skipped[^$'\n']*$'\n'$ ]]; then
    skipped=$((skipped + 1))
  else
    passed=$((passed + 1))
  fi
}

run_suite() {
  rm -rf "$1/test-results"
  ctest --test-dir "$1" --parallel 2 --output-on-failure --no-tests=error
}

# suite NAME BUILD_FOLDER
suite() {
  local before=$STEPS_FAILED
  step "$1" run_suite "$2"
  count_suite "$2" $((STEPS_FAILED - before))
}

finish() {
  print_table "result"
  printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  if [ "$failed" -ne 0 ] || [ "$STEPS_FAILED" -ne 0 ]; then exit 1; fi
  exit 0
}

release() {
  local werror=OFF
  if [ "$all" = yes ]; then werror=ON; fi
  configure "$folder" -DCMAKE_BUILD_TYPE=Release -DSWITCHBACK_TESTS=ON -DSWITCHBACK_WERROR="$werror"
}

# The converter and the downloader of weights.
weights_scripts() { /usr/bin/python3 tests/weights_test.py --switchback "$folder/switchback"; }

# ---- the stages of --all

# The kernels for processors without AVX-512, ours and oneDNN's, on this one; among them that neither batches nor threads
# show in what networks compute.
avx2_kernels() {
  ONEDNN_MAX_CPU_ISA=AVX2 SWITCHBACK_CPU=avx2 OMP_WAIT_POLICY=passive "$folder/switchback_tests" --gtest_brief=1 \
    --gtest_filter='Op/*:Zoo/*:-*/emulated/*:*/cuda/*:*_emulated:*_cuda'
}

sanitized() {
  configure build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" \
    -DCMAKE_CXX_FLAGS=-D_GLIBCXX_ASSERTIONS -DSWITCHBACK_SANITIZE=address,undefined -DSWITCHBACK_TEST_TIMEOUT=1500 \
    -DSWITCHBACK_CUDA=OFF
  build build-asan
}

# Leak checking needs ptrace, which some containers forbid.
leaks_can_be_checked() {
  local probe
  probe=$(mktemp -d)
  echo 'int main() {}' >"$probe/probe.cpp"
  g++ -fsanitize=address "$probe/probe.cpp" -o "$probe/probe" && "$probe/probe" >/dev/null 2>&1
  local code=$?
  rm -rf "$probe"
  return "$code"
}

compare_torch() {
  switchback_setup compare
  /usr/bin/python3 tests/compare_torch.py --install --binary "$folder/switchback"
}

shell_scripts() {
  if ! command -v shellcheck >/dev/null 2>&1; then
    echo "no shellcheck here" >"$STEP_NOTE"
    return 77
  fi
  shellcheck -x tools/*.sh tests/install/run.sh tests/fuzz/run.sh .ci/run
}

# Compiles every .cu file for the GPUs we ship for, where nvcc is at hand; the kernels of products must not spill.
cuda_sources() {
  local nvcc code=0
  nvcc=$(sed -n 's/^SWITCHBACK_NVCC:[A-Z]*=//p' "$folder/CMakeCache.txt")
  if [ ! -x "$nvcc" ]; then
    echo "no nvcc here" >"$STEP_NOTE"
    return 77
  fi
  tools/cuda_resources.py --nvcc "$nvcc" --json "$folder/resources.json" || code=$?
  if [ "$code" -eq 77 ]; then echo "no .cu files" >"$STEP_NOTE"; fi
  return "$code"
}

fuzzing() {
  if [ ! -f tests/fuzz/run.sh ]; then
    echo "no fuzzers" >"$STEP_NOTE"
    return 77
  fi
  bash tests/fuzz/run.sh
}

# ----

step "install packages" switchback_setup build test
if last_step_failed; then
  failed=$((failed + 1))
  finish
fi
step "configure" release
if ! last_step_failed; then step "build" build "$folder"; fi
if last_step_failed; then
  step_blocked "tests" "no build"
  failed=$((failed + 1))
else
  suite "tests" "$folder"
  check "weights scripts" weights_scripts
fi
built=$([ -x "$folder/switchback_tests" ] && echo yes || echo no)

if [ "$all" = yes ]; then
  check "shell scripts" shell_scripts
  if [ "$built" = yes ]; then
    check "AVX2 kernels" avx2_kernels
    check "installed library" bash tests/install/run.sh "$folder"
    if [ -f tests/compare_torch.py ]; then check "compare with PyTorch" compare_torch; fi
    check "CUDA sources" cuda_sources
  fi
  check "fuzzing" fuzzing
  step "build with sanitizers" sanitized
  if last_step_failed; then
    step_blocked "tests with sanitizers" "no build"
    failed=$((failed + 1))
  else
    if leaks_can_be_checked; then leaks=1; else
      leaks=0
      echo "LeakSanitizer cannot work here (ptrace is forbidden): leaks are not checked"
    fi
    export ASAN_OPTIONS=detect_leaks=$leaks:strict_string_checks=1:detect_stack_use_after_return=1
    export UBSAN_OPTIONS=print_stacktrace=1
    # The emulated GPU takes most of the time here. Launches were repeated in other orders above, and all types, large
    # grids and deep networks have run; what is watched here is memory, for which `own`, which chooses among all the
    # kernels, in f32 and bf16 does.
    export SWITCHBACK_EMULATOR=quick
    skipped_here='*/emulated/gemm/*:*/emulated/cudnn/*:*/emulated/direct/f16:*/emulated/own/f16:*/emulated/own/tf32'
    skipped_here+=':*many_tiles/emulated/*:*ManySeedsShareOneTape/*_emulated:Zoo/Slow*_emulated'
    # The sweep runs all of these kernels, too.
    skipped_here+=':On/GpuGemm.AllKernelsGiveTheSameBitsIn*/emulated:On/GpuGemm.AllKernels*StridesAndGroups/emulated'
    skipped_here+=':On/GpuGemm.SweepIsReported/emulated'
    export GTEST_FILTER="-$skipped_here"
    suite "tests with sanitizers" build-asan
  fi
fi
finish
