#!/usr/bin/env python3
"""Images that are optimised, beside PyTorch: steps of `switchback maximize` and `adversarial`, in turn with the same steps as
one writes them in PyTorch. Random weights: speed alone.

    tools/bench/compare_dreams.py [--switchback build/switchback] [--mnist FOLDER] [--rounds 3] [--out FILE.md]

vgg16      a step of Fleuret's recipe at 224x224: Adam on the edge energy less the score
channels   64 channels of a layer of SqueezeNet 1.1 at 128x128 by lucid's recipe: Fourier coefficients, decorrelated
           colours, moved, turned and scaled; in one batch, and, as lucent does it, one after another
pgd        PGD in L∞, 10 steps, on MNIST's test digits, in batches of 500

Ours is the difference of two runs of the command, of which one takes twice as many steps (pgd: images), so that neither
loading nor planning counts. PyTorch's is the better of contiguous and channels_last. Ratios are taken pair by pair.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

ROOT = Path(__file__).resolve().parent.parent.parent
LAYER = "features.3.expand1x1"


def seconds(args, *command):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([args.switchback, *map(str, command), "--json", "--save", "none", "-o", folder],
                              capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["seconds"]["run"]


def ours(args, count, of):
    """Seconds of one of what `of(n)` does n times."""
    for _ in range(3):  # where the machine was held up in the shorter run
        once, twice = seconds(args, *of(count)), seconds(args, *of(2 * count))
        if twice > 1.2 * once:
            return (twice - once) / count
    sys.exit(f"{' '.join(map(str, of(count)))}: {once:.3g} s and {twice:.3g} s for twice as much; is the machine busy?")


def timed(step, count):
    step()
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


class Ascent:
    """Adam on −objective(image(z))."""

    def __init__(self, z, objective):
        self.z, self.objective = z.requires_grad_(), objective
        self.optimizer = torch.optim.Adam([self.z], lr=0.05)

    def step(self):
        self.optimizer.zero_grad()
        (-self.objective(self.z)).backward()
        self.optimizer.step()


def edge_energy(x, kernel):
    u, total = x.reshape(-1, 1, x.shape[2], x.shape[3]), 0
    while min(u.shape[2:]) > 5:
        total = total + (u - F.conv2d(u, kernel, padding=2)).pow(2).sum()
        u = F.avg_pool2d(u, 2, padding=1)
    return total


def vgg16(layout):
    net = torchvision.models.vgg16().eval().to(memory_format=layout)
    k = torch.tensor([1.0, 4, 6, 4, 1])
    kernel = (k[:, None] * k / 256)[None, None]
    z = (0.01 * torch.randn(1, 3, 224, 224)).to(memory_format=layout)
    return Ascent(z, lambda x: net(x)[0, 0] - edge_energy(x, kernel)).step


def lucid(layout, channels, size=128):
    net = torchvision.models.squeezenet1_1().eval().to(memory_format=layout)
    part = torch.nn.Sequential(*list(net.features[:3]), net.features[3].squeeze, net.features[3].squeeze_activation,
                               net.features[3].expand1x1)
    n, f = len(channels), size // 2 + 1
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    factors = torch.from_numpy(size / np.maximum(frequency, 1 / size)).float()
    axes = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    axes = axes / axes.norm(dim=0).max()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    chosen = torch.tensor(channels)

    def objective(z):
        planes = torch.fft.irfft2(torch.view_as_complex(z) * factors, s=(size, size)) / 4
        image = torch.sigmoid(torch.einsum("kd,ndij->nkij", axes, planes)) - 0.5
        angle = (2 * torch.rand(n) - 1) * math.pi / 18
        scale, move = 1 + 0.1 * (2 * torch.rand(n) - 1), (2 * torch.rand(n, 2) - 1) * 12 / size
        c, s = torch.cos(angle) / scale, torch.sin(angle) / scale
        theta = torch.stack([torch.stack([c, -s, move[:, 0]], 1), torch.stack([s, c, move[:, 1]], 1)], 1)
        moved = F.grid_sample(image, F.affine_grid(theta, list(image.shape), align_corners=False), align_corners=False)
        x = ((moved + 0.5 - mean) / std).contiguous(memory_format=layout)
        return part(x)[torch.arange(n), chosen].mean((1, 2)).sum()

    return Ascent(0.01 * torch.randn(n, 3, size, f, 2), objective).step


class LeNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.layers = nn.Sequential(nn.Conv2d(1, 32, 5), nn.MaxPool2d(3), nn.ReLU(), nn.Conv2d(32, 64, 5), nn.MaxPool2d(2),
                                    nn.ReLU(), nn.Flatten(), nn.Linear(256, 200), nn.ReLU(), nn.Linear(200, 10))

    def forward(self, x):
        return self.layers(x)


def pgd(layout, batch=500):
    net, images = LeNet().eval().to(memory_format=layout), torch.rand(batch, 1, 28, 28).to(memory_format=layout)
    labels = torch.randint(10, (batch,))
    try:  # torchattacks itself, where it is installed
        import torchattacks

        model = torch.nn.Sequential(torchvision.transforms.Normalize([0.1307], [0.3081]), net)
        own = torchattacks.PGD(model.eval(), eps=0.3, alpha=0.075, steps=10, random_start=True)
        return lambda: own(images, labels), batch
    except ImportError:
        pass

    def attack():
        x = (images + torch.empty_like(images).uniform_(-0.3, 0.3)).clamp(0, 1).detach()
        for _ in range(10):
            x.requires_grad_()
            g, = torch.autograd.grad(F.cross_entropy(net((x - 0.1307) / 0.3081), labels), x)
            x = x.detach() + 0.075 * g.sign()
            x = (images + (x - images).clamp(-0.3, 0.3)).clamp(0, 1).detach()

    return attack, batch


def best(make, count, per=1):
    """PyTorch's seconds of one, by the better layout."""
    return min(timed(make(layout), count) / per for layout in (torch.contiguous_format, torch.channels_last))


def pairs(args, name, wanted, mine, *theirs):
    """A line of the report: our seconds, theirs, ratios pair by pair."""
    found = []
    for _ in range(args.rounds):
        found.append((mine(), [f() for _, f in theirs]))
    lines = []
    for i, (label, _) in enumerate(theirs):
        ratios = [t[i] / m for m, t in found]
        lines.append(f"| {name}, beside {label} | {wanted[i]} | {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) | "
                     f"{1e3 * statistics.median(m for m, _ in found):.3g} | {1e3 * statistics.median(t[i] for _, t in found):.3g} |")
        print(lines[-1], flush=True)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchback", default=str(ROOT / "build" / "switchback"))
    parser.add_argument("--mnist", type=Path, help="folder of t10k-images-idx3-ubyte.gz")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="vgg16,channels,pgd")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    only, lines = args.only.split(","), []
    threads = ("--threads", args.threads)
    if "vgg16" in only:
        lines += pairs(args, "a step of VGG16, Fleuret's recipe", ["2"],
                       lambda: ours(args, 6, lambda n: ("maximize", "--model", "vgg16", "--weights", "random:0", "--target", 0,
                                                        "--recipe", "fleuret", "--steps", n, *threads)),
                       ("PyTorch", lambda: best(vgg16, 4)))
    if "channels" in only:
        every = list(range(64))
        lines += pairs(args, f"a step of 64 channels of SqueezeNet 1.1's {LAYER}, lucid's recipe", ["2", "4"],
                       lambda: ours(args, 4, lambda n: ("maximize", "--model", "squeezenet1_1", "--weights", "random:0",
                                                        "--layer", f"{LAYER}:all", "--objective", "mean", "--size", 128,
                                                        "--steps", n, *threads)),
                       ("PyTorch in one batch", lambda: best(lambda layout: lucid(layout, every), 3)),
                       ("PyTorch, one after another", lambda: 64 * best(lambda layout: lucid(layout, [7]), 8)))
    if "pgd" in only and args.mnist:
        data = args.mnist / "t10k-images-idx3-ubyte.gz"
        made = []

        def attacks(layout):
            attack, batch = pgd(layout)
            made.append(batch)
            return attack

        lines += pairs(args, "PGD-10 on a digit of MNIST", ["2"],
                       lambda: ours(args, 1000, lambda n: ("adversarial", f"{data}", "--model", "lenet", "--epsilon", "0.3,0.3", "--limit", n,
                                                           *threads)) / 2,
                       ("torchattacks, or its loop in PyTorch", lambda: best(attacks, 4, 500)))
    text = "\n".join(["# Optimised images beside PyTorch", "",
                      f"PyTorch {torch.__version__}, {args.threads} threads, {args.rounds} pairs of runs in turn, {time.strftime('%Y-%m-%d')}. "
                      "Ratios: median (least–largest).", "",
                      "| | wanted | times PyTorch's speed | ours, ms | PyTorch's, ms |", "|---|---|---|---|---|", *lines]) + "\n"
    if args.out:
        args.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
