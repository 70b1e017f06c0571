"""What the scripts in weights/ and tests/golden/ share: a small safetensors reader and writer, files written beside
their place and renamed, and the manifest of what is shipped. Standard library and numpy only."""

import hashlib
import json
import os
import struct
from contextlib import contextmanager
from pathlib import Path

import numpy as np

WEIGHTS = Path(__file__).resolve().parent
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "|u1", "U32": "<u4"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items()}


@contextmanager
def written_beside(path):
    """A new binary file that takes its place when the block ends well, and leaves nothing when it does not."""
    path = Path(path)
    beside = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_bytes(path, data):
    """Writes a whole file or nothing."""
    with written_beside(path) as file:
        file.write(data)


def write_safetensors(path, tensors, metadata=None):
    """tensors: name -> numpy array; metadata: name -> string. The widest types come first, so that every tensor lies
    aligned to its element; the header is padded with spaces to a multiple of 8 bytes."""
    order = sorted(tensors, key=lambda name: -np.asarray(tensors[name]).dtype.itemsize)
    header, blobs, at = {}, [], 0
    if metadata:
        header["__metadata__"] = dict(metadata)
    for name in order:
        array = np.asarray(tensors[name])
        blob = array.astype(array.dtype.newbyteorder("<")).tobytes()
        dtype = NAMES[array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path):
    """Returns (name -> numpy array, metadata)."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[8 + length + begin : 8 + length + end], DTYPES[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"]).copy()
    return tensors, metadata


def update_manifest(path, folder=WEIGHTS, **facts):
    """Puts the entry of one file into the manifest.json of the weights folder that it lies in."""
    manifest = folder / "manifest.json"
    known = json.loads(manifest.read_text())["files"] if manifest.exists() else []
    data = Path(path).read_bytes()
    name = Path(path).resolve().relative_to(folder.resolve()).as_posix()
    entry = {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **facts}
    files = sorted([e for e in known if e["file"] != name] + [entry], key=lambda e: e["file"])
    write_bytes(manifest, (json.dumps({"files": files}, indent=2) + "\n").encode())
