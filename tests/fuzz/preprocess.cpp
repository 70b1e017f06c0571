// --preprocess FILE.json (engine/files/image.h), and what is then done to a picture.
#include "engine/files/image.h"
#include "tests/fuzz/fuzz.h"

using namespace switchback;

namespace {

// Trees of JSON values; a picture of the fuzzer's own and its parts.
constexpr fuzz::Allowance kAllowance{48, 1 << 18};
constexpr int kMostPixelsHere = 64 * 64;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::MemoryFile file;
  static const Image picture{5, 3, 3, std::vector<uint8_t>(5 * 3 * 3, 200)};
  file.put(fuzz::text_of(data, size));
  fuzz::read_within(kAllowance, size, [&] {
    const Preprocess how = load_preprocess(file.path());
    fuzz::touch(std::span<const char>(how.labels));
    fuzz::touch(std::span<const char>(how.output));
    if (int64_t(how.size[0]) * how.size[1] > kMostPixelsHere) return;
    const Tensor x = preprocess(picture, how);
    PROMISED(x.dims() == (Dims{1, how.channels(), how.size[0], how.size[1]}));
    fuzz::touch(x.values());
  });
  return 0;
}
