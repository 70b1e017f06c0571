#!/usr/bin/env python3
"""Class activation maps of `switchback cam` beside those of pytorch-grad-cam (Gildenblat et al.), on a ResNet-18 with random
weights, an image of random waves and two classes: 1e-4 of the largest value.

    tests/compare/cams.py [--switchback build/switchback] [--time]

Needs torch, torchvision and grad-cam. Theirs are taken before they are scaled to 0 .. 1. Where theirs differ by design: Grad-CAM++
adds 1e-6 to a denominator that is often smaller, and is left out; Score-CAM enlarges maps with aligned corners, here it does as its authors'
program; Eigen-CAM leaves the sign of the component open. RISE, which they lack, is compared with its authors' formula under the
masks that viz/methods/cam.h documents. (A max pool or ReLU that falls otherwise in float32 moves single values: at --size 64 one of
fullgrad's by 3e-4.) --time: seconds of both programs for the slow ones, one after the other."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from pytorch_grad_cam import AblationCAM, EigenCAM, FullGrad, GradCAM, HiResCAM, LayerCAM, ScoreCAM, XGradCAM
import pytorch_grad_cam.ablation_cam
import pytorch_grad_cam.score_cam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "weights"), str(ROOT / "tests/compare")]
from reference import lively  # noqa: E402
from shipping import write_safetensors  # noqa: E402

METHODS = {"gradcam": GradCAM, "hirescam": HiResCAM, "layercam": LayerCAM, "xgradcam": XGradCAM,
           "eigencam": EigenCAM, "scorecam": ScoreCAM, "ablationcam": AblationCAM}
LAYERS = {"layer4.1.relu_1": lambda net: net.layer4[-1], "layer3.1.relu_1": lambda net: net.layer3[-1]}
TARGETS = (3, 281)
LIMIT = 1e-4


def waves(size):
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:size, :size] / size
    image = sum(rng.normal(size=(3, 1, 1)) * np.sin(rng.uniform(2, 40) * x + rng.uniform(2, 40) * y + rng.uniform(0, 6)) for _ in range(12))
    return image[None].astype(np.float32)


def theirs(method, net, layer, x):
    """[T,h,w], with the ReLU that they take and without their scaling."""
    with METHODS[method](model=net, target_layers=[layer]) as cam:
        kept, inner = [], cam.get_cam_image
        cam.get_cam_image = lambda *a, **k: kept.append(inner(*a, **k)) or kept[-1]
        cam.batch_size = 32
        for target in TARGETS:
            cam(input_tensor=x.clone(), targets=[ClassifierOutputTarget(target)])
    return np.maximum(np.concatenate(kept), 0), np.concatenate(kept)


def ours(args, folder, *options):
    done = subprocess.run([args.switchback, "cam", str(folder / "x.npy"), "--model", "resnet18", "--weights", str(folder / "net.safetensors"),
                           "--target", ",".join(map(str, TARGETS)), "--save", "npy", "-o", str(folder / "out"), "--name", "map", *options],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return np.load(folder / "out" / "map.npy")[0]


def philox(counter, key):
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ k0, q & 0xFFFFFFFF, (p >> 32) ^ d ^ k1, p & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def rise(net, x, masks, grid=7, keep=0.5):
    size = x.shape[-1]
    cell = -(-size // grid)
    total = torch.zeros(len(TARGETS), size, size, dtype=torch.float64)
    for m in range(masks):
        u = np.array([w for block in range(-(-(grid * grid + 2) // 4)) for w in philox((block, 3, m, 0), (0, 0))])
        u = ((u >> 8) + 0.5) / 2**24
        cells = torch.from_numpy((u[2:2 + grid * grid] < keep).astype(np.float32)).reshape(1, 1, grid, grid)
        large = F.interpolate(cells, (grid + 1) * cell, mode="bilinear", align_corners=False)[0, 0]
        down, right = int(u[0] * cell), int(u[1] * cell)
        mask = large[down:down + size, right:right + size]
        p = net(x * mask).softmax(1)[0]
        total += torch.stack([p[t].double() * mask for t in TARGETS])
    return (total / masks / keep).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchback", default=str(ROOT / "build" / "switchback"))
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--time", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(1)
    for quiet in (pytorch_grad_cam.ablation_cam, pytorch_grad_cam.score_cam):
        quiet.tqdm = SimpleNamespace(tqdm=lambda items, *_, **__: items)
    net = lively(torchvision.models.resnet18(weights=None).eval())
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_safetensors(folder / "net.safetensors", {k: v.numpy() for k, v in net.state_dict().items() if v.dtype == torch.float32})
        x = waves(args.size)
        np.save(folder / "x.npy", x)
        x = torch.from_numpy(x)

        class Enlarged(torch.nn.Module):  # as Score-CAM's authors do
            def __init__(self, size):
                super().__init__()
                self.size = size

            def forward(self, t):
                return F.interpolate(t, self.size, mode="bilinear", align_corners=False)

        torch.nn.UpsamplingBilinear2d = Enlarged
        for layer in args.layers.split(","):
            module = LAYERS[layer]
            for method in args.methods.split(","):
                start = time.monotonic()
                want, signed = theirs(method, net, module(net), x)
                middle = time.monotonic()
                got = ours(args, folder, "--method", method, "--layer", layer)
                end = time.monotonic()
                if method == "eigencam":  # either sign
                    want = min((np.maximum(s * signed, 0) for s in (1, -1)), key=lambda m: np.abs(m - got).max())
                scale = np.abs(want).max()
                error = np.abs(got - want).max() / scale if scale > 0 else np.abs(got).max()
                wrong += not error <= LIMIT
                seconds = f", {middle - start:.2f} s beside {end - middle:.2f} s with start" if args.time else ""
                print(f"{'ok  ' if error <= LIMIT else 'WRONG'} {method} at {layer}: {error:.1e}{seconds}", flush=True)
        net.fc.weight.data *= 1e6  # theirs adds 1e-7 to denominators
        write_safetensors(folder / "net.safetensors", {k: v.numpy() for k, v in net.state_dict().items() if v.dtype == torch.float32})
        with FullGrad(model=net, target_layers=[]) as cam:
            kept, inner = [], cam.compute_cam_per_layer
            cam.compute_cam_per_layer = lambda *a: kept.append(inner(*a)) or kept[-1]
            for target in TARGETS:
                cam(input_tensor=x.clone(), targets=[ClassifierOutputTarget(target)])
        want, got = np.concatenate(kept)[:, 0], ours(args, folder, "--method", "fullgrad")
        error = np.abs(got - want).max() / np.abs(want).max()
        wrong += not error <= LIMIT
        print(f"{'ok  ' if error <= LIMIT else 'WRONG'} fullgrad: {error:.1e}", flush=True)
        net.fc.weight.data /= 1e6
        write_safetensors(folder / "net.safetensors", {k: v.numpy() for k, v in net.state_dict().items() if v.dtype == torch.float32})
        with torch.no_grad():
            want = rise(net, x, 40)
        got = ours(args, folder, "--method", "rise", "--masks", "40", "--score", "probability")
        error = np.abs(got - want).max() / np.abs(want).max()
        wrong += not error <= LIMIT
        print(f"{'ok  ' if error <= LIMIT else 'WRONG'} rise, 40 masks: {error:.1e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
