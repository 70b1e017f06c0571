#!/usr/bin/env bash
# Installs a finished build into a temporary folder, then builds and runs the example against what was installed.
#   tests/install/run.sh BUILD_FOLDER
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build_dir=$(cd "${1:?usage: tests/install/run.sh BUILD_FOLDER}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

cmake --install "$build_dir" --prefix "$prefix" >"$work/install.log" || { cat "$work/install.log"; exit 1; }
for file in bin/switchback include/switchback/switchback.h include/switchback/engine/tensor.h \
  share/switchback/weights/lenet.safetensors; do
  [ -f "$prefix/$file" ] || { echo "not installed: $file"; exit 1; }
done
if grep -rIlF -e "$source_dir/" -e "$build_dir/" "$prefix/lib" "$prefix/include"; then
  echo "the files above name the folder they were built in"
  exit 1
fi

mv "$prefix" "$work/moved" # an installation may be moved
prefix=$work/moved
cp "$source_dir/tests/install/main.cpp" "$source_dir/tests/install/CMakeLists.txt" "$work"
cmake -S "$work" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_FLAGS="-Wall -Wextra -Werror"
cmake --build "$work/build"
mkdir "$work/elsewhere"
cd "$work/elsewhere" # nothing may depend on where it runs
"$work/build/example" "$prefix/share/switchback/weights" | tee example.log
grep -q 'reads 7 ' example.log || { echo "the example does not read the 7"; exit 1; }
[ -s seven.png ] || { echo "the example left no picture"; exit 1; }
"$prefix/bin/switchback" --version
"$prefix/bin/switchback" classify "$prefix/share/switchback/weights/samples/digit_3.png" --model lenet
