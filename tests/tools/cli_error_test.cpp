// Bad input and wrong usage of the command: exit code, one line on stderr, nothing left behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include "tests/support/cli_run.h"
#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;

const std::string kSource = SWITCHBACK_SOURCE_DIR;
const std::string kDigit = kSource + "/weights/samples/digit_3.png";
const std::string kLenet = kSource + "/weights/lenet.safetensors";

std::string npy(const std::string& descr, const std::string& order, const std::string& shape, size_t data_bytes) {
  std::string header = "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
  header.resize((header.size() + 10 + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  return std::string("\x93NUMPY\x01\x00", 8) + char(header.size() & 255) + char(header.size() >> 8) + header +
         std::string(data_bytes, '\0');
}

// A PNG's head that promises 50,000 x 50,000 grey pixels (the CRC of IHDR is right).
std::string huge_png() {
  return std::string("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xc3\x50\0\0\xc3\x50\x08\0\0\0\0", 29) +
         std::string("\x6e\xc4\x62\x16", 4);
}

Tensor filled(Dims dims, float value) {
  Tensor t(std::move(dims));
  for (float& v : t.values()) v = value;
  return t;
}

// Everything that the cases below name as @FILE.
void make_files(const TempFolder& f) {
  f.put("text.png", "this is no picture\n");
  f.put("empty.png", "");
  f.put("huge.png", huge_png());
  std::ifstream whole(kDigit, std::ios::binary);
  const std::string png{std::istreambuf_iterator<char>(whole), {}};
  f.put("cut.png", png.substr(0, png.size() / 2));
  f.put("f64.npy", npy("<f8", "False", "(1, 1, 28, 28)", 784 * 8));
  f.put("fortran.npy", npy("<f4", "True", "(1, 1, 28, 28)", 784 * 4));
  f.put("rank2.npy", npy("<f4", "False", "(28, 28)", 784 * 4));
  f.put("none.npy", npy("<f4", "False", "(0, 1, 28, 28)", 0));
  f.put("short.npy", npy("<f4", "False", "(1, 1, 28, 28)", 784));
  f.put("lying.npy", npy("<f4", "False", "(99999999, 1, 28, 28)", 784 * 4));
  f.put("text.npy", "not an array");
  Tensor nan = filled({1, 1, 28, 28}, 0.5f);
  nan[100] = std::numeric_limits<float>::quiet_NaN();
  f.put("nan.npy", "");
  const std::vector<uint8_t> bytes = npy_bytes(nan);
  f.put("nan.npy", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  write_npy(f / "ok.npy", filled({1, 1, 28, 28}, 0.5f));
  write_npy(f / "rgb.npy", filled({1, 3, 28, 28}, 0.5f));
  write_npy(f / "tiny.npy", filled({1, 1, 4, 4}, 0.5f));
  fs::create_directories(f / "nothing");
  f.put("texts/a.txt", "no picture");
  f.put("file", "a file where a folder is wanted");
  std::ifstream weights(kLenet, std::ios::binary);
  const std::string lenet{std::istreambuf_iterator<char>(weights), {}};
  f.put("cut.safetensors", lenet.substr(0, lenet.size() / 2));
  f.put("lying.safetensors", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + lenet.substr(8));
  f.put("text.safetensors", "hello");
  write_safetensors(f / "other.safetensors", {{"features.0.weight", filled({2, 3, 3, 3}, 1)}});
  f.put("bad.json", "{\"size\": ");
}

struct Case {
  const char* name;
  std::vector<std::string> arguments;  // @X: the file X; "-o @out" is added
  int code;
  const char* says;  // on stderr, anywhere
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      // files
      {"MissingImage", {"gradient", "--model", "lenet", "@missing.png"}, 1, "missing.png"},
      {"TextAsPng", {"gradient", "--model", "lenet", "@text.png"}, 1, "text.png"},
      {"EmptyPng", {"gradient", "--model", "lenet", "@empty.png"}, 1, "empty.png"},
      {"HugePng", {"gradient", "--model", "lenet", "@huge.png"}, 1, "huge.png"},
      {"CutPng", {"gradient", "--model", "lenet", "@cut.png"}, 1, "cut off"},
      {"BadAfterGood", {"gradient", "--model", "lenet", "--strict", kDigit, "@cut.png"}, 1, "cut.png"},
      {"BadArrayAfterGood",
       {"smoothgrad", "--strict", "--samples", "2", "--model", "lenet", kDigit, "@rgb.npy"},
       1,
       "rgb.npy"},
      {"Float64", {"gradient", "--model", "lenet", "@f64.npy"}, 1, "float32"},
      {"FortranOrder", {"gradient", "--model", "lenet", "@fortran.npy"}, 1, "fortran.npy"},
      {"Rank2", {"gradient", "--model", "lenet", "@rank2.npy"}, 1, "rank2.npy"},
      {"NoItems", {"gradient", "--model", "lenet", "@none.npy"}, 1, "none.npy"},
      {"ShortArray", {"gradient", "--model", "lenet", "@short.npy"}, 1, "short.npy"},
      {"LyingArray", {"gradient", "--model", "lenet", "@lying.npy"}, 1, "lying.npy"},
      {"TextArray", {"gradient", "--model", "lenet", "@text.npy"}, 1, "text.npy"},
      {"NanArray", {"gradient", "--model", "lenet", "@nan.npy"}, 1, "nan.npy"},
      {"WrongChannels", {"gradient", "--model", "lenet", "@rgb.npy"}, 1, "channels"},
      {"TooSmall", {"gradient", "--model", "lenet", "@tiny.npy"}, 1, "tiny.npy"},
      {"EmptyFolder", {"gradient", "--model", "lenet", "@nothing"}, 1, "no images"},
      {"FolderOfTexts", {"gradient", "--model", "lenet", "@texts"}, 1, "no images"},
      {"NoDataset", {"evaluate", "--model", "lenet", "@nothing"}, 1, "nothing"},
      {"MissingDataset", {"evaluate", "--model", "lenet", "@missing"}, 1, "missing"},
      {"BadPreprocess", {"gradient", "--model", "lenet", "--preprocess", "@bad.json", kDigit}, 1, "bad.json"},
      {"BaselineShape", {"integrated", "--model", "lenet", "--baseline", "@rgb.npy", kDigit}, 1, "rgb.npy"},
      // weights
      {"CutWeights", {"gradient", "--model", "lenet", "--weights", "@cut.safetensors", kDigit}, 1, "cut.safetensors"},
      {"LyingWeights",
       {"gradient", "--model", "lenet", "--weights", "@lying.safetensors", kDigit},
       1,
       "lying.safetensors"},
      {"TextWeights",
       {"gradient", "--model", "lenet", "--weights", "@text.safetensors", kDigit},
       1,
       "text.safetensors"},
      {"OtherWeights", {"gradient", "--model", "lenet", "--weights", "@other.safetensors", kDigit}, 1, "conv1.weight"},
      {"WeightsOfLenet", {"gradient", "--model", "alexnet", "--weights", kLenet, kDigit}, 1, "features.0.weight"},
      {"MissingWeights",
       {"gradient", "--model", "lenet", "--weights", "@missing.safetensors", kDigit},
       1,
       "missing.safetensors"},
      {"NoWeights", {"gradient", "--model", "vgg19", kDigit}, 1, "random:0"},
      {"BadSeedOfWeights", {"gradient", "--model", "lenet", "--weights", "random:x", kDigit}, 2, "random:x"},
      {"MissingTape",
       {"gradient", "--model", "lenet", "--load-tape", "@missing.safetensors", kDigit},
       1,
       "missing.safetensors"},
      {"OtherTape",
       {"gradient", "--model", "lenet", "--load-tape", "@other.safetensors", kDigit},
       1,
       "has no 'pool1.switch'"},
      {"TapeBatch",
       {"gradient", "--model", "lenet", "--save-tape", "@t.safetensors", "--batch", "1", kDigit, kDigit},
       2,
       "--batch"},
      // names
      {"NoCommand", {}, 2, "classify"},
      {"UnknownCommand", {"gradiant"}, 2, "nearest: gradient"},
      {"NoSuchCommand", {"judges-of-maps", "--model", "lenet", kDigit}, 2, "commands: classify"},
      {"MaskTooLarge", {"occlusion", "--model", "lenet", kDigit, "--mask", "29"}, 2, "--mask can be at most 28"},
      {"MaskNoSize", {"occlusion", "--model", "lenet", kDigit, "--mask", "3by4"}, 2, "--mask"},
      {"StrideZero", {"occlusion", "--model", "lenet", kDigit, "--mask", "8", "--stride", "0"}, 2, "--stride"},
      {"BoxOutside", {"occlusion", "--model", "lenet", kDigit, "--box", "20,0,9,9"}, 2, "does not lie inside"},
      {"BoxesAndPixels", {"occlusion", "--model", "lenet", kDigit, "--box", "2,2,9,9", "--pixels"}, 2, "--pixels"},
      {"OcclusionMemory", {"occlusion", "--model", "lenet", kDigit, "--mask", "8", "--memory", "1K"}, 1, "--memory"},
      {"OcclusionAlgorithm", {"occlusion", "--model", "lenet", kDigit, "--algorithm", "coarse"}, 2, "incremental"},
      {"OptionFirst", {"--model", "lenet", "gradient"}, 2, "first"},
      {"UnknownOption", {"gradient", "--model", "lenet", "--tagret", "3", kDigit}, 2, "nearest: --target"},
      {"OptionOfAnother", {"gradient", "--model", "lenet", "--samples", "3", kDigit}, 2, "--samples"},
      {"MissingValue", {"gradient", kDigit, "--model"}, 2, "--model"},
      {"NoModel", {"gradient", kDigit}, 2, "--model"},
      {"UnknownModel", {"gradient", "--model", "vgg18", kDigit}, 2, "nearest: vgg1"},
      {"OnnxModel", {"gradient", "--model", "x.onnx", kDigit}, 1, "cannot read x.onnx"},
      {"NoInput", {"gradient", "--model", "lenet"}, 2, "INPUT"},
      {"InputOfFilters", {"filters", "--model", "lenet", kDigit}, 2, "INPUT"},
      {"UnknownLayer", {"gradient", "--model", "lenet", "--layer", "conv3:1", kDigit}, 2, "conv"},
      {"UnknownChannel", {"gradient", "--model", "lenet", "--layer", "conv2:64", kDigit}, 2, "0 to 63"},
      {"UnknownPlace", {"gradient", "--model", "lenet", "--layer", "conv2:3:4,0", kDigit}, 2, "4 rows"},
      {"BadPlace", {"gradient", "--model", "lenet", "--layer", "conv2:3:a", kDigit}, 2, "ROW,COL"},
      {"UnknownClass", {"gradient", "--model", "lenet", "--target", "10", kDigit}, 2, "0 to 9"},
      {"NegativeClass", {"gradient", "--model", "lenet", "--target", "-1", kDigit}, 2, "0 to 9"},
      {"UnknownLabel", {"gradient", "--model", "lenet", "--target", "cat", kDigit}, 2, "nearest label"},
      {"TargetAndLayer", {"gradient", "--model", "lenet", "--target", "1", "--layer", "conv2:3", kDigit}, 2, "--layer"},
      {"ScoreOfHidden", {"gradient", "--model", "lenet", "--score", "nll", "--layer", "conv2:3", kDigit}, 2, "--score"},
      {"UnknownScore", {"gradient", "--model", "lenet", "--score", "logits", kDigit}, 2, "probability"},
      {"UnknownRule", {"gradient", "--model", "lenet", "--rule", "relu", kDigit}, 2, "guided"},
      {"UnknownMoment", {"smoothgrad", "--model", "lenet", "--moment", "median", kDigit}, 2, "variance"},
      {"UnknownDevice", {"gradient", "--model", "lenet", "--device", "gpu", kDigit}, 2, "cuda"},
      {"NoSuchGpu", {"gradient", "--model", "lenet", "--device", "cuda:1000", kDigit}, 1, "--device c"},
      {"GpuNumber", {"gradient", "--model", "lenet", "--device", "cuda:x", kDigit}, 2, "cuda:"},
      {"ConvOfTheGpu", {"gradient", "--model", "lenet", "--device", "cpu", "--conv", "cudnn", kDigit}, 2, "winograd"},
      {"UnknownConv", {"gradient", "--model", "lenet", "--conv", "fft", kDigit}, 2, "winograd"},
      {"UnknownGraphs", {"gradient", "--model", "lenet", "--graphs", "maybe", kDigit}, 2, "on"},
      {"UnknownPrecision", {"gradient", "--model", "lenet", "--precision", "fp64", kDigit}, 2, "bf16"},
      {"Tf32OnCpu", {"gradient", "--model", "lenet", "--device", "cpu", "--precision", "tf32", kDigit}, 1, "CPU"},
      {"UnknownSave", {"gradient", "--model", "lenet", "--save", "jpg", kDigit}, 2, "npy"},
      {"FiltersOfPool", {"filters", "--model", "lenet", "--layer", "pool1"}, 2, "conv1"},
      {"FilterRange", {"filters", "--model", "lenet", "--filters", "32"}, 2, "0 to 31"},
      {"ActivationLayer", {"activations", "--model", "lenet", "--layer", "conv9", kDigit}, 2, "conv"},
      // numbers
      {"BatchZero", {"gradient", "--model", "lenet", "--batch", "0", kDigit}, 2, "--batch"},
      {"BatchText", {"gradient", "--model", "lenet", "--batch", "many", kDigit}, 2, "--batch"},
      {"MemoryText", {"gradient", "--model", "lenet", "--memory", "2X", kDigit}, 2, "500M"},
      {"SamplesZero", {"smoothgrad", "--model", "lenet", "--samples", "0", kDigit}, 2, "--samples"},
      {"SamplesText", {"smoothgrad", "--model", "lenet", "--samples", "x", kDigit}, 2, "--samples"},
      {"NoiseNegative", {"smoothgrad", "--model", "lenet", "--noise", "-1", kDigit}, 2, "--noise"},
      {"StepsZero", {"integrated", "--model", "lenet", "--steps", "0", kDigit}, 2, "--steps"},
      {"TopZero", {"classify", "--model", "lenet", "--top", "0", kDigit}, 2, "--top"},
      {"ThreadsZero", {"classify", "--model", "lenet", "--threads", "0", kDigit}, 2, "--threads"},
      {"SeedNegative", {"smoothgrad", "--model", "lenet", "--seed", "-3", kDigit}, 2, "--seed"},
      {"TwoDatasets", {"evaluate", "--model", "lenet", "@nothing", "@texts"}, 2, "one data set"},
      {"BenchNothing", {"bench", "--model", "lenet"}, 2, "--method"},
      {"BenchShape", {"bench", "--op", "conv", "--shape", "1,2"}, 2, "kernel"},
      {"BenchUnknown", {"bench", "--method", "backward", "--model", "lenet"}, 2, "jacobian"},
      // output
      {"OutputIsAFile", {"gradient", "--model", "lenet", kDigit, "-o", "@file"}, 1, "file"},
      {"OutputBelowAFile", {"gradient", "--model", "lenet", kDigit, "-o", "@file/out"}, 1, "file"},
  };
  return all;
}

class CliError : public testing::TestWithParam<Case> {};

TEST_P(CliError, OneLineAndNothingLeft) {
  TempFolder folder;
  make_files(folder);
  const size_t before = folder.files();
  std::vector<std::string> arguments;
  bool output_named = false;
  for (const std::string& a : GetParam().arguments) {
    arguments.push_back(a.starts_with("@") ? folder / a.substr(1) : a);
    output_named |= a == "-o";
  }
  const std::string command = arguments.empty() ? "" : arguments[0];
  const bool has_output = command == "gradient" || command == "smoothgrad" || command == "integrated" ||
                          command == "classify" || command == "evaluate" || command == "filters" ||
                          command == "activations";
  if (!output_named && has_output) {
    arguments.insert(arguments.begin() + 1, {"-o", folder / "out"});
  }
  const Outcome o = run_switchback(arguments);
  EXPECT_EQ(o.code, GetParam().code) << o.line << "\n" << o.err;
  EXPECT_TRUE(o.err.starts_with("switchback: error: ")) << o.line << "\n" << o.err;
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
  EXPECT_NE(o.err.find(GetParam().says), std::string::npos)
      << o.line << "\nsaid: " << o.err << "not: " << GetParam().says;
  EXPECT_EQ(o.out, "");
  if (fs::exists(folder / "out")) fs::remove(folder / "out");  // may be there, but empty
  EXPECT_EQ(folder.files(), before) << "files were left by " << o.line;
}

INSTANTIATE_TEST_SUITE_P(Cases, CliError, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(CliFailure, ErrorsCarryAHint) {
  TempFolder folder;
  make_files(folder);
  for (const std::string file : {"text.png", "f64.npy", "nan.npy", "fortran.npy"}) {
    const Outcome o = run_switchback({"gradient", "--model", "lenet", "-o", folder / "out", folder / file});
    EXPECT_EQ(o.err.substr(o.err.size() - 2), ")\n") << "no hint: " << o.err;
  }
}

TEST(CliFailure, FileSizeLimitLeavesNothing) {  // as a full disk: write() fails midway
  TempFolder folder;
  const Outcome o = run_switchback({"gradient", "--model", "lenet", "--save", "png,npy", "-o", folder / "out", kDigit},
                                   {.file_bytes = 1000});
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_TRUE(o.err.starts_with("switchback: error: ")) << o.err;
  EXPECT_TRUE(fs::is_empty(folder / "out"));
}

TEST(CliFailure, FullStandardOutput) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const Outcome o = run_switchback({"models"}, {.stdout_to = "/dev/full"});
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_NE(o.err.find("standard output"), std::string::npos) << o.err;
}

}  // namespace
}  // namespace switchback::test
