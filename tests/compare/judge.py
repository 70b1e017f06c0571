#!/usr/bin/env python3
"""Metrics of `switchback judge` against their formulas in NumPy and SciPy: sparseness and pointing game as Quantus
(0.6, metrics/complexity/sparseness.py, metrics/localisation/pointing_game.py) states them, areas by RISE's own auc, deletion
and insertion by running the changed images through `switchback classify`.

    tests/compare/judge.py build/switchback weights/samples/digit_*.png
"""
import json
import subprocess
import sys
import tempfile

import numpy as np

MODEL, STEPS = "lenet", 14


def run(program, *arguments):
    done = subprocess.run([program, *arguments, "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def sparseness(a):  # Quantus: Gini index of Chalasani et al.
    a = np.sort(np.abs(a.flatten()))
    n = len(a)
    return np.sum((2 * np.arange(1, n + 1) - n - 1) * a) / (n * np.sum(a))


def probabilities(program, x, folder):
    np.save(f"{folder}/x.npy", x.astype(np.float32))
    run(program, "classify", f"{folder}/x.npy", "--model", MODEL, "--save", "npy", "-o", folder)
    logits = np.load(f"{folder}/x.classify.npy").astype(np.float64)
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def curve(program, start, end, order, target, folder):
    pixels, images = order.size, []
    for k in range(STEPS + 1):
        y = start.reshape(start.shape[0], -1).copy()
        taken = order[: k * pixels // STEPS]
        y[:, taken] = end.reshape(end.shape[0], -1)[:, taken]
        images.append(y.reshape(start.shape))
    p = probabilities(program, np.stack(images), folder)[:, target]
    return (p.sum() - p[0] / 2 - p[-1] / 2) / (len(p) - 1)  # RISE's auc


def main():
    program, images = sys.argv[1], sys.argv[2:]
    worst = {}
    with tempfile.TemporaryDirectory() as folder:
        run(program, "classify", *images, "--model", MODEL, "--save", "none", "--save-input", f"{folder}/in.npy", "-o", folder)
        x = np.load(f"{folder}/in.npy")
        n, _, h, w = x.shape
        maps = np.random.default_rng(1).normal(size=(n, 3, h, w)).astype(np.float32)
        maps[:, :, : h // 2] = np.round(maps[:, :, : h // 2])  # ties
        np.save(f"{folder}/maps.npy", maps)
        with open(f"{folder}/boxes.csv", "w") as boxes:
            boxes.writelines(f"{i},{i % 5},3,{w // 2},{h // 2}\n" for i in range(n))
        got = run(program, "judge", f"{folder}/in.npy", "--model", MODEL, "--methods", "none", "--maps", f"{folder}/maps.npy",
                  "--boxes", f"{folder}/boxes.csv", "--metrics", "deletion,insertion,sparseness,pointing,energy",
                  "--points", str(STEPS), "--deletion-fill", "mean", "--insertion-fill", "0", "-o", folder)
        values = {r["metric"]: r["values"] for r in got["results"] if r["method"] == "maps"}
        for i in range(n):
            strength = np.abs(maps[i]).sum(0, dtype=np.float32)
            order = np.argsort(-strength.flatten(), kind="stable")
            target = got["inputs"][i]["target"]
            inside = np.zeros((h, w), bool)
            inside[3 : 3 + h // 2, i % 5 : i % 5 + w // 2] = True
            mean = np.broadcast_to(x[i].mean((1, 2), keepdims=True), x[i].shape)
            want = {
                "sparseness": sparseness(strength.astype(np.float64)),
                "pointing": float(inside.flatten()[np.argmax(strength)]),
                "energy": strength[inside].sum(dtype=np.float64) / strength.sum(dtype=np.float64),
                "deletion": curve(program, x[i], mean, order, target, folder),
                "insertion": curve(program, np.zeros_like(x[i]), x[i], order, target, folder),
            }
            for metric, value in want.items():
                worst[metric] = max(worst.get(metric, 0), abs(values[metric][i] - value))
    for metric, error in worst.items():
        print(f"{metric}: largest difference {error:.2e} over {n} images")
    sys.exit(any(error > 1e-4 for error in worst.values()))


if __name__ == "__main__":
    main()
