#!/usr/bin/env bash
# Shared by demo.sh and test.sh: timed steps with a table at the end, and the build. Sourced, not run.

STEP_TABLE=""   # one line a step: name, seconds, result (tab-separated)
STEPS_FAILED=0

say() { printf '\n== %s\n' "$*"; }

# step NAME COMMAND...: runs it, notes the time, goes on whatever happened. The command may print a remark for the
# table's last column into $STEP_NOTE. Exit code 77 means: not possible here, skipped.
step() {
  local name=$1 start=$EPOCHREALTIME seconds code=0 note
  shift
  say "$name"
  STEP_NOTE=$(mktemp)
  export STEP_NOTE
  set +e
  (
    set -e
    "$@"
  )
  code=$?
  set -e
  seconds=$(elapsed "$start")
  note=$(cat "$STEP_NOTE")
  rm -f "$STEP_NOTE"
  case $code in
    0) ;;
    77) note="skipped${note:+: $note}" ;;
    *)
      note="FAILED (exit code $code)${note:+ $note}"
      STEPS_FAILED=$((STEPS_FAILED + 1))
      ;;
  esac
  STEP_TABLE+="$name"$'\t'"$seconds"$'\t'"$note"$'\n'
  return 0
}

# A step that cannot run because an earlier one failed.
step_blocked() {
  STEP_TABLE+="$1"$'\t'"-"$'\t'"FAILED (not run: $2)"$'\n'
  STEPS_FAILED=$((STEPS_FAILED + 1))
}

last_step_failed() { [[ "$STEP_TABLE" =~ FAILED[^$'\n']*$'\n'$ ]]; }

elapsed() { LC_ALL=C awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# print_table TITLE_OF_LAST_COLUMN
print_table() {
  echo
  printf '%s' "step"$'\t'"seconds"$'\t'"$1"$'\n'"$STEP_TABLE" |
    LC_ALL=C awk -F '\t' 'NF { printf "%-28s %8s  %s\n", $1, $2, $3; total += $2 }
      END { printf "%-28s %8.1f\n", "total", total }'
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
  local -a generator=()
  if [ ! -f "$folder/CMakeCache.txt" ] && command -v ninja >/dev/null 2>&1; then generator=(-G Ninja); fi
  cmake -S . -B "$folder" "${generator[@]}" "$@"
}

build() { cmake --build "$1" --parallel "$(nproc)" "${@:2}"; }
