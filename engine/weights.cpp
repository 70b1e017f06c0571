#include "engine/weights.h"

#include <fmt/ranges.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "engine/files/safetensors.h"
#include "engine/run/packed.h"
#include "kernels/noise/noise.h"

namespace switchback {
namespace {

uint64_t next_version() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}

}  // namespace

std::string full_name(const Node& node, std::string_view parameter) {
  if (parameter.empty()) return node.name;
  return fmt::format("{}{}{}", node.name, node.name.ends_with(".in_proj") ? '_' : '.', parameter);
}
std::string full_name(const Network& network, const Parameter& p) { return full_name(network.nodes[p.node], p.name); }

Weights::Weights() : state_(std::make_shared<State>()) {}

Weights::Weights(const Network& network) : Weights() {
  State& s = *state_;
  for (int node = 0; node < network.nodes.count(); ++node) {
    s.first.push_back(int(s.list.size()));
    for (ParameterSpec& spec : parameters(network.nodes[node].layer)) {
      s.list.push_back({node, std::move(spec.name), std::move(spec.dims), s.count, spec.trainable});
      s.count += (s.list.back().count() + 15) / 16 * 16;  // each begins on a cache line
    }
  }
  s.first.push_back(int(s.list.size()));
  s.values = Memory(nullptr, size_t(s.count) * sizeof(float));
  for (size_t i = 0; i < s.list.size(); ++i) {  // what lies between parameters is compared, summed and saved like them
    const int64_t end = s.list[i].offset + s.list[i].count(), next = i + 1 < s.list.size() ? s.list[i + 1].offset : s.count;
    std::fill(s.values.as<float>() + end, s.values.as<float>() + next, 0.f);
  }
  s.version = next_version();
}

const Parameter* Weights::find(int node, std::string_view name) const {
  const State& s = *state_;
  if (node + 1 >= s.first.count()) return nullptr;
  for (int i = s.first[node]; i < s.first[node + 1]; ++i)
    if (s.list[i].name == name) return &s.list[i];
  return nullptr;
}

std::span<const float> Weights::values(int node, std::string_view name) const {
  const Parameter* p = find(node, name);
  return p ? values(*p) : std::span<const float>();
}

Tensor Weights::tensor(int node, std::string_view name) const {
  const Parameter* p = find(node, name);
  if (!p) return {};
  Tensor t(p->dims);
  std::ranges::copy(values(*p), t.data());
  return t;
}

std::span<float> Weights::edit(const Parameter& p) {
  const int64_t offset = p.offset, count = p.count();  // `p` may belong to the state that is left
  const int node = p.node;
  const std::shared_ptr<Packed> packed = state_->packed;
  const std::span<float> all = edit();
  if (packed) state_->packed = std::make_shared<Packed>(packed->without(node));  // other nodes' stay what they are
  return all.subspan(size_t(offset), size_t(count));
}

std::span<float> Weights::edit() {
  if (state_.use_count() > 1) {
    const std::shared_ptr<const State> old = state_;
    state_ = std::make_shared<State>();
    state_->list = old->list, state_->first = old->first, state_->count = old->count;
    state_->values = Memory(nullptr, old->values.size());
    std::memcpy(state_->values.data(), old->values.data(), old->values.size());
  }
  state_->version = next_version();
  state_->packed.reset();
  state_->device = DeviceCache();
  return {state_->values.as<float>(), size_t(state_->count)};
}

std::span<float> Weights::edit(int node, std::string_view name) {
  const Parameter* p = find(node, name);
  CHECK(p, "node {} has no parameter {}", node, name);
  return edit(*p);
}

const float* Weights::on(Context& ctx) const {
  if (!ctx.gpu) return data();
  return static_cast<const float*>(state_->device.get(ctx, 0, [&] {
    const auto* bytes = reinterpret_cast<const char*>(data());
    return std::vector<char>(bytes, bytes + state_->values.size());
  }));
}

Packed& Weights::packed() const {
  if (!state_->packed) state_->packed = std::make_shared<Packed>();
  return *state_->packed;
}

Weights load_weights(const Network& network, const StateDict& file) {
  Weights weights(network);
  std::vector<std::string> missing, misshapen, surplus;
  std::set<std::string> known;
  for (const Parameter& p : weights.list()) {
    const std::string name = full_name(network, p);
    known.insert(name);
    if (!file.has(name))
      missing.push_back(name);
    else if (file.dims(name) != p.dims)
      misshapen.push_back(fmt::format("{} is {}, should be {}", name, to_string(file.dims(name)), to_string(p.dims)));
  }
  const auto ignored = [&](const std::string& name) {
    return name.ends_with(".num_batches_tracked") || name.ends_with(".relative_position_index") ||
           name.ends_with(".relative_coords_table") ||
           std::any_of(network.training_only.begin(), network.training_only.end(),
                       [&](const std::string& prefix) { return name.starts_with(prefix); });
  };
  for (const std::string& name : file.names())
    if (!ignored(name) && !known.contains(name)) surplus.push_back(name);
  std::vector<std::string> parts;
  const auto say = [&](const char* what, const std::vector<std::string>& list) {
    if (!list.empty()) parts.push_back(fmt::format("{} {}: {}", list.size(), what, fmt::join(list, ", ")));
  };
  say("missing", missing);
  say("misshapen", misshapen);
  say("surplus", surplus);
  if (!parts.empty())
    throw Error(fmt::format("these are not weights of {}: {}", network.name, fmt::join(parts, "; ")),
                "--model must name the architecture that the weights were made for");
  for (const Parameter& p : weights.list()) file.load(full_name(network, p), weights.edit(p));
  return weights;
}

Weights random_weights(const Network& network, uint64_t seed) {
  Weights weights(network);
  const std::array<uint32_t, 2> key{uint32_t(seed), uint32_t(seed >> 32)};
  for (const Parameter& p : weights.list()) {
    const std::string name = full_name(network, p);
    const uint32_t stream = uint32_t(crc32(0, reinterpret_cast<const Bytef*>(name.data()), uInt(name.size())));
    const std::vector<ParameterSpec> specs = parameters(network.nodes[p.node].layer);
    const auto spec = std::ranges::find(specs, p.name, &ParameterSpec::name);
    const float scale = spec->scale, offset = spec->offset;
    const int64_t n = p.count();
    float* to = weights.edit(p).data();
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < (n + 3) / 4; ++block) {
      const auto words = philox4x32({uint32_t(block), uint32_t(uint64_t(block) >> 32), stream, 0x80000000u}, key);
      for (int64_t i = 4 * block; i < std::min(n, 4 * block + 4); ++i) {
        const float u = float(words[i % 4] >> 8) * 0x1p-24f;
        const float v = 2.f * u - 1.f;
        const float scaled = v * scale;  // rounded before the offset is added, as NumPy does
        to[i] = offset == 0.f ? scaled : offset + scaled;
      }
    }
  }
  return weights;
}

Weights initial_weights(const Network& network, uint64_t seed) {
  Weights weights = random_weights(network, seed);
  for (const Parameter& p : weights.list()) {
    const std::vector<ParameterSpec> specs = parameters(network.nodes[p.node].layer);
    const float offset = std::ranges::find(specs, p.name, &ParameterSpec::name)->offset;
    if (p.name != "weight" || offset != 0) std::ranges::fill(weights.edit(p), offset);
  }
  return weights;
}

void save_weights(const Network& network, const Weights& weights, const std::string& path) {
  std::vector<NamedTensor> list;
  for (const Parameter& p : weights.list()) list.emplace_back(full_name(network, p), p.dims, weights.values(p));
  write_safetensors(path, list, {{"model", network.name}, {"format", "pt"}});
}

}  // namespace switchback
