#!/usr/bin/env python3
"""Makes tests/golden/images.npz and images_cifar.npz: labelled images as NumPy keeps them, for tests/engine/io_test.cpp.

    python3 tests/golden/make_npz.py [--out FOLDER]

images.npz (savez_compressed): x_train [5,4,3,3] and x_test [2,4,3,3] uint8, y_train [5,1] and y_test [2] int64 and uint8.
images_cifar.npz (savez): data [3,3072] uint8 as CIFAR's binary files have them, labels [3] int32, and an array beside them.
Element i of an array of images, in C order, is 7 i mod 251."""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np


def write(path, compression, arrays):
    """As numpy's, with a fixed date: the same arrays give the same bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            np.lib.format.write_array(file, array, version=(1, 0))
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = compression
            with archive.open(info, "w", force_zip64=True) as entry:
                entry.write(file.getvalue())


def images(*shape):
    return (np.arange(np.prod(shape), dtype=np.int64) * 7 % 251).astype(np.uint8).reshape(shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    out = parser.parse_args().out
    write(out / "images.npz", zipfile.ZIP_DEFLATED,
          {"x_train": images(5, 4, 3, 3), "y_train": np.array([[0], [2], [1], [3], [0]], np.int64),
           "x_test": images(2, 4, 3, 3), "y_test": np.array([2, 1], np.uint8)})
    write(out / "images_cifar.npz", zipfile.ZIP_STORED,
          {"data": images(3, 3072), "labels": np.array([9, 0, 4], np.int32), "mean": np.zeros(3, np.float32)})


if __name__ == "__main__":
    main()
