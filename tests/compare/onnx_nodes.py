#!/usr/bin/env python3
"""ONNX's own tests of its operators, as the wheel `onnx` generates them, run by the command: agree, differ or refused.

    tests/compare/onnx_nodes.py [--switchback build/switchback] [--only TEXT] [--list]     needs onnx and NumPy

Of each test the first input stays open where it is of floats and has two to four dimensions; its other inputs become
initialisers. Of attention, whose keys and values differ with the item of the batch, the first item is taken alone. The outputs are compared with those that the test expects, by the largest difference over the largest value.
Exit code 1 where a result differs that is not in KNOWN, or where a refusal names neither a node, an input nor an opset."""

import argparse
import collections
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

# What differs by design.
KNOWN = {
    # in·scale as the resized length where scales do not divide evenly; here, as in ONNX Runtime and PyTorch, whole places
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}
NEAR = 3e-4  # relative to the largest value: of float32, and of expectations written with four digits
CLEAR = re.compile(r"node '|the input '|its output|opset|its graph|the file leaves|no tensor of known rank|depends on")


def first_item(case, inputs, y):
    """Of attention: queries, keys, values, masks of four dimensions, past keys and values, and numbers of keys, of one item."""
    names = [i.name for i in case.model.graph.input]
    batched = ("Q", "K", "V", "past_key", "past_value", "nonpad_kv_seqlen")
    own = [name in batched or (name == "attn_mask" and a.ndim == 4 and a.shape[0] > 1) for name, a in zip(names, inputs)]
    return [a[:1] if cut else a for a, cut in zip(inputs, own)], y[:1]


def one_open_input(case):
    """(the model, x, y), or None where it is not for us."""
    if case.model is None or not case.data_sets:
        return None
    inputs, outputs = case.data_sets[0]
    if not inputs or not outputs or not all(isinstance(a, np.ndarray) for a in [*inputs, outputs[0]]):
        return None
    y = outputs[0]
    if case.name.startswith("test_attention"):
        inputs, y = first_item(case, inputs, y)
    x = inputs[0]
    if x.dtype != np.float32 or not 2 <= x.ndim <= 4 or x.size == 0 or y.dtype.kind != "f":
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    names = [i.name for i in graph.input]
    if len(names) != len(inputs):
        return None
    for name, value in zip(names[1:], inputs[1:]):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    del graph.input[1:]
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = x.shape[0]
    return model, x, y


def run(command, folder, model, x, y):
    """(agree, differ or refused, a line about it)"""
    onnx.save(model, folder / "m.onnx")
    np.save(folder / "x.npy", x)
    done = subprocess.run([command, "dump", folder / "x.npy", "--model", folder / "m.onnx", "-o", folder / "out"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if "error:" in line]
        return ("refused" if done.returncode == 1 and lines and CLEAR.search(lines[0]) else "unclear",
                f"[exit {done.returncode}] " + (lines[0] if lines else ""))
    values = [np.load(f) for f in sorted((folder / "out").glob("*.npz"))]
    got = np.concatenate([v[v.files[-1]] for v in values]).ravel()
    for f in (folder / "out").iterdir():
        f.unlink()
    want = y.astype(np.float64).ravel()
    if got.size != want.size:
        return "differ", f"{got.size} values, not {want.size}"
    same = np.isnan(got) & np.isnan(want) | (got == want)
    off = np.where(same, 0, np.abs(got - want))
    size = np.abs(want[np.isfinite(want)]).max(initial=1e-30)
    return ("agree" if np.all(off <= NEAR * size) else "differ"), f"by {off.max(initial=0) / size:.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchback", default="build/switchback")
    parser.add_argument("--only", default="", help="tests whose name has this in it")
    parser.add_argument("--list", action="store_true", help="a line for every test, not only for what is wrong")
    options = parser.parse_args()
    counts, refused = collections.Counter(), collections.Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in collect_testcases(None):
            ours = one_open_input(case) if options.only in case.name else None
            if ours is None:
                continue
            verdict, line = run(Path(options.switchback).resolve(), Path(folder), *ours)
            if verdict == "differ" and case.name in KNOWN:
                verdict = "differ knowingly"
            counts[verdict] += 1
            if verdict == "refused":
                refused[ours[0].graph.node[-1].op_type] += 1
            bad = verdict in ("differ", "unclear")
            wrong += bad
            if bad or options.list:
                print(f"{case.name}: {verdict}: {line}")
    print("; ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items())), f"of {sum(counts.values())}")
    if options.list:
        print("refused most:", ", ".join(f"{op} {n}" for op, n in refused.most_common(40)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
