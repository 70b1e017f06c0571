#!/usr/bin/env python3
"""More small ONNX models beside those of make_onnx.py, for onnx_more_test.cpp.

    tests/golden/make_onnx_more.py        writes onnx_more.safetensors beside itself; needs what make_onnx.py needs

What matrices do along axes, comparisons and choices, the operator Attention, files of opset 6, networks without a layer, the
shapes of outputs and of fixed batches, operators of any shapes. The same keys. heads.model has two outputs, heads.y and heads.sex; inputs.model further inputs with the values inputs.other and
inputs.about."""

import numpy as np
import torch
from onnx import TensorProto, helper
from safetensors.numpy import save_file

import make_onnx
from make_onnx import HERE, MAP, Graph, case, data, found, ints, keep, one, refused


def matrices():
    def flipped(*axes):
        return lambda g: g.node("Slice", "x", ints(*[-1] * len(axes)), ints(*[-99] * len(axes)), ints(*axes), ints(*[-1] * len(axes)))
    for name, axes in (("channels", (1,)), ("rows", (2,)), ("columns", (3,)), ("both", (2, 3))):
        case(f"flip_{name}", MAP, flipped(*axes))
    case("flip_features", (3, 8), flipped(1))
    case("flip_by_two", MAP, lambda g: g.node("Slice", "x", ints(5), ints(0), ints(2), ints(-2)))
    case("flip_tokens", MAP, lambda g: g.node("Slice", g.node("Transpose", g.node("Reshape", "x", ints(0, 4, -1)), perm=[0, 2, 1]),
                                              ints(-1), ints(-99), ints(1), ints(-1)))
    for axis in (1, 2, 3):
        case(f"gather_any_{axis}", MAP, lambda g: g.node("Gather", "x", ints(3, 0, 3, -2), axis=axis))
    one("tile", MAP, "Tile", ints(1, 2, 1, 3))
    for name, more in (("", {}), ("_exclusive", {"exclusive": 1}), ("_reverse", {"reverse": 1})):
        one(f"cumsum{name}", MAP, "CumSum", np.int64(2), **more)
    x, grid = data(2, 3, 5, 4), data(1, 3, 6, 2, scale=1.4)
    for mode, name in (("nearest", "nearest"), ("linear", "bilinear"), ("cubic", "bicubic")):
        for padding in ("zeros", "border", "reflection"):
            for corners in (0, 1):
                y = torch.nn.functional.grid_sample(torch.from_numpy(x).double(), torch.from_numpy(grid).double().expand(2, -1, -1, -1),
                                                    name, padding, bool(corners))
                case(f"grid_{mode}_{padding}_{corners}", (2, 3, 5, 4), lambda g: g.node(
                     "GridSample", "x", grid, mode=mode, padding_mode=padding, align_corners=corners), 20, x=x, y=y.numpy())
    refused("grid_of_images", (2, 3, 5, 4), lambda g: g.node("GridSample", "x", data(2, 3, 6, 2), mode="linear"), 20)
    refused("flip_batch", MAP, lambda g: g.node("Slice", "x", ints(-1), ints(-99), ints(0), ints(-1)))


def choices():
    half = np.float32(0.25)
    for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"):
        case(f"where_{op.lower()}", MAP, lambda g: g.node("Where", g.node(op, "x", half), g.node("Mul", "x", np.float32(3)), data(4, 1, 1)), 16)
    case("where_of_data", MAP, lambda g: g.node("Where", g.node("Less", "x", g.node("Neg", "x")), g.node("Exp", "x"), "x"), 16)
    case("where_mask", MAP, lambda g: g.node("Where", data(7, 6) > 0, "x", np.float32(-100)), 16)
    case("where_logic", MAP, lambda g: g.node("Where", g.node("Or", g.node("Not", g.node("Greater", "x", half)), g.node(
         "And", g.node("Less", "x", np.float32(0.5)), g.node("Greater", "x", half))), "x", np.float32(0)), 16)
    one("thresholded_relu", MAP, "ThresholdedRelu", opset=10, alpha=0.25)
    one("prelu_everywhere", MAP, "PRelu", data(4, 7, 6))
    one("prelu_columns", MAP, "PRelu", data(6))
    x = data(*MAP)  # the evaluator forgets the absolute values
    case("lp_norm_1", MAP, lambda g: g.node("LpNormalization", "x", axis=1, p=1), x=x, y=x / np.abs(x.astype(np.float64)).sum(1, keepdims=True))
    one("sum_of_nothing", MAP, "ReduceSum", noop_with_empty_axes=1)
    for policy in ("not_larger", "not_smaller"):
        x = data(1, 4, 8, 6)
        side = {"not_larger": (4, 3), "not_smaller": (8, 6)}[policy]
        y = x[:, :, ::2, ::2] if policy == "not_larger" else x
        case(f"resize_{policy}", (1, 4, 8, 6), lambda g: g.node("Resize", "x", "", "", ints(1, 4, 4, 6) if policy == "not_larger" else ints(
             1, 4, 8, 3), mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric",
             keep_aspect_ratio_policy=policy), 18, x=x, y=y)
        assert y.shape[2:] == side


def attention():
    keys = lambda g: g.node("Mul", "x", data(4, 7, 6))
    values = lambda g: g.node("Relu", "x")
    mask, some = data(7, 7), np.tril(np.ones((7, 7), bool))
    for name, inputs, more in (("plain", (), {}), ("mask", (mask,), {}), ("mask_heads", (data(4, 7, 7),), {}), ("mask_bool", (some,), {}),
                               ("mask_short", (data(7, 5),), {}),
                               ("causal", (), {"is_causal": 1}), ("causal_mask", (mask,), {"is_causal": 1}), ("scaled", (), {"scale": 0.3}),
                               ("capped", (mask,), {"softcap": 1.5})):
        case(f"attention_{name}", MAP, lambda g: g.node("Attention", "x", keys(g), values(g), *inputs, **more), 24)
    half = lambda g, t: g.node("Slice", t, ints(0), ints(2), ints(1))
    case("attention_shared", MAP, lambda g: g.node("Attention", "x", half(g, keys(g)), half(g, values(g)), mask), 24)
    case("attention_shared_capped", MAP, lambda g: g.node("Attention", "x", half(g, keys(g)), half(g, values(g)), mask, softcap=2.0), 24)
    case("attention_masked_row", MAP, lambda g: g.node("Attention", "x", keys(g), values(g), np.arange(7)[:, None] + np.zeros((7, 7)) > 1.5), 24)
    flat = lambda g, t: g.node("Reshape", t, ints(0, 14, 12))
    case("attention_flat", MAP, lambda g: g.node("Attention", flat(g, "x"), flat(g, keys(g)), flat(g, values(g)), q_num_heads=3,
                                                 kv_num_heads=3), 24)
    case("attention_flat_shared", MAP, lambda g: g.node(
         "Attention", flat(g, "x"), g.node("Slice", flat(g, keys(g)), ints(0), ints(4), ints(2)), g.node(
             "Slice", flat(g, values(g)), ints(0), ints(4), ints(2)), q_num_heads=3, kv_num_heads=1), 24)
    case("attention_of_constants", MAP, lambda g: g.node("Attention", "x", data(1, 4, 5, 6), data(1, 4, 5, 3)), 24)
    case("attention_past", MAP, lambda g: g.node("Attention", "x", data(1, 4, 5, 6), data(1, 4, 5, 3), "", data(1, 4, 2, 6), data(1, 4, 2, 3),
                                                 is_causal=1), 24)
    case("product_with_constants", MAP, lambda g: g.node("MatMul", "x", data(1, 4, 6, 5)))
    case("product_with_vector", MAP, lambda g: g.node("MatMul", "x", data(6)))


def early_opsets():
    x, weight, by, bias = data(2, 4, 7, 6), data(5, 4, 1, 1), data(5), data(5)
    y = np.maximum(np.einsum("nchw,oc->nohw", x.astype(np.float64), weight[:, :, 0, 0]), 0) * by[:, None, None] + bias[:, None, None]

    def by_axis(g):
        conv = g.node("Relu", g.node("Conv", "x", weight), consumed_inputs=[0])
        return g.node("Add", g.node("Mul", conv, by, axis=1, broadcast=1), bias, axis=1, broadcast=1)
    case("opset_5_axes", MAP, by_axis, 5, x=x, y=y)
    scale, mean, var = data(4), data(4), np.abs(data(4)) + np.float32(0.5)
    normal = (x - mean[:, None, None]) / np.sqrt(var.astype(np.float64) + 1e-5)[:, None, None] * scale[:, None, None] + by[:4, None, None]
    case("opset_6_norm", MAP, lambda g: g.node("BatchNormalization", "x", scale, by[:4], mean, var, is_test=1), 6, x=x, y=normal)
    refused("opset_6_training", MAP, lambda g: g.node("BatchNormalization", "x", scale, by[:4], mean, var), 6)
    slope = data(4)
    case("opset_6_prelu", MAP, lambda g: g.node("PRelu", "x", slope), 6, x=x, y=np.where(x < 0, x * slope[:, None, None], x))


def without_layers():
    case("nothing_identity", MAP, lambda g: g.node("Identity", "x"))
    case("nothing_reshape", MAP, lambda g: g.node("Reshape", "x", ints(0, 2, -1, 3)))
    case("nothing_flatten", MAP, lambda g: g.node("Flatten", "x"))
    case("nothing_unsqueeze", (3, 8), lambda g: g.node("Unsqueeze", "x", ints(2)))


def shapes():
    """What random graphs found: ends whose nodes are grouped otherwise than the file says, batches of one that stay fixed."""
    tokens = lambda g: g.node("Transpose", g.node("Reshape", "x", ints(0, 4, -1)), perm=[0, 2, 1])
    one_image = (1, 4, 7, 6)
    case("ends_in_one_column", MAP, lambda g: g.node("ReduceMin", "x", axes=[3], keepdims=1))
    case("ends_in_one_channel", MAP, lambda g: g.node("MatMul", tokens(g), data(4, 1)))
    case("ends_in_one_row", MAP, lambda g: g.node("Transpose", g.node("ReduceMax", tokens(g), axes=[2], keepdims=1), perm=[0, 2, 1]))
    case("ends_in_sigmoid_of_tokens", MAP, lambda g: g.node("Sigmoid", g.node("MatMul", tokens(g), data(4, 3))))
    case("reshape_of_one", one_image, lambda g: g.node("Reshape", "x", ints(1, -1)), batch=1)
    case("reshape_of_one_fixed", one_image, lambda g: g.node("Reshape", "x", ints(1, 168)), batch=1)
    case("reshape_of_one_open", one_image, lambda g: g.node("Reshape", "x", ints(-1, 1, 168)), batch=1)
    case("reshape_of_one_gemm", one_image, lambda g: g.node("Gemm", g.node("Reshape", g.node("GlobalAveragePool", "x"), ints(1, -1)), data(4, 3)),
         batch=1)
    # Features that a constant spreads over places: [24] and then [24,1,2].
    case("spread_features", (1, 1, 6, 4), lambda g: g.node("LayerNormalization", g.node("Expand", g.node("Reshape", g.node(
         "Reshape", "x", ints(0, 24)), ints(1, 1, 6, 4)), ints(1, 2, 1, 1)), data(2, 6, 4), data(2, 6, 4), axis=1), 17, batch=1)


    # One channel, which is read as a map first, and then again as what it was.
    def both_ways(g):
        column = g.node("MatMul", "x", data(6, 1))
        pooled = g.node("MaxPool", column, kernel_shape=[2, 1], pads=[1, 0, 0, 0])
        return g.node("Sub", g.node("Mul", column, data(4, 7, 1)), pooled)
    case("read_both_ways", MAP, both_ways)


def any_shapes():
    for op in ("Max", "Min"):
        case(f"{op.lower()}_three", MAP, lambda g: g.node(op, "x", g.node("Neg", "x"), data(4, 1, 1)))
        case(f"{op.lower()}_one", MAP, lambda g: g.node("Relu", g.node(op, "x")))
        case(f"{op.lower()}_columns", MAP, lambda g: g.node(op, data(6), "x"))
        limits = np.where(data(7, 6) > 0, np.float32(-np.inf if op == "Max" else np.inf), data(7, 6))
        case(f"{op.lower()}_nowhere", MAP, lambda g: g.node(op, "x", limits))
    case("sum_broadcast", MAP, lambda g: g.node("Sum", "x", data(4, 1, 1), g.node("GlobalAveragePool", "x")))
    case("mean_broadcast", MAP, lambda g: g.node("Mean", "x", g.node("GlobalAveragePool", "x"), "x"))
    case("pow_of_number", MAP, lambda g: g.node("Pow", np.abs(data(4, 1, 1)) + np.float32(0.5), "x"))
    case("pow_spread", MAP, lambda g: g.node("Pow", g.node("GlobalAveragePool", "x"), np.full((7, 6), 3, np.float32)))
    case("softsign", MAP, lambda g: g.node("Softsign", "x"))
    x = data(*MAP)
    case("swish", MAP, lambda g: g.node("Swish", "x", alpha=1.5), 24, x=x, y=x / (1 + np.exp(-1.5 * x.astype(np.float64))))
    one("lp_pool_2", MAP, "LpPool", kernel_shape=[2, 3], strides=[2, 1], pads=[1, 0, 0, 2], opset=18)
    case("lp_pool_1", MAP, lambda g: g.node("LpPool", "x", kernel_shape=[2, 2], p=1), 18, x=x, y=4 * torch.nn.functional.avg_pool2d(
         torch.from_numpy(np.abs(x)).double(), 2, 1).numpy())
    case("gather_table", MAP, lambda g: g.node("Reshape", g.node("Gather", "x", ints([0, 3], [2, -1]), axis=1), ints(0, 4, 7, 6)))
    case("gather_table_columns", MAP, lambda g: g.node("Reshape", g.node("Gather", "x", ints([5, 3, 0]), axis=3), ints(0, 4, 7, 3)))
    case("product_from_left", MAP, lambda g: g.node("MatMul", data(5, 7), "x"))
    case("product_from_left_each", MAP, lambda g: g.node("MatMul", data(1, 5, 7), "x"))
    for mode in ("reflect", "edge", "wrap"):
        case(f"pad_{mode}_channels", MAP, lambda g: g.node("Pad", "x", ints(0, 2, 0, 3, 0, 1, 2, 0), mode=mode), 19, x=x,
             y=np.pad(x, ((0, 0), (2, 1), (0, 2), (3, 0)), mode=mode))
    signal, vector = data(2, 4, 9), data(3, 8)
    case("pad_signal", (2, 4, 9), lambda g: g.node("Pad", "x", ints(0, 0, 2, 0, 1, 1), np.float32(1.5)), x=signal,
         y=np.pad(signal, ((0, 0), (0, 1), (2, 1)), constant_values=1.5))
    case("pad_features", (3, 8), lambda g: g.node("Pad", "x", ints(0, 2, 0, -1)), x=vector, y=np.pad(vector, ((0, 0), (2, 0)))[:, :-1])
    weight, bias = data(4, 3, 3), data(3)
    y = torch.nn.functional.conv_transpose1d(torch.from_numpy(signal).double(), torch.from_numpy(weight).double(),
                                             torch.from_numpy(bias).double(), 2, 1, 1)
    case("transposed_signal", (2, 4, 9), lambda g: g.node("ConvTranspose", "x", weight, bias, strides=[2], pads=[1, 1], output_padding=[1]),
         x=signal, y=y.numpy())


def quantised():
    weights, steps, zero = np.round(data(5, 4, 3, 3) * 100).astype(np.int8), np.abs(data(5)) * np.float32(0.02), np.arange(-2, 3).astype(np.int8)
    dequantised = (weights.astype(np.float64) - zero.reshape(5, 1, 1, 1)) * steps.reshape(5, 1, 1, 1)
    def conv(w):
        return lambda x: torch.nn.functional.conv2d(torch.from_numpy(x).double(), torch.from_numpy(w)).numpy()
    x = data(*MAP)
    case("dequantised_channels", MAP, lambda g: g.node("Conv", "x", g.node("DequantizeLinear", weights, steps, zero, axis=0)), x=x,
         y=conv(dequantised)(x))
    case("dequantised_whole", MAP, lambda g: g.node("Conv", "x", g.node("DequantizeLinear", weights, np.float32(0.02))), x=x,
         y=conv(weights * 0.02)(x))
    blocks = np.abs(data(5, 2, 3, 3)) * np.float32(0.02)
    case("dequantised_blocks", MAP, lambda g: g.node("Conv", "x", g.node("DequantizeLinear", weights, blocks, axis=1, block_size=2)), 21, x=x,
         y=conv(weights * np.repeat(blocks, 2, 1).astype(np.float64))(x))
    floats = data(5, 4, 3, 3)
    for name, kind, low, high in (("int8", np.int8, -128, 127), ("uint8", np.uint8, 0, 255)):
        zeros = (np.arange(5) + (0 if kind == np.int8 else 120)).astype(kind)
        fine = np.float32([0.004, 0.01, 0.02, 0.005, 0.3])  # some too small for the range
        whole = np.clip(np.round(floats / fine.reshape(5, 1, 1, 1)) + zeros.reshape(5, 1, 1, 1), low, high)
        back = (whole - zeros.reshape(5, 1, 1, 1)).astype(np.float64) * fine.reshape(5, 1, 1, 1)
        case(f"quantised_{name}", MAP, lambda g: g.node("Conv", "x", g.node("DequantizeLinear", g.node("QuantizeLinear", floats, fine, zeros,
             axis=0), fine, zeros, axis=0)), x=x, y=conv(back)(x))
    refused("quantised_data", MAP, lambda g: g.node("DequantizeLinear", g.node("QuantizeLinear", "x", np.float32(0.1), np.int8(0)),
            np.float32(0.1), np.int8(0)))
    case("triangle", MAP, lambda g: g.node("MatMul", "x", g.node("Trilu", data(6, 6), upper=0)), 14)
    case("triangle_of_data", MAP, lambda g: g.node("Trilu", "x", np.int64(1)), 14)
    refused("number_of_images", (None, 4, 7, 6), lambda g: g.node("Div", "x", g.node("Cast", g.node("Size", "x"), to=TensorProto.FLOAT)))
    x = np.where(data(*MAP) > 0, data(*MAP), np.float32(0))
    case("cast_to_bool", MAP, lambda g: g.node("Where", g.node("Cast", "x", to=TensorProto.BOOL), "x", np.float32(2.5)), x=x,
         y=np.where(x != 0, x, 2.5))
    # What exporters write of a mask that may take away whole rows.
    def masked(mask):
        def build(g):
            soft = g.node("Softmax", g.node("Add", g.node("MatMul", "x", g.node("Transpose", "x", perm=[0, 1, 3, 2])), mask), axis=-1)
            return g.node("MatMul", g.node("Where", g.node("IsNaN", soft), np.float32(0), soft), "x")
        return build
    def softmaxed(x, mask):
        t = torch.from_numpy(x).double()
        s = (t @ t.transpose(2, 3) + torch.from_numpy(mask).double()).softmax(-1)
        return (torch.nan_to_num(s, 0.0) @ t).numpy()
    x = data(*MAP)
    for name, rows in (("masked_scores", 0), ("masked_rows", 2)):
        mask = np.where(np.arange(7)[None] > np.arange(7)[:, None] - rows, np.float32(-np.inf), np.float32(0))
        if rows == 0:
            mask[0, 0] = 0
        case(name, MAP, masked(mask), x=x, y=softmaxed(x, mask))
    case("spectral", MAP, lambda g: g.node("Div", "x", g.node("MatMul", data(5), g.node("MatMul", data(5, 3), data(3)))))
    case("product_of_sizes", MAP, lambda g: g.node("Div", "x", g.node("Cast", g.node("ReduceProd", g.node("Gather", g.node("Shape", "x"), ints(2, 3)),
         keepdims=0), to=TensorProto.FLOAT)))
    case("constant_wider", (3, 6), lambda g: g.node("Mul", g.node("Unsqueeze", "x", ints(2)), data(6, 4)))
    case("constant_wider_map", MAP, lambda g: g.node("Sub", data(4, 7, 6), g.node("GlobalAveragePool", "x")))
    case("constant_wider_tokens", MAP, lambda g: g.node("Add", g.node("ReduceMean", g.node("Transpose", g.node("Reshape", "x", ints(0, 4, -1)),
         perm=[0, 2, 1]), axes=[2], keepdims=1), data(5)))
    case("where_everywhere", MAP, lambda g: g.node("Relu", g.node("Where", np.array([True]), "x", np.float32(3))))
    case("where_spread", MAP, lambda g: g.node("Where", np.ones((4, 7, 6), bool), g.node("GlobalAveragePool", "x"), np.float32(3)))
    # [2,N,3,1] to [-1,6]: a row would be of two images.
    refused("rows_of_two_images", (None, 6), lambda g: g.node("Reshape", g.node("Transpose", g.node("Reshape", "x", ints(0, 2, 3, 1)),
            perm=[1, 0, 2, 3]), ints(-1, 6)))
    case("waves", MAP, lambda g: g.node("Add", "x", g.node("Mul", g.node("Sin", data(6)), g.node("Cos", data(7, 1)))))


def exact_choices():
    """What is not chosen may be NaN or infinite, values far apart keep their digits; steps and waves."""
    zero, one_, tiny = np.float32(0), np.float32(1), np.float32(1e-4)
    case("where_log", MAP, lambda g: g.node("Where", g.node("Greater", "x", zero), g.node("Log", "x"), g.node("Neg", "x")), 16)
    case("where_quotient", MAP, lambda g: g.node("Where", g.node("Equal", "x", zero), one_, g.node("Div", one_, "x")), 16)
    case("where_mask_log", MAP, lambda g: g.node("Where", np.arange(6) > 2, "x", g.node("Where", g.node("Less", "x", zero), "x", g.node(
         "Sqrt", "x"))), 16)
    case("trilu_log", (2, 5, 5), lambda g: g.node("Add", "x", g.node("Trilu", g.node("Log", "x"), np.int64(9))), 16)
    for op, sign in (("Max", -1), ("Min", 1)):
        case(f"{op.lower()}_far", MAP, lambda g: g.node(op, g.node("Mul", g.node("Abs", "x"), np.float32(sign * 1e8)), g.node("Mul", "x", tiny)), 16)
        case(f"{op.lower()}_infinite", MAP, lambda g: g.node(op, g.node("Div", np.float32(sign), g.node("Abs", "x")), "x"), 16)
        case(f"{op.lower()}_constants", MAP, lambda g: g.node(op, "x", data(7, 1), data(4, 1, 6)), 16)
    case("where_infinite", MAP, lambda g: g.node("Where", g.node("Equal", g.node("Div", one_, g.node("Abs", "x")), np.float32(np.inf)), one_, "x"), 16)
    case("where_is_nan", MAP, lambda g: g.node("Where", g.node("IsNaN", g.node("Log", "x")), "x", zero), 16)
    case("where_is_inf", MAP, lambda g: g.node("Where", g.node("IsInf", g.node("Log", g.node("Abs", "x")), detect_positive=0), one_, "x"), 16)
    case("where_xor", MAP, lambda g: g.node("Where", g.node("Xor", g.node("Less", "x", zero), g.node("Less", "x", data(6))), "x", zero), 16)
    for op in ("Sin", "Cos", "Floor", "Ceil", "Round", "Sign"):
        case(op.lower(), MAP, lambda g: g.node(op, g.node("Mul", "x", np.float32(3.5))), 16)
    one("shrink", MAP, "Shrink", lambd=0.5, bias=0.25)
    one("shrink_hard", MAP, "Shrink", lambd=0.25)
    for mode in ("nearest", "linear", "cubic"):
        x = data(2, 3, 9)
        y = torch.nn.functional.interpolate(torch.from_numpy(x[:, :, None]).double(), size=(1, 14), mode={"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode))
        case(f"resize_signal_{mode}", (2, 3, 9), lambda g: g.node("Resize", "x", "", "", ints(2, 3, 14), mode=mode, nearest_mode="floor",
             coordinate_transformation_mode="asymmetric" if mode == "nearest" else "half_pixel"), 18, x=x, y=y[:, :, 0].numpy(), batch=2)
    five = lambda g: g.node("Reshape", "x", ints(0, 2, 2, 7, 6))
    four = lambda g, x: g.node("Reshape", x, ints(0, 4, 7, 6))
    case("softmax_of_five", MAP, lambda g: four(g, g.node("Softmax", five(g), axis=2)))
    case("batch_norm_of_five", MAP, lambda g: four(g, g.node("BatchNormalization", five(g), data(2), data(2), data(2), np.abs(data(2)) + 1)), 15)
    case("prelu_of_five", MAP, lambda g: four(g, g.node("PRelu", five(g), data(2, 1, 1, 1))))
    case("mean_of_five", MAP, lambda g: g.node("ReduceMean", five(g), axes=[1, 3], keepdims=0))
    one("max_apart", MAP, "ReduceMax", axes=[1, 3], keepdims=0)
    for name, equation, *shape in (("linear", "bchw,cd->bdhw", 4, 3), ("last", "...j,jk->...k", 6, 5), ("rows", "nchw,hk->nckw", 7, 2),
                                   ("graph", "nctv,cvw->nctw", 4, 6, 3), ("dot", "bchw,chw->b", *MAP[1:]), ("scale", "bchw,c->bhcw", 4),
                                   ("implied", "bchw,wk", 6, 2)):
        one(f"einsum_{name}", MAP, "Einsum", data(*shape), equation=equation)
    case("einsum_first", (3, 8), lambda g: g.node("Einsum", data(5, 8), "x", equation="oi,bi->bo"))
    one("einsum_turned", MAP, "Einsum", equation="b...c->bc...")
    one("einsum_summed", MAP, "Einsum", equation="bchw->bw")
    case("einsum_dots", MAP, lambda g: g.node("Einsum", "x", g.node("Neg", "x"), equation="...qd,...kd->...qk"))
    case("einsum_each", MAP, lambda g: g.node("Einsum", "x", g.node("Neg", "x"), equation="bchw,bchw->bhw"))
    case("attention_past_of_data", (1, 5, 8), lambda g: g.node("Attention", "x", g.node("Neg", "x"), g.node("Abs", "x"), "", data(1, 2, 3, 4), data(1, 2, 3, 4),
         outputs=["y", "keys", "values"], q_num_heads=2, kv_num_heads=2, is_causal=1), 23)
    turned = lambda g, op, back: g.node("Transpose", op(g.node("Transpose", "x", perm=[2, 3, 0, 1])), perm=back)
    case("gather_nd_rows", MAP, lambda g: turned(g, lambda x: g.node("GatherND", x, ints([0], [6], [-2])), [2, 3, 0, 1]), batch=2)
    case("gather_nd_places", MAP, lambda g: turned(g, lambda x: g.node("GatherND", x, ints([0, 1], [6, -1])), [1, 2, 0]), batch=2)
    for name, equation in (("batch", "bchw->chw"), ("images", "bchw,dchw->bd"), ("diagonal", "bchc->bh")):
        refused(f"einsum_{name}", (None, 4, 6, 4), lambda g: g.node("Einsum", "x", *(["x"] if "," in equation else []), equation=equation))


def several():
    """A trunk with two heads; an image and an image of the same size, through one convolution, beside a vector."""
    graph = Graph()
    trunk = graph.node("Relu", graph.node("Conv", "x", data(5, 4, 3, 3)))
    pooled = graph.node("Flatten", graph.node("GlobalAveragePool", trunk))
    age = graph.node("Gemm", pooled, data(5, 3), outputs=["age"])
    graph.node("Gemm", pooled, data(5, 2), outputs=["sex"])
    model = graph.model([None, *MAP[1:]], 13, age)
    model.graph.output.append(helper.make_tensor_value_info("sex", TensorProto.FLOAT, None))
    x = data(*MAP)
    keep("heads", model, x, reference(model, x=x)[0])
    found["heads.sex"] = reference(model, x=x)[1].astype(np.float32)

    graph = Graph()
    weight = data(5, 4, 3, 3)
    features = [graph.node("Flatten", graph.node("GlobalAveragePool", graph.node("Relu", graph.node("Conv", t, weight)))) for t in ("x", "other")]
    about = graph.node("Relu", graph.node("Gemm", "about", data(3, 2), data(2)))
    joined = graph.node("Concat", graph.node("Sub", *features), about, axis=1)
    model = graph.model([None, *MAP[1:]], 13, graph.node("Gemm", joined, data(7, 3)))
    for name, shape in (("other", [None, *MAP[1:]]), ("about", [None, 3])):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    other, about = data(1, *MAP[1:]), data(1, 3)
    keep("inputs", model, x, reference(model, x=x, other=np.repeat(other, len(x), 0), about=np.repeat(about, len(x), 0))[0])
    found["inputs.other"], found["inputs.about"] = other, about


def reference(model, **inputs):
    double = make_onnx.doubled(model)
    return make_onnx.ReferenceEvaluator(double).run(None, {k: v.astype(np.float64) for k, v in inputs.items()})


def main():
    found.clear()
    for cases in (matrices, choices, attention, early_opsets, without_layers, several, shapes, any_shapes, quantised, exact_choices):
        cases()
    save_file(found, HERE / "onnx_more.safetensors")
    print(sum(name.endswith(".model") for name in found), "cases", sum(v.nbytes for v in found.values()), "bytes")


if __name__ == "__main__":
    main()
