"""More of the zoo's architectures, each a function that fills a networks.Builder. Names are torchvision's, those of
caffenet Caffe's, those of context its authors'; autoencoder and encoder_decoder are named as engine/zoo/ says."""

import torch

# blocks of each stage, groups, width of one group in layer1
BOTTLENECK = {
    "resnet50": ([3, 4, 6, 3], 1, 64),
    "resnet101": ([3, 4, 23, 3], 1, 64),
    "resnet152": ([3, 8, 36, 3], 1, 64),
    "wide_resnet50_2": ([3, 4, 6, 3], 1, 128),
    "resnext50_32x4d": ([3, 4, 6, 3], 32, 4),
}
SQUEEZENET = {
    "squeezenet1_0": (96, 7, ["M", 16, 16, 32, "M", 32, 48, 48, 64, "M", 64]),
    "squeezenet1_1": (64, 3, ["M", 16, 16, "M", 32, 32, "M", 48, 48, 64, 64]),
}
INCEPTION = [
    ("3a", 64, 96, 128, 16, 32, 32), ("3b", 128, 128, 192, 32, 96, 64), "maxpool3",
    ("4a", 192, 96, 208, 16, 48, 64), ("4b", 160, 112, 224, 24, 64, 64), ("4c", 128, 128, 256, 24, 64, 64),
    ("4d", 112, 144, 288, 32, 64, 64), ("4e", 256, 160, 320, 32, 128, 128), "maxpool4",
    ("5a", 256, 160, 320, 32, 128, 128), ("5b", 384, 192, 384, 48, 128, 128),
]


def build_bottleneck(net, model, divide, classes, dilated):
    """dilated: torchvision's replace_stride_with_dilation."""
    blocks, groups, base_width = BOTTLENECK[model]
    channels, dilation = 64 // divide, 1
    net.conv("conv1", 3, channels, 7, bias=False, stride=2, padding=3)
    net.batch_norm("bn1", channels)
    net.add("relu", "relu")
    net.add("maxpool", "max_pool", kernel_size=3, stride=2, padding=1)
    for stage, count in enumerate(blocks):
        planes, out = 64 << stage, (256 << stage) // divide
        width = planes * base_width // 64 * groups // divide
        stride, previous = (2 if stage else 1), dilation
        if stage and dilated[stage - 1]:
            dilation, stride = 2 * dilation, 1
        for index in range(count):
            at, entry = f"layer{stage + 1}.{index}", net.last
            s, d = (stride, previous) if index == 0 else (1, dilation)
            net.conv(f"{at}.conv1", channels, width, 1, bias=False)
            net.batch_norm(f"{at}.bn1", width)
            net.add(f"{at}.relu", "relu")
            net.conv(f"{at}.conv2", width, width, 3, bias=False, stride=s, padding=d, dilation=d,
                     groups=max(1, groups // divide))
            net.batch_norm(f"{at}.bn2", width)
            net.add(f"{at}.relu_1", "relu")
            net.conv(f"{at}.conv3", width, out, 1, bias=False)
            branch, skip = net.batch_norm(f"{at}.bn3", out), entry
            if index == 0:
                net.conv(f"{at}.downsample.0", channels, out, 1, inputs=[entry], bias=False, stride=s)
                skip = net.batch_norm(f"{at}.downsample.1", out)
            net.add(f"{at}.add", "add", [branch, skip])
            net.add(f"{at}.relu_2", "relu")
            channels = out
    net.add("avgpool", "adaptive_avg_pool", output_size=1)
    net.add("flatten", "flatten")
    net.linear("fc", channels, classes)


def build_squeezenet(net, model, divide, classes):
    channels, kernel, plan = SQUEEZENET[model]
    channels //= divide
    net.conv("features.0", 3, channels, kernel, stride=2)
    net.add("features.1", "relu")
    for index, squeeze in enumerate(plan):
        at = f"features.{index + 2}"
        if squeeze == "M":
            net.add(at, "max_pool", kernel_size=3, stride=2, ceil_mode=True)
            continue
        net.conv(f"{at}.squeeze", channels, squeeze // divide, 1)
        entry, branches = net.add(f"{at}.squeeze_activation", "relu"), []
        for size in (1, 3):
            net.conv(f"{at}.expand{size}x{size}", squeeze // divide, 4 * squeeze // divide, size, inputs=[entry],
                     padding=size // 2)
            branches.append(net.add(f"{at}.expand{size}x{size}_activation", "relu"))
        net.add(f"{at}.cat", "concat", branches)
        channels = 8 * squeeze // divide
    net.add("classifier.0", "identity")
    net.conv("classifier.1", channels, classes, 1)
    net.add("classifier.2", "relu")
    net.add("classifier.3", "adaptive_avg_pool", output_size=1)
    net.add("flatten", "flatten")


def build_googlenet(net, divide, classes):
    def basic(name, i, o, kernel, inputs=None, stride=1):
        net.conv(f"{name}.conv", i, o, kernel, inputs=inputs, bias=False, stride=stride, padding=kernel // 2)
        net.batch_norm(f"{name}.bn", o, eps=1e-3)
        return net.add(f"{name}.relu", "relu")

    def channel(values):
        return torch.tensor(values, dtype=torch.float64)[:, None, None]

    net.add("transform_input.mul", "mul", constant=channel([0.229 / 0.5, 0.224 / 0.5, 0.225 / 0.5]))
    net.add("cat", "shift", constant=channel([(0.485 - 0.5) / 0.5, (0.456 - 0.5) / 0.5, (0.406 - 0.5) / 0.5]))
    basic("conv1", 3, 64 // divide, 7, stride=2)
    net.add("maxpool1", "max_pool", kernel_size=3, stride=2, ceil_mode=True)
    basic("conv2", 64 // divide, 64 // divide, 1)
    basic("conv3", 64 // divide, 192 // divide, 3)
    net.add("maxpool2", "max_pool", kernel_size=3, stride=2, ceil_mode=True)
    channels = 192 // divide
    for module in INCEPTION:
        if isinstance(module, str):
            net.add(module, "max_pool", kernel_size=3 if module == "maxpool3" else 2, stride=2, ceil_mode=True)
            continue
        at, entry = f"inception{module[0]}", net.last
        one, three_in, three, five_in, five, pool = (width // divide for width in module[1:])
        branches = [basic(f"{at}.branch1", channels, one, 1, [entry])]
        basic(f"{at}.branch2.0", channels, three_in, 1, [entry])
        branches.append(basic(f"{at}.branch2.1", three_in, three, 3))
        basic(f"{at}.branch3.0", channels, five_in, 1, [entry])
        branches.append(basic(f"{at}.branch3.1", five_in, five, 3))
        net.add(f"{at}.branch4.0", "max_pool", [entry], kernel_size=3, stride=1, padding=1, ceil_mode=True)
        branches.append(basic(f"{at}.branch4.1", channels, pool, 1))
        net.add(f"{at}.cat", "concat", branches)
        channels = one + three + five + pool
    net.add("avgpool", "adaptive_avg_pool", output_size=1)
    net.add("flatten", "flatten")
    net.add("dropout", "identity")
    net.linear("fc", channels, classes)


def build_mobilenet_v2(net, divide, classes):
    def basic(name, i, o, kernel, stride=1, groups=1):
        net.conv(f"{name}.0", i, o, kernel, bias=False, stride=stride, padding=kernel // 2, groups=groups)
        net.batch_norm(f"{name}.1", o)
        net.add(f"{name}.2", "relu", clip=6.0)

    channels, at = 32 // divide, 1
    basic("features.0", 3, channels, 3, stride=2)
    for t, c, n, s in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
                       (6, 320, 1, 1)):
        for index in range(n):
            name, entry, stride = f"features.{at}", net.last, s if index == 0 else 1
            out, hidden = c // divide, channels * t
            parts = [f"{name}.conv.{i}" for i in range(4)]
            if t != 1:
                basic(parts.pop(0), channels, hidden, 1)
            basic(parts.pop(0), hidden, hidden, 3, stride, groups=hidden)
            net.conv(parts.pop(0), hidden, out, 1, bias=False)
            body = net.batch_norm(parts.pop(0), out)
            if stride == 1 and channels == out:
                net.add(f"{name}.add", "add", [entry, body])
            channels, at = out, at + 1
    basic(f"features.{at}", channels, 1280 // divide, 1)
    net.add("adaptive_avg_pool2d", "adaptive_avg_pool", output_size=1)
    net.add("flatten", "flatten")
    net.add("classifier.0", "identity")
    net.linear("classifier.1", 1280 // divide, classes)


def build_caffenet(net, divide, classes, side):
    rows = (side - 11) // 4 + 1
    for _ in range(3):  # the pools, rounding up
        rows = -(-(rows - 3) // 2) + 1
    width = [w // divide for w in (96, 256, 384, 384, 256)]
    hidden = 4096 // divide
    net.conv("conv1", 3, width[0], 11, stride=4)
    net.add("relu1", "relu")
    for i, (padding, groups) in enumerate(((2, 2), (1, 1), (1, 2), (1, 2)), 2):
        if i <= 3:
            net.add(f"pool{i - 1}", "max_pool", kernel_size=3, stride=2, ceil_mode=True)
            net.add(f"norm{i - 1}", "lrn", size=5, alpha=1e-4, beta=0.75, k=1.0)
        net.conv(f"conv{i}", width[i - 2], width[i - 1], 2 * padding + 1, padding=padding, groups=groups)
        net.add(f"relu{i}", "relu")
    net.add("pool5", "max_pool", kernel_size=3, stride=2, ceil_mode=True)
    net.add("flatten", "flatten")
    for i, columns in ((6, width[4] * rows * rows), (7, hidden)):
        net.linear(f"fc{i}", columns, hidden)
        net.add(f"relu{i}", "relu")
        net.add(f"drop{i}", "identity")
    net.linear("fc8", hidden, classes)


def build_context(net, classes):
    for name, dilation in (("conv1_1", 1), ("conv1_2", 1), ("conv2_1", 2), ("conv3_1", 4), ("conv4_1", 8),
                           ("conv5_1", 16)):
        net.conv(f"ctx_{name}", classes, classes, 3, padding=dilation, dilation=dilation)
        net.add(f"ctx_{name.replace('conv', 'relu')}", "relu")
    net.conv("ctx_fc1", classes, classes, 3, padding=1)
    net.add("ctx_fc1_relu", "relu")
    net.conv("ctx_final", classes, classes, 1)


def build_autoencoder(net, divide):
    channels = [3] + [w // divide for w in (16, 32, 64, 128)]
    for i in range(4):
        net.conv(f"enc{i}", channels[i], channels[i + 1], 3, stride=2, padding=1)
        net.add(f"enc{i}_relu", "relu")
    for i in reversed(range(4)):
        net.conv_transpose(f"dec{i}", channels[i + 1], channels[i], 3, stride=2, padding=1, output_padding=1)
        net.add(f"dec{i}_relu", "relu")


def build_encoder_decoder_head(net, divide, classes):
    """Behind ResNet-18's last map."""

    def norm_relu_dropout(name):
        net.batch_norm(f"{name}_bn", classes)
        net.add(f"{name}_relu", "relu")
        net.add(f"{name}_drop", "identity")

    net.conv("expand", 512 // divide, classes, 1, bias=False)
    norm_relu_dropout("expand")
    net.conv_transpose("up1", classes, classes, 4, bias=False, stride=2, padding=1)
    norm_relu_dropout("up1")
    net.conv_transpose("up2", classes, classes, 4, stride=2, padding=1, groups=classes)
    net.add("up2_relu", "relu")
    net.add("avgpool", "adaptive_avg_pool", output_size=1)
    net.add("flatten", "flatten")
