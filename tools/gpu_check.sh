#!/usr/bin/env bash
# Tests and measures on a machine with an NVIDIA GPU; nothing is installed, no setting of the GPU is changed. From an
# unpacked bundle (tools/bundle.sh), or from a checkout, which is then built in build-gpu/ (CMake, nvcc).
#   tools/gpu_check.sh                       all stages, 25 minutes at most; results in out/gpu-check/
#   tools/gpu_check.sh --short               what is worth most, 10 minutes at most; all results in out/gpu-check.tar.gz
#   tools/gpu_check.sh --minutes M           another total; every stage gets its share of it, 8 minutes at most
#   tools/gpu_check.sh --stage A[,B...]      only these (--list names them)
#   tools/gpu_check.sh --out DIR             results there; parts of earlier runs in it stay and are reported, too
#   tools/gpu_check.sh --python FILE         the Python that has PyTorch (default python3)
# Stages: the suite on the GPU; torch, tests/compare_torch.py on the GPU; compute-sanitizer's four tools on parts of it;
# ceilings of the card; convolutions timed beside cuDNN; the lab, which sweeps our GEMM kernels over the layers of some
# networks and leaves the winners in DIR/gemm-table.txt; SmoothGrad, occlusion, Jacobian and etalons beside PyTorch.
# Each stage leaves DIR/STAGE.json and DIR/STAGE.log at once, one that fails stops no other, and after each one the parts
# are merged into DIR/REPORT.md and REPORT.json. cuDNN and cuBLASLt of PyTorch's wheels are found through --python.
# Exit code: 0 all done, 1 something failed, 2 usage, 3 no GPU here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# stage: seconds it may take at most
STAGES="info:30 suite:480 torch:300 memcheck:240 racecheck:240 initcheck:120 synccheck:120 ceilings:90
  conv-fp32:180 conv-tf32:150 conv-bf16:150 conv-fp16:150 lab:300
  smoothgrad-fp32:300 smoothgrad-tf32:300 smoothgrad-bf16:300 smoothgrad-fp16:300 occlusion-bf16:300 jacobian:60
  etalon:150"
# In order of worth, for a GPU that is at hand for minutes.
SHORT_STAGES="info:30 suite:150 conv-bf16:60 smoothgrad-bf16:75 conv-fp32:60 smoothgrad-fp32:75 occlusion-bf16:75
  etalon:45 lab:60"
LEAST=15   # seconds; a stage that can have no more is left out
DECENT=60  # seconds that a stage gets, if need be from those after it

minutes=""
short=no
out=out/gpu-check
wanted=""
python=python3

usage_error() {
  echo "gpu_check.sh: $1 (--short, --minutes M, --out DIR, --stage NAME[,NAME...], --python FILE, --list)" >&2
  exit 2
}

limit_of() { tr -s ' \n' '\n' <<<"$STAGES" | sed -n "s/^$1:\([0-9]*\)$/\1/p"; }
all_stages() { tr -s ' \n' '\n' <<<"$STAGES" | sed -n 's/:.*//p'; }

while [ $# -gt 0 ]; do
  case $1 in
    --minutes | --out | --stage | --python)
      [ $# -ge 2 ] || usage_error "$1 wants a value"
      case $1 in
        --minutes) minutes=$2 ;;
        --out) out=$2 ;;
        --stage) wanted=$2 ;;
        --python) python=$2 ;;
      esac
      shift
      ;;
    --short)
      short=yes
      STAGES=$SHORT_STAGES
      ;;
    --list)
      all_stages
      exit 0
      ;;
    -h | --help)
      sed -n '2,16s/^# //p' tools/gpu_check.sh
      exit 0
      ;;
    *) usage_error "unknown option $1" ;;
  esac
  shift
done
if [ -z "$minutes" ]; then
  minutes=25
  if [ "$short" = yes ]; then minutes=10; fi
fi
[[ $minutes =~ ^[1-9][0-9]*$ ]] || usage_error "--minutes '$minutes' is no whole number above 0"
command -v "$python" >/dev/null 2>&1 || usage_error "there is no $python"

mapfile -t stages < <(if [ -n "$wanted" ]; then tr , '\n' <<<"$wanted"; else all_stages; fi)
for stage in "${stages[@]}"; do
  [ -n "$(limit_of "$stage")" ] || usage_error "unknown stage '$stage'"
done
mkdir -p "$out"
out=$(cd "$out" && pwd)

# leave STAGE STATUS REASON: the part of a stage that did not run
leave() {
  local reason=${3//\\/\\\\}
  reason=${reason//\"/\\\"}
  printf '{"stage": "%s", "status": "%s", "reason": "%s"}\n' "$1" "$2" "${reason//[[:cntrl:]]/ }" >"$out/$1.json"
  printf '%-18s %8s  %s\n' "$1" - "$2: $3"
}

# Where the wheels of this Python keep NVIDIA's libraries, if it has any: a:b:c.
wheel_libraries() {
  "$python" - <<'END'
import glob, importlib.util
spec = importlib.util.find_spec("nvidia")
print(":".join(f for root in spec.submodule_search_locations for f in sorted(glob.glob(root + "/*/lib"))) if spec else "")
END
}

report() { "$python" tools/bench/gpu_report.py --parts "$out" >/dev/null; }

# Why no GPU can be used, or nothing.
why_no_gpu() {
  local found
  if ! command -v nvidia-smi >/dev/null 2>&1; then
    echo "nvidia-smi is not on this machine"
  elif ! found=$(timeout 60 nvidia-smi -L 2>&1); then
    echo "nvidia-smi -L fails: ${found%%$'\n'*}"
  elif ! grep -q '^GPU ' <<<"$found"; then
    echo "nvidia-smi lists none"
  fi
}

# Sets `switchback` and `tests`; in a checkout builds them.
find_programs() {
  if [ -x bin/switchback ]; then
    switchback=bin/switchback tests=bin/switchback_tests
    export SWITCHBACK_WEIGHTS=${SWITCHBACK_WEIGHTS:-$PWD/weights}
    return
  fi
  # shellcheck source=tools/common.sh
  . tools/common.sh
  switchback=build-gpu/switchback tests=build-gpu/switchback_tests
  configure build-gpu -DCMAKE_BUILD_TYPE=Release -DSWITCHBACK_CUDA=ON -DSWITCHBACK_TESTS=ON \
    -DSWITCHBACK_LAB=ON && build build-gpu
}

libraries=$(wheel_libraries) || libraries=""
export SWITCHBACK_LIBRARIES=${SWITCHBACK_LIBRARIES:-}${SWITCHBACK_LIBRARIES:+:}$libraries

no_gpu=$(why_no_gpu)
if [ -n "$no_gpu" ]; then
  for stage in "${stages[@]}"; do leave "$stage" skipped "no GPU: $no_gpu"; done
  exit 3
fi
if ! find_programs >"$out/build.log" 2>&1; then
  for stage in "${stages[@]}"; do leave "$stage" failed "no bundle, and the build failed: see build.log"; done
  exit 1
fi

end=$((SECONDS + 60 * minutes))
to_come=0
for stage in "${stages[@]}"; do to_come=$((to_come + $(limit_of "$stage"))); done
failed=0
printf '%-18s %8s  %s\n' stage seconds result
for stage in "${stages[@]}"; do
  limit=$(limit_of "$stage")
  share=$(((end - SECONDS) * limit / to_come)) # what earlier stages left over goes to later ones
  to_come=$((to_come - limit))
  if [ "$share" -lt "$DECENT" ]; then share=$DECENT; fi
  left=$((end - SECONDS))
  for most in "$share" "$left"; do
    if [ "$most" -lt "$limit" ]; then limit=$most; fi
  done
  if [ "$limit" -lt "$LEAST" ]; then
    leave "$stage" skipped "no time left of $minutes minutes"
    continue
  fi
  rm -f "$out/$stage.json"
  start=$SECONDS code=0
  timeout -k 10 $((limit + 10)) "$python" tools/bench/gpu_measure.py "$stage" --switchback "$switchback" \
    --tests "$tests" --out "$out" --seconds "$limit" >"$out/$stage.log" 2>&1 || code=$?
  case $code in
    0) result="done" ;;
    77) result="skipped: $(tail -n 1 "$out/$stage.log")" ;;
    124 | 137) result="FAILED: stopped after $((SECONDS - start)) s" ;;
    *) result="FAILED: $(tail -n 1 "$out/$stage.log")" ;;
  esac
  if [ "$code" -ne 0 ] && [ "$code" -ne 77 ]; then failed=$((failed + 1)); fi
  [ -f "$out/$stage.json" ] || leave "$stage" failed "exit code $code without a result: see $stage.log"
  printf '%-18s %8s  %s\n' "$stage" $((SECONDS - start)) "$result"
  report || true # of what there is; the last one counts
done
report || failed=$((failed + 1))
echo "results in $out (REPORT.md)"
if [ "$short" = yes ]; then
  tar -C "$(dirname "$out")" -czf "$out.tar.gz" "$(basename "$out")" && echo "all of it: $out.tar.gz"
fi
if [ "$failed" -ne 0 ]; then exit 1; fi
