// `switchback etalon`: files, JSON, data sets, runs that are interrupted and resumed, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "engine/files/image.h"
#include "engine/files/npy.h"
#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json succeed_quietly(const std::vector<std::string>& arguments) {
  const Outcome o = succeed(arguments);
  EXPECT_EQ(o.err, "") << o.line;
  return o.json();
}

// What lenet makes of digits, as an array of its input units.
Tensor digits(int64_t n) {
  Tensor x({n, 1, 28, 28});
  for (int64_t i = 0; i < x.count(); ++i)
    x[i] = std::max(-0.42f, 2.8f * std::sin(0.05f * float(i % 784) + float(i / 784)) - 0.5f);
  return x;
}

// <maps[row], x> + bias must be the scores of the JSON entry.
void expect_affine(const Tensor& maps, const Tensor& biases, int64_t first, const float* x, const json& scores) {
  for (size_t p = 0; p < scores.size(); ++p) {
    double sum = biases[first + int64_t(p)], size = 0;
    for (int64_t e = 0; e < 784; ++e) {
      const double product = double(maps[(first + int64_t(p)) * 784 + e]) * x[e];
      sum += product;
      size += std::abs(product);
    }
    EXPECT_NEAR(sum, scores[p].get<double>(), 1e-5 * (size + 1)) << p;
  }
}

TEST(CliEtalon, OfOneDigitAndOfSeveral) {
  TempFolder folder;
  const json d = succeed_quietly({"etalon", "--model", "lenet", "--save", "png,npy", "--json", "-o", folder / "out", digit(3),
                          digit(5)});
  EXPECT_EQ(d["command"], "etalon");
  EXPECT_EQ(d["units"], 10);
  EXPECT_EQ(d["algorithm"], "single-pass");
  EXPECT_LT(d["residual_relative"].get<double>(), 1e-6);
  EXPECT_GT(d["residual"].get<double>(), 0) << "rounding leaves something";
  const json& entry = d["inputs"][1];
  EXPECT_EQ(entry["target"], json({0, 1, 2, 3, 4, 5, 6, 7, 8, 9})) << "all of few outputs";
  EXPECT_EQ(entry["files"][0]["axes"], json({"P", "C", "H", "W"}));
  EXPECT_EQ(entry["files"][1]["axes"], json({"P"}));
  const Tensor maps = read_npy(folder / "out/digit_5.etalon.npy"), biases = read_npy(folder / "out/digit_5.etalon-bias.npy");
  EXPECT_EQ(maps.dims(), (Dims{10, 1, 28, 28}));
  EXPECT_EQ(biases.dims(), (Dims{10}));
  for (size_t p = 0; p < 10; ++p) {
    EXPECT_FLOAT_EQ(biases[int64_t(p)], entry["bias"][p].get<float>());
    EXPECT_NEAR(entry["votes_for"][p].get<double>() + entry["votes_against"][p].get<double>() + entry["bias"][p].get<double>(),
                entry["score"][p].get<double>(), 1e-4);
    EXPECT_LE(entry["residual"][p].get<double>(), d["residual"].get<double>());
  }
  EXPECT_EQ(names_in(folder / "out"),
            (std::set<std::string>{"digit_3.etalon.npy", "digit_3.etalon.json", "digit_3.etalon-bias.npy",
                                   "digit_3.etalon-bias.json", "digit_3.etalon.png", "digit_5.etalon.npy",
                                   "digit_5.etalon.json", "digit_5.etalon-bias.npy", "digit_5.etalon-bias.json",
                                   "digit_5.etalon.png", "contact_sheet.etalon.png"}));
  EXPECT_GT(load_image(folder / "out/contact_sheet.etalon.png").width, 800);
}

TEST(CliEtalon, ArraysOfSeveralInputs) {
  TempFolder folder;
  const Tensor x = digits(7);
  write_npy(folder / "x.npy", x);
  for (const std::string batch : {"auto", "3", "30"}) {
    const json d = succeed_quietly({"etalon", folder / "x.npy", "--model", "lenet", "--save", "npy", "--json", "--batch", batch,
                            "-o", folder / batch});
    EXPECT_EQ(d["inputs"].size(), 7u);
    EXPECT_EQ(d["inputs"][0]["files"][0]["axes"], json({"N", "P", "C", "H", "W"}));
    EXPECT_EQ(names_in(folder / batch), (std::set<std::string>{"x.etalon.npy", "x.etalon.json", "x.etalon-bias.npy",
                                                               "x.etalon-bias.json"}));
    const Tensor maps = read_npy(folder / (batch + "/x.etalon.npy")), biases = read_npy(folder / (batch + "/x.etalon-bias.npy"));
    ASSERT_EQ(maps.dims(), (Dims{7, 10, 1, 28, 28}));
    ASSERT_EQ(biases.dims(), (Dims{7, 10}));
    for (int64_t i = 0; i < 7; ++i) expect_affine(maps, biases, i * 10, x.data() + i * 784, d["inputs"][size_t(i)]["score"]);
    EXPECT_EQ(bytes_of(folder / (batch + "/x.etalon.npy")), bytes_of(folder / "auto/x.etalon.npy"));
  }
  const json products = succeed_quietly({"etalon", folder / "x.npy", "--model", "lenet", "--save", "npy", "--json", "--limit",
                                         "2", "--product", "-o", folder / "product"});
  EXPECT_EQ(result(products, "-bias.npy"), folder / "product/x.etalon-product-limit2-bias.npy");
  const Tensor maps = read_npy(folder / "auto/x.etalon.npy"), product = read_npy(result(products, "limit2.npy"));
  ASSERT_EQ(product.dims(), (Dims{2, 10, 1, 28, 28}));
  for (int64_t i = 0; i < product.count(); ++i) ASSERT_EQ(product[i], maps[i] * x[i / 7840 * 784 + i % 784]);
}

TEST(CliEtalon, CoordinateAlgorithmAndTargets) {
  TempFolder folder;
  const std::vector<std::string> common = {"etalon", digit(2), "--model", "lenet", "--save", "npy", "--json"};
  const auto run = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> all = common;
    all.insert(all.end(), more.begin(), more.end());
    all.insert(all.end(), {"-o", folder / out});
    return succeed_quietly(all);
  };
  const auto maps_of = [](const json& d) { return read_npy(d["inputs"][0]["files"][0]["path"]); };
  const Tensor a = maps_of(run("single", {"--target", "2,7"}));
  const Tensor b = maps_of(run("coordinate", {"--target", "2,7", "--algorithm", "coordinate"}));
  ASSERT_EQ(a.dims(), (Dims{2, 1, 28, 28}));
  ASSERT_EQ(b.dims(), a.dims());
  for (int64_t i = 0; i < a.count(); ++i) ASSERT_NEAR(a[i], b[i], 1e-6);
  const json place = run("place", {"--layer", "conv2:3:1,2"}), all = run("all", {"--layer", "conv2:3:all"});
  const json whole = run("whole", {"--layer", "conv2:3:all", "--full-maps"});
  EXPECT_EQ(place["inputs"][0]["unit"]["row"], 1);
  const Tensor c = maps_of(all), d = maps_of(whole);
  EXPECT_EQ(c.dims(), (Dims{16, 1, 28, 28}));
  EXPECT_LT(all["residual_relative"].get<double>(), 1e-6);
  for (int64_t i = 0; i < c.count(); ++i) ASSERT_NEAR(c[i], d[i], 1e-6);
}

TEST(CliEtalon, OfADataSetAndItsPictures) {
  TempFolder folder;
  for (int d = 0; d < 10; ++d) {
    fs::create_directories(folder / ("digits/" + std::to_string(d)));
    fs::copy_file(digit(d), folder / ("digits/" + std::to_string(d) + "/a.png"));
  }
  const json d = succeed_quietly({"etalon", folder / "digits", "--model", "lenet", "--save", "png,npy", "--json", "--subgraph",
                          "-o", folder / "out"});
  EXPECT_EQ(names_in(folder / "out"),
            (std::set<std::string>{"digits.etalon.npy", "digits.etalon.json", "digits.etalon-bias.npy",
                                   "digits.etalon-bias.json", "digits.etalon.png", "digits.etalon-subgraph.png"}));
  EXPECT_EQ(read_npy(folder / "out/digits.etalon.npy").dims(), (Dims{10, 10, 1, 28, 28}));
  EXPECT_EQ(d["inputs"][4]["label"], 4);
  const Image figure = load_image(folder / "out/digits.etalon.png");
  EXPECT_GT(figure.width, 11 * 84);
  EXPECT_GT(figure.height, 10 * 84);
  EXPECT_GT(load_image(folder / "out/digits.etalon-subgraph.png").width, 700);
}

// 40 tiles of 32x32 in one PNG, each of a shade of its own, are 40 inputs where their labels lie beside it.
TEST(CliEtalon, OfACifarMosaic) {
  TempFolder folder;
  fs::create_directories(folder / "cifar");
  Image mosaic{1280, 32, 3, std::vector<uint8_t>(1280 * 32 * 3)};
  for (size_t i = 0; i < mosaic.pixels.size(); ++i) mosaic.pixels[i] = uint8_t(i / 3 % 1280 / 32 * 6 + i % 7);
  write_png(folder / "cifar/m_000.png", mosaic);
  const auto run = [&](const std::string& input, const std::string& out) {
    return succeed_quietly({"etalon", folder / input, "--model", "lenet", "--save", "png,npy", "--json", "-o", folder / out});
  };
  run("cifar/m_000.png", "picture");
  EXPECT_EQ(read_npy(folder / "picture/m_000.etalon.npy").dims(), (Dims{10, 1, 28, 28})) << "a picture like others";
  std::ofstream(folder / "cifar/m_labels.u8") << std::string(20, '\3') + std::string(20, '\5');
  const json d = run("cifar/m_000.png", "tiles");
  ASSERT_EQ(d["inputs"].size(), 40u);
  EXPECT_EQ(d["inputs"][19]["label"], 3);
  EXPECT_EQ(d["inputs"][20]["label"], 5);
  EXPECT_NE(d["inputs"][0]["score"], d["inputs"][39]["score"]);
  EXPECT_EQ(read_npy(folder / "tiles/m_000.etalon.npy").dims(), (Dims{40, 10, 1, 28, 28}));
  EXPECT_EQ(names_in(folder / "tiles"),
            (std::set<std::string>{"m_000.etalon.npy", "m_000.etalon.json", "m_000.etalon-bias.npy",
                                   "m_000.etalon-bias.json", "m_000.etalon.png"}));
}

// 100 small photos through a network that takes milliseconds for each, so that some are done and some are not when the
// signal comes; on a machine that was busy elsewhere all may be done, and the test tries again.
TEST(CliEtalon, ResumesWhatWasInterrupted) {
  if (const std::string why = why_no_terminal(); !why.empty()) GTEST_SKIP() << why;
  TempFolder folder;
  constexpr int kImages = 100;
  Tensor photos({kImages, 3, 32, 32});
  for (int64_t i = 0; i < photos.count(); ++i) photos[i] = std::sin(0.05f * float(i % 1009) + float(i / 3072));
  write_npy(folder / "x.npy", photos);
  const auto arguments = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> all = {"etalon", folder / "x.npy", "--model", "resnet20", "--save", "npy", "--threads", "1"};
    all.insert(all.end(), {"-o", folder / out});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const std::string journal = folder / "out/x.etalon.npy.journal";
  const auto lines = [&] { // the job's, and one for each image whose etalons are on the disk
    std::ifstream file(journal);
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  };
  Outcome stopped;
  bool in_time = false;
  for (int attempt = 0; attempt < 5 && !in_time; ++attempt) {
    fs::remove_all(folder / "out");
    stopped = interrupt_switchback(arguments("out", {}), 100, SIGINT, [&](const std::string&) { return lines() > 12; });
    in_time = stopped.code != 0 && lines() <= kImages;
  }
  ASSERT_TRUE(in_time) << "five runs were done before the signal came";
  EXPECT_EQ(stopped.code, 128 + SIGINT) << stopped.out;
  EXPECT_NE(stopped.out.find("go on with --resume"), std::string::npos) << stopped.out;
  EXPECT_EQ(names_in(folder / "out"), (std::set<std::string>{"x.etalon.npy.partial", "x.etalon.npy.journal"}));
  std::ofstream(journal, std::ios::app) << "{\"units\": [";  // a line that was cut off counts for nothing

  const Outcome other = run_switchback(arguments("out", {"--resume", "--weights", "random:1"}));
  EXPECT_EQ(other.code, 1);
  EXPECT_NE(other.err.find("belongs to another job"), std::string::npos) << other.err;

  const json d = succeed_quietly(arguments("out", {"--resume", "--json"}));
  const int64_t before = d["resumed_inputs"];
  EXPECT_GT(before, 10);
  EXPECT_LT(before, kImages);
  EXPECT_EQ(d["inputs"].size(), size_t(kImages));
  EXPECT_EQ(names_in(folder / "out"), (std::set<std::string>{"x.etalon.npy", "x.etalon.json", "x.etalon-bias.npy",
                                                             "x.etalon-bias.json"}));
  const json whole = succeed_quietly(arguments("whole", {"--json"}));
  EXPECT_EQ(bytes_of(folder / "out/x.etalon.npy"), bytes_of(folder / "whole/x.etalon.npy"));
  EXPECT_EQ(bytes_of(folder / "out/x.etalon-bias.npy"), bytes_of(folder / "whole/x.etalon-bias.npy"));
  for (size_t i : {size_t(0), size_t(before), size_t(kImages - 1)})
    for (const char* key : {"score", "probability", "bias", "residual", "votes_for"})
      EXPECT_EQ(d["inputs"][i][key], whole["inputs"][i][key]) << i << " " << key;
  EXPECT_EQ(d["residual"], whole["residual"]);
}

// A finished array is left as it is, and never taken for another's.
TEST(CliEtalon, ResumingWhatIsFinishedChangesNothing) {
  TempFolder folder;
  write_npy(folder / "x.npy", digits(20));
  write_npy(folder / "one.npy", digits(1));
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"etalon", "--model", "lenet", "--save", "png,npy", "--name", "a-{stem}", "-o", folder / "out"});
    return run_switchback(more);
  };
  const auto everything = [&] {
    std::string all;
    for (const std::string& name : names_in(folder / "out")) all += name + bytes_of(folder / ("out/" + name));
    return all;
  };
  const Outcome first = run({"--json", folder / "x.npy"});
  ASSERT_EQ(run({folder / "one.npy"}).code, 0);
  const std::string before = everything();
  const Outcome again = run({"--resume", "--json", folder / "x.npy"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(everything(), before);
  EXPECT_EQ(again.json()["resumed_inputs"], 20);
  ASSERT_EQ(again.json()["inputs"].size(), 20u);
  EXPECT_EQ(again.json()["inputs"][7]["score"], first.json()["inputs"][7]["score"]);
  for (const char* input : {"x.npy", "one.npy"}) {
    const Outcome said = run({"--resume", folder / input});
    EXPECT_NE(said.out.find("is finished"), std::string::npos) << said.out;
    for (const std::vector<std::string>& other :
         {std::vector<std::string>{"--weights", "random:1"}, {"--target", "3"}, {"--product"}}) {
      std::vector<std::string> words = {"--resume", folder / input};
      words.insert(words.end(), other.begin(), other.end());
      const Outcome refused = run(words);
      EXPECT_EQ(refused.code, 1) << refused.line;
      EXPECT_NE(refused.err.find("differs in " + std::string(other[0].substr(2))), std::string::npos) << refused.err;
    }
    EXPECT_EQ(everything(), before);
  }
  fs::remove(folder / "out/a-x.json");
  EXPECT_NE(run({"--resume", folder / "x.npy"}).err.find("which run made it"), std::string::npos);
}

TEST(CliEtalon, FailedRunsLeaveNothing) {
  TempFolder folder;
  write_npy(folder / "x.npy", digits(2000));
  RunLimits limits;
  limits.file_bytes = 1 << 20;  // the array cannot be written whole
  const Outcome o = run_switchback({"etalon", folder / "x.npy", "--model", "lenet", "--save", "npy", "-o", folder / "out"}, limits);
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_TRUE(fs::is_empty(folder / "out"));
}

TEST(CliEtalon, SaysWhatItRefuses) {
  TempFolder folder;
  const auto refused = [&](std::vector<std::string> more, const std::string& what) {
    std::vector<std::string> all = {"etalon", digit(1), "--model", "lenet", "-o", folder / "out"};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome o = run_switchback(all);
    EXPECT_EQ(o.code, 2) << o.err;
    EXPECT_NE(o.err.find(what), std::string::npos) << o.err;
    EXPECT_FALSE(fs::exists(folder / "out") && !fs::is_empty(folder / "out"));
  };
  refused({"--score", "probability"}, "no affine map");
  refused({"--algorithm", "fast"}, "single-pass");
  refused({"--resume"}, "--save npy");
  refused({"--target", "11"}, "0 to 9");
  refused({"--layer", "conv2:3:9,9"}, "4 rows");
  refused({"--limit", "0"}, "--limit");
}

TEST(CliEtalon, ALoadedTapeOfAnotherInputIsNoticed) {
  TempFolder folder;
  ASSERT_EQ(run_switchback({"gradient", digit(1), "--model", "lenet", "--save-tape", folder / "one.safetensors", "-o",
                            folder / "out"}).code, 0);
  const std::vector<std::string> common = {"etalon", "--model", "lenet", "--save", "npy", "-o", folder / "out", "--load-tape",
                                           folder / "one.safetensors"};
  const auto run = [&](int d) {
    std::vector<std::string> all = common;
    all.push_back(digit(d));
    return run_switchback(all);
  };
  EXPECT_EQ(run(1).err, "");
  const Outcome other = run(4);
  EXPECT_EQ(other.code, 0);
  EXPECT_NE(other.err.find("warning: 10 of 10 etalons"), std::string::npos) << other.err;
}

}  // namespace
}  // namespace switchback::test
