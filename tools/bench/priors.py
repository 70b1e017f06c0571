#!/usr/bin/env python3
"""What each prior of `switchback maximize` lowers, and what it costs: the same recipe with and without it, from the same start.

    tools/bench/priors.py --data FOLDER [--switchback build/switchback] [--steps 200] [--out FILE.md]

FOLDER: the ONNX networks. Of each unit the ratio with / without, of the measure that the prior is about and of the value; the
table has medians. Exit code 1 where a prior does not lower its measure in the median, or not for three of four units."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = {"squeezenet1_1_mxnet": "130,985", "mobilenet_v1_0.25_128": "131,986", "resnet20_cifar10": "0,3", "lenet_mnist": "3,7"}
YOSINSKI = ["--recipe", "yosinski", "--decay", "0", "--blur", "0"]
MAHENDRAN = ["--recipe", "mahendran", "--jitter", "0"]
# prior; measure in the JSON document and its name; the recipe without it; what it adds
PRIORS = [
    ("multi-scale edge energy, weight 1", "edges", "edge energy", ["--recipe", "fleuret", "--edges", "0"], ["--edges", "1"]),
    ("multi-scale edge energy, weight 0.1", "edges", "edge energy", ["--recipe", "fleuret", "--edges", "0"], ["--edges", "0.1"]),
    ("L2 decay 0.01 a step", "norm", "norm", YOSINSKI, ["--decay", "0.01"]),
    ("Gaussian blur, σ 1 every 4", "variation", "total variation", YOSINSKI, ["--blur", "1"]),
    ("Gaussian blur, σ 1 every 4", "edges", "edge energy", YOSINSKI, ["--blur", "1"]),
    ("small pixels by norm, 50 %", "norm", "norm", YOSINSKI, ["--clip-norm", "50"]),
    ("small pixels by contribution, 50 %", "norm", "norm", YOSINSKI, ["--clip-contribution", "50"]),
    ("total variation²", "variation", "total variation", [*MAHENDRAN, "--tv", "0"], ["--tv", str(6.5**2 / 80**2)]),
    ("bounded range, (‖x‖/80)⁶", "norm", "norm", [*MAHENDRAN, "--range-weight", "0"], ["--range-weight", "1"]),
]


def images(args, name, options):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([args.switchback, "maximize", "--model", str(args.data / f"{name}.onnx"), "--target", UNITS[name],
                               *options, "--steps", str(args.steps), "--json", "--save", "none", "-o", folder],
                              capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)["inputs"]


def last_wins(without, adds):
    """Options once each."""
    names = [a for a in adds if a.startswith("--")]
    kept = [a for i, a in enumerate(without) if a not in names and (i == 0 or without[i - 1] not in names)]
    return [*kept, *adds]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--switchback", default=str(ROOT / "build" / "switchback"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    known, lines, failed = {}, [], []
    for prior, key, measure, without, adds in PRIORS:
        measured, values = [], []
        for name in UNITS:
            found = []
            for options in (without, last_wins(without, adds)):
                at = (name, *options)
                if at not in known:
                    known[at] = images(args, name, options)
                found.append(known[at])
            for bare, held in zip(*found):
                measured.append(held[key] / bare[key])
                values.append(held["value"] / bare["value"])
        lower = sum(m < 1 for m in measured)
        if statistics.median(measured) >= 1 or lower < 0.75 * len(measured):
            failed.append(prior)
        lines.append(f"| {prior} | `{without[1]}` | {measure} | {statistics.median(measured):.3g} | {lower} of {len(measured)} | "
                     f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g}) |")
        print(lines[-1], flush=True)
    text = "\n".join(["# What priors lower, and their price", "",
                      f"`tools/bench/priors.py`, {time.strftime('%Y-%m-%d')}: {args.steps} steps from the same noise with and without each "
                      f"prior, two classes each of {', '.join(UNITS)}. Ratios with / without, medians over the units; the measures are those "
                      "of the JSON document, of pixels from 0 to 1.", "",
                      "| prior | recipe | lowers | to, times that without | for | value, times that without (least to largest) |",
                      "|---|---|---|---|---|---|", *lines]) + "\n"
    if args.out:
        args.out.write_text(text)
    for prior in failed:
        print(f"{prior}: does not lower what it is to lower", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
