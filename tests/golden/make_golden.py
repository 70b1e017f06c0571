#!/usr/bin/env python3
"""Makes the golden data of tests/golden: what PyTorch gets in float64, rounded to float32 and stored.

    python3 tests/golden/make_golden.py [--out FOLDER] [--only NAME ...] [--check-torchvision]

MODEL.safetensors: channel-reduced copies of the zoo's networks (LeNet in full) with the weights `random:SEED` (LeNet:
the shipped ones), for one fixed input. Its metadata "golden" is a JSON object:
    model, divide_channels, classes, side (of caffenet only), weights ("random:SEED" or "lenet.safetensors")
    targets          class with the largest logit, one per image: target of gradient, deconv, guided
    unit             {node, channel, row, col}: target of unit.gradient, unit.deconv, unit.guided, in every image; the
                     node is a conv, and its value counts before batch norm and ReLU (unit.value holds it)
    activations      nodes whose values are stored as activation.NODE
    margin           the least |s| of a gate or lead of a switch, relative to its layer's largest value, and its node
    exact_ties       pooling windows whose first two values are equal (not counted as margins): the first place wins
Tensors: input, logits, the maps above [N,C,H,W]; NODE.gate and NODE.switch (U8) as in the engine's tape files.
ops.safetensors: cases of single ops (ops.py), metadata "cases" = JSON list of {name, op, params}, tensors CASE.x ...
layers.safetensors: the same for more layers (layers.py; needs the onnx package)
cams.safetensors: class activation maps of some of these networks on their golden inputs (cams.py), metadata "cams" = JSON
    object MODEL: {targets, layers}.
state_dicts.json: names and shapes of all models' parameters at full size, as CRC-32.
noise.json: words of Philox, normals and random weights (philox.py).
"""

import argparse
import json
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "weights"))

import cams  # noqa: E402
import layers  # noqa: E402
import networks  # noqa: E402
import ops  # noqa: E402
import philox  # noqa: E402
from draw_digits import read_png  # noqa: E402
from shipping import read_safetensors, write_bytes, write_safetensors  # noqa: E402

DIVIDE, CLASSES, SEEDS_TRIED = 8, 10, 64
# model: (input shape, seed of the weights, node of the hidden unit, activations). Odd sizes on purpose.
MODELS = {
    "alexnet": ((1, 3, 67, 71), 1, "features.6", ["features.2", "features.5", "classifier.4"]),
    "vgg11": ((2, 3, 40, 38), 2, "features.8", ["features.2", "features.8", "classifier.1"]),
    "vgg13": ((1, 3, 35, 46), 3, "features.12", ["features.4", "features.15", "classifier.3"]),
    "vgg16": ((1, 3, 41, 33), 4, "features.17", ["features.9", "features.17", "classifier.4"]),
    "vgg19": ((1, 3, 40, 37), 5, "features.25", ["features.9", "features.28", "classifier.0"]),
    "vgg11_bn": ((1, 3, 37, 39), 6, "features.11", ["features.4", "features.9", "classifier.1"]),
    "vgg13_bn": ((1, 3, 34, 42), 7, "features.17", ["features.7", "features.15", "classifier.3"]),
    "vgg16_bn": ((2, 3, 33, 36), 8, "features.24", ["features.7", "features.25", "classifier.4"]),
    "vgg19_bn": ((1, 3, 44, 32), 9, "features.30", ["features.8", "features.36", "classifier.0"]),
    "resnet18": ((1, 3, 58, 51), 10, "layer2.1.conv1", ["maxpool", "layer2.0.add", "layer3.1.bn2"]),
    "resnet34": ((1, 3, 53, 49), 11, "layer3.2.conv2", ["layer1.0.bn1", "layer2.3.relu_1", "layer4.0.downsample.0"]),
    "resnet50": ((1, 3, 45, 51), 12, "layer3.2.conv2", ["layer1.0.add", "layer2.0.conv2", "layer4.2.relu_1"]),
    "resnet101": ((1, 3, 33, 40), 13, "layer3.20.conv1", ["layer3.22.relu_2"]),
    "resnet152": ((1, 3, 36, 33), 14, "layer3.9.conv3", ["layer2.7.relu_2"]),
    "wide_resnet50_2": ((1, 3, 34, 37), 15, "layer3.2.conv2", ["layer4.0.bn2"]),
    "resnext50_32x4d": ((1, 3, 38, 35), 16, "layer2.1.conv2", ["layer1.2.bn2", "layer4.1.relu_1"]),
    "resnet50:dilated=0,1,1": ((1, 3, 42, 39), 17, "layer4.1.conv2", ["layer3.0.conv2", "layer4.2.add"]),
    "squeezenet1_0": ((1, 3, 41, 44), 18, "features.7.expand3x3", ["features.3.cat", "features.6", "classifier.2"]),
    "squeezenet1_1": ((2, 3, 35, 38), 19, "features.6.squeeze", ["features.4.cat", "features.5", "classifier.1"]),
    "googlenet": ((1, 3, 47, 44), 20, "inception4b.branch3.1.conv",
                  ["cat", "inception3a.branch4.0", "inception5b.cat"]),
    "mobilenet_v2": ((1, 3, 45, 54), 21, "features.7.conv.0.0", ["features.0.2", "features.3.add", "features.18.2"]),
    "caffenet": ((1, 3, 55, 55), 22, "conv4", ["norm1", "conv2", "pool5", "relu7"]),
    "context": ((1, 10, 23, 27), 23, "ctx_conv4_1", ["ctx_relu2_1", "ctx_fc1"]),
    "autoencoder": ((2, 3, 32, 32), 24, "dec2", ["enc3_relu", "dec2_relu"]),
    "resnet20": ((2, 3, 21, 26), 26, "layer2.1.conv1", ["layer1.0.add", "layer2.0.shortcut", "layer3.2.relu_1"]),
    "encoder_decoder": ((1, 3, 49, 55), 25, "up1", ["expand_relu", "up1_relu", "up2_relu"]),
}
STATE_CLASSES = {"context": 21, "resnet20": 10, "encoder_decoder": 200}  # of the models at full size; the others: 1000
TORCHVISION = [name for name in MODELS if name not in ("caffenet", "context", "autoencoder", "encoder_decoder", "resnet20")]


def random_parameters(net, seed):
    return {name: torch.from_numpy(philox.random_parameter(seed, name, kind, shape).astype(np.float64))
            for name, (kind, shape) in net.parameters.items()}


def random_input(shape, seed):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64))


def file_name(model):
    return model.replace(":", "_").replace("=", "").replace(",", "")


def least(margins):
    node = min(margins, key=margins.get)
    return {"node": node, "relative": margins[node]}


def safest_seed(net, parameters, make_input):
    """The seed of make_input(seed), of SEEDS_TRIED, whose gates and switches are farthest from a tie."""
    found = []
    with torch.no_grad():
        for seed in range(SEEDS_TRIED):
            values = networks.run(net, parameters, make_input(seed), "gradient")
            found.append((least(networks.tape_of(net, values)[1])["relative"], seed))
    return max(found)[1]


def maps_of(net, parameters, x, output, select):
    """rule -> map, for the scalar select(value of node `output`) summed over the images (they do not mix)."""
    maps = {}
    for rule in networks.RULES:
        a = x.clone().requires_grad_()
        target = select(networks.run(net, parameters, a, rule)[output]).sum()
        maps[rule] = torch.autograd.grad(target, a)[0]
    return maps


def choose_unit(net, parameters, x, node, value):
    """The channel, in the middle of the node's map, whose smallest map over rules and images is largest."""
    row, col = value.shape[2] // 2, value.shape[3] // 2
    best = None
    for channel in range(min(value.shape[1], 8)):
        maps = maps_of(net, parameters, x, node, lambda v: v[:, channel, row, col])
        strength = min(m.flatten(1).abs().amax(1).min().item() for m in maps.values())
        if best is None or strength > best[0]:
            best = strength, channel, maps
    return {"node": node, "channel": best[1], "row": row, "col": col}, best[2]


def class_totals(logits):
    """[N,classes]; of outputs that are maps the sum over each."""
    return logits.flatten(2).sum(2) if logits.dim() == 4 else logits


def make_network(name, model, net, parameters, x, facts, unit_node, activations, out):
    values = networks.run(net, parameters, x, "gradient")
    tape, margins, ties = networks.tape_of(net, values)
    logits = values[net.last]
    targets = class_totals(logits).argmax(1)
    tensors = {"input": x, "logits": logits}
    tensors.update(maps_of(net, parameters, x, net.last, lambda v: class_totals(v).gather(1, targets[:, None])))
    unit, unit_maps = choose_unit(net, parameters, x, unit_node, values[unit_node])
    tensors.update({f"unit.{rule}": m for rule, m in unit_maps.items()})
    tensors["unit.value"] = values[unit_node][:, unit["channel"], unit["row"], unit["col"]]
    tensors.update({f"activation.{node}": values[node] for node in activations})
    arrays = {name: t.detach().numpy().astype(np.float32) for name, t in tensors.items()}
    for part, array in arrays.items():
        filled = np.isfinite(array).all() and (array.reshape(len(array), -1) != 0).any(1).all()
        assert filled, f"{name}: {part} holds an image of zeros or a NaN"
    arrays.update({part: t.numpy() for part, t in tape.items()})

    two = class_totals(logits).topk(2, 1).values
    facts = dict(model=model, **facts, targets=targets.tolist(), unit=unit, activations=activations,
                 margin=least(margins), exact_ties=ties, torch=torch.__version__, dtype="float64, rounded to float32")
    path = out / f"{file_name(name)}.safetensors"
    write_safetensors(path, arrays, {"golden": json.dumps(facts)})
    dead = [part for part, t in tape.items() if part.endswith(".gate") and not t.any()]
    lead = ((two[:, 0] - two[:, 1]) / two.abs().amax(1)).min().item()  # of the target over the next class
    print(f"{path.name:23s} {path.stat().st_size:7d} bytes  margin {facts['margin']['relative']:.1e} at "
          f"{facts['margin']['node']}  ties {ties}  |logits| {logits.abs().max().item():.3g}  lead {lead:.2g}  "
          f"unit {unit['node']}[{unit['channel']},{unit['row']},{unit['col']}]  dead ReLUs {dead}")


def make_lenet(out):
    """lenet: the sample digits as they are, whose flat background makes exact ties in pool1. lenet_noisy: four of them
    under noise, free of ties."""
    net = networks.build("lenet")
    parameters = {k: torch.from_numpy(v.astype(np.float64))
                  for k, v in read_safetensors(ROOT / "weights/lenet.safetensors")[0].items()}
    assert {k: tuple(v.shape) for k, v in parameters.items()} == {k: s for k, (_, s) in net.parameters.items()}
    pixels = np.stack([read_png(ROOT / f"weights/samples/digit_{d}.png") for d in range(10)])[:, None]
    x = torch.from_numpy(((pixels / 255 - 0.1307) / 0.3081).astype(np.float32).astype(np.float64))
    facts = dict(divide_channels=1, classes=10, weights="lenet.safetensors", input="weights/samples/digit_0.png ... 9")
    make_network("lenet", "lenet", net, parameters, x, facts, "conv2", ["conv2", "relu2", "relu3"], out)

    def noisy(seed):
        return (x[[2, 3, 5, 8]] + 0.3 * random_input((4, 1, 28, 28), seed)).float().double()

    seed = safest_seed(net, parameters, noisy)
    facts["input"] = f"digits 2, 3, 5, 8 + 0.3 normal, seed {seed}"
    make_network("lenet_noisy", "lenet", net, parameters, noisy(seed), facts, "conv1", ["relu1", "fc1"], out)


def make_random(model, out):
    shape, seed, unit_node, activations = MODELS[model]
    side = {"side": shape[2]} if model == "caffenet" else {}
    net = networks.build(model, DIVIDE, CLASSES, **side)
    parameters = random_parameters(net, seed)
    input_seed = safest_seed(net, parameters, lambda s: random_input(shape, s))
    facts = dict(divide_channels=DIVIDE, classes=CLASSES, weights=f"random:{seed}", input=f"normal, seed {input_seed}",
                 **side)
    make_network(model, model, net, parameters, random_input(shape, input_seed), facts, unit_node, activations, out)


def make_ops(out):
    tensors, cases = ops.golden_ops()
    path = out / "ops.safetensors"
    write_safetensors(path, tensors, {"cases": json.dumps(cases), "torch": torch.__version__})
    print(f"{path.name:23s} {path.stat().st_size:7d} bytes  {len(cases)} cases")


def make_layers(out):
    tensors, cases = layers.golden_layers()
    path = out / "layers.safetensors"
    write_safetensors(path, tensors, {"cases": json.dumps(cases), "torch": torch.__version__})
    print(f"{path.name:23s} {path.stat().st_size:7d} bytes  {len(cases)} cases")


def golden_parameters(net, facts):
    if facts["weights"].startswith("random:"):
        return random_parameters(net, int(facts["weights"].removeprefix("random:")))
    arrays = read_safetensors(ROOT / "weights" / facts["weights"])[0]
    return {name: torch.from_numpy(array.astype(np.float64)) for name, array in arrays.items()}


def make_cams(out):
    def golden_file(model):
        return read_safetensors(out / f"{model}.safetensors")

    tensors, about = cams.golden_cams(golden_file, golden_parameters)
    path = out / "cams.safetensors"
    write_safetensors(path, tensors, {"cams": json.dumps(about), "torch": torch.__version__})
    print(f"{path.name:23s} {path.stat().st_size:7d} bytes  {len(tensors)} maps  {about}")


def make_state_dicts(out):
    """Of every model at full size: how many tensors, how many parameters, and the CRC-32 of its sorted lines
    "NAME D0,D1,...\\n". --check-torchvision shows that these are torchvision's."""
    about = {}
    for model in MODELS:
        shapes = networks.build(model, 1, STATE_CLASSES.get(model, 1000)).parameters
        lines = "".join(f"{name} {','.join(map(str, shape))}\n" for name, (_, shape) in sorted(shapes.items()))
        learned = [math.prod(shape) for name, (_, shape) in shapes.items() if ".running_" not in name]
        about[model] = dict(tensors=len(shapes), parameters=sum(learned), crc32=zlib.crc32(lines.encode()))
    path = out / "state_dicts.json"
    write_bytes(path, (json.dumps(about, indent=1) + "\n").encode())
    print(f"{path.name:23s} {path.stat().st_size:7d} bytes")


def make_noise(out):
    path = out / "noise.json"
    write_bytes(path, (json.dumps(philox.golden_noise(), indent=1) + "\n").encode())
    print(f"{path.name:23s} {path.stat().st_size:7d} bytes")


def torchvision_model(model):
    """(torchvision's model without weights, its nodes' names), GoogLeNet as it is when published weights are loaded."""
    import torchvision
    from torchvision.models.feature_extraction import NodePathTracer
    from torchvision.models.googlenet import BasicConv2d

    base, dilated = networks.dilated_of(model)
    options = {"init_weights": False} if base.startswith("vgg") else {}
    if base == "googlenet":
        options = {"init_weights": False, "aux_logits": False, "transform_input": True}
    if any(dilated):
        options = {"replace_stride_with_dilation": dilated}
    theirs = getattr(torchvision.models, base)(weights=None, **options).eval()
    tracer = NodePathTracer()  # that of feature extraction, but into torchvision's own modules too
    tracer.trace(theirs)
    names = [name for name in tracer.node_to_qualname.values() if name != "output"]
    if base == "googlenet":  # ours transforms the input in one node where theirs has three for each channel
        names = ["x", "transform_input.mul"] + names[names.index("cat"):]
        for module in theirs.modules():
            if isinstance(module, BasicConv2d):  # its ReLU is a function: none for hooks
                module.relu = torch.nn.ReLU()
                module.forward = torch.nn.Sequential(module.conv, module.bn, module.relu).forward
    return theirs, names


def reduce_channels(theirs, last):
    """Replaces layers by those of the copy; `last`: the one that gives the classes."""
    for name, module in list(theirs.named_modules()):
        if isinstance(module, torch.nn.Conv2d):
            i = module.in_channels if module.in_channels == 3 else module.in_channels // DIVIDE
            o = CLASSES if name == last else module.out_channels // DIVIDE
            new = torch.nn.Conv2d(i, o, module.kernel_size, module.stride, module.padding, module.dilation,
                                  max(1, module.groups // DIVIDE), bias=module.bias is not None)
        elif isinstance(module, torch.nn.BatchNorm2d):
            new = torch.nn.BatchNorm2d(module.num_features // DIVIDE, module.eps)
        elif isinstance(module, torch.nn.Linear):
            out = CLASSES if name == last else module.out_features // DIVIDE
            new = torch.nn.Linear(module.in_features // DIVIDE, out)
        else:
            continue
        holder, _, leaf = name.rpartition(".")
        setattr(theirs.get_submodule(holder), leaf, new)
        parent = theirs.get_submodule(holder)
        if "forward" in vars(parent):  # GoogLeNet's, see above
            parent.forward = torch.nn.Sequential(parent.conv, parent.bn, parent.relu).forward


def check_torchvision(model):
    """The node lists of networks.py against torchvision: names and shapes of the parameters at full size, names of the
    nodes, and logits and the three maps of the reduced copy, the rules there being hooks on the ReLU modules."""
    import torchvision

    theirs, names = torchvision_model(model)
    state = {k: tuple(v.shape) for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    full = networks.build(model)
    assert state == {k: s for k, (_, s) in full.parameters.items()}, model
    assert names == ["x"] + [n[0] for n in full.nodes], (model, names)

    reduce_channels(theirs, list(full.parameters)[-1].rpartition(".")[0])
    shape, seed, _, _ = MODELS[model]
    net = networks.build(model, DIVIDE, CLASSES)
    parameters = random_parameters(net, seed)
    missing = theirs.double().eval().load_state_dict(parameters, strict=False)
    assert not missing.unexpected_keys and all(k.endswith("num_batches_tracked") for k in missing.missing_keys), missing
    x = random_input(shape, 0).requires_grad_()
    hooks = {
        "gradient": lambda module, to_input, to_output: None,
        "deconv": lambda module, to_input, to_output: (to_output[0].clamp(min=0),),
        "guided": lambda module, to_input, to_output: (to_input[0].clamp(min=0),),
    }
    for rule, hook in hooks.items():
        relus = [module for module in theirs.modules() if isinstance(module, (torch.nn.ReLU, torch.nn.ReLU6))]
        for module in relus:
            module.inplace = False
        handles = [module.register_full_backward_hook(hook) for module in relus]
        results = []
        for logits in (theirs(x), networks.run(net, parameters, x, rule)[net.last]):
            results.append((logits, torch.autograd.grad(logits[:, 3].sum(), x)[0]))
        for handle in handles:
            handle.remove()
        for a, b in zip(*results):
            error = ((a - b).norm() / a.norm()).item()
            assert error < 1e-12, (model, rule, error)
    print(f"{model}: names, shapes, logits and maps of the three rules as torchvision {torchvision.__version__}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    makers = {"noise": make_noise, "ops": make_ops, "layers": make_layers, "lenet": make_lenet,
              "state_dicts": make_state_dicts, "cams": make_cams}
    names = [*(name for name in makers if name != "cams"), *MODELS, "cams"]  # cams read the networks' files
    parser.add_argument("--only", nargs="+", default=names, metavar="NAME")
    parser.add_argument("--check-torchvision", action="store_true", help="compare with torchvision, write nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    philox.self_check()
    for name in args.only:
        if args.check_torchvision:
            if name in TORCHVISION:
                check_torchvision(name)
        elif name in makers:
            makers[name](args.out)
        else:
            make_random(name, args.out)


if __name__ == "__main__":
    main()
