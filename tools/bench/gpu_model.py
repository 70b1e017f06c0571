"""What our GPU kernels should take, computed without a GPU: counted bytes, counted operations, occupancy, time.

The model of one launch: max(bytes / bandwidth, rounds of blocks · cycles of a block / clock, LAUNCH), where
  bytes   each operand once: input, output, weights, and for a split product its partial sums, written and read
  cycles  what a block takes of a multiprocessor, the largest of
            arithmetic    products of the whole tile over the units' rate
            shared        bytes written to and read from shared memory, 128 a cycle
            instructions  counted in the machine code (kernels/hot_loops.txt), four a cycle
These are bounds: nothing waits, and everything overlaps. LIKELY is what a kernel reaches of them, a guess until one has been
measured. Launches of one op add up. `plan` mirrors cut_segments and modelled_plan of kernels/gemm/gemm.cu; a measured run
names the kernel that ran, and gpu_report.py says where the two differ."""

import math
from dataclasses import dataclass

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
SIZE = dict(fp32=4, tf32=4, bf16=2, fp16=2)

# Data sheets: bytes/s and dense FLOP/s. shared: bytes of a multiprocessor that blocks can have.
# products: of a multiprocessor in a cycle, of Hopper's tensor cores what mma.sync reaches (0.625 of wgmma's). clock: what
# the sheet's rates are at. Hopper's has two: 1.83 GHz for tensor cores (989.4e12 / 2 / 132 / 2048) and 1.98 GHz for fp32
# (66.9e12 / 2 / 132 / 128); fp32 at 1.83 could not even reach the sheet's rate.
HOPPER_CLOCK = dict(fp32=1.98e9, tf32=1.83e9, bf16=1.83e9, fp16=1.83e9)
SHEETS = {
    "a100": dict(name="NVIDIA A100 80GB SXM", arch="sm_80", processors=108, bandwidth=2.039e12, shared=164 << 10,
                 fp32=19.5e12, tf32=156e12, bf16=312e12, fp16=312e12, clock=dict.fromkeys(PRECISIONS, 1.41e9),
                 products=dict(fp32=64, tf32=512, bf16=1024, fp16=1024)),
    "h100": dict(name="NVIDIA H100 80GB HBM3", arch="sm_90a", processors=132, bandwidth=3.35e12, shared=228 << 10,
                 fp32=66.9e12, tf32=494.7e12, bf16=989.4e12, fp16=989.4e12, clock=HOPPER_CLOCK,
                 products=dict(fp32=128, tf32=640, bf16=1280, fp16=1280)),
    "h200": dict(name="NVIDIA H200", arch="sm_90a", processors=132, bandwidth=4.8e12, shared=228 << 10,
                 fp32=66.9e12, tf32=494.7e12, bf16=989.4e12, fp16=989.4e12, clock=HOPPER_CLOCK,
                 products=dict(fp32=128, tf32=640, bf16=1280, fp16=1280)),
}
MEMORY = 0.9       # of the data sheet's bandwidth that a stream of large accesses reaches
LIKELY = 0.7       # of the bounds by cycles
SHARED = 128       # bytes of shared memory that a multiprocessor moves in a cycle
ISSUE = 4          # instructions of warps that it begins in a cycle
LAUNCH = 2.5e-6    # seconds; no kernel takes less when launches follow each other

# kernels/gemm/gemm.cu: kGemmTiles, and the warps' pieces of the two families.
TILES = ((128, 128), (128, 64), (64, 64), (128, 32), (16, 64))
SHARE = dict(fma=(1.0, 0.9, 0.75, 0.6, 0.3), mma=(1.0, 0.85, 0.5, 0.45, 0.25))
FMA_PIECES = ((64, 64), (64, 64), (32, 32), (32, 32), (16, 32))
MMA_PIECES = ((64, 64), (64, 64), (32, 32), (32, 32), (16, 32))
NARROW = (2, 4)
STEP_BYTES, PHASES = 64, 8
PRODUCTS_A_CYCLE, BYTES_A_CYCLE = dict(fp32=80, tf32=512, bf16=1024, fp16=1024), 16


def ceil_div(a, b):
    return -(-a // b)


@dataclass(frozen=True)
class Conv:
    name: str
    c: int
    k: int
    size: int  # input height and width
    kernel: int = 3
    stride: int = 1

    @property
    def padding(self):
        return self.kernel // 2

    @property
    def out(self):
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def flops(self, n):
        return 2 * n * self.out**2 * self.k * self.c * self.kernel**2

    def bytes(self, n, precision):
        elements = n * (self.c * self.size**2 + self.k * self.out**2) + self.k * self.c * self.kernel**2
        return elements * SIZE[precision]

    def shape(self, n):
        """As `switchback bench --op conv --shape` wants it."""
        return f"{n},{self.c},{self.size},{self.size},{self.k},{self.kernel},{self.stride},{self.padding}"


VGG = {
    "vgg16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    "vgg19": [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"],
}
VGG_HEAD = (25088, 4096), (4096, 4096), (4096, 1000)


def vgg(name="vgg19"):
    """[(layer, whether a max pool follows)]"""
    layers, channels, size = [], 3, 224
    for i, step in enumerate(VGG[name]):
        if step == "M":
            size //= 2
        else:
            layers.append((Conv(f"vgg {channels}->{step} {size}", channels, step, size), VGG[name][i + 1] == "M"))
            channels = step
    return layers


def distinct_convs():
    """Every convolution shape of VGG16, VGG19 and ResNet-34 at 224x224, once."""
    convs = list(dict.fromkeys(conv for conv, _ in vgg()))
    convs.append(Conv("resnet stem 7x7/2", 3, 64, 224, 7, 2))
    channels, size = 64, 56
    for width in (64, 128, 256, 512):
        if width != channels:
            convs.append(Conv(f"resnet {channels}->{width} {size} /2", channels, width, size, 3, 2))
            convs.append(Conv(f"resnet {channels}->{width} {size} 1x1/2", channels, width, size, 1, 2))
            channels, size = width, size // 2
        convs.append(Conv(f"resnet {width}->{width} {size}", width, width, size))
    return convs


# ---------------------------------------------------------------------------------------------- kernels

@dataclass
class Kernel:
    """One launch. `pattern`: what its name begins with in the resource table."""
    name: str
    pattern: str
    file: str
    threads: int
    shared: int
    blocks: int
    cycles: dict   # of a block, by what bounds it
    bytes: float


@dataclass(frozen=True)
class Product:
    """Rows of one phase and image, columns, elements of K for each phase, tap by tap."""
    n: int
    rows: int
    columns: int
    depth: int
    taps: tuple  # of each phase
    operands: int  # elements of input, weights and output

    @property
    def phases(self):
        return len(self.taps)


def forward_product(conv, n):
    return Product(n, conv.out**2, conv.k, conv.c, (conv.kernel**2,), conv.bytes(n, "bf16") // 2)


def backward_product(conv, n):
    """Stride S: the S·S phases of dx, each with the taps that meet it."""
    per_axis = [len([r for r in range(conv.kernel) if (e + conv.padding - r) % conv.stride == 0])
                for e in range(min(conv.stride, conv.size))]
    taps = tuple(a * b for a in per_axis for b in per_axis)
    return Product(n, ceil_div(conv.size, conv.stride)**2, conv.c, conv.k, taps, conv.bytes(n, "bf16") // 2)


def steps_of(product, taps, precision):
    return taps * ceil_div(product.depth * SIZE[precision], STEP_BYTES)


def segments_of(product, precision):
    """(segments, steps of each): cut_segments."""
    steps = steps_of(product, max(product.taps), precision)
    tiles = ceil_div(product.rows, 64) * ceil_div(product.columns, 64) * product.phases
    wanted = (512 if product.rows <= 16 else 256) // tiles
    segments = min(max(min(wanted, steps // 8), 1), 16)
    length = max(ceil_div(steps, segments), 1)
    return max(ceil_div(steps, length), 1), length


def partial_bytes(product, segments):
    """Sums of split products, written and read."""
    return 2 * segments * product.phases * product.n * product.rows * product.columns * 4


def plan(product, precision, processors):
    """(tile, narrow, split): modelled_plan."""
    aligned = product.depth * SIZE[precision] % 16 == 0
    segments, _ = segments_of(product, precision)
    best, least = None, 0
    for tile, (bm, bn) in enumerate(TILES):
        if not aligned and tile not in NARROW:
            continue
        blocks = ceil_div(product.n * product.rows, bm) * ceil_div(product.columns, bn) * product.phases
        for split in (False, True):
            if split and (segments == 1 or blocks > 4 * processors):
                continue
            parts = segments if split else 1
            rounds, products = math.ceil(blocks * parts / processors), max(product.taps) * product.depth
            family = "fma" if precision == "fp32" else "mma"
            arithmetic = rounds / parts * bm * bn * products / (PRODUCTS_A_CYCLE[precision] * SHARE[family][tile])
            moved = product.operands * SIZE[precision] + (partial_bytes(product, segments) if split else 0)
            time = max(arithmetic * (1.2 if split else 1.0), moved / (BYTES_A_CYCLE * processors))
            if best is None or time < least:
                best, least = (tile, not aligned, split), time
    return best


def step_cycles(precision, block, piece, warps, copies, products):
    """Of one step of K. What a warp issues: products, loads of fragments, roundings of tf32 inputs (two each), 4.25 for a
    copy and 38 more; fp32 walks a step in four pieces of 12 more each. Within 1 % of kernels/hot_loops.txt."""
    (bm, bn), (wm, wn) = block, piece
    elements = STEP_BYTES // SIZE[precision]
    rest, read = 4.25 * copies + 38, (wm + wn) * STEP_BYTES
    if precision == "fp32":
        issued = wm * wn * elements // 32 + 4 * (wm // 4 + wn // 8 + 12) + rest  # loads of 16 bytes a lane, 4 or 8 the same
    else:
        roundings = 2 * 4 * 2 * wm // 16 if precision == "tf32" else 0
        issued = 2 * (wm // 16) * (wn // 8) + 2 * (wm // 16 + wn // 16) + roundings + rest
    return dict(arithmetic=bm * bn * elements / products, shared=(warps * read + (bm + bn) * STEP_BYTES) / SHARED,
                instructions=warps * issued / ISSUE)


def end_cycles(block, in_registers, pooled):
    """What a warp issues for 32 channels of a pixel: 11 straight from the registers of tensor cores' sums, 20 with a pool
    behind them, 30 through shared memory."""
    values = block[0] * block[1]
    issued = values / 32 * ((20 if pooled else 11) if in_registers else 30)
    return dict(arithmetic=0, shared=0 if in_registers else 2 * 4 * values / SHARED, instructions=issued / ISSUE)


def gemm_kernels(product, precision, sheet, bytes_moved, pooled=False):
    processors, products = sheet["processors"], sheet["products"][precision]
    tile, narrow, split = plan(product, precision, processors)
    segments, length = segments_of(product, precision)
    (bm, bn), fma = TILES[tile], precision == "fp32"
    segmented = segments > 1 and not split
    wm, wn = (FMA_PIECES if fma else MMA_PIECES)[tile]
    stages, threads = 3 if fma or segmented else 4, 32 * (bm // wm) * (bn // wn)
    ring, sums, copy = stages * (bm + bn) * STEP_BYTES, bm * bn * 4, 4 if narrow else 16
    shared = ring + sums if segmented else max(ring, sums)
    family = dict(fp32="f32", tf32="tf32", bf16="bf16", fp16="f16")[precision]
    kind = family if fma else f"mma_{family}"
    steps = [steps_of(product, taps, precision) for taps in product.taps]
    tiles = ceil_div(product.n * product.rows, bm) * ceil_div(product.columns, bn)
    blocks = sum(tiles * (ceil_div(s, length) if split else 1) for s in steps if s)
    warps, copies = threads // 32, (bm + bn) * (STEP_BYTES // copy) // threads
    step = step_cycles(precision, (bm, bn), (wm, wn), warps, copies, products)
    end = end_cycles((bm, bn), not fma, pooled)
    rounds = sum(tiles * s for s in steps) / max(blocks, 1)
    cycles = {kind: rounds * step[kind] + end[kind] for kind in step}
    partial = partial_bytes(product, segments) if split else 0
    name = f"gemm_{kind}_{bm}x{bn}" + (f"_split{segments}" if split else "")
    return [Kernel(name, f"gemm_kernel<GemmTile<{bm}, {bn}, {wm}, {wn}>, {stages}, {copy}, {str(segmented).lower()}, ",
                   f"gemm_{family}.cu", threads, shared, blocks, cycles, bytes_moved + partial)]


def first_on_tensor_cores(conv, precision, backward):
    """first_layer_on_tensor_cores, for images' three channels."""
    if precision in ("fp32", "tf32"):
        return False
    return conv.kernel == 3 and conv.stride == 1 and conv.k % 32 == 0 if backward else conv.kernel**2 <= 12


def first_kernels(conv, n, precision, backward, sheet, bytes_moved):
    """By kernels/hot_loops.txt and, for what a block does once, counts by hand."""
    fma, element = sheet["products"]["fp32"], dict(fp32="float", tf32="float", bf16="bf16", fp16="f16")[precision]
    span = lambda count: (count - 1) * conv.stride + conv.kernel
    if first_on_tensor_cores(conv, precision, backward):
        tensor = sheet["products"][precision]
        if not backward:  # 32x16 pixels: weights and inputs, then 16 pixels a warp at a time
            blocks = n * ceil_div(conv.out, 32) * ceil_div(conv.out, 16) * ceil_div(conv.k, 64)
            steps = ceil_div(conv.kernel**2, 4)
            once = 4 * (700 + 12 * ceil_div(span(32) * span(16), 32))
            return [Kernel("first", f"first_forward_mma_kernel<{element}, 2>", "conv_first_mma.cu", 128,
                           span(32) * span(16) * 8, blocks,
                           dict(arithmetic=32 * 16 * 64 * 16 * steps / tensor, shared=32 * steps * 4,
                                instructions=(once + 32 * 456) / ISSUE), bytes_moved)]
        pieces, steps = ceil_div(18 * 34, 16), conv.k // 16  # 16x32 pixels of dx: products of dy's, then their sums
        blocks = n * ceil_div(conv.size, 16) * ceil_div(conv.size, 32)
        return [Kernel("first", f"first_backward_mma_kernel<{element}, 3>", "conv_first_mma.cu", 256,
                       27 * (16 * pieces + 4) * 4 + conv.k // 16 * 1024, blocks,
                       dict(arithmetic=pieces * 16 * 32 * conv.k / tensor, shared=pieces * (8 * steps + 16) + 16 * 27,
                            instructions=(pieces * (150 + 30 * steps) + 16 * 250 + 8 * 300) / ISSUE), bytes_moved)]
    if not backward:
        blocks = n * ceil_div(conv.out, 4) * ceil_div(conv.out, 16) * ceil_div(conv.k, 64)
        return [Kernel("first", f"first_forward_kernel<{element}, 3, 2>", "conv_first.cu", 128, span(4) * span(16) * 16,
                       blocks, dict(arithmetic=conv.flops(n) / 2 / blocks / fma,
                                    instructions=4 * (150 * conv.kernel**2 + 577) / ISSUE), bytes_moved)]
    phases = conv.stride**2
    groups = 4 if phases <= 2 else 2 if phases <= 4 else 1
    low, high = -((conv.kernel - 1 - conv.padding) // conv.stride), (conv.stride - 1 + conv.padding) // conv.stride
    pixels = (4 * groups + high - low) * (32 + high - low)
    across = ceil_div(conv.size, conv.stride)
    blocks = n * ceil_div(across, 4 * groups) * ceil_div(across, 32)
    shared = (pixels * 20 + conv.kernel**2 * 64) * 4
    return [Kernel("first", f"first_backward_kernel<{element}, 3>", "conv_first.cu", 32 * phases * groups, shared,
                   blocks, dict(arithmetic=conv.flops(n) / 2 / blocks / fma,
                                instructions=1.5 * conv.flops(n) / 2 / blocks / 32 / ISSUE), bytes_moved)]


def conv_kernels(conv, n, precision, backward, sheet, bytes_moved=None, pooled=False):
    moved = conv.bytes(n, precision) if bytes_moved is None else bytes_moved
    if conv.c <= 4:
        return first_kernels(conv, n, precision, backward, sheet, moved)
    product = backward_product(conv, n) if backward else forward_product(conv, n)
    return gemm_kernels(product, precision, sheet, moved, pooled)


# ---------------------------------------------------------------------------------------------- occupancy and time

def resources_of(kernel, resources, sheet):
    """The compiler's row of this kernel, or None."""
    for row in resources:
        if row["arch"] == sheet["arch"] and row["file"] == kernel.file and row["kernel"].startswith(kernel.pattern):
            return row
    return None


def blocks_per_processor(kernel, row, sheet):
    """By threads, shared memory and, where the compiler's row is known, registers."""
    warps = ceil_div(kernel.threads, 32)
    limits = [32, 64 // warps, sheet["shared"] // (kernel.shared + (row["static_shared"] if row else 0) + 1024)]
    if row:
        limits.append((1 << 16) // (ceil_div(row["registers"] * 32, 256) * 256 * warps))
    return min(limits)


@dataclass
class Prediction:
    kernels: list
    rows: list          # the compiler's, or None
    resident: list      # blocks on a multiprocessor
    least: float        # seconds, by the bounds
    seconds: float      # likely
    kinds: dict         # seconds, by what bounds it

    @property
    def name(self):
        return self.kernels[0].name

    @property
    def bound(self):
        if max(self.kinds.values()) < LAUNCH * len(self.kernels):
            return "launch"
        return max(self.kinds, key=self.kinds.get)

    @property
    def occupancy(self):
        return min(1.0, self.resident[0] * ceil_div(self.kernels[0].threads, 32) / 64)


def predict_kernels(kernels, precision, resources, sheet):
    rows = [resources_of(k, resources, sheet) for k in kernels]
    resident = [blocks_per_processor(k, r, sheet) for k, r in zip(kernels, rows)]
    by_bytes = [k.bytes / (sheet["bandwidth"] * MEMORY) for k in kernels]
    rounds = [ceil_div(k.blocks, sheet["processors"]) / sheet["clock"][precision] for k in kernels]
    by_kind = [{kind: r * cycles for kind, cycles in k.cycles.items()} for k, r in zip(kernels, rounds)]
    least = sum(max(b, *kinds.values(), LAUNCH) for b, kinds in zip(by_bytes, by_kind))
    likely = sum(max(b, max(kinds.values()) / LIKELY, LAUNCH) for b, kinds in zip(by_bytes, by_kind))
    kinds = {kind: sum(k[kind] for k in by_kind) for kind in by_kind[0]}
    return Prediction(kernels, rows, resident, least, likely, dict(memory=sum(by_bytes), **kinds))


def predict_conv(conv, n, precision, backward, resources, sheet):
    return predict_kernels(conv_kernels(conv, n, precision, backward, sheet), precision, resources, sheet)


def vgg_seconds(name, n, precision, backward, resources, sheet, least=False):
    """One pass of n images or seeds at 224x224; `least`: by the bounds alone. Pools of the forward pass are inside the
    convolutions; gates and switches are counted, one bit and one byte."""
    element, memory, seconds = SIZE[precision], sheet["bandwidth"] * MEMORY, 0
    for conv, pooled in vgg(name):
        full, inside = n * conv.k * conv.out**2, n * conv.c * conv.size**2
        weights = conv.k * conv.c * conv.kernel**2
        if backward:
            moved = (full + inside + weights) * element + inside // 8
        else:
            moved = (inside + full // (4 if pooled else 1) + weights) * element
            moved += full // 8 + (full // 4 if pooled else 0)
        kernels = conv_kernels(conv, n, precision, backward, sheet, moved, pooled and not backward)
        prediction = predict_kernels(kernels, precision, resources, sheet)
        seconds += prediction.least if least else prediction.seconds
        if pooled and backward:  # dy and switches in, dx out
            seconds += max((full // 4 * (element + 1) + full * element) / memory, LAUNCH)
    for inputs, outputs in VGG_HEAD:
        depth, columns = (outputs, inputs) if backward else (inputs, outputs)
        moved = (n * (inputs + outputs) + inputs * outputs) * element
        product = Product(n, 1, columns, depth, (1,), moved // element)
        kernels = gemm_kernels(product, precision, sheet, moved)
        prediction = predict_kernels(kernels, precision, resources, sheet)
        seconds += prediction.least if least else prediction.seconds
    return seconds


def reached(precision, sheet):
    """What the largest tile likely reaches of the data sheet's rate."""
    family = (FMA_PIECES if precision == "fp32" else MMA_PIECES)[0]
    (bm, bn), warps = TILES[0], TILES[0][0] * TILES[0][1] // (family[0] * family[1])
    step = step_cycles(precision, TILES[0], family, warps, (bm + bn) * 4 // (32 * warps), sheet["products"][precision])
    flops = 2 * bm * bn * STEP_BYTES / SIZE[precision] * sheet["processors"] * sheet["clock"][precision]
    return LIKELY * flops / max(step.values()) / sheet[precision]


def vgg_flops(name):
    return sum(conv.flops(1) for conv, _ in vgg(name)) + sum(2 * inputs * outputs for inputs, outputs in VGG_HEAD)


def predict_smoothgrad(n, precision, resources, sheet, least=False):
    """VGG19, n noisy copies in one batch: (seconds of our kernels, seconds at the data sheet's rate)."""
    image = n * 3 * 224 * 224 * SIZE[precision]
    seconds = 2 * max(image / (sheet["bandwidth"] * MEMORY), LAUNCH)  # noise in, moments out
    seconds += sum(vgg_seconds("vgg19", n, precision, backward, resources, sheet, least) for backward in (False, True))
    return seconds, 2 * n * vgg_flops("vgg19") / sheet[precision]


def predict_etalons(outputs, batch, precision, resources, sheet):
    """VGG16, `outputs` etalons of one image, `batch` in a backward pass: the same two figures. A bias costs a read of
    each gradient, which is not counted."""
    seconds = vgg_seconds("vgg16", 1, precision, False, resources, sheet)
    seconds += outputs / batch * vgg_seconds("vgg16", batch, precision, True, resources, sheet)
    return seconds, (1 + outputs) * vgg_flops("vgg16") / sheet[precision]


def predict_occlusion(places, flops, groups, precision, sheet):
    """VGG19, `flops` counted for one place, one run for each group of windows: (seconds by arithmetic, at what our
    kernels reach of the rate; seconds of the launches alone: two for a convolution, the gather and the product, one for
    a pool or linear layer, five around them; seconds at the data sheet's rate)."""
    convs, pools = len(vgg()), sum(pooled for _, pooled in vgg())
    launches = groups * (2 * convs + pools + len(VGG_HEAD) + 5)
    total = places * flops / sheet[precision]
    return total / reached(precision, sheet), launches * LAUNCH, total
