#!/usr/bin/env bash
# Trains small networks with `switchback train`, and puts their weights, logs and entries of the manifest in place. Of what is
# shipped all was made so. tests/golden/make_golden.py reads lenet: make its data again after it.
#   weights/train.sh [--data FOLDER] [--runs FOLDER] [NAME ...]
#     --data    holds mnist/ (the four idx .gz files) and cifar10/ (train_000.png … and their labels); default
#               $SWITCHBACK_DATA, or else ../shared/data
#     --runs    where the runs go: every checkpoint, log and curve (default out/runs)
#     NAME      lenet, autoencoder, resnet20, encoder_decoder, encoder_decoder_code, spirals (default: spirals)
# The program is $SWITCHBACK, or else build/switchback. Recipes are fixed beforehand and the last epoch is kept: test images
# choose nothing. The same program gives the same bytes on every processor that takes the same kernels. Needs Python 3 with
# NumPy, for the manifest and the spirals' points.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

switchback=${SWITCHBACK:-build/switchback}
data=${SWITCHBACK_DATA:-../shared/data}
runs=out/runs
names=()
while [ $# -gt 0 ]; do
  case $1 in
    --data | --runs)
      [ $# -ge 2 ] || { echo "train.sh: $1 wants a folder" >&2; exit 2; }
      if [ "$1" = --data ]; then data=$2; else runs=$2; fi
      shift
      ;;
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' weights/train.sh
      exit 0
      ;;
    lenet | autoencoder | resnet20 | encoder_decoder | encoder_decoder_code | spirals) names+=("$1") ;;
    *)
      echo "train.sh: unknown network or option $1 (see --help)" >&2
      exit 2
      ;;
  esac
  shift
done
[ ${#names[@]} -gt 0 ] || names=(spirals)
[ -x "$switchback" ] || { echo "train.sh: there is no $switchback (build it, or name it with SWITCHBACK=FILE)" >&2; exit 1; }

mnist=$data/mnist cifar=$data/cifar10
need() { [ -e "$1" ] || { echo "train.sh: there is no $1 (name the data with --data FOLDER)" >&2; exit 1; }; }

# run NAME ARGUMENTS...: one training run, and its results in their places.
run() {
  local name=$1
  shift
  mkdir -p "$runs"
  echo "== $name"
  "$switchback" train "$@" -o "$runs/$name"
  python3 weights/ship.py "$name" "$runs/$name" -- switchback train "$@"
}

on_mnist() { need "$mnist/train-images-idx3-ubyte.gz"; }
on_cifar() { need "$cifar/train_000.png"; }
cifar_train=("$cifar"/train_00[0-3].png)
cifar_test=$cifar/test_000.png

for name in "${names[@]}"; do
  case $name in
    lenet)
      on_mnist
      run lenet "$mnist/train-images-idx3-ubyte.gz" --validate "$mnist/t10k-images-idx3-ubyte.gz" --model lenet \
        --epochs 20 --batch-size 128 --optimizer adamw --lr 0.004 --weight-decay 0.01 --schedule one-cycle --augment crop:2,rotate:10
      ;;
    autoencoder)
      on_cifar
      run autoencoder "${cifar_train[@]}" --validate "$cifar_test" --model autoencoder --loss mse \
        --epochs 100 --batch-size 32 --optimizer adam --lr 0.002 --schedule one-cycle --augment flip
      ;;
    resnet20)
      on_cifar
      run resnet20 "${cifar_train[@]}" --validate "$cifar_test" --model resnet20 \
        --epochs 30 --batch-size 32 --optimizer sgd --lr 0.05 --momentum 0.9 --nesterov --weight-decay 0.0005 \
        --schedule exponential:0.88 --warm-up 125 --label-smoothing 0.1 --augment crop:4,flip
      ;;
    encoder_decoder | encoder_decoder_code)
      on_cifar
      form=paper
      [ "$name" = encoder_decoder ] || form=code
      run "$name" "${cifar_train[@]}" --validate "$cifar_test" --model "encoder_decoder:classes=10,narrow=8,form=$form" \
        --epochs 50 --batch-size 32 --optimizer adam --lr 0.003 --schedule exponential:0.94 --warm-up 250 \
        --augment rotate:20,flip,crop:6
      ;;
    spirals)
      mkdir -p "$runs"
      python3 weights/ship.py points "$runs"
      run spirals "$runs/points.npy" --labels "$runs/labels.npy" --model mlp:2-16-16-2 \
        --epochs 300 --batch-size 40 --optimizer adam --lr 0.01
      ;;
  esac
done
