#!/usr/bin/env bash
# Tests what test.sh does with its time: stages that take no time, under a clock that is a number in a file. Each
# scenario says how fast the machine is and what goes wrong, and looks at the table and the last line that test.sh would
# print.
# shellcheck disable=SC2317  # overrides are called by test.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/test.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wrong=0

# ---- the fake: a step spends seconds of the fake clock, and is stopped when the time limit says so

declare -A TAKES=() # seconds of a step, else its entry of STAGE_SECONDS times SPEED percent
declare -A FAILS=() # exit code of a step, else 0
SPEED=100

eval "true_$(declare -f count_suite)"
eval "true_$(declare -f now)"
now() { cat "$work/clock"; }
gpu_driver_here() { false; }
count_suite() {
  case $STEP_RESULT in
    passed) passed=$((passed + 100)) ;;
    failed) failed=$((failed + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
  esac
}
perform() {
  local name=$1 seconds=${TAKES[$1]:-$((${STAGE_SECONDS[$1]:-1} * SPEED / 100))} code=${FAILS[$1]:-0} stop
  if [ -n "$MINUTES" ]; then
    stop=$(seconds_until_stop)
    if [ "$seconds" -gt "$stop" ]; then seconds=$stop code=124; fi
  fi
  echo "$name" >>"$work/begun"
  echo $(($(now) + seconds)) >"$work/clock"
  return "$code"
}

# run OPTIONS...: the whole of test.sh; leaves what it prints in $work/output and its exit code in $code.
run() {
  echo 1000 >"$work/clock"
  : >"$work/begun"
  code=0
  (
    STARTED=$(now)
    main "$@"
  ) >"$work/output" 2>&1 || code=$?
  took=$(($(now) - 1000))
}

expect() {
  local what=$1
  shift
  if ! "$@"; then
    wrong=$((wrong + 1))
    echo "WRONG: $scenario: $what"
    sed 's/^/    /' "$work/output"
  fi
}

# row STEP PATTERN: the table's row of that step has the pattern in it.
row() { sed -n '/^step  *seconds/,$p' "$work/output" | grep "^$1  " | grep -q -- "$2"; }
begun() { grep -qx -- "$1" "$work/begun"; }
not_begun() { ! begun "$1"; }
last_line() { [ "$(tail -n 1 "$work/output")" = "$1" ]; }

# scenario NAME: all at their defaults again
scenario() {
  scenario=$1
  TAKES=() FAILS=() SPEED=100
}

# ---- scenarios

minutes=75
for stage in "${!STAGE_SECONDS[@]}"; do STAGE_SECONDS["$stage"]=10; done
STAGE_SECONDS["build"]=400 STAGE_SECONDS["tests"]=200
STAGE_SECONDS["build with sanitizers"]=300 STAGE_SECONDS["tests with sanitizers"]=600
STAGE_SECONDS["compare with PyTorch"]=200 STAGE_SECONDS["CUDA sources"]=300 STAGE_SECONDS["fuzzing"]=200
all_seconds=0 # of all stages on the reference machine
for stage in "${!STAGE_SECONDS[@]}"; do all_seconds=$((all_seconds + STAGE_SECONDS[$stage])); done
checks=$((${#STAGE_SECONDS[@]} - 3)) # stages that are one pass each: not the build and the two suites
enough() { [ "$code" -eq 0 ] && [ "$took" -le $((60 * minutes)) ]; }
bounded_time() { [ "$took" -le $((66 * minutes)) ]; }

scenario "the suite alone"
run
expect "exit code" [ "$code" -eq 0 ]
expect "tests are run" begun "tests"
expect "no stage of --all" not_begun "build with sanitizers"
expect "last line" last_line "102 passed, 0 failed, 0 skipped"

scenario "no limit, a slow machine"
SPEED=900
run --all
expect "exit code" [ "$code" -eq 0 ]
for stage in "${!STAGE_SECONDS[@]}"; do expect "$stage is run" begun "$stage"; done
expect "expected time by the machine's pace" row "fuzzing" "1800.0 * 1800$"
expect "last line" last_line "$((200 + checks)) passed, 0 failed, 0 skipped"

scenario "the reference machine"
run --all --minutes $minutes
expect "all fit" enough
for stage in "${!STAGE_SECONDS[@]}"; do expect "$stage is run" begun "$stage"; done
expect "last line" last_line "$((200 + checks)) passed, 0 failed, 0 skipped"

scenario "a machine that wants some minutes more than there are"
SPEED=$((100 * (60 * minutes + 200) / all_seconds))
run --all --minutes $minutes
expect "in time" enough
expect "sanitizers are worth more" begun "tests with sanitizers"
expect "than fuzzing" not_begun "fuzzing"
expect "which is in the table" row "fuzzing" "skipped: of $minutes minutes"
expect "and printed" grep -q '^== fuzzing: skipped' "$work/output"
expect "and counted" [ "$(tail -n 1 "$work/output" | grep -o '[0-9]* skipped')" != "0 skipped" ]

scenario "sanitizers don't fit, what comes after them does"
TAKES["AVX2 kernels"]=$((60 * minutes - 650 - 850))
run --all --minutes $minutes
expect "in time" enough
expect "the build is not begun" not_begun "build with sanitizers"
expect "its tests neither" not_begun "tests with sanitizers"
expect "both are in the table" row "build with sanitizers" "skipped"
expect "both are in the table" row "tests with sanitizers" "skipped"
expect "PyTorch fits" begun "compare with PyTorch"
expect "last line" last_line "$((100 + checks - 1)) passed, 0 failed, 2 skipped"

scenario "a build that found everything done, on a slow machine"
SPEED=400
TAKES["build"]=1
run --all --minutes $minutes
expect "the tests tell the pace" grep -qx "pace: 400 % of the reference machine's time" "$work/output"
expect "in time" enough

scenario "stages that take twice what they should"
SPEED=$((100 * 60 * minutes / all_seconds - 1))
for stage in "build with sanitizers" "tests with sanitizers" "compare with PyTorch" "CUDA sources" "fuzzing"; do
  TAKES["$stage"]=$((2 * STAGE_SECONDS["$stage"] * SPEED / 100))
done
run --all --minutes $minutes
expect "no failure" [ "$code" -eq 0 ]
expect "bounded" bounded_time

scenario "a long stage that the end of the time stops before it had twice its time"
until_then=0 # all that comes before it
for stage in "build" "tests" "weights scripts" "time limits" "shell scripts" "installed library" \
  "build with sanitizers"; do
  until_then=$((until_then + STAGE_SECONDS["$stage"]))
done
TAKES["AVX2 kernels"]=$((60 * minutes - until_then - STAGE_SECONDS["tests with sanitizers"] - 20))
TAKES["tests with sanitizers"]=1000000
run --all --minutes $minutes
expect "begun" begun "tests with sanitizers"
expect "stopped" row "tests with sanitizers" "skipped: stopped, $minutes minutes are over"
expect "no failure" [ "$code" -eq 0 ]
expect "bounded" bounded_time
expect "nothing is begun afterwards" not_begun "fuzzing"
expect "last line" last_line "$((100 + checks - 4)) passed, 0 failed, 5 skipped"

scenario "a stage hangs"
TAKES["compare with PyTorch"]=1000000
run --all --minutes $minutes
expect "bounded" bounded_time
expect "a failure" row "compare with PyTorch" "FAILED (stopped"
expect "exit code" [ "$code" -eq 1 ]

scenario "no build"
FAILS["build"]=2
run --all --minutes $minutes
expect "exit code" [ "$code" -eq 1 ]
expect "tests are not run" row "tests" "FAILED (not run: no build)"
expect "last line" last_line "0 passed, 1 failed, 0 skipped"

scenario "no build with sanitizers"
FAILS["build with sanitizers"]=2
run --all
expect "exit code" [ "$code" -eq 1 ]
expect "its tests are not run" row "tests with sanitizers" "FAILED (not run: no build)"
expect "the others are" begun "fuzzing"
expect "last line" last_line "$((100 + checks - 1)) passed, 1 failed, 0 skipped"

scenario "a stage that cannot run here"
FAILS["CUDA sources"]=77
run --all
expect "exit code" [ "$code" -eq 0 ]
expect "last line" last_line "$((200 + checks - 1)) passed, 0 failed, 1 skipped"

for bad in "--minutes" "--minutes 0" "--minutes 1.5" "--minutes -3" "--build-dir" "--al"; do
  scenario "bad option $bad"
  # shellcheck disable=SC2086  # two words
  run $bad
  expect "exit code" [ "$code" -eq 2 ]
  expect "nothing is run" [ ! -s "$work/begun" ]
done

# ---- the real parts

scenario "a command under the limit"
now() { true_now; }
STARTED=$(now)
MINUTES=1
expect "is run, with its exit code" [ "$(bounded bash -c 'echo here; exit 3' || echo $?)" = $'here\n3' ]
seconds_until_stop() { echo 1; }
start=$EPOCHSECONDS code=0
bounded bash -c 'sleep 60 & wait' || code=$?
expect "is stopped" [ "$code" -eq 124 ]
expect "at once" [ $((EPOCHSECONDS - start)) -lt 20 ]

scenario "results of shards"
ctest() { printf '  Test #%d: unit-%d\n' 1 0 2 1 3 2; }
mkdir -p "$work/test-results"
printf '"result": "COMPLETED"\n"result": "COMPLETED"\n"failures": [\n"result": "SKIPPED"\n' \
  >"$work/test-results/unit-0.json"
printf '"result": "COMPLETED"\n' >"$work/test-results/unit-2.json"
for STEP_RESULT in failed skipped; do
  passed=0 failed=0 skipped=0
  true_count_suite "$work" >"$work/output"
  echo "$STEP_RESULT: $passed $failed $skipped"
done >"$work/counted"
expect "a shard without result failed, or was stopped" \
  [ "$(cat "$work/counted")" = $'failed: 2 2 1\nskipped: 2 1 2' ]

if [ "$wrong" -ne 0 ]; then
  echo "time_limit.sh: $wrong expectations were not met"
  exit 1
fi
echo "time_limit.sh: all is as it should be"
