#!/usr/bin/env python3
"""Damages real ONNX and safetensors files and has the command read them: no crash, no hang, no memory beyond the file's size.

    tests/fuzz/mutate.py [--switchback build/switchback] [--count 10000] [--seed 0] [--jobs 1] FILE.onnx|FILE.safetensors ...

Needs safetensors and NumPy.

Files in a .safetensors golden file of ONNX models (NAME.model, NAME.torchscript, …) count as files of their own; what else ends
so is read as weights of the first built-in model whose file name it has. Each mutant is a file with bits flipped, bytes
replaced, parts cut out, doubled or exchanged, or its length cut; where it holds a JSON header, mostly that is hit. Exit code 1 where
the command ends by a signal or with another code than 0, 1 and 2, says other than one line of error, or takes longer than
--seconds; such mutants stay in --keep. Address space is limited to --memory MiB and four times the largest file."""

import argparse
import collections
import random
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetensors.numpy import load

LARGEST = 4 << 20  # of a file that is mutated


def parts_of(path):
    """(name, bytes, arguments before the file) of all that can be read in it."""
    data = path.read_bytes()
    if path.suffix == ".onnx":
        yield path.name, data, None
        return
    for name, value in load(data).items():
        if name.endswith((".model", ".torchscript", ".dynamo", ".refused")) and value.dtype.itemsize == 1:
            yield name + ".onnx", value.tobytes(), None
    yield path.name, data, path.stem.split("_noisy")[0]


def mutant(data, draw):
    out = bytearray(data)
    header = min(len(out), 8 + int.from_bytes(out[:8], "little")) if out[8:9] == b"{" else len(out)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if not out:
            break
        reach = min(header, len(out)) if draw.random() < 0.8 else len(out)
        at, length = draw.randrange(reach), draw.choice((1, 2, 4, 8, 64, 1024))
        kind = draw.randrange(7)
        if kind == 0:
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            out[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif kind == 2:
            del out[at:at + length]
        elif kind == 3:
            out[at:at] = out[at:at + length]
        elif kind == 4:
            other = draw.randrange(reach)
            out[at:at + length], out[other:other + length] = out[other:other + length], out[at:at + length]
        elif kind == 5:
            out[at:at + length] = bytes(draw.randrange(256) for _ in range(min(length, len(out) - at)))
        elif draw.random() < 0.3:
            del out[at:]
    return bytes(out)


def run(options, folder, i, sources):
    draw = random.Random(options.seed * 1_000_003 + i)
    kind = draw.choice(sorted({s[2] is None for s in sources}))  # as many of ONNX as of weights
    name, data, model = draw.choice([s for s in sources if (s[2] is None) == kind])
    bad = mutant(data, draw)
    path = folder / (f"m{i}.onnx" if model is None else f"m{i}.safetensors")
    path.write_bytes(bad)
    arguments = ["info", "--model", path] if model is None else ["filters", "--model", model, "--weights", path, "--save", "none"]
    start = time.monotonic()
    process = subprocess.Popen([options.switchback, *arguments, "--threads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               cwd=folder)
    try:
        error = process.communicate(timeout=options.seconds)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        error = ""
    seconds = time.monotonic() - start
    code = process.returncode
    wrong = ""
    if seconds >= options.seconds:
        wrong = "takes too long"
    elif code not in (0, 1, 2):
        wrong = f"ends with {code}"
    elif code != 0 and sum("error:" in line for line in error.splitlines()) != 1:
        wrong = "not one line of error"
    if wrong:
        kept = Path(options.keep) / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(bad)
        wrong = f"{kept} (of {name}): {wrong} {error[-200:]}"
    path.unlink()
    return "onnx" if model is None else "safetensors", "wrong" if wrong else "read" if code == 0 else "refused", wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--switchback", default="build/switchback")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--memory", type=int, default=1024, help="of address space, MiB, beside four times the largest file")
    parser.add_argument("--keep", default="mutants")
    options = parser.parse_args()
    options.switchback = str(Path(options.switchback).resolve())
    sources = [part for path in options.files for part in parts_of(path) if len(part[1]) <= LARGEST]
    print(f"{len(sources)} files of {sum(len(s[1]) for s in sources)} bytes")
    limit = (options.memory << 20) + 4 * max(len(s[1]) for s in sources)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))  # for the children; std::bad_alloc is an error, too
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        for kind, verdict, wrong in pool.map(lambda i: run(options, Path(folder), i, sources), range(options.count)):
            counts[kind, verdict] += 1
            if wrong:
                print(wrong, flush=True)
    print("; ".join(f"{kind} {verdict} {n}" for (kind, verdict), n in sorted(counts.items())))
    return 1 if any(verdict == "wrong" for _, verdict in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
