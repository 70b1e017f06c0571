// `switchback bench` of methods that time a sample or many maps: what its figures say must fit together.
#include <gtest/gtest.h>

#include <set>

#include "tests/support/cli_run.h"

namespace switchback::test {
namespace {

using nlohmann::json;

json bench(std::vector<std::string> arguments) {
  const std::vector<std::string> common = {"bench", "--model", "lenet", "--weights", "random:0", "--json"};
  arguments.insert(arguments.begin(), common.begin(), common.end());
  const Outcome o = run_switchback(arguments);
  EXPECT_EQ(o.code, 0) << o.line << "\n" << o.err;
  return o.json();
}

double number(const json& d, const char* key) { return d[key].get<double>(); }

TEST(BenchCli, OcclusionOfAllPositions) {
  std::vector<std::string> arguments = {"--method",    "occlusion", "--mask",   "7x9", "--stride",  "4x3",
                                        "--positions", "all",       "--repeat", "3",   "--warm-up", "0"};
  const json windows = bench(arguments);
  EXPECT_EQ(windows["algorithm"], "incremental");
  EXPECT_EQ(windows["rows"], 6);
  EXPECT_EQ(windows["cols"], 7);
  EXPECT_EQ(windows["items_per_call"], 42);
  EXPECT_EQ(windows["positions_timed"], 42);
  EXPECT_EQ(windows["window_groups_timed"], windows["window_groups"]);
  EXPECT_NEAR(number(windows, "sample_flops_share"), 1, 1e-12);
  EXPECT_EQ(windows["ms_runs"].size(), 3u);
  EXPECT_EQ(windows["ms_first_call"], windows["ms_runs"][0]) << "without warm-up the first call is a run";
  EXPECT_GT(number(windows, "flop_ratio"), 1);

  arguments.insert(arguments.end(), {"--algorithm", "full"});
  const json full = bench(arguments);
  EXPECT_EQ(full["items_per_call"], 42);
  EXPECT_EQ(number(full, "flops_per_item"), number(windows, "full_flops_per_item"));
  EXPECT_NEAR(number(windows, "flops_per_item") * number(windows, "flop_ratio"), number(full, "flops_per_item"), 1);
}

// The estimate weighs the groups that were drawn; its FLOPs, which are known, show that it is right on average.
TEST(BenchCli, OcclusionSamplesWithoutBias) {
  const auto sample = [](const std::string& seed) {
    return bench({"--method", "occlusion", "--mask", "6", "--stride", "1", "--positions", "90", "--repeat", "1",
                  "--warm-up", "0", "--seed", seed});
  };
  std::set<double> different;
  double mean = 0;
  for (int seed = 0; seed < 8; ++seed) {
    const json d = sample(std::to_string(seed));
    EXPECT_EQ(d["items_per_call"], 23 * 23);
    EXPECT_LT(d["positions_timed"].get<int>(), 23 * 23);
    EXPECT_LT(d["window_groups_timed"].get<int>(), d["window_groups"].get<int>());
    different.insert(number(d, "sample_flops_share"));
    mean += number(d, "sample_flops_share") / 8;
  }
  EXPECT_GT(different.size(), 1u) << "--seed draws other groups";
  EXPECT_NEAR(mean, 1, 0.1);
  EXPECT_EQ(sample("3")["sample_flops_share"], sample("3")["sample_flops_share"]);
  EXPECT_EQ(bench({"--method", "occlusion", "--mask", "6", "--positions", "10", "--algorithm", "full", "--repeat",
                   "1"})["positions_timed"],
            10);
}

TEST(BenchCli, Etalons) {
  const json all = bench({"--method", "etalon", "--images", "3", "--repeat", "2"});
  EXPECT_EQ(all["item"], "etalon");
  EXPECT_EQ(all["units"], 10);
  EXPECT_EQ(all["items_per_call"], 30);
  const json some = bench({"--method", "etalon", "--images", "3", "--outputs", "4", "--repeat", "2"});
  EXPECT_EQ(some["items_per_call"], 12);
  // One forward pass and a backward pass for each output.
  EXPECT_NEAR(number(all, "flops_per_item") * 30 / 11, number(some, "flops_per_item") * 12 / 5, 1);
  const json pushed = bench({"--method", "etalon", "--algorithm", "coordinate", "--repeat", "1", "--warm-up", "0"});
  EXPECT_NEAR(number(pushed, "flops_per_item") * 10 / 786, number(all, "flops_per_item") * 30 / 33, 1);

  const json fields = bench({"--method", "etalon", "--layer", "conv2:3:all", "--repeat", "1"});
  EXPECT_EQ(fields["items_per_call"], 16);
  EXPECT_EQ(fields["fields"], true);
  EXPECT_TRUE(fields["share_of_peak"].is_null());
  const json maps = bench({"--method", "etalon", "--layer", "conv2:3:all", "--full-maps", "--repeat", "1"});
  EXPECT_EQ(maps["fields"], false);
  EXPECT_GT(number(maps, "share_of_peak"), 0);
}

TEST(BenchCli, ConvolutionsWithDilationAndGroups) {
  const auto conv = [](const char* shape) {
    return run_switchback({"bench", "--op", "conv", "--shape", shape, "--json", "--repeat", "1", "--warm-up", "0"});
  };
  const json d = conv("2,8,9,11,12,3,2,4,3,4").json();  // of 4 groups, output [2,12,6,7]
  EXPECT_EQ(number(d, "flops_per_item"), 2. * 12 * 6 * 7 * 2 * 9);
  EXPECT_EQ(conv("2,8,9,9,12,3,1,1,1,0").code, 1);
  EXPECT_EQ(conv("2,8,9,9,12,3,1,1,0").code, 1);
}

TEST(BenchCli, RefusesWhatCannotBe) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{"--method", "occlusion", "--mask", "8", "--positions", "0"}, "--positions"},
      {{"--method", "occlusion", "--mask", "8", "--positions", "some"}, "--positions"},
      {{"--method", "occlusion", "--mask", "29"}, "at most 28"},
      {{"--method", "occlusion", "--mask", "8", "--stride", "0"}, "--stride"},
      {{"--method", "occlusion", "--mask", "8", "--fill", "red"}, "blur"},
      {{"--method", "occlusion", "--mask", "8", "--algorithm", "single-pass"}, "incremental"},
      {{"--method", "etalon", "--algorithm", "full"}, "coordinate"},
      {{"--method", "etalon", "--images", "0"}, "--images"},
      {{"--method", "etalon", "--outputs", "11"}, "0 to 9"},
      {{"--method", "etalon", "--outputs", "2", "--layer", "conv2"}, "--layer"},
      {{"--method", "etalon", "--layer", "conv3"}, "conv"},
      {{"--method", "gradient", "--warm-up", "-1"}, "--warm-up"},
  };
  for (const auto& [arguments, says] : wrong) {
    std::vector<std::string> line = {"bench", "--model", "lenet", "--weights", "random:0"};
    line.insert(line.end(), arguments.begin(), arguments.end());
    const Outcome o = run_switchback(line);
    EXPECT_EQ(o.code, 2) << o.line << "\n" << o.err;
    EXPECT_NE(o.err.find(says), std::string::npos) << o.line << "\n" << o.err;
    EXPECT_EQ(o.out, "") << o.line;
  }
}

TEST(BenchCli, MapsOfEveryMethodAreTimed) {
  const json r = bench({"--method", "ablationcam", "--repeat", "1", "--warm-up", "0"});
  EXPECT_EQ(r["method"], "ablationcam");
  EXPECT_EQ(r["item"], "map");
  EXPECT_GT(double(r["ms_median"]), 0);
  EXPECT_TRUE(r["flops_per_second"].is_null());
}

}  // namespace
}  // namespace switchback::test
