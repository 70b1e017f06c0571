#!/usr/bin/env python3
"""Compares the `switchback` command with PyTorch in float64, at full size.

    tests/compare_torch.py [--install] [--switchback build/switchback] [--models vgg16,alexnet,resnet34,lenet] [--quick]
                           [--device cpu|cuda[:N]]

Needs PyTorch (Debian's python3-torch 1.13 or newer) and, for the architectures' cross-check and the preprocessing,
torchvision; --install gets them with apt. VGG16, AlexNet and ResNet-34 have the weights `random:SEED`, drawn again in
numpy and loaded into PyTorch, LeNet the shipped ones. For each network and convolution algorithm:

  logits     within 1e-5 (norm-wise) of float64
  rounding   logits and hidden activations deviate by at most 8 σ, element by element, σ from the propagated variances
             of rounding (tests/compare/reference.py derives them)
  loaded     maps of the three rules, of an output and of hidden units, with the float64 run's gates and switches loaded
             (--load-tape): within 1e-5
  tape       run freely (--save-tape): every gate or switch that differs from float64's has a margin within 8 σ
  own tape   the freely run map against float64 with the gates and switches that the command itself saved: within 1e-5
  stable     where float64's own map moves less than 1e-5 under 1e-6 of input noise: the freely run map within 1e-4
             (see check_stable for the few that hang on a gate at the brink)

Then the lower precisions of the device: logits and maps under loaded tapes within what their roundings allow, free maps
reported beside PyTorch's bf16; SmoothGrad with the same noise; preprocessing against torchvision on PIL images; 30 steps of
training LeNet, the autoencoder and ResNet-20 (tests/compare/training.py).

With --device cuda the command runs on a GPU, PyTorch in float64 on the CPU as ever; the algorithms are then own, direct
and cudnn. What rounding bound to hold cuDNN's choice to is not known: of it, norms and loaded maps alone are checked.
Ends with "N passed, N failed, N skipped"; the exit code is 1 if anything failed."""

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/compare", "weights", "tools/bench")]
MODELS = ("vgg16", "alexnet", "resnet34", "lenet")


def install_torch():
    """PyTorch and torchvision from Debian when they do not import."""
    try:
        for module in ("numpy", "torch", "torchvision"):
            importlib.import_module(module)
        return
    except ImportError as missing:
        print(f"compare_torch: {missing}; installing Debian's packages", flush=True)
    if Path(sys.executable).resolve().parent != Path("/usr/bin"):
        sys.exit(f"compare_torch: error: {sys.executable} is not Debian's Python, apt cannot install PyTorch for it "
                 "(run /usr/bin/python3 tests/compare_torch.py --install)")
    if subprocess.run(["bash", str(ROOT / "tools" / "setup.sh"), "compare"]).returncode != 0:
        sys.exit("compare_torch: error: PyTorch could not be installed (see above; as root: "
                 "apt-get install python3-torch python3-torchvision libopenblas0-pthread)")
    os.execv(sys.executable, [sys.executable] + [a for a in sys.argv if a != "--install"])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchback", "--binary", type=Path, default=ROOT / "build" / "switchback",
                        help="the command (default build/switchback)")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda[:N]", help="where the command runs (default cpu)")
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated; may be empty")
    parser.add_argument("--skip", default="", help="comma-separated: preprocessing, smoothgrad, precisions, training")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="also write each row there, as a line of JSON")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--quick", action="store_true", help="no VGG16, smaller inputs, the default --conv alone")
    parser.add_argument("--install", action="store_true", help="apt-get install PyTorch when it is missing")
    args = parser.parse_args()
    if not re.fullmatch(r"cpu|cuda(:\d+)?", args.device):
        parser.error(f"--device {args.device} is none of cpu, cuda, cuda:N")
    if unknown := [m for m in args.models.split(",") if m and m not in MODELS]:
        parser.error(f"unknown model {unknown[0]} (of {', '.join(MODELS)})")
    if not os.access(args.switchback, os.X_OK):
        parser.error(f"{args.switchback} is not there or not executable (build first, or name it with --switchback)")
    return args


if __name__ == "__main__":
    ARGS = arguments()
    if ARGS.install:
        install_torch()

try:
    import numpy as np
    import torch
except ImportError as missing:
    sys.exit(f"compare_torch: error: {missing} (run with --install, or with a Python that has PyTorch)")

import checks  # noqa: E402
import methods  # noqa: E402
import training  # noqa: E402


def main(args):
    torch.set_num_threads(args.threads)
    start, report = time.time(), checks.Report(args.rows)
    python = sys.version.split()[0]
    print(f"PyTorch {torch.__version__}, numpy {np.__version__}, Python {python}, {args.threads} threads; "
          f"switchback on {args.device}")
    models = [m for m in args.models.split(",") if m and not (args.quick and m == "vgg16")]
    with tempfile.TemporaryDirectory(prefix="switchback-compare-") as folder:
        try:
            sb = checks.Switchback(args.switchback, folder, args.device)
        except checks.Failed as why:
            sys.exit(f"compare_torch: error: {why}")
        if "cudnn" in sb.missing:
            report.skip("cudnn", sb.missing["cudnn"])
        for model in models:
            report.head(f"{model} against float64")
            case = checks.Case(model, sb, report)
            if model != "vgg16":
                checks.check_parameters(case)
            checks.check_model(case, args.quick)
            if model == "lenet":
                methods.check_digits(case)
            if "precisions" not in args.skip and not args.quick:
                methods.check_precisions(case, checks.SIZES[model][0])
            case = None  # its float64 weights go before the next ones come
        if "preprocessing" not in args.skip:
            methods.check_preprocessing(sb, report)
        if "smoothgrad" not in args.skip:
            report.head("SmoothGrad with the same noise")
            methods.check_smoothgrad(checks.Case("lenet", sb, report), (1, 28, 28), 8, report)
            methods.check_smoothgrad(checks.Case("resnet18", sb, report), (3, 64, 64), 3, report)
        if "training" not in args.skip:
            training.check_training(sb, report)
    print(f"\n{sb.runs} runs of the command, {time.time() - start:.0f} s")
    print(f"{report.passed} passed, {report.failed} failed, {report.skipped} skipped")
    return 1 if report.failed or report.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(ARGS))
