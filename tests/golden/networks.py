"""The zoo's architectures as lists of nodes, with torchvision's names, run by PyTorch in float64 under a ReLU rule.

A node is (name, op, inputs, options). Parameters of node NAME are NAME.weight and so on; names of nodes are those of
torchvision's feature extraction. divide: every conv width (and the hidden linear widths) is divided by it."""

import math

import more_networks as more
import torch
import torch.nn.functional as F

VGG = {
    "vgg11": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg13": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    "vgg19": [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"],
}
RESNET = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3]}
RULES = {"gradient": (True, False), "deconv": (False, True), "guided": (True, True)}


class Builder:
    """Collects nodes and the (kind, shape) of their parameters; `last` is the newest node."""

    def __init__(self):
        self.nodes, self.parameters, self.last = [], {}, "x"

    def add(self, name, op, inputs=None, **options):
        self.nodes.append((name, op, inputs or [self.last], options))
        self.last = name
        return name

    def conv(self, name, i, o, kernel, inputs=None, bias=True, groups=1, **options):
        self.parameters[f"{name}.weight"] = "conv.weight", (o, i // groups, kernel, kernel)
        if bias:
            self.parameters[f"{name}.bias"] = "bias", (o,)
        return self.add(name, "conv", inputs, groups=groups, **options)

    def conv_transpose(self, name, i, o, kernel, bias=True, groups=1, **options):
        self.parameters[f"{name}.weight"] = "conv.weight", (i, o // groups, kernel, kernel)
        if bias:
            self.parameters[f"{name}.bias"] = "bias", (o,)
        return self.add(name, "conv_transpose", groups=groups, **options)

    def linear(self, name, i, o):
        self.parameters[f"{name}.weight"] = "linear.weight", (o, i)
        self.parameters[f"{name}.bias"] = "bias", (o,)
        return self.add(name, "linear")

    def batch_norm(self, name, channels, eps=1e-5):
        for part in ("weight", "bias", "running_mean", "running_var"):
            self.parameters[f"{name}.{part}"] = f"bn.{part}", (channels,)
        return self.add(name, "batch_norm", eps=eps)


def build_lenet(net):
    net.conv("conv1", 1, 32, 5)
    net.add("pool1", "max_pool", kernel_size=3, stride=3)
    net.add("relu1", "relu")
    net.conv("conv2", 32, 64, 5)
    net.add("pool2", "max_pool", kernel_size=2, stride=2)
    net.add("relu2", "relu")
    net.add("flatten", "flatten")
    net.linear("fc1", 256, 200)
    net.add("relu3", "relu")
    net.linear("fc2", 200, 10)


def build_alexnet(net, divide, classes):
    width = [w // divide for w in (64, 192, 384, 256, 256)]
    net.conv("features.0", 3, width[0], 11, stride=4, padding=2)
    net.add("features.1", "relu")
    net.add("features.2", "max_pool", kernel_size=3, stride=2)
    net.conv("features.3", width[0], width[1], 5, padding=2)
    net.add("features.4", "relu")
    net.add("features.5", "max_pool", kernel_size=3, stride=2)
    for at, (i, o) in zip((6, 8, 10), zip(width[1:], width[2:])):
        net.conv(f"features.{at}", i, o, 3, padding=1)
        net.add(f"features.{at + 1}", "relu")
    net.add("features.12", "max_pool", kernel_size=3, stride=2)
    net.add("avgpool", "adaptive_avg_pool", output_size=6)
    net.add("flatten", "flatten")
    hidden = 4096 // divide
    net.add("classifier.0", "identity")
    net.linear("classifier.1", width[4] * 36, hidden)
    net.add("classifier.2", "relu")
    net.add("classifier.3", "identity")
    net.linear("classifier.4", hidden, hidden)
    net.add("classifier.5", "relu")
    net.linear("classifier.6", hidden, classes)


def build_vgg(net, plan, batch_norm, divide, classes):
    channels, at = 3, 0
    for step in plan:
        if step == "M":
            net.add(f"features.{at}", "max_pool", kernel_size=2, stride=2)
            at += 1
            continue
        net.conv(f"features.{at}", channels, step // divide, 3, padding=1)
        channels = step // divide
        if batch_norm:
            net.batch_norm(f"features.{at + 1}", channels)
        net.add(f"features.{at + 1 + batch_norm}", "relu")
        at += 2 + batch_norm
    net.add("avgpool", "adaptive_avg_pool", output_size=7)
    net.add("flatten", "flatten")
    hidden = 4096 // divide
    net.linear("classifier.0", channels * 49, hidden)
    net.add("classifier.1", "relu")
    net.add("classifier.2", "identity")
    net.linear("classifier.3", hidden, hidden)
    net.add("classifier.4", "relu")
    net.add("classifier.5", "identity")
    net.linear("classifier.6", hidden, classes)


def build_resnet_body(net, blocks, divide):
    channels = 64 // divide
    net.conv("conv1", 3, channels, 7, bias=False, stride=2, padding=3)
    net.batch_norm("bn1", channels)
    net.add("relu", "relu")
    net.add("maxpool", "max_pool", kernel_size=3, stride=2, padding=1)
    for stage, count in enumerate(blocks):
        width = (64 << stage) // divide
        for index in range(count):
            at, entry = f"layer{stage + 1}.{index}", net.last
            stride = 2 if stage > 0 and index == 0 else 1
            net.conv(f"{at}.conv1", channels, width, 3, bias=False, stride=stride, padding=1)
            net.batch_norm(f"{at}.bn1", width)
            net.add(f"{at}.relu", "relu")
            net.conv(f"{at}.conv2", width, width, 3, bias=False, padding=1)
            branch = net.batch_norm(f"{at}.bn2", width)
            if stride != 1:
                net.conv(f"{at}.downsample.0", channels, width, 1, inputs=[entry], bias=False, stride=2)
                skip = net.batch_norm(f"{at}.downsample.1", width)
            else:
                skip = entry
            net.add(f"{at}.add", "add", [branch, skip])
            net.add(f"{at}.relu_1", "relu")
            channels = width


def build_resnet(net, blocks, divide, classes):
    build_resnet_body(net, blocks, divide)
    net.add("avgpool", "adaptive_avg_pool", output_size=1)
    net.add("flatten", "flatten")
    net.linear("fc", 512 // divide, classes)


def build_resnet20(net, divide, classes):
    """He et al. 2015, section 4.2, with shortcuts of kind A."""
    channels = 16 // divide
    net.conv("conv1", 3, channels, 3, bias=False, padding=1)
    net.batch_norm("bn1", channels)
    net.add("relu", "relu")
    for stage in range(3):
        width = (16 << stage) // divide
        for index in range(3):
            at, entry = f"layer{stage + 1}.{index}", net.last
            net.conv(f"{at}.conv1", channels, width, 3, bias=False, stride=1 if channels == width else 2, padding=1)
            net.batch_norm(f"{at}.bn1", width)
            net.add(f"{at}.relu", "relu")
            net.conv(f"{at}.conv2", width, width, 3, bias=False, padding=1)
            branch = net.batch_norm(f"{at}.bn2", width)
            skip = entry
            if channels != width:
                net.add(f"{at}.shortcut.rows", "every_second", [entry])
                more = width - channels
                skip = net.add(f"{at}.shortcut", "zero_channels", front=more // 2, back=more - more // 2)
            net.add(f"{at}.add", "add", [branch, skip])
            net.add(f"{at}.relu_1", "relu")
            channels = width
    net.add("avgpool", "adaptive_avg_pool", output_size=1)
    net.add("flatten", "flatten")
    net.linear("linear", channels, classes)


def dilated_of(model):
    """("resnet50", [False, True, True]) of "resnet50:dilated=0,1,1"."""
    base, _, flags = model.partition(":dilated=")
    return base, [flag == "1" for flag in flags.split(",")] if flags else [False] * 3


def build(model, divide=1, classes=1000, side=227):
    """side: of caffenet's input, which its first linear layer fixes."""
    net = Builder()
    base, dilated = dilated_of(model)
    if model == "lenet":
        build_lenet(net)
    elif model == "alexnet":
        build_alexnet(net, divide, classes)
    elif model == "resnet20":
        build_resnet20(net, divide, classes)
    elif model in RESNET:
        build_resnet(net, RESNET[model], divide, classes)
    elif base in more.BOTTLENECK:
        more.build_bottleneck(net, base, divide, classes, dilated)
    elif model in more.SQUEEZENET:
        more.build_squeezenet(net, model, divide, classes)
    elif model == "googlenet":
        more.build_googlenet(net, divide, classes)
    elif model == "mobilenet_v2":
        more.build_mobilenet_v2(net, divide, classes)
    elif model == "caffenet":
        more.build_caffenet(net, divide, classes, side)
    elif model == "context":
        more.build_context(net, classes)
    elif model == "autoencoder":
        more.build_autoencoder(net, divide)
    elif model == "encoder_decoder":
        build_resnet_body(net, RESNET["resnet18"], divide)
        more.build_encoder_decoder_head(net, divide, classes)
    else:
        build_vgg(net, VGG[model.removesuffix("_bn")], model.endswith("_bn"), divide, classes)
    return net


class RuledReLU(torch.autograd.Function):
    """Forward a ReLU, or one clipped from above; backward the rule, applied to the sum over all branches that read it
    (autograd sums first)."""

    @staticmethod
    def forward(ctx, s, gate_forward, gate_gradient, clip):
        ctx.save_for_backward(s)
        ctx.rule, ctx.clip = (gate_forward, gate_gradient), clip
        return s.clamp(min=0, max=clip)

    @staticmethod
    def backward(ctx, g):
        (s,) = ctx.saved_tensors
        if ctx.rule[0]:
            g = g * ((s > 0) & (s < ctx.clip))
        if ctx.rule[1]:
            g = g * (g > 0)
        return g, None, None, None


def run(net, parameters, x, rule):
    """name of node -> value, for x [N,C,H,W]; parameters: name -> float64 tensor."""
    values = {"x": x}
    for name, op, inputs, options in net.nodes:
        a = values[inputs[0]]
        of = {k: parameters.get(f"{name}.{k}") for k in ("weight", "bias", "running_mean", "running_var")}
        if op == "conv":
            y = F.conv2d(a, of["weight"], of["bias"], **options)
        elif op == "conv_transpose":
            y = F.conv_transpose2d(a, of["weight"], of["bias"], **options)
        elif op == "linear":
            y = F.linear(a, of["weight"], of["bias"])
        elif op == "batch_norm":
            y = F.batch_norm(a, of["running_mean"], of["running_var"], of["weight"], of["bias"], **options)
        elif op == "relu":
            y = RuledReLU.apply(a, *RULES[rule], options.get("clip", math.inf))
        elif op == "max_pool":
            y = F.max_pool2d(a, **options)
        elif op == "adaptive_avg_pool":
            y = F.adaptive_avg_pool2d(a, **options)
        elif op == "flatten":
            y = a.flatten(1)
        elif op == "add":
            y = a + values[inputs[1]]
        elif op == "every_second":
            y = a[:, :, ::2, ::2]
        elif op == "zero_channels":
            y = F.pad(a, (0, 0, 0, 0, options["front"], options["back"]))
        elif op == "concat":
            y = torch.cat([values[i] for i in inputs], 1)
        elif op == "mul":
            y = a * options["constant"]
        elif op == "shift":
            y = a + options["constant"]
        elif op == "lrn":
            y = F.local_response_norm(a, **options)
        else:
            assert op == "identity", op
            y = a
        values[name] = y
    return values


def switches_of(x, kernel, stride, padding=(0, 0), dilation=(1, 1), ceil_mode=False):
    """Max pooling's (y, switches): offset ky·kernel_w + kx of each winner inside the unclipped window."""
    y, flat = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
    row, column = flat // x.shape[3], flat % x.shape[3]
    first_row = torch.arange(y.shape[2])[:, None] * stride[0] - padding[0]
    first_column = torch.arange(y.shape[3])[None, :] * stride[1] - padding[1]
    ky, kx = (row - first_row) // dilation[0], (column - first_column) // dilation[1]
    assert ((ky >= 0) & (ky < kernel[0]) & (kx >= 0) & (kx < kernel[1])).all()
    assert (row == first_row + ky * dilation[0]).all() and (column == first_column + kx * dilation[1]).all()
    return y, ky * kernel[1] + kx


def tape_of(net, values):
    """Gates and switches as the engine's tape files hold them (uint8); for each node the smallest margin relative to
    the largest value of its layer; and how many pooling windows tie exactly. Exact ties do not count as margins: zeros
    behind a ReLU, or a conv over a flat background, which gives the same value at every place in any precision."""
    tape, margins, ties = {}, {}, 0
    for name, op, inputs, options in net.nodes:
        s = values[inputs[0]].detach()
        if op == "relu":
            clip = options.get("clip", math.inf)
            gate = (s > 0).to(torch.uint8) + (s >= clip).to(torch.uint8)  # 0 below, 1 inside, 2 above
            tape[f"{name}.gate"] = gate if gate.dim() == 4 else gate[:, :, None, None]
            margins[name] = (torch.minimum(s.abs(), (s - clip).abs()).min() / s.abs().max()).item()
        elif op == "max_pool":
            k, stride, pad = options["kernel_size"], options["stride"], options.get("padding", 0)
            y, switch = switches_of(s, (k, k), (stride, stride), (pad, pad), ceil_mode=options.get("ceil_mode", False))
            tape[f"{name}.switch"] = switch.to(torch.uint8)
            bottom, right = ((y.shape[i] - 1) * stride + k - s.shape[i] - pad for i in (2, 3))
            padded = F.pad(s, (pad, max(right, pad), pad, max(bottom, pad)), value=-math.inf)
            windows = padded.unfold(2, k, stride).unfold(3, k, stride).flatten(4)
            best = windows.topk(2, dim=4).values
            gap = best[..., 0] - best[..., 1]
            ties += (gap == 0).sum().item()
            margins[name] = (gap[gap > 0].min() / s.abs().max()).item()
    return tape, margins, ties
