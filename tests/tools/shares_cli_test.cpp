// Runs over data sets that are divided: shares and `merge`, ranks of MPI; the bytes are those of one run.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

// Ten digits by class, the 4 twice, and one file that is no image.
std::string make_digits(const TempFolder& folder) {
  for (int d = 0; d < 10; ++d) {
    fs::create_directories(folder / fmt::format("digits/{}", d));
    fs::copy_file(digit(d), folder / fmt::format("digits/{}/digit.png", d));
  }
  fs::copy_file(digit(4), folder / "digits/4/again.png");
  folder.put("digits/6/broken.png", "no image");
  return folder / "digits";
}

std::string program() { return fs::absolute(SWITCHBACK_BINARY).string(); }

// In a folder of its own, so that the command line is the same; its code, and what it says in FOLDER/said.
int run_in(const std::string& folder, const std::string& before, const Words& words) {
  fs::create_directories(folder);
  std::string line = fmt::format("cd '{}' && {} '{}'", folder, before, program());
  for (const std::string& word : words) line += word.ends_with("*.part") ? " " + word : " '" + word + "'";
  return WEXITSTATUS(std::system((line + " > said 2>&1").c_str()));
}

std::map<std::string, std::string> files_in(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const std::string& name : names_in(folder))
    if (!name.ends_with(".part")) files[name] = bytes_of(folder + "/" + name);
  return files;
}

void expect_same_files(const std::string& a, const std::string& b) {
  const auto one = files_in(a), two = files_in(b);
  EXPECT_FALSE(one.empty());
  ASSERT_EQ(one.size(), two.size()) << a << " " << b;
  for (const auto& [name, bytes] : one) EXPECT_TRUE(two.contains(name) && two.at(name) == bytes) << name << " of " << b;
}

std::vector<Words> commands(const std::string& data) {
  std::vector<Words> list = {
      {"evaluate", data, "--model", "lenet", "--save", "png,json", "--top", "4"},
      {"evaluate", data, "--model", "lenet", "--grid", "right,wrong", "--map", "gradient", "--cases", "3"},
      {"top", data, "--model", "lenet", "--layer", "conv1,fc2", "--channels", "0-3", "--keep", "3", "--save", "png,npy"},
      {"top", data, "--model", "lenet", "--layer", "conv2", "--channels", "0-3", "--by", "relevance", "--target", "label", "--order",
       "lowest", "--save", "npy"},
      {"distribution", data, "--model", "lenet", "--layer", "relu1,fc2", "--save", "png,npy"},
      {"adversarial", data, "--model", "lenet", "--epsilon", "0,0.2", "--save", "png,npy"},
      {"distribution", data, "--model", "lenet", "--layer", "fc2", "--weights", "random:0,random:1", "--save", "npy"}};
  for (Words& words : list) words.insert(words.end(), {"-o", "out", "--threads", "1"});
  return list;
}

Words with(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(Shares, PartsJoinToTheBytesOfOneRun) {
  const TempFolder folder;
  const std::string data = make_digits(folder);
  int number = 0;
  for (const Words& words : commands(data)) {
    const std::string one = folder / fmt::format("one{}", number), parts = folder / fmt::format("parts{}", number);
    ++number;
    EXPECT_EQ(run_in(one, "", words), 1) << "one image cannot be read";
    const int shares = number % 2 ? 3 : 14;  // with 14, two have nothing to do
    for (int i = 1; i <= shares; ++i)
      ASSERT_EQ(run_in(parts, "", with(words, {"--shard", fmt::format("{}/{}", i, shares)})), 0) << bytes_of(parts + "/said");
    EXPECT_TRUE(files_in(parts + "/out").empty()) << "only parts are there";
    EXPECT_EQ(run_in(parts, "", {"merge", "out/*.part"}), 1);
    EXPECT_NE(bytes_of(parts + "/said").find("broken.png"), std::string::npos);
    expect_same_files(one + "/out", parts + "/out");
  }
}

TEST(Shares, MergeSaysWhatDoesNotBelongTogether) {
  const TempFolder folder;
  const std::string data = make_digits(folder);
  fs::remove(folder / "digits/6/broken.png");
  const auto part = [&](const std::string& shard, const Words& more, const std::string& to) {
    const json d = succeed_json(with({"evaluate", data, "--model", "lenet", "--json", "--shard", shard, "-o", folder / to}, more));
    EXPECT_EQ(d["shard"], shard);
    return d["part"].get<std::string>();
  };
  const std::string a = part("1/3", {}, "a"), b = part("2/3", {"--threads", "1"}, "b"), c = part("3/3", {}, "a");
  const auto fails = [&](const Words& parts, const std::string& why) {
    const Outcome o = run_switchback(with({"merge"}, parts));
    EXPECT_NE(o.code, 0) << o.line;
    EXPECT_NE(o.err.find(why), std::string::npos) << o.err;
  };
  fails({}, "no PART given");
  fails({a}, "of 3 shares 2 are missing: 2, 3");
  fails({a, c}, "of 3 shares one is missing: 2");
  fails({a, b, c, b}, "are both share 2 of 3");
  fails({a, b, folder / "digits/1/digit.png"}, "is no part of a run");
  fails({a, b, part("3/4", {}, "a")}, "are parts of different runs: they differ in shards");
  fails({a, b, part("3/3", {"--limit", "5"}, "a")}, "they differ in command line, data or weights");
  const std::string bytes = bytes_of(c);
  fails({a, b, folder.put("cut.part", bytes.substr(0, bytes.size() - 3))}, "cut.part is damaged or not complete");
  fails({a, b, folder.put("cut.part", bytes.substr(0, 40))}, "is no part of a run");
  const json all = succeed_json({"merge", c, a, b, "--json", "-o", folder / "all"});
  EXPECT_EQ(all["images"], 11);
  EXPECT_EQ(all["command"], "evaluate");
  fs::copy_file(digit(3), folder / "digits/8/more.png");
  fails({a, b, c}, "was made of other data or weights than are there now: they differ in images");
  for (const char* shard : {"0/3", "4/3", "2", "a/b", "1/0"}) {
    const Outcome o = run_switchback({"evaluate", data, "--model", "lenet", "--shard", shard, "-o", folder / "a"});
    EXPECT_EQ(o.code, 2) << o.err;
  }
  const Outcome full = run_switchback({"evaluate", data, "--model", "lenet", "--shard", "1/2", "-o", folder / "full"}, {.file_bytes = 600});
  EXPECT_EQ(full.code, 1);
  EXPECT_TRUE(names_in(folder / "full").empty()) << "no partial file";
}

// ---- data sets without labels

TEST(Unlabelled, CommandsGoOnOrSaySo) {
  const TempFolder folder;
  for (int d = 0; d < 3; ++d) {
    fs::create_directories(folder / "plain");
    fs::copy_file(digit(d), folder / fmt::format("plain/{}.png", d));
  }
  const std::string data = folder / "plain", out = folder / "out";
  const json top = succeed_json({"top", data, "--model", "lenet", "--layer", "conv2", "--json", "-o", out});
  EXPECT_EQ(top["images"], 3);
  EXPECT_TRUE(top["units"][0]["top"][0]["label"].is_null());
  EXPECT_TRUE(top["forward_seconds"].is_number());
  EXPECT_NE(succeed({"top", data, "--model", "lenet", "--layer", "conv2", "-o", out}).out.find("has no labels"), std::string::npos);
  const Outcome spread = succeed({"distribution", data, "--model", "lenet", "--layer", "fc2", "-o", out});
  EXPECT_NE(spread.out.find("has no labels: classes are not told apart"), std::string::npos) << spread.out;
  const Outcome regions = succeed({"regions", data, "--model", "lenet", "-o", out});
  EXPECT_NE(regions.err.find("its images count as one class"), std::string::npos) << regions.err;
  const json etalons = succeed_json({"etalon", data + "[1:]", "--model", "lenet", "--save", "npy", "--json", "-o", out});
  EXPECT_EQ(etalons["inputs"].size(), 2u);
  EXPECT_TRUE(etalons["inputs"][0]["label"].is_null());
  for (const Words& words : {Words{"evaluate", data}, Words{"adversarial", data + "[0:2]", "--epsilon", "0,0.1"},
                             Words{"top", data, "--layer", "conv2", "--by", "relevance", "--target", "label"},
                             Words{"train", data, "--epochs", "1"}}) {
    const Outcome o = run_switchback(with(words, {"--model", "lenet", "-o", folder / "no"}));
    EXPECT_NE(o.code, 0);
    EXPECT_NE(o.err.find("has no labels"), std::string::npos) << o.line << o.err;
  }
}

// ---- ranks

// The words before the program, for n ranks on this machine; "" where there is no MPI.
std::string ranks(int n) {
#if defined(__SANITIZE_ADDRESS__)
  return "";  // MPI's own leaks would be told of
#endif
  const std::string settings = "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 "
                               "OMPI_MCA_hwloc_base_binding_policy=none timeout -k 5 ";
  static const bool there = fs::exists(fs::path(program()).parent_path() / "libswitchback_mpi.so") &&
                            std::system((settings + "30 mpirun -n 2 true > /dev/null 2>&1").c_str()) == 0;
  return there ? fmt::format("{}100 mpirun -n {}", settings, n) : "";
}
#define SKIP_WITHOUT_MPI() \
  if (ranks(1).empty()) GTEST_SKIP() << "a build without MPI, or mpirun starts nothing here"

TEST(Ranks, OneTwoThreeAndFiveGiveTheBytesOfOneRun) {
  SKIP_WITHOUT_MPI();
  const TempFolder folder;
  const std::string data = make_digits(folder);
  const std::vector<int> numbers = {1, 2, 3, 5};
  int number = 0;
  for (const Words& words : commands(data)) {
    const std::string one = folder / fmt::format("one{}", number);
    run_in(one, "", words);
    for (const int n : numbers) {
      if (number >= 1 && n != numbers[size_t(number) % 3 + 1]) continue;  // all numbers of ranks for one command are enough
      const std::string several = folder / fmt::format("ranks{}-{}", number, n);
      EXPECT_EQ(run_in(several, ranks(n), words), 1) << "one image cannot be read";
      EXPECT_NE(bytes_of(several + "/said").find("broken.png"), std::string::npos);
      expect_same_files(one + "/out", several + "/out");
    }
    ++number;
  }
}

TEST(Ranks, AnErrorEndsAllWithoutAPartialFile) {
  SKIP_WITHOUT_MPI();
  const TempFolder folder;
  const std::string data = make_digits(folder);  // the broken one is the last rank's
  EXPECT_NE(run_in(folder / "strict", ranks(2), {"evaluate", data, "--model", "lenet", "--strict", "--save", "png", "-o", "out"}), 0);
  const std::string said = bytes_of(folder / "strict/said");
  EXPECT_NE(said.find("switchback: error: rank 1: "), std::string::npos) << said;
  EXPECT_NE(said.find("broken.png"), std::string::npos) << said;
  EXPECT_TRUE(!fs::exists(folder / "strict/out") || fs::is_empty(folder / "strict/out"));
  EXPECT_NE(run_in(folder / "other", ranks(2), {"classify", digit(3), "--model", "lenet"}), 0);
  EXPECT_NE(bytes_of(folder / "other/said").find("classify runs on one rank, but 2 are started"), std::string::npos);
}

TEST(Ranks, ABuildWithoutMpiSaysSo) {
  const TempFolder folder;
  fs::create_symlink(program(), folder / "here");
  fs::copy_file(program(), folder / "switchback");  // alone, without its library
  const std::string line = fmt::format("cd '{}' && OMPI_COMM_WORLD_RANK=0 ./switchback models > said 2>&1", folder.path());
  EXPECT_NE(std::system(line.c_str()), 0);
  EXPECT_NE(bytes_of(folder / "said").find("this build has no MPI"), std::string::npos) << bytes_of(folder / "said");
}

}  // namespace
}  // namespace switchback::test
