#include "tests/support/net.h"
#include "tests/support/network_reference.h"

#include <cmath>

namespace switchback::test {
namespace {

// A node's parameters.
struct Values {
  const Weights& weights;
  int node;
  std::vector<float> operator[](const char* name) const {
    const std::span<const float> v = weights.values(node, name);
    return {v.begin(), v.end()};
  }
  std::vector<double> wide(const char* name) const {
    const std::vector<float> v = (*this)[name];
    return {v.begin(), v.end()};
  }
};

Nchw with_shape(Nchw x, Shape shape) {
  x.shape = shape;
  return x;
}

template <typename F>
Nchw each(Nchw x, F f) {
  for (double& v : x.v) v = f(v);
  return x;
}

Nchw batch_norm(const BatchNorm2d& l, const Values& of, Nchw x) {
  const std::vector<float> weight = of["weight"], bias = of["bias"], mean = of["running_mean"], variance = of["running_var"];
  for (size_t i = 0; i < x.v.size(); ++i) {
    const size_t c = i / size_t(x.shape.h * x.shape.w) % size_t(x.shape.c);
    const double deviation = std::sqrt(double(variance[c]) + double(l.eps));
    x.v[i] = (x.v[i] - double(mean[c])) / deviation * double(weight[c]) + double(bias[c]);
  }
  return x;
}

// By places in CHW order, as the parameters are.
NormCase layer_norm(const LayerNorm& l, const Values& of) {
  const int64_t places = std::max<int64_t>(l.h, 1) * std::max<int64_t>(l.w, 1);
  NormCase norm{{std::max<int64_t>(l.c, 1), places, l.eps}, of.wide("weight"), of.wide("bias")};
  norm.by_place = l.h + l.w > 0, norm.by_channel = l.c == 0 ? 0 : l.h + l.w > 0 ? places : 1;
  return norm;
}

Nchw concatenated(const std::vector<const Nchw*>& inputs) {
  Shape shape = inputs[0]->shape;
  shape.c = 0;
  for (const Nchw* x : inputs) shape.c += x->shape.c;
  Nchw y(shape);
  int64_t first = 0;
  for (const Nchw* x : inputs) {
    for (int64_t n = 0; n < shape.n; ++n)
      for (int64_t c = 0; c < x->shape.c; ++c)
        for (int64_t h = 0; h < shape.h; ++h)
          for (int64_t w = 0; w < shape.w; ++w) y(n, first + c, h, w) = (*x)(n, c, h, w);
    first += x->shape.c;
  }
  return y;
}

Nchw constant_of(const BinaryConstant& l) {
  Nchw constant(l.shape);
  constant.v.assign(l.values.begin(), l.values.end());
  return constant;
}

// As kernels/attention/matmul.h and attention.h have them.
Nchw matmul(const Nchw& a, const Nchw& b) {
  Nchw y({a.shape.n, b.shape.c, a.shape.h, a.shape.w});
  for (int64_t n = 0; n < y.shape.n; ++n)
    for (int64_t g = 0; g < y.shape.h; ++g)
      for (int64_t i = 0; i < y.shape.w; ++i)
        for (int64_t j = 0; j < y.shape.c; ++j)
          for (int64_t k = 0; k < a.shape.c; ++k) y(n, j, g, i) += a(n, k, g, i) * b(n, j, g, k);
  return y;
}
// bias: [groups,T,S], or empty.
Nchw attention(double scale, const std::vector<double>& bias, int64_t groups, const Nchw& q, const Nchw& k, const Nchw& v) {
  Nchw p({q.shape.n, k.shape.w, q.shape.h, q.shape.w});
  for (int64_t n = 0; n < p.shape.n; ++n)
    for (int64_t g = 0; g < p.shape.h; ++g)
      for (int64_t i = 0; i < p.shape.w; ++i)
        for (int64_t j = 0; j < p.shape.c; ++j) {
          double score = 0;
          for (int64_t c = 0; c < q.shape.c; ++c) score += q(n, c, g, i) * k(n, c, g, j);
          p(n, j, g, i) = scale * score;
          if (!bias.empty()) p(n, j, g, i) += bias[size_t((g % groups * p.shape.w + i) * p.shape.c + j)];
        }
  return matmul(softmax_forward(p).value, v);
}

Nchw each_channel(Nchw x, const std::vector<double>& scale) {
  for (size_t i = 0; i < x.v.size(); ++i) x.v[i] *= scale[i / size_t(x.shape.h * x.shape.w) % scale.size()];
  return x;
}

// Parameters [1,tokens,C] added to the first tokens of [N,C,1,T].
Nchw embedded(const Embedding& l, const std::vector<double>& parameter, Nchw x) {
  for (int64_t n = 0; n < x.shape.n; ++n)
    for (int64_t t = 0; t < l.tokens; ++t)
      for (int64_t c = 0; c < l.features; ++c) x(n, c, 0, t) += parameter[size_t(t * l.features + c)];
  return x;
}

Nchw scaled_heads(const HeadScale& l, const std::vector<double>& logarithms, Nchw x) {
  for (int64_t n = 0; n < x.shape.n; ++n)
    for (int64_t c = 0; c < x.shape.c; ++c)
      for (int64_t g = 0; g < x.shape.h; ++g)
        for (int64_t t = 0; t < x.shape.w; ++t)
          x(n, c, g, t) *= std::min(std::exp(logarithms[size_t(g % l.heads)]), 100.0);
  return x;
}

// The bias of one head for a query that lies `down` and `across` of the key.
double place_bias(const WindowAttention& l, const Values& of, int64_t head, int64_t down, int64_t across) {
  const int64_t last = l.window - 1;
  if (!l.continuous)
    return of.wide("relative_position_bias_table")[size_t(((down + last) * (2 * last + 1) + across + last) * l.heads + head)];
  const auto coordinate = [&](int64_t d) {
    const double v = double(d) / double(last) * 8;
    return (v > 0 ? 1 : v < 0 ? -1 : 0) * std::log2(std::abs(v) + 1) / std::log2(8.0);
  };
  const std::vector<double> first = of.wide("cpb_mlp.0.weight"), bias = of.wide("cpb_mlp.0.bias"),
                            second = of.wide("cpb_mlp.2.weight");
  double sum = 0;
  for (size_t k = 0; k < bias.size(); ++k)
    sum += second[size_t(head) * bias.size() + k] *
           std::max(0.0, first[2 * k] * coordinate(down) + first[2 * k + 1] * coordinate(across) + bias[k]);
  return 16 / (1 + std::exp(-sum));
}

// In a window of a map that was rolled, places that came from beyond its edge see none of the others.
Nchw window_attention(const WindowAttention& l, const Values& of, const Nchw& q, const Nchw& k, const Nchw& v) {
  const int64_t w = l.window, tokens = w * w;
  std::vector<double> bias;
  for (int64_t group = 0; group < q.shape.h; ++group) {
    const int64_t window = group / l.heads, row = window / l.columns * w, column = window % l.columns * w;
    const auto beyond = [&](int64_t t) {
      return 2 * (row + t / w >= l.rows * w - l.shift_h) + (column + t % w >= l.columns * w - l.shift_w);
    };
    for (int64_t i = 0; i < tokens; ++i)
      for (int64_t j = 0; j < tokens; ++j)
        bias.push_back(place_bias(l, of, group % l.heads, i / w - j / w, i % w - j % w) -
                       (beyond(i) == beyond(j) ? 0 : 100));
  }
  return attention(double(l.scale), bias, q.shape.h, q, k, v);
}

std::vector<double> slopes_of(const std::vector<float>& weight) { return {weight.begin(), weight.end()}; }

Nchw value_of(const Layer& layer, const Values& of, const std::vector<const Nchw*>& inputs) {
  const Nchw& x = *inputs[0];
  Gates unused;
  return std::visit(
      overloaded{
          [&](const Input&) { return x; },
          [&](const Dropout&) { return x; },
          [&](const Conv2d& l) { return conv_forward(l, x, of["weight"], of["bias"], {}).value; },
          [&](const ConvTranspose2d& l) {
            return apply(linear_map(l, x.shape, of["weight"], of["bias"], {}), x).value;
          },
          [&](const Linear& l) {
            return linear_forward(x, of["weight"], of["bias"], l.out_features).value;
          },
          [&](const MaxPool2d& l) { return max_pool_forward(l, x).value; },
          [&](const GlobalMaxPool&) { return max_pool_forward(whole_map_pool(x.shape), x).value; },
          [&](const AvgPool2d& l) { return avg_pool_forward(l, x).value; },
          [&](const AdaptiveAvgPool2d& l) { return adaptive_forward(l, x).value; },
          [&](const ReLU& l) { return each(x, [&](double v) { return v < 0 ? 0 : v > l.clip ? double(l.clip) : v; }); },
          [&](const BatchNorm2d& l) { return batch_norm(l, of, x); },
          [&](const LocalResponseNorm& l) { return lrn_forward(l, x).value; },
          [&](const LayerNorm& l) { return set_norm_forward(layer_norm(l, of), x).value; },
          [&](const GroupNorm& l) {
            const NormSets sets{l.channels / l.groups, x.shape.h * x.shape.w, l.eps};
            return set_norm_forward({sets, of.wide("weight"), of.wide("bias")}, x).value;
          },
          [&](const Softmax&) { return softmax_forward(x).value; },
          [&](const Flatten&) { return with_shape(x, {x.shape.n, x.shape.item(), 1, 1}); },
          [&](const Add&) { return binary_forward(BinaryFunction::add, x, *inputs[1]).value; },
          [&](const Concat&) { return concatenated(inputs); },
          [&](const LeakyReLU& l) { return slope_forward({double(l.slope)}, x, &unused).value; },
          [&](const PReLU&) { return slope_forward(slopes_of(of["weight"]), x, &unused).value; },
          [&](const Clip& l) { return ramp_forward(1, 0, l.min, l.max, x).y.value; },
          [&](const Hardsigmoid& l) { return ramp_forward(l.alpha, l.beta, 0, 1, x).y.value; },
          [&](const Smooth& l) { return smooth_forward(l, x).value; },
          [&](const Binary& l) { return binary_forward(l.function, x, *inputs[1]).value; },
          [&](const BinaryConstant& l) {
            const Nchw constant = constant_of(l);
            return (l.reversed ? binary_forward(l.function, constant, x) : binary_forward(l.function, x, constant)).value;
          },
          [&](const MatMul&) { return matmul(x, *inputs[1]); },
          [&](const Attention& l) {
            return attention(double(l.scale), {l.bias.begin(), l.bias.end()}, l.bias_groups, x, *inputs[1], *inputs[2]);
          },
          [&](const WindowAttention& l) { return window_attention(l, of, x, *inputs[1], *inputs[2]); },
          [&](const HeadScale& l) { return scaled_heads(l, of.wide(""), x); },
          [&](const LayerScale&) { return each_channel(x, of.wide("")); },
          [&](const Embedding& l) { return embedded(l, of.wide(""), x); },
          [&](const PlaceLinear& l) {
            std::vector<float> bias = of["bias"];
            for (int64_t i = l.silent_begin; i < l.silent_end; ++i) bias[size_t(i)] = 0;
            return conv_forward(conv2d(l.in_features, l.out_features, 1), x, of["weight"], bias, {}).value;
          },
          [&](const ResizeLike&) { return apply(linear_map(bilinear_to(inputs[1]->shape.h, inputs[1]->shape.w), x.shape), x).value; },
          [&](const auto& l) { return apply(linear_map(l, x.shape), x).value; },
      },
      layer);
}

}  // namespace

std::vector<Nchw> evaluate(const Net& network, const Nchw& x) {
  std::vector<Nchw> values;
  values.reserve(network.nodes.size());
  for (const Node& node : network.nodes) {
    std::vector<const Nchw*> inputs;
    for (int i : node.inputs) inputs.push_back(&values[size_t(i)]);
    if (inputs.empty()) inputs.push_back(&x);
    values.push_back(value_of(node.layer, {network.weights, int(values.size())}, inputs));
  }
  return values;
}

Nchw numeric_gradient(const Net& network, const Nchw& x, int node, int64_t channel, double step) {
  Nchw gradient(x.shape), moved = x;
  const auto score = [&] {
    const Nchw y = evaluate(network, moved)[size_t(node)];
    double sum = 0;
    for (int64_t h = 0; h < y.shape.h; ++h)
      for (int64_t w = 0; w < y.shape.w; ++w) sum += y(0, channel, h, w);
    return sum;
  };
  for (size_t i = 0; i < x.v.size(); ++i) {
    moved.v[i] = x.v[i] + step;
    const double above = score();
    moved.v[i] = x.v[i] - step;
    gradient.v[i] = (above - score()) / (2 * step);
    moved.v[i] = x.v[i];
  }
  return gradient;
}

}  // namespace switchback::test
