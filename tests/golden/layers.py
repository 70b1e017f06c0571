"""Small cases of the layers beside ops.py's, computed by PyTorch in float64; resize modes that PyTorch lacks by the
reference evaluator of the onnx package (forward only). Parameters are called as the fields of the op's struct in
kernels/*.h. Data is exact in float32."""

import numpy as np
import torch
import torch.nn.functional as F

from ops import Cases


def both_directions(cases, name, op, params, shape, forward, **tensors):
    x = cases.data(shape).requires_grad_()
    y = forward(x)
    dy, dx = cases.differentiate(y, x, False)
    cases.add(name, op, params, x=x, y=y, dy=dy, dx=dx, **tensors)


def exact(value):
    """What the kernel is given: a float32."""
    return float(np.float32(value))


def resize(cases, name, shape, mode, coordinates, rounding="floor", size=(0, 0), scale=(1, 1), **torch_options):
    scale = tuple(exact(s) for s in scale)
    params = dict(mode=mode, coordinates=coordinates, rounding=rounding, out_h=size[0], out_w=size[1], scale_h=scale[0],
                  scale_w=scale[1])
    how = dict(size=size) if size[0] else dict(scale_factor=scale)
    both_directions(cases, name, "resize", params, shape, lambda x: F.interpolate(x, mode=mode, **how, **torch_options))


def resize_cases(cases):
    nearest = dict(mode="nearest", coordinates="asymmetric")
    resize(cases, "nearest_x2", (1, 3, 4, 5), **nearest, scale=(2, 2))
    resize(cases, "nearest_by_1.75_0.6", (1, 2, 6, 10), **nearest, scale=(1.75, 0.6))
    resize(cases, "nearest_to_9x4", (2, 3, 4, 7), **nearest, size=(9, 4))
    middle = dict(mode="nearest", coordinates="half_pixel", rounding="round_prefer_ceil")
    for tag, shape, size in (("up", (1, 2, 4, 5), (11, 10)), ("down", (1, 3, 9, 8), (4, 3))):
        params = dict(**middle, out_h=size[0], out_w=size[1], scale_h=1.0, scale_w=1.0)
        both_directions(cases, f"nearest_exact_{tag}", "resize", params, shape,
                        lambda x: F.interpolate(x, size=size, mode="nearest-exact"))
    for coordinates, tag in (("half_pixel", ""), ("align_corners", "_aligned")):
        bilinear = dict(mode="bilinear", coordinates=coordinates, align_corners=coordinates == "align_corners")
        resize(cases, "bilinear_x2" + tag, (2, 3, 4, 5), **bilinear, scale=(2, 2))
        resize(cases, "bilinear_down" + tag, (1, 33, 9, 7), **bilinear, size=(4, 3))
        resize(cases, "bilinear_to_17x1" + tag, (1, 4, 5, 4), **bilinear, size=(17, 1))
    resize(cases, "bilinear_by_1.7_1.3", (1, 2, 7, 6), mode="bilinear", coordinates="half_pixel", align_corners=False,
           scale=(1.7, 1.3))


def onnx_resize(x, mode, coordinates, rounding, size, scale):
    """One Resize node, evaluated in float64 by onnx.reference."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    by_size = size[0] > 0
    node = helper.make_node("Resize", ["x", "", "" if by_size else "scales"] + (["sizes"] if by_size else []), ["y"],
                            mode="linear" if mode == "bilinear" else mode, coordinate_transformation_mode=coordinates,
                            nearest_mode=rounding)
    extra = (helper.make_tensor("sizes", TensorProto.INT64, [4], [*x.shape[:2], *size]) if by_size else
             helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, *scale]))
    graph = helper.make_graph([node], "resize", [helper.make_tensor_value_info("x", TensorProto.DOUBLE, x.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)], [extra])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    return torch.from_numpy(ReferenceEvaluator(model).run(None, {"x": x.numpy()})[0])


def onnx_resize_cases(cases):
    places = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    rows = [("nearest", c, r) for c in places for r in ("floor", "round_prefer_floor", "round_prefer_ceil", "ceil")]
    rows += [("bilinear", c, "floor") for c in places]
    for mode, coordinates, rounding in rows:
        for tag, shape, size, scale in (("up", (1, 1, 3, 4), (10, 7), (1, 1)),
                                        ("half", (1, 1, 6, 8), (0, 0), (0.5, 0.25)),
                                        ("one", (1, 1, 4, 5), (1, 3), (1, 1))):
            x = cases.data(shape)
            y = onnx_resize(x, mode, coordinates, rounding, size, scale)
            params = dict(mode=mode, coordinates=coordinates, rounding=rounding, out_h=size[0], out_w=size[1],
                          scale_h=scale[0], scale_w=scale[1])
            how = f"{coordinates}_{rounding}" if mode == "nearest" else coordinates
            cases.add(f"onnx_{mode}_{how}_{tag}", "resize", params, x=x, y=y)


def pad_cases(cases):
    for name, shape, mode, pads, value in (
            ("pad_zero", (2, 3, 4, 5), "constant", (1, 2, 3, 0), 0.0),
            ("pad_value", (1, 5, 3, 3), "constant", (2, 0, 1, 1), -1.5),
            ("pad_cuts", (1, 3, 5, 6), "constant", (-1, 2, 1, -2), 0.25),
            ("pad_reflect", (1, 4, 4, 5), "reflect", (3, 1, 2, 4), 0.0),
            ("pad_edge", (2, 3, 3, 2), "edge", (2, 4, 0, 1), 0.0)):
        top, left, bottom, right = pads
        params = dict(top=top, left=left, bottom=bottom, right=right, mode=mode, value=value)
        torch_mode = "replicate" if mode == "edge" else mode
        options = dict(value=value) if mode == "constant" else {}
        both_directions(cases, name, "pad", params, shape,
                        lambda x: F.pad(x, (left, right, top, bottom), mode=torch_mode, **options))


def conv_transpose(cases, name, shape, out_channels, kernel, stride=(1, 1), pad=(0, 0), output_pad=(0, 0),
                   dilation=(1, 1), groups=1, bias=True):
    w = cases.data((shape[1], out_channels // groups, *kernel))
    b = cases.data((out_channels,)) if bias else None
    params = dict(in_channels=shape[1], out_channels=out_channels, kernel_h=kernel[0], kernel_w=kernel[1],
                  stride_h=stride[0], stride_w=stride[1], pad_top=pad[0], pad_left=pad[1], pad_bottom=pad[0],
                  pad_right=pad[1], output_pad_h=output_pad[0], output_pad_w=output_pad[1], dilation_h=dilation[0],
                  dilation_w=dilation[1], groups=groups, has_bias=bias)
    both_directions(cases, name, "conv_transpose2d", params, shape,
                    lambda x: F.conv_transpose2d(x, w, b, stride, pad, output_pad, groups, dilation), w=w, b=b)


def conv_transpose_cases(cases):
    conv_transpose(cases, "transpose_k2_s2", (1, 5, 3, 4), 6, (2, 2), (2, 2), bias=False)
    conv_transpose(cases, "transpose_k3_s2_op1", (2, 4, 4, 3), 5, (3, 3), (2, 2), (1, 1), (1, 1))
    conv_transpose(cases, "transpose_k4_s2_p1", (1, 3, 4, 5), 33, (4, 4), (2, 2), (1, 1))
    conv_transpose(cases, "transpose_groups", (1, 6, 4, 4), 4, (3, 3), (2, 2), (1, 1), (0, 0), groups=2)
    conv_transpose(cases, "transpose_one_group_each", (1, 4, 3, 3), 4, (8, 8), (4, 4), (2, 2), groups=4, bias=False)
    conv_transpose(cases, "transpose_dilated", (1, 3, 4, 5), 4, (3, 3), (1, 1), (2, 2), dilation=(2, 2))
    conv_transpose(cases, "transpose_uneven", (1, 4, 4, 3), 6, (3, 2), (2, 3), (1, 0), (1, 2), (1, 2), groups=2)


def activation_cases(cases):
    smooth = dict(sigmoid=torch.sigmoid, tanh=torch.tanh, hardswish=F.hardswish, silu=F.silu)
    for name, function in smooth.items():
        x = (cases.data((2, 5, 4, 3)) * 3).float().double().requires_grad_()
        y = function(x)
        dy, dx = cases.differentiate(y, x, False)
        cases.add(name, "smooth", dict(function=name), x=x, y=y, dy=dy, dx=dx)
    slope = exact(0.1)
    both_directions(cases, "leaky_relu", "slope", dict(slope=slope), (2, 5, 3, 4), lambda x: F.leaky_relu(x, slope))
    slopes = cases.data((7,))
    both_directions(cases, "prelu", "slope", {}, (2, 7, 3, 2), lambda x: F.prelu(x, slopes), w=slopes)
    both_directions(cases, "hardtanh", "ramp", dict(scale=1.0, shift=0.0, min=-0.5, max=0.75), (2, 33, 3, 2),
                    lambda x: F.hardtanh(x, -0.5, 0.75))
    alpha, beta = exact(0.2), exact(0.5)  # ONNX's HardSigmoid
    both_directions(cases, "hardsigmoid_onnx", "ramp", dict(scale=alpha, shift=beta, min=0.0, max=1.0), (2, 5, 3, 4),
                    lambda x: (alpha * x + beta).clamp(0, 1))


def binary_cases(cases):
    functions = dict(add=torch.add, sub=torch.sub, mul=torch.mul, div=torch.div)
    for function, call in functions.items():
        for tag, a_shape, b_shape in (("same", (2, 5, 3, 4), (2, 5, 3, 4)), ("excite", (2, 33, 3, 2), (2, 33, 1, 1)),
                                      ("map", (1, 1, 3, 4), (1, 6, 3, 4))):
            a = cases.data(a_shape).requires_grad_()
            b = cases.data(b_shape)
            b = (b + torch.sign(b)).float().double().requires_grad_()
            y = call(a, b)
            dy = cases.data(y.shape)
            da, db = torch.autograd.grad(y, (a, b), dy)
            cases.add(f"{function}_{tag}", "binary", dict(function=function), x=a, b=b, y=y, dy=dy, dx=da, db=db)


def movement_cases(cases):
    both_directions(cases, "slice_steps", "slice", dict(c=[1, 9, 3], h=[0, 5, 2], w=[-3, 100, 1]), (1, 9, 5, 4),
                    lambda x: x[:, 1:9:3, 0:5:2, -3:100])
    both_directions(cases, "channel_shuffle", "channel_shuffle", dict(groups=3), (1, 12, 2, 3),
                    lambda x: x.view(1, 3, 4, 2, 3).transpose(1, 2).reshape(1, 12, 2, 3))
    both_directions(cases, "reshape", "reshape", dict(c=4, h=-1, w=6), (2, 8, 3, 4), lambda x: x.reshape(2, 4, -1, 6))
    both_directions(cases, "permute", "permute", dict(axes=[2, 3, 1]), (2, 5, 3, 4), lambda x: x.permute(0, 2, 3, 1))
    for name, axes in (("mean_hw", (2, 3)), ("mean_c", (1,)), ("mean_all", (1, 2, 3))):
        params = dict(c=1 in axes, h=2 in axes, w=3 in axes, mean=True)
        both_directions(cases, name, "reduce", params, (2, 35, 4, 3), lambda x: x.mean(axes, keepdim=True))
    both_directions(cases, "sum_w", "reduce", dict(c=False, h=False, w=True, mean=False), (2, 5, 4, 7),
                    lambda x: x.sum(3, keepdim=True))


def gelu_cases(cases):
    for name, approximate in (("gelu", "none"), ("gelu_tanh", "tanh")):
        # Below -5 PyTorch's 1 + erf and 1 + tanh cancel: its own values have few digits there.
        x = (cases.data((2, 5, 4, 3)) * 3).clamp(min=-5).float().double().requires_grad_()
        y = F.gelu(x, approximate=approximate)
        dy, dx = cases.differentiate(y, x, False)
        cases.add(name, "smooth", dict(function=name), x=x, y=y, dy=dy, dx=dx)


def set_norm(cases, name, shape, channels, places, by_place, by_channel, call, affine_shape):
    w = cases.data(affine_shape) if affine_shape else None
    b = cases.data(affine_shape) if affine_shape else None
    x = cases.data(shape).requires_grad_()
    y = call(x, w, b)
    dy, dx = cases.differentiate(y, x, False)
    tensors = {} if w is None else {k: (v.permute(1, 2, 0) if v.dim() == 3 else v).reshape(-1) for k, v in dict(w=w, b=b).items()}
    cases.add(name, "set_norm", dict(channels=channels, places=places, by_place=by_place, by_channel=by_channel, eps=exact(1e-5)),
              x=x, y=y, dy=dy, dx=dx, **tensors)


def set_norm_cases(cases):
    eps = exact(1e-5)
    over_channels = lambda x, w, b: F.layer_norm(x.permute(0, 2, 3, 1), w.shape, w, b, eps).permute(0, 3, 1, 2)  # noqa: E731
    over_last = lambda x, w, b: F.layer_norm(x, w.shape, w, b, eps)  # noqa: E731
    set_norm(cases, "layer_norm_channels", (2, 40, 2, 3), 40, 1, 0, 1, over_channels, (40,))
    set_norm(cases, "layer_norm_w", (2, 5, 3, 7), 1, 7, 1, 0, over_last, (7,))
    set_norm(cases, "layer_norm_hw", (2, 5, 3, 4), 1, 12, 1, 0, over_last, (3, 4))
    set_norm(cases, "layer_norm_chw", (2, 6, 3, 4), 6, 12, 6, 1, over_last, (6, 3, 4))
    set_norm(cases, "group_norm", (2, 12, 3, 4), 4, 12, 0, 1, lambda x, w, b: F.group_norm(x, 3, w, b, eps), (12,))
    set_norm(cases, "instance_norm", (2, 9, 4, 3), 1, 12, 0, 1, lambda x, w, b: F.instance_norm(x, eps=eps), None)


def golden_layers():
    """(tensors, list of cases)."""
    cases = Cases(2018)
    resize_cases(cases)
    onnx_resize_cases(cases)
    pad_cases(cases)
    conv_transpose_cases(cases)
    activation_cases(cases)
    binary_cases(cases)
    movement_cases(cases)
    gelu_cases(cases)
    set_norm_cases(cases)
    return cases.tensors, cases.list
