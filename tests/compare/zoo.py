#!/usr/bin/env python3
"""The built-in networks that torchvision has, too, beside torchvision in float64.

    tests/compare/zoo.py [--switchback build/switchback] [--models NAME,…] [--side N] [--seed N]

Of each network: the command draws weights (`random:SEED`) and saves them; torchvision's model takes the file, every name and
shape of it (strict); both run on the same random input. Logits must agree to 1e-5, norm-wise. So must the gradient of the
largest output (of maps: of the sum over a channel), but to 1e-3 where the network decides by gates or switches: one that falls
the other way by rounding moves the map. Beside ours stands what PyTorch's own float32 is off. Without --models: all, at the
size that each of them takes (--side: at that one instead, where the network takes any). Needs torch, torchvision and
safetensors."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent.parent
FAMILIES = ("densenet", "inception", "mnasnet", "shufflenet", "mobilenet", "efficientnet", "regnet", "convnext", "vit", "swin",
            "fcn_resnet", "deeplabv3_resnet", "lraspp", "googlenet", "squeezenet", "resne", "wide_resnet50_2", "alexnet", "vgg")
SMOOTH = ("efficientnet", "convnext", "vit", "swin")  # nothing is decided by a gate
ONE_SIZE = ("vit", "swin", "inception", "googlenet")
BUFFERS = ("num_batches_tracked", "relative_position_index", "relative_coords_table")


def model_of(name):
    more = {}
    if name in ("inception_v3", "googlenet"):
        more = dict(aux_logits=False, transform_input=True, init_weights=False)
    if name.startswith(("fcn", "deeplab", "lraspp")):
        more = dict(weights_backbone=None)
    return torchvision.models.get_model(name, weights=None, **more).eval()


def load(model, path):
    state = OrderedDict(load_file(path))
    state._metadata = model.state_dict()._metadata  # MNASNet asks for its version
    missing, unknown = model.load_state_dict(state, strict=False)
    missing = [m for m in missing if not m.endswith(BUFFERS)]
    if missing or unknown:
        raise ValueError(f"missing in ours: {missing[:5]}; not in torchvision's: {unknown[:5]}")


def run(model, x):
    """(logits, index of the largest, gradient of it)"""
    x = x.clone().requires_grad_()
    y = model(x)
    y = y["out"] if isinstance(y, dict) else y
    totals = y.flatten(2).sum(2) if y.dim() == 4 else y
    target = totals[0].argmax().item()
    return y.detach(), target, torch.autograd.grad(totals[0, target], x)[0]


def off(a, b):
    a, b = torch.as_tensor(np.asarray(a), dtype=torch.float64), b.double()
    return ((a - b.reshape(a.shape)).norm() / b.norm()).item()


def compare(name, args, folder):
    def command(*more):
        subprocess.run([args.switchback, *map(str, more), "--quiet"], check=True, stdout=subprocess.DEVNULL)

    shape = subprocess.run([args.switchback, "info", "--model", name, "--json"], check=True, capture_output=True, text=True).stdout
    side = __import__("json").loads(shape)["input"][2]
    if args.side and not name.startswith(ONE_SIZE):
        side = args.side
    weights, given = folder / "w.safetensors", folder / "x.npy"
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(args.seed))
    np.save(given, x.numpy())
    model = model_of(name)
    command("classify", given, "--model", name, "--weights", f"random:{args.seed}", "--save", "npy", "--output", folder,
            "--save-weights", weights)
    load(model, weights)
    plain = run(model, x)
    y, target, g = run(model.double(), x.double())
    command("gradient", given, "--model", name, "--weights", weights, "--save", "npy", "--output", folder, "--target", target)
    ours = np.load(folder / "x.classify.npy"), np.load(next(folder.glob("x.gradient*.npy")))
    at = dict(values=off(ours[0], y), gradient=off(ours[1], g))
    theirs = dict(values=off(plain[0], y), gradient=off(plain[2], g) if plain[1] == target else float("nan"))
    for file in folder.glob("*"):
        file.unlink()
    # Where random weights leave a gradient far smaller than what it is the sum of, float32 cannot do better than PyTorch's.
    allowed = max(2e-5 if name.startswith(SMOOTH) else 1e-3, 3 * (theirs["gradient"] if theirs["gradient"] == theirs["gradient"] else 0))
    good = at["values"] < max(1e-5, 3 * theirs["values"]) and at["gradient"] < allowed
    print(f"{name:28} {side:4} {at['values']:9.1e} {theirs['values']:9.1e} {at['gradient']:11.1e} {theirs['gradient']:9.1e}  "
          f"{'' if good else 'DIFFERS'}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchback", default=str(ROOT / "build" / "switchback"))
    parser.add_argument("--models", default="")
    parser.add_argument("--side", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    listed = subprocess.run([args.switchback, "models", "--json"], check=True, capture_output=True, text=True).stdout
    names = [m["name"] for m in __import__("json").loads(listed)["models"]]
    names = args.models.split(",") if args.models else [n for n in names if n.startswith(FAMILIES)]
    start, failed = time.time(), []
    print(f"{'network':28} side    values (PyTorch f32)  gradient (PyTorch f32)")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            try:
                if not compare(name, args, Path(folder)):
                    failed.append(name)
            except (ValueError, RuntimeError, subprocess.CalledProcessError) as why:
                print(f"{name:28} {why}", flush=True)
                failed.append(name)
    print(f"{len(names) - len(failed)} of {len(names)} networks agree, {time.time() - start:.0f} s"
          + (f"; not: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
