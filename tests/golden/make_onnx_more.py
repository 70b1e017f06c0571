#!/usr/bin/env python3
"""More small ONNX models beside those of make_onnx.py, for onnx_more_test.cpp.

    tests/golden/make_onnx_more.py        writes onnx_more.safetensors beside itself; needs what make_onnx.py needs

What matrices do along axes, comparisons and choices, the operator Attention, files of opset 6, networks without a layer. The
same keys. heads.model has two outputs, heads.y and heads.sex; inputs.model further inputs with the values inputs.other and
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
    for cases in (matrices, choices, attention, early_opsets, without_layers, several):
        cases()
    save_file(found, HERE / "onnx_more.safetensors")
    print(sum(name.endswith(".model") for name in found), "cases", sum(v.nbytes for v in found.values()), "bytes")


if __name__ == "__main__":
    main()
