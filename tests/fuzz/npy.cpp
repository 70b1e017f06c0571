// NumPy arrays (engine/files/npy.h). Archives (.npz) are only written by the engine, never read.
#include "engine/files/npy.h"

#include <cmath>
#include <cstring>

#include "tests/fuzz/fuzz.h"

using namespace switchback;

namespace {

// The values once, twice over while they are written again, and a header of at most 64 sizes.
constexpr fuzz::Allowance kAllowance{8, 1 << 13};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::MemoryFile file, again;
  file.put(fuzz::text_of(data, size));
  fuzz::read_within(kAllowance, size, [&] {
    const Tensor x = read_npy(file.path());
    PROMISED(x.count() > 0 && npy_dims(file.path()) == x.dims());
    for (const float v : x.values()) PROMISED(std::isfinite(v));

    const std::vector<uint8_t> bytes = npy_bytes(x);
    const Tensor y = read_npy(again.put(fuzz::text_of(bytes.data(), bytes.size())));
    PROMISED(y.dims() == x.dims() && std::memcmp(y.data(), x.data(), x.values().size_bytes()) == 0);
  });
  fuzz::read_within(kAllowance, size, [&] { read_npy(file.path(), {3, 4}); });  // as commands read images
  return 0;
}
