#include "tests/support/golden_case.h"

#include <cmath>
#include <memory>

namespace switchback::test {

using Json = nlohmann::json;

Nchw Golden::map(const char* part) const {
  const Tensor t = file.load(name + "." + part);
  Dims d = t.dims();
  d.resize(4, 1);
  Nchw out(Shape{d[0], d[1], d[2], d[3]});
  out.v.assign(t.values().begin(), t.values().end());
  return out;
}

std::vector<float> Golden::values(const char* part) const {
  if (!has(part)) return {};
  const Tensor t = file.load(name + "." + part);
  return {t.values().begin(), t.values().end()};
}

void expect_golden(const char* what, const Nchw& got, const Nchw& golden, const Ref& ref, bool exact, double steps) {
  if (exact) {
    EXPECT_EQ(compare_exact(ref.value, golden, Zeros::many_allowed), "") << what << " of the reference";
    EXPECT_EQ(compare_exact(got, golden, Zeros::many_allowed), "") << what;
    return;
  }
  Nchw rounding(golden.shape);
  for (size_t i = 0; i < rounding.v.size(); ++i)
    rounding.v[i] = 1.01 * kEpsF32 * std::abs(golden.v[i]) + 1e-14 * ref.terms.v[i] + 0x1p-126;
  EXPECT_EQ(compare(ref.value, golden, rounding, Zeros::many_allowed), "") << what << " of the reference";
  Nchw allowed = tolerance(ref, steps);
  for (size_t i = 0; i < rounding.v.size(); ++i) allowed.v[i] += rounding.v[i];
  EXPECT_EQ(compare(got, golden, allowed, Zeros::many_allowed), "") << what;
}

void register_golden_cases(const std::string& suite, const std::string& file_name, size_t least,
                           const std::map<std::string, GoldenRunner>& runners) {
  const std::string path = std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/" + file_name;
  for_each_device(suite, [&](const DeviceRow& device) {
    // The file is part of the repository: without it this is one failing test, not none.
    std::shared_ptr<Safetensors> file;
    Json cases = Json::array();
    std::string error;
    try {
      file = std::make_shared<Safetensors>(path);
      cases = parse_json(file->metadata().at("cases"));
    } catch (const std::exception& e) {
      error = e.what();
    }
    add_test(suite, "file", device, "f32", [error, least, count = cases.size()](OpRun&) {
      EXPECT_EQ(error, "");
      EXPECT_GE(count, least);
    });
    for (const Json& c : cases) {
      const std::string op = c.at("op"), name = c.at("name");
      const auto found = runners.find(op);
      const GoldenRunner runner = found == runners.end() ? nullptr : found->second;
      add_test(suite, name, device, "f32", [file, name, op, runner, params = c.at("params")](OpRun& run) {
        ASSERT_TRUE(runner) << "no runner for op " << op;
        runner(run, Golden{*file, name, params});
      });
    }
  });
}

}  // namespace switchback::test
