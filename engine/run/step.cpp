#include "engine/run/step.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace switchback {

PackedWeights& packed_weights(const Network& network) {
  if (!network.packed) network.packed = std::make_shared<PackedWeights>();
  return *network.packed;
}

GatePlanes gate_planes(const Tape& tape, int node) {
  const Tape::Slot& slot = tape.slot(node);
  const auto* gates = static_cast<const uint32_t*>(tape.data(node));
  return {gates, slot.clip == kNoClip ? nullptr : gates + gate_words(slot.shape.with_n(tape.n))};
}

const AffineWeights& packed_affine(const Network& network, int node) {
  auto [place, fresh] = packed_weights(network).affines.try_emplace(node);
  AffineWeights& affine = place->second;
  if (!fresh) return affine;
  const Node& bn = network.nodes[size_t(node)];
  const auto& layer = std::get<BatchNorm2d>(bn.layer);
  CHECK(!bn.weight.empty(), "{} has no weights; load them first", bn.name);
  for (int64_t c = 0; c < layer.features; ++c) {
    const double s = double(bn.weight[c]) / std::sqrt(double(bn.running_var[c]) + double(layer.eps));
    affine.scale.push_back(float(s));
    affine.shift.push_back(float(double(bn.bias[c]) - double(bn.running_mean[c]) * s));
  }
  return affine;
}

namespace {

const float* on_device(Context& ctx, DeviceCache& cache, int what, const std::vector<float>& values) {
  if (!ctx.gpu) return values.data();
  const auto bytes = [&] {
    const char* p = reinterpret_cast<const char*>(values.data());
    return std::vector<char>(p, p + values.size() * sizeof(float));
  };
  return static_cast<const float*>(cache.get(ctx, what, bytes));
}

}  // namespace

const float* DeviceArray::on(Context& ctx) const { return on_device(ctx, device, 0, values); }
const float* AffineWeights::scale_on(Context& ctx) const { return on_device(ctx, device, 0, scale); }
const float* AffineWeights::shift_on(Context& ctx) const { return on_device(ctx, device, 1, shift); }

const ConvWeights& packed_map_linear(const Network& network, int node, Shape map) {
  auto& maps = packed_weights(network).map_linears;
  const std::tuple key(node, map.h, map.w);
  if (const auto found = maps.find(key); found != maps.end()) return found->second;
  const Node& n = network.nodes[size_t(node)];
  const auto& layer = std::get<Linear>(n.layer);
  CHECK(!n.weight.empty(), "{} has no weights; load them first", n.name);
  const Conv2d conv{.in_channels = map.c, .out_channels = layer.out_features, .kernel_h = map.h, .kernel_w = map.w,
                    .has_bias = layer.has_bias};
  std::vector<float> bias(n.bias.values().begin(), n.bias.values().end());
  return maps.try_emplace(key, conv, n.weight.data(), std::move(bias)).first->second;
}

namespace {

// A convolution's bias with a batch norm folded in, and by what that scales each output channel (empty: by nothing).
struct Folded {
  std::vector<float> bias, scale;
};
Folded folded(const Network& network, const Step& step) {
  const Tensor& own = network.nodes[size_t(step.node)].bias;
  Folded f{{own.values().begin(), own.values().end()}, {}};
  if (step.batch_norm < 0) return f;
  const AffineWeights& bn = packed_affine(network, step.batch_norm);
  f.scale = bn.scale;
  if (f.bias.empty()) {
    f.bias = bn.shift;
  } else {
    for (size_t o = 0; o < f.bias.size(); ++o) f.bias[o] = f.bias[o] * bn.scale[o] + bn.shift[o];
  }
  return f;
}

}  // namespace

const ConvWeights& packed_conv(const Network& network, const Step& step) {
  auto& convs = packed_weights(network).convs;
  const std::pair key(step.node, step.batch_norm);
  if (const auto found = convs.find(key); found != convs.end()) return found->second;
  const Node& node = network.nodes[size_t(step.node)];
  CHECK(!node.weight.empty(), "{} has no weights; load them first", node.name);
  Folded f = folded(network, step);
  const auto& layer = std::get<Conv2d>(node.layer);
  return convs.try_emplace(key, layer, node.weight.data(), std::move(f.bias), std::move(f.scale)).first->second;
}

const ConvTransposeWeights& packed_conv_transpose(const Network& network, const Step& step) {
  auto& convs = packed_weights(network).conv_transposes;
  const std::pair key(step.node, step.batch_norm);
  if (const auto found = convs.find(key); found != convs.end()) return found->second;
  const Node& node = network.nodes[size_t(step.node)];
  CHECK(!node.weight.empty(), "{} has no weights; load them first", node.name);
  const Folded f = folded(network, step);
  return convs.try_emplace(key, std::get<ConvTranspose2d>(node.layer), node.weight.data(), f.bias, f.scale).first->second;
}

Slopes packed_slopes(Context& ctx, const Network& network, int node) {
  auto [place, fresh] = packed_weights(network).arrays.try_emplace(node);
  const Node& n = network.nodes[size_t(node)];
  CHECK(!n.weight.empty(), "{} has no weights; load them first", n.name);
  if (n.weight.count() == 1) return {.all = n.weight[0]};
  if (fresh) place->second.values.assign(n.weight.values().begin(), n.weight.values().end());
  return {.by_channel = place->second.on(ctx)};
}

ConstView packed_constant(Context& ctx, const Network& network, int node) {
  auto [place, fresh] = packed_weights(network).arrays.try_emplace(node);
  const auto& layer = std::get<BinaryConstant>(network.nodes[size_t(node)].layer);
  const int64_t c = layer.shape.c, places = layer.shape.h * layer.shape.w;
  if (fresh)
    for (int64_t p = 0; p < places; ++p)
      for (int64_t i = 0; i < c; ++i) place->second.values.push_back(layer.values[size_t(i * places + p)]);
  return {place->second.on(ctx), layer.shape, DType::f32};
}

const Resampling& packed_resampling(const Network& network, int node, Shape in) {
  auto& all = packed_weights(network).resamplings;
  const std::tuple key(node, in.c, in.h, in.w);
  if (const auto found = all.find(key); found != all.end()) return found->second;
  return std::visit(
      [&](const auto& layer) -> const Resampling& {
        if constexpr (std::is_constructible_v<Resampling, decltype(layer), Shape>)
          return all.try_emplace(key, layer, in).first->second;
        else
          fail("{} takes no input from elsewhere", network.nodes[size_t(node)].name);
      },
      network.nodes[size_t(node)].layer);
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

namespace {

void set_shift(StepShift& shift, std::vector<float> values) {  // for each channel
  shift.shape = {1, int64_t(values.size()), 1, 1};
  shift.array.values = std::move(values);
}

// What a padding makes of zeros.
void set_padding_shift(const Network& network, int node, const Pad& pad, Shape in, StepShift& shift) {
  if (pad.mode != Pad::Mode::constant || pad.value == 0) return;
  Context host;
  const Resampling& tables = packed_resampling(network, node, in);
  std::vector<float> zeros(static_cast<size_t>(in.item()), 0.f);
  shift.shape = tables.out();
  shift.array.values.resize(static_cast<size_t>(shift.shape.item()));
  resample_forward(host, tables, {zeros.data(), in.with_n(1), DType::f32}, {shift.array.values.data(), shift.shape, DType::f32});
}

void set_constant_shift(const Network& network, int node, const BinaryConstant& l, StepShift& shift) {
  if (l.function != BinaryFunction::add && l.function != BinaryFunction::sub) return;
  Context host;
  const ConstView constant = packed_constant(host, network, node);
  shift.shape = constant.shape;
  shift.array.values.assign(constant.as<float>(), constant.as<float>() + constant.shape.item());
  if (l.function == BinaryFunction::sub && !l.reversed)
    for (float& v : shift.array.values) v = -v;
}

}  // namespace

const StepShift* packed_shift(const Network& network, const Step& step, Shape in) {
  const std::tuple key(step.node, step.batch_norm, in.h, in.w);
  const auto [place, fresh] = packed_weights(network).shifts.try_emplace(key);
  StepShift& shift = place->second;
  const Node& node = network.nodes[size_t(step.node)];
  if (fresh)
    std::visit(overloaded{
                   [&](const Conv2d&) { set_shift(shift, folded(network, step).bias); },
                   [&](const ConvTranspose2d&) { set_shift(shift, folded(network, step).bias); },
                   [&](const Linear&) { set_shift(shift, {node.bias.values().begin(), node.bias.values().end()}); },
                   [&](const BatchNorm2d&) { set_shift(shift, packed_affine(network, step.node).shift); },
                   [&](const BinaryConstant& l) { set_constant_shift(network, step.node, l, shift); },
                   [&](const Pad& l) { set_padding_shift(network, step.node, l, in, shift); },
                   [](const auto&) {},
               },
               node.layer);
  return shift.array.values.empty() ? nullptr : &shift;
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

std::vector<int> holders(const Network& network, const std::vector<Shape>& shapes, const std::vector<int>& observe,
                         bool maps_to_linear) {
  const size_t count = network.nodes.size();
  const auto is_flatten = [&](size_t i) { return std::holds_alternative<Flatten>(network.nodes[i].layer); };
  std::vector<int> holder(count);
  for (size_t i = 0; i < count; ++i) {
    const Node& n = network.nodes[i];
    const bool flat = is_flatten(i) && shapes[size_t(n.inputs[0])].h == 1 && shapes[size_t(n.inputs[0])].w == 1;
    holder[i] = std::holds_alternative<Dropout>(n.layer) || flat ? holder[size_t(n.inputs[0])] : int(i);
  }
  if (!maps_to_linear) return holder;
  std::vector<bool> needed(count, false);  // flattens whose own value somebody wants
  for (int i : observe) needed[size_t(holder[size_t(i)])] = true;
  for (size_t i = 0; i < count; ++i) {
    const Node& n = network.nodes[i];
    if (std::holds_alternative<Linear>(n.layer) || std::holds_alternative<Dropout>(n.layer)) continue;
    for (int input : n.inputs) needed[size_t(holder[size_t(input)])] = true;
  }
  for (size_t i = 0; i < count; ++i)
    if (is_flatten(size_t(holder[i])) && !needed[size_t(holder[i])])
      holder[i] = holder[size_t(network.nodes[size_t(holder[i])].inputs[0])];
  return holder;
}

}  // namespace switchback
