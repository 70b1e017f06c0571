// Reads what numpy.savez and savez_compressed wrote; for reference data in tests.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace switchback::test {

struct NpzArray {
  std::vector<int64_t> dims;
  std::vector<double> values;  // from float32, float64 or int64
};

// By name. Throws on anything unexpected.
std::map<std::string, NpzArray> read_npz_archive(const std::string& path);

}  // namespace switchback::test
