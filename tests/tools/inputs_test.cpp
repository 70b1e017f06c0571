// INPUT arguments of the command: data sets and parts of them, standard input, EXIF, inputs that cannot be read, and what
// the command says of its runs.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "engine/files/npz.h"
#include "engine/files/files.h"
#include "engine/files/image.h"
#include "engine/files/npy.h"
#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// An idx pair of the ten sample digits, whose labels are their classes.
std::string idx_of_digits(const TempFolder& folder) {
  const auto number = [](int n) { return std::string{char(n >> 24), char(n >> 16), char(n >> 8), char(n)}; };
  std::string images = std::string("\0\0\x08\x03", 4) + number(10) + number(28) + number(28);
  std::string labels = std::string("\0\0\x08\x01", 4) + number(10);
  for (int d = 0; d < 10; ++d) {
    const Image grey = to_grey(load_image(digit(d)));
    images.append(reinterpret_cast<const char*>(grey.pixels.data()), grey.pixels.size());
    labels += char(d);
  }
  folder.put("d-labels-idx1-ubyte", labels);
  return folder.put("d-images-idx3-ubyte", images);
}

TEST(CliInputs, DataSetsAndTheirParts) {
  const TempFolder folder;
  const std::string set = idx_of_digits(folder);
  const auto run = [&](const std::string& command, const std::string& input, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {command, "--model", "lenet", "--save", "npy", "--json", "-o", folder / "out", input});
    return succeed_json(more);
  };
  const json all = run("classify", set);
  ASSERT_EQ(all["inputs"].size(), 10u);
  for (int d = 0; d < 10; ++d) {
    const json& entry = all["inputs"][size_t(d)];
    EXPECT_EQ(entry["target"], d);
    EXPECT_EQ(entry["label"], d);
    EXPECT_EQ(entry["index"], d);
    EXPECT_EQ(entry["path"], set + "[" + std::to_string(d) + "]");
  }
  EXPECT_EQ(result(all, ".npy"), folder / "out/d-images-idx3-ubyte.classify.npy");
  const json part = run("gradient", set + "[7:9]"), one = run("gradient", set + "[8]"), end = run("gradient", set + "[8:]");
  EXPECT_EQ(part["inputs"].size(), 2u);
  EXPECT_EQ(part["inputs"][1]["label"], 8);
  EXPECT_EQ(part["inputs"][1]["index"], 8);
  EXPECT_EQ(part["inputs"][1]["path"], set + "[8]");
  EXPECT_EQ(result(part, ".npy"), folder / "out/d-images-idx3-ubyte@7-9.gradient.npy");
  EXPECT_EQ(end["inputs"].size(), 2u);
  const Tensor two = read_npy(result(part, ".npy")), eight = read_npy(result(one, ".npy"));
  ASSERT_EQ(two.dims(), (Dims{2, 1, 28, 28}));
  ASSERT_EQ(eight.dims(), (Dims{1, 1, 28, 28}));
  for (int64_t i = 0; i < 784; ++i) ASSERT_EQ(two[784 + i], eight[i]);
  // Noise is that of the image in its data set.
  const json few = run("smoothgrad", set + "[4:6]", {"--samples", "3"}), five = run("smoothgrad", set + "[5]", {"--samples", "3"});
  const Tensor a = read_npy(result(few, ".npy")), b = read_npy(result(five, ".npy"));
  for (int64_t i = 0; i < 784; ++i) ASSERT_EQ(a[784 + i], b[i]);
  const json etalons = run("etalon", set + "[3:5]");
  EXPECT_EQ(etalons["inputs"][0]["label"], 3);
  EXPECT_EQ(etalons["inputs"][0]["path"], set + "[3]");
  const json judged = succeed_json({"evaluate", "--model", "lenet", "--json", set + "[2:9]"});
  EXPECT_EQ(judged["images"], 7);
  for (const char* wrong : {"[10]", "[3:2]", "[x]", "[0:11]", "[-1]", "[]"}) {
    const Outcome o = run_switchback({"gradient", "--model", "lenet", "-o", folder / "bad", set + wrong});
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_NE(o.err.find("of 10 images"), std::string::npos) << o.err;
  }
}

TEST(CliInputs, FoldersOfClasses) {
  const TempFolder folder;
  for (int d = 0; d < 3; ++d) {
    fs::create_directories(folder / ("set/" + std::to_string(d)));
    fs::copy_file(digit(d), folder / ("set/" + std::to_string(d) + "/a.png"));
  }
  const json d = succeed_json({"gradient", "--model", "lenet", "--save", "npy", "--json", "-o", folder / "out", folder / "set"});
  ASSERT_EQ(d["inputs"].size(), 3u);
  EXPECT_EQ(d["inputs"][2]["path"], folder / "set/2/a.png");
  EXPECT_EQ(d["inputs"][2]["label"], 2);
  EXPECT_EQ(read_npy(folder / "out/set.gradient.npy").dims(), (Dims{3, 1, 28, 28}));
}

TEST(CliInputs, OneThatCannotBeReadIsLeftOut) {
  const TempFolder folder;
  const std::string png = bytes_of(digit(1)), cut = folder.put("cut.png", png.substr(0, png.size() / 2));
  std::vector<std::string> words = {"gradient", "--model", "lenet", "--save", "npy", "--json", "-o", folder / "out",
                                    digit(3),   cut,       digit(5), folder / "missing.png"};
  const Outcome o = run_switchback(words);
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.err.find("error: 2 inputs could not be read: "), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("cut off"), std::string::npos) << o.err;
  const json d = o.json();
  ASSERT_EQ(d["inputs"].size(), 2u);
  EXPECT_EQ(d["inputs"][1]["path"], digit(5));
  ASSERT_EQ(d["failed"].size(), 2u);
  EXPECT_EQ(names_in(folder / "out"), (std::set<std::string>{"digit_3.gradient.npy", "digit_3.gradient.json",
                                                             "digit_5.gradient.npy", "digit_5.gradient.json"}));
  words[7] = folder / "strict";
  words.push_back("--strict");
  const Outcome strict = run_switchback(words);
  EXPECT_EQ(strict.code, 1);
  EXPECT_FALSE(fs::exists(folder / "strict") && !fs::is_empty(folder / "strict"));
  for (const std::string command : {"classify", "dump", "etalon", "activations"}) {
    const Outcome others = run_switchback({command, "--model", "lenet", "--json", "-o", folder / command, cut, digit(5)});
    EXPECT_EQ(others.code, 1) << others.line;
    EXPECT_EQ(others.json()["inputs"].size(), 1u) << others.line;
  }
  const Outcome none = run_switchback({"gradient", "--model", "lenet", "-o", folder / "none", cut, folder / "missing.png"});
  EXPECT_EQ(none.code, 1);
  EXPECT_NE(none.err.find("none of the inputs"), std::string::npos) << none.err;
  EXPECT_EQ(none.out, "");
}

TEST(CliInputs, StandardInput) {
  const TempFolder folder;
  const std::string line = std::string(SWITCHBACK_BINARY) + " gradient --model lenet --quiet --save npy -o " + folder.path() + " - < ";
  EXPECT_EQ(std::system((line + digit(3)).c_str()), 0);
  succeed({"gradient", "--model", "lenet", "--quiet", "--save", "npy", "-o", folder.path(), digit(3)});
  EXPECT_EQ(bytes_of(folder / "stdin.gradient.npy"), bytes_of(folder / "digit_3.gradient.npy"));
  const Outcome twice = run_switchback({"gradient", "--model", "lenet", "-", "-"});
  EXPECT_EQ(twice.code, 2);
  EXPECT_NE(twice.err.find("twice"), std::string::npos) << twice.err;
}

TEST(CliInputs, WhatTheNetworkSawOfThem) {
  const TempFolder folder;
  for (const std::string command : {"classify", "gradient", "cam", "dump", "etalon", "activations"}) {
    succeed({command, "--model", "lenet", "--quiet", "-o", folder / command, "--save-input", folder / (command + ".npy"),
             digit(3), digit(5), digit(8)});
    const Tensor x = read_npy(folder / (command + ".npy"));
    ASSERT_EQ(x.dims(), (Dims{3, 1, 28, 28})) << command;
    const Tensor five = preprocess(load_image(digit(5)), lenet_preprocess());
    for (int64_t i = 0; i < 784; ++i) ASSERT_EQ(x[784 + i], five[i]) << command;
  }
  const std::string set = idx_of_digits(folder);
  for (const std::string command : {"evaluate", "etalon", "regions"}) {
    succeed({command, "--model", "lenet", "--quiet", "-o", folder / command, "--save-input", folder / (command + ".npy"), set});
    EXPECT_EQ(read_npy(folder / (command + ".npy")).dims(), (Dims{10, 1, 28, 28})) << command;
  }
  write_npy(folder / "a.npy", Tensor::zeros({1, 3, 64, 64}));
  write_npy(folder / "b.npy", Tensor::zeros({1, 3, 64, 80}));
  const Outcome o = run_switchback({"gradient", "--model", "resnet18", "--weights", "random:0", "-o", folder / "o", "--save-input",
                                    folder / "x.npy", folder / "a.npy", folder / "b.npy"});
  EXPECT_EQ(o.code, 2) << o.err;
  EXPECT_FALSE(fs::exists(folder / "x.npy"));
}

// ---- what is said

TEST(CliWords, CountsAndSums) {
  const TempFolder folder;
  write_npy(folder / "x.npy", Tensor::zeros({1000, 1, 28, 28}));
  const std::string out = succeed({"gradient", "--model", "lenet", "--save", "npy", "-o", folder / "out", folder / "x.npy"}).out;
  EXPECT_NE(out.find("… and 960 more"), std::string::npos) << out.substr(out.size() - 300);
  EXPECT_NE(succeed({"gradient", "--model", "lenet", "--target", "3,4", "-o", folder / "out", digit(3)}).out.find("and 1 more target,"),
            std::string::npos);
  const std::string maps = succeed({"gradient", "--model", "lenet", "--layer", "conv2:3", "-o", folder / "out", digit(3)}).out;
  EXPECT_NE(maps.find("(the sum over 4x4 positions)"), std::string::npos) << maps;
  const json d = succeed_json({"gradient", "--model", "lenet", "--layer", "conv2:3", "--json", "-o", folder / "out", digit(3)});
  EXPECT_EQ(d["inputs"][0]["summed_positions"], json({4, 4}));
  EXPECT_FALSE(succeed_json({"gradient", "--model", "lenet", "--json", "-o", folder / "out", digit(3)})["inputs"][0].contains(
      "summed_positions"));
}

TEST(CliWords, DropsOfBoxes) {
  const TempFolder folder;
  std::vector<std::string> words = {"occlusion", "--model", "lenet", "--box", "2,2,9,9", "--box", "0,0,28,28", "--save", "npy",
                                    "-o",        folder / "out", digit(3)};
  EXPECT_NE(succeed(words).out.find(" without 2,2,9,9, "), std::string::npos) << succeed(words).out;
  words.push_back("--json");
  const json d = succeed_json(words);
  const Tensor drops = read_npy(result(d, ".npy"));
  ASSERT_EQ(d["inputs"][0]["drops"].size(), 2u);
  for (size_t b = 0; b < 2; ++b) EXPECT_EQ(d["inputs"][0]["drops"][b].get<float>(), drops[int64_t(b)]);
}

TEST(CliWords, HintsThatLeadSomewhere) {
  const TempFolder folder;
  const Outcome noise = run_switchback({"smoothgrad", "--model", "lenet", "--samples", "1", "--noise", "15", "-o", folder / "out", digit(3)});
  EXPECT_EQ(noise.code, 0);
  EXPECT_NE(noise.err.find("warning: --noise 15"), std::string::npos) << noise.err;
  const std::string help = succeed({"help", "gradient"}).out;
  EXPECT_EQ(help, succeed({"gradient", "--help"}).out);
  const Outcome nothing = run_switchback({"help", "gradiant"});
  EXPECT_NE(nothing.err.find("nearest: gradient"), std::string::npos) << nothing.err;
  for (const char* name : {"checkpoint.pth", "checkpoint_legacy.pth"}) {  // another network's, with names of their own
    const Outcome torch = run_switchback({"classify", "--model", "lenet", "--weights",
                                          std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/" + name, digit(3)});
    EXPECT_EQ(torch.code, 1);
    EXPECT_NE(torch.err.find("not weights of lenet: 8 missing: conv1.weight"), std::string::npos) << torch.err;
    EXPECT_NE(torch.err.find("--model must name the architecture"), std::string::npos) << torch.err;
  }
  const std::string npz = folder / "mine.npz";
  {
    OutputFile file(npz);
    NpzWriter writer(file);
    writer.write(writer.add("fc", {1}), std::vector<float>{1});
    writer.finish();
    file.commit();
  }
  const Outcome numpy = run_switchback({"classify", "--model", "lenet", "--weights", npz, digit(3)});
  EXPECT_EQ(numpy.code, 1);
  EXPECT_NE(numpy.err.find("python3 weights/convert.py " + npz), std::string::npos) << numpy.err;
  const std::string onnx = std::string(SWITCHBACK_SOURCE_DIR) + "/../shared/data/models/mobilenet_v1_0.25_128.onnx";
  if (!fs::exists(onnx)) GTEST_SKIP() << "shared/data is not here";
  const Outcome layer = run_switchback({"activations", "--model", onnx, "--layer", "nolayer", digit(3)});
  EXPECT_EQ(layer.code, 2);
  EXPECT_NE(layer.err.find("`switchback info --model " + onnx + "`"), std::string::npos) << layer.err;
  EXPECT_EQ(layer.err.find("nearest is x"), std::string::npos) << layer.err;
}

}  // namespace
}  // namespace switchback::test
