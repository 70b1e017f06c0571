#!/usr/bin/env python3
"""Makes two spirals and trains a small network with two inputs on them, for `switchback regions --plane`: an mlp 2-16-16-2
after several numbers of steps. Needs numpy; a few seconds.

    python3 weights/train_spirals.py [--out weights/spirals] [--seed 0]
"""

import argparse
from pathlib import Path

import numpy as np

from shipping import WEIGHTS, update_manifest, write_bytes, write_safetensors

SIZES = [2, 16, 16, 2]
KEEP = [0, 50, 200, 800, 3000]  # steps of Adam on all points
RATE, NOISE, POINTS = 0.01, 0.02, 200  # POINTS of each class


def spirals(rng):
    """[2 * POINTS, 3]: x, y in about [-1, 1], and the class, 0 or 1: one turn each, half a turn apart."""
    t = np.sqrt(rng.uniform(0.03, 1, (2, POINTS)))
    angle = 2 * np.pi * t + np.array([[0], [np.pi]])
    xy = np.stack([t * np.cos(angle), t * np.sin(angle)], -1) + NOISE * rng.standard_normal((2, POINTS, 2))
    return np.concatenate([xy, np.broadcast_to([[[0]], [[1]]], (2, POINTS, 1))], -1).reshape(-1, 3).astype(np.float32)


def gradients(parameters, x, labels):
    """Of the mean cross entropy, in the order of the parameters (W0, b0, W1, b1, ...); and the share of points right."""
    values, layers = [x], len(parameters) // 2
    for i in range(layers):
        s = values[-1] @ parameters[2 * i].T + parameters[2 * i + 1]
        values.append(np.maximum(s, 0) if i < layers - 1 else s)
    p = np.exp(values[-1] - values[-1].max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    right = (p.argmax(1) == labels).mean()
    g = (p - np.eye(2)[labels]) / len(x)
    out = []
    for i in reversed(range(layers)):
        out[:0] = [g.T @ values[i], g.sum(0)]
        g = (g @ parameters[2 * i]) * (values[i] > 0)
    return out, right


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "spirals")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    made = f"python3 weights/train_spirals.py --seed {args.seed}"
    facts = {"licence": "that of Switchback (made by this project)", "made": made}

    def ship(path, **more):
        if path.resolve().is_relative_to(WEIGHTS):
            update_manifest(path, **facts, **more)

    rng = np.random.default_rng(args.seed)
    points = spirals(rng)
    path = args.out / "points.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 3), }" % len(points)
    write_bytes(path, b"\x93NUMPY\x01\x00v\x00" + header.ljust(117) + b"\n" + points.tobytes())
    ship(path, data="two spirals [N,3]: x, y, class; drawn by this script")
    x, labels = points[:, :2].astype(float), points[:, 2].astype(int)
    parameters = []
    for fan_in, units in zip(SIZES, SIZES[1:]):
        bound = fan_in**-0.5  # as torch.nn.Linear
        parameters += [rng.uniform(-bound, bound, (units, fan_in)), rng.uniform(-bound, bound, units)]
    mean, square = [0 * p for p in parameters], [0 * p for p in parameters]
    for step in range(max(KEEP) + 1):
        gradient, right = gradients(parameters, x, labels)
        if step in KEEP:
            path = args.out / f"step_{step:04d}.safetensors"
            names = [f"{2 * (i // 2)}.{'bias' if i % 2 else 'weight'}" for i in range(len(parameters))]
            write_safetensors(path, {n: p.astype(np.float32) for n, p in zip(names, parameters)}, {"format": "pt"})
            ship(path, model="mlp", data=f"two spirals, {step} steps of Adam; {100 * right:.1f} % of the points right")
            print(f"{path}: {100 * right:.1f} % of the points right")
        for i, g in enumerate(gradient):
            mean[i] = 0.9 * mean[i] + 0.1 * g
            square[i] = 0.999 * square[i] + 0.001 * g * g
            t = step + 1
            parameters[i] -= RATE * mean[i] / (1 - 0.9**t) / (np.sqrt(square[i] / (1 - 0.999**t)) + 1e-8)


if __name__ == "__main__":
    main()
