#!/usr/bin/env python3
"""Turns a checkpoint into the float32 safetensors file that `switchback --weights` reads. Needs numpy, not PyTorch.

    python3 weights/convert.py INPUT OUTPUT.safetensors [--model NAME] [--key NAME] [--switchback FILE]

INPUT is a PyTorch checkpoint (.pth, .pt: torch.save of a state dict or of a dict that holds one, in the zip format or
the one before PyTorch 1.6), an .npz whose names are those of the parameters, or a .safetensors file. Nothing that a
file contains is run; objects beside the state dict are skipped. With --model, names and shapes are checked against that architecture, and missing, surplus and
misshapen ones are listed. Wrappers ("state_dict", "model", ...) are looked into, or --key names one; the prefixes
"module." and "_orig_mod." are cut off where all names have them, with --model any that the network's names stand
behind (Lightning's "model."); num_batches_tracked is dropped."""

import argparse
import json
import math
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

try:
    import numpy as np
except ImportError:
    sys.exit(f"{Path(sys.argv[0]).stem}: error: NumPy is not there (install it: apt install python3-numpy, or pip install "
             "numpy)")

from checkpoints import Entry, open_checkpoint
from shipping import WEIGHTS, written_beside
from torch_pickle import CheckpointError, Tensor, Unknown, printable, refuse

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
PREFIXES = ("module.", "_orig_mod.")  # of nn.DataParallel and torch.compile
# Heads that only training uses, and tables that follow from the architecture.
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)} | dict.fromkeys(
    ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101"), ("aux_classifier.",))
TABLES = ("num_batches_tracked", "relative_position_index", "relative_coords_table")
COPIES = ("ema", "averag", "teacher", "momentum", "target", "shadow")  # what training keeps beside the network
# What torchvision called layers before; its published files still have these names.
OLD_NAMES = ((".norm.1.", ".norm1."), (".conv.1.", ".conv1."), (".norm.2.", ".norm2."), (".conv.2.", ".conv2."),
             (".mlp.linear_1.", ".mlp.0."), (".mlp.linear_2.", ".mlp.3."))
MOST_EXPANSION = 64  # bytes written for one that was read; float weights hardly compress
LARGEST_EXACT = 1 << 24  # integers up to here are float32 numbers


def find_program(given=None):
    """The switchback command: what was given, else the checkout's build, else the one in PATH."""
    for place in [given] if given else [WEIGHTS.parent / "build" / "switchback", shutil.which("switchback")]:
        if place and Path(place).is_file():
            return str(place)
    raise CheckpointError(f"{given} is not there" if given else "the switchback command is not there",
                          "build it first (tools/demo.sh does), or name it with --switchback FILE", usage=True)


def ask_program(program, *arguments):
    """The JSON document that a run of the command prints; its error is ours."""
    try:
        run = subprocess.run([program, *arguments, "--json"], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise CheckpointError(f"{program} cannot be run: {problem}", "name it with --switchback FILE") from None
    if run.returncode != 0:
        error = run.stderr.strip().splitlines()[-1:] or [f"exit code {run.returncode}"]
        what, hint = re.fullmatch(r"(?:switchback: error: )?(.*?)(?: \((.*)\))?", error[0]).groups()
        raise CheckpointError(what, hint or f"said {program}", usage=run.returncode == 2)
    return json.loads(run.stdout)


def architecture(program, model):
    """name -> shape of every parameter of a model, as the command knows them."""
    layers = ask_program(program, "info", "--model", model)["layers"]
    return {tensor["name"]: tuple(tensor["shape"]) for layer in layers for tensor in layer["tensors"]}


def tensors_in(value):
    return {k: v for k, v in value.items() if isinstance(v, (Entry, Tensor))} if type(value) is dict else {}


def find_state_dict(value, key=None):
    """(name -> tensor, the wrappers that they were found in)."""
    path = []
    if key is not None:
        if type(value) is not dict or type(value.get(key)) is not dict:
            raise CheckpointError(f"it holds no dict '{printable(key)}'", f"it holds {listed(value)}", usage=True)
        value, path = value[key], [key]
    while type(value) is dict and len(path) < 4:
        inner = [name for name in WRAPPERS if type(value.get(name)) is dict]
        if not inner:
            break
        path.append(next((name for name in inner if tensors_in(value[name])), inner[0]))  # "model" may be a config
        value = value[path[-1]]
    for one in [value, *(value.values() if type(value) is dict else [])]:
        if isinstance(one, Unknown):
            refuse(one.name)
    tensors = tensors_in(value)
    if not tensors:
        raise CheckpointError("it holds no state dict", f"it holds {listed(value)}; --key NAME picks one of several")
    return tensors, path


def listed(value):
    if type(value) is not dict:
        return f"a {type(value).__name__}"
    names = [printable(name) for name in list(value)[:8]]
    return ", ".join(names) + (", …" if len(value) > 8 else "") if names else "nothing"


def clean_names(tensors, model, notes):
    """Prefixes cut off, and what inference does not need dropped."""
    for name in tensors:
        if type(name) is not str or not name.isprintable() or not 0 < len(name) <= 512 or name == "__metadata__":
            raise CheckpointError(f"'{printable(name)}' is no name of a parameter", "is it a state dict?")
    for prefix in PREFIXES * 2:
        if all(name.startswith(prefix) and name != prefix for name in tensors):
            tensors = {name[len(prefix):]: tensor for name, tensor in tensors.items()}
            notes.append(f"prefix '{prefix}' cut off")
    auxiliary = AUXILIARY.get(model, ())
    kept = {name: tensor for name, tensor in tensors.items()
            if not name.endswith(TABLES) and not name.startswith(tuple(auxiliary))}
    if len(kept) < len(tensors):
        notes.append(f"{len(tensors) - len(kept)} dropped ("
                     + ", ".join([*(t for t in TABLES if any(name.endswith(t) for name in tensors)), *(a + "*" for a in auxiliary)]) + ")")
    if not kept:
        raise CheckpointError("it holds no weights", "is it a state dict?")
    return kept


def todays_names(tensors, wanted, notes):
    """Names that torchvision gave before become those of today where the architecture has them."""
    def today(name):
        for before, now in OLD_NAMES:
            new = name.replace(before, now)
            if new != name and new not in tensors and any(new == w or new.endswith("." + w) for w in wanted):
                return new
        return name
    renamed = {today(name): tensor for name, tensor in tensors.items()}
    if changed := sum(name not in tensors for name in renamed):
        notes.append(f"{changed} names of an older torchvision made today's")
    return renamed


def under_prefix(tensors, wanted, notes):
    """Those below the prefix under which most of the wanted names are, without it; of equals one that no copy is called,
    then the shortest."""
    found = {}
    for name in tensors:
        parts = name.split(".")
        for i in range(1, len(parts)):
            if ".".join(parts[i:]) in wanted:
                prefix = ".".join(parts[:i]) + "."
                found[prefix] = found.get(prefix, 0) + 1
    best = min(found, key=lambda prefix: (-found[prefix], any(word in prefix for word in COPIES), len(prefix)), default="")
    if not best or found[best] <= sum(name in wanted for name in tensors):
        return tensors
    kept = {name[len(best):]: tensor for name, tensor in tensors.items() if name.startswith(best)}
    left = len(tensors) - len(kept)
    notes.append(f"prefix '{printable(best)}' cut off" + (f", {left} others left out" if left else ""))
    return kept


def check_architecture(entries, wanted, model):
    """Throws, listing what is missing, misshapen and surplus, as `switchback` itself would."""
    lists = {
        "missing": [name for name in wanted if name not in entries],
        "misshapen": [f"{name} is {list(entries[name].shape)}, should be {list(shape)}"
                      for name, shape in wanted.items() if name in entries and entries[name].shape != shape],
        "surplus": [printable(name) for name in entries if name not in wanted]}
    parts = [f"{len(names)} {what}: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
             for what, names in lists.items() if names]
    if parts:
        raise CheckpointError(f"these are not weights of {model}: {'; '.join(parts)}",
                              "--model must name the architecture that the weights were made for")


def as_float32(name, array):
    """Little-endian float32; integers only where they stay what they are."""
    if array.dtype.kind in "iu" and array.size and max(-int(array.min()), int(array.max())) > LARGEST_EXACT:
        raise CheckpointError(f"{printable(name)} holds integers that float32 cannot", "is it a weight?")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, "<f4").reshape(array.shape)


def write_float32(target, entries, metadata):
    """Writes one tensor after the other, so that one at a time is in memory. Returns the names with NaN or infinity."""
    header, at, broken = {"__metadata__": metadata}, 0, []
    for name, entry in entries.items():
        size = 4 * math.prod(entry.shape)
        header[name] = {"dtype": "F32", "shape": list(entry.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with written_beside(target) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, entry in entries.items():
            array = as_float32(name, entry.load())
            if not np.isfinite(array).all():
                broken.append(name)
            file.write(array)
    return broken


def convert(source, target, model=None, key=None, wanted=None):
    """Writes target, or nothing and throws. `wanted`: the model's architecture(). Returns a summary and warnings."""
    with open_checkpoint(source) as checkpoint:
        notes, warnings = [checkpoint.format], []
        tensors, path = find_state_dict(checkpoint.value, key)
        notes += [f"taken from '{'.'.join(path)}'"] if path else []
        tensors = clean_names(tensors, model, notes)
        if wanted is not None:
            tensors = under_prefix(todays_names(tensors, wanted, notes), wanted, notes)
        entries = {name: checkpoint.entry(tensor, name) for name, tensor in tensors.items()}
        if wanted is not None:
            check_architecture(entries, wanted, model)
        size, read = 4 * sum(math.prod(entry.shape) for entry in entries.values()), Path(source).stat().st_size
        if size > MOST_EXPANSION * read + (1 << 20):
            raise CheckpointError(f"its {read} bytes would become {size}, more than weights can", "is it a zip bomb?")
        others = {entry.element for entry in entries.values()} - {"f4"}
        names = sorted("bfloat16" if element == "bf16" else np.dtype(element).name for element in others)
        notes += [f"{', '.join(names)} made float32"] if names else []
        broken = write_float32(target, entries, {"format": "pt", "converted_from": printable(Path(source).name)})
    if broken:
        warnings.append(f"{len(broken)} tensors hold NaN or infinite values as float32: {', '.join(broken[:8])}")
    if wanted is None:
        warnings.append("names and shapes were not checked (give --model NAME)")
    summary = f"{target}: {len(entries)} tensors, {size / (1 << 20):.1f} MiB, from {source} ({'; '.join(notes)})"
    return summary + ("" if wanted is None else f"; names and shapes are those of {model}"), warnings


def run_main(program, main):
    """main() with errors as one line and an exit code, as the switchback command has them: 1 failed, 2 wrong usage."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that files written beside are removed
    try:
        main()
    except CheckpointError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(2 if error.usage else 1)
    except OSError as error:
        print(f"{program}: error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="convert", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="INPUT")
    parser.add_argument("output", type=Path, metavar="OUTPUT.safetensors")
    parser.add_argument("--model", metavar="NAME", help="check against this model (`switchback models` lists them)")
    parser.add_argument("--key", metavar="NAME", help="where the state dict stands, if in no usual place")
    parser.add_argument("--switchback", metavar="FILE", help="the command (default build/switchback)")
    args = parser.parse_args(arguments)
    if args.output.suffix != ".safetensors":
        parser.error(f"{args.output} should end in .safetensors")
    wanted = architecture(find_program(args.switchback), args.model) if args.model else None
    summary, warnings = convert(args.input, args.output, args.model, args.key, wanted)
    for warning in warnings:
        print(f"convert: warning: {printable(warning, 1000)}", file=sys.stderr)
    print(summary)


if __name__ == "__main__":
    run_main("convert", main)
