#!/usr/bin/env bash
# Installs what is missing, builds, and makes pictures of the sample images under out/. From any folder:
#   tools/demo.sh            builds for this machine: with GPU code where there is an NVIDIA driver (and nvcc)
#   tools/demo.sh --cuda     with GPU code in any case
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/setup.sh
. tools/common.sh

switchback=build/switchback
out=out

cuda=OFF
if gpu_driver_here; then cuda=AUTO; fi
while [ $# -gt 0 ]; do
  case $1 in
    --cuda) cuda=ON ;;
    -h | --help)
      sed -n '2,4s/^# //p' tools/demo.sh
      exit 0
      ;;
    *)
      echo "demo.sh: unknown option $1 (--cuda)" >&2
      exit 2
      ;;
  esac
  shift
done

build_all() {
  if [ $cuda = OFF ]; then echo "no NVIDIA driver here: no GPU code (--cuda builds it)" >"$STEP_NOTE"; fi
  configure build -DCMAKE_BUILD_TYPE=Release -DSWITCHBACK_TESTS=OFF -DSWITCHBACK_CUDA=$cuda
  build build
}

# pictures FOLDER ARGUMENTS...: one run of the command; notes which files are new.
pictures() {
  local folder=$1 mark
  shift
  mkdir -p "$folder"
  mark=$(mktemp)
  sleep 0.02 # newer files must have a later time stamp
  "$switchback" "$@" --output "$folder"
  find "$folder" -name '*.png' -newer "$mark" | wc -l |
    awk -v d="$folder" '{ print $1 ($1 == 1 ? " picture" : " pictures") " in " d "/" }' >"$STEP_NOTE"
  rm -f "$mark"
}

finish() {
  print_table "result"
  if [ "$STEPS_FAILED" -ne 0 ]; then
    echo "$STEPS_FAILED of the steps failed; the messages are above."
    exit 1
  fi
}

step "install packages" switchback_setup build
if last_step_failed; then finish; fi
step "build" build_all
if last_step_failed; then finish; fi

digits=(weights/samples/digit_*.png)
photos=(weights/samples/chelsea.png weights/samples/astronaut.png)

step "classify" pictures $out classify "${digits[@]}" --model lenet --save png
step "gradient" pictures $out gradient "${digits[@]}" --model lenet
step "deconv" pictures $out gradient --rule deconv "${digits[@]}" --model lenet
step "guided" pictures $out gradient --rule guided "${digits[@]}" --model lenet
step "smoothgrad" pictures $out smoothgrad "${digits[@]}" --model lenet
step "integrated" pictures $out integrated "${digits[@]}" --model lenet
step "filters" pictures $out filters --model lenet
step "activations" pictures $out activations "${digits[0]}" "${digits[3]}" --model lenet --layer conv2
# Full-size networks run as fast, but no ImageNet weights are shipped: these maps show the architecture alone.
step "vgg16, random weights" pictures $out/vgg16-random-weights gradient --rule guided "${photos[@]}" --model vgg16 \
  --weights random:0

print_table "result"
if [ "$STEPS_FAILED" -ne 0 ]; then
  echo "$STEPS_FAILED of the steps failed; the messages are above."
  exit 1
fi
sheets=$(find $out -maxdepth 1 -name '*contact*.png' -printf '  %p\n' | sort)
first=$(find "$PWD/$out" -maxdepth 1 -name '*contact*smoothgrad*.png' -o -maxdepth 1 -name '*smoothgrad*contact*.png' | head -n 1)
first=${first:-$PWD/$out}
cat <<EOF

The pictures are in $PWD/$out. Contact sheets, one for each method:
$sheets
Open first: $first
($out/vgg16-random-weights shows a full-size network with random, untrained weights: structure of the network, not of
the photo's class.)
EOF
