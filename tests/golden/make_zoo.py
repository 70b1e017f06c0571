#!/usr/bin/env python3
"""Small copies of torchvision's networks: what they give in float64.

    tests/golden/make_zoo.py        writes zoo.json beside itself; needs torch and torchvision

A copy has torchvision's own modules with every width divided and rounded up, but for the channels of the input and the classes
(engine/zoo/blocks.h, `divided`); of transformers the width of the tokens is divided, their heads are not. Weights are
`random:SEED` (engine/weights.h). The input is Philox's too: element i of "input" in [-1, 1). Of each: logits [K] (of maps: the
sums over each), the largest one's class, and the gradient of that at the input, averaged over an 8x8 grid [3,8,8]; float32: what
PyTorch's float32 is off, norm-wise, logits and gradient together. The seed is the one of 12 for which PyTorch's float32 is nearest to its float64, so that no gate is at the brink.

state_dicts.json gets the names and shapes of all of torchvision's networks at full size."""

import contextlib
import json
import math
import zlib
from pathlib import Path

import numpy as np
import philox
import torch
import torchvision
from torch import nn
from torchvision.models.regnet import BlockParams
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2
from torchvision.models.vision_transformer import VisionTransformer

HERE = Path(__file__).resolve().parent
CLASSES = 7
SKIPPED = ("num_batches_tracked", "relative_position_index", "relative_coords_table")
# model: (divisor, side)
COPIES = {
    "densenet121": (8, 48), "inception_v3": (16, 80), "mnasnet0_75": (8, 48), "shufflenet_v2_x0_5": (4, 48),
    "mobilenet_v3_small": (8, 48), "mobilenet_v3_large": (8, 48), "efficientnet_b0": (8, 40), "efficientnet_v2_s": (8, 40),
    "regnet_y_400mf": (4, 40), "regnet_x_400mf": (4, 40), "convnext_tiny": (16, 40), "vit_b_32": (16, 64), "swin_t": (8, 40),
    "swin_v2_t": (8, 44), "fcn_resnet50": (16, 36), "deeplabv3_resnet50": (16, 36), "lraspp_mobilenet_v3_large": (8, 44),
}
FULL = [n for n in torchvision.models.list_models(module=torchvision.models)
        if n.startswith(("densenet", "inception", "mnasnet", "shufflenet", "mobilenet_v3", "efficientnet", "regnet", "convnext",
                         "vit", "swin"))]
FULL += ["fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "lraspp_mobilenet_v3_large"]


def on_cpu(function):
    def call(*args, **more):
        with torch.device("cpu"):
            return function(*args, **more)
    return call


# RegNets compute their widths with tensors, which must have values on the device "meta" too.
BlockParams.from_init_params = on_cpu(BlockParams.from_init_params)


def options(name):
    if name == "inception_v3":
        return dict(aux_logits=False, transform_input=True, init_weights=False)
    return dict(weights_backbone=None) if name.startswith(("fcn", "deeplab", "lraspp")) else {}


@contextlib.contextmanager
def divided_by(by):
    """torch.nn's layers make narrower ones of themselves."""
    def width(channels):
        return channels if channels in (3, CLASSES) else -(-channels // by)

    kept = {name: getattr(nn, name) for name in ("Conv2d", "BatchNorm2d", "Linear", "LayerNorm")}

    class Conv2d(kept["Conv2d"]):
        def __init__(self, i, o, *args, groups=1, **more):
            alone, i, o = groups == i, width(i), width(o)
            super().__init__(i, o, *args, groups=i if alone else math.gcd(groups, i, o), **more)

    class BatchNorm2d(kept["BatchNorm2d"]):
        def __init__(self, channels, *args, **more):
            super().__init__(width(channels), *args, **more)

    class Linear(kept["Linear"]):
        def __init__(self, in_features, out_features, *args, **more):
            super().__init__(width(in_features), width(out_features), *args, **more)

    nn.Conv2d, nn.BatchNorm2d, nn.Linear = Conv2d, BatchNorm2d, Linear
    try:
        yield
    finally:
        for name, layer in kept.items():
            setattr(nn, name, layer)


def convnext(by):
    """Its norms are classes made before nn's could be exchanged: the whole network in narrower words."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt
    widths = [-(-w // by) for w in (96, 192, 384, 768)]
    return ConvNeXt([CNBlockConfig(i, o, n) for i, o, n in zip(widths, widths[1:] + [None], (3, 3, 9, 3))], num_classes=CLASSES)


def copy_of(name, by, side):
    if name == "convnext_tiny":
        return convnext(by)
    if name == "vit_b_32":
        return VisionTransformer(side, 32, 12, 12, 768 // by, 3072 // by, num_classes=CLASSES)
    if name.startswith("swin"):
        more = dict(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2) if "v2" in name else {}
        return SwinTransformer([4, 4], 96 // by, [2, 2, 6, 2], [3, 6, 12, 24], [8, 8] if "v2" in name else [7, 7],
                               num_classes=CLASSES, **more)
    with divided_by(by):
        return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options(name))


def drawn(seed, name, shape):
    """As engine/weights.h and the homes of the layers say."""
    v, f = philox.uniform(seed, name, math.prod(shape)).reshape(shape), np.float32
    if name.endswith("running_var"):
        return f(1) + f(0.5) * v
    if name.endswith("layer_scale"):
        return f(0.5) + f(0.25) * v
    if name.endswith("logit_scale"):
        return f(2.3) + f(0.5) * v
    if name.endswith("relative_position_bias_table"):
        return f(0.5) * v
    if name.endswith(("class_token", "pos_embedding", "bias", "running_mean")):
        return f(0.1) * v
    if len(shape) == 1:
        return f(1) + f(0.25) * v
    return f(math.sqrt(6.0 / math.prod(shape[1:]))) * v


def run(model, x):
    x = x.clone().requires_grad_()
    y = model(x)
    y = y["out"].flatten(2).sum(2) if isinstance(y, dict) else y
    target = y[0].argmax().item()
    gradient = torch.autograd.grad(y[0, target], x)[0]
    return y[0].detach(), target, nn.functional.adaptive_avg_pool2d(gradient, 8)[0]


def golden(name, by, side):
    best = None
    for seed in range(12):
        model = copy_of(name, by, side).eval()
        state = {k: torch.from_numpy(drawn(seed, k, tuple(v.shape))) for k, v in model.state_dict().items() if not k.endswith(SKIPPED)}
        for k, v in model.named_parameters():
            v.data = state[k].clone()
        for k, v in model.named_buffers():
            if not k.endswith(SKIPPED):
                v.data = state[k].clone()
        x = torch.from_numpy(philox.uniform(seed, "input", 3 * side * side).reshape(1, 3, side, side))
        rough = run(model, x)
        exact = run(model.double(), x.double())
        error = ((rough[2].double() - exact[2]).norm() / exact[2].norm() + (rough[0].double() - exact[0]).norm() / exact[0].norm()).item()
        if best is None or error < best[0]:
            best = error, seed, exact
    error, seed, (y, target, g) = best
    print(f"{name:28} seed {seed:2}, PyTorch's float32 is off {error:.1e}", flush=True)
    return dict(model=name, divide_channels=by, classes=CLASSES, side=side, seed=seed, target=target,
                float32=float(f"{error:.1e}"),
                logits=[float(np.float32(v)) for v in y], gradient=[float(f"{v:.7g}") for v in g.flatten()])


def state_dicts():
    path = HERE / "state_dicts.json"
    about = json.loads(path.read_text())
    for name in FULL:
        with torch.device("meta"):
            model = torchvision.models.get_model(name, weights=None, **options(name))
        shapes = {k: v.shape for k, v in model.state_dict().items() if not k.endswith(SKIPPED)}
        lines = "".join(sorted(f"{k} {','.join(map(str, s))}\n" for k, s in shapes.items()))
        about[name] = dict(tensors=len(shapes), parameters=sum(p.numel() for p in model.parameters()), crc32=zlib.crc32(lines.encode()))
    path.write_text(json.dumps(about, indent=1) + "\n")
    print(f"{path.name}: {len(about)} networks")


def main():
    torch.set_num_threads(1)
    state_dicts()
    cases = [golden(name, *how) for name, how in COPIES.items()]
    (HERE / "zoo.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
