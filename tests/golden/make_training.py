#!/usr/bin/env python3
"""Makes tests/golden/training.safetensors: 30 steps of training as PyTorch takes them in float64, and how far its own
float32 is from that.

    python3 tests/golden/make_training.py

Metadata "runs": JSON list of {name, seed of the weights `random:SEED`, losses (float64), loss_error and weight_error of
PyTorch's float32, options}. Tensors: NAME.x U8 [batches·batch, ...] (inputs are x / 128 - 1), NAME.labels U8 or NAME.target
U8 (x / 128 - 1), NAME.end.PARAMETER: weights after the last step. Steps take the batches in turn. The networks are built
again in tests/engine/train_test.cpp."""

import json
import sys
from pathlib import Path

import numpy as np
import philox
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "weights"))

from shipping import write_safetensors  # noqa: E402

STEPS, BATCHES, BATCH = 30, 4, 8


def conv(o, i, k):
    return "conv.weight", (o, i, k, k)


LENET = {
    "conv1.weight": conv(8, 1, 5), "conv1.bias": ("bias", (8,)),
    "conv2.weight": conv(16, 8, 5), "conv2.bias": ("bias", (16,)),
    "fc1.weight": ("linear.weight", (200, 64)), "fc1.bias": ("bias", (200,)),
    "fc2.weight": ("linear.weight", (10, 200)), "fc2.bias": ("bias", (10,)),
}  # fmt: skip


def lenet(p, x):
    x = F.relu(F.max_pool2d(F.conv2d(x, p["conv1.weight"], p["conv1.bias"]), 3))
    x = F.relu(F.max_pool2d(F.conv2d(x, p["conv2.weight"], p["conv2.bias"]), 2))
    x = F.relu(F.linear(x.flatten(1), p["fc1.weight"], p["fc1.bias"]))
    return F.linear(x, p["fc2.weight"], p["fc2.bias"])


def norm(name, channels):
    return {f"{name}.{part}": (f"bn.{part}", (channels,)) for part in ("weight", "bias", "running_mean", "running_var")}


RESNET = {
    "conv1.weight": conv(8, 3, 3), **norm("bn1", 8),
    "a.conv1.weight": conv(8, 8, 3), **norm("a.bn1", 8), "a.conv2.weight": conv(8, 8, 3), **norm("a.bn2", 8),
    "b.conv1.weight": conv(16, 8, 3), **norm("b.bn1", 16), "b.conv2.weight": conv(16, 16, 3), **norm("b.bn2", 16),
    "b.down.weight": conv(16, 8, 1), **norm("b.bn3", 16),
    "fc.weight": ("linear.weight", (10, 16)), "fc.bias": ("bias", (10,)),
}  # fmt: skip


def resnet(p, x):
    def bn(name, x):
        return F.batch_norm(x, p[f"{name}.running_mean"], p[f"{name}.running_var"], p[f"{name}.weight"], p[f"{name}.bias"], True)

    x = F.relu(bn("bn1", F.conv2d(x, p["conv1.weight"], padding=1)))
    y = F.relu(bn("a.bn1", F.conv2d(x, p["a.conv1.weight"], padding=1)))
    x = F.relu(bn("a.bn2", F.conv2d(y, p["a.conv2.weight"], padding=1)) + x)
    y = F.relu(bn("b.bn1", F.conv2d(x, p["b.conv1.weight"], padding=1, stride=2)))
    y = bn("b.bn2", F.conv2d(y, p["b.conv2.weight"], padding=1))
    x = F.relu(y + bn("b.bn3", F.conv2d(x, p["b.down.weight"], stride=2)))
    return F.linear(x.mean((2, 3)), p["fc.weight"], p["fc.bias"])


def affine(name, *shape):
    return {f"{name}.weight": ("bn.weight", shape), f"{name}.bias": ("bn.bias", shape)}


OTHERS = {
    "conv1.weight": ("conv.weight", (12, 1, 3, 2)), "conv1.bias": ("bias", (12,)), **affine("group", 12),
    "depthwise.weight": ("conv.weight", (12, 1, 3, 3)), "depthwise.bias": ("bias", (12,)), **affine("layer", 12, 6, 6),
    "up.weight": ("conv.weight", (12, 4, 4, 4)), **affine("instance", 8),
    "out.weight": conv(3, 8, 1), "out.bias": ("bias", (3,)),
}  # fmt: skip


def others(p, x):  # grouped, depthwise and transposed convolutions, and the norms of one item
    x = F.conv2d(x, p["conv1.weight"], p["conv1.bias"], groups=3, padding=(1, 0), dilation=(1, 2))
    x = F.gelu(F.group_norm(x, 4, p["group.weight"], p["group.bias"]))
    x = F.conv2d(x, p["depthwise.weight"], p["depthwise.bias"], groups=12, padding=1)
    x = F.relu(F.layer_norm(x, (12, 6, 6), p["layer.weight"], p["layer.bias"]))
    x = F.conv_transpose2d(x, p["up.weight"], stride=2, padding=1, groups=2)
    x = torch.sigmoid(F.instance_norm(x, weight=p["instance.weight"], bias=p["instance.bias"]))
    return F.conv2d(x, p["out.weight"], p["out.bias"])


SMOOTHING, CLIP = 0.125, 1.5
RUNS = [
    # name, parameters, network, input, loss, optimiser
    ("lenet", LENET, lenet, (1, 28, 28), "cross", lambda w: torch.optim.Adam(w, lr=1e-3)),
    ("resnet", RESNET, resnet, (3, 16, 16), "smooth", lambda w: torch.optim.SGD(w, lr=0.05, momentum=0.9, weight_decay=1e-4)),
    ("others", OTHERS, others, (3, 6, 8), "mse", lambda w: torch.optim.AdamW(w, lr=3e-3, weight_decay=0.02)),
    ("nesterov", LENET, lenet, (1, 28, 28), "cross",
     lambda w: torch.optim.SGD(w, lr=0.02, momentum=0.9, weight_decay=1e-3, nesterov=True)),
    ("adadelta", LENET, lenet, (1, 28, 28), "clip", lambda w: torch.optim.Adadelta(w, lr=0.5)),
]


def train(start, network, x, target, loss_name, optimizer, dtype):
    p = {n: torch.tensor(v, dtype=dtype) for n, v in start.items()}
    trained = [v.requires_grad_() for n, v in p.items() if "running" not in n]
    step = optimizer(trained)
    losses = []
    for i in range(STEPS):
        at = slice(i % BATCHES * BATCH, (i % BATCHES + 1) * BATCH)
        y = network(p, (x[at].to(dtype) / 128 - 1))
        if loss_name == "mse":
            loss = F.mse_loss(y, target[at].to(dtype) / 128 - 1)
        else:
            loss = F.cross_entropy(y, target[at].long(), label_smoothing=SMOOTHING if loss_name == "smooth" else 0)
        step.zero_grad()
        loss.backward()
        if loss_name == "clip":
            torch.nn.utils.clip_grad_norm_(trained, CLIP)
        step.step()
        losses.append(loss.item())
    return losses, {n: v.detach().double().numpy() for n, v in p.items()}


def main():
    torch.set_num_threads(1)
    rng = np.random.default_rng(16)
    tensors, runs = {}, []
    for seed, (name, parameters, network, shape, loss, optimizer) in enumerate(RUNS, 16):
        start = {n: philox.random_parameter(seed, n, kind, s) for n, (kind, s) in parameters.items()}
        x = rng.integers(0, 256, (BATCHES * BATCH, *shape), dtype=np.uint8)
        if loss == "mse":
            target = rng.integers(0, 256, (BATCHES * BATCH, 3, 12, 12), dtype=np.uint8)
        else:
            target = rng.integers(0, 10, BATCHES * BATCH, dtype=np.uint8)
        run = [train(start, network, torch.from_numpy(x), torch.from_numpy(target), loss, optimizer, t)
               for t in (torch.float64, torch.float32)]
        (losses, end), (losses32, end32) = run
        loss_error = max(abs(a - b) for a, b in zip(losses, losses32))
        weight_error = max(float(np.abs(end[n] - end32[n]).max()) for n in end)
        print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}; float32 differs by {loss_error:.1e}, weights by {weight_error:.1e}")
        runs.append(dict(name=name, seed=seed, losses=losses, loss_error=loss_error, weight_error=weight_error))
        tensors[f"{name}.x"], tensors[f"{name}.target"] = x, target
        tensors.update({f"{name}.end.{n}": v.astype(np.float32) for n, v in end.items()})
    write_safetensors(HERE / "training.safetensors", tensors, {"runs": json.dumps(runs)})


if __name__ == "__main__":
    main()
