#!/usr/bin/env python3
"""Small ONNX models with what the onnx package's reference evaluator makes of them, in double, for onnx_test.cpp.

    tests/golden/make_onnx.py        writes onnx.safetensors beside itself; needs onnx, numpy, torch and safetensors

Of each case NAME: NAME.model (the file's bytes), NAME.x and NAME.y (float32). The evaluator is given the same weights
and x as doubles. Of models that must be refused only NAME.refused (the file's bytes)."""

import io
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
random = np.random.default_rng(7)
found = {}


def data(*shape, scale=1.0):
    """Multiples of 1/64 in [-scale, scale]."""
    return (random.integers(-64, 65, shape) * (scale / 64)).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


class Graph:
    """nodes: (op, inputs, attributes); inputs are names of tensors or arrays. The last one's first output is y."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op, *inputs, outputs=None, **attributes):
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        outputs = outputs or [f"t{len(self.nodes)}"]
        self.nodes.append(helper.make_node(op, names, outputs, name=f"{op.lower()}{len(self.nodes)}", **attributes))
        return outputs[0]

    def model(self, shape, opset, y, elem=TensorProto.FLOAT):
        x = helper.make_tensor_value_info("x", elem, shape)
        graph = helper.make_graph(self.nodes, "graph", [x], [helper.make_tensor_value_info(y, elem, None)],
                                  self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def doubled(model):
    """The same model in double."""
    out = onnx.ModelProto()
    out.CopyFrom(model)

    def convert(tensor):
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float64), tensor.name))

    for tensor in out.graph.initializer:
        convert(tensor)
    for node in out.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                convert(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    for value in list(out.graph.input) + list(out.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return out


def keep(name, model, x, y):
    found[f"{name}.model"] = np.frombuffer(model.SerializeToString(), np.uint8).copy()
    found[f"{name}.x"], found[f"{name}.y"] = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.float32)


def case(name, shape, build, opset=13, x=None, y=None, batch=None):
    """build(graph) gives the name of the output. y: where the evaluator is not to be asked. batch: what the file fixes."""
    graph = Graph()
    output = build(graph)
    model = graph.model([batch, *shape[1:]], opset, output)
    x = data(*shape) if x is None else x
    if y is None:
        y = ReferenceEvaluator(doubled(model)).run(None, {"x": x.astype(np.float64)})[0]
    keep(name, model, x, y)


def refused(name, shape, build, opset=13):
    """A batch of None is open."""
    graph = Graph()
    output = build(graph)
    found[f"{name}.refused"] = np.frombuffer(graph.model(list(shape), opset, output).SerializeToString(), np.uint8).copy()


def one(name, shape, op, *inputs, opset=13, **attributes):
    case(name, shape, lambda g: g.node(op, "x", *inputs, **attributes), opset)


MAP = (2, 4, 7, 6)


def convolutions():
    one("conv", MAP, "Conv", data(5, 4, 3, 3), data(5))
    one("conv_pads", MAP, "Conv", data(5, 4, 3, 2), pads=[1, 0, 2, 3], strides=[2, 1])
    one("conv_groups_dilated", MAP, "Conv", data(6, 2, 3, 3), data(6), group=2, dilations=[2, 1], pads=[2, 1, 2, 1])
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        one(f"conv_{auto}", MAP, "Conv", data(3, 4, 3, 4), auto_pad=auto, strides=[2, 3])
    case("conv_then_bias", MAP, lambda g: g.node("Add", g.node("Conv", "x", data(5, 4, 1, 1)), data(1, 5, 1, 1)))
    case("conv_read_twice", MAP, lambda g: g.node("Add", *[g.node("Conv", "x", data(5, 4, 1, 1))] * 2))
    one("transposed", MAP, "ConvTranspose", data(4, 3, 2, 3), data(3), strides=[2, 2])
    one("transposed_pads", MAP, "ConvTranspose", data(4, 3, 3, 3), strides=[2, 2], pads=[1, 0, 1, 1],
        output_padding=[1, 1])
    x, weight = data(*MAP), data(4, 3, 3, 3)  # the evaluator does not know groups here
    y = torch.nn.functional.conv_transpose2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), groups=2,
                                             stride=(3, 2), dilation=(1, 2))
    case("transposed_groups", MAP, lambda g: g.node("ConvTranspose", "x", weight, group=2, strides=[3, 2],
                                                    dilations=[1, 2]), x=x, y=y.numpy())
    y = torch.nn.functional.conv_transpose2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), stride=2)
    case("transposed_to", MAP, lambda g: g.node("ConvTranspose", "x", weight, strides=[2, 2], output_shape=[14, 12]),
         x=x, y=y[..., 1:, 1:].numpy())  # one place too many: by the operator's text it is cut off in front
    case("bn_after_conv", MAP, lambda g: g.node("BatchNormalization", g.node("Conv", "x", data(5, 4, 3, 3)),
         data(5), data(5), data(5), np.abs(data(5)) + 1, epsilon=1e-3), 15)  # before 14, the evaluator trains
    case("bn_alone", MAP, lambda g: g.node("BatchNormalization", g.node("Relu", "x"), data(4), data(4), data(4),
         np.abs(data(4)) + 1), 15)


def norms():
    """Of whole sets of values: layer, group and instance norms."""
    one("gelu_20", MAP, "Gelu", opset=20)
    one("gelu_tanh_20", MAP, "Gelu", opset=20, approximate="tanh")
    one("layer_norm_w", MAP, "LayerNormalization", data(6), data(6), opset=17)
    one("layer_norm_hw", MAP, "LayerNormalization", data(7, 6), opset=17, axis=2, epsilon=1e-3)
    one("layer_norm_chw", MAP, "LayerNormalization", data(4, 7, 6), data(4, 7, 6), opset=17, axis=-3)
    one("layer_norm_features", (3, 8), "LayerNormalization", data(8), data(8), opset=17)
    case("layer_norm_channels", MAP, lambda g: g.node("Transpose", g.node("LayerNormalization", g.node(
        "Transpose", "x", perm=[0, 2, 3, 1]), data(4), data(4)), perm=[0, 3, 1, 2]), 17)
    case("layer_norm_tokens", MAP, lambda g: g.node("LayerNormalization", g.node("Reshape", "x", ints(-1, 12, 14)), data(14),
                                                    data(14)), 17)
    one("group_norm_21", MAP, "GroupNormalization", data(4), data(4), opset=21, num_groups=2)
    one("instance_norm", MAP, "InstanceNormalization", data(4), data(4), epsilon=1e-3)
    x, scale, bias = data(*MAP), data(2), data(2)  # until opset 20 a value for each group
    t, each = torch.from_numpy(x).double(), lambda v: torch.from_numpy(v).double().repeat_interleave(2)  # noqa: E731
    case("group_norm_18", MAP, lambda g: g.node("GroupNormalization", "x", scale, bias, num_groups=2), 18, x=x,
         y=torch.nn.functional.group_norm(t, 2, each(scale), each(bias)).numpy())
    weight = data(4)
    by_reshapes = torch.nn.functional.group_norm(t, 2, torch.from_numpy(weight).double())

    def exported_group_norm(g):  # as PyTorch writes it below opset 18
        sets = g.node("InstanceNormalization", g.node("Reshape", "x", ints(0, 2, -1)), np.ones(2, np.float32),
                      np.zeros(2, np.float32))
        return g.node("Mul", g.node("Reshape", sets, g.node("Shape", "x")), weight.reshape(4, 1, 1))
    case("group_norm_by_instances", MAP, exported_group_norm, x=x, y=by_reshapes.numpy())
    refused("layer_norm_batch", (None, 8), lambda g: g.node("LayerNormalization", "x", data(8), axis=0), 17)
    refused("group_norm_odd", (None, 4, 7, 6), lambda g: g.node("GroupNormalization", "x", data(4), data(4), num_groups=3), 21)


def features():
    one("gemm", (3, 8), "Gemm", data(5, 8), data(5), transB=1)
    one("gemm_scaled", (3, 8), "Gemm", data(8, 5), data(1, 5), alpha=0.5, beta=2.0)
    one("gemm_scalar_bias", (3, 8), "Gemm", data(8, 5), np.float32(0.75))
    case("matmul_bias", (3, 8), lambda g: g.node("Relu", g.node("Add", g.node("MatMul", "x", data(8, 5)), data(5))))
    case("matmul_bias_left", (3, 8), lambda g: g.node("Add", data(5), g.node("MatMul", "x", data(8, 5))))
    case("flatten_gemm", MAP, lambda g: g.node("Gemm", g.node("Flatten", "x"), data(5, 168), data(5), transB=1))
    case("reshape_gemm", MAP, lambda g: g.node("MatMul", g.node("Reshape", "x", ints(-1, 168)), data(168, 3)))
    case("reshape_zero", MAP, lambda g: g.node("Reshape", g.node("Relu", "x"), ints(0, 0, -1)))
    one("bn_features", (3, 8), "BatchNormalization", data(8), data(8), data(8), np.abs(data(8)) + 1, opset=15)

    def by_sizes(g):  # x.view(x.size(0), -1), as exporters write it
        batch = g.node("Gather", g.node("Shape", "x"), np.int64(0), axis=0)
        sizes = g.node("Concat", g.node("Unsqueeze", batch, ints(0)), ints(-1), axis=0)
        return g.node("Gemm", g.node("Reshape", "x", sizes), data(168, 4), data(4))
    case("reshape_by_sizes", MAP, by_sizes)


def pools():
    one("max_pool", MAP, "MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1])
    one("max_pool_ceil", MAP, "MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    one("max_pool_same", MAP, "MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    one("max_pool_dilated", MAP, "MaxPool", kernel_shape=[2, 2], strides=[1, 1], dilations=[2, 3])
    one("average_pool", MAP, "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    one("average_pool_padded", MAP, "AveragePool", kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 0],
        count_include_pad=1)
    one("global_average", MAP, "GlobalAveragePool")
    one("global_max", MAP, "GlobalMaxPool")
    one("mean", MAP, "ReduceMean", axes=[2, 3])
    one("mean_features", MAP, "ReduceMean", axes=[-1, -2], keepdims=0)
    one("mean_channels_18", MAP, "ReduceMean", ints(1), opset=18)
    one("sum_rows", MAP, "ReduceSum", ints(2))
    case("head", MAP, lambda g: g.node("Gemm", g.node("Flatten", g.node("GlobalAveragePool", "x")), data(4, 3)))
    case("squeeze", MAP, lambda g: g.node("Squeeze", g.node("GlobalAveragePool", "x"), ints(2, 3)))
    x = data(*MAP)  # the evaluator leaves out each window's last channel
    y = torch.nn.functional.local_response_norm(torch.from_numpy(x).double(), 3, alpha=0.5, beta=0.75, k=2.0)
    case("lrn", MAP, lambda g: g.node("LRN", "x", size=3, alpha=0.5, beta=0.75, bias=2.0), x=x, y=y.numpy())


def activations():
    for op, attributes in (("Relu", {}), ("LeakyRelu", {}), ("Sigmoid", {}), ("Tanh", {}), ("HardSigmoid", {}), ("Neg", {}),
                           ("HardSigmoid", dict(alpha=0.25, beta=0.625)), ("LeakyRelu", dict(alpha=0.125))):
        one("_".join([op.lower(), *map(str, attributes.values())]), MAP, op, **attributes)
    one("hardswish_14", MAP, "HardSwish", opset=14)
    one("clip_6", MAP, "Clip", opset=10, min=-0.25, max=0.5)
    one("clip", MAP, "Clip", np.float32(0), np.float32(0.5))
    one("clip_below", MAP, "Clip", "", np.float32(0.25))
    one("prelu", MAP, "PRelu", np.abs(data(4, 1, 1)))
    one("prelu_one", MAP, "PRelu", data(1))
    one("prelu_features", (3, 8), "PRelu", data(8))
    one("softmax", (3, 8), "Softmax")
    one("softmax_11", (3, 8), "Softmax", opset=11)
    one("softmax_maps", MAP, "Softmax", axis=1)
    case("silu", MAP, lambda g: g.node("Mul", "x", g.node("Sigmoid", "x")))
    case("silu_of_conv", MAP, lambda g: (lambda t: g.node("Mul", g.node("Sigmoid", t), t))(
        g.node("Conv", "x", data(5, 4, 1, 1))))
    case("hardswish", MAP, lambda g: g.node("Mul", "x", g.node("HardSigmoid", "x", alpha=1 / 6, beta=0.5)))

    def logits(g):
        return g.node("LogSoftmax", g.node("Gemm", "x", weight, bias), axis=1)
    weight, bias, x = data(8, 5), data(5), data(3, 8)
    case("log_softmax", (3, 8), logits, x=x, y=x.astype(np.float64) @ weight + bias)


def arithmetic():
    for op in ("Add", "Sub", "Mul", "Div"):
        positive = np.abs(data(4, 1, 1)) + 1
        one(f"{op.lower()}_channels", MAP, op, positive)
        one(f"{op.lower()}_scalar", MAP, op, np.float32(1.5))
        case(f"{op.lower()}_reversed", MAP, lambda g: g.node(op, np.float32(1.5), g.node("Add", "x", np.float32(2.5))))
        case(f"{op.lower()}_maps", MAP, lambda g: g.node(op, g.node("Relu", "x"), g.node("Add", "x", np.float32(2.5))))
    one("add_places", MAP, "Add", data(7, 6))
    one("add_features", (3, 8), "Add", data(8))
    case("squeeze_excite", MAP, lambda g: g.node("Mul", "x", g.node("Sigmoid", g.node("Conv", g.node("GlobalAveragePool", "x"),
         data(4, 4, 1, 1), data(4)))))

    def excite_features(g):
        f = g.node("Gemm", g.node("Flatten", g.node("GlobalAveragePool", "x")), data(4, 4), data(4))
        return g.node("Mul", "x", g.node("Reshape", g.node("HardSigmoid", f), ints(0, 4, 1, 1)))
    case("excite_features", MAP, excite_features)
    case("sum_of_three", MAP, lambda g: g.node("Sum", "x", g.node("Relu", "x"), g.node("Tanh", "x")))


def movements():
    case("concat", MAP, lambda g: g.node("Concat", "x", g.node("Relu", "x"), g.node("Neg", "x"), axis=1))
    case("concat_features", (3, 8), lambda g: g.node("Concat", "x", g.node("Relu", "x"), axis=-1))
    one("slice", MAP, "Slice", ints(0, 1), ints(2**31 - 1, -1), ints(2, 3), ints(2, 1))
    one("slice_9", MAP, "Slice", opset=9, starts=[1, -4], ends=[3, 6], axes=[1, 3])
    for opset, more in ((11, dict(split=[1, 3])), (18, dict(num_outputs=2))):
        def parts(g):
            g.node("Split", "x", outputs=["a", "b"], axis=1, **more)
            return g.node("Concat", "b", "a", axis=1)
        case(f"split_{opset}", MAP, parts, opset)

    def channels_swapped(g):  # torchvision's transform_input
        parts = [g.node("Unsqueeze", g.node("Gather", "x", np.int64(c), axis=1), ints(1)) for c in range(4)]
        return g.node("Concat", *[g.node("Mul", p, np.float32(1 + i)) for i, p in enumerate(parts[::-1])], axis=1)
    case("gather_channels", MAP, channels_swapped)
    one("gather_run", MAP, "Gather", ints(1, 3), axis=1)
    for mode in ("constant", "reflect", "edge"):
        one(f"pad_{mode}", MAP, "Pad", ints(0, 0, 1, 2, 0, 0, 2, 1), mode=mode)
    one("pad_value", MAP, "Pad", ints(0, 1, 1, 0, 0, 2, 0, 3), np.float32(0.5))
    case("pad_10", MAP, lambda g: g.node("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.25), 10,
         x=(x := data(*MAP)), y=np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1)), constant_values=0.25))
    one("pad_axes_18", MAP, "Pad", ints(1, 2, 0, 1), "", ints(3, 2), opset=18)
    one("permute", MAP, "Transpose", perm=[0, 2, 3, 1])
    case("shuffle", MAP, lambda g: g.node("Reshape", g.node("Transpose", g.node("Reshape", "x", ints(0, 2, 2, 7, 6)),
         perm=[0, 2, 1, 3, 4]), ints(0, 4, 7, 6)))
    case("identity_dropout", MAP, lambda g: g.node("Dropout", g.node("Identity", g.node("Relu", "x"))))
    case("casts", MAP, lambda g: g.node("Add", g.node("Cast", "x", to=TensorProto.FLOAT),
         g.node("Cast", g.node("ConstantOfShape", ints(1, 1, 1, 1), value=numpy_helper.from_array(ints(3))),
                to=TensorProto.FLOAT)))
    case("regrouped", MAP, lambda g: g.node("Relu", g.node("Reshape", g.node("Conv", "x", data(6, 4, 1, 1)), ints(0, 3, 14, 6))))


def resizes():
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        one(f"linear_{coordinates}", (1, 4, 7, 6), "Resize", "", "", ints(1, 4, 10, 13), mode="linear",
            coordinate_transformation_mode=coordinates)
        one(f"linear_{coordinates}_scaled", MAP, "Resize", "", np.array([1, 1, 2, 1.5], np.float32), mode="linear",
            coordinate_transformation_mode=coordinates)
    for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        one(f"nearest_{rounding}", MAP, "Resize", "", np.array([1, 1, 2.5, 0.5], np.float32), mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode=rounding)
    x = data(*MAP)
    twice = x.repeat(2, axis=2).repeat(2, axis=3)
    scales = np.array([1, 1, 2, 2], np.float32)
    case("upsample_9", MAP, lambda g: g.node("Upsample", "x", scales), 9, x=x, y=twice)
    case("resize_10", MAP, lambda g: g.node("Resize", "x", scales), 10, x=x, y=twice)

    def to_size_of(g):  # F.interpolate(a, size=x.shape[2:])
        pooled = g.node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])
        two = g.node("Slice", g.node("Shape", pooled), ints(0), ints(2), ints(0))
        rest = g.node("Slice", g.node("Shape", "x"), ints(2), ints(4), ints(0))
        sizes = g.node("Concat", two, g.node("Cast", rest, to=TensorProto.INT64), axis=0)
        return g.node("Resize", pooled, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")
    case("resize_to_other", (1, 4, 7, 6), to_size_of)


def nhwc():
    """TensorFlow's: our input is NCHW all the same."""
    weight = data(5, 4, 3, 3)
    x = data(*MAP)
    for name, alias in (("nhwc_input", lambda g: "x"), ("nhwc_identity", lambda g: g.node("Identity", "x")),
                        ("nhwc_cast", lambda g: g.node("Cast", g.node("Identity", "x"), to=TensorProto.FLOAT)),
                        ("nhwc_other_head", lambda g: (g.node("Relu", "x"), "x")[1])):
        graph = Graph()
        y = graph.node("Conv", graph.node("Transpose", alias(graph), perm=[0, 3, 1, 2]), weight)
        model = graph.model([None, 7, 6, 4], 13, y)
        y = ReferenceEvaluator(doubled(model)).run(None, {"x": x.transpose(0, 2, 3, 1).astype(np.float64)})[0]
        keep(name, model, x, y)


def keras():
    """Preprocessing before the turn from NHWC, as Keras' applications have it inside."""
    x = data(*MAP)
    for name, rescaled in (("keras_rescaled", lambda g: g.node("Sub", g.node("Mul", "x", np.float32(1 / 32)), np.float32([1]))),
                           ("keras_normalized", lambda g: g.node("Div", g.node("Sub", g.node("Cast", "x", to=TensorProto.FLOAT),
                                                                               data(1, 1, 1, 4)), 2 + data(4))),
                           ("keras_from_the_left", lambda g: g.node("Sub", data(4), "x"))):
        graph = Graph()
        y = graph.node("Conv", graph.node("Transpose", rescaled(graph), perm=[0, 3, 1, 2]), data(5, 4, 3, 3))
        model = graph.model([None, 7, 6, 4], 13, y)
        y = ReferenceEvaluator(doubled(model)).run(None, {"x": x.transpose(0, 2, 3, 1).astype(np.float64)})[0]
        keep(name, model, x, y)


def cubic():
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        one(f"cubic_{coordinates}", (1, 4, 7, 6), "Resize", "", "", ints(1, 4, 10, 13), mode="cubic",
            coordinate_transformation_mode=coordinates)
    one("cubic_scaled", MAP, "Resize", "", np.array([1, 1, 0.6, 1.5], np.float32), mode="cubic")
    one("cubic_inside", (1, 4, 7, 6), "Resize", "", "", ints(1, 4, 9, 5), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1, opset=18)


class Shuffle(torch.nn.Module):
    """What exporters make of views, sizes, interpolation and reductions."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8),
                                        torch.nn.SiLU(), torch.nn.MaxPool2d(2))
        self.branch = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1, groups=4), torch.nn.Hardswish())
        self.up = torch.nn.ConvTranspose2d(8, 6, 4, 2, 1)
        self.head = torch.nn.Linear(6, 5)

    def forward(self, x):
        y = self.stem(x)
        a, b = y.chunk(2, dim=1)
        y = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = torch.nn.functional.pad(self.up(y), (1, 0, 2, 1))
        y = y + torch.nn.functional.interpolate(x, size=y.shape[2:], mode="bilinear").mean(1, keepdim=True)
        return torch.softmax(self.head(torch.relu(y).mean((2, 3))), 1)


def exported():
    torch.manual_seed(3)
    net = Shuffle().eval()
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
    x = torch.from_numpy(data(2, 3, 12, 10))
    y = net.double()(x.double()).detach().numpy()
    net = net.float()
    for opset in (11, 17):
        file = io.BytesIO()
        torch.onnx.export(net, x[:1], file, opset_version=opset, dynamo=False, input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
        keep(f"exported_{opset}", onnx.load_from_string(file.getvalue()), x.numpy(), y)


# What gives a value [N,4,7,6] a second name.
ALIASES = {
    "identity": lambda g, t: g.node("Identity", t),
    "dropout": lambda g, t: g.node("Dropout", t),
    "cast": lambda g, t: g.node("Cast", t, to=TensorProto.FLOAT),
    "reshape": lambda g, t: g.node("Reshape", t, ints(0, 4, 7, 6)),
    "reshaped_twice": lambda g, t: g.node("Reshape", g.node("Reshape", t, ints(0, 28, 6)), ints(-1, 4, 7, 6)),
    "slice": lambda g, t: g.node("Slice", t, ints(0), ints(2**31 - 1), ints(2)),
    "transpose": lambda g, t: g.node("Transpose", t, perm=[0, 1, 2, 3]),
    "squeeze": lambda g, t: g.node("Squeeze", g.node("Unsqueeze", t, ints(1)), ints(1)),
    "split": lambda g, t: g.node("Split", t, ints(4), axis=1),
    "gather": lambda g, t: g.node("Gather", t, ints(0, 1, 2, 3), axis=1),
    "concat": lambda g, t: g.node("Concat", t, axis=1),
    "twice": lambda g, t: g.node("Identity", g.node("Dropout", t)),
}


def aliases():
    """Layers whose value is read under two names: neither bias nor gate may go into them."""
    for name, alias in ALIASES.items():
        def bias(g):
            a = g.node("Conv", "x", data(4, 4, 1, 1))
            return g.node("Concat", g.node("Add", alias(g, a), data(4, 1, 1)), g.node("Relu", a), axis=1)
        case(f"alias_bias_{name}", MAP, bias)

        def other(g):  # the other reader has the second name
            a = g.node("Conv", "x", data(4, 4, 1, 1))
            read = g.node("Relu", alias(g, a))
            return g.node("Concat", g.node("Add", a, data(4, 1, 1)), read, axis=1)
        case(f"alias_other_{name}", MAP, other)

        def gate(g, op="Sigmoid", **attributes):
            a = g.node("Tanh", "x")
            s = g.node(op, a, **attributes)
            return g.node("Add", g.node("Mul", a, alias(g, s)), s)
        case(f"alias_gate_{name}", MAP, gate)
        case(f"alias_hard_gate_{name}", MAP, lambda g: gate(g, "HardSigmoid", alpha=1 / 6, beta=0.5))

        def folded(g):  # nobody else reads it: now it may
            a = g.node("Conv", "x", data(4, 4, 1, 1))
            b = g.node("Add", alias(g, a), data(4, 1, 1))
            return g.node("Mul", alias(g, b), g.node("Sigmoid", b))
        case(f"alias_folded_{name}", MAP, folded)

    def linear(g):
        a = g.node("MatMul", "x", data(8, 4))
        return g.node("Concat", g.node("Add", g.node("Flatten", a), data(4)), g.node("Tanh", a), axis=1)
    case("alias_bias_linear", (3, 8), linear)

    def only_sizes(g):  # who wants the shape alone is no reader
        a = g.node("Conv", "x", data(4, 4, 1, 1))
        return g.node("Reshape", g.node("Add", a, data(4, 1, 1)), g.node("Shape", g.node("Relu", a)))
    case("alias_only_sizes", MAP, only_sizes)

    def early(g):  # the output is not the last layer
        g.node("Split", "x", outputs=["a", "b"], axis=1)
        return g.node("Identity", "a")
    case("alias_early_output", MAP, early)


def fixed(name, shape, build):
    """As case, with the batch fixed."""
    graph = Graph()
    output = build(graph)
    model, x = graph.model(list(shape), 13, output), data(*shape)
    keep(name, model, x, ReferenceEvaluator(doubled(model)).run(None, {"x": x.astype(np.float64)})[0])


def broadcasts():
    def gemm(*dims):
        return lambda g: g.node("Gemm", "x", data(8, 5), data(*dims))
    case("gemm_one_bias", (5, 8), gemm(1, 1))
    case("gemm_bias_5", (5, 8), gemm(5))
    refused("gemm_bias_column", (5, 8), gemm(5, 1))
    refused("gemm_bias_matrix", (5, 8), gemm(5, 5))
    refused("gemm_bias_column_open", (None, 8), gemm(5, 1))
    refused("gemm_bias_rank", (5, 8), gemm(1, 1, 5))

    def ranks(op):
        return lambda g: g.node(op, g.node("ReduceMean", "x", axes=[2, 3], keepdims=0), g.node("Relu", "x"))
    for op in ("Add", "Sub", "Mul", "Div"):
        for batch in (4, None):
            refused(f"{op.lower()}_ranks_{batch or 'open'}", (batch, 4, 4, 4), ranks(op))
    refused("add_rank_3", (4, 4, 4, 4),
            lambda g: g.node("Add", g.node("Relu", "x"), g.node("ReduceSum", "x", ints(1), keepdims=0)))

    def with_constant(*dims):
        return lambda g: g.node("Mul", g.node("Relu", "x"), data(*dims))
    refused("constant_of_batch", (3, 8), with_constant(3, 1))
    refused("constant_of_batch_maps", MAP, with_constant(2, 4, 1, 1))
    refused("constant_of_rank", (3, 8), with_constant(1, 1, 1, 1))
    refused("constant_of_batch_open", (None, 8), with_constant(3, 8))
    for batch in (4, None):
        name = batch or "open"
        refused(f"first_of_batch_{name}", (batch, 8),
                lambda g: g.node("Sub", "x", g.node("Slice", "x", ints(0), ints(1), ints(0))))
        refused(f"flatten_batch_{name}", (batch, 4, 7, 6), lambda g: g.node("Relu", g.node("Flatten", "x", axis=0)))
    refused("reshape_batch", (4, 8), lambda g: g.node("Relu", g.node("Reshape", "x", ints(1, -1, 8))))
    refused("reshape_joins_batch", (None, 8), lambda g: g.node("Relu", g.node("Reshape", "x", g.node("Concat", g.node(
            "Mul", g.node("Slice", g.node("Shape", "x"), ints(0), ints(1)), ints(2)), ints(4), axis=0))))
    case("reshape_one", (1, 4, 7, 6), lambda g: g.node("Relu", g.node("Reshape", "x", ints(1, -1))))

    fixed("fixed_same_constant", (3, 8), lambda g: g.node("Add", g.node("Relu", "x"), np.repeat(data(1, 8), 3, axis=0)))
    fixed("fixed_same_bias", (5, 8), lambda g: g.node("Gemm", "x", data(8, 5), np.repeat(data(1, 5), 5, axis=0)))
    fixed("fixed_ranks_1", (1, 4, 4, 4), ranks("Mul"))
    fixed("fixed_reshape", MAP, lambda g: g.node("Relu", g.node("Reshape", "x", ints(2, -1))))

    def whole_batch(g):
        batch = g.node("Slice", g.node("Shape", "x"), ints(0), ints(1))
        return g.node("Relu", g.node("Slice", "x", ints(0), batch, ints(0)))
    fixed("fixed_slice", (3, 8), whole_batch)
    case("open_slice", (3, 8), whole_batch)
    case("open_constant_of_shape", MAP, lambda g: g.node("Add", "x", g.node("ConstantOfShape", g.node("Shape", "x"),
         value=numpy_helper.from_array(np.array([1.5], np.float32)))))
    case("constants_combined", MAP, lambda g: g.node("Conv", "x", g.node("Div", g.node("Mul", data(5, 4, 3, 3),
         data(5, 1, 1, 1)), g.node("Add", np.abs(data(4, 1, 3)) + 1, np.float32(0.5)))))


def endings():
    def logits(g, classes=5):
        return g.node("Gemm", g.node("Flatten", g.node("GlobalAveragePool", g.node("Conv", "x", data(6, 4, 3, 3)))),
                      data(6, classes, scale=4), data(classes))

    def pooled(g):
        return g.node("GlobalAveragePool", g.node("Conv", "x", data(5, 4, 3, 3, scale=4)))
    case("end_logits", MAP, logits)
    case("end_softmax", MAP, lambda g: g.node("Softmax", logits(g), axis=1))
    case("end_softmax_flatten", MAP, lambda g: g.node("Flatten", g.node("Softmax", pooled(g), axis=1)))
    case("end_softmax_reshape", MAP, lambda g: g.node("Identity", g.node("Reshape", g.node("Softmax", pooled(g), axis=1),
         ints(0, -1))))
    case("end_softmax_maps", MAP, lambda g: g.node("Reshape", g.node("Softmax", g.node("Conv", "x", data(5, 4, 3, 3)),
         axis=1), ints(0, 5, 20)))
    case("end_labels", MAP, lambda g: g.node("Sigmoid", logits(g)))
    case("end_labels_reshape", MAP, lambda g: g.node("Dropout", g.node("Reshape", g.node("Sigmoid", pooled(g)), ints(0, 5))))
    case("end_label", MAP, lambda g: g.node("Sigmoid", logits(g, 1)))
    case("end_label_squeeze", MAP, lambda g: g.node("Squeeze", g.node("Sigmoid", logits(g, 1)), ints(1)))
    case("end_value", MAP, lambda g: logits(g, 1))
    case("end_value_map", MAP, lambda g: g.node("Conv", "x", data(1, 4, 3, 3)))
    case("end_label_map", MAP, lambda g: g.node("Sigmoid", g.node("Conv", "x", data(1, 4, 3, 3))))
    case("end_hard", MAP, lambda g: g.node("HardSigmoid", logits(g)))

    def put_together(g):  # only the preprocessing can tell that these are probabilities
        e = g.node("Sigmoid", logits(g))
        return g.node("Div", e, g.node("ReduceSum", e, ints(1)))
    case("end_unknown", MAP, put_together)
    weight, bias, x = data(8, 5), data(5), data(3, 8)
    case("end_log_softmax", (3, 8), lambda g: g.node("Identity", g.node("Reshape", g.node("LogSoftmax", g.node(
         "Gemm", "x", weight, bias), axis=1), ints(-1, 5))), x=x, y=x.astype(np.float64) @ weight + bias)
    refused("log_softmax_inside", (None, 8), lambda g: g.node("Relu", g.node("LogSoftmax", "x", axis=1)))


def needless():
    """What was refused without need."""
    def resize(mode="linear", **more):
        return dict(mode=mode, coordinate_transformation_mode="half_pixel", **more)
    scales = np.array([1, 1, 2, 1.5], np.float32)
    one("resize_stretch_scales", MAP, "Resize", "", scales, opset=19, **resize(keep_aspect_ratio_policy="stretch",
        antialias=0, exclude_outside=0, extrapolation_value=0.0, cubic_coeff_a=-0.75, nearest_mode="floor"))
    one("resize_stretch_sizes", (1, 4, 7, 6), "Resize", "", "", ints(1, 4, 10, 13), opset=18,
        **resize(keep_aspect_ratio_policy="stretch"))
    one("resize_axes", MAP, "Resize", "", "", ints(13, 10), opset=19, **resize("nearest", axes=[2, 3]))
    one("resize_axis", MAP, "Resize", "", np.array([2.5], np.float32), opset=18, **resize(axes=[3]))
    for mode in ("linear", "nearest"):
        one(f"resize_symmetric_{mode}", MAP, "Resize", "", np.array([1, 1, 0.6, 2.3], np.float32), opset=19, mode=mode,
            coordinate_transformation_mode="half_pixel_symmetric")
    one("resize_symmetric_sizes", (1, 4, 7, 6), "Resize", "", "", ints(1, 4, 10, 13), opset=19, mode="linear",
        coordinate_transformation_mode="half_pixel_symmetric")

    def second_output(op, **attributes):
        def build(g):
            return g.node("Relu", g.node(op, g.node("Conv", "x", data(4, 4, 1, 1)), outputs=["kept", "unread"], **attributes))
        return build
    case("dropout_mask_9", MAP, second_output("Dropout", ratio=0.5), 9)
    case("dropout_mask", MAP, second_output("Dropout"))
    case("max_pool_indices", MAP, second_output("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), 12)
    refused("reads_indices", MAP, lambda g: (g.node("MaxPool", "x", outputs=["kept", "read"], kernel_shape=[2, 2]),
                                             g.node("Relu", "read"))[1])
    refused("ends_with_indices", MAP, lambda g: (g.node("MaxPool", "x", outputs=["kept", "read"], kernel_shape=[2, 2]),
                                                 "read")[1])

    def several(g):
        a = g.node("Relu", g.node("Conv", "x", data(5, 4, 3, 3), data(5), pads=[1, 1, 1, 1]))
        b = g.node("AveragePool", g.node("MaxPool", a, kernel_shape=[2, 2]), kernel_shape=[2, 2], ceil_mode=1)
        c = g.node("Transpose", g.node("Pad", g.node("Identity", b), ints(0, 0, 1, 0, 0, 0, 0, 1)), perm=[0, 1, 3, 2])
        d = g.node("Reshape", g.node("Cast", c, to=TensorProto.FLOAT), ints(0, 5, -1))
        return g.node("Softmax", g.node("HardSwish", g.node("Flatten", g.node("Unsqueeze", d, ints(1)))))
    for opset in (21, 22, 23, 24, 25, 26, 27, 28):
        case(f"opset_{opset}", MAP, several, opset)

    case("concat_constant", (1, 4, 7, 6), lambda g: g.node("Concat", g.node("Relu", "x"), data(1, 2, 7, 6), axis=1))
    case("concat_constants", (1, 4, 7, 6), lambda g: g.node(
         "Concat", data(1, 2, 7, 6), data(1, 1, 7, 6), g.node("Relu", "x"),
         data(1, 3, 7, 6), "x", data(1, 1, 7, 6), axis=1))
    case("concat_constant_rows", (1, 4, 7, 6), lambda g: g.node("Concat", data(1, 4, 2, 6), "x", g.node("Relu", "x"),
         data(1, 4, 1, 6), axis=2))
    case("concat_constant_features", (1, 8), lambda g: g.node("Concat", g.node("Relu", "x"), data(1, 3), axis=-1))
    fixed("concat_constant_fixed", MAP, lambda g: g.node("Concat", np.repeat(data(1, 2, 7, 6), 2, axis=0), "x", axis=1))
    refused("concat_constant_of_batch", MAP, lambda g: g.node("Concat", data(2, 2, 7, 6), "x", axis=1))
    refused("concat_batch", MAP, lambda g: g.node("Concat", "x", g.node("Relu", "x"), axis=0))
    case("concat_rows", MAP, lambda g: g.node("Concat", "x", g.node("MaxPool", "x", kernel_shape=[2, 1]), axis=2))
    case("concat_columns", MAP, lambda g: g.node("Concat", g.node("MaxPool", "x", kernel_shape=[1, 2]), "x", axis=-1))
    case("concat_tokens", MAP, lambda g: g.node("Concat", *[g.node("Reshape", t, ints(0, 4, -1)) for t in (
         "x", g.node("MaxPool", "x", kernel_shape=[2, 2]))], axis=2))

    def coordinates(g):  # CoordConv with an open batch: constants are expanded to the data's sizes
        batch = g.node("Slice", g.node("Shape", "x"), ints(0), ints(1))
        sizes = g.node("Concat", batch, ints(1, 7, 6), axis=0)
        lines = g.node("Expand", (np.arange(7, dtype=np.float32) / 8)[:, None], sizes)
        return g.node("Conv", g.node("Concat", "x", lines, axis=1), data(3, 5, 1, 1))
    case("concat_coordinates", MAP, coordinates)

    def channels_last(g):
        conv = g.node("Conv", "x", data(5, 4, 3, 3))
        return g.node("Softmax", g.node("Transpose", conv, perm=[0, 2, 3, 1]), axis=-1)
    case("softmax_channels_last", MAP, channels_last)
    one("softmax_columns", MAP, "Softmax", axis=3)
    one("softmax_rows", MAP, "Softmax", axis=-2)
    x = data(*MAP)  # the evaluator does not count all axes behind as one
    for name, axis, joined in (("all", 1, (2, -1)), ("rows", 2, (8, -1))):
        y = torch.softmax(torch.from_numpy(x).double().reshape(joined), 1).reshape(MAP).numpy()
        case(f"softmax_11_{name}", MAP, lambda g: g.node("Softmax", "x", axis=axis), 11, x=x, y=y)
    case("softmax_tokens", MAP, lambda g: g.node("Softmax", g.node("Reshape", "x", ints(0, 4, -1)), axis=-1))
    refused("softmax_batch", MAP, lambda g: g.node("Softmax", "x", axis=0))

    x, weight, bias = data(*MAP), data(4, 3, 2, 2), data(3)
    y = torch.nn.functional.conv_transpose2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(),
                                             torch.from_numpy(bias).double(), stride=2, output_padding=1)
    case("transposed_beyond", MAP, lambda g: g.node(
         "ConvTranspose", "x", weight, bias, strides=[2, 2], output_shape=[15, 13]),
         x=x, y=y.numpy())
    refused("transposed_far_beyond", MAP, lambda g: g.node(
            "ConvTranspose", "x", weight, strides=[2, 2], output_shape=[19, 13]))
    case("transpose_of_ones", MAP, lambda g: g.node("Gemm", g.node("Flatten", g.node("Transpose", g.node(
         "GlobalAveragePool", "x"), perm=[0, 2, 3, 1])), data(4, 3)))

    def typed(name, elem, build):
        graph = Graph()
        output = build(graph)
        model, x = graph.model([None, *MAP[1:]], 13, output, elem), np.round(np.abs(data(*MAP)) * 64)
        kind = helper.tensor_dtype_to_np_dtype(elem)
        keep(name, model, x, ReferenceEvaluator(model).run(None, {"x": x.astype(kind)})[0].astype(np.float32))
    weights = data(3, 4, 1, 1)
    typed("input_double", TensorProto.DOUBLE, lambda g: g.node("Conv", "x", weights.astype(np.float64)))
    typed("input_uint8", TensorProto.UINT8, lambda g: g.node("Conv", g.node("Div", g.node("Cast", "x", to=TensorProto.FLOAT),
          np.float32(64)), weights))


def main():
    for cases in (convolutions, features, pools, activations, arithmetic, movements, resizes, nhwc, exported, aliases,
                  broadcasts, endings, needless, norms, keras, cubic):
        cases()
    save_file(found, HERE / "onnx.safetensors")
    print(sum(name.endswith(".model") for name in found), "cases", sum(v.nbytes for v in found.values()), "bytes")


if __name__ == "__main__":
    main()
