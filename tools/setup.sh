#!/usr/bin/env bash
# Installs the Debian packages that are missing, and nothing else.
#
#   tools/setup.sh [PURPOSE...]       purposes: build (default), test, fuzz, compare, shell, mpi
#   . tools/setup.sh; switchback_setup build test
#
# Works as root or with sudo, without questions. Where all packages are there, apt is not touched.
# SWITCHBACK_SKIP_SETUP=1 skips it (another distribution, packages from elsewhere).

# shellcheck disable=SC2034  # read by name in switchback_setup
SWITCHBACK_PACKAGES_build="cmake ninja-build g++ libdnnl-dev libfmt-dev zlib1g-dev nlohmann-json3-dev libcli11-dev libstb-dev libwebp-dev libonnx-dev libprotobuf-dev"
# shellcheck disable=SC2034  # the sanitizers' run-time libraries come with g++; NumPy is for the scripts in weights/
SWITCHBACK_PACKAGES_test="libgtest-dev python3 python3-numpy"
# shellcheck disable=SC2034  # libFuzzer is part of clang's run-time libraries
SWITCHBACK_PACKAGES_fuzz="clang libclang-rt-dev"
# shellcheck disable=SC2034
SWITCHBACK_PACKAGES_shell="shellcheck"
# shellcheck disable=SC2034  # ranks of commands over data sets; without it their tests are skipped
SWITCHBACK_PACKAGES_mpi="libopenmpi-dev openmpi-bin"
# shellcheck disable=SC2034  # PyTorch to compare with, with a BLAS that is worth comparing with
SWITCHBACK_PACKAGES_compare="python3 python3-numpy python3-torch python3-torchvision libopenblas0-pthread"

switchback_setup_say() { printf 'setup: %s\n' "$*" >&2; }

# Prints those of the given packages that are not installed.
switchback_setup_missing() {
  local package
  for package in "$@"; do
    case "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" in
      installed) ;;
      *) printf '%s ' "$package" ;;
    esac
  done
}

# True when apt knows no version of one of the given packages (package lists empty or too old).
switchback_setup_unknown() {
  local package
  for package in "$@"; do
    if ! LC_ALL=C apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]'; then return 0; fi
  done
  return 1
}

# switchback_setup_apt LOG ARGUMENTS...: apt-get as root, quiet unless it fails.
switchback_setup_apt() {
  local log=$1
  shift
  local -a as_root=()
  if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -o DPkg::Lock::Timeout=300 "$@" \
    >"$log" 2>&1 </dev/null
}

# Root, or sudo that answers (with a password typed at a terminal if need be).
switchback_setup_may_install() {
  [ "$(id -u)" -eq 0 ] && return 0
  command -v sudo >/dev/null 2>&1 || return 1
  sudo -n true 2>/dev/null && return 0
  [ -t 0 ] && sudo -v
}

switchback_setup_install() {
  local log=$1 updated=no package failed=""
  shift
  local command="apt-get install -y --no-install-recommends"
  if switchback_setup_unknown "$@"; then
    switchback_setup_say "reading the package lists (apt-get update)"
    switchback_setup_apt "$log" update || switchback_setup_say "apt-get update failed: $(tail -n 1 "$log")"
    updated=yes
  fi
  switchback_setup_say "installing: $*"
  if switchback_setup_apt "$log" install -y --no-install-recommends "$@"; then return 0; fi
  if [ "$updated" = no ]; then  # the lists may name versions that are no longer served
    switchback_setup_say "retrying after apt-get update"
    switchback_setup_apt "$log" update || switchback_setup_say "apt-get update failed: $(tail -n 1 "$log")"
    if switchback_setup_apt "$log" install -y --no-install-recommends "$@"; then return 0; fi
  fi
  for package in "$@"; do  # which one is it?
    if ! switchback_setup_apt "$log" install -y --no-install-recommends "$package"; then
      failed+=" $package"
      switchback_setup_say "error: the package $package cannot be had; tried: $command $package"
      { grep -E '^(E|W|Err):' "$log" || tail -n 3 "$log"; } | sed 's/^/setup:   /' >&2
    fi
  done
  if [ -z "$failed" ]; then return 0; fi
  switchback_setup_say "error: could not install:$failed (is the network there, and does /etc/apt name a Debian 12 mirror?)"
  return 1
}

switchback_setup() {
  if [ "${SWITCHBACK_SKIP_SETUP:-0}" = 1 ]; then return 0; fi
  local purpose list log result=0
  local -a names=()
  local -a wanted=() missing=()
  for purpose in "${@:-build}"; do
    list="SWITCHBACK_PACKAGES_$purpose"
    if [ -z "${!list:-}" ]; then
      switchback_setup_say "error: unknown purpose $purpose (build, test, fuzz, compare or shell)"
      return 2
    fi
    read -r -a names <<<"${!list}"
    wanted+=("${names[@]}")
  done
  if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    switchback_setup_say "error: this is no Debian machine (no apt-get); install what corresponds to: ${wanted[*]}," \
      "then set SWITCHBACK_SKIP_SETUP=1"
    return 1
  fi
  read -r -a missing <<<"$(switchback_setup_missing "${wanted[@]}")"
  if [ "${#missing[@]}" -eq 0 ]; then return 0; fi
  if ! switchback_setup_may_install; then
    switchback_setup_say "error: packages are missing, and there is neither root nor a working sudo to install them;" \
      "run as root: apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    return 1
  fi
  log=$(mktemp)
  switchback_setup_install "$log" "${missing[@]}" || result=1
  rm -f "$log"
  return "$result"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -euo pipefail
  switchback_setup "$@"
fi
