"""Small cases of single ops, computed by PyTorch in float64. Parameters are called as the fields of the op's struct in
kernels/*.h. Data is exact in float32; `integer` cases have integer data small enough for exact float32 sums."""

import numpy as np
import torch
import torch.nn.functional as F

from networks import RULES, RuledReLU, switches_of


class Cases:
    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.list, self.tensors = [], {}

    def data(self, shape, integer=False, low=-4, high=4):
        if integer:
            values = self.random.integers(low, high + 1, shape)
        else:
            values = self.random.standard_normal(shape).astype(np.float32)
        return torch.from_numpy(values.astype(np.float64))

    def add(self, name, op, params, **tensors):
        assert name not in [case["name"] for case in self.list], name
        self.list.append(dict(name=name, op=op, params=params))
        for part, value in tensors.items():
            if value is None:
                continue
            value = value.detach().numpy()
            if part == "switch":
                value = value.astype(np.int16 if params["kernel_h"] * params["kernel_w"] > 256 else np.uint8)
            else:
                value = value.astype(np.float32)
            self.tensors[f"{name}.{part}"] = value

    def differentiate(self, y, x, integer):
        """(dy, dx) for a random dy."""
        dy = self.data(y.shape, integer)
        return dy, torch.autograd.grad(y, x, dy)[0]


def conv(cases, name, x, out_channels, kernel, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1), groups=1, bias=True,
         integer=False):
    """pad: top, left, bottom, right."""
    x = cases.data(x, integer).requires_grad_()
    w = cases.data((out_channels, x.shape[1] // groups, *kernel), integer)
    b = cases.data((out_channels,), integer) if bias else None
    padded = F.pad(x, (pad[1], pad[3], pad[0], pad[2]))
    y = F.conv2d(padded, w, b, stride, 0, dilation, groups)
    dy, dx = cases.differentiate(y, x, integer)
    params = dict(in_channels=x.shape[1], out_channels=out_channels, kernel_h=kernel[0], kernel_w=kernel[1],
                  stride_h=stride[0], stride_w=stride[1], pad_top=pad[0], pad_left=pad[1], pad_bottom=pad[2],
                  pad_right=pad[3], dilation_h=dilation[0], dilation_w=dilation[1], groups=groups, has_bias=bias,
                  integer=integer)
    cases.add(name, "conv2d", params, x=x, w=w, b=b, y=y, dy=dy, dx=dx)


def conv_cases(cases):
    conv(cases, "conv_3x3", (2, 5, 9, 8), 6, (3, 3), pad=(1,) * 4)
    conv(cases, "conv_3x3_integer", (1, 9, 10, 11), 17, (3, 3), pad=(1,) * 4, integer=True)
    conv(cases, "conv_first", (1, 3, 23, 21), 8, (7, 7), (2, 2), (3,) * 4, bias=False)
    conv(cases, "conv_11x11_stride4", (1, 3, 31, 35), 5, (11, 11), (4, 4), (2,) * 4)
    conv(cases, "conv_5x5_valid_integer", (2, 1, 12, 12), 8, (5, 5), integer=True)
    conv(cases, "conv_1x1_stride2", (2, 6, 7, 9), 8, (1, 1), (2, 2), bias=False)
    conv(cases, "conv_rectangle", (1, 4, 11, 8), 5, (1, 5), (2, 1), (0, 2, 0, 2))
    conv(cases, "conv_stride_leaves_rest", (1, 3, 12, 10), 4, (3, 3), (3, 2), (0, 1, 0, 1), integer=True)
    conv(cases, "conv_asymmetric_pad", (1, 4, 9, 10), 6, (3, 3), (2, 2), (0, 0, 1, 1))
    conv(cases, "conv_asymmetric_pad_wide", (2, 3, 6, 7), 4, (4, 3), (1, 1), (2, 0, 1, 3), integer=True)
    conv(cases, "conv_dilated", (1, 4, 13, 12), 6, (3, 3), pad=(2,) * 4, dilation=(2, 2))
    conv(cases, "conv_dilated_uneven_integer", (1, 3, 14, 15), 4, (3, 2), (2, 1), (3, 1, 3, 1), (3, 2), integer=True)
    conv(cases, "conv_groups", (2, 8, 7, 6), 12, (3, 3), pad=(1,) * 4, groups=4)
    conv(cases, "conv_depthwise_stride2", (1, 19, 9, 9), 19, (3, 3), (2, 2), (1,) * 4, groups=19, bias=False)
    conv(cases, "conv_depthwise_times2_integer", (1, 6, 8, 7), 12, (3, 3), (1, 1), (1,) * 4, groups=6, integer=True)
    conv(cases, "conv_odd_channels", (1, 33, 6, 5), 19, (3, 3), pad=(1,) * 4)
    conv(cases, "conv_whole_image", (2, 3, 5, 4), 7, (5, 4))
    conv(cases, "conv_pad_beyond_kernel", (1, 2, 3, 3), 3, (2, 2), pad=(3,) * 4, integer=True)


def max_pool(cases, name, x, kernel, stride, pad=(0, 0), dilation=(1, 1), ceil_mode=False, integer=False, relu=False):
    x = cases.data(x, integer, -1, 1)
    if relu:  # ties at 0
        x = x.clamp(min=0)
    x.requires_grad_()
    y, switch = switches_of(x, kernel, stride, pad, dilation, ceil_mode)
    dy, dx = cases.differentiate(y, x, integer)
    params = dict(kernel_h=kernel[0], kernel_w=kernel[1], stride_h=stride[0], stride_w=stride[1], pad_top=pad[0],
                  pad_left=pad[1], pad_bottom=pad[0], pad_right=pad[1], dilation_h=dilation[0], dilation_w=dilation[1],
                  ceil_mode=ceil_mode, integer=integer)
    cases.add(name, "max_pool2d", params, x=x, y=y, switch=switch, dy=dy, dx=dx)


def max_pool_cases(cases):
    max_pool(cases, "max_2", (2, 5, 8, 9), (2, 2), (2, 2))
    max_pool(cases, "max_2_ties", (1, 17, 8, 8), (2, 2), (2, 2), integer=True)
    max_pool(cases, "max_3_ties", (1, 3, 12, 9), (3, 3), (3, 3), integer=True)
    max_pool(cases, "max_3_stride2", (1, 4, 13, 11), (3, 3), (2, 2), relu=True)
    max_pool(cases, "max_3_stride2_pad1_ties", (2, 3, 9, 10), (3, 3), (2, 2), (1, 1), integer=True)
    max_pool(cases, "max_3_stride2_ceil", (1, 3, 10, 12), (3, 3), (2, 2), ceil_mode=True)
    max_pool(cases, "max_3_stride2_pad1_ceil_ties", (1, 4, 12, 9), (3, 3), (2, 2), (1, 1), ceil_mode=True, integer=True)
    max_pool(cases, "max_ceil_drops_window", (1, 2, 5, 5), (2, 2), (3, 3), (1, 1), ceil_mode=True)
    max_pool(cases, "max_dilated", (1, 3, 11, 12), (3, 3), (1, 1), (1, 1), (2, 2))
    max_pool(cases, "max_dilated_uneven_ties", (1, 3, 12, 13), (3, 2), (2, 3), (1, 1), (2, 3), True, integer=True)
    max_pool(cases, "max_rectangle", (1, 3, 9, 8), (3, 2), (2, 1), (1, 0))
    max_pool(cases, "max_stride_beyond_kernel", (1, 3, 11, 11), (2, 2), (4, 3))
    max_pool(cases, "max_large_window", (1, 2, 21, 20), (17, 17), (2, 1))
    max_pool(cases, "max_large_window_ties", (1, 2, 20, 19), (16, 17), (1, 2), (8, 8), integer=True)
    max_pool(cases, "max_256_places", (1, 2, 18, 17), (16, 16), (1, 1), (1, 0))
    # Windows of equal values: the first place inside the input wins, also where padding comes before it.
    x = torch.full((1, 1, 4, 4), -2.0, dtype=torch.float64, requires_grad=True)
    y, switch = switches_of(x, (3, 3), (2, 2), (1, 1))
    dy, dx = cases.differentiate(y, x, True)
    params = dict(kernel_h=3, kernel_w=3, stride_h=2, stride_w=2, pad_top=1, pad_left=1, pad_bottom=1, pad_right=1,
                  dilation_h=1, dilation_w=1, ceil_mode=False, integer=True)
    cases.add("max_constant_negative", "max_pool2d", params, x=x, y=y, switch=switch, dy=dy, dx=dx)


def max_unpool(cases, name, pooled_from, kernel, stride, pad=(0, 0), integer=False):
    """x: pooled values (not those that were pooled); y: them at their winners' places, 0 elsewhere."""
    source = cases.data(pooled_from, integer)
    pooled, switch = switches_of(source, kernel, stride, pad)
    flat = F.max_pool2d(source, kernel, stride, pad, return_indices=True)[1]
    x = cases.data(pooled.shape, integer).requires_grad_()
    y = F.max_unpool2d(x, flat, kernel, stride, pad, output_size=pooled_from[2:])
    dy, dx = cases.differentiate(y, x, integer)
    params = dict(kernel_h=kernel[0], kernel_w=kernel[1], stride_h=stride[0], stride_w=stride[1], pad_top=pad[0],
                  pad_left=pad[1], pad_bottom=pad[0], pad_right=pad[1], dilation_h=1, dilation_w=1, ceil_mode=False,
                  out_h=pooled_from[2], out_w=pooled_from[3], integer=integer)
    cases.add(name, "max_unpool2d", params, x=x, y=y, switch=switch, dy=dy, dx=dx)


def avg_pool(cases, name, x, kernel, stride, pad=(0, 0), ceil_mode=False, include=True):
    x = cases.data(x).requires_grad_()
    y = F.avg_pool2d(x, kernel, stride, pad, ceil_mode, include)
    dy, dx = cases.differentiate(y, x, False)
    params = dict(kernel_h=kernel[0], kernel_w=kernel[1], stride_h=stride[0], stride_w=stride[1], pad_top=pad[0],
                  pad_left=pad[1], pad_bottom=pad[0], pad_right=pad[1], ceil_mode=ceil_mode, count_include_pad=include)
    cases.add(name, "avg_pool2d", params, x=x, y=y, dy=dy, dx=dx)


def adaptive(cases, name, x, size):
    x = cases.data(x).requires_grad_()
    y = F.adaptive_avg_pool2d(x, size)
    dy, dx = cases.differentiate(y, x, False)
    cases.add(name, "adaptive_avg_pool2d", dict(out_h=size[0], out_w=size[1]), x=x, y=y, dy=dy, dx=dx)


def other_pool_cases(cases):
    max_unpool(cases, "unpool_2", (1, 4, 8, 10), (2, 2), (2, 2))
    max_unpool(cases, "unpool_2_rest", (2, 3, 7, 9), (2, 2), (2, 2), integer=True)
    max_unpool(cases, "unpool_3_pad1", (1, 3, 8, 8), (3, 3), (3, 3), (1, 1))
    for include in (True, False):
        tag = "with_pad" if include else "without_pad"
        avg_pool(cases, f"avg_3_stride2_pad1_{tag}", (2, 3, 9, 8), (3, 3), (2, 2), (1, 1), False, include)
        avg_pool(cases, f"avg_3_stride2_pad1_ceil_{tag}", (1, 3, 10, 12), (3, 3), (2, 2), (1, 1), True, include)
        avg_pool(cases, f"avg_rectangle_ceil_{tag}", (1, 2, 9, 11), (4, 3), (3, 2), (2, 1), True, include)
    avg_pool(cases, "avg_2", (1, 5, 7, 9), (2, 2), (2, 2))
    adaptive(cases, "adaptive_7_from_10x9", (1, 3, 10, 9), (7, 7))
    adaptive(cases, "adaptive_7_from_1x1", (2, 3, 1, 1), (7, 7))
    adaptive(cases, "adaptive_7_from_3x4", (1, 3, 3, 4), (7, 7))
    adaptive(cases, "adaptive_6_from_13x13", (1, 2, 13, 13), (6, 6))
    adaptive(cases, "adaptive_5x3_from_11x7", (1, 3, 11, 7), (5, 3))
    adaptive(cases, "adaptive_7_from_7x7", (1, 2, 7, 7), (7, 7))
    adaptive(cases, "adaptive_global", (2, 17, 5, 6), (1, 1))


def lrn(cases, name, x, size, alpha, beta, k):
    x = cases.data(x).requires_grad_()
    y = F.local_response_norm(x, size, alpha, beta, k)
    dy, dx = cases.differentiate(y, x, False)
    cases.add(name, "lrn", dict(size=size, alpha=alpha, beta=beta, k=k), x=x, y=y, dy=dy, dx=dx)


def linear(cases, name, n, i, o, bias=True, integer=False):
    x, w = cases.data((n, i), integer).requires_grad_(), cases.data((o, i), integer)
    b = cases.data((o,), integer) if bias else None
    y = F.linear(x, w, b)
    dy, dx = cases.differentiate(y, x, integer)
    params = dict(in_features=i, out_features=o, has_bias=bias, integer=integer)
    cases.add(name, "linear", params, x=x, w=w, b=b, y=y, dy=dy, dx=dx)


def pointwise_cases(cases):
    lrn(cases, "lrn_5", (1, 9, 4, 5), 5, 1e-4, 0.75, 1.0)
    lrn(cases, "lrn_5_strong", (2, 7, 3, 4), 5, 2.0, 0.75, 2.0)
    lrn(cases, "lrn_3_strong", (1, 6, 4, 3), 3, 1.5, 0.5, 1.0)
    lrn(cases, "lrn_4_uneven_reach", (1, 8, 3, 3), 4, 1.0, 0.75, 1.0)
    lrn(cases, "lrn_wider_than_channels", (1, 3, 3, 4), 9, 1.0, 1.0, 1.0)
    linear(cases, "linear", 3, 37, 11)
    linear(cases, "linear_integer", 2, 64, 33, integer=True)
    linear(cases, "linear_one_item_without_bias", 1, 130, 10, bias=False)
    for name, shape, scale in (("softmax", (3, 10, 1, 1), 1), ("softmax_pixels", (1, 5, 3, 4), 1),
                               ("softmax_large_logits", (2, 7, 1, 1), 100)):
        x = (cases.data(shape) * scale).float().double().requires_grad_()
        y = F.softmax(x, 1)
        dy, dx = cases.differentiate(y, x, False)
        cases.add(name, "softmax", {}, x=x, y=y, dy=dy, dx=dx)
    x = cases.data((2, 5, 3, 4))
    w, b, mean = cases.data((5,)), cases.data((5,)), cases.data((5,))
    variance = (0.5 + cases.data((5,)).abs()).float().double()
    x.requires_grad_()
    y = F.batch_norm(x, mean, variance, w, b, eps=1e-5)
    dy, dx = cases.differentiate(y, x, False)
    cases.add("batch_norm", "batch_norm", dict(eps=1e-5), x=x, w=w, b=b, mean=mean, var=variance, y=y, dy=dy, dx=dx)


def relu_cases(cases):
    """Every pair of s in {below, -0, 0, tiny, above} and dy in {-, 0, +}; sums of branches: rule(gate, dy + other)."""
    s = torch.tensor([-3.0, -1e-30, -0.0, 0.0, 1e-30, 2.0, 6.0, 7.0], dtype=torch.float64).float().double()
    g = torch.tensor([-2.0, -1e-30, 0.0, 1e-30, 3.0], dtype=torch.float64).float().double()
    x, dy = (t.reshape(1, 1, 8, 5) for t in (s[:, None].expand(8, 5), g[None, :].expand(8, 5)))
    for rule, (gate_forward, gate_gradient) in RULES.items():
        a = x.clone().requires_grad_()
        y = RuledReLU.apply(a, gate_forward, gate_gradient)
        params = dict(clip=None, rule=rule, gate_forward=gate_forward, gate_gradient=gate_gradient)
        cases.add(f"relu_{rule}", "relu", params, x=x, y=y, dy=dy, dx=torch.autograd.grad(y, a, dy)[0])
        inside = (x > 0) & (x < 6) if gate_forward else torch.ones_like(x, dtype=torch.bool)
        positive = dy > 0 if gate_gradient else torch.ones_like(x, dtype=torch.bool)
        dx = dy * inside * positive
        cases.add(f"relu6_{rule}", "relu", dict(params, clip=6.0), x=x, y=x.clamp(0, 6), dy=dy, dx=dx)
        s, g, other = (cases.data((2, 33, 3, 4), True, -2, 2) for _ in range(3))
        a = s.clone().requires_grad_()
        y = RuledReLU.apply(a, gate_forward, gate_gradient)
        dx = torch.autograd.grad((y * g + y * other).sum(), a)[0]
        cases.add(f"relu_two_branches_{rule}", "relu", dict(params, integer=True), x=s, y=y, dy=g, other=other, dx=dx)


def golden_ops():
    """(tensors, list of cases)."""
    cases = Cases(2014)
    conv_cases(cases)
    max_pool_cases(cases)
    other_pool_cases(cases)
    pointwise_cases(cases)
    relu_cases(cases)
    return cases.tensors, cases.list
