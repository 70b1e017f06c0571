#!/usr/bin/env python3
"""Draws the ten sample digits weights/samples/digit_0.png ... digit_9.png: pen strokes of our own, white on black,
28x28 grey, each in the frame MNIST uses (20 pixels at most, centre of mass in the middle). Needs numpy.

    python3 weights/draw_digits.py [--out weights/samples] [--check]

--check lets the shipped LeNet read them (needs build/switchback, or $SWITCHBACK).
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np

from shipping import WEIGHTS, update_manifest, write_bytes

PROGRAM = os.environ.get("SWITCHBACK", str(WEIGHTS.parent / "build" / "switchback"))
SIZE, FRAME, PEN = 28, 20.0, 2.5  # pixels: picture, longest side of the ink, width of the round pen

# Each digit is a list of strokes; a stroke is a list of points (x, y), y down, in free units, drawn as a smooth curve
# (Catmull-Rom) through its points. A point given twice in a row makes a corner.
STROKES = {
    0: [[(52, 4), (30, 12), (17, 38), (16, 66), (28, 90), (48, 97), (68, 86), (80, 58), (78, 28), (66, 9), (50, 4)]],
    1: [[(58, 2), (54, 34), (49, 66), (45, 98)]],
    2: [[(20, 24), (30, 8), (50, 2), (70, 10), (74, 30), (60, 54), (38, 76), (16, 95), (16, 95), (46, 91), (84, 93)]],
    3: [[(22, 10), (44, 2), (66, 9), (70, 26), (58, 42), (38, 48), (38, 48), (62, 52), (75, 68), (66, 88), (44, 98),
         (18, 90)]],
    4: [[(30, 6), (24, 30), (18, 54), (18, 54), (44, 54), (80, 50)], [(70, 4), (66, 40), (62, 70), (58, 98)]],
    5: [[(76, 4), (52, 6), (32, 7), (32, 7), (28, 26), (25, 43), (25, 43), (46, 38), (66, 46), (74, 66), (62, 88),
         (42, 97), (18, 90)]],
    6: [[(64, 2), (42, 22), (26, 48), (20, 72), (30, 92), (50, 97), (68, 86), (70, 68), (56, 56), (38, 60), (24, 76)]],
    7: [[(16, 12), (46, 10), (80, 6), (80, 6), (66, 34), (52, 64), (42, 98)]],
    8: [[(70, 16), (54, 3), (34, 8), (30, 26), (46, 44), (66, 62), (68, 84), (50, 97), (32, 90), (30, 70), (48, 48),
         (66, 32), (70, 16)]],
    9: [[(70, 22), (56, 5), (36, 9), (25, 28), (32, 45), (50, 46), (66, 34), (71, 18), (71, 18), (69, 44), (64, 72),
         (58, 98)]],
}


def curve(points, steps=12):
    """A Catmull-Rom curve through the points, as a polyline [n, 2]; doubled points end one piece and begin the next."""
    points = np.asarray(points, float)
    corners = [i + 1 for i in range(len(points) - 1) if (points[i] == points[i + 1]).all()]
    lines = []
    for piece in np.split(points, corners):
        ends = np.vstack([2 * piece[0] - piece[1], piece, 2 * piece[-1] - piece[-2]])
        t = np.linspace(0, 1, steps)[:, None]
        for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:]):
            square, cube = 2 * a - 5 * b + 4 * c - d, 3 * b - 3 * c + d - a
            lines.append(0.5 * (2 * b + (c - a) * t + square * t**2 + cube * t**3))
    return np.vstack(lines)


def distance(pixels, line):
    """The distance of each pixel centre [m, 2] to the polyline."""
    a, b = line[:-1], line[1:]
    along = b - a
    length = np.maximum((along**2).sum(1), 1e-12)
    offset = pixels[:, None] - a
    t = np.clip((offset * along).sum(2) / length, 0, 1)
    return np.sqrt(((offset - t[..., None] * along) ** 2).sum(2)).min(1)


def draw(strokes):
    """uint8 [28, 28]. The ink falls off over one pixel at the pen's edge (antialiasing)."""
    lines = [curve(stroke) for stroke in strokes]
    points = np.vstack(lines)
    low, high = points.min(0), points.max(0)
    scale = (FRAME - PEN) / (high - low).max()
    row, column = np.mgrid[0:SIZE, 0:SIZE]
    pixels = np.stack([column.ravel(), row.ravel()], 1).astype(float)
    shift = (SIZE - 1) / 2 - scale * (low + high) / 2
    for _ in range(3):  # the centre of mass into the middle of the picture
        far = np.min([distance(pixels, line * scale + shift) for line in lines], 0)
        ink = np.clip(PEN / 2 + 0.5 - far, 0, 1)
        shift += (SIZE - 1) / 2 - (pixels * ink[:, None]).sum(0) / ink.sum()
    return np.rint(255 * ink).astype(np.uint8).reshape(SIZE, SIZE)


def png(grey):
    """An 8-bit grey PNG file of a uint8 array [h, w]."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    h, w = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    header = struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def read_png(path):
    """Reads what png() writes."""
    data = Path(path).read_bytes()
    w, h = struct.unpack_from(">II", data, 16)
    at = data.index(b"IDAT")
    (length,) = struct.unpack_from(">I", data, at - 4)
    rows = np.frombuffer(zlib.decompress(data[at + 4 : at + 4 + length]), np.uint8).reshape(h, w + 1)
    return rows[:, 1:].copy()


def check(folder):
    """Prints what the shipped LeNet reads in each picture; the list of (digit read, probability)."""
    pictures = [str(folder / f"digit_{digit}.png") for digit in range(10)]
    command = [PROGRAM, "classify", *pictures, "--model", "lenet", "--weights", str(WEIGHTS / "lenet.safetensors"), "--json"]
    read = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["inputs"]
    for digit, entry in enumerate(read):
        print(f"digit_{digit}.png  read as {entry['target']}  probability {entry['probability']:.5f}")
    return [(entry["target"], entry["probability"]) for entry in read]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "samples")
    parser.add_argument("--check", action="store_true", help="let the shipped LeNet read them")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for digit, strokes in STROKES.items():
        path = args.out / f"digit_{digit}.png"
        write_bytes(path, png(draw(strokes)))
        if path.resolve().is_relative_to(WEIGHTS):
            update_manifest(path, licence="that of Switchback (drawn by this project)",
                            made="python3 weights/draw_digits.py",
                            data=f"pen strokes of a {digit}; nothing is taken from MNIST")
    if args.check and [digit for digit, _ in check(args.out)] != list(range(10)):
        sys.exit("not all ten digits are read as what they are")


if __name__ == "__main__":
    main()
