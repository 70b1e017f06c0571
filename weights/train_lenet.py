#!/usr/bin/env python3
"""Trains the LeNet that Switchback ships, on MNIST, with PyTorch on the CPU.

    python3 weights/train_lenet.py [--data ../shared/data/mnist] [--epochs 24] [--seed 0] [--threads 2]

The schedule is fixed beforehand and the weights after the last epoch are kept: the test digits choose nothing, they are
read after each epoch for the log alone. Every training image is moved a little each time it is shown (rotation, scale,
shear, shift), since the network learns 60,000 still digits by heart otherwise.
"""

import argparse
import gzip
import io
import math
import struct
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from shipping import WEIGHTS, read_safetensors, update_manifest, write_bytes, write_safetensors

MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels in [0, 1]; the engine's preprocessing of `lenet`
BATCH = 128
PEAK_RATE = 2e-3


class LeNet(nn.Module):
    """28x28 -conv 5-> 24 -pool 3-> 8 -conv 5-> 4 -pool 2-> 2; the ReLUs stand behind the pools."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5)
        self.conv2 = nn.Conv2d(32, 64, 5)
        self.fc1 = nn.Linear(256, 200)
        self.fc2 = nn.Linear(200, 10)

    def forward(self, x, dropout=0.0):
        x = F.relu(F.max_pool2d(self.conv1(x), 3))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.dropout(x.flatten(1), dropout, self.training)
        x = F.dropout(F.relu(self.fc1(x)), dropout, self.training)
        return self.fc2(x)


def read_idx(path):
    """One gzipped idx file of unsigned bytes, as a numpy array."""
    data = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack_from(">HBB", data)
    if zero != 0 or kind != 8:
        sys.exit(f"{path}: not an idx file of unsigned bytes (take MNIST's *-ubyte.gz)")
    shape = struct.unpack_from(f">{rank}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def normalise(pixels):
    return (pixels - MEAN) / STD


def move(pixels, generator):
    """Each image [0, 1] of the batch under its own small affine map; what comes in from outside is black."""
    n = len(pixels)
    u = torch.rand(6, n, generator=generator) * 2 - 1
    angle = u[0] * math.radians(12)
    scale_x, scale_y, shear = 1 + 0.12 * u[1], 1 + 0.12 * u[2], 0.15 * u[3]
    shift = u[4:6].T * (2.0 / 14.0)  # up to 2 pixels, in grid units of half the image
    rotate = torch.stack([torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], 1)
    zero = torch.zeros(n)
    stretch = torch.stack([torch.stack([scale_x, shear], -1), torch.stack([zero, scale_y], -1)], 1)
    theta = torch.cat([rotate @ stretch, shift[:, :, None]], 2)
    return F.grid_sample(pixels, F.affine_grid(theta, list(pixels.shape), align_corners=False), align_corners=False)


@torch.no_grad()
def evaluate(model, images, labels):
    """(top-1 share, mean cross entropy), dropout off."""
    model.eval()
    right, loss = 0, 0.0
    for at in range(0, len(images), 1000):
        logits = model(normalise(images[at : at + 1000].float() / 255))
        right += (logits.argmax(1) == labels[at : at + 1000]).sum().item()
        loss += F.cross_entropy(logits, labels[at : at + 1000], reduction="sum").item()
    return right / len(images), loss / len(images)


def train(model, images, labels, tests, epochs, seed, say):
    generator = torch.Generator().manual_seed(seed)
    steps = math.ceil(len(images) / BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=epochs * steps, pct_start=0.2)
    for epoch in range(1, epochs + 1):
        begin = time.monotonic()
        model.train()
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        for chosen in order.split(BATCH):
            pixels = move(images[chosen].float() / 255, generator)
            loss = F.cross_entropy(model(normalise(pixels), dropout=0.2), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(chosen)
        top1, test_loss = evaluate(model, *tests)
        say(f"epoch {epoch:2d}  train loss {total / len(images):.4f} (moved images, dropout)  "
            f"test loss {test_loss:.4f}  test top-1 {100 * top1:.2f} %  {time.monotonic() - begin:.1f} s")
    return top1, test_loss


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=WEIGHTS.parent / "../shared/data/mnist",
                        help="folder of MNIST's idx .gz files")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "lenet.safetensors")
    args = parser.parse_args()
    if not (args.data / "train-images-idx3-ubyte.gz").exists():
        sys.exit(f"{args.data}: no MNIST here (name the folder of train-images-idx3-ubyte.gz with --data)")

    log = io.StringIO()

    def say(line):
        print(line, flush=True)
        log.write(line + "\n")

    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    data = {}
    for part in ("train", "t10k"):
        images = torch.from_numpy(read_idx(args.data / f"{part}-images-idx3-ubyte.gz").copy())[:, None]
        data[part] = images, torch.from_numpy(read_idx(args.data / f"{part}-labels-idx1-ubyte.gz").astype(np.int64))
    model = LeNet()
    count = sum(p.numel() for p in model.parameters())
    say(f"LeNet, {count} parameters; {len(data['train'][0])} training and {len(data['t10k'][0])} test digits")
    say(f"PyTorch {torch.__version__.split('+')[0]}, CPU, {args.threads} threads, seed {args.seed}, "
        f"{args.epochs} epochs, batch {BATCH}, AdamW (decay 0.01), one cycle up to {PEAK_RATE}, dropout 0.2")
    begin = time.monotonic()
    top1, loss = train(model, *data["train"], data["t10k"], args.epochs, args.seed, say)
    write_safetensors(args.out, {name: p.detach().numpy() for name, p in model.named_parameters()}, {"format": "pt"})

    model.load_state_dict({name: torch.from_numpy(a) for name, a in read_safetensors(args.out)[0].items()})
    if evaluate(model, *data["t10k"]) != (top1, loss):
        sys.exit(f"{args.out}: reads back differently from what was trained")
    say(f"kept: the last epoch, chosen beforehand. test top-1 {100 * top1:.2f} %, loss {loss:.4f}; "
        f"{time.monotonic() - begin:.0f} s in all")
    write_bytes(args.out.with_suffix(".log"), log.getvalue().encode())
    if args.out.resolve().is_relative_to(WEIGHTS):
        update_manifest(
            args.out, model="lenet", licence="that of Switchback (trained by this project)",
            accuracy={"set": "MNIST test, 10,000 digits", "top1": top1, "loss": round(loss, 5),
                      "by": "PyTorch, float32"},
            made=f"python3 weights/train_lenet.py --epochs {args.epochs} --seed {args.seed} --threads {args.threads}",
            data="MNIST, 60,000 training digits; fixed schedule, last epoch, test digits chose nothing")


if __name__ == "__main__":
    main()
