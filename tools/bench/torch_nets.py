"""The networks of the benchmarks as a good PyTorch user has them for inference: modules with torchvision's names (which
switchback's weight files have, too), no gradients of parameters, batch norms folded into their convolutions."""

import json
import math
import struct
from collections import OrderedDict

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

VGG = {
    "vgg16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    "vgg19": [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"],
}
RESNET = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3]}
# "mkldnn": weights and activations in oneDNN's own blocked layouts (torch.utils.mkldnn), for forward passes only.
LAYOUTS = ("contiguous", "channels_last", "mkldnn")
DTYPES = dict(fp32=torch.float32, tf32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16, fp64=torch.float64)


def vgg(name):
    """Without the dropout that eval mode skips."""
    layers, channels = [], 3
    for step in VGG[name]:
        if step == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU(inplace=True)]
            channels = step
    head = {"0": nn.Linear(512 * 49, 4096), "1": nn.ReLU(inplace=True), "3": nn.Linear(4096, 4096),
            "4": nn.ReLU(inplace=True), "6": nn.Linear(4096, 1000)}
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), avgpool=nn.AdaptiveAvgPool2d(7),
                                     flatten=nn.Flatten(), classifier=nn.Sequential(OrderedDict(head))))


def vgg19():
    return vgg("vgg19")


class Flat(nn.Module):
    """nn.Flatten in words that forward-mode differentiation knows, too."""

    def forward(self, x):
        return x.reshape(x.shape[0], -1)


class BasicBlock(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x)))


def resnet(name):
    stages, channels = [], 64
    for stage, depth in enumerate(RESNET[name]):
        width, blocks = 64 << stage, []
        for i in range(depth):
            blocks.append(BasicBlock(channels, width, 2 if stage and not i else 1))
            channels = width
        stages.append((f"layer{stage + 1}", nn.Sequential(*blocks)))
    stem = [("conv1", nn.Conv2d(3, 64, 7, 2, 3, bias=False)), ("bn1", nn.BatchNorm2d(64)),
            ("relu", nn.ReLU(inplace=True)), ("maxpool", nn.MaxPool2d(3, 2, 1))]
    head = [("avgpool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", nn.Linear(512, 1000))]
    return nn.Sequential(OrderedDict(stem + stages + head))


def lenet():
    return nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(1, 32, 5), pool1=nn.MaxPool2d(3), relu1=nn.ReLU(inplace=True), conv2=nn.Conv2d(32, 64, 5),
        pool2=nn.MaxPool2d(2), relu2=nn.ReLU(inplace=True), flatten=Flat(), fc1=nn.Linear(256, 200),
        relu3=nn.ReLU(inplace=True), fc2=nn.Linear(200, 10)))


def autoencoder():
    """Khozein's, as engine/zoo/autoencoder.cpp has it."""
    layers, channels = [], (3, 16, 32, 64, 128)
    for i in range(4):
        layers += [(f"enc{i}", nn.Conv2d(channels[i], channels[i + 1], 3, 2, 1)), (f"enc{i}_relu", nn.ReLU(inplace=True))]
    for i in reversed(range(4)):
        layers += [(f"dec{i}", nn.ConvTranspose2d(channels[i + 1], channels[i], 3, 2, 1, 1)), (f"dec{i}_relu", nn.ReLU(inplace=True))]
    return nn.Sequential(OrderedDict(layers))


class CifarBlock(nn.Module):
    """With shortcut A: every second place, and channels of zeros on both sides."""

    def __init__(self, channels, width):
        super().__init__()
        self.more = width - channels
        self.conv1 = nn.Conv2d(channels, width, 3, 2 if self.more else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return self.relu(y + x)


def resnet20():
    """Of CIFAR, as engine/zoo/resnet_cifar.cpp has it."""
    stages, channels = [], 16
    for stage, width in enumerate((16, 32, 64), 1):
        blocks = []
        for _ in range(3):
            blocks.append(CifarBlock(channels, width))
            channels = width
        stages.append((f"layer{stage}", nn.Sequential(*blocks)))
    stem = [("conv1", nn.Conv2d(3, 16, 3, 1, 1, bias=False)), ("bn1", nn.BatchNorm2d(16)), ("relu", nn.ReLU(inplace=True))]
    head = [("avgpool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("linear", nn.Linear(64, 10))]
    return nn.Sequential(OrderedDict(stem + stages + head))


SMALL = dict(lenet=lenet, autoencoder=autoencoder, resnet20=resnet20)


def network(name):
    if name in VGG:
        return vgg(name)
    if name in RESNET:
        return resnet(name)
    return SMALL[name]() if name in SMALL else from_torchvision(name)


def from_torchvision(name):
    import torchvision
    more = {}
    if name in ("googlenet", "inception_v3"):
        more = dict(aux_logits=False, init_weights=False)
    segments = name.startswith(("fcn", "deeplab", "lraspp"))
    if segments:
        more = dict(weights_backbone=None)
    model = torchvision.models.get_model(name, weights=None, **more)
    return OutputAlone(model) if segments else model


class OutputAlone(nn.Module):
    """A segmentation without the dict around its scores."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)["out"]


# Sides of the inputs that are not 224 (engine/zoo); switchback's benchmarks take them from the network.
SIDES = dict(inception_v3=299, efficientnet_b1=240, efficientnet_b2=288, efficientnet_b3=300, efficientnet_b4=380,
             efficientnet_b5=456, efficientnet_b6=528, efficientnet_b7=600, efficientnet_v2_s=384, efficientnet_v2_m=480,
             efficientnet_v2_l=480, regnet_y_128gf=384, swin_v2_t=256, swin_v2_s=256, swin_v2_b=256, fcn_resnet50=520,
             fcn_resnet101=520, deeplabv3_resnet50=520, deeplabv3_resnet101=520, lraspp_mobilenet_v3_large=520)


def input_shape(name, size):
    size = SIDES.get(name, size)
    return (1, 28, 28) if name == "lenet" else (3, 32, 32) if name in SMALL else (3, size, size)


def randomized(model):
    """Weights uniform with He's variance, as `random:SEED` has them."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = math.sqrt(6 / module.weight[0].numel())
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.1, 0.1)
    return model


def loaded(model, path):
    """The parameters of a safetensors file, by name."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        raw = bytearray(file.read())
    header.pop("__metadata__", None)
    state = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        values = torch.frombuffer(raw, dtype=torch.float32, count=(last - first) // 4, offset=first)
        state[name] = values.reshape(entry["shape"])
    missing, unknown = model.load_state_dict(state, strict=False)
    if unknown or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"{path} is of another network: {[*missing, *unknown][:4]}")
    return model


def fold_batch_norms(model):
    """In place; in eval mode."""
    for module in model.modules():
        children = list(module.named_children())
        for (name, conv), (norm_name, norm) in zip(children, children[1:]):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return model


def placed(model, precision="fp32", layout="contiguous", device="cpu"):
    """As it runs: whole in its precision, weights in the layout."""
    model = fold_batch_norms(model.eval().requires_grad_(False)).to(device, DTYPES[precision])
    if layout == "mkldnn":
        from torch.utils import mkldnn
        return mkldnn.to_mkldnn(model, DTYPES[precision])
    return model.to(memory_format=memory_format(layout))


def prepared(model, precision="fp32", layout="contiguous"):
    return placed(randomized(model), precision, layout)


def memory_format(layout):
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format


def outputs(model, x, layout):
    """model(x) as an ordinary tensor."""
    return model(x.to_mkldnn()).to_dense() if layout == "mkldnn" else model(x)
