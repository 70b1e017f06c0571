#!/usr/bin/env python3
"""Downloads the weights that torchvision publishes for a model, checks their hash, converts and installs them, so that
`switchback --model NAME` finds them. Needs numpy and internet access, not PyTorch.

    python3 weights/fetch.py NAME [--folder DIR] [--url BASE] [--timeout SECONDS] [--force] [--switchback FILE]
    python3 weights/fetch.py --list

They go into $SWITCHBACK_WEIGHTS, or else into the user's own folder, ~/.local/share/switchback/weights
(under $XDG_DATA_HOME where that is set). A download that was cut off goes on where it stopped when the command is run
again. --url names a mirror: the file is asked for as BASE/FILE."""

import argparse
import difflib
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

from convert import architecture, ask_program, convert, find_program, run_main
from shipping import update_manifest
from torch_pickle import CheckpointError, printable

BASE = "https://download.pytorch.org/models"
LARGEST = 3 << 30  # bytes; regnet_y_128gf has 2.5 GB
ATTEMPTS = 4       # as long as each brings something
LICENCE = ("published by torchvision (BSD-3-Clause); trained on ImageNet, whose terms (research, non-commercial) may "
           "bind users of the weights")
SWAG = "; first trained by SWAG, whose licence (CC-BY-NC 4.0) forbids commercial use"
VGG = "Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556"
RESNET = "He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385"
SQUEEZENET = "Iandola et al., SqueezeNet, arXiv:1602.07360"
DENSENET = "Huang et al., Densely Connected Convolutional Networks, arXiv:1608.06993"
INCEPTION = "Szegedy et al., Rethinking the Inception Architecture, arXiv:1512.00567"
MNASNET = "Tan et al., MnasNet, arXiv:1807.11626"
MOBILENET_V3 = "Howard et al., Searching for MobileNetV3, arXiv:1905.02244"
SHUFFLENET = "Ma et al., ShuffleNet V2, arXiv:1807.11164"
EFFICIENTNET = "Tan & Le, EfficientNet, arXiv:1905.11946"
EFFICIENTNET_V2 = "Tan & Le, EfficientNetV2, arXiv:2104.00298"
REGNET = "Radosavovic et al., Designing Network Design Spaces, arXiv:2003.13678"
CONVNEXT = "Liu et al., A ConvNet for the 2020s, arXiv:2201.03545"
VIT = "Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv:2010.11929"
SWIN = "Liu et al., Swin Transformer, arXiv:2103.14030"
SWIN_V2 = "Liu et al., Swin Transformer V2, arXiv:2111.09883"
FCN = "Long et al., Fully Convolutional Networks, arXiv:1411.4038"
DEEPLAB = "Chen et al., Rethinking Atrous Convolution, arXiv:1706.05587"


class Published(NamedTuple):
    file: str      # ends in the first 8 hexadecimal digits of its SHA-256
    result: float  # %, as torchvision states: of ImageNet's validation images, or the mean IoU over Pascal VOC's classes
    paper: str
    measure: str = "top1"


# The weights that a model's own preprocessing is for (engine/model.cpp): torchvision's IMAGENET1K_V1 of the networks up to
# MobileNetV2, and of those behind them its default ones (of vit_h_14 those for 224 pixels).
PUBLISHED = {
    "alexnet": Published("alexnet-owt-7be5be79.pth", 56.522, "Krizhevsky, One weird trick, arXiv:1404.5997"),
    "vgg11": Published("vgg11-8a719046.pth", 69.020, VGG),
    "vgg13": Published("vgg13-19584684.pth", 69.928, VGG),
    "vgg16": Published("vgg16-397923af.pth", 71.592, VGG),
    "vgg19": Published("vgg19-dcbb9e9d.pth", 72.376, VGG),
    "vgg11_bn": Published("vgg11_bn-6002323d.pth", 70.370, VGG),
    "vgg13_bn": Published("vgg13_bn-abd245e5.pth", 71.586, VGG),
    "vgg16_bn": Published("vgg16_bn-6c64b313.pth", 73.360, VGG),
    "vgg19_bn": Published("vgg19_bn-c79401a0.pth", 74.218, VGG),
    "resnet18": Published("resnet18-f37072fd.pth", 69.758, RESNET),
    "resnet34": Published("resnet34-b627a593.pth", 73.314, RESNET),
    "resnet50": Published("resnet50-0676ba61.pth", 76.130, RESNET),
    "resnet101": Published("resnet101-63fe2227.pth", 77.374, RESNET),
    "resnet152": Published("resnet152-394f9c45.pth", 78.312, RESNET),
    "wide_resnet50_2": Published("wide_resnet50_2-95faca4d.pth", 78.468,
                                 "Zagoruyko & Komodakis, Wide Residual Networks, arXiv:1605.07146"),
    "resnext50_32x4d": Published("resnext50_32x4d-7cdf4587.pth", 77.618,
                                 "Xie et al., Aggregated Residual Transformations, arXiv:1611.05431"),
    "squeezenet1_0": Published("squeezenet1_0-b66bff10.pth", 58.092, SQUEEZENET),
    "squeezenet1_1": Published("squeezenet1_1-b8a52dc0.pth", 58.178, SQUEEZENET),
    "googlenet": Published("googlenet-1378be20.pth", 69.778,
                           "Szegedy et al., Going Deeper with Convolutions, arXiv:1409.4842"),
    "mobilenet_v2": Published("mobilenet_v2-b0353104.pth", 71.878,
                              "Sandler et al., MobileNetV2, arXiv:1801.04381"),
    "densenet121": Published("densenet121-a639ec97.pth", 74.434, DENSENET),
    "densenet161": Published("densenet161-8d451a50.pth", 77.138, DENSENET),
    "densenet169": Published("densenet169-b2777c0a.pth", 75.600, DENSENET),
    "densenet201": Published("densenet201-c1103571.pth", 76.896, DENSENET),
    "inception_v3": Published("inception_v3_google-0cc3c7bd.pth", 77.294, INCEPTION),
    "mnasnet0_5": Published("mnasnet0.5_top1_67.823-3ffadce67e.pth", 67.734, MNASNET),
    "mnasnet0_75": Published("mnasnet0_75-7090bc5f.pth", 71.180, MNASNET),
    "mnasnet1_0": Published("mnasnet1.0_top1_73.512-f206786ef8.pth", 73.456, MNASNET),
    "mnasnet1_3": Published("mnasnet1_3-a4c69d6f.pth", 76.506, MNASNET),
    "mobilenet_v3_small": Published("mobilenet_v3_small-047dcff4.pth", 67.668, MOBILENET_V3),
    "mobilenet_v3_large": Published("mobilenet_v3_large-5c1a4163.pth", 75.274, MOBILENET_V3),
    "shufflenet_v2_x0_5": Published("shufflenetv2_x0.5-f707e7126e.pth", 60.552, SHUFFLENET),
    "shufflenet_v2_x1_0": Published("shufflenetv2_x1-5666bf0f80.pth", 69.362, SHUFFLENET),
    "shufflenet_v2_x1_5": Published("shufflenetv2_x1_5-3c479a10.pth", 72.996, SHUFFLENET),
    "shufflenet_v2_x2_0": Published("shufflenetv2_x2_0-8be3c8ee.pth", 76.230, SHUFFLENET),
    "efficientnet_b0": Published("efficientnet_b0_rwightman-7f5810bc.pth", 77.692, EFFICIENTNET),
    "efficientnet_b1": Published("efficientnet_b1-c27df63c.pth", 79.838, EFFICIENTNET),
    "efficientnet_b2": Published("efficientnet_b2_rwightman-c35c1473.pth", 80.608, EFFICIENTNET),
    "efficientnet_b3": Published("efficientnet_b3_rwightman-b3899882.pth", 82.008, EFFICIENTNET),
    "efficientnet_b4": Published("efficientnet_b4_rwightman-23ab8bcd.pth", 83.384, EFFICIENTNET),
    "efficientnet_b5": Published("efficientnet_b5_lukemelas-1a07897c.pth", 83.444, EFFICIENTNET),
    "efficientnet_b6": Published("efficientnet_b6_lukemelas-24a108a5.pth", 84.008, EFFICIENTNET),
    "efficientnet_b7": Published("efficientnet_b7_lukemelas-c5b4e57e.pth", 84.122, EFFICIENTNET),
    "efficientnet_v2_s": Published("efficientnet_v2_s-dd5fe13b.pth", 84.228, EFFICIENTNET_V2),
    "efficientnet_v2_m": Published("efficientnet_v2_m-dc08266a.pth", 85.112, EFFICIENTNET_V2),
    "efficientnet_v2_l": Published("efficientnet_v2_l-59c71312.pth", 85.808, EFFICIENTNET_V2),
    "regnet_y_400mf": Published("regnet_y_400mf-e6988f5f.pth", 75.804, REGNET),
    "regnet_y_800mf": Published("regnet_y_800mf-58fc7688.pth", 78.828, REGNET),
    "regnet_y_1_6gf": Published("regnet_y_1_6gf-0d7bc02a.pth", 80.876, REGNET),
    "regnet_y_3_2gf": Published("regnet_y_3_2gf-9180c971.pth", 81.982, REGNET),
    "regnet_y_8gf": Published("regnet_y_8gf-dc2b1b54.pth", 82.828, REGNET),
    "regnet_y_16gf": Published("regnet_y_16gf-3e4a00f9.pth", 82.886, REGNET),
    "regnet_y_32gf": Published("regnet_y_32gf-8db6d4b5.pth", 83.368, REGNET),
    "regnet_y_128gf": Published("regnet_y_128gf_swag-c8ce3e52.pth", 88.228, REGNET),
    "regnet_x_400mf": Published("regnet_x_400mf-62229a5f.pth", 74.864, REGNET),
    "regnet_x_800mf": Published("regnet_x_800mf-94a99ebd.pth", 77.522, REGNET),
    "regnet_x_1_6gf": Published("regnet_x_1_6gf-a12f2b72.pth", 79.668, REGNET),
    "regnet_x_3_2gf": Published("regnet_x_3_2gf-7071aa85.pth", 81.196, REGNET),
    "regnet_x_8gf": Published("regnet_x_8gf-2b70d774.pth", 81.682, REGNET),
    "regnet_x_16gf": Published("regnet_x_16gf-ba3796d7.pth", 82.716, REGNET),
    "regnet_x_32gf": Published("regnet_x_32gf-6eb8fdc6.pth", 83.014, REGNET),
    "convnext_tiny": Published("convnext_tiny-983f1562.pth", 82.520, CONVNEXT),
    "convnext_small": Published("convnext_small-0c510722.pth", 83.616, CONVNEXT),
    "convnext_base": Published("convnext_base-6075fbad.pth", 84.062, CONVNEXT),
    "convnext_large": Published("convnext_large-ea097f82.pth", 84.414, CONVNEXT),
    "vit_b_16": Published("vit_b_16-c867db91.pth", 81.072, VIT),
    "vit_b_32": Published("vit_b_32-d86f8d99.pth", 75.912, VIT),
    "vit_l_16": Published("vit_l_16-852ce7e3.pth", 79.662, VIT),
    "vit_l_32": Published("vit_l_32-c7638314.pth", 76.972, VIT),
    "vit_h_14": Published("vit_h_14_lc_swag-c1eb923e.pth", 85.708, VIT),
    "swin_t": Published("swin_t-704ceda3.pth", 81.474, SWIN),
    "swin_s": Published("swin_s-5e29d889.pth", 83.196, SWIN),
    "swin_b": Published("swin_b-68c6b09e.pth", 83.582, SWIN),
    "swin_v2_t": Published("swin_v2_t-b137f0e2.pth", 82.072, SWIN_V2),
    "swin_v2_s": Published("swin_v2_s-637d8ceb.pth", 83.712, SWIN_V2),
    "swin_v2_b": Published("swin_v2_b-781e5279.pth", 84.112, SWIN_V2),
    "fcn_resnet50": Published("fcn_resnet50_coco-1167a1af.pth", 60.500, FCN, "miou"),
    "fcn_resnet101": Published("fcn_resnet101_coco-7ecb50ca.pth", 63.700, FCN, "miou"),
    "deeplabv3_resnet50": Published("deeplabv3_resnet50_coco-cd0a2569.pth", 66.400, DEEPLAB, "miou"),
    "deeplabv3_resnet101": Published("deeplabv3_resnet101_coco-586e9e4e.pth", 67.400, DEEPLAB, "miou"),
    "lraspp_mobilenet_v3_large": Published("lraspp_mobilenet_v3_large-d234d4ea.pth", 57.900, MOBILENET_V3, "miou"),
}


def user_folder():
    """The first folder that the engine looks in (engine/model.h)."""
    if named := os.environ.get("SWITCHBACK_WEIGHTS"):
        return Path(named)
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "switchback" / "weights"


def say_progress(have, total):
    if sys.stderr.isatty():
        share = f" of {total / 1e6:.0f} MB, {100 * have / total:3.0f} %" if total else " MB"
        print(f"\r{have / 1e6:.0f}{share}  ", end="", file=sys.stderr, flush=True)


def receive(url, part, timeout):
    """Asks once for what is missing of the file and appends it to `part`. True when the server says that is all."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "switchback"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # there is nothing behind what we have
            return True
        raise CheckpointError(f"{url}: the server answered {error.code} {error.reason}",
                              "is the address right? --url BASE names a mirror") from None
    with answer:
        if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the whole file
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        part.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab" if have else "wb") as file:
            while chunk := answer.read(1 << 18):
                have += len(chunk)
                if have > LARGEST:
                    part.unlink()
                    raise CheckpointError(f"{url} has more than {LARGEST} bytes", "that is no published model")
                file.write(chunk)
                say_progress(have, total)
    return total is None or have == total


def download(url, part, timeout):
    """Fills `part`; several attempts as long as each brings something. What came stays there for the next run."""
    for attempt in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            if receive(url, part, timeout):
                return
            problem = "the connection ended early"
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            problem = printable(getattr(error, "reason", None) or error or type(error).__name__)
        if not part.exists() or part.stat().st_size <= before:
            break
        time.sleep(min(attempt + 1, 3))
    kept = part.stat().st_size if part.exists() else 0
    raise CheckpointError(f"cannot download {url}: {problem}",
                          f"{kept} bytes are kept, run it again to go on" if kept else "is there internet? --url BASE "
                          "names a mirror; weights/convert.py FILE converts what was downloaded otherwise")


def check_hash(part, file):
    """The published name holds the first 8 digits of the SHA-256. A file with another hash is deleted."""
    wanted, digest = Path(file).stem.rsplit("-", 1)[1], hashlib.sha256()
    with open(part, "rb") as data:
        while chunk := data.read(1 << 20):
            digest.update(chunk)
    if not digest.hexdigest().startswith(wanted):
        part.unlink()
        got = digest.hexdigest()[:8]
        raise CheckpointError(f"{file}: its SHA-256 begins with {got}, the published one with {wanted}",
                              "damaged on the way or another file; it was deleted, run it again")


def fetch(name, folder, base, timeout, program):
    """Downloads, checks, converts, installs; prints what it does. Whatever fails, nothing partial is installed."""
    published, target = PUBLISHED[name], folder / f"{name}.safetensors"
    wanted = architecture(program, name)
    url, whole = f"{base.rstrip('/')}/{published.file}", folder / published.file
    part = whole.with_name(published.file + ".part")
    print(f"downloading {url}", flush=True)
    download(url, part, timeout)
    check_hash(part, published.file)
    part.replace(whole)
    try:
        summary, warnings = convert(whole, target, name, wanted=wanted)
    finally:
        whole.unlink()
    images = "ImageNet's validation images" if published.measure == "top1" else "COCO's validation images by Pascal VOC's classes"
    accuracy = {"set": f"{images}, as torchvision states", published.measure: published.result / 100}
    licence = LICENCE + (SWAG if "swag" in published.file else "")
    update_manifest(target, folder, model=name, licence=licence, source=url, made="weights/fetch.py", accuracy=accuracy)
    for warning in warnings:
        print(f"fetch: warning: {warning}", file=sys.stderr)
    print(summary)
    print(f"paper: {published.paper}\nlicence: {licence}")


def say_installed(name, target, program):
    """Whether the command finds the file, or how to name it."""
    found = [os.path.realpath(w["file"]) for w in ask_program(program, "info", "--model", name)["weights"]]
    if found[:1] == [os.path.realpath(target)]:
        print(f"installed as {target}; `switchback ... --model {name}` takes it")
    else:
        print(f"installed as {target}; give --weights {target}, or set SWITCHBACK_WEIGHTS={target.parent}")


def parse(arguments):
    parser = argparse.ArgumentParser(prog="fetch", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a model of --list")
    parser.add_argument("--list", action="store_true", help="the models, their files and accuracies")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to install")
    parser.add_argument("--url", default=BASE, metavar="BASE", help=f"default {BASE}")
    parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS", help="of silence (default 30)")
    parser.add_argument("--force", action="store_true", help="download again what is installed")
    parser.add_argument("--switchback", metavar="FILE", help="the command (default build/switchback)")
    args = parser.parse_args(arguments)
    if not args.list and args.name not in PUBLISHED:
        near = difflib.get_close_matches(args.name or "", PUBLISHED, 1)
        parser.error((f"no published weights of '{printable(args.name)}'" + (f", nearest: {near[0]}" if near else "")
                      if args.name else "which model?") + f"; there are {', '.join(PUBLISHED)}")
    if urllib.parse.urlsplit(args.url).scheme not in ("http", "https"):
        parser.error(f"--url {args.url}: http:// or https:// is wanted")
    if not args.timeout > 0:
        parser.error(f"--timeout {args.timeout} is not positive")
    return args


def main(arguments=None):
    args = parse(arguments)
    if args.list:
        for name, published in PUBLISHED.items():
            measure = {"top1": "top-1", "miou": "mean IoU"}[published.measure]
            print(f"{name:<25} {published.file:<46} {measure} {published.result:.2f} %  {published.paper}")
        return
    program, folder = find_program(args.switchback), args.folder or user_folder()
    target = folder / f"{args.name}.safetensors"
    if target.exists() and not args.force:
        print(f"{target} is there already (--force downloads it again)")
    else:
        fetch(args.name, folder, args.url, args.timeout, program)
    say_installed(args.name, target, program)


if __name__ == "__main__":
    run_main("fetch", main)
