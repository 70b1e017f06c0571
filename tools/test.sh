#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests. From any folder:
#   tools/test.sh                    the test suite (Release build)
#   tools/test.sh --all              also sanitizers, warnings, the installed library, PyTorch, fuzzing, CUDA
#   tools/test.sh --minutes M        a stage that would not fit into what is left of M minutes, by this machine's pace,
#                                    is skipped; what still runs after a tenth more is stopped
#   tools/test.sh --build-dir DIR    build there instead of in build/
# shellcheck disable=SC2317  # the stages are called by name
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/setup.sh
. tools/common.sh

# Seconds on the reference machine: two quiet cores of a Xeon of 2023 (Emerald Rapids, 2.1 GHz). They bound the stages
# where --minutes is given, and stand in the table at the end: where one stage is off, beside the others, mend its entry.
STAGE_SECONDS=(
  ["build"]=430
  ["tests"]=270
  ["weights scripts"]=12
  ["time limits"]=5
  ["shell scripts"]=5
  ["counts of instructions"]=2
  ["installed library"]=10
  ["AVX2 kernels"]=40
  ["build with sanitizers"]=570
  ["tests with sanitizers"]=530
  ["compare with PyTorch"]=220
  ["CUDA sources"]=300
  ["PTX of the kernels"]=125
  ["fuzzing"]=250
)

all=no
folder=build
passed=0
failed=0
skipped=0
failures=() # "SUITE.TEST (shard)", named once more at the end: what a log of thousands of lines is read for

usage_error() {
  echo "test.sh: $1 (--all, --minutes M, --build-dir DIR)" >&2
  exit 2
}

read_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --all) all=yes ;;
      --minutes)
        MINUTES=${2:-}
        [[ $MINUTES =~ ^[1-9][0-9]*$ ]] || usage_error "--minutes '$MINUTES' is no whole number above 0"
        shift
        ;;
      --build-dir)
        folder=${2:-}
        [ -n "$folder" ] || usage_error "--build-dir wants a folder"
        shift
        ;;
      -h | --help)
        sed -n '2,7s/^# //p' tools/test.sh
        exit 0
        ;;
      *) usage_error "unknown option $1" ;;
    esac
    shift
  done
}

# skip STAGE WHY: counts a stage that is not begun.
skip() {
  say "$1: skipped, $2"
  add_row "$1" - "skipped: $2"
  skipped=$((skipped + 1))
}

# fits STAGE...: whether they fit, one after the other, into what is left; those that don't are skipped.
fits() {
  local stage sum=0 left
  [ -n "$MINUTES" ] || return 0
  for stage in "$@"; do sum=$((sum + $(expected "$stage"))); done
  left=$(seconds_left)
  [ "$sum" -gt "$left" ] || return 0
  for stage in "$@"; do skip "$stage" "of $MINUTES minutes $((left > 0 ? left : 0)) s are left, this takes about $sum s"; done
  STEP_RESULT=skipped
  STEP_TOOK=0
  return 1
}

# The pace is what the slower of build and tests says: a build may have found much done, in its folder or in a cache.
note_pace() {
  local pace=$((100 * ${STEP_TOOK%.*} / STAGE_SECONDS[$1]))
  if [ "$pace" -gt "${PACE:-0}" ]; then PACE=$pace; fi
}

# failed_tests REPORT WHERE: a line for each, with the beginning of its first message.
failed_tests() {
  awk -F'"' -v where="$2" '$2 == "name" { name = $4 } $2 == "classname" { suite = $4 }
    $2 == "failures" && / \[/ { first = 1 }
    $2 == "failure" && first { sub(/^ *"failure": "/, ""); print suite "." name " (" where "): " substr($0, 1, 400); first = 0 }' "$1"
}

# Adds up the results that the shards of one suite left. A shard that died leaves none and counts as one failure, one
# that the time limit stopped as skipped.
count_suite() {
  local build=$1 file ran bad left=0
  local -a shards
  mapfile -t shards < <(ctest --test-dir "$build" -N -R '^unit-' | sed -n 's/.*: \(unit-[0-9]*\)$/\1/p')
  for shard in "${shards[@]}"; do
    file=$build/test-results/$shard.json
    if [ ! -f "$file" ] && [ "$STEP_RESULT" = skipped ]; then
      skipped=$((skipped + 1))
      continue
    fi
    if [ ! -f "$file" ]; then
      echo "$shard ended without a result (crash or time limit)"
      failures+=("$shard of $build: no result (crash or time limit)")
      failed=$((failed + 1)) left=$((left + 1))
      continue
    fi
    # Quotes inside messages are escaped in JSON, so these patterns meet only the report's own keys.
    ran=$(grep -c '"result": "COMPLETED"' "$file" || true)
    bad=$(grep -c '"failures": \[' "$file" || true)
    passed=$((passed + ran - bad)) failed=$((failed + bad)) left=$((left + bad))
    skipped=$((skipped + $(grep -c '"result": "SKIPPED"' "$file" || true)))
    mapfile -t -O "${#failures[@]}" failures < <(failed_tests "$file" "$shard of $build")
  done
  if last_step_failed && [ "$left" -eq 0 ]; then failed=$((failed + 1)); fi # a leak reported at exit, say
  if [ "$STEP_RESULT" = passed ] && [ "${#shards[@]}" -eq 0 ]; then
    echo "no tests were found in $build"
    failed=$((failed + 1))
  fi
}

# check NAME COMMAND...: a stage that is one pass or fail.
check() {
  fits "$1" || return 0
  step "$@"
  case $STEP_RESULT in
    passed) passed=$((passed + 1)) ;;
    failed) failed=$((failed + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
  esac
}

# Tests write thousands of small files, each safely on the disk before it has its name; where there is enough memory for
# them, nothing waits for a disk. For the rest of a step.
files_in_memory() {
  local free
  free=$(df --output=avail -B1M /dev/shm 2>/dev/null | tail -n 1) || return 0
  if [ "${free:-0}" -lt 4000 ] || ! [ -w /dev/shm ]; then return 0; fi
  TMPDIR=$(mktemp -d /dev/shm/switchback-XXXXXX)
  export TMPDIR
  trap 'rm -rf "$TMPDIR"' EXIT
}

run_suite() {
  files_in_memory
  rm -rf "$1/test-results"
  bounded ctest --test-dir "$1" --parallel 2 --output-on-failure --no-tests=error
}

# suite NAME BUILD_FOLDER [RUNNER]
suite() {
  fits "$1" || return 0
  step "$1" "${3:-run_suite}" "$2"
  count_suite "$2"
}

finish() {
  print_table "result"
  if [ -n "$PACE" ]; then echo "pace: $PACE % of the reference machine's time"; fi
  if [ "${#failures[@]}" -gt 0 ]; then printf 'failed: %s\n' "${failures[@]}"; fi
  printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  if [ "$failed" -ne 0 ] || [ "$STEPS_FAILED" -ne 0 ]; then exit 1; fi
  exit 0
}

release() {
  local werror=OFF
  if [ "$all" = yes ]; then werror=ON; fi
  configure "$folder" -DCMAKE_BUILD_TYPE=Release -DSWITCHBACK_TESTS=ON -DSWITCHBACK_WERROR="$werror" -DSWITCHBACK_CUDA=OFF
}

# The converter and the downloader of weights.
weights_scripts() { bounded /usr/bin/python3 tests/weights_test.py --switchback "$folder/switchback"; }

# GPU code in the same folder: compiled and linked by nvcc for the GPUs we ship for, without warnings and with the
# kernels of products in registers; a program that starts, can be installed, and says what it should where no GPU is.
cuda_sources() {
  local nvcc
  nvcc=$(sed -n 's/^SWITCHBACK_NVCC:[A-Z]*=//p' "$folder/CMakeCache.txt")
  if [ ! -x "$nvcc" ]; then
    echo "no nvcc here" >"$STEP_NOTE"
    return 77
  fi
  configure "$folder" -DSWITCHBACK_CUDA=ON
  build "$folder"
  # Instructions are counted by cuobjdump; toolkits that come without their tools have none, but PyPI does.
  if ! command -v cuobjdump >/dev/null 2>&1 && [ ! -x "$(dirname "$nvcc")/cuobjdump" ] && [ ! -d "$folder/cuobjdump" ]; then
    bounded python3 -m pip install -q --disable-pip-version-check --target "$folder/cuobjdump" nvidia-cuda-cuobjdump \
      nvidia-cuda-nvdisasm || rm -rf "$folder/cuobjdump"
  fi
  PYTHONPATH=$folder/cuobjdump tools/cuda_resources.py "$folder" --json "$folder/resources.json" --loops |
    tee "$folder/resources.txt"
  if grep -q '^hot loops: not counted' "$folder/resources.txt"; then echo "hot loops not counted: no cuobjdump" >"$STEP_NOTE"; fi
  "$folder/switchback" info | grep 'CUDA side *on'
  files_in_memory
  bounded "$folder/switchback_tests" --gtest_brief=1 --gtest_filter='Cli.InfoAndModels:*CliError.*:*/cuda*'
  installed_library
}

# Cases for it: all but the largest, as far as no kernel is theirs alone.
PTX_CASES='*/ptx:*/ptx/*:-*many_tiles/ptx/cudnn/*:*many_tiles/ptx/direct/*:*c80_many_tiles/ptx/own/f32:*.large_sets/ptx/*'
PTX_CASES+=':*first_alexnet*/ptx/own/*:*first_alexnet*/ptx/direct/*:*_p3_tall/ptx/*'

# The op tests on what nvcc makes of the kernels (text, for Hopper), two at a time, and the table of what ran: a kernel
# that was never executed fails.
ptx_kernels() {
  local nvcc shard code=0
  local -a running=()
  nvcc=$(sed -n 's/^SWITCHBACK_NVCC:[A-Z]*=//p' "$folder/CMakeCache.txt")
  if [ ! -x "$nvcc" ]; then
    echo "no nvcc here" >"$STEP_NOTE"
    return 77
  fi
  configure "$folder" -DSWITCHBACK_CUDA=ON
  build "$folder" --target switchback_tests # nothing to do after "CUDA sources", which compiled what is read here
  rm -rf "$folder/ptx-report"
  mkdir "$folder/ptx-report"
  export SWITCHBACK_PTX=$folder/kernels OMP_WAIT_POLICY=passive GTEST_TOTAL_SHARDS=2
  for shard in 0 1; do
    GTEST_SHARD_INDEX=$shard SWITCHBACK_PTX_REPORT=$folder/ptx-report/$shard.tsv bounded "$folder/switchback_tests" \
      --gtest_brief=1 --gtest_filter="$PTX_CASES" >"$folder/ptx-report/$shard.log" 2>&1 &
    running+=($!)
  done
  for shard in "${running[@]}"; do wait "$shard" || code=$?; done
  cat "$folder"/ptx-report/*.log
  [ "$code" -eq 0 ] || return "$code"
  tests/ptx/report.py "$folder"/ptx-report/*.tsv
}

# ---- the stages of --all

installed_library() { bounded bash tests/install/run.sh "$folder"; }

# The kernels for processors without AVX-512, ours and oneDNN's, on this one; among them that neither batches nor threads
# show in what networks compute.
avx2_kernels() {
  files_in_memory
  ONEDNN_MAX_CPU_ISA=AVX2 SWITCHBACK_CPU=avx2 OMP_WAIT_POLICY=passive bounded "$folder/switchback_tests" --gtest_brief=1 \
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

run_sanitized_suite() {
  local leaks=1 skipped_here
  if ! leaks_can_be_checked; then
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
  # The sweep runs all of these kernels, too; and how good networks are on whole data sets says nothing of memory.
  skipped_here+=':On/GemmKernels.AllKernels*Bits*In*/emulated:On/GemmKernels.AllKernels*StridesAndGroups/emulated'
  skipped_here+=':On/GpuGemm.SweepIsReported/emulated'
  skipped_here+=':PublishedModels.AreAsAccurateAsStated:On/VizIntegrated.ConvergesOnLenetWithAnyBatch/emulated'
  export GTEST_FILTER="-$skipped_here"
  run_suite "$1"
}

compare_torch() {
  bounded bash tools/setup.sh compare
  bounded /usr/bin/python3 tests/compare_torch.py --install --binary "$folder/switchback"
}

shell_scripts() {
  bounded bash tools/setup.sh shell || true
  if ! command -v shellcheck >/dev/null 2>&1; then
    echo "no shellcheck here" >"$STEP_NOTE"
    return 77
  fi
  shellcheck -x tools/*.sh tools/cmake/*.sh tests/install/run.sh tests/fuzz/run.sh tests/tools/time_limit.sh .ci/run
}

instruction_counts() { bounded /usr/bin/python3 tests/tools/hot_loops_test.py; }

time_limits() { bash tests/tools/time_limit.sh; }

fuzzing() { bounded bash tests/fuzz/run.sh; }

# ----

# In order of worth: where the time does not suffice for all, the last ones are left out.
main() {
  read_options "$@"
  step "install packages" switchback_setup build test
  if last_step_failed; then
    failed=$((failed + 1))
    finish
  fi
  step "configure" release
  if ! last_step_failed; then
    step "build" build "$folder"
    note_pace "build"
  fi
  if last_step_failed; then
    step_blocked "tests" "no build"
    failed=$((failed + 1))
    finish
  fi
  if gpu_driver_here; then check "CUDA sources" cuda_sources; fi
  suite "tests" "$folder"
  note_pace "tests"
  check "weights scripts" weights_scripts
  check "time limits" time_limits
  if [ "$all" = no ]; then finish; fi

  check "shell scripts" shell_scripts
  check "counts of instructions" instruction_counts
  check "installed library" installed_library
  check "AVX2 kernels" avx2_kernels
  if fits "build with sanitizers" "tests with sanitizers"; then
    check "build with sanitizers" sanitized
    case $STEP_RESULT in
      passed) suite "tests with sanitizers" build-asan run_sanitized_suite ;;
      failed) step_blocked "tests with sanitizers" "no build" ;;
      skipped) skip "tests with sanitizers" "no build" ;;
    esac
  fi
  check "compare with PyTorch" compare_torch
  if ! gpu_driver_here; then check "CUDA sources" cuda_sources; fi
  check "PTX of the kernels" ptx_kernels
  check "fuzzing" fuzzing
  finish
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then main "$@"; fi
