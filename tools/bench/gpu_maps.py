"""Stages of gpu_measure.py that measure methods: SmoothGrad, occlusion, LeNet's Jacobian, etalons."""

import json
import random
import statistics
import tempfile
from pathlib import Path

from gpu_core import Peer, Skip, bench, gpu_state, last_line, run

OCCLUSION_PRECISIONS = ("bf16",)
MASK, STRIDE = 32, 2
CHECKED = 64  # places whose drops are held against float64


# ---------------------------------------------------------------------------------------------- both programs in turn

def measured(part, sides, name):
    """One run of a side and its row, or nothing: one that fails is left out from then on."""
    try:
        answer = sides[name]()
    except RuntimeError as why:
        part.note(f"{name}: {why}")
        part.document["failed_sides"][name] = str(why)
        del sides[name]
        return None, None
    row = part.document["sides"].setdefault(name, dict(per_second=[], states=[]))
    row |= {k: answer[k] for k in ("batch", "peak_bytes") if k in answer}
    return answer["per_second"], row


def measure_ours(part, sides):
    """Before PyTorch takes its time, so that there is a figure whatever it does."""
    for name in list(sides):
        rate, row = measured(part, sides, name)
        if row:
            row["before"] = rate
        part.save()


def alternate(part, sides, reverse):
    """One run of each side, so that run i of two sides is a pair."""
    for name in sorted(sides, reverse=reverse):
        if part.left() < 30:
            return part.note("time was over before all rounds were run")
        rate, row = measured(part, sides, name)
        if row:
            row["per_second"].append(rate)
            row["states"].append(gpu_state(part))
        part.save()


def peer_of(args, part):
    """PyTorch, or nothing: then our figures stand alone."""
    try:
        peer = Peer(args)
    except Skip as why:
        return part.note(f"ours alone: {why}")
    part.save(peer=peer.facts)
    return peer


def fail_if_ours_did(part):
    if broken := [name for name in part.document["failed_sides"] if name.startswith("switchback")]:
        raise RuntimeError(f"{broken[0]} failed: see the notes")


def scan(args, part, peer, batches, ask):
    """PyTorch's best, by ask(way, layout, batch): eager in both layouts and all batches; graphs and torch.compile at
    the best two of these."""
    rates = part.document["scan"]

    def attempt(way, layout, batch):
        try:
            ask(way, layout, batch)
            rates[f"{way}/{layout}/{batch}"] = ask(way, layout, batch)["per_second"]
        except RuntimeError as why:
            part.note(f"PyTorch {way}, {layout}, batch {batch}: {why}")
        part.save()

    for layout in ("channels_last", "contiguous"):
        for batch in reversed(batches):  # the fastest are among the large ones
            if rates and part.left() < 0.6 * args.seconds:
                part.note(f"no time for PyTorch eager, {layout}, batch {batch}")
                continue
            attempt("eager", layout, batch)
        peer.ask("drop")
    ranked = sorted(rates, key=rates.get, reverse=True)
    if not ranked:
        raise RuntimeError("PyTorch runs in no way")
    for way in ("graph", "compile", "compile+graph") if args.device == "cuda" else ():
        for _, layout, batch in [key.split("/") for key in ranked[: 2 if way == "graph" else 1]]:
            if part.left() < 0.4 * args.seconds:
                part.note(f"no time for PyTorch {way}, {layout}, batch {batch}")
                continue
            attempt(way, layout, int(batch))
    top = {}  # the best of each way
    for key in sorted(rates, key=rates.get, reverse=True):
        way, layout, batch = key.split("/")
        top.setdefault(way, (way, layout, int(batch)))
    peer.ask("drop")
    return list(top.values())


def photo_like(np, size, path):
    rng = np.random.default_rng(1)
    coarse = rng.standard_normal((1, 3, -(-size // 8), -(-size // 8))).astype(np.float32)
    image = np.kron(coarse, np.ones((1, 1, 8, 8), np.float32))[:, :, :size, :size]
    np.save(path, (image + 0.3 * rng.standard_normal((1, 3, size, size))).astype(np.float32))


def conv_choices(args):
    return ("own", "auto") if args.device == "cuda" else ("direct",)


# ---------------------------------------------------------------------------------------------- SmoothGrad

def stage_smoothgrad(args, part):
    """VGG19 at 224x224, N = 100: ours and PyTorch at its best, alternating; then both maps against float64."""
    precision = args.stage.split("-")[1]
    samples, batches = (2, (1, 2)) if args.quick else (100, (10, 25, 50, 100))
    part.save(precision=precision, samples=samples, scan={}, sides={}, failed_sides={})
    sides = {f"switchback --conv {conv}": lambda conv=conv: our_smoothgrad(args, part, precision, samples, conv)
             for conv in conv_choices(args)}
    measure_ours(part, sides)
    peer = peer_of(args, part)

    def theirs(way, layout, batch):
        return peer.ask("smoothgrad", way=way, precision=precision, layout=layout, batch=batch, samples=samples)

    for case in scan(args, part, peer, batches, theirs) if peer else ():
        sides["PyTorch {}, {}, batch {}".format(*case)] = lambda case=case: theirs(*case)
    for r in range(1 if args.quick else 5):
        alternate(part, sides, reverse=r % 2 == 1)
    if peer:
        peer.ask("forget")
        map_errors(args, part, peer, precision, samples)
        peer.close()
    fail_if_ours_did(part)


def our_smoothgrad(args, part, precision, samples, conv):
    document = bench(args, part, "--method", "smoothgrad", "--model", "vgg19", "--weights", "random:0", "--precision",
                     precision, "--conv", conv, "--samples", samples, "--repeat", 1 if args.quick else 3)
    return dict(per_second=document["items_per_second"], batch=document["batch"],
                peak_bytes=document["arena_bytes"] + document["backward_arena_bytes"] + document["tape_bytes"])


def map_errors(args, part, peer, precision, samples):
    """Both maps against PyTorch's in float64: same weights, image and noise."""
    try:
        import numpy as np
    except ImportError:
        return part.note("no map errors: no numpy")
    if part.left() < 60:
        return part.note("no time for the map errors")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo_like(np, 224, folder / "image.npy")
        line = [args.switchback, "smoothgrad", "--model", "vgg19", "--weights", "random:0", "--save-weights",
                folder / "weights.safetensors", "--device", args.device, "--precision", precision, "--samples", samples,
                "--noise", 0.15, "--seed", 5, "--target", 7, "-o", folder / "out", "--save", "npy", "--quiet",
                folder / "image.npy"]
        code, _, err = run(line, part)
        if code != 0:
            return part.note(f"switchback smoothgrad: exit code {code}: {last_line(err)}")
        request = dict(image=str(folder / "image.npy"), weights=str(folder / "weights.safetensors"), noise=0.15, seed=5,
                       samples=samples, target=7, batch=min(samples, 10))
        try:
            peer.ask("reference", **request)
            ours_error = peer.ask("error", map=str(next((folder / "out").glob("*.smoothgrad*.npy"))))["error"]
            part.save(map_error=dict(switchback=ours_error))
            part.document["map_error"]["PyTorch"] = peer.ask("own_error", precision=precision, **request)["error"]
        except (RuntimeError, StopIteration) as why:
            part.note(f"map errors: {why}")
    part.save()


# ---------------------------------------------------------------------------------------------- occlusion

def stage_occlusion(args, part):
    """VGG19, a mask of 32 at every 2nd pixel, all places: ours, our full recomputation and PyTorch's batched loop at
    its best, alternating; then drops against float64."""
    precision, stride = args.stage.split("-")[1], 16 if args.quick else STRIDE
    batches = (2, 4) if args.quick else (32, 64, 128, 256)
    part.save(precision=precision, mask=MASK, stride=stride, scan={}, sides={}, failed_sides={})
    sides = {}
    for algorithm in ("incremental", "full"):
        for conv in conv_choices(args):
            sides[f"switchback {algorithm}, --conv {conv}"] = (
                lambda algorithm=algorithm, conv=conv: our_occlusion(args, part, precision, stride, algorithm, conv))
    measure_ours(part, sides)
    peer = peer_of(args, part)

    def theirs(way, layout, batch):
        return peer.ask("occlusion", way=way, precision=precision, layout=layout, batch=batch, mask=MASK, stride=stride)

    for case in scan(args, part, peer, batches, theirs) if peer else ():
        sides["PyTorch {}, {}, batch {}".format(*case)] = lambda case=case: theirs(*case)
    for r in range(1 if args.quick else 4):
        alternate(part, sides, reverse=r % 2 == 1)
    if peer:
        peer.ask("forget")
        drop_errors(args, part, peer, precision)
        peer.close()
    fail_if_ours_did(part)


def our_occlusion(args, part, precision, stride, algorithm, conv):
    document = bench(args, part, "--method", "occlusion", "--model", "vgg19", "--weights", "random:0", "--precision",
                     precision, "--conv", conv, "--algorithm", algorithm, "--mask", MASK, "--stride", stride,
                     "--positions", 1 if args.quick else "all", "--repeat", 1 if args.quick else 3)
    facts = part.document.setdefault("ours", {}).setdefault(algorithm, {})
    for key in ("items_per_call", "flops_per_item", "flop_ratio", "window_groups", "ms_first_call"):
        if key in document:
            facts[key] = document[key]
    return dict(per_second=document["items_per_second"], batch=document["batch"])


def drop_errors(args, part, peer, precision):
    """Drops of random places against PyTorch's in float64: same weights, image and boxes."""
    try:
        import numpy as np
    except ImportError:
        return part.note("no errors of the drops: no numpy")
    if part.left() < 45:
        return part.note("no time for the errors of the drops")
    starts = range(0, args.size - MASK + 1, STRIDE)
    boxes = random.Random(1).sample([(r, c, MASK, MASK) for r in starts for c in starts], 4 if args.quick else CHECKED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo_like(np, args.size, folder / "image.npy")
        line = [args.switchback, "occlusion", "--model", "vgg19", "--weights", "random:0", "--save-weights",
                folder / "weights.safetensors", "--device", args.device, "--precision", precision, "-o", folder / "out",
                "--save", "npy", "--json", folder / "image.npy"]
        code, out, err = run([*line, *(word for r, c, h, w in boxes for word in ("--box", f"{c},{r},{w},{h}"))], part)
        if code != 0:
            return part.note(f"switchback occlusion: exit code {code}: {last_line(err)}")
        entry = json.loads(out)["inputs"][0]
        request = dict(image=str(folder / "image.npy"), weights=str(folder / "weights.safetensors"), model="vgg19",
                       target=entry["target"], boxes=boxes, precision=precision,
                       drops=np.load(entry["files"][0]["path"]).ravel().tolist())
        try:
            part.save(drop_error=peer.ask("occlusion_errors", **request))
        except RuntimeError as why:
            part.note(f"errors of the drops: {why}")


# ---------------------------------------------------------------------------------------------- rows of a Jacobian

def stage_jacobian(args, part):
    """LeNet, ten outputs of one image."""
    peer = Peer(args)
    part.save(peer=peer.facts, ours_ms=[], ways={})
    lenet_rounds(args, part, part.document, "jacobian", lambda: peer.ask("jacobian", repeat=50))
    peer.close()


def lenet_rounds(args, part, table, method, ask):
    for r in range(1 if args.quick else 4):
        if part.left() < 10:
            part.note(f"time was over in round {r + 1}")
            break
        document = bench(args, part, "--method", method, "--model", "lenet", "--weights", "random:0", "--repeat", 20,
                         "--min-seconds", 0.01)
        table["ours_ms"] += document["ms_runs"]
        for name, way in ask()["ways"].items():
            if "ms" in way:
                table["ways"].setdefault(name, []).append(way["ms"])
            else:
                part.note(f"PyTorch's {name}: {way['error']}")
        part.save()


def stage_etalon(args, part):
    """LeNet's ten etalons of one image, rows and biases; then 1000 of VGG16 in f32, beside as many backward passes at
    the best batch, ours and PyTorch's."""
    peer = Peer(args)
    outputs = 4 if args.quick else 1000
    part.save(peer=peer.facts, lenet=dict(ours_ms=[], ways={}), sides={}, failed_sides={}, outputs=outputs)
    lenet_rounds(args, part, part.document["lenet"], "etalon", lambda: peer.ask(
        "etalon", model="lenet", precision="fp32", layout="contiguous", count=10, repeat=3 if args.quick else 30))
    sides = {"switchback etalon": lambda: our_rate(args, part, "etalon", "--outputs", outputs)}
    for batch in (2,) if args.quick else (16, 32, 64, 128):
        for method in ("gradient", "forward"):
            sides[f"switchback {method}, batch {batch}"] = (
                lambda method=method, batch=batch: our_rate(args, part, method, "--batch", batch))
        for way in (f"input repeated {batch} times", "is_grads_batched"):
            sides[f"PyTorch, {way}, {batch} at a time"] = (
                lambda way=way, batch=batch: their_rate(args, peer, way, batch))
    for r in range(1 if args.quick else 3):
        alternate(part, sides, reverse=r % 2 == 1)
    peer.close()
    fail_if_ours_did(part)


def our_rate(args, part, method, *options):
    document = bench(args, part, "--method", method, "--model", "vgg16", "--weights", "random:0", "--repeat",
                     1 if args.quick else 3, *options)
    if method == "etalon":
        part.document["flops_per_item"] = document["flops_per_item"]
    return dict(per_second=document["items_per_second"], batch=document.get("seeds", document["batch"]))


def their_rate(args, peer, way, batch):
    answer = peer.ask("etalon", model="vgg16", precision="fp32", layout="channels_last", count=batch, only=[way],
                      repeat=1 if args.quick else 3)
    (found,) = answer["ways"].values()
    if "error" in found:
        raise RuntimeError(f"{way}: {found['error']}")
    return dict(per_second=1e3 * batch / found["ms"], batch=batch)


def backward_ms(part):
    """batch -> ms of one of our backward passes in each round: a gradient's time less its forward pass's."""
    sides, found = part["sides"], {}
    for name in sides:
        if name.startswith("switchback gradient, batch "):
            batch = int(name.split()[-1])
            forward = sides.get(f"switchback forward, batch {batch}")
            if forward:
                pairs = zip(sides[name]["per_second"], forward["per_second"])
                found[batch] = statistics.median(1e3 / g - 1e3 / f for g, f in pairs)
    return found
