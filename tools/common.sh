#!/usr/bin/env bash
# Shared by demo.sh and test.sh: timed steps with a table at the end, and the build. Sourced, not run.

STEP_TABLE=""   # one line a step: name, seconds, expected seconds, result (tab-separated)
STEP_RESULT=""  # of the last one: passed, failed or skipped
STEP_TOOK=""    # seconds
STEPS_FAILED=0

# A time limit for the whole script, which test.sh may set. A stage that would not fit into what is left is not begun
# (test.sh); one that takes longer than expected is stopped a tenth of the limit after it.
MINUTES=""                   # none
declare -A STAGE_SECONDS=()  # what each stage takes on the reference machine
PACE=""                      # what this machine takes, in percent of the reference machine's time; empty: not yet known

now() { echo "$EPOCHREALTIME"; }
elapsed() { LC_ALL=C awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }
STARTED=$(now)

say() { printf '\n== %s\n' "$*"; }

# Seconds that a stage will take here; nothing for what has no entry.
expected() {
  local seconds=${STAGE_SECONDS[$1]:-}
  [ -z "$seconds" ] || echo $((seconds * ${PACE:-100} / 100))
}

# Seconds until the time limit, and until what still runs is stopped.
seconds_left() {
  local passed
  passed=$(elapsed "$STARTED")
  echo $((60 * MINUTES - ${passed%.*}))
}
seconds_until_stop() { echo $(($(seconds_left) + 6 * MINUTES)); }

# bounded COMMAND...: under the time limit, if there is one; exit code 124 when it was stopped.
bounded() {
  if [ -z "$MINUTES" ]; then
    "$@"
    return
  fi
  local seconds
  seconds=$(seconds_until_stop)
  timeout -k 10 $((seconds > 0 ? seconds : 1)) "$@"
}

# perform NAME COMMAND...: the command of a step, in a shell of its own that ends with its first error.
perform() (
  shift
  set -e
  "$@"
)

# True for the exit code of a step that the time limit stopped.
was_stopped() { [ -n "$MINUTES" ] && { [ "$1" -eq 124 ] || [ "$1" -eq 137 ]; } && [ "$(seconds_until_stop)" -le 0 ]; }

# step NAME COMMAND...: runs it, notes the time, goes on whatever happened. The command may print a remark for the
# table's last column into $STEP_NOTE. Exit code 77 means: not possible here, skipped. What the time limit stopped is
# skipped, too, unless it had taken twice the expected time already: then something hangs, or STAGE_SECONDS is wrong.
step() {
  local name=$1 start code=0 note at_most
  start=$(now)
  shift
  say "$name"
  STEP_NOTE=$(mktemp)
  export STEP_NOTE
  set +e
  perform "$name" "$@"
  code=$?
  set -e
  STEP_TOOK=$(elapsed "$start")
  note=$(cat "$STEP_NOTE")
  rm -f "$STEP_NOTE"
  STEP_RESULT=failed
  if [ "$code" -eq 0 ]; then
    STEP_RESULT=passed
  elif [ "$code" -eq 77 ]; then
    STEP_RESULT=skipped
    note="skipped${note:+: $note}"
  elif was_stopped "$code"; then
    at_most=$((2 * STAGE_SECONDS[$name] * ${PACE:-100} / 100))
    if [ "${STEP_TOOK%.*}" -lt "$at_most" ]; then
      STEP_RESULT=skipped
      note="skipped: stopped, $MINUTES minutes are over"
    else
      note="FAILED (stopped, having taken more than $at_most s, twice what it should)"
    fi
  else
    note="FAILED (exit code $code)${note:+ $note}"
  fi
  if [ "$STEP_RESULT" = failed ]; then STEPS_FAILED=$((STEPS_FAILED + 1)); fi
  add_row "$name" "$STEP_TOOK" "$note"
}

# add_row NAME SECONDS RESULT
add_row() { STEP_TABLE+="$1"$'\t'"$2"$'\t'"$(expected "$1")"$'\t'"$3"$'\n'; }

# A step that cannot run because an earlier one failed.
step_blocked() {
  add_row "$1" - "FAILED (not run: $2)"
  STEPS_FAILED=$((STEPS_FAILED + 1))
}

last_step_failed() { [ "$STEP_RESULT" = failed ]; }

# print_table TITLE_OF_LAST_COLUMN
print_table() {
  echo
  printf '%s' "step"$'\t'"seconds"$'\t'"expected"$'\t'"$1"$'\n'"$STEP_TABLE" |
    LC_ALL=C awk -F '\t' -v expected=${#STAGE_SECONDS[@]} '
      function row(name, seconds, should, result) {
        line = sprintf("%-28s %8s %s %s", name, seconds, expected ? sprintf("%9s ", should) : "", result)
        sub(/ +$/, "", line)
        print line
      }
      NF { row($1, $2, $3, $4); total += $2; if ($2 != "-") sum += $3 }
      END { row("total", sprintf("%.1f", total), sum, "") }'
}

# A build folder made for another place (a copied tree) or with another generator is started anew.
stale_build() {
  local cache=$1/CMakeCache.txt
  [ -f "$cache" ] || return 1
  ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$cache" || ! grep -qxF "CMAKE_CACHEFILE_DIR:INTERNAL=$(cd "$1" && pwd)" "$cache"
}

# configure FOLDER OPTIONS...: from the project's root
configure() {
  local folder=$1
  shift
  if stale_build "$folder"; then
    echo "$folder was made for another place; starting it anew"
    rm -rf "$folder"
  fi
  local -a fresh=()
  if [ ! -f "$folder/CMakeCache.txt" ]; then
    fresh=(-DSWITCHBACK_UNITY=ON)
    if command -v ninja >/dev/null 2>&1; then fresh+=(-G Ninja); fi
  fi
  cmake -S . -B "$folder" "${fresh[@]}" "$@"
}

build() { bounded cmake --build "$1" --parallel "$(nproc)" "${@:2}"; }

# GPU code can't run without a driver; where there is none, demo.sh and test.sh don't spend the time to build it.
gpu_driver_here() {
  [ -e /proc/driver/nvidia/version ] || PATH=$PATH:/sbin ldconfig -p 2>/dev/null | grep 'libcuda\.so\.1' >/dev/null
}
