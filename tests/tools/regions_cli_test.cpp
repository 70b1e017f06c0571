// `switchback regions`: the command, its results and its errors.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "engine/files/image.h"
#include "engine/files/npy.h"
#include "engine/zoo/zoo.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/plane.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;

const std::string kSource = SWITCHBACK_SOURCE_DIR;

// The sample digits as a data set of ten classes.
std::string digits(const TempFolder& folder) {
  for (int d = 0; d < 10; ++d) {
    fs::create_directories(folder / ("digits/" + std::to_string(d)));
    fs::copy_file(kSource + "/weights/samples/digit_" + std::to_string(d) + ".png",
                  folder / ("digits/" + std::to_string(d) + "/a.png"));
  }
  return folder / "digits";
}

TEST(CliRegions, OfADataSet) {
  TempFolder folder;
  const auto d = succeed_json({"regions", digits(folder), "--model", "lenet", "--json", "-o", folder / "out"});
  EXPECT_EQ(d["command"], "regions");
  EXPECT_EQ(d["images"], 10);
  const auto& n = d["networks"][0];
  EXPECT_EQ(n["regions"], 10);
  EXPECT_EQ(n["top1"], 1.0);
  EXPECT_EQ(n["units"], 2048 + 2048 + 256 + 256 + 200);
  ASSERT_EQ(n["layers"].size(), 5u);
  EXPECT_EQ(n["layers"][0]["name"], "pool1");
  EXPECT_EQ(n["layers"][0]["kind"], "switches");
  EXPECT_EQ(n["layers"][4]["units"], 200);
  EXPECT_TRUE(n["within"].is_null()) << "one image of each class";
  EXPECT_GT(n["between"].get<double>(), 100);
  EXPECT_EQ(n["classes"].size(), 10u);
  EXPECT_EQ(d["inputs"][0]["files"][0]["path"], folder / "out/digits.regions.png");
  EXPECT_GT(load_image(folder / "out/digits.regions.png").width, 600);
}

TEST(CliRegions, OfSeveralWeightsWhateverTheBatch) {
  TempFolder folder;
  const std::string data = digits(folder), lenet = kSource + "/weights/lenet.safetensors";
  const auto run = [&](const std::string& batch) {
    // The data set may stand behind the weights.
    return succeed_json({"regions", "--model", "lenet", "--weights", lenet, "random:1", "random:2", data, "--limit", "8",
                    "--batch", batch, "--json", "-o", folder / "out"});
  };
  auto a = run("8"), b = run("3");
  ASSERT_EQ(a["networks"].size(), 3u);
  EXPECT_EQ(a["networks"][0]["name"], "lenet");
  EXPECT_EQ(a["networks"][1]["name"], "random:1");
  EXPECT_EQ(a["images"], 8);
  EXPECT_EQ(a["networks"], b["networks"]);
  EXPECT_NE(a["networks"][0]["between"], a["networks"][1]["between"]);
  EXPECT_EQ(result(a, ".png"), folder / "out/digits.regions-limit8.png");
  const Outcome text =
      run_switchback({"regions", data, "--model", "lenet", "--weights", "random:1", "random:2", "--save", "none"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find("random:2"), std::string::npos) << text.out;
}

// Two runs of `train` beside each other, with the etalons' correlations: those of one weights' file do not depend on what
// stands beside it.
TEST(CliRegions, OfSeveralRuns) {
  TempFolder folder;
  const std::string data = digits(folder);
  for (const auto& [name, images] : {std::pair{"all", "[0:10]"}, {"few", "[0:3]"}})
    succeed({"train", data + images, "--model", "lenet", "--epochs", std::string(name) == "all" ? "3" : "2", "--batch-size", "3",
             "--quiet", "-o", folder / name});
  for (int d = 0; d < 10; ++d)  // a class needs two images
    fs::copy_file(kSource + "/weights/samples/digit_" + std::to_string((d + 1) % 10) + ".png", fmt::format("{}/{}/b.png", data, d));
  const auto runs = succeed_json({"regions", data, "--model", "lenet", "--weights", folder / "all", "--weights", folder / "few",
                                  "--etalons", "--json", "-o", folder / "out"});
  ASSERT_EQ(runs["networks"].size(), 4u + 3u);
  EXPECT_EQ(runs["networks"][0]["run"], folder / "all");
  EXPECT_EQ(runs["networks"][6]["run"], folder / "few");
  const auto one = succeed_json({"regions", data, "--model", "lenet", "--weights", folder / "all/epoch-003.safetensors", "--etalons",
                                 "--batch", "3", "--json", "-o", folder / "one"});
  EXPECT_EQ(one["networks"][0]["etalons"], runs["networks"][3]["etalons"]);
  EXPECT_LT(one["networks"][0]["etalons"]["within"].get<double>(), 1);
  const Image picture = load_image(result(runs, ".png"));
  EXPECT_GT(picture.height, 4 * 300) << "four charts";
  EXPECT_EQ(run_switchback({"regions", "--plane", "--model", "mlp", "--weights", "random:1", "--etalons"}).code, 2);
}

TEST(CliRegions, OfThePlane) {
  TempFolder folder;
  Tensor points({4, 3});
  const float values[] = {-.5f, -.5f, 0, .5f, .5f, 1, .5f, -.5f, 0, 5, 5, 1};  // the last one lies outside of the range
  std::copy_n(values, 12, points.data());
  write_npy(folder / "points.npy", points);
  const auto d = succeed_json({"regions", "--plane", "--model", "mlp:2-6-2", "--weights", "random:1", "random:2", "--points",
                          folder / "points.npy", "--range", "-1,1", "--json", "-o", folder / "out"});
  ASSERT_EQ(d["networks"].size(), 2u);
  Net net = make_network("mlp:2-6-2");
  net.weights = random_weights(net, 2);
  EXPECT_EQ(d["networks"][1]["regions"], plane_map(net, {}).regions.size());
  EXPECT_EQ(d["networks"][1]["layers"][0]["regions"], plane_map(net, {}).regions.size());
  EXPECT_LE(d["networks"][1]["regions_with_points"].get<int>(), 3);
  EXPECT_LE(d["networks"][1]["right"].get<double>(), 0.75);
  EXPECT_EQ(d["points"], 4);
  EXPECT_EQ(d["precision"], "fp64");
  EXPECT_EQ(d["box"], nlohmann::json({-1, 1, -1, 1}));
  EXPECT_GT(load_image(result(d, ".png")).width, 600);
}

TEST(CliRegions, OfTheShippedSpirals) {
  TempFolder folder;
  const std::string spirals = kSource + "/weights/spirals/";
  const auto d = succeed_json({"regions", "--plane", "--model", "mlp", "--weights", spirals + "step_0000.safetensors",
                          spirals + "step_3000.safetensors", "--points", spirals + "points.npy", "--json", "-o",
                          folder / "out"});
  EXPECT_EQ(d["points"], 400);
  EXPECT_EQ(d["networks"][0]["right"], 213.0 / 400);
  EXPECT_EQ(d["networks"][1]["right"], 1.0);
  EXPECT_EQ(d["networks"][1]["name"], "step_3000");
  EXPECT_GT(d["networks"][1]["regions"].get<int>(), 100);
}

struct ErrorCase {
  const char* name;
  std::vector<std::string> arguments;  // @X: the file X
  int code;
  const char* says;
};
void PrintTo(const ErrorCase& c, std::ostream* out) { *out << c.name; }

class CliRegionsError : public testing::TestWithParam<ErrorCase> {};

TEST_P(CliRegionsError, OneLineAndNothingLeft) {
  TempFolder folder;
  digits(folder);
  write_npy(folder / "four.npy", Tensor::zeros({3, 4}));
  Tensor negative({2, 3});
  for (float& v : negative.values()) v = -1;
  write_npy(folder / "negative.npy", negative);
  const size_t before = folder.files();
  std::vector<std::string> arguments{"regions", "-o", folder / "out"};
  for (const std::string& a : GetParam().arguments) arguments.push_back(a.starts_with("@") ? folder / a.substr(1) : a);
  const Outcome o = run_switchback(arguments);
  EXPECT_EQ(o.code, GetParam().code) << o.line << "\n" << o.err;
  EXPECT_TRUE(o.err.starts_with("switchback: error: ") && o.err.ends_with(")\n")) << o.err;
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
  EXPECT_NE(o.err.find(GetParam().says), std::string::npos) << "said: " << o.err;
  EXPECT_EQ(o.out, "");
  EXPECT_EQ(folder.files(), before + fs::exists(folder / "out")) << "files were left by " << o.line;
}

INSTANTIATE_TEST_SUITE_P(
    Cases, CliRegionsError,
    testing::Values(
        ErrorCase{"NoDataset", {"--model", "lenet"}, 2, "one data set, but 0"},
        ErrorCase{"TwoDatasets", {"--model", "lenet", "@digits", "@digits"}, 2, "one data set, but 2"},
        ErrorCase{"MissingDataset", {"--model", "lenet", "@missing"}, 1, "missing"},
        ErrorCase{"NoModel", {"@digits"}, 2, "--model is missing"},
        ErrorCase{"UnknownModel", {"@digits", "--model", "lenot"}, 2, "nearest: lenet"},
        ErrorCase{"Limit", {"@digits", "--model", "lenet", "--limit", "0"}, 2, "--limit"},
        ErrorCase{"Arrays", {"@digits", "--model", "lenet", "--save", "npy"}, 2, "no arrays"},
        ErrorCase{
            "ModelsAndWeights",
            {"@digits", "--model", "lenet", "--model", "alexnet", "--weights", "random:1", "random:2", "random:3"},
            2,
            "2 --model and 3 --weights"},
        ErrorCase{"NoImages", {"@digits", "--model", "mlp:784-10", "--weights", "random"}, 1, "channels"},
        ErrorCase{"Memory", {"@digits", "--model", "lenet", "--memory", "10K"}, 1, "--memory"},
        ErrorCase{"PointsWithoutPlane", {"@digits", "--model", "lenet", "--points", "@four.npy"}, 2, "--plane"},
        ErrorCase{"PlaneOfADataset", {"@digits", "--plane", "--model", "mlp", "--weights", "random"}, 2, "--points"},
        ErrorCase{"PlaneOfImages", {"--plane", "--model", "lenet"}, 2, "two numbers"},
        ErrorCase{"PlaneWithoutReLU", {"--plane", "--model", "mlp:2-2", "--weights", "random"}, 1, "no ReLU"},
        ErrorCase{"MlpSizes", {"--plane", "--model", "mlp:2-x-2", "--weights", "random"}, 2, "mlp:2-20-2"},
        ErrorCase{
            "FourColumns", {"--plane", "--model", "mlp", "--weights", "random", "--points", "@four.npy"}, 1, "[N,2]"},
        ErrorCase{"NegativeClass",
                  {"--plane", "--model", "mlp", "--weights", "random", "--points", "@negative.npy"},
                  1,
                  "class of point 0"},
        ErrorCase{
            "MissingPoints", {"--plane", "--model", "mlp", "--weights", "random", "--points", "@no.npy"}, 1, "no.npy"},
        ErrorCase{"Range", {"--plane", "--model", "mlp", "--weights", "random", "--range", "1,1"}, 2, "LEFT,RIGHT"},
        ErrorCase{
            "RangeText", {"--plane", "--model", "mlp", "--weights", "random", "--range", "-1,1,x"}, 2, "LEFT,RIGHT"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace switchback::test
