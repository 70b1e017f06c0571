#!/usr/bin/env python3
"""Makes the golden checkpoints of tests/golden with PyTorch's own torch.save; tests/weights_test.py and the C++ tests
read them.

    python3 tests/golden/make_checkpoints.py

checkpoint.pth is in the zip format, checkpoint_legacy.pth in the one before PyTorch 1.6. Both hold the same small state
dict under "state_dict", with the types, strides, offsets and shared storages that checkpoints have.
checkpoint_training.ckpt is what training scripts leave of an mlp 2-3-2: "model." before every name, averaged weights and
a criterion beside them, and objects that only Python knows. checkpoint_model.pth is a whole pickled module."""

from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
# Eighths between -1 and 2: exact in every float type, bfloat16 included.
BASE = (np.arange(24, dtype=np.float32) / 8 - 1).reshape(4, 6)


def expected():
    """name -> the float32 array that a converter should make of the checkpoints."""
    return {"plain": BASE, "transposed": BASE.T, "slice": BASE[1:, 2:5], "steps": BASE[::2, ::3], "half": BASE,
            "bfloat": BASE, "double": BASE, "integers": np.arange(-2, 3, dtype=np.float32),
            "flags": np.float32([1, 0, 1]), "scalar": np.float32(2.5), "empty": np.zeros((0, 3), np.float32),
            "parameter": BASE[0], "conv.weight": BASE.reshape(2, 3, 2, 2)}


def state_dict():
    import torch

    base = torch.from_numpy(BASE.copy())
    tensors = {"plain": base, "transposed": base.t(), "slice": base[1:, 2:5], "steps": base[::2, ::3],
               "half": base.half(), "bfloat": base.bfloat16(), "double": base.double(), "integers": torch.arange(-2, 3),
               "flags": torch.tensor([True, False, True]), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3),
               "parameter": torch.nn.Parameter(base[0].clone()),
               "conv.weight": base.reshape(2, 3, 2, 2).to(memory_format=torch.channels_last)}
    bn = torch.nn.Sequential(torch.nn.BatchNorm2d(1)).state_dict()  # an OrderedDict with _metadata
    bn.clear()
    bn.update({f"module.{name}": tensor for name, tensor in tensors.items()})
    bn["module.bn.num_batches_tracked"] = torch.tensor(7)
    return bn


def training():
    import argparse

    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    with torch.no_grad():
        for parameter in net.parameters():  # eighths, as BASE
            parameter.copy_((parameter * 8).round() / 8)
    tensors = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"ema.module.{name}": torch.zeros_like(tensor) for name, tensor in net.state_dict().items()}
    tensors["criterion.weight"] = torch.ones(2)
    return {"state_dict": tensors, "args": argparse.Namespace(lr=0.1, layers=[3]), "best": np.float64(0.75),
            "history": [np.float32(1), {"loss": np.arange(2)}], "pytorch-lightning_version": "2.4.0"}


def main():
    import torch

    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]}
    checkpoint = {"epoch": 3, "state_dict": state_dict(), "optimizer": optimizer, "name": "golden", "best": None}
    torch.save(checkpoint, HERE / "checkpoint.pth")
    torch.save(checkpoint, HERE / "checkpoint_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(training(), HERE / "checkpoint_training.ckpt")
    torch.save(torch.nn.Linear(1, 1), HERE / "checkpoint_model.pth")


if __name__ == "__main__":
    main()
