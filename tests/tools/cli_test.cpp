// The command: results, files and JSON of runs that succeed. What must fail is in cli_error_test.cpp.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "tests/support/cli_run.h"
#include "engine/files/image.h"
#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "tests/support/temp_folder.h"
#include "viz/pictures/render.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kSource = SWITCHBACK_SOURCE_DIR;

Tensor wave(Dims dims) {  // a smooth picture-like array
  Tensor t(std::move(dims));
  for (int64_t i = 0; i < t.count(); ++i) t[i] = std::sin(0.37f * float(i % 97)) + 0.5f * std::cos(0.011f * float(i));
  return t;
}

void expect_common_fields(const json& d, const std::string& command) {
  for (const char* key :
       {"model", "weights", "device", "precision", "seed", "version", "inputs", "seconds", "peak_memory_bytes"})
    EXPECT_TRUE(d.contains(key)) << command << " JSON lacks " << key;
  EXPECT_EQ(d["command"], command);
  const std::string device = d["device"];  // the first GPU where there is one
  EXPECT_TRUE(device == "cpu" || device == "cuda:0") << device;
  EXPECT_GT(d["peak_memory_bytes"].get<int64_t>(), 1 << 20);
  const json& s = d["seconds"];
  EXPECT_GE(s["run"].get<double>(), 0);
  EXPECT_NEAR(s["load"].get<double>() + s["run"].get<double>(), s["total"].get<double>(), 1e-6);
}

// Linux carries the largest memory of who starts a program over to it; this is the program's own.
TEST(Cli, PeakMemoryIsItsOwn) {
  TempFolder folder;
  std::vector<char> large(size_t(700) << 20, 1);
  const json document = succeed_json({"classify", "--model", "lenet", "--json", "-o", folder / "out", digit(3)});
  EXPECT_LT(document["peak_memory_bytes"].get<size_t>(), large.size() / 2);
}

TEST(Cli, ClassifyReadsTheSampleDigits) {
  TempFolder folder;
  std::vector<std::string> arguments = {"classify", "--model", "lenet",        "--json", "--save",
                                        "npy",      "-o",      folder / "out", "--top",  "10"};
  for (int d = 0; d < 10; ++d) arguments.push_back(digit(d));
  const json document = succeed(arguments).json();
  expect_common_fields(document, "classify");
  ASSERT_EQ(document["inputs"].size(), 10u);
  for (int d = 0; d < 10; ++d) {
    const json& input = document["inputs"][size_t(d)];
    EXPECT_EQ(input["target"], d) << input.dump();
    EXPECT_EQ(input["class"], std::to_string(d));
    EXPECT_EQ(input["index"], 0);
    EXPECT_EQ(input["path"], digit(d));
    double sum = 0;
    for (const json& t : input["top"]) sum += t["probability"].get<double>();
    EXPECT_NEAR(sum, 1, 1e-9);
    const json& file = input["files"][0];
    EXPECT_EQ(file["axes"], json({"N", "K"}));
    const Tensor logits = read_npy(file["path"]);
    EXPECT_EQ(logits.dims(), (Dims{1, 10}));
    EXPECT_EQ(logits[d], input["score"].get<float>());
  }
}

TEST(Cli, GradientFilesOfTheThreeRules) {
  TempFolder folder;
  for (const std::string rule : {"gradient", "deconv", "guided"}) {
    const json d = succeed({"gradient", "--model", "lenet", "--rule", rule, "--save", "png,npy", "--json", "-o",
                            folder.path(), digit(3), digit(5)})
                       .json();
    expect_common_fields(d, "gradient");
    const std::string path = folder / ("digit_3." + rule + ".npy");
    EXPECT_EQ(read_npy(path).dims(), (Dims{1, 1, 28, 28}));
    EXPECT_EQ(bytes_of(path).substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
    EXPECT_EQ(bytes_of(path).substr(10, 61), "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 28, ") << rule;
    EXPECT_GE(load_image(folder / ("digit_3." + rule + ".png")).width, 28);
    EXPECT_TRUE(fs::exists(folder / ("contact_sheet." + rule + ".png")));
    EXPECT_EQ(d["contact_sheet"], folder / ("contact_sheet." + rule + ".png"));
    EXPECT_EQ(d["inputs"][0]["target"], 3);
    EXPECT_EQ(d["inputs"][1]["target"], 5);
    EXPECT_EQ(d["inputs"][0]["files"].size(), 2u);
    EXPECT_EQ(d["inputs"][0]["files"][1]["axes"], json({"N", "C", "H", "W"}));
  }
  EXPECT_NE(bytes_of(folder / "digit_3.gradient.npy"), bytes_of(folder / "digit_3.guided.npy"));
  EXPECT_NE(bytes_of(folder / "digit_3.gradient.npy"), bytes_of(folder / "digit_3.deconv.npy"));
}

TEST(Cli, SeveralTargetsGetAnAxis) {
  TempFolder folder;
  const std::vector<std::string> base = {"gradient", "--model", "lenet", "--save", "npy", "--json", digit(2)};
  const auto run = [&](const std::string& target, const std::string& out) {
    std::vector<std::string> arguments = base;
    arguments.insert(arguments.end(), {"--target", target, "-o", folder / out});
    return succeed(arguments).json();
  };
  const json d = run("3,7", "two");
  EXPECT_EQ(d["inputs"][0]["files"][0]["axes"], json({"N", "T", "C", "H", "W"}));
  EXPECT_EQ(d["inputs"][0]["target"], json({3, 7}));
  EXPECT_EQ(d["inputs"][0]["class"], json({"3", "7"}));
  const Tensor two = read_npy(result(d, ".npy"));
  EXPECT_EQ(two.dims(), (Dims{1, 2, 1, 28, 28}));
  const Tensor all = read_npy(result(run("all", "all"), ".npy"));
  EXPECT_EQ(all.dims(), (Dims{1, 10, 1, 28, 28}));
  const Tensor seven = read_npy(result(run("7", "one"), ".npy"));
  EXPECT_EQ(seven.dims(), (Dims{1, 1, 28, 28}));
  float largest = 0;
  for (int64_t i = 0; i < 784; ++i) {
    EXPECT_EQ(two[784 + i], seven[i]) << i;
    EXPECT_EQ(all[7 * 784 + i], seven[i]) << i;
    largest = std::max(largest, std::abs(seven[i]));
  }
  EXPECT_GT(largest, 0);
}

TEST(Cli, SmoothGradDoesNotDependOnTheBatchOrTheRun) {
  TempFolder folder;
  const auto run = [&](const std::string& out, std::vector<std::string> more) {
    more.insert(more.begin(), {"smoothgrad", "--model", "lenet", "--samples", "11", "--save", "npy", "--json", "-o",
                               folder / out, digit(4)});
    return bytes_of(result(succeed_json(more), ".npy"));
  };
  const std::string first = run("a", {});
  EXPECT_EQ(first, run("b", {}));
  EXPECT_EQ(first, run("c", {"--batch", "1"}));
  EXPECT_EQ(first, run("d", {"--batch", "4"}));
  EXPECT_EQ(first, run("e", {"--threads", "1"}));
  EXPECT_NE(first, run("f", {"--seed", "1"}));
  EXPECT_NE(first, run("g", {"--moment", "variance"}));
}

TEST(Cli, SmoothGradNoiseIsThatOfTheItemInItsFile) {
  TempFolder folder;
  write_npy(folder / "both.npy", wave({2, 1, 28, 28}));
  const json a = succeed_json({"smoothgrad", "--model", "lenet", "--samples", "3", "--save", "npy", "--json", "-o",
                               folder / "a", folder / "both.npy"});
  const json b = succeed_json({"smoothgrad", "--model", "lenet", "--samples", "3", "--save", "npy", "--json", "-o",
                               folder / "b", digit(1), folder / "both.npy"});
  EXPECT_EQ(bytes_of(result(a, ".npy")), bytes_of(result(b, ".npy", 1)));
}

TEST(Cli, RuleNamesOfSmoothGrad) {
  TempFolder folder;
  succeed({"smoothgrad", "--model", "lenet", "--rule", "guided", "--save", "png,npy", "--quiet", "-o", folder.path(),
           digit(4)});
  EXPECT_EQ(names_in(folder.path()),
            (std::set<std::string>{"digit_4.smoothgrad-guided.png", "digit_4.smoothgrad-guided.npy",
                                   "digit_4.smoothgrad-guided.json"}));
}

TEST(Cli, IntegratedReportsCompleteness) {
  TempFolder folder;
  const json d = succeed({"integrated", "--model", "lenet", "--steps", "200", "--save", "npy", "--json", "-o",
                          folder.path(), digit(8)})
                     .json();
  expect_common_fields(d, "integrated");
  EXPECT_EQ(d["steps"], 200);
  const json& c = d["inputs"][0]["completeness"];
  EXPECT_NEAR(c["sum"].get<double>(), c["difference"].get<double>(), 0.02 * std::abs(c["difference"].get<double>()));
  const Tensor map = read_npy(result(d, ".npy"));
  double sum = 0;
  for (float v : map.values()) sum += v;
  EXPECT_NEAR(sum, c["sum"].get<double>(), 1e-3);
}

TEST(Cli, IntegratedBaselines) {
  TempFolder folder;
  write_npy(folder / "x.npy", wave({1, 28, 28}));
  for (const std::string& baseline : {std::string("mean"), folder / "x.npy"}) {
    const json d = succeed({"integrated", "--model", "lenet", "--steps", "4", "--baseline", baseline, "--save", "npy",
                            "--json", "-o", folder / "out", folder / "x.npy"})
                       .json();
    const Tensor map = read_npy(result(d, ".npy"));
    float largest = 0;
    for (float v : map.values()) largest = std::max(largest, std::abs(v));
    if (baseline == "mean")
      EXPECT_GT(largest, 0);
    else
      EXPECT_EQ(largest, 0) << "the path from x to x has no length";
  }
}

TEST(Cli, EqualStemsAndFolders) {
  TempFolder folder;
  fs::create_directories(folder / "in/a");
  fs::create_directories(folder / "in/b");
  fs::copy_file(digit(1), folder / "in/a/x.png");
  fs::copy_file(digit(2), folder / "in/b/x.png");
  folder.put("in/b/notes.txt", "not an image");
  const Outcome o = succeed({"gradient", "--model", "lenet", "--save", "npy", "--json", "-o", folder / "out",
                             folder / "in/a/x.png", folder / "in/b"});
  EXPECT_NE(o.err.find("warning"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("notes.txt"), std::string::npos) << o.err;
  EXPECT_EQ(names_in(folder / "out"), (std::set<std::string>{"x.gradient.npy", "x.gradient.json", "x_2.gradient.npy",
                                                             "x_2.gradient.json"}));
  const json d = o.json();
  EXPECT_EQ(d["inputs"][0]["target"], 1);
  EXPECT_EQ(d["inputs"][1]["target"], 2);
  EXPECT_EQ(d["inputs"][1]["files"][0]["path"], folder / "out/x_2.gradient.npy");
}

TEST(Cli, ArraysAreUsedAsTheyAre) {
  TempFolder folder;
  write_npy(folder / "x.npy", wave({3, 3, 64, 80}));
  const json d = succeed({"gradient", "--model", "resnet18", "--weights", "random:0", "--save", "png,npy", "--json",
                          "-o", folder / "out", folder / "x.npy"})
                     .json();
  ASSERT_EQ(d["inputs"].size(), 3u);
  EXPECT_EQ(d["weights"], "random:0");
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(d["inputs"][i]["index"], i);
  EXPECT_EQ(read_npy(folder / "out/x.gradient.npy").dims(), (Dims{3, 3, 64, 80}));
  EXPECT_TRUE(fs::exists(folder / "out/x.gradient.png"));
}

TEST(Cli, HiddenUnits) {
  TempFolder folder;
  write_npy(folder / "x.npy", wave({3, 64, 64}));
  const auto run = [&](const std::string& layer) {
    return succeed({"gradient", "--model", "resnet18", "--weights", "random:0", "--layer", layer, "--conv", "direct",
                    "--save", "npy", "--json", "-o", folder / "out", folder / "x.npy"})
        .json();
  };
  const json document = run("layer2.0.conv1:5:3,2"), unit = document["inputs"][0];
  EXPECT_EQ(unit["unit"], json({{"layer", "layer2.0.conv1"}, {"channel", 5}, {"row", 3}, {"column", 2}}));
  EXPECT_EQ(unit["target"], 5);
  EXPECT_TRUE(unit["class"].is_null());
  EXPECT_TRUE(unit["probability"].is_null());
  const Tensor map = read_npy(result(document, ".npy"));
  EXPECT_EQ(map.dims(), (Dims{1, 3, 64, 64}));
  // The receptive field of row 3 of layer2.0.conv1 ends far above the last row, but not above row 20. (Winograd's tiles
  // leave rounding errors of 1e-15 there, hence --conv direct.)
  float outside = 0, inside = 0;
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t w = 0; w < 64; ++w) {
      outside = std::max(outside, std::abs(map[(c * 64 + 63) * 64 + w]));
      inside = std::max(inside, std::abs(map[(c * 64 + 20) * 64 + w]));
    }
  EXPECT_EQ(outside, 0);
  EXPECT_GT(inside, 0);
  const json strongest = run("layer2.0.conv1:5:max")["inputs"][0];
  EXPECT_GE(strongest["score"].get<double>(), unit["score"].get<double>());
  EXPECT_EQ(run("layer2.0.conv1:all")["inputs"][0]["target"].size(), 128u);
}

TEST(Cli, PicturesFollowTheChannelOrder) {
  TempFolder folder;
  write_npy(folder / "x.npy", wave({3, 64, 64}));
  std::vector<Image> pictures;
  for (const auto& [name, order] : {std::pair{"RGB", ChannelOrder::rgb}, {"BGR", ChannelOrder::bgr}}) {
    const std::string how = folder.put(std::string(name) + ".json",
                                       R"({"resize": "direct", "size": [64, 64], "channel_order": ")" + std::string(name) + "\"}");
    const std::vector<std::string> model = {"--model", "resnet18", "--weights", "random:0", "--preprocess", how};
    const auto run = [&](std::vector<std::string> arguments) {
      arguments.insert(arguments.end(), model.begin(), model.end());
      const json d = succeed_json(arguments);
      EXPECT_EQ(d["channel_order"], name);
      return d["inputs"][0]["files"];
    };
    const json files = run({"gradient", "--rule", "guided", "--plain", "--save", "png,npy", "--json", "-o",
                            folder / name, folder / "x.npy"});
    const Tensor map = read_npy(files[1]["path"]);  // in the network's order, whatever that is
    const Image picture = enlarge_to_at_least(signed_rgb(map.data(), 3, 64, 64, order), 224);
    EXPECT_TRUE(load_image(files[0]["path"]) == picture) << name;
    pictures.push_back(load_image(run({"filters", "--json", "-o", folder / name})[0]["path"]));
  }
  EXPECT_FALSE(pictures[0] == pictures[1]);
}

TEST(Cli, FiltersAndActivations) {
  TempFolder folder;
  const json f = succeed({"filters", "--model", "lenet", "--layer", "conv2", "--save", "png,npy", "--json", "-o",
                          folder.path(), "--filters", "0-3,9", "--channels", "1"})
                     .json();
  expect_common_fields(f, "filters");
  EXPECT_EQ(f["shape"], json({64, 32, 5, 5}));
  const Tensor saved = read_npy(folder / "lenet.filters-conv2.npy");
  const Tensor weights = Safetensors(kSource + "/weights/lenet.safetensors").load("conv2.weight");
  ASSERT_EQ(saved.dims(), weights.dims());
  for (int64_t i = 0; i < saved.count(); ++i) EXPECT_EQ(saved[i], weights[i]);
  EXPECT_GT(load_image(folder / "lenet.filters-conv2-filters0-3,9-channels1.png").width, 10);

  for (const auto& [layer, dims] : {std::pair<std::string, Dims>{"conv2", {1, 64, 4, 4}}, {"fc1", {1, 200}}}) {
    const json a = succeed({"activations", "--model", "lenet", "--layer", layer, "--save", "png,npy", "--json", "-o",
                            folder / layer, digit(6)})
                       .json();
    expect_common_fields(a, "activations");
    EXPECT_EQ(read_npy(folder / (layer + "/digit_6.activations-" + layer + ".npy")).dims(), dims);
    EXPECT_GT(load_image(folder / (layer + "/digit_6.activations-" + layer + ".png")).width, 10);
    EXPECT_EQ(a["inputs"][0]["channels"].size(), 5u);
  }
}

TEST(Cli, ActivationsAreThoseOfTheLogits) {
  TempFolder folder;
  succeed(
      {"activations", "--model", "lenet", "--layer", "fc2", "--save", "npy", "--quiet", "-o", folder.path(), digit(6)});
  succeed({"classify", "--model", "lenet", "--save", "npy", "--quiet", "-o", folder.path(), digit(6)});
  EXPECT_EQ(bytes_of(folder / "digit_6.activations-fc2.npy"), bytes_of(folder / "digit_6.classify.npy"));
}

TEST(Cli, SavedWeightsLoadAgain) {
  TempFolder folder;
  succeed({"classify", "--model", "lenet", "--weights", "random:3", "--save-weights", folder / "w.safetensors",
           "--save", "npy", "-o", folder / "a", digit(6)});
  succeed({"classify", "--model", "lenet", "--weights", folder / "w.safetensors", "--save", "npy", "-o", folder / "b",
           digit(6)});
  EXPECT_EQ(bytes_of(folder / "a/digit_6.classify.npy"), bytes_of(folder / "b/digit_6.classify.npy"));
}

TEST(Cli, TapesComeBack) {
  TempFolder folder;
  const std::string tape = folder / "tape.safetensors";
  succeed({"gradient", "--model", "lenet", "--save-tape", tape, "--save", "npy", "--quiet", "-o", folder / "a",
           digit(6), digit(7)});
  const Safetensors file(tape);
  EXPECT_EQ(file.dims("relu1.gate"), (Dims{2, 32, 8, 8}));
  EXPECT_EQ(file.dims("pool1.switch"), (Dims{2, 32, 8, 8}));
  EXPECT_EQ(file.dims("relu3.gate"), (Dims{2, 200, 1, 1}));
  const json loaded = succeed_json({"gradient", "--model", "lenet", "--load-tape", tape, "--save", "npy", "--json", "-o",
                                    folder / "b", digit(6), digit(7)});
  EXPECT_EQ(bytes_of(folder / "a/digit_6.gradient.npy"), bytes_of(result(loaded, ".npy")));
  // The other digit's gates give another map: the file is used.
  const json other = succeed_json({"gradient", "--model", "lenet", "--load-tape", tape, "--target", "6", "--save", "npy",
                                   "--json", "-o", folder / "c", digit(7), digit(6)});
  EXPECT_NE(bytes_of(folder / "a/digit_6.gradient.npy"), bytes_of(result(other, ".npy", 1)));
}

TEST(Cli, EvaluateFolders) {
  TempFolder folder;
  for (int d = 0; d < 10; ++d) {
    fs::create_directories(folder / ("set/" + std::to_string(d)));
    fs::copy_file(digit(d), folder / ("set/" + std::to_string(d) + "/a.png"));
  }
  fs::copy_file(digit(4), folder / "set/9/wrong.png");  // a 4 among the nines
  const json d =
      succeed({"evaluate", "--model", "lenet", "--json", "--save", "png", "-o", folder / "out", folder / "set"}).json();
  expect_common_fields(d, "evaluate");
  EXPECT_EQ(d["images"], 11);
  EXPECT_EQ(d["correct"], 10);
  EXPECT_EQ(d["confusion"][9][4], 1);
  EXPECT_EQ(d["confusion"][4][4], 1);
  EXPECT_EQ(d["worst"][0]["true"], 9);
  EXPECT_EQ(d["worst"][0]["target"], 4);
  EXPECT_NE(d["worst"][0]["path"].get<std::string>().find("wrong.png"), std::string::npos);
  EXPECT_EQ(names_in(folder / "out"), (std::set<std::string>{"set.evaluate.png"}));
}

TEST(Cli, EvaluateMnist) {
  const std::string images = kSource + "/../shared/data/mnist/t10k-images-idx3-ubyte.gz";
  if (!fs::exists(images)) GTEST_SKIP() << "shared/data is not here";
  const json d = succeed({"evaluate", "--model", "lenet", "--json", images}).json();
  EXPECT_EQ(d["images"], 10000);
  EXPECT_GE(d["top1"].get<double>(), 0.990);
  EXPECT_GE(d["top5"].get<double>(), d["top1"].get<double>());
}

TEST(Cli, InfoAndModels) {
  const json machine = succeed({"info", "--json"}).json();
  EXPECT_GT(machine["cpu"]["threads"].get<int>(), 0);
  EXPECT_EQ(machine["devices"][0], "cpu");
  EXPECT_EQ(machine["devices"].size(), 1 + machine["gpus"].size());
  EXPECT_EQ(machine["gpus"].empty(), !machine["cuda"]["why_no_gpu"].get<std::string>().empty());
  const json info = succeed({"info", "--model", "vgg19", "--json"}).json();
  EXPECT_EQ(info["parameters"], 143667240);  // torchvision's
  EXPECT_EQ(info["layers"].back()["shape"], json({1000, 1, 1}));
  EXPECT_NEAR(info["flops"].get<double>(), 2 * 19.63e9, 0.05e9);
  const json expected_tensors = {{{"name", "classifier.6.weight"}, {"shape", {1000, 4096}}},
                                 {{"name", "classifier.6.bias"}, {"shape", {1000}}}};
  EXPECT_EQ(info["layers"].back()["tensors"], expected_tensors);
  EXPECT_EQ(info["layers"][0]["tensors"], json::array());  // the input
  const json models = succeed({"models", "--json"}).json();
  std::set<std::string> names;
  for (const json& m : models["models"]) {
    names.insert(m["name"]);
    if (m["name"] == "lenet") {
      EXPECT_FALSE(m["weights"].empty());
    }
  }
  for (const char* name : {"lenet", "alexnet", "vgg11", "vgg19_bn", "resnet18", "resnet34", "resnet152", "googlenet",
                           "encoder_decoder"})
    EXPECT_TRUE(names.contains(name)) << name;
  EXPECT_NE(succeed({"models"}).out.find("lenet.safetensors"), std::string::npos);
  EXPECT_NE(succeed({"info", "--model", "lenet"}).out.find("fc2"), std::string::npos);
  const json dilated = succeed({"info", "--model", "resnet50:dilated=0,1,1", "--json"}).json();
  EXPECT_EQ(dilated["parameters"], 25557032);  // torchvision's
  EXPECT_EQ(dilated["layers"][dilated["layers"].size() - 4]["shape"], json({2048, 28, 28}));
}

TEST(Cli, HelpNamesEveryCommandAndOption) {
  const std::string overview = succeed({"--help"}).out;
  const std::vector<std::pair<std::string, std::vector<std::string>>> wanted = {
      {"classify", {"--top", "--preprocess", "--save-weights"}},
      {"evaluate", {"--top", "--limit"}},
      {"gradient",
       {"--rule", "--times-input", "--save-tape", "--load-tape", "--target", "--score", "--layer", "--precision"}},
      {"smoothgrad", {"--samples", "--noise", "--moment", "--rule", "--seed", "--memory", "--conv", "--threads"}},
      {"integrated", {"--steps", "--baseline", "--device"}},
      {"filters", {"--filters", "--channels", "--layer"}},
      {"activations", {"--order", "--columns", "--layer"}},
      {"cam", {"--method", "--layer", "--layers", "--target", "--score"}},
      {"dump", {"--backward", "--layers", "--target", "--output"}},
      {"info", {"--model", "--json"}},
      {"models", {"--json"}},
      {"train", {"--epochs", "--optimizer", "--lr", "--schedule", "--augment", "--resume", "--threads"}},
      {"bench", {"--method", "--op", "--shape", "--repeat", "--probe", "--batch", "--positions", "--images"}}};
  for (const auto& [command, options] : wanted) {
    EXPECT_NE(overview.find("  " + command + " "), std::string::npos) << command;
    const std::string help = succeed({command, "--help"}).out;
    for (const std::string& option : options)
      EXPECT_NE(help.find(option), std::string::npos) << command << " " << option;
  }
  EXPECT_EQ(succeed({"--version"}).out.substr(0, 11), "switchback ");
  EXPECT_EQ(succeed({"gradient", "--version"}).out.substr(0, 11), "switchback ");
}

// Each is typed as it stands there, in a folder where things lie as in the project's.
TEST(Cli, ExamplesOfTheHelpRun) {
  const TempFolder folder;
  fs::create_directory_symlink(fs::absolute(kSource + "/weights"), folder / "weights");
  for (int d = 0; d < 10; ++d) {
    fs::create_directories(folder / ("out/digits/" + std::to_string(d)));
    fs::copy(digit(d), folder / fmt::format("out/digits/{}/digit_{}.png", d, d));
  }
  const std::string program = fs::absolute(SWITCHBACK_BINARY);
  std::istringstream overview(succeed({"--help"}).out);
  int examples = 0;
  for (std::string line; std::getline(overview, line);) {
    if (!line.starts_with("  ")) continue;
    const std::string command = line.substr(2, line.find(' ', 2) - 2), begin = "  switchback " + command;
    std::istringstream help(succeed({command, "--help"}).out);
    int of_command = 0;
    for (std::string example; std::getline(help, example);) {
      if (!example.starts_with(begin)) continue;
      const std::string typed = program + example.substr(2 + std::string("switchback").size());
      const std::string quick = command == "bench" ? " --repeat 1" : "";
      EXPECT_EQ(std::system(("cd '" + folder.path() + "' && " + typed + quick + " > said 2>&1").c_str()), 0)
          << example << ": " << bytes_of(folder / "said");
      ++of_command;
    }
    EXPECT_GT(of_command, 0) << command;
    examples += of_command;
  }
  EXPECT_GT(examples, 20);
}

TEST(Cli, BenchReportsRates) {
  for (const std::string method : {"forward", "gradient", "jacobian", "smoothgrad", "integrated"}) {
    const json d = succeed({"bench", "--method", method, "--model", "lenet", "--repeat", "3", "--batch", "4",
                            "--samples", "8", "--steps", "8", "--probe", "--json"})
                       .json();
    EXPECT_EQ(d["ms_runs"].size(), 3u) << method;
    EXPECT_EQ(d["probes"].size(), 3u) << method;
    EXPECT_GT(d["items_per_second"].get<double>(), 0) << method;
    EXPECT_NEAR(d["ms_per_item"].get<double>() * d["items_per_second"].get<double>(), 1000, 1e-3) << method;
    EXPECT_GT(d["share_of_peak"].get<double>(), 0) << method;
    EXPECT_EQ(d["weights_bytes"], 4 * 105506) << method;
  }
  for (const auto& [op, shape] : {std::pair<std::string, std::string>{"conv", "2,8,16,16,8,3"},
                                  {"linear", "2,64,32"},
                                  {"maxpool", "2,8,16,16,2"}})
    for (const bool backward : {false, true}) {
      std::vector<std::string> arguments = {"bench", "--op", op, "--shape", shape, "--repeat", "2", "--json"};
      if (backward) arguments.push_back("--backward");
      EXPECT_GT(succeed(arguments).json()["flops_per_second"].get<double>(), 0) << op;
    }
}

TEST(Cli, QuietSaysNothing) {
  TempFolder folder;
  const Outcome o = succeed({"gradient", "--model", "lenet", "--quiet", "-o", folder.path(), digit(6)});
  EXPECT_EQ(o.out + o.err, "");
}

}  // namespace
}  // namespace switchback::test
