"""Writes PyTorch checkpoints without PyTorch, opcode by opcode: well-formed ones of every kind that is read, and
hostile ones."""

import struct
import zipfile
from dataclasses import dataclass

import numpy as np

STORAGE = {"f8": "DoubleStorage", "f4": "FloatStorage", "f2": "HalfStorage", "bf16": "BFloat16Storage",
           "i8": "LongStorage", "u1": "ByteStorage"}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


@dataclass
class View:
    """A tensor: a view in elements of the storage `key`, whose elements are `data`; any field may lie."""
    key: str
    data: np.ndarray
    offset: int = 0
    size: tuple = None
    stride: tuple = None
    element: str = "f4"
    how: str = "v2"  # or v1, parameter, old tensor, old parameter: how the pickle makes it
    count: int = None
    part: tuple = None  # (key, start, length): the storage is itself a part of another, in the legacy format alone

    def __post_init__(self):
        self.size = self.data.shape if self.size is None else self.size
        if self.stride is None:
            self.stride = tuple(int(np.prod(self.size[i + 1:], dtype=np.int64)) for i in range(len(self.size)))
        self.count = self.data.size if self.count is None else self.count


class Ordered(dict):
    """Is written as a collections.OrderedDict."""


class Raw(bytes):
    """Opcodes as they are."""


def name(module, attribute):
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def emit(value, legacy=False):
    """The opcodes (protocol 2) that push a value."""
    def push(inner):
        return emit(inner, legacy)

    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, View):
        return emit_view(value, legacy)
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(digits)]) + digits
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, tuple):
        return b"(" + b"".join(map(push, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(push, value)) + b"e"
    begin = name("collections", "OrderedDict") + b")R" if isinstance(value, Ordered) else b"}"
    return begin + b"(" + b"".join(push(k) + push(v) for k, v in value.items()) + b"u"


def emit_view(view, legacy):
    identity = ("storage", Raw(name("torch", STORAGE[view.element])), view.key, "cpu", view.count)
    storage = Raw(emit(identity + ((view.part,) if legacy else ())) + b"Q")
    place = (storage, view.offset, tuple(view.size), tuple(view.stride))
    hooks = Raw(name("collections", "OrderedDict") + b")R")
    v2 = Raw(name("torch._utils", "_rebuild_tensor_v2") + emit((*place, False, hooks)) + b"R")
    old = Raw(name("torch", STORAGE[view.element].replace("Storage", "Tensor")) + b")\x81" + emit(place) + b"b")
    parameter = name("torch.nn.parameter", "Parameter") + b")\x81"
    return {"v2": v2,
            "v1": name("torch._utils", "_rebuild_tensor") + emit(place) + b"R",
            "parameter": name("torch._utils", "_rebuild_parameter") + emit((v2, True, hooks)) + b"R",
            "old tensor": old,
            "old parameter": parameter + emit((old, None, hooks, True, False)) + b"b"}[view.how]


def pickled(value, legacy=False):
    return b"\x80\x02" + emit(value, legacy) + b"."


def views_in(value):
    if isinstance(value, View):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from views_in(inner)


def zip_checkpoint(path, value, prefix="archive", big_endian=False, records=None, compression=zipfile.ZIP_STORED):
    """torch.save's zip format. `records` replaces or adds some (None: leaves them out)."""
    contents = {"data.pkl": pickled(value), "byteorder": b"big" if big_endian else b"little", "version": b"3\n"}
    for view in views_in(value):
        data = view.data.astype(view.data.dtype.newbyteorder(">" if big_endian else "<"))
        contents["data/" + view.key] = data.tobytes()
    contents.update(records or {})
    with zipfile.ZipFile(path, "w", compression) as archive:
        for record, data in contents.items():
            if data is not None:
                archive.writestr(record if record.startswith("!") else f"{prefix}/{record}", data)


def legacy_checkpoint(path, value, big_endian=False):
    """torch.save's format before 1.6; the elements are little-endian on any machine."""
    storages = {view.key: view.data for view in views_in(value)}
    facts = {"protocol_version": PROTOCOL, "little_endian": not big_endian, "type_sizes": {"int": 4}}
    with open(path, "wb") as file:
        for part in (MAGIC, PROTOCOL, facts, value, list(storages)):
            file.write(pickled(part, legacy=True))
        for data in storages.values():
            file.write(struct.pack("<q", data.size) + data.astype(data.dtype.newbyteorder("<")).tobytes())
