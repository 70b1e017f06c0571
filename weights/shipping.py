"""What the scripts in weights/ and tests/golden/ share: a small safetensors reader and writer, files written beside
their place and renamed, and the manifest of what is shipped. Standard library and numpy only."""

import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np

WEIGHTS = Path(__file__).resolve().parent
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "|u1", "U32": "<u4"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items()}


def write_bytes(path, data):
    """Writes a whole file or nothing."""
    path = Path(path)
    beside = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


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


def update_manifest(path, **facts):
    """Puts the entry of one shipped file into the manifest.json that lies beside (or above) it."""
    manifest = WEIGHTS / "manifest.json"
    known = json.loads(manifest.read_text())["files"] if manifest.exists() else []
    data = Path(path).read_bytes()
    name = Path(path).resolve().relative_to(WEIGHTS).as_posix()
    entry = {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **facts}
    files = sorted([e for e in known if e["file"] != name] + [entry], key=lambda e: e["file"])
    write_bytes(manifest, (json.dumps({"files": files}, indent=2) + "\n").encode())
