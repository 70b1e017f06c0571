// Names of results and what made them: two runs share a name only if they computed the same, pictures and arrays carry
// their run.
#include "tools/cli/names.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "engine/files/files.h"
#include "engine/files/image.h"
#include "engine/files/json.h"
#include "engine/files/npy.h"
#include "engine/files/sha256.h"
#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Form = Setting::Form;

std::string suffix(const std::vector<Setting>& settings, bool picture = true) { return name_suffix(settings, picture); }

TEST(Names, SettingsThatAreNotAtTheirStandard) {
  const Setting rule{"rule", "gradient", "guided", Form::value}, samples{"samples", "50", "100"};
  const Setting fill{"fill", "0", "mean"}, product{"times-input", "off", "on", Form::option}, same{"noise", "0.15", "0.15"};
  const Setting columns{"columns", "0", "4", Form::option_and_value, true};
  EXPECT_EQ(suffix({rule, samples, same, fill, product}), "-guided-samples100-fill_mean-times-input");
  EXPECT_EQ(suffix({columns, samples}), "-columns4-samples100");
  EXPECT_EQ(suffix({columns, samples}, false), "-samples100") << "arrays are the same";
  EXPECT_EQ(suffix({{"fill", "0", "-1.5"}}), "-fill-1.5");
  EXPECT_EQ(suffix({{"layer", "", "features.28:151:6,6", Form::value}}), "-features.28@151@6,6");
}

TEST(Names, PartsAreSafeAndDiffer) {
  EXPECT_EQ(name_part("3,7"), "3,7");
  EXPECT_EQ(name_part("0-15,20"), "0-15,20");
  const std::string slash = name_part("a/b"), under = name_part("a_b"), space = name_part("a b");
  EXPECT_EQ(under, "a_b");
  EXPECT_TRUE(slash.starts_with("a_b~")) << slash;
  EXPECT_NE(slash, space);
  EXPECT_NE(name_part("conv2-seed1"), "conv2-seed1") << "as another option's";
  EXPECT_NE(name_part("a@b"), name_part("a:b"));
  const std::string one(500, 'x'), other = one + "y";
  EXPECT_LE(name_part(one).size(), 60u);
  EXPECT_NE(name_part(one), name_part(other));
  std::vector<Setting> many;
  for (int i = 0; i < 50; ++i) many.push_back({"option" + std::to_string(i), "", "1"});
  const std::string full = suffix(many);
  many[49].given = "2";
  EXPECT_LE(full.size(), 120u);
  EXPECT_NE(full, suffix(many));
}

TEST(Names, Templates) {
  const NameFields fields{.stem = "photo", .command = "cam", .options = "-gradcam", .model = "vgg16", .layer = "conv2",
                          .target = "max", .index = 7};
  EXPECT_EQ(name_by_template(kDefaultName, fields), "photo.cam-gradcam");
  EXPECT_EQ(name_by_template("{index}-{model}-{stem}_{layer}.{target}{options}{command}", fields),
            "7-vgg16-photo_conv2.max-gradcamcam");
  for (const char* wrong : {"{step}", "{stem", "{}", "a/{stem}", "", ".{stem}"})
    expect_error("--name", [&] { name_by_template(wrong, fields); });
}

TEST(Sha256, PublishedValues) {
  const auto of = [](const std::string& text) { return sha256(std::as_bytes(std::span(text.data(), text.size()))); };
  EXPECT_EQ(of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(of(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// The text of a PNG's tEXt chunk.
std::string png_text(const std::string& path, const std::string& key) {
  const std::string png = bytes_of(path), wanted = "tEXt" + key + std::string(1, '\0');
  const size_t at = png.find(wanted);
  if (at == std::string::npos) return "";
  size_t length = 0;
  for (size_t i = at - 4; i < at; ++i) length = length << 8 | uint8_t(png[i]);
  return png.substr(at + wanted.size(), length - key.size() - 1);
}

TEST(CliNames, RunsThatDifferShareNoFile) {
  const TempFolder folder;
  const std::string digit3 = digit(3);
  const std::vector<std::vector<std::string>> runs = {
      {"gradient"},
      {"gradient", "--target", "2,8"},
      {"gradient", "--layer", "conv2:5:1,2"},
      {"gradient", "--score", "probability"},
      {"gradient", "--times-input"},
      {"gradient", "--rule", "guided"},
      {"gradient", "--rule", "guided", "--target", "all"},
      {"smoothgrad", "--samples", "2"},
      {"smoothgrad", "--samples", "2", "--seed", "1"},
      {"smoothgrad", "--samples", "2", "--noise", "0.3"},
      {"smoothgrad", "--samples", "2", "--moment", "variance"},
      {"smoothgrad", "--samples", "2", "--rule", "deconv"},
      {"integrated", "--steps", "2"},
      {"integrated", "--steps", "2", "--baseline", "mean"},
      {"occlusion", "--mask", "8"},
      {"occlusion", "--mask", "8", "--stride", "4"},
      {"occlusion", "--mask", "8", "--fill", "blur"},
      {"occlusion", "--mask", "8", "--cover"},
      {"occlusion", "--mask", "8", "--pixels"},
      {"occlusion", "--mask", "8", "--preview"},
      {"occlusion", "--box", "2,2,9,9"},
      {"occlusion", "--box", "2,2,9,9", "--box", "0,0,5,5"},
      {"cam"},
      {"cam", "--layer", "conv2"},
      {"cam", "--layer", "conv1,conv2"},
      {"cam", "--method", "guided-gradcam"},
      {"channels", "--layer", "relu1"},
      {"channels", "--layer", "relu2"},
      {"channels", "--layer", "relu2", "--box", "2,2,9,9"},
      {"activations"},
      {"activations", "--layer", "fc1"},
      {"activations", "--channels", "0-3"},
      {"activations", "--panel-scale", "shared"},
      {"occlusion", "--mask", "8", "--alpha", "0.3", "--colormap", "jet"},
      {"filters"},
      {"filters", "--layer", "conv2"},
      {"etalon"},
      {"etalon", "--target", "3"},
      {"etalon", "--product"},
      {"classify"},
      {"dump"},
      {"dump", "--backward"},
      {"dump", "--layers", "fc1"},
  };
  // Arrays of a run with other pictures alone have the same name, and the same bytes.
  std::map<std::string, std::string> written;
  for (const std::vector<std::string>& run : runs) {
    std::vector<std::string> words = run;
    words.insert(words.end(), {"--model", "lenet", "-o", folder / "out", "--json"});
    if (run[0] != "dump") words.insert(words.end(), {"--save", "png,npy"});
    if (run[0] != "filters") words.insert(words.end(), {digit3, digit(5)});
    const json d = succeed_json(words);
    std::vector<std::string> paths;
    for (const json& input : d["inputs"])
      for (const json& file : input["files"]) paths.push_back(file["path"]);
    if (d.contains("contact_sheet")) paths.push_back(d["contact_sheet"]);
    for (const std::string& path : paths) {
      const auto [at, fresh] = written.emplace(path, bytes_of(path));
      if (!fresh) {
        EXPECT_TRUE(path.ends_with(".npy") && at->second == bytes_of(path)) << path << " is another run's";
      }
      if (path.ends_with(".npy") || path.ends_with(".npz")) {
        EXPECT_TRUE(fs::exists(path.substr(0, path.size() - 4) + ".json")) << path;
      }
    }
  }
}

TEST(CliNames, OfAllOptions) {
  const TempFolder folder;
  const auto name = [&](std::vector<std::string> words) {
    words.insert(words.end(), {"--model", "lenet", "-o", folder / "out", "--json", digit(3)});
    return fs::path(succeed_json(words)["inputs"][0]["files"][0]["path"].get<std::string>()).filename().string();
  };
  EXPECT_EQ(name({"gradient"}), "digit_3.gradient.png");
  EXPECT_EQ(name({"gradient", "--target", "max", "--score", "logit"}), "digit_3.gradient.png") << "given, but the standard";
  EXPECT_EQ(name({"gradient", "--rule", "guided", "--score", "nll", "--target", "2,8", "--times-input"}),
            "digit_3.guided-times-input-target2,8-nll.png");
  EXPECT_EQ(name({"smoothgrad", "--noise", "0.2", "--rule", "guided", "--samples", "3", "--seed", "4"}),
            "digit_3.smoothgrad-guided-samples3-noise0.2-seed4.png");
  EXPECT_EQ(name({"cam", "--method", "gradcam++", "--layer", "conv2"}), "digit_3.cam-gradcam++-conv2.png");
  EXPECT_EQ(name({"gradient", "--name", "{index}_{model}_{stem}_{target}", "--target", "4"}), "0_lenet_digit_3_4.png");
  EXPECT_EQ(name({"etalon", "--name", "x", "--target", "4"}), "x.png");
  const Outcome two = run_switchback({"gradient", "--model", "lenet", "-o", folder / "out", "--name", "x", digit(1), digit(2)});
  EXPECT_EQ(two.code, 2);
  EXPECT_NE(two.err.find("{index}"), std::string::npos) << two.err;
}

TEST(CliNames, ResultsCarryTheirRun) {
  const TempFolder folder;
  const std::string weights = std::string(SWITCHBACK_SOURCE_DIR) + "/weights/lenet.safetensors";
  const json d = succeed_json({"gradient", "--model", "lenet", "--target", "4", "--save", "png,npy", "-o", folder / "o ut",
                               "--json", digit(3), digit(4)});
  for (const std::string& path : {result(d, ".png"), d["contact_sheet"].get<std::string>()}) {
    EXPECT_TRUE(png_text(path, "Software").starts_with("switchback ")) << path;
    const json run = parse_json(png_text(path, "switchback"));
    EXPECT_EQ(run["model"], "lenet");
    EXPECT_EQ(run["weights_sha256"], sha256_of_file(weights));
    EXPECT_EQ(run["version"], d["version"]);
    EXPECT_EQ(run["target"], "4");
    const std::string line = run["command_line"];
    EXPECT_NE(line.find(" gradient --model lenet --target 4 "), std::string::npos) << line;
    EXPECT_NE(line.find(" -o '" + (folder / "o ut") + "' "), std::string::npos) << line;
  }
  const json colors = parse_json(png_text(result(d, ".png"), "switchback"))["colors"];
  ASSERT_EQ(colors.size(), 1u);
  EXPECT_EQ(colors[0]["map"], "gray");
  EXPECT_GT(colors[0]["to"].get<double>(), colors[0]["from"].get<double>());

  const json beside = parse_json(bytes_of(folder / "o ut/digit_4.gradient-target4.json"));
  EXPECT_EQ(beside["weights_sha256"], sha256_of_file(weights));
  EXPECT_EQ(beside["rule"], "gradient");
  EXPECT_EQ(beside["channel_order"], "gray");
  EXPECT_EQ(beside["files"][0]["path"], result(d, ".npy", 1));
  EXPECT_EQ(beside["files"][0]["axes"], json({"N", "C", "H", "W"}));
  EXPECT_EQ(beside["files"][0]["shape"], json({1, 1, 28, 28}));
  ASSERT_EQ(beside["inputs"].size(), 1u) << "its own alone";
  EXPECT_EQ(beside["inputs"][0]["path"], digit(4));
  EXPECT_EQ(beside["inputs"][0]["score"], d["inputs"][1]["score"]);

  const json pictures = succeed_json({"gradient", "--model", "lenet", "--weights", "random:0", "--save", "png,json", "-o",
                                      folder / "p", "--json", digit(3)});
  EXPECT_EQ(names_in(folder / "p"), (std::set<std::string>{"digit_3.gradient.png", "digit_3.gradient.json"}));
  EXPECT_EQ(parse_json(png_text(result(pictures, ".png"), "switchback"))["weights_sha256"], nullptr);
  const Outcome nothing = run_switchback({"gradient", "--model", "lenet", "--save", "json", "-o", folder / "p", digit(3)});
  EXPECT_EQ(nothing.code, 2);
  EXPECT_NE(nothing.err.find("png,json"), std::string::npos) << nothing.err;
}

}  // namespace
}  // namespace switchback::test
