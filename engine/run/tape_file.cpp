// Tapes, and tapes as safetensors files: NODE.gate [N,C,H,W] (0 below, 1 inside, 2 above a clip), NODE.switch [N,C,h,w].
#include <map>

#include "engine/files/safetensors.h"
#include "engine/run/tape.h"

namespace switchback {
namespace {

Dims dims_of(const Tape& tape, const Tape::Slot& slot) { return {tape.n, slot.shape.c, slot.shape.h, slot.shape.w}; }

// visit(index in NCHW order, index of the pixel, channel)
template <typename F>
void each_element(const Dims& d, const F& visit) {
  int64_t i = 0;
  for (int64_t n = 0; n < d[0]; ++n)
    for (int64_t c = 0; c < d[1]; ++c)
      for (int64_t p = 0; p < d[2] * d[3]; ++p, ++i) visit(i, n * d[2] * d[3] + p, c);
}

// Words of gate bits: of a pixel, and of a whole plane.
struct GateWords {
  int64_t words, plane;
  GateWords(const Tape& tape, const Tape::Slot& slot)
      : words(gate_words_per_pixel(slot.shape.c)), plane(gate_words(slot.shape.with_n(tape.n))) {}
};

std::string name_of(const Network& network, const Tape::Slot& slot) {
  return network.nodes[slot.node].name + (slot.kind == Tape::Kind::gate ? ".gate" : ".switch");
}

}  // namespace

const Tape::Slot* Tape::find(Kind kind, int node) const {
  for (const Slot& s : slots)
    if (s.node == node && s.kind == kind) return &s;
  return nullptr;
}

const Tape::Slot& Tape::slot(Kind kind, int node) const {
  const Slot* found = find(kind, node);
  CHECK(found, "the tape holds nothing of that kind for node {}", node);
  return *found;
}

GatePlanes gate_planes(const Tape& tape, int node) {
  const Tape::Slot& slot = tape.slot(Tape::Kind::gate, node);
  const auto* gates = reinterpret_cast<const uint32_t*>(tape.data(slot));
  return {gates, slot.planes() == 1 ? nullptr : gates + gate_words(slot.shape.with_n(tape.n))};
}

void save_tape(Context& ctx, const Network& network, const Tape& tape, const std::string& path) {
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<std::vector<int16_t>> words;
  bytes.reserve(tape.slots.size());
  words.reserve(tape.slots.size());
  std::vector<NamedTensor> list;
  for (const Tape::Slot& slot : tape.slots) {
    if (slot.kind != Tape::Kind::gate && slot.kind != Tape::Kind::switches) continue;
    const Dims dims = dims_of(tape, slot);
    std::vector<char> host(slot.bytes);
    ctx.copy_out(host.data(), tape.data(slot), slot.bytes);
    const void* data = host.data();
    if (slot.kind == Tape::Kind::switches && slot.element_bytes == 2) {
      auto& out = words.emplace_back(size_t(count(dims)));
      each_element(dims, [&](int64_t i, int64_t pixel, int64_t c) {
        out[i] = int16_t(static_cast<const uint16_t*>(data)[pixel * dims[1] + c]);
      });
      list.emplace_back(name_of(network, slot), dims, std::span<const int16_t>(out));
      continue;
    }
    auto& out = bytes.emplace_back(size_t(count(dims)));
    if (slot.kind == Tape::Kind::switches) {
      each_element(dims, [&](int64_t i, int64_t pixel, int64_t c) {
        out[i] = static_cast<const uint8_t*>(data)[pixel * dims[1] + c];
      });
    } else {
      const GateWords g(tape, slot);
      const auto* gates = static_cast<const uint32_t*>(data);
      const auto bit = [&](int64_t at, int64_t c) { return gates[at + c / 32] >> (c % 32) & 1u; };
      each_element(dims, [&](int64_t i, int64_t pixel, int64_t c) {
        const int64_t at = pixel * g.words;
        out[i] = bit(at, c) ? 1 : slot.planes() > 1 && bit(g.plane + at, c) ? 2 : 0;
      });
    }
    list.emplace_back(name_of(network, slot), dims, std::span<const uint8_t>(out));
  }
  write_safetensors(path, list, {{"model", network.name}, {"format", "switchback tape"}});
}

void load_tape(Context& ctx, const Network& network, Tape& tape, const std::string& path) {
  const Safetensors file(path);
  const char* hint = "make a tape with --save-tape for the same model and input";
  for (const Tape::Slot& slot : tape.slots) {
    if (slot.kind != Tape::Kind::gate && slot.kind != Tape::Kind::switches) continue;
    const std::string name = name_of(network, slot);
    const Dims dims = dims_of(tape, slot);
    if (!file.has(name)) throw Error(fmt::format("{} has no '{}'", path, name), hint);
    if (file.dims(name) != dims)
      throw Error(fmt::format("'{}' in {} is {}, this pass has {}", name, path, to_string(file.dims(name)), to_string(dims)),
                  hint);
    const std::vector<int64_t> values = file.load_ints(name);
    const auto& layer = network.nodes[slot.node].layer;
    const auto* pool = std::get_if<MaxPool2d>(&layer);
    const bool switches = slot.kind == Tape::Kind::switches;
    const int64_t most = pool ? pool->window() - 1
                         : switches ? (int64_t(1) << 8 * slot.element_bytes) - 1  // of a pool over the whole map
                                    : slot.planes();
    for (int64_t v : values)
      if (v < 0 || v > most) throw Error(fmt::format("'{}' in {} holds {}; valid are 0 to {}", name, path, v, most), hint);
    std::vector<char> host(slot.bytes);
    void* data = host.data();
    if (switches) {
      each_element(dims, [&](int64_t i, int64_t pixel, int64_t c) {
        const int64_t at = pixel * dims[1] + c;
        if (slot.element_bytes == 2) static_cast<uint16_t*>(data)[at] = uint16_t(values[i]);
        else static_cast<uint8_t*>(data)[at] = uint8_t(values[i]);
      });
    } else {
      const GateWords g(tape, slot);
      auto* gates = static_cast<uint32_t*>(data);
      std::fill_n(gates, g.plane * slot.planes(), 0u);
      each_element(dims, [&](int64_t i, int64_t pixel, int64_t c) {
        if (const int64_t v = values[i]) gates[(v == 2 ? g.plane : 0) + pixel * g.words + c / 32] |= 1u << (c % 32);
      });
    }
    ctx.copy_in(tape.data(slot), host.data(), slot.bytes);
  }
}

}  // namespace switchback
