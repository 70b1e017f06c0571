#!/usr/bin/env bash
# Packs what tools/gpu_check.sh needs on a GPU machine where nothing can be installed or built: the command and the
# tests with GPU code for A100 and Hopper, their libraries, golden data, weights and scripts. The target needs an NVIDIA
# driver, glibc 2.34 and the libstdc++ of GCC 11 or newer (Ubuntu 22.04, Debian 12, RHEL 9), whose own is used. On the other machine: tar xf switchback-gpu.tar.gz; switchback-gpu/tools/gpu_check.sh
#   tools/bundle.sh [OUT.tar.gz]         default out/switchback-gpu.tar.gz; 50 MiB at most
#   tools/bundle.sh --jobs N             compilers at a time (default: one a processor)
#   tools/bundle.sh --lab                also GEMM kernels with rings of other depths, for the lab to choose among; GPU
#                                        code for Hopper alone, because of the size
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/common.sh

MOST=$((50 << 20))
BUILD=build-bundle
NAME=switchback-gpu
out=out/$NAME.tar.gz
jobs=$(nproc)
lab=OFF archs="80-real;90a-real"
while [ $# -gt 0 ]; do
  case $1 in
    --jobs)
      jobs=${2:?--jobs wants a number}
      shift
      ;;
    --lab) lab=ON archs="90a-real" ;;
    -h | --help)
      sed -n '2,9s/^# //p' tools/bundle.sh
      exit 0
      ;;
    -*)
      echo "bundle.sh: unknown option $1 (--jobs N, --lab)" >&2
      exit 2
      ;;
    *) out=$1 ;;
  esac
  shift
done

# DT_RPATH, which the libraries' own needs follow, too; and tests that look for their data where they are started.
build_programs() {
  configure $BUILD -DCMAKE_BUILD_TYPE=Release -DSWITCHBACK_CUDA=ON -DSWITCHBACK_TESTS=ON \
    "-DCMAKE_CUDA_ARCHITECTURES=$archs" "-DSWITCHBACK_LAB=$lab" -DSWITCHBACK_ARCH=x86-64-v3 \
    "-DCMAKE_BUILD_RPATH=\$ORIGIN/../lib" -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags \
    -DSWITCHBACK_TEST_ROOT=. -DSWITCHBACK_TEST_BINARY=bin/switchback
  cmake --build $BUILD --parallel "$jobs" --target switchback switchback_tests
}

# Registers of every kernel, for predicted occupancy (in a lab build some may spill).
write_resources() {
  local file=$BUILD/resources.json
  rm -f "$file"
  tools/cuda_resources.py "$BUILD" --json "$file" >"$BUILD/resources.txt" || [ -s "$file" ]
}

# Shared libraries of a program, all but the C and C++ libraries: an older glibc could not load this machine's libstdc++.
libraries_of() {
  ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so'
}

# Fails where a program or library wants a newer glibc or libstdc++ than is promised above.
check_versions() {
  local file newest
  for file in "$1"/bin/* "$1"/lib/*; do
    newest=$( (readelf -V "$file" | grep -oE '(GLIBC_2|GLIBCXX_3\.4)\.[0-9]+'; echo GLIBC_2.34; echo GLIBCXX_3.4.29) |
      sort -uV | awk -F_ '{ last[$1] = $0 } END { for (k in last) print last[k] }' | sort | xargs)
    if [ "$newest" != "GLIBCXX_3.4.29 GLIBC_2.34" ]; then
      echo "bundle.sh: error: $(basename "$file") needs $newest; glibc 2.34 and libstdc++ 3.4.29 are promised" >&2
      return 1
    fi
  done
}

collect() {
  local root=$1 program library
  mkdir -p "$root"/{bin,lib,tests,tools/bench}
  for program in switchback switchback_tests; do
    strip -o "$root/bin/$program" "$BUILD/$program"
    while read -r library; do
      strip --strip-unneeded -o "$root/lib/$(basename "$library")" "$library"
    done < <(libraries_of "$BUILD/$program")
  done
  cp -r tests/golden tests/compare tests/compare_torch.py "$root/tests/"
  cp -r weights "$root/"
  cp tools/gpu_check.sh "$root/tools/"
  cp tools/bench/*.py "$root/tools/bench/"
  cp "$BUILD/resources.json" LICENSE "$root/"
  find "$root" -name __pycache__ -prune -exec rm -rf {} +
  "$root/bin/switchback" --version >"$root/VERSION"
  if [ -n "$(git status --porcelain 2>/dev/null)" ]; then echo "with uncommitted changes" >>"$root/VERSION"; fi
}

build_programs
write_resources
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
collect "$folder/$NAME"
check_versions "$folder/$NAME"
mkdir -p "$(dirname "$out")"
tar -C "$folder" --sort=name --owner=0 --group=0 --numeric-owner -czf "$out" "$NAME"
bytes=$(stat -c %s "$out")
if [ "$bytes" -gt "$MOST" ]; then
  echo "bundle.sh: error: $out has $((bytes >> 20)) MiB, more than $((MOST >> 20)); the largest inside, compressed:" >&2
  (cd "$folder" && find . -type f -size +256k -exec sh -c 'printf "%10d %s\n" "$(gzip -c "$1" | wc -c)" "$1"' _ {} \;) |
    sort -rn | head -n 8 >&2
  exit 1
fi
echo "$out: $((bytes >> 10)) KiB, $(head -n 1 "$folder/$NAME/VERSION")"
