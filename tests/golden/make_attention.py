#!/usr/bin/env python3
"""Maps of attention of the small ViT and DeiT of make_tokens.py, in float64.

    tests/golden/make_attention.py     writes attention.safetensors beside itself; needs what make_tokens.py needs

Of each NETWORK, for its images NETWORK.x and the largest output of each: NETWORK.rollout, NETWORK.attention-gradient and
NETWORK.gradcam [2,4,4] (at what the last attention layer reads), stored as float32. Attention is written out here."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from make_tokens import NETWORKS, draw

HERE = Path(__file__).resolve().parent
FIRST = {"deit": 2, "vit": 1}  # tokens before the patches, which the classes are read from


def attention(x, qkv, proj, heads, kept):
    n, t, c = x.shape
    q, k, v = qkv(x).reshape(n, t, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
    a = (q @ k.transpose(-2, -1) / (c // heads) ** 0.5).softmax(-1)
    a.retain_grad()
    x.retain_grad()
    kept.append((a, x))
    return proj((a @ v).transpose(1, 2).reshape(n, t, c))


def watch(name, model, kept):
    if name == "deit":
        for block in model.blocks:
            block.attention = lambda x, b=block: attention(x, b.qkv, b.proj, b.heads, kept)
        return
    for layer in model.encoder.layers:
        own = layer.self_attention

        def forward(x, *_, own=own, **__):
            qkv = lambda y: nn.functional.linear(y, own.in_proj_weight, own.in_proj_bias)
            return attention(x, qkv, own.out_proj, own.num_heads, kept), None

        own.forward = forward


def main():
    golden, found = load_file(HERE / "tokens.safetensors"), {}
    for seed, (name, make) in enumerate(NETWORKS.items()):
        if name not in FIRST:
            continue
        model, kept, first = draw(make(), seed).double(), [], FIRST[name]
        watch(name, model, kept)
        y = model(golden[f"{name}.x"].double().requires_grad_())
        assert (y - golden[f"{name}.y"]).abs().max() < 1e-5
        y.max(1).values.sum().backward()
        rollout = relevance = torch.eye(16 + first, dtype=torch.float64)
        for a, _ in kept:
            rollout = (0.5 * a.mean(1) + 0.5 * torch.eye(a.shape[-1])) @ rollout
            relevance = relevance + (a.grad * a).clamp(min=0).mean(1) @ relevance
        tokens = kept[-1][1]
        weights = tokens.grad[:, first:].mean(1, keepdim=True)
        maps = {"rollout": rollout[:, :first, first:].mean(1), "attention-gradient": relevance[:, :first, first:].mean(1),
                "gradcam": (weights * tokens[:, first:]).sum(2).relu()}
        for key, values in maps.items():
            found[f"{name}.{key}"] = values.detach().reshape(2, 4, 4).float().contiguous()
    save_file(found, HERE / "attention.safetensors")


if __name__ == "__main__":
    main()
