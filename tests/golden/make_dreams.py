#!/usr/bin/env python3
"""Trajectories of images that are optimised: 20 steps of each recipe of `switchback maximize` and of each attack of
`switchback adversarial`, as PyTorch computes them in float64 on a small smooth network (GELU: no gate can fall
otherwise). Random parts are drawn by the engine's documented counters. Writes dreams.safetensors.

    python3 tests/golden/make_dreams.py
"""

import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

import philox

torch.set_default_dtype(torch.float64)
HERE = pathlib.Path(__file__).parent
H, W, STEPS, SEED, STREAM, CHANNEL = 20, 24, 20, 7, 3, 5
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
SCALE, OFFSET = (1 / STD).astype(np.float32).astype(np.float64), (-MEAN / STD).astype(np.float32).astype(np.float64)
scale, offset = torch.from_numpy(SCALE).view(1, 3, 1, 1), torch.from_numpy(OFFSET).view(1, 3, 1, 1)


def parameter(name, kind, shape):
    return torch.from_numpy(philox.random_parameter(SEED, name, kind, shape).astype(np.float64))


P = {f"{n}.{k}": parameter(f"{n}.{k}", kind, s)
     for n, k, kind, s in [("conv1", "weight", "conv.weight", (8, 3, 3, 3)), ("conv1", "bias", "bias", (8,)),
                           ("conv2", "weight", "conv.weight", (12, 8, 3, 3)), ("conv2", "bias", "bias", (12,)),
                           ("fc", "weight", "linear.weight", (5, 12)), ("fc", "bias", "bias", (5,))]}


def features(x):
    x = F.gelu(F.conv2d(x, P["conv1.weight"], P["conv1.bias"], padding=1))
    return F.conv2d(x, P["conv2.weight"], P["conv2.bias"], padding=1, stride=2)


def logits(x):
    return F.linear(F.gelu(features(x)).mean((2, 3)), P["fc.weight"], P["fc.bias"])


def gradient(f, *at):
    at = [a.detach().requires_grad_() for a in at]
    return torch.autograd.grad(f(*at), at)


def start_image():
    """Pixels 0 to 1, float32, as an input."""
    i, j = np.mgrid[0:H, 0:W]
    pixels = np.stack([0.5 + 0.3 * np.sin(0.4 * i + c) * np.cos(0.3 * j - c) for c in range(3)])
    return ((pixels / STD[:, None, None]) - (MEAN / STD)[:, None, None]).astype(np.float32)


START = torch.from_numpy(start_image().astype(np.float64))[None]


def adam(state, g, lr, decay, w):
    state["t"] += 1
    g = -g + decay * w  # descends −f
    state["m"] = 0.9 * state["m"] + 0.1 * g
    state["s"] = 0.999 * state["s"] + 0.001 * g * g
    t = state["t"]
    return w - lr / (1 - 0.9**t) * state["m"] / ((state["s"] / (1 - 0.999**t)).sqrt() + 1e-8)


def fresh(w):
    return {"t": 0, "m": torch.zeros_like(w), "s": torch.zeros_like(w)}


def edge_energy(x):
    k = torch.tensor([1.0, 4, 6, 4, 1])
    k = (k[:, None] * k[None] / 256).view(1, 1, 5, 5)
    u, total = x.reshape(-1, 1, x.shape[2], x.shape[3]), 0
    while min(u.shape[2:]) > 5:
        total = total + (u - F.conv2d(u, k, padding=2)).pow(2).sum()
        u = F.avg_pool2d(u, 2, padding=1)
    return total


def fleuret():
    x, state = START.clone(), fresh(START)
    for _ in range(STEPS):
        g, = gradient(lambda v: features(v)[:, CHANNEL].sum() - edge_energy(v), x)
        x = adam(state, g, 0.1, 0, x)
    return x


def separable(x, taps):
    """taps[0] at the middle; mirrored beyond the border."""
    r = len(taps) - 1
    kernel = torch.tensor(list(taps[:0:-1]) + list(taps))
    v = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (r, r), (r, r)), mode="symmetric"))
    v = F.conv2d(v.reshape(-1, 1, *v.shape[2:]), kernel.view(1, 1, -1, 1))
    return F.conv2d(v, kernel.view(1, 1, 1, -1)).reshape(x.shape)


def gaussian(x, sigma):
    r = int(4 * sigma + 0.5)
    taps = [math.exp(-0.5 * k * k / sigma**2) for k in range(r + 1)]
    total = taps[0] + 2 * sum(taps[1:])
    return separable(x, [t / total for t in taps])


def yosinski(decay, blur, lr, kind=None, percentile=0, keep_best=True, progress=math.inf):
    """progress: how far a step may raise the value at most, to first order."""
    unit = scale / 255  # input units of a byte
    z, best, top = START / unit, None, -math.inf
    low, high = offset / unit, (offset + scale) / unit
    for k in range(1, STEPS + 1):
        z = torch.minimum(torch.maximum(z, low), high)
        value = features(z * unit)[:, CHANNEL].sum().item()
        if value > top:
            best, top = z, value
        g, = gradient(lambda v: features(v * unit)[:, CHANNEL].sum(), z)
        z = (z + min(lr, progress / g.pow(2).sum().item()) * g) * (1 - decay)
        if blur and k % 4 == 0:
            z = gaussian(z, blur)
        if kind:
            score = z.pow(2).sum(1).sqrt() if kind == "norm" else (z * g).sum(1).abs()
            z = torch.where(score < np.percentile(score.numpy(), percentile), 0.0, z)
    return (best if keep_best else z) * unit


def draw(step):
    words = philox.philox((0, 1, step, STREAM), philox.key_of(SEED))
    return [(int(w >> 8) + 0.5) * 2.0**-24 for w in words.ravel()]


def place(step, jitter, rotate, zoom, margin, still=False):
    oh, ow = (H - 1) / 2, (W - 1) / 2
    u = draw(step)
    back = 0 if margin else jitter // 2
    down = margin // 2 if still else math.floor(u[0] * (jitter + 1)) - back
    right = margin // 2 if still else math.floor(u[1] * (jitter + 1)) - back
    angle = 0 if still else (2 * u[2] - 1) * rotate * math.pi / 180
    s = 1 if still else 1 + (2 * u[3] - 1) * zoom
    c, s = math.cos(angle) / s, math.sin(angle) / s
    return np.array([c, -s, oh - c * oh + s * ow + down, s, c, ow - s * oh - c * ow + right], np.float32).astype(np.float64)


def sample(x, m, fill):
    """x [1,C,h,w] at the places of an affine map, bilinear, `fill` around it."""
    i, j = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    row, col = m[0] * i + m[1] * j + m[2], m[3] * i + m[4] * j + m[5]
    r, q = row.floor(), col.floor()
    total = 0
    for a in (0, 1):
        for b in (0, 1):
            weight = (row - r if a else 1 - row + r) * (col - q if b else 1 - col + q)
            y, z = (r + a).long(), (q + b).long()
            inside = (y >= 0) & (y < x.shape[2]) & (z >= 0) & (z < x.shape[3])
            v = x[:, :, y.clamp(0, x.shape[2] - 1), z.clamp(0, x.shape[3] - 1)]
            total = total + weight * torch.where(inside, v, fill)
    return total


def mahendran(jitter=2):
    bound, alpha, unit = 80.0, 6, scale / 255
    v = bound / 6.5
    rate = H * W * 0.05 * bound**2 / alpha
    pad = jitter // 2
    z = F.pad(START / unit, (pad, jitter - pad, pad, jitter - pad), mode="replicate")
    momentum, squares = torch.zeros_like(z), torch.zeros_like(z)
    zero = torch.zeros(1, 3, 1, 1)

    def objective(z, m):
        d1 = F.pad(z, (0, 1, 0, 0), mode="replicate")[..., :, 1:] - z
        d2 = F.pad(z, (0, 0, 0, 1), mode="replicate")[..., 1:, :] - z
        prior = (z.pow(2).sum(1).sqrt() / bound).pow(alpha).sum() + (d1.pow(2) + d2.pow(2)).sum() / v**2
        return 10 * features(sample(z * unit, m, zero))[:, CHANNEL].sum() - prior / (H * W)

    for k in range(STEPS):
        g, = gradient(lambda a: objective(a, place(k, jitter, 0, 0, jitter)), z)
        squares = 0.9 * squares + g * g
        momentum = 0.9 * momentum + g / (1 / rate + squares.sqrt())
        z = z + momentum
        norm = z.pow(2).sum(1, keepdim=True).sqrt()
        z = torch.where(norm > 2 * bound, z * (2 * bound / norm), z)
    return sample(z * unit, place(0, jitter, 0, 0, jitter, still=True), zero)


AXES = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def lucid():
    f = W // 2 + 1
    fy, fx = np.fft.fftfreq(H)[:, None], np.abs(np.fft.fftfreq(W)[:f])[None]
    factors = torch.from_numpy(math.sqrt(H * W) / np.maximum(np.hypot(fy, fx), 1 / max(H, W)))
    matrix = torch.from_numpy(AXES / np.linalg.norm(AXES, axis=0).max())
    z = torch.from_numpy(0.01 * normals(SEED, STREAM, 0, 2 * H * 3 * f)).reshape(2, H, 3, f)

    def image(z):
        spectrum = torch.complex(z[0], z[1]).permute(1, 0, 2) * factors
        planes = torch.fft.irfft2(spectrum, s=(H, W)) / 4
        return torch.sigmoid(torch.einsum("kd,dij->kij", matrix, planes))[None] * scale + offset

    state = fresh(z)
    for k in range(STEPS):
        m = place(k, 6, 10, 0.1, 0)
        g, = gradient(lambda a: features(sample(image(a), m, offset + 0.5 * scale))[:, CHANNEL].mean(), z)
        z = adam(state, g, 0.05, 0, z)
    return image(z)


def nadam(state, g, lr, w):
    """torch.optim.NAdam, ascending."""
    mu = lambda t: 0.9 * (1 - 0.5 * 0.96 ** (0.004 * t))
    state["t"] += 1
    t = state["t"]
    state["product"] = state.get("product", 1) * mu(t)
    state["m"] = 0.9 * state["m"] - 0.1 * g
    state["s"] = 0.999 * state["s"] + 0.001 * g * g
    ahead, rate = (1 - mu(t)) / (1 - state["product"]), mu(t + 1) / (1 - state["product"] * mu(t + 1))
    return w - lr * (rate * state["m"] - ahead * g) / ((state["s"] / (1 - 0.999**t)).sqrt() + 1e-8)


def crop_normals(step, crop):
    u = [(int(w >> 8) + 0.5) * 2.0**-24 for w in philox.philox((crop, 2, step, STREAM), philox.key_of(SEED)).ravel()]
    z = []
    for a, b in ((u[0], u[1]), (u[2], u[3])):
        z += [math.sqrt(-2 * math.log(a)) * f(2 * math.pi * b) for f in (math.cos, math.sin)]
    return z


def maco(crops=4, h=30, w=36):
    """Fel et al. 2023 (deel-ai/xplique): the phases of an image whose magnitudes stay, seen in crops."""
    f = w // 2 + 1
    fy, fx = np.fft.fftfreq(h)[:, None], np.abs(np.fft.fftfreq(w)[:f])[None]
    magnitude = torch.from_numpy(1 / np.maximum(np.hypot(fy, fx), 1 / max(h, w)))
    matrix = torch.from_numpy(AXES / np.linalg.norm(AXES, axis=0).max())
    z = torch.from_numpy(normals(SEED, STREAM, 0, h * 3 * f)).reshape(h, 3, f)
    sigma = 0.04 * math.sqrt(13 / 12)

    def even(x):
        return (x - x.mean()) / (x.var(unbiased=False) + 1e-10).sqrt()

    def image(z):
        phase = even(z).permute(1, 0, 2)
        planes = even(torch.fft.irfft2(torch.complex(magnitude * phase.cos(), magnitude * phase.sin()), s=(h, w)) / 4)
        return torch.sigmoid(torch.einsum("kd,dij->kij", matrix, planes))[None] * scale + offset

    def crop(step, c):
        n = crop_normals(step, c)
        side = min(1, max(0.05, 0.5 - 0.45 * step / (STEPS - 1) + 0.05 * n[2]))
        top, left = 0.5 + 0.15 * n[0] - side / 2, 0.5 + 0.15 * n[1] - side / 2
        m = [side * (h - 1) / (H - 1), 0, top * (h - 1), 0, side * (w - 1) / (W - 1), left * (w - 1)]
        return np.array(m, np.float32).astype(np.float64)

    def objective(z, step):
        x, total = image(z), 0
        for c in range(crops):
            noise = torch.from_numpy(normals(SEED, STREAM, 1 + step * crops + c, 3 * H * W)).view(1, 3, H, W)
            seen = sample(x, crop(step, c), offset + 0.5 * scale) + sigma * scale * noise
            total = total + features(seen)[:, CHANNEL].mean() / crops
        return total

    state = fresh(z)
    for k in range(STEPS):
        g, = gradient(lambda a: objective(a, k), z)
        z = nadam(state, g, 1.0, z)
    return image(z)


class Redirected(torch.autograd.Function):
    """lucid's ReLU (optvis/overrides/redirected_relu_grad.py) for what is maximised."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        x, = ctx.saved_tensors
        plain = torch.where(x < 0, 0.0, g)
        redirected = torch.where((x < 0) & (g < 0), 0.0, g)  # lucid descends: what would push lower goes
        return torch.where(plain.norm() > 0, plain, redirected)


def redirected():
    """conv1, ReLU, conv2, ReLU, of which the second is shut at first: its biases are 6 lower. A weighted mean of its channels."""
    def f(x, relu):
        x = relu(F.conv2d(x, P["conv1.weight"], P["conv1.bias"], padding=1))
        x = relu(F.conv2d(x, P["conv2.weight"], P["conv2.bias"] - 6, padding=1, stride=2))
        return torch.einsum("ncij,c->", x, P["fc.weight"][0]) / (x.shape[2] * x.shape[3])

    x = START.clone()
    for k in range(STEPS):
        g, = gradient(lambda v: f(v, Redirected.apply if k < 16 else F.relu), x)
        x = x + 100 * g
    return x


def amirli():
    x = (START[:, :, :12, :14] - offset) / scale
    for s, (h, w) in enumerate([(12, 14), (14, 16), (16, 19)]):
        if s:
            x = separable(F.interpolate(x, (h, w), mode="bicubic", align_corners=False), [0.2] * 3)
        state = fresh(x)
        for _ in range(6):
            g, = gradient(lambda v: features(v * scale + offset)[:, CHANNEL].mean(), x)
            x = adam(state, g, 0.1, 1e-6, x)
    return x * scale + offset


def normals(seed, image, sample, count):
    """float64, of elements 0 to count − 1."""
    blocks = [philox.noise_block(seed, image, sample, b)[1] for b in range((count + 3) // 4)]
    return np.array(blocks).ravel()[:count]


def uniform(image, count):
    block = np.arange((count + 3) // 4, dtype=np.uint64)
    words = philox.philox((block, 0, 0, image), philox.key_of(SEED)).ravel()[:count]
    return ((words >> np.uint32(8)).astype(np.float64) + 0.5) * 2.0**-24


def attack(method, epsilon, step, target=None):
    clean = (START - offset) / scale
    label = logits(START).argmax(1) if target is None else torch.tensor([target])
    sign = 1 if target is None else -1
    x = clean.clone()
    u = uniform(STREAM, clean.numel())
    if method == "pgd":
        x = (clean + epsilon * torch.from_numpy(2 * u - 1).view_as(clean)).clamp(0, 1)
    if method == "pgd_l2":
        d = torch.from_numpy(normals(SEED, STREAM, 1 << 31, clean.numel())).view_as(clean)
        x = (clean + epsilon * u[0] * d / d.norm()).clamp(0, 1)
    for _ in range(1 if method == "fgsm" else STEPS):
        g, = gradient(lambda p: F.cross_entropy(logits(p * scale + offset), label), x)
        if method == "ascent":
            x = x + sign * step * g / scale**2  # the gradient and the step are those of the input
        elif method == "pgd_l2":
            x = x + sign * step * g / g.norm()
            change = x - clean
            x = (clean + change * min(1, epsilon / change.norm().item())).clamp(0, 1)
        else:
            x = torch.minimum(torch.maximum(x + sign * step * g.sign(), clean - epsilon), clean + epsilon).clamp(0, 1)
    return x * scale + offset


def fooling(label):
    """Up the probability of a class, from noise around the mean colour."""
    low, high = offset, offset + scale
    x = torch.from_numpy(0.5 * normals(SEED, label, 0, START.numel())).view_as(START)
    x = torch.minimum(torch.maximum(x, low), high)
    for _ in range(STEPS):
        p = logits(x).softmax(1)[0, label].item()
        g, = gradient(lambda v: logits(v).softmax(1)[0, label], x)
        rise = min(0.03, 0.1 * (1 - p), p)
        x = torch.minimum(torch.maximum(x + rise * g / g.pow(2).sum(), low), high)
    return x


def main():
    philox.self_check()
    results = {
        "start": START,
        "fleuret": fleuret(),
        "yosinski": yosinski(1e-4, 1.0, 100),
        "yosinski-decay": yosinski(0.3, 0, 100, "norm", 20, keep_best=False),
        "yosinski-norm": yosinski(0, 0.5, 100, "norm", 50, progress=2),
        "yosinski-contribution": yosinski(0, 0.5, 1e8, "contribution", 90, keep_best=False, progress=2),
        "mahendran": mahendran(),
        "lucid": lucid(),
        "maco": maco(),
        "redirected": redirected(),
        "amirli": amirli(),
        "ascent": attack("ascent", None, 0.1),
        "fgsm": attack("fgsm", 0.03, 0.03),
        "pgd": attack("pgd", 0.03, 0.01),
        "pgd_l2": attack("pgd_l2", 0.5, 0.05),
        "pgd_targeted": attack("pgd", 0.03, 0.01, 2),
        "fooling": fooling(2),
    }
    save_file({k: v[0].numpy().astype(np.float32) for k, v in results.items()}, HERE / "dreams.safetensors")


if __name__ == "__main__":
    main()
