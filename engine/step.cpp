#include "engine/step.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace switchback {

PackedWeights& packed_weights(const Network& network) {
  if (!network.packed) network.packed = std::make_shared<PackedWeights>();
  return *network.packed;
}

const std::pair<std::vector<float>, std::vector<float>>& packed_affine(const Network& network, int node) {
  auto [place, fresh] = packed_weights(network).affines.try_emplace(node);
  auto& [scale, shift] = place->second;
  if (!fresh) return place->second;
  const Node& bn = network.nodes[size_t(node)];
  const auto& layer = std::get<BatchNorm2d>(bn.layer);
  CHECK(!bn.weight.empty(), "{} has no weights; load them first", bn.name);
  for (int64_t c = 0; c < layer.features; ++c) {
    const double s = double(bn.weight[c]) / std::sqrt(double(bn.running_var[c]) + double(layer.eps));
    scale.push_back(float(s));
    shift.push_back(float(double(bn.bias[c]) - double(bn.running_mean[c]) * s));
  }
  return place->second;
}

const ConvWeights& packed_conv(const Network& network, const Step& step) {
  auto& convs = packed_weights(network).convs;
  const std::pair key(step.node, step.batch_norm);
  if (const auto found = convs.find(key); found != convs.end()) return found->second;
  const Node& node = network.nodes[size_t(step.node)];
  const auto& layer = std::get<Conv2d>(node.layer);
  CHECK(!node.weight.empty(), "{} has no weights; load them first", node.name);
  std::vector<float> bias(node.bias.values().begin(), node.bias.values().end()), scale;
  if (step.batch_norm >= 0) {
    const auto& [bn_scale, bn_shift] = packed_affine(network, step.batch_norm);
    scale = bn_scale;
    if (bias.empty()) {
      bias = bn_shift;
    } else {
      for (size_t o = 0; o < bias.size(); ++o) bias[o] = bias[o] * bn_scale[o] + bn_shift[o];
    }
  }
  return convs.try_emplace(key, layer, node.weight.data(), std::move(bias), std::move(scale)).first->second;
}

const LinearWeights& packed_linear(const Network& network, int node) {
  auto [place, fresh] = packed_weights(network).linears.try_emplace(node);
  if (fresh) {
    const Node& n = network.nodes[size_t(node)];
    CHECK(!n.weight.empty(), "{} has no weights; load them first", n.name);
    place->second.linear = std::get<Linear>(n.layer);
    place->second.weight = n.weight.data();
    place->second.bias = n.bias.empty() ? nullptr : n.bias.data();
  }
  return place->second;
}

size_t place(std::span<const Lifetime> buffers, std::vector<size_t>& offsets) {
  constexpr size_t kAlign = 64;
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return buffers[a].bytes > buffers[b].bytes; });
  offsets.assign(buffers.size(), kNowhere);
  size_t total = 0;
  std::vector<size_t> placed;
  for (size_t i : order) {
    if (buffers[i].bytes == 0) continue;
    std::vector<std::pair<size_t, size_t>> taken;  // by what lives at the same time
    for (size_t j : placed)
      if (buffers[j].first <= buffers[i].last && buffers[i].first <= buffers[j].last)
        taken.emplace_back(offsets[j], offsets[j] + buffers[j].bytes);
    std::sort(taken.begin(), taken.end());
    size_t at = 0;
    for (const auto& [begin, end] : taken) {
      if (at + buffers[i].bytes <= begin) break;
      at = std::max(at, (end + kAlign - 1) / kAlign * kAlign);
    }
    offsets[i] = at;
    total = std::max(total, at + buffers[i].bytes);
    placed.push_back(i);
  }
  return total;
}

int holder(const Network& network, const std::vector<Shape>& shapes, int node) {
  for (;;) {
    const Node& n = network.nodes[size_t(node)];
    const bool flat = std::holds_alternative<Flatten>(n.layer) && shapes[size_t(n.inputs[0])].h == 1 &&
                      shapes[size_t(n.inputs[0])].w == 1;
    if (!std::holds_alternative<Dropout>(n.layer) && !flat) return node;
    node = n.inputs[0];
  }
}

}  // namespace switchback
