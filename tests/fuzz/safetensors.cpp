// Weights and tapes (engine/files/safetensors.h).
#include "engine/files/safetensors.h"

#include <cstring>

#include "tests/fuzz/fuzz.h"

using namespace switchback;

namespace {

// One short name in a JSON object costs some bytes of the file, and a node of each of a few trees in memory; U8 become
// int64.
constexpr fuzz::Allowance kAllowance{48, 1 << 14};

int64_t touch_all(const Safetensors& file) {
  int64_t bytes = 0;
  for (const std::string& name : file.names()) {
    fuzz::touch(file.bytes(name));
    bytes += int64_t(file.bytes(name).size());
    fuzz::succeeds([&] {
      const Tensor x = file.load(name);
      PROMISED(x.count() == count(file.dims(name)));
      fuzz::touch(x.values());
    });
    fuzz::succeeds([&] {
      const std::vector<int64_t> x = file.load_ints(name);
      PROMISED(int64_t(x.size()) == count(file.dims(name)));
    });
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::MemoryFile file;
  file.put(fuzz::text_of(data, size));
  fuzz::read_within(kAllowance, size, [&] {
    const Safetensors read(file.path());
    uint64_t header;
    PROMISED(size >= sizeof header);
    std::memcpy(&header, data, sizeof header);
    // The tensors cover the data exactly once.
    PROMISED(uint64_t(touch_all(read)) + header + sizeof header == size);
    for (const auto& [key, value] : read.metadata()) fuzz::touch(std::span<const char>(value));
  });
  return 0;
}
