"""Class activation maps in float64, of the networks and inputs whose golden files are already there. Tensors are
MODEL.cam (exact CAM) and MODEL.SCORE.METHOD.LAYER (gradcam, gradcam++), [N,T,h,w] with T = targets, the same classes of
all images; MODEL.guided-gradcam [1,1,C,H,W] of the first image's and target's logit at the first layer below."""

import itertools
import json

import numpy as np
import torch
import torch.nn.functional as F

import networks

# golden file: layers; the first is the default one, the last convolutional map.
LAYERS = {
    "resnet18": ["layer4.1.relu_1", "layer3.0.add", "layer2.1.conv1", "maxpool"],
    "vgg11": ["features.19", "features.8", "features.9"],
    "lenet_noisy": ["relu2", "conv2", "relu1"],
}


def scores(logits, target):
    """name -> score of one class, [N]."""
    log_p = F.log_softmax(logits, 1)[:, target]
    return {"logit": logits[:, target], "probability": log_p.exp(), "nll": -log_p}


def gradcam(a, g):
    """Selvaraju et al. 2017, eq. 1 and 2."""
    return F.relu((g.mean((2, 3), keepdim=True) * a).sum(1))


def gradcam_plus_plus(a, g):
    """Chattopadhay et al. 2018, for Y = exp(S) and without the common factor exp(S)."""
    below = 2 * g**2 + a.sum((2, 3), keepdim=True) * g**3
    alpha = torch.where(g == 0, torch.zeros_like(g), g**2 / torch.where(g == 0, torch.ones_like(g), below))
    weights = (alpha * F.relu(g)).sum((2, 3), keepdim=True)
    return F.relu((weights * a).sum(1))


METHODS = {"gradcam": gradcam, "gradcam++": gradcam_plus_plus}


def maps_of(net, parameters, x, targets, layers, facts):
    """name (without the model's) -> map."""
    x = x.clone().requires_grad_()
    values = networks.run(net, parameters, x, "gradient")
    maps = {}
    for layer in layers:
        for target in targets:
            for score, s in scores(values[net.last], target).items():
                g = torch.autograd.grad(s.sum(), values[layer], retain_graph=True)[0]
                for method, function in METHODS.items():
                    if method == "gradcam++" and values[layer].min() < 0:
                        continue  # its denominators may vanish there, so that no precision suffices
                    maps.setdefault(f"{score}.{method}.{layer}", []).append(function(values[layer], g))
    guided = networks.run(net, parameters, x, "guided")[net.last][0, targets[0]]
    back = torch.autograd.grad(guided, x)[0][:1]
    cam = maps[f"logit.gradcam.{layers[0]}"][0][:1, None]
    maps["guided-gradcam"] = [back * F.interpolate(cam, x.shape[2:], mode="bilinear", align_corners=False)]
    if facts["model"] in networks.RESNET:
        for target in targets:
            row = parameters[f"{net.last}.weight"][target][None, :, None, None]
            maps.setdefault("cam", []).append((row * values[layers[0]]).sum(1))
    return {name: torch.stack(per_target, 1).detach() for name, per_target in maps.items()}


def filled(maps):
    """Names of the maps of which no image and target is all zero: Grad-CAM's ReLU may leave nothing."""
    return {name for name, m in maps.items() if (m.flatten(2).abs().amax(2) > 0).all()}


def choose_targets(maps_for):
    """The two classes with the most maps to compare."""
    names = {target: filled(maps_for([target])) for target in range(10)}
    return max(itertools.combinations(names, 2), key=lambda pair: len(names[pair[0]] & names[pair[1]]))


def golden_cams(golden_file, parameters_of):
    """golden_file: model -> (tensors, metadata) of its file; parameters_of: (net, facts) -> float64 parameters."""
    tensors, about = {}, {}
    for model, layers in LAYERS.items():
        arrays, metadata = golden_file(model)
        facts = json.loads(metadata["golden"])
        net = networks.build(facts["model"], facts["divide_channels"], facts["classes"])
        parameters = parameters_of(net, facts)
        x = torch.from_numpy(arrays["input"].astype(np.float64))

        def maps_for(targets):
            return maps_of(net, parameters, x, targets, layers, facts)

        targets = choose_targets(maps_for)
        maps = maps_for(targets)
        about[model] = dict(targets=targets, layers=layers)
        tensors.update({f"{model}.{name}": maps[name].numpy().astype(np.float32) for name in sorted(filled(maps))})
    for kind in ["cam", "guided-gradcam"] + [f"{s}.{m}" for s in ("logit", "probability", "nll") for m in METHODS]:
        assert any(f".{kind}" in name for name in tensors), kind
    return tensors, about
