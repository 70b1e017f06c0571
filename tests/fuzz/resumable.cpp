// What an interrupted run left (tools/cli/resumable.h). An input is: one byte, how many rows PATH.partial holds, half rows
// included; then PATH.journal.
#include "tools/cli/resumable.h"

#include <filesystem>
#include <fstream>

#include "engine/files/npy.h"
#include "tests/fuzz/fuzz.h"

using namespace switchback;

namespace {

constexpr fuzz::Allowance kAllowance{48, 1 << 18};  // trees of JSON values

const Dims kDims{4, 2, 3};
const int64_t kRow = 6;  // values

void put(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), std::streamsize(bytes.size()));
}

std::vector<ResumableArray::Json> notes_of(const std::string& path, size_t rows) {
  const ResumableArray array(path, kDims, {{"model", "m"}, {"item", 3}}, true);
  PROMISED(array.notes().size() <= rows);
  std::vector<float> row(static_cast<size_t>(kRow));
  for (size_t i = 0; i < array.notes().size(); ++i) array.read(int64_t(i), row);
  return array.notes();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = fuzz::work_folder() + "/maps.npy";
  if (size < 1) return 0;
  const size_t halves = data[0] % (2 * size_t(kDims[0]) + 1);
  const std::string rows(npy_header(kDims).size() + halves * size_t(kRow) * sizeof(float) / 2, '\0');
  put(path + ".partial", rows);
  put(path + ".journal", fuzz::text_of(data + 1, size - 1));
  fuzz::read_within(kAllowance, size + rows.size(), [&] {
    const std::vector<ResumableArray::Json> notes = notes_of(path, halves / 2);
    PROMISED(notes_of(path, halves / 2) == notes);  // the journal was put in order, once
  });
  return 0;
}
