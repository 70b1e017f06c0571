// Cases of single ops as PyTorch computed them in float64 (tests/golden/*.safetensors, made by tests/golden/make_golden.py).
#pragma once

#include <map>
#include <string>

#include "engine/files/json.h"
#include "engine/files/safetensors.h"
#include "tests/support/epilogue_check.h"

namespace switchback::test {

// One case: its tensors are called NAME.x, NAME.y, ...
struct Golden {
  const Safetensors& file;
  std::string name;
  nlohmann::json params;

  bool has(const char* part) const { return file.has(name + "." + part); }
  Nchw map(const char* part) const;
  std::vector<float> values(const char* part) const;  // empty where there are none
  int64_t integer(const char* key) const { return params.at(key).get<int64_t>(); }
  float real(const char* key) const { return params.at(key).get<float>(); }
  bool exact() const { return params.value("integer", false); }
};

inline constexpr DType kF32 = DType::f32;

// `got` is the kernel's, `golden` PyTorch's rounded to float32, `ref` ours in double.
void expect_golden(const char* what, const Nchw& got, const Nchw& golden, const Ref& ref, bool exact, double steps);

using GoldenRunner = void (*)(OpRun&, const Golden&);
// One test for each case of tests/golden/FILE, of which there are at least `least`; runners by op.
void register_golden_cases(const std::string& suite, const std::string& file, size_t least,
                           const std::map<std::string, GoldenRunner>& runners);

}  // namespace switchback::test
