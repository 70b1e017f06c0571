#!/usr/bin/env python3
"""Metrics of `switchback judge` beside Quantus, Captum, pytorch-grad-cam and scikit-image, on a ResNet-18 with random weights,
images of random waves and the same maps, noise and random weights: 1e-4.

    tests/compare/judge.py [--switchback build/switchback] [--time]

Needs torch, torchvision, grad-cam, quantus, captum and scikit-image.
 - Quantus: sparseness, pointing game, relevance mass (energy), pixel flipping (deletion's curve), max and average sensitivity (with the
   noise of viz/methods/judge.cpp as perturb_func), Spearman's correlation of randomised networks' maps.
 - Captum in float64: infidelity with normalize=True, the same noise of sigma 1 (at 0.1 the scores' float32 leaves 2e-4 of it). pytorch-grad-cam: ROADCombined's formula with its imputation, without noise.
   scikit-image: SSIM of the maps (Quantus flattens them before).
 - Transcribed, since theirs is TensorFlow or draws its own numbers: insertion and its area (RISE's program), xplique's mu-fidelity with
   our subsets, the random logit test with our class.
--time: seconds of deletion and insertion and of randomising all layers beside Quantus's and xplique's ways, of RISE beside a batched one
in PyTorch (400 masks, of which the time is a multiple), and of Ablation-CAM beside pytorch-grad-cam's, in turn."""

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import quantus
import torch
import torchvision
import pytorch_grad_cam.ablation_cam
from captum.metrics import infidelity
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from quantus.functions.similarity_func import correlation_spearman
from safetensors.numpy import load_file
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

sys.path.insert(0, str(Path(__file__).resolve().parent))
from reference import lively  # noqa: E402
from cams import ROOT, write_safetensors  # noqa: E402

LIMIT, POINTS, SAMPLES, GRID, SUBSETS = 1e-4, 16, 10, 9, 50
warnings.filterwarnings("ignore")
pytorch_grad_cam.ablation_cam.tqdm = SimpleNamespace(tqdm=lambda items, *_, **__: items)
quantus.helpers.asserts.assert_features_in_step = lambda *_, **__: None  # it wants steps that divide H·W, though it flips C·H·W values


def philox(block, sample, number, seed=0):
    """[N,4] words of the blocks (an array), as kernels/noise/noise.h has them."""
    a, b = block.astype(np.uint64) & 0xFFFFFFFF, block.astype(np.uint64) >> 32
    c, d = np.full_like(a, sample), np.full_like(a, number)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p, q = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (q >> 32) ^ b ^ np.uint64(k0), q & 0xFFFFFFFF, (p >> 32) ^ d ^ np.uint64(k1), p & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([a, b, c, d], 1)


def uniform(words):
    return ((words >> 8).astype(np.float64) + 0.5) / 2**24


def normals(count, sigma, sample, number):
    u = uniform(philox(np.arange(-(-count // 4)), sample, number))
    r1, r2 = np.sqrt(-2 * np.log(u[:, 0])), np.sqrt(-2 * np.log(u[:, 2]))
    z = np.stack([r1 * np.cos(2 * np.pi * u[:, 1]), r1 * np.sin(2 * np.pi * u[:, 1]), r2 * np.cos(2 * np.pi * u[:, 3]), r2 * np.sin(2 * np.pi * u[:, 3])], 1)
    return (sigma * z.reshape(-1)[:count]).astype(np.float32)


def waves(count, size):
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:size, :size] / size
    return np.stack([sum(rng.normal(size=(3, 1, 1)) * np.sin(rng.uniform(2, 40) * x + rng.uniform(2, 40) * y + rng.uniform(0, 6)) for _ in range(12))
                     for _ in range(count)]).astype(np.float32)


def network():
    torch.manual_seed(1)
    return lively(torchvision.models.resnet18(weights=None).eval())


def state(net):
    return {k: v.numpy() for k, v in net.state_dict().items() if v.dtype == torch.float32}


def run(args, folder, *arguments):
    done = subprocess.run([args.switchback, *arguments, "--model", "resnet18", "--json", "-o", str(folder / "out")], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def gradients(net, x, classes):
    x = torch.from_numpy(np.ascontiguousarray(x)).requires_grad_()
    net(x)[torch.arange(len(x)), torch.as_tensor(classes)].sum().backward()
    return x.grad.numpy()


def score(net, x, classes, softmax=True):
    with torch.no_grad():
        y = torch.cat([net(part).double() for part in torch.from_numpy(np.ascontiguousarray(x)).split(32)])
    return (y.softmax(1) if softmax else y)[:, classes].numpy()


class Worst:
    def __init__(self):
        self.of, self.wrong = {}, 0

    def add(self, name, got, want):
        error = np.abs(np.asarray(got, float) - np.asarray(want, float)).max()
        self.of[name] = max(self.of.get(name, 0), error if np.isfinite(error) else np.inf)

    def report(self):
        for name, error in self.of.items():
            self.wrong += not error <= LIMIT
            print(f"{'ok  ' if error <= LIMIT else 'WRONG'} {name}: {error:.1e}", flush=True)


def strengths(maps):
    return np.abs(maps).sum(1, dtype=np.float32)


def order_of(strength):
    return np.argsort(-strength.reshape(-1), kind="stable")


def given_maps(args, folder, net, x, worst):
    n, _, h, w = x.shape
    rng = np.random.default_rng(1)
    maps = rng.normal(size=x.shape).astype(np.float32)
    np.save(folder / "maps.npy", maps)
    (folder / "boxes.csv").write_text("".join(f"{i},{i % 5},3,{w // 2},{h // 2}\n" for i in range(n)))
    found = run(args, folder, "judge", str(folder / "x.npy"), "--weights", str(folder / "net.safetensors"), "--methods", "none", "--maps",
                str(folder / "maps.npy"), "--boxes", str(folder / "boxes.csv"), "--points", str(POINTS), "--grid", str(GRID), "--subsets", str(SUBSETS),
                "--insertion-fill", "mean", "--road-noise", "0", "--sigma", "1", "--metrics",
                "deletion,insertion,mu-fidelity,road,infidelity,sparseness,pointing,energy")
    got = {r["metric"]: r for r in found["results"] if r["method"] == "maps"}
    classes = np.array([entry["target"] for entry in found["inputs"]])
    inside = np.zeros((n, 1, h, w), bool)
    for i in range(n):
        inside[i, 0, 3:3 + h // 2, i % 5:i % 5 + w // 2] = True
    strength = strengths(maps)[:, None]
    common = dict(abs=False, normalise=False, disable_warnings=True, display_progressbar=False)
    call = dict(model=net, x_batch=x, y_batch=classes, device="cpu")
    worst.add("sparseness, Quantus", got["sparseness"]["values"], quantus.Sparseness(**common)(a_batch=strength.copy(), **call))
    worst.add("pointing game, Quantus", got["pointing"]["values"],
              np.ravel(quantus.PointingGame(**common)(a_batch=strength.copy(), s_batch=inside, **call)).astype(float))
    worst.add("energy, Quantus's relevance mass", got["energy"]["values"],
              quantus.RelevanceMassAccuracy(**common)(a_batch=strength.copy(), s_batch=inside, **call))
    flipping = quantus.PixelFlipping(features_in_step=3 * h * w // POINTS, perturb_baseline=0.0, **common)
    worst.add("deletion's curve, Quantus's pixel flipping", np.array(got["deletion"]["curves"])[:, 1:],
              np.array(flipping(a_batch=strength.copy(), softmax=True, **call)))

    def noise(inputs):  # Captum repeats every input: image by image, its samples one after the other
        all_noise = np.concatenate([normals(3 * h * w, 1, 2**30 + k, noise.number).reshape(1, 3, h, w) for k in range(len(inputs))])
        return torch.from_numpy(all_noise).double(), (inputs.float() - torch.from_numpy(all_noise)).double()

    exact = copy.deepcopy(net).double()  # Captum sums in the inputs' type
    for i in range(n):
        noise.number = i
        theirs = infidelity(exact, noise, torch.from_numpy(x[i:i + 1]).double(), torch.from_numpy(maps[i:i + 1]).double(), target=int(classes[i]), n_perturb_samples=SAMPLES,
                            normalize=True)
        worst.add("infidelity, Captum, relative", got["infidelity"]["values"][i] / float(theirs), 1)
        order, flat = order_of(strength[i]), x[i].reshape(3, -1)
        mean = np.broadcast_to(flat.mean(1, keepdims=True), flat.shape)
        images = np.stack([np.where(np.isin(np.arange(h * w), order[:k * h * w // POINTS]), flat, mean) for k in range(POINTS + 1)])
        p = score(net, images.reshape(-1, 3, h, w), classes[i])
        worst.add("insertion, RISE's area", got["insertion"]["values"][i], (p.sum() - p[0] / 2 - p[-1] / 2) / POINTS)
        imputed = []
        for first in (order, order[::-1]):
            for share in (0.2, 0.4, 0.6, 0.8):
                keep = np.ones(h * w, np.float32)
                keep[first[:int(share * h * w)]] = 0
                imputed.append(NoisyLinearImputer(noise=0)(torch.from_numpy(x[i]), torch.from_numpy(keep.reshape(h, w))).numpy())
        p = score(net, np.stack(imputed), classes[i])
        worst.add("road, pytorch-grad-cam's imputation", got["road"]["values"][i], np.mean(p[4:] - p[:4]) / 2)
        cell = (np.arange(h)[:, None] * GRID // h * GRID + np.arange(w)[None] * GRID // w)
        taken, sums, masked = int(0.2 * GRID**2), [], [x[i]]
        for s in range(SUBSETS):
            cells = list(range(GRID**2))
            for k in range(taken):
                u = uniform(philox(np.array([s * GRID**2 + k]), 2, i))[0, 0]
                j = k + int(u * (GRID**2 - k))
                cells[k], cells[j] = cells[j], cells[k]
            chosen = np.isin(cell, cells[:taken])
            sums.append(strength[i, 0][chosen].sum(dtype=np.float64))
            masked.append(np.where(chosen, 0, x[i]))
        y = score(net, np.stack(masked), classes[i], softmax=False)
        worst.add("mu-fidelity, xplique's formula", got["mu-fidelity"]["values"][i], spearmanr(sums, y[0] - y[1:])[0])


def made_maps(args, folder, net, x, worst):
    n, _, h, w = x.shape
    found = run(args, folder, "judge", str(folder / "x.npy"), "--weights", str(folder / "net.safetensors"), "--methods", "gradient", "--metrics",
                "max-sensitivity,avg-sensitivity,randomisation,layer-randomisation,random-logit")
    got = {r["metric"]: r for r in found["results"] if r["method"] == "gradient"}
    classes = np.array([entry["target"] for entry in found["inputs"]])
    run(args, folder, "classify", str(folder / "x.npy"), "--weights", "random:1", "--save-weights", str(folder / "random.safetensors"))
    random = {k: torch.from_numpy(v) for k, v in load_file(folder / "random.safetensors").items()}

    def explain(model, inputs, targets, **_):
        return gradients(model, inputs, targets)

    def perturb(arr, indices, **_):  # called once a sample
        k, perturb.sample = perturb.sample, perturb.sample + 1
        u = uniform(philox(np.arange(-(-arr.size // 4)), 3 * 2**29 + k, perturb.number)).reshape(-1)[:arr.size]
        return (arr + (0.02 * (2 * u - 1)).astype(np.float32).reshape(arr.shape)).astype(np.float32)

    maps = gradients(net, x, classes)
    for name, metric in (("max-sensitivity", quantus.MaxSensitivity), ("avg-sensitivity", quantus.AvgSensitivity)):
        for i in range(n):
            perturb.number, perturb.sample = i, 0
            values = metric(nr_samples=SAMPLES, perturb_func=perturb, abs=False, normalise=False, disable_warnings=True, display_progressbar=False)(
                model=net, x_batch=x[i:i + 1], y_batch=classes[i:i + 1], a_batch=maps[i:i + 1].copy(), explain_func=explain, device="cpu")
            worst.add(f"{name}, Quantus", got[name]["values"][i], values[0])

    def ssim(a, b):
        return structural_similarity(a, b, data_range=float(max(a.max(), b.max()) - min(a.min(), b.min())))

    trained, saved = strengths(maps), {k: v.clone() for k, v in net.state_dict().items()}
    for metric in ("randomisation", "layer-randomisation"):
        net.load_state_dict(saved)
        for k, layer in enumerate(found["randomised_layers"]):
            if metric == "layer-randomisation":
                net.load_state_dict(saved)
            net.load_state_dict({key: v for key, v in random.items() if key.rpartition(".")[0] == layer}, strict=False)
            now = strengths(gradients(net, x, classes))
            for i in range(n):
                worst.add(f"{metric}, Quantus's Spearman", got[metric]["spearman"][i][k], correlation_spearman(trained[i].ravel(), now[i].ravel()))
                worst.add(f"{metric}, scikit-image's SSIM", got[metric]["ssim"][i][k], ssim(trained[i], now[i]))
    net.load_state_dict(saved)
    for i in range(n):
        drawn = int(uniform(philox(np.array([0]), 5, i))[0, 0] * 999)
        other = strengths(gradients(net, x[i:i + 1], [drawn + (drawn >= classes[i])]))[0]
        worst.add("random-logit, scikit-image's SSIM", got["random-logit"]["values"][i], ssim(trained[i], other))


def times(args, folder, net, rounds):
    """Deletion and insertion of four images of 224 and a map each in 28 steps, and of one image the rest, in turn."""
    x = waves(4, 224)
    np.save(folder / "four.npy", x)
    np.save(folder / "x.npy", x[:1])
    maps = np.random.default_rng(1).normal(size=(4, 3, 224, 224)).astype(np.float32)
    np.save(folder / "maps.npy", maps)
    with torch.no_grad():
        cls = net(torch.from_numpy(x)).argmax(1).numpy()
    a = strengths(maps)[:, None]
    quiet = dict(abs=False, normalise=False, disable_warnings=True, display_progressbar=False)
    weights = ["--weights", str(folder / "net.safetensors")]
    one, four = str(folder / "x.npy"), str(folder / "four.npy")

    def ours(*options):
        return run(args, folder, *options, *weights)["seconds"]["run"]

    def flip(order):  # deletion; insertion is flipping's mirror image, which Quantus lacks: the same work from the other end
        quantus.PixelFlipping(features_in_step=3 * 224 * 224 // 28, perturb_baseline=0.0, **quiet)(
            model=net, x_batch=x, y_batch=cls, a_batch=order.copy(), softmax=True, device="cpu")

    def batched():  # xplique's way: all changed images of a curve, in batches
        for i in range(len(x)):
            order, images = order_of(a[i]), []
            for start, end in ((x[i], np.zeros_like(x[i])), (np.zeros_like(x[i]), x[i])):
                y = start.copy().reshape(3, -1)
                for k in range(29):
                    step = order[max(0, k - 1) * 224 * 224 // 28:k * 224 * 224 // 28]
                    y[:, step] = end.reshape(3, -1)[:, step]
                    images.append(y.copy())
            score(net, np.stack(images).reshape(-1, 3, 224, 224), cls[i])

    def explain(model, inputs, targets, **_):
        return gradients(model, inputs, targets)

    def mprt():
        quantus.MPRT(similarity_func=correlation_spearman, layer_order="top_down", **quiet)(
            model=net, x_batch=x[:1], y_batch=cls[:1], a_batch=None, explain_func=explain, device="cpu")

    def rise(masks=400, grid=7):  # batches of 32; masks as torch makes them fastest
        image, total = torch.from_numpy(x[:1]), torch.zeros(224, 224)
        with torch.no_grad():
            for first in range(0, masks, 32):
                n, cell = min(32, masks - first), 32
                large = torch.nn.functional.interpolate((torch.rand(n, 1, grid, grid) < 0.5).float(), (grid + 1) * cell, mode="bilinear")
                mask = torch.stack([m[:, r:r + 224, c:c + 224] for m, (r, c) in zip(large, np.random.randint(0, cell, (n, 2)))])
                total += (net(image * mask).softmax(1)[:, cls[0]][:, None, None] * mask[:, 0]).sum(0)

    def ablation():
        with AblationCAM(model=net, target_layers=[net.layer4[-1]]) as cam:
            cam.batch_size = 32
            cam(input_tensor=torch.from_numpy(x[:1]), targets=[ClassifierOutputTarget(int(cls[0]))])

    def timed(f):
        start = time.monotonic()
        f()
        return time.monotonic() - start

    ratios = {}
    for _ in range(rounds):
        # judge also runs its base lines: three maps for one of theirs.
        own = ours("judge", four, "--methods", "none", "--maps", str(folder / "maps.npy"), "--metrics", "deletion,insertion", "--insertion-fill", "0") / 3
        ratios.setdefault("deletion + insertion of four images, Quantus's pixel flipping", []).append((timed(lambda: (flip(a), flip(a.max() - a))), own))
        ratios.setdefault("deletion + insertion of four images, batches of 32 as xplique", []).append((timed(batched), own))
        own = ours("judge", one, "--methods", "gradient", "--metrics", "randomisation")
        ratios.setdefault("all layers randomised, Quantus's MPRT", []).append((timed(mprt), own))
        cam = ["cam", one, "--target", str(cls[0])]
        ratios.setdefault("RISE, 400 masks", []).append((timed(rise), ours(*cam, "--method", "rise", "--masks", "400", "--score", "probability")))
        ratios.setdefault("Ablation-CAM of layer4", []).append((timed(ablation), ours(*cam, "--method", "ablationcam", "--layer", "layer4.1.relu_1")))
    for name, pairs in ratios.items():
        each = sorted(theirs / own for theirs, own in pairs)
        middle = len(pairs) // 2
        print(f"{name}: {sorted(p[0] for p in pairs)[middle]:.2f} s beside {sorted(p[1] for p in pairs)[middle]:.2f} s, {each[middle]:.2f} times "
              f"({each[0]:.2f} to {each[-1]:.2f})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switchback", default=str(ROOT / "build" / "switchback"))
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    net, worst = network(), Worst()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_safetensors(folder / "net.safetensors", state(net))
        if args.time:
            return times(args, folder, net, args.rounds)
        x = waves(args.images, args.size)
        np.save(folder / "x.npy", x)
        given_maps(args, folder, net, x, worst)
        made_maps(args, folder, net, x, worst)
    worst.report()
    return 1 if worst.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
