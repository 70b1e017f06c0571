#!/usr/bin/env python3
"""Small networks of tokens and windows as both of PyTorch's exporters write them, with PyTorch's float64 results.

    tests/golden/make_tokens.py        writes tokens.safetensors beside itself; needs torch, torchvision, onnx and safetensors

torchvision's ViT, Swin, Swin V2, MaxViT and ConvNeXt at toy sizes, and blocks as timm's DeiT has them. Of each NETWORK:
NETWORK.torchscript and NETWORK.dynamo (the files' bytes, with an open batch), NETWORK.x [2,3,32,32], NETWORK.y (the outputs)
and NETWORK.g (the gradient of each image's largest output), which are PyTorch's in float64, stored as float32."""

import io
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.numpy import save_file
from torch import nn
from torchvision.models import convnext, maxvit, swin_transformer, vision_transformer

HERE = Path(__file__).resolve().parent


class Block(nn.Module):
    """Attention by PyTorch's fused function, or written out."""

    def __init__(self, width, heads, fused):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.scale = nn.Parameter(torch.ones(width))

    def attention(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(n, t, c))

    def forward(self, x):
        x = x + self.scale * self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Deit(nn.Module):
    """Two extra tokens with a head each."""

    def __init__(self, width=12):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.first, self.second = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 18, width))
        self.blocks = nn.Sequential(Block(width, 3, True), Block(width, 3, False))
        self.norm, self.head1, self.head2 = nn.LayerNorm(width), nn.Linear(width, 5), nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        n = x.shape[0]
        x = torch.cat((self.first.expand(n, -1, -1), self.second.expand(n, -1, -1), x), 1) + self.position
        x = self.norm(self.blocks(x))
        return (self.head1(x[:, 0]) + self.head2(x[:, 1])) / 2


def convnext_small():
    blocks = [convnext.CNBlockConfig(8, 12, 1), convnext.CNBlockConfig(12, None, 1)]
    return convnext.ConvNeXt(blocks, num_classes=5)


def swin_small(**more):
    return swin_transformer.SwinTransformer([2, 2], 4, [2, 1], [2, 4], [4, 4], num_classes=5, **more)


NETWORKS = {
    "convnext": convnext_small,
    "deit": Deit,
    "maxvit": lambda: maxvit.MaxVit((32, 32), 4, 4, [4, 8], [1, 1], 4, 0.0, num_classes=5),
    "swin": swin_small,
    "swin_v2": lambda: swin_small(block=swin_transformer.SwinTransformerBlockV2,
                                  downsample_layer=swin_transformer.PatchMergingV2),
    "vit": lambda: vision_transformer.VisionTransformer(32, 8, 2, 3, 12, 24, num_classes=5),
}


def draw(model, seed):
    """Everything away from its initial values, so that nothing is 0, 1 or hidden by a small scale."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        fan = p[0].numel() if p.dim() > 1 and p.shape[0] > 1 else 1
        p.data = torch.randn(p.shape, generator=generator) / fan ** 0.5 * (1 if p.dim() > 1 else 0.3)
    for name, b in model.named_buffers():
        if "running_var" in name:
            b.data = torch.rand(b.shape, generator=generator) + 0.5
    return model.eval()


def stripped(data):
    """Without what only tells where nodes come from, half of the file."""
    model = onnx.load_model_from_string(data)
    model.ClearField("metadata_props")
    for part in [model.graph, *model.graph.node, *model.graph.initializer, *model.graph.value_info, *model.graph.input,
                 *model.graph.output]:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    return np.frombuffer(model.SerializeToString(), np.uint8).copy()


def main():
    found = {}
    for seed, (name, make) in enumerate(NETWORKS.items()):
        model = draw(make(), seed)
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(99))
        buffer = io.BytesIO()
        torch.onnx.export(model, (x[:1],), buffer, opset_version=17, dynamo=False, input_names=["x"],
                          dynamic_axes={"x": {0: "n"}})
        found[f"{name}.torchscript"] = stripped(buffer.getvalue())
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("n")},))
        found[f"{name}.dynamo"] = stripped(program.model_proto.SerializeToString())
        exact = model.double()
        given = x.double().requires_grad_()
        y = exact(given)
        y.max(1).values.sum().backward()
        for key, tensor in (("x", x), ("y", y), ("g", given.grad)):
            found[f"{name}.{key}"] = tensor.detach().float().numpy()
    save_file(found, HERE / "tokens.safetensors")


if __name__ == "__main__":
    main()
