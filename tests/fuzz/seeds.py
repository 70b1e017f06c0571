#!/usr/bin/env python3
"""Writes the fuzzers' first inputs, valid and nearly so, into tests/fuzz/corpus/READER/. What broke a reader since lies
beside them as found_*.

    tests/fuzz/seeds.py         needs NumPy, Pillow (JPEG) and onnx
"""
import gzip
import io
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def put(reader, **files):
    for name, data in files.items():
        path = CORPUS / reader / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


# ---- safetensors


def safetensors(tensors, metadata=None, data=None, header=None):
    """tensors: name -> (dtype, shape, bytes), laid one behind the other."""
    entries, body = {}, b""
    if metadata is not None:
        entries["__metadata__"] = metadata
    for name, (dtype, shape, values) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(values)]}
        body += values
    text = header if header is not None else json.dumps(entries, separators=(",", ":"))
    return struct.pack("<Q", len(text)) + text.encode() + (body if data is None else data)


SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "U8": 1, "I8": 1, "BOOL": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4,
         "U64": 8, "I64": 8, "F8_E4M3": 1, "F8_E5M2": 1}


def write_safetensors():
    two = {dtype: (dtype, [2], bytes(range(1, 1 + 2 * size))) for dtype, size in SIZES.items()}
    entry = '"a":{"dtype":"U8","shape":%s,"data_offsets":%s}'
    put("safetensors", empty=safetensors({}), types=safetensors(two),
        one=safetensors({"conv1.weight": ("F32", [2, 1, 1, 2], np.arange(4, dtype="<f4").tobytes())}, {"format": "pt"}),
        scalar=safetensors({"a": ("F32", [], b"\0\0\x80\x3f"), "none": ("F64", [0, 3], b"")}),
        padded=safetensors({}, header='{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}   ', data=b"abc"),
        overlap=safetensors({}, header="{" + entry % ("[3]", "[0,3]") + "," +
                            entry.replace('"a"', '"b"') % ("[2]", "[1,3]") + "}", data=b"abc"),
        hole=safetensors({}, header="{" + entry % ("[2]", "[1,3]") + "}", data=b"abc"),
        twice=safetensors({}, header="{" + entry % ("[3]", "[0,3]") + "," + entry % ("[3]", "[0,3]") + "}", data=b"abc"),
        huge=safetensors({}, header="{" + entry % ("[4294967296,4294967296]", "[0,0]") + "}"),
        nested=safetensors({}, header='{"a":{"b":{"c":{"d":1}}}}'),
        long=struct.pack("<Q", 1 << 40) + b"{}", cut=struct.pack("<Q", 2))


# ---- npy


def npy(header, data, version=b"\1\0"):
    length = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + length + header.encode() + data


def write_npy():
    x = np.arange(6, dtype="<f4").reshape(1, 3, 2, 1)

    def saved(a):
        file = io.BytesIO()
        np.save(file, a)
        return file.getvalue()

    form = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }\n"
    put("npy", numpy=saved(x), three=saved(x[0]), doubles=saved(x.astype("f8")),
        fortran=saved(np.asfortranarray(x.reshape(2, 3))), record=saved(np.zeros(2, dtype=[("a", "<f4"), ("b", "<i2")])),
        version2=npy(form % ("'<f4'", "False", "(6,)"), x.tobytes(), b"\2\0"),
        version3=npy(form % ('"<f4"', "False", "(2L, 3L)"), x.tobytes(), b"\3\0"),
        scalar=npy(form % ("'<f4'", "False", "()"), x.tobytes()[:4]),
        none=npy(form % ("'<f4'", "False", "(0, 3)"), b""),
        nan=npy(form % ("'<f4'", "False", "(1,)"), b"\0\0\xc0\x7f"),
        overflow=npy(form % ("'<f4'", "False", "(4294967296, 4294967296)"), b""),
        cut=npy("{'descr': '<f4'", b""))


# ---- pictures


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(width, height, depth, colour, interlaced=False, filters=(0,), before=b"", pieces=1):
    def rows(w, h):
        row = bytes(i * 37 & 255 for i in range((w * CHANNELS[colour] * depth + 7) // 8))
        return b"".join(bytes([filters[y % len(filters)]]) + row for y in range(h)) if w else b""

    raw = rows(width, height) if not interlaced else b"".join(
        rows(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in ADAM7)
    packed = zlib.compress(raw, 9)
    step = -(-len(packed) // pieces)
    data = b"".join(chunk(b"IDAT", packed[i:i + step]) for i in range(0, len(packed), step))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + data + chunk(b"IEND", b"")


def bmp(width, height, bits, palette=b"", masks=b"", compression=0):
    row = (width * bits + 31) // 32 * 4
    data = bytes(i * 29 & 255 for i in range(row * abs(height)))
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    at = 14 + len(head) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + head + masks + palette + data


def jpeg(mode, size=(17, 9), **options):
    y, x = np.mgrid[0:size[1], 0:size[0]]
    values = np.stack([x * 13, y * 23, x * y, x + y], -1).astype(np.uint8)
    picture = Image.fromarray(values if mode == "CMYK" else values[..., :3], "CMYK" if mode == "CMYK" else "RGB")
    file = io.BytesIO()
    picture.convert(mode).save(file, "JPEG", quality=40, optimize=True, **options)
    return file.getvalue()


def write_images():
    palette, clear = chunk(b"PLTE", bytes(range(48))), chunk(b"tRNS", b"\0\x80")
    grey = bytes(v for i in range(4) for v in (i * 80, i * 80, i * 80, 0))
    put("image", png_grey=png(5, 3, 8, 0), png_rgb=png(5, 5, 8, 2, filters=(0, 1, 2, 3, 4)), png_rgba=png(3, 2, 8, 6),
        png_grey_alpha=png(3, 2, 8, 4), png_1bit=png(9, 2, 1, 0), png_16bit=png(3, 2, 16, 2),
        png_palette=png(5, 3, 4, 3, before=palette + clear), png_palette2=png(5, 3, 2, 3, before=palette),
        png_clear=png(3, 2, 8, 2, before=chunk(b"tRNS", bytes(6))), png_interlaced=png(9, 9, 8, 2, True, (1, 3)),
        png_interlaced1=png(9, 5, 1, 0, True), png_pieces=png(9, 9, 8, 6, pieces=3),
        png_iphone=png(3, 2, 8, 6).replace(chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 6, 0, 0, 0)), chunk(
            b"CgBI", b"\x50\0\x20\6") + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 6, 0, 0, 0))),
        bmp_24=bmp(3, 2, 24), bmp_32=bmp(3, -2, 32), bmp_16=bmp(3, 2, 16), bmp_8=bmp(3, 2, 8, grey), bmp_1=bmp(9, 2, 1, grey[:8]),
        bmp_565=bmp(3, 2, 16, masks=struct.pack("<III", 0xf800, 0x7e0, 0x1f), compression=3),
        bmp_os2=b"BM" + struct.pack("<IHHI", 38, 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 1, 1, 24) + bytes(8),
        pgm=b"P5 3 2 255\n" + bytes(6), ppm=b"P6\n# by hand\n2 1\n255\n" + bytes(6), jpeg_grey=jpeg("L"),
        jpeg_444=jpeg("RGB", subsampling=0), jpeg_420=jpeg("RGB", subsampling=2), jpeg_422=jpeg("RGB", subsampling=1),
        jpeg_progressive=jpeg("RGB", progressive=True), jpeg_progressive_grey=jpeg("L", progressive=True),
        jpeg_restart=jpeg("RGB", subsampling=0, restart_marker_blocks=2), jpeg_cmyk=jpeg("CMYK"))


# ---- data sets: kind, length of the images file, images file, labels file


def dataset(kind, images, labels):
    return struct.pack("<BH", kind, len(images)) + images + labels


def write_datasets():
    images, labels = struct.pack(">4I", 0x803, 2, 2, 3) + bytes(12), struct.pack(">2I", 0x801, 2) + b"\3\x0b"
    mosaic = png(1280, 32, 8, 2)
    put("dataset", idx=dataset(0, images, labels), both_packed=dataset(0, gzip.compress(images, mtime=0),
                                                                       gzip.compress(labels, mtime=0)),
        one_packed=dataset(0, gzip.compress(images, mtime=0), labels), packed_inside=dataset(1, images, labels),
        long=dataset(0, images + b"x", labels), unequal=dataset(0, images, labels[:-1]),
        claims=dataset(0, struct.pack(">4I", 0x803, 60000, 28, 28), labels),
        other=dataset(0, struct.pack(">4I", 0xd03, 2, 2, 3) + bytes(48), labels),
        mosaic=dataset(2, mosaic, bytes(40)), mosaic_cut=dataset(2, mosaic, bytes(39)),
        mosaic_label=dataset(2, mosaic, bytes(39) + b"\x0a"), mosaic_grey=dataset(2, png(1280, 32, 8, 0), bytes(40)),
        mosaic_size=dataset(2, png(320, 64, 8, 2), bytes(40)))
    for name, save in (("npz", np.savez), ("npz_packed", np.savez_compressed)):
        archive = io.BytesIO()
        save(archive, x=np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3), y=np.arange(5))
        put("dataset", **{name: dataset(3, archive.getvalue(), b"")})


# ---- texts


def write_texts():
    crop = {"resize": "shorter_side_then_center_crop", "resize_to": 256, "size": [32, 24], "scale": 1 / 255,
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "labels": "labels.txt", "output": "logits"}
    direct = {"resize": "direct", "size": [28, 28], "mode": "L", "mean": [0.1307], "std": [0.3081]}
    put("preprocess", crop=json.dumps(crop), direct=json.dumps(direct), array="[]", cut='{"resize":"direct","size":[2',
        bgr=json.dumps({**crop, "mode": "RGB", "channel_order": "BGR", "output_is_probability": True, "mean": None}),
        large=json.dumps({**direct, "size": [1048576, 95]}), numbers='{"resize":"direct","size":[3,1e400],"scale":1e308}',
        small='{"resize":"direct","size":[1,1],"channel_order":"gray","scale":-1e308,"std":[1e-308],"labels":"a\\u0000\\u00e9"}')
    put("labels", plain="cat\ndog\n", wordnet="n01440764 tench, Tinca tinca\r\nn01443537 goldfish\r\n",
        mark=b"\xef\xbb\xbf\xc3\xa9t\xc3\xa9\nhiver", binary=b"a\0b\n", latin=b"\xe9t\xe9\n", gap="a\n\nb\n", blank=" \n",
        comma="a,b\n,c\n")


def write_tapes():
    def tape(pool="U8", largest="I16", gates=b"\1\0"):
        size = {"U8": 1, "I16": 2, "I64": 8}
        return {"relu.gate": ("U8", [2, 33, 2, 2], gates * 132), "relu6.gate": ("U8", [2, 33, 2, 2], b"\2\1\0\1" * 66),
                "pool.switch": (pool, [2, 33, 1, 1], bytes(66 * size[pool])),
                "largest.switch": (largest, [2, 33, 1, 1], bytes(66 * size[largest]))}

    put("tape", good=safetensors(tape(), {"format": "switchback tape"}), other=safetensors(tape("I16", "U8")),
        value=safetensors(tape(gates=b"\1\2")), none=safetensors({}))
    job, note = '{"model":"m","item":3}\n', '{"class":3,"bias":0.5}\n'
    put("resumable", good=b"\4" + (job + 2 * note).encode(), half=b"\5" + (job + 3 * note).encode()[:-4], none=b"\0",
        other=b"\4" + (job.replace("3", "4") + note).encode(), damaged=b"\6" + (job + note + "{\n" + note).encode(),
        full=b"\10" + (job + 5 * note).encode(), text=b"\4hello\n")


# ---- networks


def onnx_model(nodes, inputs=(1, 1, 4, 4), constants=(), opset=13, output="y"):
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    graph = helper.make_graph(
        [helper.make_node(kind, list(takes), [makes], name=makes, **attributes) for kind, takes, makes, attributes in nodes],
        "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(values), name) for name, values in dict(constants).items()])
    model = helper.make_model(graph, opset_imports=[onnx.OperatorSetIdProto(version=opset)])
    model.ClearField("producer_name")
    return model.SerializeToString()


def write_networks():
    w, b = np.ones((2, 1, 3, 3), "f4"), np.ones(2, "f4")
    conv = ("Conv", ("x", "w", "b"), "c", {"pads": [1, 1, 1, 1]})
    weights = {"w": w, "b": b}
    norm = {n: b for n in ("s", "o", "m", "v")}
    put("onnx", conv=onnx_model([conv, ("Relu", "c", "y", {})], constants=weights),
        norm=onnx_model([conv, ("BatchNormalization", ("c", "s", "o", "m", "v"), "y", {})], constants={**weights, **norm}),
        pools=onnx_model([("MaxPool", "x", "p", {"kernel_shape": [2, 2], "ceil_mode": 1}),
                          ("AveragePool", "p", "y", {"kernel_shape": [1, 1], "count_include_pad": 1})]),
        linear=onnx_model([("Flatten", "x", "f", {}), ("Gemm", ("f", "w"), "g", {"transB": 1}), ("Softmax", "g", "y", {})],
                          constants={"w": np.ones((2, 16), "f4")}),
        residual=onnx_model([("Sigmoid", "x", "s", {}), ("Mul", ("x", "s"), "p", {}), ("Add", ("p", "x"), "a", {}),
                             ("Concat", ("a", "x"), "y", {"axis": 1})]),
        movements=onnx_model([("Slice", ("x", "zero", "two", "axis"), "l", {}), ("Transpose", "l", "t", {"perm": [0, 1, 3, 2]}),
                              ("Reshape", ("t", "shape"), "y", {})],
                             constants={"zero": np.array([0]), "two": np.array([2]), "axis": np.array([2]),
                                        "shape": np.array([0, -1])}),
        resize=onnx_model([("Resize", ("x", "", "scales"), "y", {"mode": "linear"})],
                          constants={"scales": np.array([1, 1, 2, 2], "f4")}),
        transposed=onnx_model([("ConvTranspose", ("x", "w"), "y", {"strides": [2, 2]})],
                              constants={"w": np.ones((1, 2, 2, 2), "f4")}),
        constants=onnx_model([("Shape", "x", "h", {}), ("Gather", ("h", "i"), "n", {}), ("Unsqueeze", ("n", "i0"), "u", {}),
                              ("Concat", ("u", "rest"), "d", {"axis": 0}), ("Reshape", ("x", "d"), "y", {})],
                             constants={"i": np.array(0), "i0": np.array([0]), "rest": np.array([-1])}),
        cycle=onnx_model([("Relu", "y", "z", {}), ("Relu", "z", "y", {})]), missing=onnx_model([conv, ("Relu", "c", "y", {})]),
        unknown=onnx_model([("NonZero", "x", "y", {})]), opset=onnx_model([("Relu", "x", "y", {})], opset=99))

write_safetensors()
write_npy()
write_images()
write_datasets()
write_texts()
write_tapes()
write_networks()
