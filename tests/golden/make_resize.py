#!/usr/bin/env python3
"""Makes resize.safetensors: what Pillow's bilinear resize and torchvision's ImageNet preprocessing do to small images.

Needs Pillow, torchvision and NumPy. With file names as arguments it prints instead, for each photo, the CRC-32 of the
8-bit pictures that io_test.cpp compares with (shorter side to 256, centre crop 224, RGB; and grey 28x28).
"""
import json
import os
import struct
import sys
import zlib

import numpy as np
import PIL
import torchvision
from PIL import Image
from torchvision import transforms as T


def save(path, arrays, metadata):
    names = {"float32": "F32", "uint8": "U8"}
    header, data = {"__metadata__": metadata}, b""
    for name, a in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        raw = np.ascontiguousarray(a).tobytes()
        header[name] = {"dtype": names[a.dtype.name], "shape": list(a.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def photo_line(path):
    image = Image.open(path)
    crop = T.Compose([T.Resize(256), T.CenterCrop(224)])(image.convert("RGB"))
    grey = image.convert("L").resize((28, 28), Image.BILINEAR)
    return "{%s, 0x%08xu, 0x%08xu}," % (json.dumps(os.path.basename(path)), zlib.crc32(np.asarray(crop).tobytes()),
                                        zlib.crc32(np.asarray(grey).tobytes()))


def main():
    rng = np.random.default_rng(7)
    arrays = {}
    # name: height, width of the source, channels; then the sizes (height, width) it is resized to
    for name, (h, w, c), sizes in [
        ("noise", (23, 37, 3), [(8, 8), (23, 11), (50, 37), (64, 90), (1, 1), (22, 36), (46, 74)]),
        ("grey", (40, 31, 1), [(28, 28), (7, 90), (120, 3)]),
        ("line", (1, 50, 3), [(5, 13)]),
        ("dot", (1, 1, 3), [(4, 3)]),
    ]:
        pixels = rng.integers(0, 256, (h, w, c), dtype=np.uint8)
        pixels[: h // 3] = (pixels[: h // 3] > 127) * 255  # black and white: rounding and clipping at the ends
        arrays[name] = pixels
        image = Image.fromarray(pixels[:, :, 0] if c == 1 else pixels)
        for th, tw in sizes:
            arrays[f"{name}.{th}x{tw}"] = np.asarray(image.resize((tw, th), Image.BILINEAR)).reshape(th, tw, c)
    # The whole way. Cases: offsets that round half to even both ways, an image smaller than the crop, a truncated side.
    for name, resize_to, (ch, cw) in [("a", 16, (13, 12)), ("b", 15, (12, 10)), ("c", 10, (16, 13)), ("d", 17, (17, 27)),
                                      ("e", 16, (11, 9))]:
        way = T.Compose([T.Resize(resize_to), T.CenterCrop((ch, cw)), T.ToTensor(),
                         T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
        for source in ["noise", "line"]:
            x = way(Image.fromarray(arrays[source]))
            arrays[f"imagenet.{source}.{name}"] = x.numpy()[None]
            arrays[f"imagenet.{source}.{name}.sizes"] = np.array([resize_to, ch, cw], dtype=np.uint8)
    arrays["grey_of_noise"] = np.asarray(Image.fromarray(arrays["noise"]).convert("L"))
    save(os.path.join(os.path.dirname(os.path.abspath(__file__)), "resize.safetensors"), arrays,
         {"made_by": "make_resize.py", "pillow": PIL.__version__, "torchvision": torchvision.__version__})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for p in sys.argv[1:]:
            print(photo_line(p))
    else:
        main()
