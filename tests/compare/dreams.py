#!/usr/bin/env python3
"""What `switchback maximize` reaches, beside the same recipes in PyTorch in float32: the value of a unit after all steps.

    tests/compare/dreams.py --data FOLDER [--switchback build/switchback] [--recipes fleuret,mahendran,lucid] [--out FILE.md]

FOLDER: the ONNX networks and the JSON files beside them. Twenty units of eight networks. `fleuret` and `mahendran` begin at the
same image in both programs; what else is random (jitter, all of lucid) is drawn by each itself, so single units may end higher in
either. The median over the units of ours / PyTorch's must be 0.98 at least. Needs torch and onnx."""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools/bench"))
from compare_dreams import edge_energy  # noqa: E402

UNITS = {
    "squeezenet1_1_mxnet": [130, 985, 1, 323],
    "mobilenet_v2_1.0_224": [130, 88, 949],
    "mobilenet_v1_0.25_128": [131, 986, 2, 324],
    "resnet20_cifar10": [0, 3, 8],
    "resnet56_cifar10": [1, 5],
    "lenet_mnist": [3, 7],
    "bvlc_googlenet": [130],
    "vgg16_to_pool3": [17],
}
assert sum(map(len, UNITS.values())) == 20
LAYERS = {"vgg16_to_pool3": "conv3_3"}  # instead of an output
WANTED = 0.98
AXES = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


class Network:
    """An ONNX file in PyTorch: the operators of UNITS alone. A last softmax is left out."""

    def __init__(self, path, layer=None):
        model = onnx.load(path)
        self.values = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in model.graph.initializer}
        self.nodes = [(n, {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}) for n in model.graph.node]
        self.input = next(i for i in model.graph.input if i.name not in self.values)
        self.shape = [d.dim_value for d in self.input.type.tensor_type.shape.dim][1:]
        self.output = model.graph.output[0].name
        if self.nodes[-1][0].op_type == "Softmax":
            self.output = self.nodes.pop()[0].input[0]
        if layer:
            self.output = next(n.output[0] for n, _ in self.nodes if n.name == layer)

    def __call__(self, x):
        v = dict(self.values)
        v[self.input.name] = x
        for node, a in self.nodes:
            v[node.output[0]] = self.run(node, a, [v[i] if i else None for i in node.input])
            if node.output[0] == self.output:
                break
        return v[self.output]

    @staticmethod
    def padded(x, a, value=0.0):
        top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
        return F.pad(x, (left, right, top, bottom), value=value)

    def run(self, node, a, i):
        op, x = node.op_type, i[0]
        if op == "Conv":
            return F.conv2d(self.padded(x, a), i[1], i[2] if len(i) > 2 else None, a.get("strides", [1, 1]), 0,
                            a.get("dilations", [1, 1]), a.get("group", 1))
        if op == "Relu":
            return F.relu(x)
        if op == "Clip":
            return x.clamp(float(i[1]), float(i[2]))
        if op == "MaxPool":
            return F.max_pool2d(self.padded(x, a, -math.inf), a["kernel_shape"], a.get("strides", [1, 1]), ceil_mode=bool(a.get("ceil_mode", 0)))
        if op == "AveragePool":
            if any(a.get("pads", [0])):
                raise ValueError(f"{node.name}: a padded mean")
            return F.avg_pool2d(x, a["kernel_shape"], a.get("strides", [1, 1]), ceil_mode=bool(a.get("ceil_mode", 0)))
        if op == "GlobalAveragePool":
            return x.mean((2, 3), keepdim=True)
        if op == "Flatten":
            return x.flatten(a.get("axis", 1))
        if op == "Gemm":
            if a.get("transA", 0) or a.get("alpha", 1.0) != 1 or a.get("beta", 1.0) != 1:
                raise ValueError(f"{node.name}: a product of another kind")
            return x @ (i[1].T if a.get("transB", 0) else i[1]) + i[2]
        if op == "BatchNormalization":
            return F.batch_norm(x, i[3], i[4], i[1], i[2], eps=a.get("epsilon", 1e-5))
        if op == "LRN":
            return F.local_response_norm(x, a["size"], a["alpha"], a["beta"], a["bias"])
        if op == "Concat":
            return torch.cat(i, a["axis"])
        if op == "Add":
            return i[0] + i[1]
        if op == "Slice":
            for start, end, axis, step in zip(*(t.tolist() for t in (i[1], i[2], i[3], i[4]))):
                x = x[tuple([slice(None)] * (axis % x.dim()) + [slice(start, min(end, x.shape[axis]), step)])]
            return x
        if op == "Pad":
            p = i[1].tolist()
            pairs = [(p[d], p[d + x.dim()]) for d in reversed(range(x.dim()))]
            return F.pad(x, [n for pair in pairs for n in pair])
        raise ValueError(f"{node.name}: {op}")


class Unit:
    """A channel of a network's output, with pixels as the network takes them."""

    def __init__(self, net, about, channel):
        self.net, self.channel, (self.c, self.h, self.w) = net, channel, net.shape
        self.bgr = about["channel_order"] == "BGR"
        view = (1, -1, 1, 1)
        # In the order of the network's channels; x = pixel·scale + offset, pixels 0 to 1.
        std, mean = torch.tensor(about["std"]).float(), torch.tensor(about["mean"]).float()
        self.scale = (255 * about["scale"] / std).view(view)
        self.offset = (-mean / std).view(view)

    def map(self, x):
        y = self.net(x)
        return y[:, self.channel]

    def value(self, x):
        return self.map(x).sum()


def adam(z, objective, lr, steps):
    z = z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    for k in range(steps):
        optimizer.zero_grad()
        (-objective(z, k)).backward()
        optimizer.step()
    return z.detach()


def fleuret(u, start):
    k = torch.tensor([1.0, 4, 6, 4, 1])
    kernel = (k[:, None] * k / 256)[None, None]
    # A network that takes bytes is driven in deviations of ImageNet's pixels, as large as the other networks' inputs.
    unit = 0.226 * u.scale if u.scale.max() > 20 else 1
    z = adam(start / unit, lambda z, _: u.value(z * unit) - edge_energy(z, kernel), 0.1, 250)
    return u.value(z * unit).item()


BOUND = 80.0


def uniform_bytes(net, about):
    """Where mahendran begins, in the network's input units."""
    reach = BOUND / math.sqrt(3) / 0.95
    return reach * (2 * torch.rand(1, *net.shape) - 1) * Unit(net, about, 0).scale / 255


def mahendran(u, start):
    bound, jitter, unit = BOUND, 4, u.scale / 255
    v = bound / 6.5
    rate = u.h * u.w * 0.05 * bound**2 / 6
    z = F.pad(start / unit, (2, 2, 2, 2), mode="replicate")
    m, g2 = torch.zeros_like(z), torch.zeros_like(z)
    for _ in range(300):
        z.requires_grad_()
        top, left = torch.randint(jitter + 1, (2,)).tolist()
        d1 = F.pad(z, (0, 1, 0, 0), mode="replicate")[..., :, 1:] - z
        d2 = F.pad(z, (0, 0, 0, 1), mode="replicate")[..., 1:, :] - z
        prior = ((z.pow(2).sum(1) / bound**2).pow(3).sum() + (d1.pow(2) + d2.pow(2)).sum() / v**2) / (u.h * u.w)
        g, = torch.autograd.grad(10 * u.value(z[..., top : top + u.h, left : left + u.w] * unit) - prior, z)
        z = z.detach()
        g2 = 0.9 * g2 + g * g
        m = 0.9 * m + g / (1 / rate + g2.sqrt())
        z = z + m
        norm = z.pow(2).sum(1, keepdim=True).sqrt()
        z = torch.where(norm > 2 * bound, z * (2 * bound / norm), z)
    return u.value(z[..., 2 : 2 + u.h, 2 : 2 + u.w] * unit).item()


def lucid(u, _):
    f = u.w // 2 + 1
    frequency = np.hypot(np.fft.fftfreq(u.h)[:, None], np.abs(np.fft.fftfreq(u.w)[:f])[None])
    factors = torch.from_numpy(math.sqrt(u.h * u.w) / np.maximum(frequency, 1 / max(u.h, u.w))).float()
    matrix = AXES / np.linalg.norm(AXES, axis=0).max() if u.c == 3 else np.eye(u.c)
    matrix = torch.from_numpy(matrix[::-1].copy() if u.bgr else matrix).float()

    def image(z):
        planes = torch.fft.irfft2(torch.view_as_complex(z) * factors, s=(u.h, u.w)) / 4
        return torch.sigmoid(torch.einsum("kd,dij->kij", matrix, planes))[None]

    def moved(pixels):
        angle, scale = math.radians(20 * torch.rand(()).item() - 10), 0.9 + 0.2 * torch.rand(()).item()
        down, right = (torch.randint(13, (2,)) - 6).tolist()
        c, s = math.cos(angle) / scale, math.sin(angle) / scale
        i, j = torch.meshgrid(torch.arange(u.h) - (u.h - 1) / 2, torch.arange(u.w) - (u.w - 1) / 2, indexing="ij")
        row, col = c * i - s * j + down, s * i + c * j + right
        grid = torch.stack([col * 2 / u.w, row * 2 / u.h], -1)[None]  # in halves of the image, its middle 0
        return F.grid_sample(pixels - 0.5, grid, align_corners=False) + 0.5

    def objective(z, _):
        return u.map(moved(image(z)) * u.scale + u.offset).mean()

    z = adam(0.01 * torch.randn(u.c, u.h, f, 2), objective, 0.05, 512)
    with torch.no_grad():
        return u.map(image(z) * u.scale + u.offset).mean().item()


RECIPES = {"fleuret": fleuret, "mahendran": mahendran, "lucid": lucid}


def ours(args, recipe, path, layer, channels, start):
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/start.npy", start.numpy())
        unit = ["--layer", f"{layer}:{','.join(map(str, channels))}"] if layer else ["--target", ",".join(map(str, channels))]
        first = ["--start", f"{folder}/start.npy"] if recipe != "lucid" else []
        done = subprocess.run([args.switchback, "maximize", "--model", str(path), *unit, "--recipe", recipe, *first, "--json",
                               "--save", "none", "--seed", str(args.seed), "-o", folder], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    found = json.loads(done.stdout)["inputs"]
    return [(i["start_value"], i["value"]) for i in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--switchback", default=str(ROOT / "build" / "switchback"))
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--networks", default=",".join(UNITS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    lines, summary, worst = [], [], math.inf
    for recipe in args.recipes.split(","):
        ratios = []
        for name in args.networks.split(","):
            path, layer, channels = args.data / f"{name}.onnx", LAYERS.get(name), UNITS[name]
            about = json.loads((args.data / f"{name}.json").read_text())
            net = Network(path, layer)
            start = uniform_bytes(net, about) if recipe == "mahendran" else 0.01 * torch.randn(1, *net.shape)
            got = ours(args, recipe, path, layer, channels, start)
            for channel, (first, mine) in zip(channels, got):
                at_start = Unit(net, about, channel).value(start).item()
                if recipe == "fleuret" and abs(first - at_start) > 1e-3 * max(1, abs(at_start)):
                    sys.exit(f"{name}, unit {channel}: {first} at the start, but {at_start} in PyTorch: not the same network")
                theirs = RECIPES[recipe](Unit(net, about, channel), start)
                ratios.append(mine / theirs)
                lines.append(f"| `{recipe}` | {name} | {layer + ':' if layer else ''}{channel} | {mine:.6g} | {theirs:.6g} | {ratios[-1]:.4f} |")
                print(lines[-1], flush=True)
        median = statistics.median(ratios)
        worst = min(worst, median)
        summary.append(f"| `{recipe}` | {len(ratios)} | {median:.4f} | {min(ratios):.4f} | {max(ratios):.4f} |")
        print(summary[-1], flush=True)
    text = "\n".join(["# What optimised images reach, beside PyTorch in float32", "",
                      f"`tests/compare/dreams.py`, PyTorch {torch.__version__}, {time.strftime('%Y-%m-%d')}: the unit's value after all steps, "
                      f"ours over PyTorch's; wanted is a median of {WANTED}. `fleuret` and `mahendran` begin at the same image in both, what else is random "
                      "each program draws itself.", "",
                      "| recipe | units | median | least | largest |", "|---|---|---|---|---|", *summary, "",
                      "| recipe | network | unit | ours | PyTorch's | ratio |", "|---|---|---|---|---|---|", *lines]) + "\n"
    if args.out:
        args.out.write_text(text)
    return 0 if worst >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
