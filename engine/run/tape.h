// Tape: what backward needs of a forward pass.
#pragma once

#include <cstdint>
#include <string>

#include "engine/lists.h"
#include "engine/network.h"
#include "kernels/device/context.h"

namespace switchback {

// Gate bits of every ReLU (kernels/types.h), switches of every max pool, and the values that smooth layers and products
// need. A value: forward fills it, backward takes it const; its memory (on the device that forward ran on) is reused by
// the next forward. Values that it keeps lie here and nowhere else: the steps that make them write to the tape.
struct Tape {
  enum class Kind { gate, switches, value, moments };
  struct Slot {
    Kind kind;
    int node;           // the ReLU or max pool; the node whose value is kept; the batch norm of moments (in training)
    Shape shape;        // of that node's output, n = the plan's capacity
    size_t offset, bytes;
    int element_bytes;  // of a switch (1 or 2) or a value (4 or 2)
    float clip;         // of a ReLU
    int planes() const { return kind == Kind::gate && clip != kNoClip ? 2 : 1; }
    size_t pixel_bytes() const {  // of one plane
      return kind == Kind::gate ? size_t(gate_words_per_pixel(shape.c)) * 4 : size_t(shape.c) * size_t(element_bytes);
    }
    size_t item_bytes() const { return size_t(shape.h * shape.w) * pixel_bytes(); }
  };
  List<Slot> slots;
  int64_t n = 0;  // items of the forward pass that filled it
  Memory memory;

  const Slot* find(Kind kind, int node) const;  // null where it has none
  const Slot& slot(Kind kind, int node) const;  // throws
  char* data(const Slot& slot) const { return memory.as<char>() + slot.offset; }
};

// The planes of a gate slot: `above` is null where the unit has no upper limit.
struct GatePlanes {
  const uint32_t *gates = nullptr, *above = nullptr;
};
GatePlanes gate_planes(const Tape& tape, int node);

// Tapes as safetensors files (NODE.gate U8 [N,C,H,W], NODE.switch U8 or I16), so that maps can be computed with
// another program's gates and switches. load_tape replaces the contents of a tape that a forward pass has filled.
void save_tape(Context& ctx, const Network& network, const Tape& tape, const std::string& path);
void load_tape(Context& ctx, const Network& network, Tape& tape, const std::string& path);

}  // namespace switchback
