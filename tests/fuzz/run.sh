#!/usr/bin/env bash
# Fuzzes the readers of users' files, each for a while, beginning with the inputs in tests/fuzz/corpus/.
#   tests/fuzz/run.sh                              all of them, 20 seconds each
#   tests/fuzz/run.sh image npy                    some of them
#   SECONDS_EACH=3600 KEEP=DIR tests/fuzz/run.sh   longer; inputs that reached new code are kept in DIR/READER/, and
#   build-fuzz/fuzz_READER -merge=1 tests/fuzz/corpus/READER DIR/READER    adds those of use to the corpus
# Everything lies in build-fuzz/ (BUILD=DIR: there). What broke a reader is kept in build-fuzz/findings/, and
#   build-fuzz/fuzz_READER FILE                    shows it again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
. tools/common.sh

seconds=${SECONDS_EACH:-20}
build=${BUILD:-build-fuzz}
mapfile -t all < <(sed -n 's/^fuzzer(\([a-z0-9_]*\).*/\1/p' tests/fuzz/CMakeLists.txt)
readers=("${@:-${all[@]}}")
for reader in "${readers[@]}"; do
  if [[ " ${all[*]} " != *" $reader "* ]]; then
    echo "run.sh: unknown reader $reader (${all[*]})" >&2
    exit 2
  fi
done

switchback_setup build fuzz
configure "$build" -DSWITCHBACK_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1"
build "$build" --target "${readers[@]/#/fuzz_}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$build/findings"

# fuzz READER: leaves its output in $work/READER.log and its exit code in $work/READER.code.
fuzz() {
  local reader=$1 code=0 new=${KEEP:-$work/new}/$1
  local -a words=()
  if [ -f "tests/fuzz/$reader.dict" ]; then words=("-dict=tests/fuzz/$reader.dict"); fi
  mkdir -p "$new" "$work/tmp.$reader"
  # Leaks are counted by fuzz.h: LeakSanitizer needs ptrace, which some containers forbid.
  TMPDIR=$work/tmp.$reader "$build/fuzz_$reader" -seed=1 -max_total_time="$seconds" -max_len=4096 -timeout=20 \
    -rss_limit_mb=2048 -malloc_limit_mb=1024 -detect_leaks=0 -print_final_stats=1 \
    -artifact_prefix="$build/findings/$reader-" "${words[@]}" "$new" "tests/fuzz/corpus/$reader" \
    >"$work/$reader.log" 2>&1 || code=$?
  echo "$code" >"$work/$reader.code"
}

stat_of() { sed -n "s/^stat::$2: *//p" "$work/$1.log"; }

next=0
for reader in "${readers[@]}"; do
  if [ "$next" -ge "$(nproc)" ]; then wait -n; fi
  fuzz "$reader" &
  next=$((next + 1))
done
wait

failed=0
inputs=0
for reader in "${readers[@]}"; do
  if [ "$(cat "$work/$reader.code")" -eq 0 ]; then
    runs=$(stat_of "$reader" number_of_executed_units)
    inputs=$((inputs + runs))
    printf '%-12s %9d inputs, %4d of them new; %s\n' "$reader" "$runs" "$(stat_of "$reader" new_units_added)" \
      "$(grep '^most memory' "$work/$reader.log")"
  else
    failed=$((failed + 1))
    grep -v -e '^#[0-9]*\s' -e '^INFO' "$work/$reader.log" | head -n 60
    file=$(sed -n 's/.*Test unit written to //p' "$work/$reader.log" | tail -n 1)
    echo "$reader FAILED${file:+; the input is kept: $build/fuzz_$reader $file shows it again}"
  fi
done
summary="$((${#readers[@]} - failed)) of ${#readers[@]} readers stood $inputs inputs, $seconds s each"
echo "$summary"
if [ -n "${STEP_NOTE:-}" ]; then echo "$summary" >"$STEP_NOTE"; fi
[ "$failed" -eq 0 ]
