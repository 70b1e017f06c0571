// Class names (engine/files/labels.h).
#include "engine/files/labels.h"

#include "tests/fuzz/fuzz.h"

using namespace switchback;

namespace {

// "a\n" becomes a std::string, in a vector that grows by doubling; control characters become six in the check for
// UTF-8.
constexpr fuzz::Allowance kAllowance{64, 1 << 17};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::MemoryFile file;
  file.put(fuzz::text_of(data, size));
  fuzz::read_within(kAllowance, size, [&] {
    const std::vector<std::string> labels = load_labels(file.path());
    PROMISED(!labels.empty());
    for (const std::string& label : labels)
      PROMISED(!label.empty() && label.find_first_of("\r\n") == std::string::npos);
  });
  return 0;
}
