#!/bin/sh
# Compiles FILE.cu and leaves beside its object what the assembler says of the kernels, in FILE.cu.o.ptxas, and the PTX of
# them that it was given for Hopper, in FILE.ptx.
#   nvcc_report.sh [LAUNCHER] NVCC ARGUMENTS... -o FILE.cu.o
object='' previous=''
for word; do
  if [ "$previous" = -o ]; then object=$word; fi
  previous=$word
done
code=0
mkdir -p "$object.steps"
"$@" -Xptxas -v --keep --keep-dir "$object.steps" >"$object.ptxas" 2>&1 || code=$?
for ptx in "$object.steps"/*.compute_90a.ptx; do
  if [ -f "$ptx" ]; then mv "$ptx" "${object%.cu.o}.ptx"; fi
done
rm -rf "$object.steps"
grep -v -e '^ptxas info' -e '^ *[0-9]* bytes stack frame' "$object.ptxas" >&2
exit "$code"
