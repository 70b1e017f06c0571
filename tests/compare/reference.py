"""The zoo's networks in float64 with their gates and switches as values: what tests/compare_torch.py compares with.

A `Run` is one forward pass. Its tape (gates of every ReLU, switches of every max pool) is its own, or another program's
that was handed in; then every ReLU multiplies with the given gates and every pool picks the given places, so that the
maps of the run are what float64 makes of that tape, without any discontinuity left.

`variances` says how far a float32 forward pass may be from the float64 one, element by element; `differences` lists the
gates and switches that fell otherwise, each with its margin and that bound."""

import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "golden"))
import networks  # noqa: E402
import philox  # noqa: E402

RULES = networks.RULES


# ---------------------------------------------------------------------------------------------- random parameters

def uniform(seed, name, count):
    """philox.uniform in chunks that stay in the processor's cache; VGG16's 138 million take a few seconds."""
    out = np.empty(count, np.float32)
    tag, chunk = philox.zlib.crc32(name.encode()), 1 << 13
    for first in range(0, (count + 3) // 4, chunk):
        block = np.arange(first, min(first + chunk, (count + 3) // 4), dtype=np.uint64)
        words = philox.philox((block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), tag, 0x80000000),
                              philox.key_of(seed)).ravel()
        part = out[4 * first : 4 * first + len(words)]
        part[:] = (words[: len(part)] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return out


def random_parameters(net, seed):
    """name -> float32 array, as `random:SEED` draws them."""
    philox.self_check()
    drawn = {}
    for name, (kind, shape) in net.parameters.items():
        v = uniform(seed, name, math.prod(shape)).reshape(shape)
        if kind in ("conv.weight", "linear.weight"):
            v *= np.float32(math.sqrt(6.0 / math.prod(shape[1:])))
        elif kind in ("bias", "bn.bias", "bn.running_mean"):
            v *= np.float32(0.1)
        else:
            v = np.float32(1) + np.float32({"bn.weight": 0.25, "bn.running_var": 0.5}[kind]) * v
        drawn[name] = v
    return drawn


def noise(seed, image, sample, shape):
    """Standard normals [C,H,W] of one SmoothGrad sample (kernels/noise/noise.h), in float64."""
    count = math.prod(shape)
    block = np.arange((count + 3) // 4, dtype=np.uint64)
    words = philox.philox((block, np.uint64(0), sample, image), philox.key_of(seed))
    u = ((words >> np.uint32(8)).astype(np.float64) + 0.5) * 2.0**-24
    r = np.sqrt(-2 * np.log(u[:, 0::2]))
    angle = 2 * np.pi * u[:, 1::2]
    normals = np.stack([r * np.cos(angle), r * np.sin(angle)], -1)  # [blocks, 2 pairs, 2]
    return normals.ravel()[:count].reshape(shape)


# ---------------------------------------------------------------------------------------------- forward and backward

class _Gate(torch.autograd.Function):
    """s·gate; on the way back the rule of the run, after autograd has summed over all branches."""

    @staticmethod
    def forward(ctx, s, gate, run):
        ctx.gate, ctx.run = gate, run
        return s * gate

    @staticmethod
    def backward(ctx, g):
        gate_forward, gate_gradient = ctx.run.rule
        if gate_forward:
            g = g * ctx.gate
        if gate_gradient:
            g = g.clamp(min=0)
        return g, None, None


def pool_geometry(options):
    k, stride, pad = options["kernel_size"], options["stride"], options.get("padding", 0)
    return k, stride, pad


def flat_places(switch, options, shape):
    """Offsets inside the unclipped windows [n,c,h,w] -> flat indices into the pool's input; and whether each
    lies inside the window and the input."""
    k, stride, pad = pool_geometry(options)
    switch = switch.long()
    row = torch.arange(switch.shape[2])[:, None] * stride - pad + switch // k
    column = torch.arange(switch.shape[3])[None, :] * stride - pad + switch % k
    inside = (row >= 0) & (row < shape[2]) & (column >= 0) & (column < shape[3]) & (switch < k * k)
    return row * shape[3] + column, inside


def at_places(values, flat):
    return values.flatten(2).gather(2, flat.flatten(2)).view(flat.shape)


class Run:
    """values: node -> value; tape: "NODE.gate" / "NODE.switch" -> uint8 tensor in the shape of tape files."""

    def __init__(self, net, parameters, x, tape=None, until=None):
        self.net, self.rule = net, RULES["gradient"]
        self.x = x.detach().clone().requires_grad_()
        self.values, self.tape = {"x": self.x}, {}
        for name, op, inputs, options in net.nodes:
            a = self.values[inputs[0]]
            of = {k: parameters.get(f"{name}.{k}") for k in ("weight", "bias", "running_mean", "running_var")}
            if op == "conv":
                y = F.conv2d(a, of["weight"], of["bias"], **options)
            elif op == "linear":
                y = F.linear(a, of["weight"], of["bias"])
            elif op == "batch_norm":
                y = F.batch_norm(a, of["running_mean"], of["running_var"], of["weight"], of["bias"], eps=1e-5)
            elif op == "relu":
                gate = (a.detach() > 0) if tape is None else tape[f"{name}.gate"].reshape(a.shape) != 0
                self.tape[f"{name}.gate"] = gate.to(torch.uint8).reshape(tuple(a.shape) + (1,) * (4 - a.dim()))
                y = _Gate.apply(a, gate, self)
            elif op == "max_pool":
                k, stride, pad = pool_geometry(options)
                if tape is None:
                    switch = networks.switches_of(a.detach(), (k, k), (stride, stride), (pad, pad))[1]
                else:
                    switch = tape[f"{name}.switch"]
                self.tape[f"{name}.switch"] = switch.to(torch.uint8)
                flat, inside = flat_places(switch, options, a.shape)
                assert inside.all(), f"{name}.switch points outside its window"
                y = at_places(a, flat)
            elif op == "adaptive_avg_pool":
                y = F.adaptive_avg_pool2d(a, **options)
            elif op == "flatten":
                y = a.flatten(1)
            elif op == "add":
                y = a + self.values[inputs[1]]
            else:
                assert op == "identity", op
                y = a
            self.values[name] = y
            if name == until:
                break
        self.output = self.values[net.nodes[-1][0]] if until is None else y

    def score(self, unit):
        """unit: (node, channel, row, column), row None for vectors; per item [N]."""
        node, channel, row, column = unit
        value = self.values[node]
        return value[:, channel] if value.dim() == 2 else value[:, channel, row, column]

    def map(self, unit, rule):
        """d score / d x under the rule, [N,C,H,W] float64 numpy."""
        self.rule = RULES[rule]
        (g,) = torch.autograd.grad(self.score(unit).sum(), self.x, retain_graph=True)
        return g.detach().double().numpy()


def error(ours, reference):
    """Norm-wise relative error; a shape that differs or anything not finite counts as infinite."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape or not np.isfinite(ours).all():
        return math.inf
    norm = np.linalg.norm(reference)
    return float(np.linalg.norm(ours - reference) / norm) if norm > 0 else (0.0 if not ours.any() else math.inf)


# ---------------------------------------------------------------------------------------------- rounding
#
# How far may a value s of a float32 forward pass be from its float64 value? The worst case grows by Σ|w||x| / |Σ w x|
# at every layer and says nothing after a few; roundings are many and of both signs, so that a variance is propagated:
#
#   Own roundings of a sum of K products by K fused multiply-adds in a row: every partial sum S_j is rounded with a
#   relative error of variance at most u²/3, u = 2^-24 (uniform in ±u), so var = u²/3 · Σ_j S_j². Partial sums in an
#   order that knows nothing of the values have E S_j² = (j/K)(1 - j/K) Σ w²x² + (j/K)² s² <= (j/K) Σ w²x² + (j/K)² s²;
#   summed over j: var <= u²/3 · (K/2 · Σ w²x² + K/3 · s²). Any blocked or pairwise order has less. Two more roundings of
#   the order of u·s (bias, result) and the rounding of folded weights (u²/3·Σ w²x²) are added.
#   What comes in: var(s) += Σ w² var(x), roundings of different inputs being independent.
#   Batch norm, y = scale·(s - mean) + shift: var·scale², and three roundings of its terms, folded or not.
#   ReLU: passes the variance where s may be positive. Max pool: |max a - max b| <= max |a - b|: the largest in the
#   window. Average: the mean variance, as if all errors of a window were equal. Add: the sum, and one rounding.
#
#   Winograd F(4x4,3x3), Y = Aᵀ[(G g Gᵀ) ∘ (Bᵀ d B)]A summed over C channels in the transformed domain (Lavin & Gray
#   2016): with inputs and weights of mean squares x² and w², element (i,j) of the transformed products has mean square
#   b_i b_j g_i g_j w²x², b and g the squared row norms of Bᵀ and G; output (r,s) adds Σ A_ri² A_sj² of them. f_r =
#   Σ_i A_ri² b_i g_i = 24.5, 6.8, 6.4, 19.6 for r = 0..3 at the points 0, ±5/8, ±3/2, ∞ of kernels/conv/winograd.h, where a
#   direct sum has 3. So a chain of C additions (and about 12 for the transforms) rounds like
#       var <= u²/3 · (C + 12)/2 · (f_r f_s / 9) · Σ w²x²,
#   Σ w²x² being at most the largest over the tile, whose pixels all take part in every output. The worst (r,s) is taken
#   for all, since where tiles begin is the implementation's own business.
#
# Errors over many terms are near normal; SIGMAS = 8 leaves room for 15 million elements (5.5) and for correlation.

UNIT = 2.0**-24
SIGMAS = 8.0


def winograd_factor(points=(0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)):
    """max over (r,s) of f_r f_s / 9 for these points and ∞, from the matrices of Toom and Cook."""
    others = [[q for q in points if q != p] for p in points]
    at = np.array([[p**r for p in points] + [float(r == 3)] for r in range(4)])
    scale = [np.prod([p - q for q in rest]) for p, rest in zip(points, others)]
    g = np.array([[p**k / n for k in range(3)] for p, n in zip(points, scale)] + [[0, 0, 1]])
    bt = np.array([[*np.poly(rest)[::-1], 0] for rest in others] + [np.poly(points)[::-1]])
    signal, kernel = np.arange(6.0) ** 2 + 1, np.array([1.0, -2, 5])
    assert np.allclose(at @ ((g @ kernel) * (bt @ signal)), np.correlate(signal, kernel))
    return float(((at**2) @ ((bt**2).sum(1) * (g**2).sum(1))).max() / 3) ** 2


WINOGRAD = winograd_factor()


def takes_winograd(op, options, weight):
    return (op == "conv" and tuple(weight.shape[2:]) == (3, 3) and options.get("stride", 1) == 1
            and options.get("dilation", 1) == 1 and options.get("groups", 1) == 1)


def variances(run, parameters, winograd):
    """node -> variance of the float32 value's error (float32 tensor). winograd: 3x3 stride-1 convolutions may be it."""
    r = UNIT**2 / 3
    var = {"x": torch.zeros_like(run.x, dtype=torch.float32)}
    values = {k: v.detach().float() for k, v in run.values.items()}
    for name, op, inputs, options in run.net.nodes:
        if name not in values:
            break
        a, v, y = values[inputs[0]], var[inputs[0]], values[name]
        if op in ("conv", "linear"):
            weight = parameters[f"{name}.weight"].float()
            w2, terms = weight**2, math.prod(weight.shape[1:])
            own = r * (terms / 2 + 1)
            if op == "linear":
                out = F.linear(v + own * a**2, w2)
            else:
                out = F.conv2d(v + own * a**2, w2, None, **options)
                if winograd and takes_winograd(op, options, weight):
                    power = F.max_pool2d(F.conv2d(a**2, w2, None, **options), 7, 1, 3)
                    out = out + r * (weight.shape[1] + 12) / 2 * WINOGRAD * power
            out = out + r * (terms / 3 + 2) * y**2
        elif op == "batch_norm":
            of = {k: parameters[f"{name}.{k}"].float() for k in ("weight", "bias", "running_mean", "running_var")}
            scale = (of["weight"] / (of["running_var"] + 1e-5).sqrt())[:, None, None]
            mean, shift = of["running_mean"][:, None, None], of["bias"][:, None, None]
            out = v * scale**2 + 3 * r * ((a * scale) ** 2 + (mean * scale) ** 2 + shift**2 + y**2)
        elif op == "relu":
            out = v * (a > -SIGMAS * v.sqrt())
        elif op == "max_pool":
            out = F.max_pool2d(v, **options)
        elif op == "adaptive_avg_pool":
            out = F.adaptive_avg_pool2d(v, **options) + 2 * r * F.adaptive_avg_pool2d(a**2, **options)
        elif op == "flatten":
            out = v.flatten(1)
        elif op == "add":
            out = v + var[inputs[1]] + r * y**2
        else:
            out = v
        var[name] = out
    return var


def differences(run, var, tape):
    """Gates and switches of `tape` (node.kind -> uint8 array) that differ from the run's, as dictionaries with the
    element, its margin and the bound of that margin; and problems that are no matter of rounding (shapes, values)."""
    listed, problems = [], []
    ops = {name: (op, inputs, options) for name, op, inputs, options in run.net.nodes}
    for key in tape.keys() - run.tape.keys():
        problems.append(f"{key}: no such gate or switch")
    for key in run.tape.keys() & tape.keys():
        node, kind = key.rsplit(".", 1)
        expected, ours = run.tape[key], torch.from_numpy(np.ascontiguousarray(tape[key]))
        if expected.shape != ours.shape:
            problems.append(f"{key}: shape {tuple(ours.shape)}, expected {tuple(expected.shape)}")
            continue
        if kind == "gate" and (ours > 1).any():
            problems.append(f"{key}: a plain ReLU's gate is above 1")
        where = (expected != ours).nonzero()
        if len(where) == 0:
            continue
        at = tuple(where.T)
        _, inputs, options = ops[node]
        source = inputs[0]
        s, sigma = run.values[source].detach(), var[source].sqrt()
        if kind == "gate":
            margin = s.reshape(expected.shape)[at].abs()
            bound = SIGMAS * sigma.reshape(expected.shape)[at]
        else:
            own, _ = flat_places(expected, options, s.shape)
            theirs, inside = flat_places(ours, options, s.shape)
            if not inside.all():
                problems.append(f"{key}: {int((~inside).sum())} switches point outside their windows")
                theirs = torch.where(inside, theirs, own)
            # A place behind the reference's winner must beat it strictly; behind a ReLU it must then be positive, so
            # that its value before the ReLU counts. (Windows that are zero throughout tie, and the first place wins.)
            candidate = at_places(s, theirs)
            if ops.get(source, ("",))[0] == "relu":
                before = ops[source][1][0]
                later = ours > expected
                candidate = torch.where(later, at_places(run.values[before].detach(), theirs), candidate)
                sigma = var[before].sqrt()
            margin = (at_places(s, own) - candidate)[at]
            bound = SIGMAS * (at_places(sigma, own) + at_places(sigma, theirs))[at]
        for place, m, b in zip(where.tolist(), margin.tolist(), bound.tolist()):
            listed.append(dict(key=key, at=place, margin=m, bound=b, ok=m <= b))
    return listed, problems


# ---------------------------------------------------------------------------------------------- inputs

def image_like(seed, shape):
    """Smooth patches, edges and grain, about mean 0 and standard deviation 1, float32 [C,H,W]."""
    rng = np.random.default_rng(seed)
    c, h, w = shape
    total = np.zeros(shape)
    for cell, weight in ((64, 1.0), (16, 0.7), (4, 0.5), (1, 0.3)):
        coarse = torch.from_numpy(rng.standard_normal((1, c, -(-h // cell) + 1, -(-w // cell) + 1)))
        fine = F.interpolate(coarse, scale_factor=cell, mode="bilinear", align_corners=False) if cell > 1 else coarse
        total += weight * fine[0, :, :h, :w].numpy()
    total += 0.8 * (np.add.outer(np.arange(h), np.arange(w)) % 61 < 30)  # edges
    total -= total.mean()
    return (total / total.std()).astype(np.float32)



def lively(net):
    """torchvision's module with batch norms that do something, by torch's generator."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.bias.data.normal_(0, 0.2)
            module.weight.data.uniform_(0.5, 1.5)
    return net
