#!/usr/bin/env python3
"""Makes tests/golden/etalons.safetensors: the whole Jacobian and offset of a small network with every kind of layer that
has a bias or a gate, by PyTorch in float64. tests/viz/etalon_test.cpp builds the same network.

    python3 tests/golden/make_etalons.py [--out FILE]

Tensors: input [2,3,14,13], logits [2,5], jacobian [2,5,3,14,13], offset [2,5] = logits - jacobian·input, unit.jacobian
[2,3,14,13] and unit.offset [2] of one hidden unit (metadata "golden": seed, unit), NODE.gate and NODE.switch (U8) as in
the engine's tape files."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "weights"))

import philox  # noqa: E402
from shipping import write_safetensors  # noqa: E402

SEED, SEEDS_TRIED, SHAPE = 5, 64, (2, 3, 14, 13)
CONVS = {  # name: (out, in / groups, kernel, bias)
    "stem": (8, 3, 3, True), "grouped": (12, 4, 3, False), "body": (12, 12, 3, True), "side": (6, 12, 1, True),
    "dilated": (10, 18, 3, True)}
NORMS = {"stem_bn": 8, "grouped_bn": 12, "join_bn": 18}
LINEARS = {"fc1": (20, 490), "fc2": (5, 20)}


def parameters():
    kinds = {}
    for name, (o, i, k, bias) in CONVS.items():
        kinds[f"{name}.weight"] = "conv.weight", (o, i, k, k)
        if bias:
            kinds[f"{name}.bias"] = "bias", (o,)
    for name, c in NORMS.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            kinds[f"{name}.{part}"] = f"bn.{part}", (c,)
    for name, (o, i) in LINEARS.items():
        kinds[f"{name}.weight"] = "linear.weight", (o, i)
        kinds[f"{name}.bias"] = "bias", (o,)
    return {n: torch.from_numpy(philox.random_parameter(SEED, n, k, s).astype(np.float64)) for n, (k, s) in kinds.items()}


class Run:
    """One forward pass: node values, the tape, and the least relative distance of a gate or switch from a tie."""

    def __init__(self, p, x):
        self.p, self.tape, self.margin = p, {}, 1.0
        stem = self.relu("relu_clipped", self.norm("stem_bn", self.conv("stem", x, padding=1)), clip=0.75)
        grouped = self.relu("relu", self.norm("grouped_bn", self.conv("grouped", stem, stride=2, padding=1, groups=2)))
        pooled = self.pool("pool", grouped)
        added = self.relu("relu_added", self.conv("body", pooled, padding=1) + pooled)
        self.side = self.conv("side", added)
        average = F.avg_pool2d(added, 3, 1, 1, count_include_pad=False)
        join = self.relu("relu_join", self.norm("join_bn", torch.cat([self.side, average], 1)), clip=1.25)
        dilated = self.conv("dilated", join, padding=2, dilation=2)
        hidden = self.relu("relu_last", self.linear("fc1", dilated.flatten(1)))
        self.logits = self.linear("fc2", hidden)

    def conv(self, name, x, **options):
        return F.conv2d(x, self.p[f"{name}.weight"], self.p.get(f"{name}.bias"), **options)

    def linear(self, name, x):
        return F.linear(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"])

    def norm(self, name, x):
        p = self.p
        return F.batch_norm(x, p[f"{name}.running_mean"], p[f"{name}.running_var"], p[f"{name}.weight"],
                            p[f"{name}.bias"], False, 0, 1e-5)

    def relu(self, name, s, clip=float("inf")):
        gates = ((s > 0).byte() + (s >= clip).byte()).detach()
        self.tape[f"{name}.gate"] = gates.reshape(*gates.shape, *(1,) * (4 - gates.dim()))
        distance = torch.minimum(s.abs(), (s - clip).abs()) / s.abs().max()
        self.margin = min(self.margin, distance.min().item())
        return s.clamp(0, clip)

    def pool(self, name, x):
        padded = F.pad(x, (1, 1, 1, 1), value=-float("inf"))
        windows = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
        best = windows.topk(2, 4).values
        lead = (best[..., 0] - best[..., 1])[best[..., 0] > 0] / x.abs().max()  # several zeros: the first place wins
        self.margin = min(self.margin, lead.min().item())
        self.tape[f"{name}.switch"] = windows.argmax(4).byte().detach()
        return F.max_pool2d(x, 3, 1, 1)


def rows(p, x, select):
    """d select(run) / dx of each image, for a scalar of each image."""
    a = x.clone().requires_grad_()
    return torch.autograd.grad(select(Run(p, a)).sum(), a)[0]


def make(out):
    p = parameters()

    def draw(seed):
        return torch.from_numpy(1.5 * np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)).double()

    _, seed = max((Run(p, draw(s)).margin, s) for s in range(SEEDS_TRIED))
    x = draw(seed)
    run = Run(p, x)
    jacobian = torch.stack([rows(p, x, lambda r, k=k: r.logits[:, k]) for k in range(5)], 1)
    unit = {"node": "side", "channel": 2, "row": 3, "col": 1}
    unit_jacobian = rows(p, x, lambda r: r.side[:, 2, 3, 1])
    tensors = {
        "input": x, "logits": run.logits, "jacobian": jacobian,
        "offset": run.logits - (jacobian * x[:, None]).flatten(2).sum(2),
        "unit.jacobian": unit_jacobian, "unit.offset": run.side[:, 2, 3, 1] - (unit_jacobian * x).flatten(1).sum(1)}
    arrays = {name: t.detach().numpy().astype(np.float32) for name, t in tensors.items()}
    arrays.update({name: t.numpy() for name, t in run.tape.items()})
    states = {name: np.bincount(a.ravel(), minlength=3)[:3].tolist() for name, a in arrays.items() if name.endswith("gate")}
    facts = {"seed": SEED, "unit": unit, "margin": run.margin, "torch": torch.__version__}
    write_safetensors(out, arrays, {"golden": json.dumps(facts)})
    print(f"{out} {out.stat().st_size} bytes, margin {run.margin:.1e}, gates {states}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "etalons.safetensors")
    make(parser.parse_args().out)
