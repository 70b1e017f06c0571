// Several --weights in one run: strips, their arrays, and what --weights may mean. And `activations --pair`.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "engine/files/image.h"
#include "engine/files/npy.h"
#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

using Words = std::vector<std::string>;

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Strip {
  const char* name;
  Words command;        // without weights and output
  const char* ending;   // of the array
  Words axes;           // of the strip's
};
void PrintTo(const Strip& s, std::ostream* out) { *out << s.name; }

class Strips : public testing::TestWithParam<Strip> {};

// Column e is, bit for bit, what a run with that checkpoint alone gives.
TEST_P(Strips, AreTheRunsOfTheirCheckpoints) {
  const Strip& s = GetParam();
  TempFolder folder;
  const Words model = {"--model", "lenet", "--save", "png,npy", "--json"};
  const json all = succeed_json(s.command + model + Words{"--weights", "random:1", "--weights", "random:2,random:3", "-o", folder / "all"});
  EXPECT_EQ(all["weights"], json({"random:1", "random:2", "random:3"}));
  for (const json& file : all["inputs"][0]["files"])
    if (file["path"].get<std::string>().ends_with(s.ending)) {
      EXPECT_EQ(file["axes"], json(s.axes));
    }
  EXPECT_GT(load_image(result(all, ".png")).width, 300);
  const Tensor strip = read_npy(result(all, s.ending), {3, 4, 5, 6});
  const int64_t epochs = 3, size = strip.count() / epochs;
  for (int64_t e = 0; e < epochs; ++e) {
    const json one = succeed_json(s.command + model + Words{"--weights", "random:" + std::to_string(e + 1), "-o", folder / "one"});
    const Tensor alone = read_npy(result(one, s.ending), {1, 2, 3, 4, 5});
    ASSERT_EQ(alone.count(), size);
    for (int64_t k = 0; k < size; ++k) ASSERT_EQ(strip[e * size + k], alone[k]) << "checkpoint " << e << ", value " << k;
    if (all["inputs"][0].contains("checkpoints") && one["inputs"][0].contains("score")) {
      EXPECT_EQ(all["inputs"][0]["checkpoints"][size_t(e)]["score"], one["inputs"][0]["score"]);
      EXPECT_EQ(all["inputs"][0]["checkpoints"][size_t(e)]["target"], one["inputs"][0]["target"]);
    }
  }
}

const Strip kStrips[] = {
    {"gradient", {"gradient", digit(3)}, ".npy", {"N", "E", "C", "H", "W"}},
    {"gradient_targets", {"gradient", digit(3), "--target", "1,4"}, ".npy", {"N", "E", "T", "C", "H", "W"}},
    {"smoothgrad", {"smoothgrad", digit(3), "--samples", "3"}, ".npy", {"N", "E", "C", "H", "W"}},
    {"cam_layers", {"cam", digit(3), "--layers", "conv1,conv2"}, ".npy", {"N", "E", "L", "H", "W"}},
    {"occlusion", {"occlusion", digit(3), "--mask", "8"}, ".npy", {"N", "E", "rows", "cols"}},
    {"activations", {"activations", digit(3), "--layer", "conv2"}, ".npy", {"N", "E", "C", "H", "W"}},
    {"activations_linear", {"activations", digit(3), "--layer", "fc1"}, ".npy", {"N", "E", "C"}},
    {"filters", {"filters"}, ".npy", {"E", "O", "I", "kh", "kw"}},
    {"classify", {"classify", digit(3)}, ".npy", {"N", "E", "K"}},
    {"etalon_bias", {"etalon", digit(3), "--target", "1,4"}, "-bias.npy", {"N", "E", "P"}},
};
INSTANTIATE_TEST_SUITE_P(Cli, Strips, testing::ValuesIn(kStrips), [](const auto& info) { return std::string(info.param.name); });

TEST(CliCheckpoints, EtalonsOfOneInput) {
  TempFolder folder;
  const Words run = {"etalon", digit(3), "--model", "lenet", "--target", "1,4", "--save", "npy", "--json", "-o"};
  const json all = succeed_json(run + Words{folder / "all", "--weights", "random:1,random:2"});
  const json one = succeed_json(run + Words{folder / "one", "--weights", "random:2"});
  const Tensor strip = read_npy(folder / "all/digit_3.etalon-target1,4.npy", {6}), alone = read_npy(folder / "one/digit_3.etalon-target1,4.npy", {4});
  EXPECT_EQ(strip.dims(), (Dims{1, 2, 2, 1, 28, 28}));
  for (int64_t k = 0; k < alone.count(); ++k) ASSERT_EQ(strip[alone.count() + k], alone[k]) << k;
  EXPECT_EQ(all["inputs"][0]["checkpoints"][1]["bias"], one["inputs"][0]["bias"]);
  EXPECT_LT(all["residual_relative"].get<double>(), 1e-5);
}

// Several items of an array: E stands behind N.
TEST(CliCheckpoints, ItemsOfAnArray) {
  TempFolder folder;
  Tensor x({2, 1, 28, 28});
  for (int64_t k = 0; k < x.count(); ++k) x[k] = std::sin(0.1f * float(k));
  write_npy(folder / "x.npy", x);
  const Words run = {"gradient", folder / "x.npy", "--model", "lenet", "--save", "npy,png", "-o"};
  succeed(run + Words{folder / "all", "--weights", "random:1,random:2"});
  succeed(run + Words{folder / "one", "--weights", "random:2"});
  const Tensor strip = read_npy(folder / "all/x.gradient.npy", {5}), alone = read_npy(folder / "one/x.gradient.npy", {4});
  EXPECT_EQ(strip.dims(), (Dims{2, 2, 1, 28, 28}));
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t k = 0; k < 784; ++k) ASSERT_EQ(strip[(2 * i + 1) * 784 + k], alone[i * 784 + k]);
}

// A run's folder gives its checkpoints and nothing else; numbers count by their value.
TEST(CliCheckpoints, FoldersAndPatterns) {
  TempFolder folder;
  fs::create_directories(folder / "run");
  write_npy(folder / "x.npy", Tensor::zeros({1, 2}));
  for (const char* name : {"epoch-9", "epoch-10", "last", "state"})
    succeed({"classify", folder / "x.npy", "--model", "mlp", "--weights", "random:1", "--save-weights",
             folder / ("run/" + std::string(name) + ".safetensors"), "--quiet"});
  const auto weights = [&](const std::string& given) {
    const json d = succeed_json({"classify", folder / "x.npy", "--model", "mlp", "--weights", given, "--json"});
    Words names;
    for (const auto& path : d["weights"]) names.push_back(fs::path(path.get<std::string>()).stem());
    return names;
  };
  EXPECT_EQ(weights(folder / "run"), (Words{"epoch-9", "epoch-10"}));
  EXPECT_EQ(weights(folder / "run/*"), (Words{"epoch-9", "epoch-10", "last", "state"}));
  EXPECT_EQ(weights((folder / "run/last.safetensors") + "," + (folder / "run/epoch-9.safetensors")), (Words{"last", "epoch-9"}));
  const json regions = succeed_json({"regions", "--plane", "--model", "mlp", "--weights", folder / "run", "--json", "-o", folder / "out"});
  EXPECT_EQ(regions["networks"].size(), 2u);
}

struct Wrong {
  const char* name;
  Words arguments;  // @X: the file X of the folder
  int code;
  const char* says;
};
void PrintTo(const Wrong& w, std::ostream* out) { *out << w.name; }
class CliCheckpointsError : public testing::TestWithParam<Wrong> {};

TEST_P(CliCheckpointsError, OneLineAndNothingLeft) {
  TempFolder folder;
  fs::create_directories(folder / "empty");
  write_npy(folder / "x.npy", Tensor::zeros({1, 2}));
  for (const char* units : {"3", "4"})
    succeed({"classify", folder / "x.npy", "--model", std::string("mlp:2-") + units + "-2", "--weights", "random:1", "--save-weights",
             folder / (std::string(units) + ".safetensors"), "--quiet"});
  const size_t before = folder.files();
  Words arguments;
  for (const std::string& a : GetParam().arguments) arguments.push_back(a.starts_with("@") ? folder / a.substr(1) : a);
  const Outcome o = run_switchback(arguments + Words{"-o", folder / "out"});
  EXPECT_EQ(o.code, GetParam().code) << o.line << "\n" << o.err;
  EXPECT_TRUE(o.err.starts_with("switchback: error: ")) << o.err;
  EXPECT_NE(o.err.find(GetParam().says), std::string::npos) << o.err;
  EXPECT_EQ(folder.files(), before);
}

const Wrong kWrong[] = {
    {"EmptyFolder", {"gradient", digit(3), "--model", "lenet", "--weights", "@empty"}, 2, "no weights are there"},
    {"NoMatch", {"gradient", digit(3), "--model", "lenet", "--weights", "@nothing*"}, 2, "no file's name fits"},
    {"OtherNetwork", {"gradient", "@x.npy", "--model", "mlp", "--weights", "@3.safetensors", "--weights", "@4.safetensors"}, 1,
     "different networks"},
    {"Tape", {"gradient", digit(3), "--model", "lenet", "--weights", "random:1,random:2", "--save-tape", "@t.safetensors"}, 2, "a run for each"},
    {"SaveWeights", {"filters", "--model", "lenet", "--weights", "random:1,random:2", "--save-weights", "@w.safetensors"}, 2, "--save-weights"},
    {"Subgraph", {"etalon", digit(3), "--model", "lenet", "--weights", "random:1,random:2", "--subgraph"}, 2, "--subgraph"},
    {"Pair", {"activations", digit(3), "--model", "autoencoder", "--weights", "random:1,random:2", "--pair", "enc0:dec1"}, 2, "--pair"},
    {"PairOfOtherSizes", {"activations", digit(3), "--model", "autoencoder", "--weights", "random:1", "--pair", "enc0:dec2"}, 2, "16x16"},
    {"NoPair", {"activations", digit(3), "--model", "autoencoder", "--weights", "random:1", "--pair", "enc0"}, 2, "no pair"},
};
INSTANTIATE_TEST_SUITE_P(Cli, CliCheckpointsError, testing::ValuesIn(kWrong), [](const auto& info) { return std::string(info.param.name); });

// The energy of dec1 at its stride from the array that is saved, by its definition: a sum over frequencies.
TEST(CliPair, SharesAreThoseOfTheFourierTransform) {
  TempFolder folder;
  const json d = succeed_json({"activations", digit(3), "--model", "autoencoder", "--weights", "random:2", "--pair", "enc0:dec1,enc1_relu:dec2",
                               "--save", "png,npy", "--json", "-o", folder / "out"});
  const json& pairs = d["inputs"][0]["pairs"];
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0]["layers"], json({"enc0", "dec1"}));
  EXPECT_EQ(pairs[0]["stride"], 2);
  EXPECT_NEAR(pairs[0]["chance"].get<double>(), 3.0 / 255, 1e-12);
  const Tensor maps = read_npy(result(d, "-dec1.npy"), {4});
  const int64_t n = 16;
  ASSERT_EQ(maps.dims(), (Dims{1, 16, n, n}));
  double periodic = 0, total = 0;
  for (int64_t c = 0; c < 16; ++c)
    for (int64_t u = 0; u < n; ++u)
      for (int64_t v = 0; v < n; ++v) {
        if (u + v == 0) continue;
        double re = 0, im = 0;
        for (int64_t y = 0; y < n; ++y)
          for (int64_t x = 0; x < n; ++x) {
            const double a = -2 * M_PI * double(u * y + v * x) / double(n), m = maps[(c * n + y) * n + x];
            re += m * std::cos(a), im += m * std::sin(a);
          }
        const double energy = re * re + im * im;
        total += energy;
        if (u % (n / 2) == 0 && v % (n / 2) == 0) periodic += energy;
      }
  EXPECT_NEAR(pairs[0]["checkerboard"][1].get<double>(), periodic / total, 1e-5);
  EXPECT_GT(load_image(result(d, ".png")).height, 400);
}

}  // namespace
}  // namespace switchback::test
