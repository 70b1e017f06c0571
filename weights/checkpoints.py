"""Reads checkpoints as data: PyTorch's .pth/.pt (the zip format and the older one), .npz and .safetensors. A file is
taken as hostile: every size is checked against the file before anything is read or reserved, nothing is unpacked to
disk, nothing is run. Standard library and numpy only."""

import json
import math
import mmap
import re
import struct
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from torch_pickle import CheckpointError, printable, read_pickle, whole

AGAIN = "copy or download the file again"
RESAVE = "save it again in PyTorch with torch.save(model.state_dict(), 'weights.pth')"
LARGEST_PICKLE = 64 << 20  # bytes; that of a network with 1000 tensors has 0.2 MiB
LARGEST_HEADER = 16 << 20  # bytes of JSON, as the engine's reader
MOST_DIMS = 8              # as the engine's reader
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SAFETENSORS = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bf16", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
               "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "b1"}


@dataclass
class Entry:
    """One tensor of a file; `load` reads it as a NumPy array of that shape (bf16 as float32)."""
    shape: tuple
    element: str  # "f4", "bf16", ...
    load: Callable


@dataclass
class Checkpoint:
    """What a file holds, while it is open: a tree of dicts whose leaves are an Entry or, from PyTorch, a pickled Tensor
    or other data; entry(leaf, name) makes an Entry of a leaf that is a tensor."""
    format: str
    value: object
    entry: Callable = lambda leaf, name: leaf


def damaged(what):
    return CheckpointError(f"the file is damaged: {what}", AGAIN)


def dtype_of(element, order="<"):
    return np.dtype(order + ("u2" if element == "bf16" else element))


def as_numbers(array, element):
    """The array in this machine's byte order; bf16 is the upper half of a float32."""
    if element == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


# ---- PyTorch

def entry_of(tensor, name, read, order="<"):
    """An Entry for a pickled tensor, checked against its storage; read(storage) gives the bytes of its record."""
    storage, size, stride, shown = tensor.storage, tensor.size, tensor.stride, printable(name)
    if storage is None:
        raise damaged(f"tensor '{shown}' has no data")
    if len(size) > MOST_DIMS or len(stride) != len(size) or not whole(tensor.offset, *size, *stride):
        raise damaged(f"tensor '{shown}' has no valid sizes and strides")
    count = math.prod(size)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(size, stride))
    if count and last >= storage.length:
        raise damaged(f"tensor '{shown}' reaches to element {last} of a storage of {storage.length}")
    if count > storage.length:
        raise CheckpointError(f"tensor '{shown}' repeats the {storage.length} elements of its storage to {count}",
                              "make it .contiguous() before torch.save")

    def load():
        kind = dtype_of(storage.element, order)
        elements = np.frombuffer(read(storage), kind)[storage.start:storage.start + storage.length]
        if count == 0:
            return np.zeros(size, np.float32)
        strides = [s * kind.itemsize for s in stride]
        return as_numbers(np.ndarray(size, kind, elements[tensor.offset:], 0, strides), storage.element)

    return Entry(size, storage.element, load)


def read_zip_checkpoint(archive, records):
    """torch.save since PyTorch 1.6: PREFIX/data.pkl, PREFIX/byteorder, and each storage as PREFIX/data/KEY."""
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError("the zip archive holds no PREFIX/data.pkl and no .npy arrays", RESAVE)
    prefix = pickles[0][: -len("data.pkl")]
    if prefix + "constants.pkl" in records:
        raise CheckpointError("this is a TorchScript archive, code with weights",
                              "in PyTorch: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')")

    def read(name, fits, wanted):
        info = records.get(prefix + name)
        if info is None:
            raise damaged(f"the record {printable(prefix + name)} is missing")
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"the record {printable(info.filename)} is compressed, which torch.save never does",
                                  RESAVE)
        if not fits(info.file_size):
            raise damaged(f"the record {printable(info.filename)} has {info.file_size} bytes, not {wanted}")
        return archive.read(info)

    def read_storage(storage):
        if not re.fullmatch(r"[0-9A-Za-z_]{1,80}", storage.key):
            raise damaged(f"a storage is called '{printable(storage.key)}'")
        size = storage.count * dtype_of(storage.element).itemsize
        return read("data/" + storage.key, lambda n: n == size, f"the {size} of its tensors")

    byteorder = read("byteorder", lambda n: n < 10, "a word") if prefix + "byteorder" in records else b"little"
    if byteorder not in (b"little", b"big"):
        raise damaged(f"its byte order is '{printable(byteorder)}'")
    order = "<" if byteorder == b"little" else ">"
    value = read_pickle(read("data.pkl", lambda n: n <= LARGEST_PICKLE, f"at most {LARGEST_PICKLE}"))
    return Checkpoint("PyTorch", value, lambda tensor, name: entry_of(tensor, name, read_storage, order))


def read_legacy_checkpoint(data):
    """torch.save before PyTorch 1.6: pickles of a magic number, the version, facts on the machine, the value and the
    storages' keys, then for each key the number of elements (int64) and the elements, little-endian on any machine."""
    data.seek(0)
    if read_pickle(data) != LEGACY_MAGIC or read_pickle(data) != LEGACY_PROTOCOL:
        raise CheckpointError("this is a pickle, but none that torch.save wrote", RESAVE)
    storages, places = {}, {}
    read_pickle(data)
    value, keys = read_pickle(data, storages), read_pickle(data)
    if type(keys) is not list or not all(type(key) is str and key in storages for key in keys):
        raise damaged("its list of storages does not fit its tensors")
    at = data.tell()
    for key in keys:
        element, count = storages[key]
        size = count * dtype_of(element).itemsize
        if at + 8 + size > len(data) or struct.unpack_from("<q", data, at)[0] != count:
            raise damaged(f"the storage {printable(key)} of {count} elements is cut off or has another size")
        places[key] = at + 8, size
        at += 8 + size

    def read_storage(storage):
        if storage.key not in places:
            raise damaged(f"the storage {printable(storage.key)} is missing")
        begin, size = places[storage.key]
        return data[begin:begin + size]

    return Checkpoint("PyTorch before 1.6", value, lambda tensor, name: entry_of(tensor, name, read_storage))


# ---- NumPy

def npy_header(stream):
    """(shape, whether in Fortran order, dtype) of the .npy file that begins here."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version[0]}.{version[1]} of the .npy format")


def read_npz(archive, records):
    """numpy.savez and savez_compressed: NAME.npy for each tensor NAME. Pickled objects are refused."""
    return Checkpoint(".npz", {name[: -len(".npy")]: npz_entry(archive, info) for name, info in records.items()})


def npz_entry(archive, info):
    shown = printable(info.filename)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(f"the record {shown} is compressed in an unusual way", "save it with numpy.savez")
    with archive.open(info) as stream:
        try:
            shape, fortran, dtype = npy_header(stream)
        except Exception as problem:  # NumPy lets through whatever Python's tokenizer and parser throw
            raise damaged(f"the array {shown} has no valid header: {printable(problem)}") from None
        begin = stream.tell()
    if dtype.hasobject or dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise CheckpointError(f"the array {shown} holds {printable(dtype)}, not numbers", "save it as float32")
    if len(shape) > MOST_DIMS or any(n < 0 for n in shape):
        raise damaged(f"the array {shown} has the shape {printable(shape)}")
    if begin + math.prod(shape) * dtype.itemsize != info.file_size:
        raise damaged(f"the array {shown} of {math.prod(shape)} elements does not fill its {info.file_size} bytes")

    def load():
        array = np.frombuffer(archive.read(info), dtype, offset=begin)
        array = array.reshape(shape, order="F" if fortran else "C")
        return as_numbers(array, dtype.str[1:])

    return Entry(tuple(shape), dtype.str[1:], load)


# ---- safetensors

def unique(pairs):
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name stands twice")
    return out


def read_safetensors_checkpoint(data):
    """8 bytes of header length, a JSON header, the data; every byte of the data belongs to one tensor."""
    (length,) = struct.unpack_from("<Q", data)
    if length > min(len(data) - 8, LARGEST_HEADER):
        raise damaged(f"a header of {length} bytes in a file of {len(data)}")
    try:
        header = json.loads(data[8:8 + length].decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as problem:
        raise damaged(f"its header is no JSON: {printable(problem)}") from None
    if type(header) is not dict:
        raise damaged("its header is no JSON object")
    header.pop("__metadata__", None)
    begin, end, out = 8 + length, 0, {}
    for name, item in sorted(header.items(), key=lambda pair: safetensors_span(*pair)):
        (first, last), shape, element = safetensors_span(name, item), tuple(item["shape"]), SAFETENSORS[item["dtype"]]
        if first != end or math.prod(shape) * dtype_of(element).itemsize != last - first:
            raise damaged(f"tensor '{printable(name)}' does not lie behind its neighbour or does not fill its bytes")
        out[name] = Entry(shape, element, span_loader(data, begin + first, begin + last, shape, element))
        end = last
    if begin + end != len(data):
        raise damaged(f"{len(data) - begin - end} bytes belong to no tensor" if begin + end < len(data) else "cut off")
    return Checkpoint(".safetensors", out)


def safetensors_span(name, item):
    """(begin, end) of a tensor's bytes in the data; checks the entry's form."""
    item = item if type(item) is dict else {}
    span, shape, dtype = (item.get(key) for key in ("data_offsets", "shape", "dtype"))
    if not (type(span) is type(shape) is list and len(span) == 2 and len(shape) <= MOST_DIMS and whole(*span, *shape)
            and type(dtype) is str and dtype in SAFETENSORS):
        raise damaged(f"tensor '{printable(name)}' needs a known dtype, a shape and two data_offsets")
    return tuple(span)


def span_loader(data, begin, end, shape, element):
    return lambda: as_numbers(np.frombuffer(data[begin:end], dtype_of(element)).reshape(shape), element)


# ---- any of them

def checked_records(archive, file_size):
    """name -> ZipInfo. Nothing is unpacked to disk, but names with paths out of the archive are a sign of malice."""
    records = {}
    for info in archive.infolist():
        name = info.filename
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise damaged(f"the zip archive names a path outside itself, '{printable(name)}'")
        if name in records:
            raise damaged(f"the zip archive holds '{printable(name)}' twice")
        if not 0 <= info.header_offset < file_size:
            raise damaged(f"the record '{printable(name)}' lies outside the zip archive")
        if info.flag_bits & 1:
            raise CheckpointError("the zip archive is encrypted", RESAVE)
        records[name] = info
    if sum(info.compress_size for info in records.values()) > file_size:
        raise damaged("the zip archive's records overlap")
    return records


def read_zip(file, file_size):
    archive = zipfile.ZipFile(file)
    records = checked_records(archive, file_size)
    if records and all(name.endswith(".npy") for name in records):
        return read_npz(archive, records)
    return read_zip_checkpoint(archive, records)


OTHERS = {b"\x80": ("a pickle, but none that torch.save wrote", RESAVE),
          b"\x89HDF": ("an HDF5 file (Keras)", "save its arrays with numpy.savez, under torchvision's names"),
          b"\x93NUM": ("a single .npy array", "numpy.savez writes several, each with its name"),
          b"ustar": ("a tar file of PyTorch before 0.1.10", RESAVE),
          b"<": ("a web page or other text", "was the download answered with an error?")}


def read_any(file, data):
    """By the file's content, not by its name; `data` is the mapped file."""
    head = data[:512]
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return read_zip(file, len(data))
    if LEGACY_MAGIC.to_bytes(10, "little") in head[:32]:
        return read_legacy_checkpoint(data)
    if head[8:9] == b"{":
        return read_safetensors_checkpoint(data)
    for magic, (what, hint) in OTHERS.items():
        if head.startswith(magic) or head[257:262] == magic:
            raise CheckpointError(f"this is {what}", hint)
    raise CheckpointError("this is none of .pth, .pt, .npz and .safetensors", "weights/README.md says what is read")


# What zipfile, zlib, struct and NumPy throw at damaged files.
DAMAGES = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError, OverflowError)


@contextmanager
def open_checkpoint(path):
    """Gives the Checkpoint of a file; its entries load while it is open. Errors name the file."""
    path = Path(path)
    try:
        if not path.is_file():
            raise CheckpointError("there is no such file", "name a .pth, .pt, .npz or .safetensors file")
        if path.stat().st_size < 16:
            raise damaged(f"it has {path.stat().st_size} bytes")
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield read_any(file, data)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.what}", error.hint, error.usage) from None
    except DAMAGES as problem:
        raise CheckpointError(f"{path}: the file is damaged: {printable(problem)}", AGAIN) from None
    except MemoryError:
        raise CheckpointError(f"{path}: there is not enough memory for it", "close other programs") from None

