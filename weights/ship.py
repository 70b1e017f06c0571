#!/usr/bin/env python3
"""Puts what `switchback train` made into weights/, with a log and its entry in the manifest. Called by train.sh.

    python3 weights/ship.py NAME RUN -- COMMAND ...    # the last epoch of the run; of the spirals several
    python3 weights/ship.py points FOLDER              # draws the spirals: weights/spirals/points.npy, and FOLDER/points.npy
                                                       # and labels.npy as `train` takes them

Needs NumPy."""

import json
import sys
from pathlib import Path

import numpy as np

from shipping import WEIGHTS, read_safetensors, update_manifest, write_bytes

NOISE, POINTS = 0.02, 200  # of the spirals; points of each class
SPIRAL_EPOCHS = [0, 5, 20, 80, 300]
OWN = "that of Switchback (trained by this project)"
CIFAR = "CIFAR-10, the first 4,000 training images; fixed schedule, last epoch, test images chose nothing"
FILES = {  # name: (file, --model, test set, data)
    "lenet": ("lenet.safetensors", "lenet", "MNIST test, 10,000 digits",
              "MNIST, 60,000 training digits; fixed schedule, last epoch, test digits chose nothing"),
    "autoencoder": ("autoencoder.safetensors", "autoencoder", "CIFAR-10, the first 1,000 test images", CIFAR),
    "resnet20": ("resnet20.safetensors", "resnet20", "CIFAR-10, the first 1,000 test images", CIFAR),
    "encoder_decoder": ("cifar10/encoder_decoder.safetensors", "encoder_decoder:classes=10,narrow=8",
                        "CIFAR-10 enlarged to 64x64, the first 1,000 test images", CIFAR),
    "encoder_decoder_code": ("cifar10/encoder_decoder_code.safetensors", "encoder_decoder:classes=10,narrow=8,form=code",
                             "CIFAR-10 enlarged to 64x64, the first 1,000 test images", CIFAR),
}


def write_npy(path, array):
    """Format 1.0, whatever NumPy's version."""
    kind = {"f": "<f4", "i": "<i8"}[array.dtype.kind]
    shape = f"({array.shape[0]},)" if array.ndim == 1 else str(array.shape)
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    write_bytes(path, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + array.astype(kind).tobytes())


def draw_spirals(folder):
    """[2 * POINTS, 3]: x, y in about [-1, 1], and the class, 0 or 1: one turn each, half a turn apart."""
    rng = np.random.default_rng(0)
    t = np.sqrt(rng.uniform(0.03, 1, (2, POINTS)))
    angle = 2 * np.pi * t + np.array([[0], [np.pi]])
    xy = np.stack([t * np.cos(angle), t * np.sin(angle)], -1) + NOISE * rng.standard_normal((2, POINTS, 2))
    points = np.concatenate([xy, np.broadcast_to([[[0]], [[1]]], (2, POINTS, 1))], -1).reshape(-1, 3).astype(np.float32)
    shipped = WEIGHTS / "spirals" / "points.npy"
    write_npy(shipped, points)
    update_manifest(shipped, licence="that of Switchback (made by this project)", made="weights/train.sh spirals",
                    data="two spirals [N,3]: x, y, class; drawn by weights/ship.py")
    write_npy(folder / "points.npy", points[:, :2].reshape(-1, 2, 1, 1))
    write_npy(folder / "labels.npy", points[:, 2].astype(np.int64))


def line(entry):
    text = f"epoch {entry['epoch']:3d}  training loss {entry['loss']:.4f}"
    if entry.get("accuracy") is not None:
        text += f", {100 * entry['accuracy']:.2f} %"
    if entry.get("validation_loss") is not None:
        text += f"  test loss {entry['validation_loss']:.4f}"
    if entry.get("validation_accuracy") is not None:
        text += f", {100 * entry['validation_accuracy']:.2f} %"
    return f"{text}  {entry['seconds']:.1f} s"


def ship(name, run, command):
    epochs = [json.loads(text) for text in (run / "log.jsonl").read_text().splitlines()]
    if name == "spirals":
        for epoch in SPIRAL_EPOCHS:
            target = WEIGHTS / "spirals" / f"step_{10 * epoch:04d}.safetensors"
            write_bytes(target, (run / f"epoch-{epoch:03d}.safetensors").read_bytes())
            right = f"; {100 * epochs[epoch - 1]['accuracy']:.1f} % of the points right in that epoch" if epoch else ""
            update_manifest(target, licence=OWN, made="weights/train.sh spirals", model="mlp",
                            data=f"two spirals, {10 * epoch} steps of Adam{right}")
        return
    file, model, test_set, data = FILES[name]
    target = WEIGHTS / file
    target.parent.mkdir(exist_ok=True)
    write_bytes(target, (run / "last.safetensors").read_bytes())
    count = sum(a.size for a in read_safetensors(target)[0].values())
    last = epochs[-1]
    accuracy = {"set": test_set, "by": "switchback train, float32"}
    if "--label-smoothing" not in command:  # else it is not the cross entropy that others mean
        accuracy["loss"] = round(last["validation_loss"], 5)
    if last.get("validation_accuracy") is not None:
        accuracy["top1"] = last["validation_accuracy"]
    seconds = sum(entry["seconds"] for entry in epochs)
    log = [f"{model}, {count} numbers", " ".join(command), *map(line, epochs),
           f"kept: the last epoch, chosen beforehand; {seconds:.0f} s in all"]
    write_bytes(target.with_suffix(".log"), ("\n".join(log) + "\n").encode())
    update_manifest(target, model=model, licence=OWN, accuracy=accuracy, made=f"weights/train.sh {name}", data=data)


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "points":
        return draw_spirals(Path(sys.argv[2]))
    if len(sys.argv) < 5 or sys.argv[3] != "--" or sys.argv[1] not in [*FILES, "spirals"]:
        sys.exit(__doc__)
    return ship(sys.argv[1], Path(sys.argv[2]), sys.argv[4:])


if __name__ == "__main__":
    main()
