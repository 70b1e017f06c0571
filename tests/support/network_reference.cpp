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
Nchw attention(const Attention& l, const Nchw& q, const Nchw& k, const Nchw& v) {
  Nchw p({q.shape.n, k.shape.w, q.shape.h, q.shape.w});
  for (int64_t n = 0; n < p.shape.n; ++n)
    for (int64_t g = 0; g < p.shape.h; ++g)
      for (int64_t i = 0; i < p.shape.w; ++i)
        for (int64_t j = 0; j < p.shape.c; ++j) {
          double score = 0;
          for (int64_t c = 0; c < q.shape.c; ++c) score += q(n, c, g, i) * k(n, c, g, j);
          p(n, j, g, i) = double(l.scale) * score;
          if (!l.bias.empty()) p(n, j, g, i) += double(l.bias[size_t((g % l.bias_groups * p.shape.w + i) * p.shape.c + j)]);
        }
  return matmul(softmax_forward(p).value, v);
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
          [&](const Attention& l) { return attention(l, x, *inputs[1], *inputs[2]); },
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
