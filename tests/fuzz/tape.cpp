// Tapes of other programs (load_tape of engine/run/tape.h): a safetensors file that has to fit a forward pass.
#include <cstring>

#include "engine/run/tape.h"
#include "kernels/conv/conv.h"
#include "tests/fuzz/fuzz.h"

using namespace switchback;

// A context brings oneDNN's convolutions along (kernels/conv/dnnl.cpp), which ask for this. None runs here, and so the rest
// of kernels/conv/conv.cpp, with the kernels that it calls, need not be built.
Shape switchback::output_shape(const Conv2d&, Shape) { fuzz::broken(__FILE__, __LINE__, "no convolution in tapes"); }

namespace {

constexpr fuzz::Allowance kAllowance{48, 1 << 14};  // as safetensors.cpp

// A network of one layer of each kind that leaves something on the tape, and a tape of two items of it.
struct Pass {
  Context ctx;
  Network network;
  Tape tape;
  Pass() {
    network.nodes.push_back({"x", Input{}, {}});
    network.nodes.push_back({"relu", ReLU{}, {0}});
    network.nodes.push_back({"relu6", ReLU{6}, {1}});
    network.nodes.push_back({"pool", MaxPool2d{}, {2}});
    network.nodes.push_back({"largest", GlobalMaxPool{}, {3}});
    const Shape map{2, 33, 2, 2}, one{2, 33, 1, 1};
    const size_t gates = size_t(gate_words(map)) * sizeof(uint32_t);
    add(Tape::Kind::gate, 1, map, gates, 4, kNoClip);
    add(Tape::Kind::gate, 2, map, 2 * gates, 4, 6);
    add(Tape::Kind::switches, 3, one, size_t(one.n * one.c), 1, kNoClip);
    add(Tape::Kind::switches, 4, one, 2 * size_t(one.n * one.c), 2, kNoClip);
    tape.n = 2;
    const Tape::Slot& last = tape.slots.back();
    tape.memory = ctx.allocate(last.offset + last.bytes);
    std::memset(tape.memory.data(), 0, tape.memory.size());
  }
  void add(Tape::Kind kind, int node, Shape shape, size_t bytes, int element_bytes, float clip) {
    const size_t offset = tape.slots.empty() ? 0 : (tape.slots.back().offset + tape.slots.back().bytes + 63) / 64 * 64;
    tape.slots.push_back({kind, node, shape, offset, bytes, element_bytes, clip});
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Pass pass;
  static fuzz::MemoryFile file;
  file.put(fuzz::text_of(data, size));
  fuzz::read_within(kAllowance, size, [&] {
    load_tape(pass.ctx, pass.network, pass.tape, file.path());
    for (const Tape::Slot& slot : pass.tape.slots)
      fuzz::touch(std::span(reinterpret_cast<const std::byte*>(pass.tape.data(slot)), slot.bytes));
  });
  return 0;
}
