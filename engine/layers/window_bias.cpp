#include "engine/layers/window_bias.h"

#include <cmath>

#include "kernels/attention/matmul.h"
#include "kernels/move/transpose.h"
#include "kernels/normalize/batch_norm.h"
#include "kernels/pointwise/binary.h"

namespace switchback {
namespace {

constexpr double kSteepness = 16;  // of Swin V2's sigmoid

int64_t tokens(const WindowAttention& l) { return l.window * l.window; }
int64_t positions(const WindowAttention& l) { return (2 * l.window - 1) * (2 * l.window - 1); }

// The row of the table for query i and key j.
int64_t relative(const WindowAttention& l, int64_t i, int64_t j) {
  const int64_t w = l.window;
  return (i / w - j / w + w - 1) * (2 * w - 1) + (i % w - j % w + w - 1);
}

// The network of relative positions, one value after the other.
struct PositionNet {
  static constexpr int64_t kInner = WindowAttention::kInner;
  std::span<const float> first, bias, second;  // [inner,2], [inner], [heads,inner]
  explicit PositionNet(const StepWeights& s)
      : first(s.parameter("cpb_mlp.0.weight")),
        bias(s.parameter("cpb_mlp.0.bias")),
        second(s.parameter("cpb_mlp.2.weight")) {}

  // A position's two numbers: of d in −(w−1) … w−1, sign(d')·log2(|d'| + 1)/3 with d' = 8·d/(w−1).
  static std::array<double, 2> input(const WindowAttention& l, int64_t position) {
    const auto logarithm = [&](int64_t at) {
      const double d = 8 * double(at - (l.window - 1)) / double(std::max<int64_t>(1, l.window - 1));
      return std::copysign(std::log2(std::abs(d) + 1) / 3, d);
    };
    return {logarithm(position / (2 * l.window - 1)), logarithm(position % (2 * l.window - 1))};
  }
  std::vector<double> hidden(std::array<double, 2> x) const {
    std::vector<double> h(static_cast<size_t>(kInner));
    for (size_t k = 0; k < h.size(); ++k)
      h[k] = std::max(0.0, double(first[2 * k]) * x[0] + double(first[2 * k + 1]) * x[1] + double(bias[k]));
    return h;
  }
  double sigmoid(const std::vector<double>& h, int64_t head) const {
    double sum = 0;
    for (size_t k = 0; k < h.size(); ++k) sum += double(second[size_t(head * kInner) + k]) * h[k];
    return 1 / (1 + std::exp(-sum));
  }
};

// [(2w−1)²,heads]
std::vector<float> table(const WindowAttention& l, const StepWeights& s) {
  if (!l.continuous) {
    const std::span<const float> own = s.parameter("relative_position_bias_table");
    return {own.begin(), own.end()};
  }
  const PositionNet net(s);
  std::vector<float> all;
  for (int64_t p = 0; p < positions(l); ++p) {
    const std::vector<double> h = net.hidden(PositionNet::input(l, p));
    for (int64_t head = 0; head < l.heads; ++head) all.push_back(float(kSteepness * net.sigmoid(h, head)));
  }
  return all;
}

// Which of the parts that the shift brings together a place belongs to, along one axis.
int part(int64_t at, int64_t size, int64_t window, int64_t shift) {
  if (shift == 0 || at < size - window) return 0;
  return at < size - shift ? 1 : 2;
}

// The gradient at the scores, summed over items and windows: [heads,w²,w²], on the host.
std::vector<float> score_gradients(const WindowAttention& l, const LearnCall& c) {
  Context& ctx = c.ctx;
  const ConstView q = c.x[0], k = c.x[1], v = c.x[2];
  const int64_t t = tokens(l), groups = q.shape.h, n = q.shape.n;
  const Shape all{n, t, groups, t};
  std::vector<Memory> kept;
  const auto make = [&](Shape shape) {
    kept.push_back(ctx.allocate(size_t(shape.count()) * sizeof(float)));
    return View{kept.back().data(), shape, DType::f32};
  };
  const auto turned = [&](ConstView x) {  // [n,d,G,T] to [n,T,G,d]
    const Transpose turn{.sizes = {groups, t, x.shape.c}, .axes = {0, 2, 1}, .c = t, .h = groups, .w = x.shape.c};
    const View y = make({n, t, groups, x.shape.c});
    transpose_forward(ctx, turn, x, y);
    return y;
  };
  const View s = make(all), p = make(all), dp = make(all);
  matmul_forward(ctx, q, turned(k), p);
  const DeviceArray& scale =
      c.weights.packed<DeviceArray>([&] { return DeviceArray(std::vector<float>{l.scale}); }, {1});
  binary_forward(ctx, {BinaryFunction::mul}, p, {scale.on(ctx), {1, 1, 1, 1}, DType::f32}, s);
  const DeviceArray& bias = c.weights.packed<DeviceArray>(
      [&] {
        const std::vector<float> once = window_bias(l, c.weights);
        std::vector<float> repeated(groups * t * t);
        for (size_t i = 0; i < repeated.size(); ++i) repeated[i] = once[i % once.size()];
        return DeviceArray(std::move(repeated));
      },
      {2});
  binary_forward(ctx, {BinaryFunction::add}, s, {bias.on(ctx), {1, t, groups, t}, DType::f32}, p);
  softmax_forward(ctx, p, s);
  matmul_forward(ctx, c.dy, turned(v), p);
  softmax_backward(ctx, p, s, dp, {});
  const int64_t scores = l.heads * t * t;
  const View sums = make({1, scores, 1, 1});
  ctx.zero(sums.data, size_t(scores) * sizeof(float));
  add_channel_sums(ctx, {dp.data, {n * groups / l.heads, scores, 1, 1}, DType::f32}, static_cast<float*>(sums.data));
  std::vector<float> host(static_cast<size_t>(scores));
  ctx.copy_out(host.data(), sums.data, host.size() * sizeof(float));
  return host;
}

void add_on_host(const LearnCall& c, const char* name, const std::vector<double>& more) {
  std::vector<float> all(more.size());
  c.ctx.copy_out(all.data(), c.of(name), all.size() * sizeof(float));
  for (size_t i = 0; i < all.size(); ++i) all[i] += float(more[i]);
  c.ctx.copy_in(c.of(name), all.data(), all.size() * sizeof(float));
}

}  // namespace

std::vector<float> window_bias(const WindowAttention& l, const StepWeights& s) {
  const std::vector<float> by_position = table(l, s);
  const int64_t t = tokens(l), w = l.window;
  const bool shifted = l.shift_h + l.shift_w > 0;
  std::vector<float> all;
  for (int64_t window = 0; window < (shifted ? l.rows * l.columns : 1); ++window) {
    const auto region = [&](int64_t token) {
      const int64_t row = window / l.columns * w + token / w, column = window % l.columns * w + token % w;
      return 3 * part(row, l.rows * w, w, l.shift_h) + part(column, l.columns * w, w, l.shift_w);
    };
    for (int64_t head = 0; head < l.heads; ++head)
      for (int64_t i = 0; i < t; ++i)
        for (int64_t j = 0; j < t; ++j)
          all.push_back(by_position[relative(l, i, j) * l.heads + head] +
                        (shifted && region(i) != region(j) ? -100.f : 0.f));
  }
  return all;
}

void learn_window_bias(const WindowAttention& l, const LearnCall& c) {
  const std::vector<float> scores = score_gradients(l, c);
  const int64_t t = tokens(l);
  std::vector<double> by_position(positions(l) * l.heads, 0.0);
  for (int64_t head = 0; head < l.heads; ++head)
    for (int64_t i = 0; i < t; ++i)
      for (int64_t j = 0; j < t; ++j)
        by_position[relative(l, i, j) * l.heads + head] += double(scores[(head * t + i) * t + j]);
  if (!l.continuous) return add_on_host(c, "relative_position_bias_table", by_position);
  const PositionNet net(c.weights);
  std::vector<double> first(net.first.size()), bias(net.bias.size()), second(net.second.size());
  for (int64_t p = 0; p < positions(l); ++p) {
    const std::array<double, 2> x = PositionNet::input(l, p);
    const std::vector<double> h = net.hidden(x);
    std::vector<double> dh(h.size(), 0.0);
    for (int64_t head = 0; head < l.heads; ++head) {
      const double y = net.sigmoid(h, head), g = by_position[p * l.heads + head] * kSteepness * y * (1 - y);
      for (size_t k = 0; k < h.size(); ++k) {
        const size_t at = size_t(head * PositionNet::kInner) + k;
        second[at] += g * h[k];
        dh[k] += g * double(net.second[at]);
      }
    }
    for (size_t k = 0; k < h.size(); ++k) {
      if (h[k] <= 0) continue;
      first[2 * k] += dh[k] * x[0], first[2 * k + 1] += dh[k] * x[1], bias[k] += dh[k];
    }
  }
  add_on_host(c, "cpb_mlp.0.weight", first);
  add_on_host(c, "cpb_mlp.0.bias", bias);
  add_on_host(c, "cpb_mlp.2.weight", second);
}

}  // namespace switchback
