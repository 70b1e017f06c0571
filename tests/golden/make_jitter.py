#!/usr/bin/env python3
"""Makes tests/golden/jitter.safetensors: one small image and what torchvision's functions of colours make of it in float64.

    python3 tests/golden/make_jitter.py

Metadata "draws": JSON list of {order, brightness, contrast, saturation, hue}, as engine/train/jitter.h numbers them. Tensors:
"image" U8 [3,h,w] (0 … 255), "after.N" F32 of draw N, 0 … 1; "grey.N" of its first plane alone, as a grey image."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as V

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "weights"))

from shipping import write_safetensors  # noqa: E402

DRAWS = [
    dict(order=[0, 1, 2, 3], brightness=1.4, contrast=0.6, saturation=1.5, hue=0.1),
    dict(order=[3, 2, 1, 0], brightness=0.7, contrast=1.5, saturation=0.25, hue=-0.3),
    dict(order=[2, 0, 3, 1], brightness=1.25, contrast=1.125, saturation=2.0, hue=0.5),
    dict(order=[1, 3, 0, 2], brightness=0.0625, contrast=0.0, saturation=0.0, hue=-0.5),
]


def jitter(x, draw):
    for what in draw["order"]:
        if what == 0:
            x = V.adjust_brightness(x, draw["brightness"])
        elif what == 1:
            x = V.adjust_contrast(x, draw["contrast"])
        elif what == 2:
            x = V.adjust_saturation(x, draw["saturation"])
        else:
            x = V.adjust_hue(x, draw["hue"])
    return x


def main():
    image = np.random.default_rng(5).integers(0, 256, (3, 6, 7), dtype=np.uint8)
    image[:, 0, :4] = [[0, 255, 40, 40], [0, 255, 40, 200], [0, 255, 40, 200]]  # grey ones, and ties
    x = torch.from_numpy(image).double() / 255
    tensors = {"image": image}
    for i, draw in enumerate(DRAWS):
        tensors[f"after.{i}"] = jitter(x, draw).numpy().astype(np.float32)
        tensors[f"grey.{i}"] = jitter(x[:1], draw).numpy().astype(np.float32)
    write_safetensors(HERE / "jitter.safetensors", tensors, {"draws": json.dumps(DRAWS)})


if __name__ == "__main__":
    main()
