// Checkpoints of torch.save (engine/files/pytorch.h).
#include "engine/files/pytorch.h"

#include "tests/fuzz/fuzz.h"

using namespace switchback;

namespace {

// An opcode of one byte makes a value, and a place on the stack or in the memo.
constexpr fuzz::Allowance kAllowance{400, 1 << 16};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::MemoryFile file;
  file.put(fuzz::text_of(data, size));
  fuzz::read_within(kAllowance, size, [&] {
    const PytorchFile read(file.path());
    for (const std::string& name : read.names()) {
      fuzz::touch(read.bytes(name));
      PROMISED(count(read.dims(name)) <= int64_t(size));
      fuzz::succeeds([&] {
        const Tensor x = read.load(name);
        PROMISED(x.count() == count(read.dims(name)));
        fuzz::touch(x.values());
      });
      fuzz::succeeds([&] { PROMISED(int64_t(read.load_ints(name).size()) == count(read.dims(name))); });
    }
  });
  return 0;
}
