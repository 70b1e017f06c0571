// `evaluate --grid` and `--similarity`, and the correlation of maps that they report.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "engine/files/image.h"
#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/inspect.h"
#include "viz/methods/similarity.h"

namespace switchback {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::TempFolder;

double correlation(const float* a, const float* b, int64_t n) {
  double ma = 0, mb = 0, ab = 0, aa = 0, bb = 0;
  for (int64_t k = 0; k < n; ++k) ma += a[k] / double(n), mb += b[k] / double(n);
  for (int64_t k = 0; k < n; ++k) {
    ab += (a[k] - ma) * (b[k] - mb);
    aa += (a[k] - ma) * (a[k] - ma);
    bb += (b[k] - mb) * (b[k] - mb);
  }
  return ab / std::sqrt(aa * bb);
}

// Sums over classes against all pairs one by one.
TEST(MapSimilarity, IsTheMeanOverAllPairs) {
  constexpr int64_t kMaps = 11, kSize = 9, kClasses = 4;
  const std::vector<int> labels = {0, 1, 2, 0, 1, 1, 2, 0, 1, 2, 0};  // none of class 3
  Tensor maps({kMaps, 3, 3});
  for (int64_t k = 0; k < maps.count(); ++k) maps[k] = float(std::sin(1.7 * double(k)) + 0.1 * double(labels[size_t(k / kSize)] * (k % kSize)));
  for (int64_t k = 0; k < kSize; ++k) maps[4 * kSize + k] = 0.3f;  // constant: left out
  const MapSimilarity s = map_similarity(maps, labels, kClasses);
  EXPECT_EQ(s.constant, 1);
  EXPECT_EQ(s.maps, (std::vector<int64_t>{4, 3, 3, 0}));
  double within = 0, between = 0;
  int64_t pairs_within = 0, pairs_between = 0;
  for (int64_t a = 0; a < kClasses; ++a)
    for (int64_t b = 0; b < kClasses; ++b) {
      double sum = 0;
      int64_t pairs = 0;
      for (int64_t i = 0; i < kMaps; ++i)
        for (int64_t j = 0; j < kMaps; ++j) {
          if (i == j || i == 4 || j == 4 || labels[size_t(i)] != a || labels[size_t(j)] != b) continue;
          sum += correlation(maps.data() + i * kSize, maps.data() + j * kSize, kSize);
          ++pairs;
        }
      const double got = s.matrix[size_t(a * kClasses + b)];
      if (pairs == 0)
        EXPECT_TRUE(std::isnan(got));
      else
        EXPECT_NEAR(got, sum / double(pairs), 1e-6) << a << " " << b;
      (a == b ? within : between) += sum, (a == b ? pairs_within : pairs_between) += pairs;
    }
  EXPECT_NEAR(s.within, within / double(pairs_within), 1e-6);
  EXPECT_NEAR(s.between, between / double(pairs_between), 1e-6);
}

TEST(StrideEnergy, OfACheckerboardIsAll) {
  std::vector<float> board, ramp;
  for (int y = 0; y < 6; ++y)
    for (int x = 0; x < 8; ++x) board.push_back((x + y) % 2 ? 1.f : 3.f), ramp.push_back(float(y / 2 + x / 2));
  const StrideEnergy all = stride_energy(board.data(), 6, 8, 2);
  EXPECT_NEAR(all.periodic, 1, 1e-12);
  EXPECT_NEAR(all.total, 1, 1e-12);
  EXPECT_NEAR(all.chance, 3.0 / 47, 1e-12);
  const StrideEnergy none = stride_energy(ramp.data(), 6, 8, 2);  // every period has the same phases
  EXPECT_NEAR(none.periodic, 0, 1e-12);
  EXPECT_GT(none.total, 1);
  EXPECT_THROW(stride_energy(board.data(), 1, 8, 2), Error);
}

// Sample digits, two of which lie in the wrong folders.
std::string digits(const TempFolder& folder) {
  for (int d = 0; d < 10; ++d) {
    const int label = d == 4 ? 9 : d == 9 ? 4 : d;
    const std::string to = folder / ("digits/" + std::to_string(label));
    fs::create_directories(to);
    fs::copy_file(test::digit(d), to + "/a.png");
    if (d == 7) fs::copy_file(test::digit(1), to + "/b.png");
    if (d < 3) fs::copy_file(test::digit(d), to + "/c.png");
  }
  return folder / "digits";
}

TEST(CliEvaluateMaps, GridsAndSimilarity) {
  TempFolder folder;
  const json d = test::succeed_json({"evaluate", digits(folder), "--model", "lenet", "--grid", "right,wrong", "--similarity", "--cam-layer", "conv2",
                                     "--cases", "9", "--json", "-o", folder / "out"});
  EXPECT_EQ(d["correct"], 11);
  ASSERT_EQ(d["grid"]["right"].size(), 9u) << "--cases";
  ASSERT_EQ(d["grid"]["wrong"].size(), 3u);
  for (const json& c : d["grid"]["right"]) EXPECT_EQ(c["true"], c["target"]);
  double before = 1e30;
  for (const json& c : d["grid"]["wrong"]) {
    EXPECT_NE(c["true"], c["target"]);
    EXPECT_LE(c["loss"].get<double>(), before);
    before = c["loss"].get<double>();
  }
  EXPECT_EQ(d["grid"]["right"][0]["true"], 0) << "one of each class in turn";
  EXPECT_EQ(d["grid"]["right"][1]["true"], 1);
  EXPECT_NEAR(d["similarity"]["within"].get<double>(), 1, 1e-6) << "the same images twice";
  EXPECT_LT(d["similarity"]["between"].get<double>(), 0.9);
  EXPECT_EQ(d["similarity"]["matrix"].size(), 10u);
  EXPECT_EQ(test::names_in(folder / "out").size(), 3u);
  for (const char* part : {"right", "wrong", "similarity"})
    EXPECT_GT(load_image(test::result(d, std::string("-") + part + ".png")).width, 200) << part;
}

// One that cannot be read is named and left out; the others keep their numbers.
TEST(CliEvaluate, ImagesThatCannotBeReadAreLeftOut) {
  const TempFolder folder;
  for (int d = 0; d < 10; ++d) {
    fs::create_directories(folder / fmt::format("digits/{}", d));
    fs::copy_file(test::digit(d), folder / fmt::format("digits/{}/digit.png", d));
  }
  folder.put("digits/3/aaa.png", "no image");
  const test::Outcome o =
      test::run_switchback({"evaluate", folder / "digits", "--model", "lenet", "--json", "--top", "10", "-o", folder.path()});
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.err.find("aaa.png"), std::string::npos) << o.err;
  const json d = o.json();
  EXPECT_EQ(d["images"], 10);
  EXPECT_EQ(d["correct"], 10);
  for (const json& c : d["worst"]) EXPECT_NE(c["path"].get<std::string>().find(fmt::format("{}/digit.png", c["true"].get<int>())), std::string::npos);
  EXPECT_EQ(test::run_switchback({"evaluate", folder / "digits", "--model", "lenet", "--strict", "-o", folder.path()}).code, 1);
}

TEST(CliEvaluateMaps, WrongUsage) {
  TempFolder folder;
  const std::string data = digits(folder);
  const auto says = [&](std::vector<std::string> more, const char* what) {
    std::vector<std::string> all = {"evaluate", data, "--model", "lenet", "-o", folder / "out"};
    all.insert(all.end(), more.begin(), more.end());
    const test::Outcome o = test::run_switchback(all);
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_NE(o.err.find(what), std::string::npos) << o.err;
  };
  says({"--grid", "best"}, "right, wrong");
  says({"--grid", "right", "--map", "nice"}, "gradcam++");
  says({"--grid", "right", "--cases", "0"}, "--cases");
  says({"--similarity", "--per-class", "1"}, "pairs");
}

}  // namespace
}  // namespace switchback
