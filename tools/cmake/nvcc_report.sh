#!/bin/sh
# Compiles a .cu file, and leaves what the assembler says of its kernels in OBJECT.ptxas.
#   nvcc_report.sh [LAUNCHER] NVCC ARGUMENTS... -o OBJECT
object='' previous=''
for word; do
  if [ "$previous" = -o ]; then object=$word; fi
  previous=$word
done
code=0
"$@" -Xptxas -v >"$object.ptxas" 2>&1 || code=$?
grep -v -e '^ptxas info' -e '^ *[0-9]* bytes stack frame' "$object.ptxas" >&2
exit "$code"
