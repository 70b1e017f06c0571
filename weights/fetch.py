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
LARGEST = 1 << 30  # bytes; vgg19_bn has 0.55 GiB
ATTEMPTS = 4       # as long as each brings something
LICENCE = ("published by torchvision (BSD-3-Clause); trained on ImageNet, whose terms (research, non-commercial) may "
           "bind users of the weights")
VGG = "Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556"
RESNET = "He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385"
SQUEEZENET = "Iandola et al., SqueezeNet, arXiv:1602.07360"


class Published(NamedTuple):
    file: str     # ends in the first 8 hexadecimal digits of its SHA-256
    top1: float   # % of ImageNet's validation images, as torchvision states
    paper: str


# torchvision's IMAGENET1K_V1, the weights for the usual preprocessing (256, centre crop 224).
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
    accuracy = {"set": "ImageNet's validation images, as torchvision states", "top1": published.top1 / 100}
    update_manifest(target, folder, model=name, licence=LICENCE, source=url, made="weights/fetch.py", accuracy=accuracy)
    for warning in warnings:
        print(f"fetch: warning: {warning}", file=sys.stderr)
    print(summary)
    print(f"paper: {published.paper}\nlicence: {LICENCE}")


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
            print(f"{name:<16} {published.file:<29} top-1 {published.top1:.2f} %  {published.paper}")
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
