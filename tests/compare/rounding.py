#!/usr/bin/env python3
"""How far float32 is from float64, ours and PyTorch's: logits, and gradient maps where no gate falls otherwise.

    tests/compare/rounding.py [--networks resnet18,vgg11,…] [--images 12] [--switchback build/switchback] [--out FILE.md]

Random weights (`random:SEED`, batch norms that do something), smooth random images. Of each image, by ours with --conv direct and
auto, and by PyTorch in float32 (batch norms not folded):
  logits   ‖ours − float64‖ / ‖float64‖
  base     the same of the gradient map of the strongest class, against float64 with the gates and switches of the program that
           is judged: no gate falls otherwise, rounding alone is left
  flips    gates and switches that fall otherwise than in float64
Medians over the images; wanted are 1.0 times PyTorch's for direct and 2.0 for auto (exit code 1 where it is more). Needs torch."""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("weights", "tests/compare")]

import checks  # noqa: E402
import reference  # noqa: E402
from reference import Run, error  # noqa: E402

WANTED = {"direct": 1.0, "auto": 2.0}
SEED = 7


def judge(case, image, conv, threads):
    """{program: (logits, base, flips)} of one image."""
    truth = Run(case.net, case.parameters, image.double())
    output = case.net.nodes[-1][0]
    unit = (output, int(truth.output.argmax()), None, None)

    def of(logits, map_, tape):
        flips = sum(int((tape[k] != v).sum()) for k, v in truth.tape.items())
        under = truth if flips == 0 else Run(case.net, case.parameters, image.double(), tape)
        return error(logits, truth.output.detach().numpy()), error(map_, under.map(unit, "gradient")), flips

    single = Run(case.net, case.single, image)
    found = {"PyTorch": of(single.output.detach().numpy(), single.map(unit, "gradient"), single.tape)}
    path = case.save("image", image.numpy())
    for name in conv:
        options = [*case.options, "--conv", name, "--threads", threads]
        logits = case.sb.array("classify", *options, inputs=[path])
        tape = case.sb.folder / "tape.safetensors"
        map_ = case.sb.map("gradient", *options, *checks.unit_options(case.net, unit), "--save-tape", tape, inputs=[path])
        found[name] = of(logits, map_, {k: torch.from_numpy(v) for k, v in case.sb.file(tape).items()})
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchback", default=str(ROOT / "build" / "switchback"))
    parser.add_argument("--networks", default="resnet18,resnet34,vgg11,vgg16,alexnet")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines, worst = [], 0.0
    with tempfile.TemporaryDirectory(prefix="switchback-rounding-") as folder:
        sb = checks.Switchback(args.switchback, folder, "cpu")
        for model in args.networks.split(","):
            case = checks.Case(model, sb, checks.Report(), seed=SEED)
            case.single = {k: torch.from_numpy(np.asarray(v)).float() for k, v in case.drawn.items()}
            rows = []
            for i in range(args.images):
                image = torch.from_numpy(reference.image_like(i, (3, args.size, args.size))[None])
                rows.append(judge(case, image, WANTED, args.threads))
            median = {p: [statistics.median(row[p][k] for row in rows) for k in range(3)] for p in rows[0]}
            for program, (logits, base, flips) in median.items():
                ratios = [a / b for a, b in zip((logits, base), median["PyTorch"])]
                ours = program in WANTED
                worst = max(worst, max(ratios) / WANTED[program] if ours else 0)
                lines.append(f"| {model} | {'--conv ' + program if ours else 'PyTorch, float32'} | {logits:.2e} | {base:.2e} | {flips:g} | "
                             + (f"{ratios[0]:.2f} | {ratios[1]:.2f} |" if ours else "| |"))
                print(lines[-1], flush=True)
    text = "\n".join(["# Distance from float64: ours and PyTorch's float32", "",
                      f"`tests/compare/rounding.py`, PyTorch {torch.__version__}, {time.strftime('%Y-%m-%d')}: medians over {args.images} smooth random "
                      f"images of {args.size}x{args.size}, weights `random:{SEED}`. Base: of the map of the strongest class, against float64 with the same gates "
                      "and switches; flips: how many of them fall otherwise than in float64.", "",
                      "| network | program | logits | base of the map | flips | logits, times PyTorch's | base, times PyTorch's |",
                      "|---|---|---|---|---|---|---|", *lines]) + "\n"
    if args.out:
        args.out.write_text(text)
    return 1 if worst > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
