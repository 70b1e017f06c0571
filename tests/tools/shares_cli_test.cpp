// Runs over data sets that are divided: shares and `merge`, ranks of MPI; the bytes are those of one run.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "engine/files/npy.h"
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
  fs::create_directories(folder / "flat");
  for (int d = 0; d < 6; ++d) fs::copy_file(digit(d), folder / fmt::format("flat/{}.png", d));
  folder.put("flat/3broken.png", "no image");
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
  // The methods: over a folder, of which one file is no image, and over fewer images than there are shares.
  const std::string flat = data + "/../flat", four = digit(4), five = digit(5);
  const std::vector<Words> methods = {
      {"gradient", flat, "--rule", "guided", "--save", "png,npy"},
      {"gradient", flat, "--weights", "random:0,random:1", "--save", "png,npy"},
      {"gradient", data + "[0:7]", "--target", "all", "--save", "npy"},
      {"smoothgrad", flat, "--samples", "3", "--save", "npy"},
      {"smoothgrad", four, "--samples", "7", "--save", "png,npy"},
      {"smoothgrad", four, five, "--samples", "4", "--moment", "variance", "--target", "3,7", "--score", "probability", "--save", "npy"},
      {"smoothgrad", four, "--samples", "2", "--weights", "random:0,random:1", "--save", "npy"},
      {"integrated", flat, "--steps", "4", "--save", "npy"},
      {"occlusion", flat, "--mask", "8", "--stride", "6", "--check-preview", "--save", "npy"},
      {"occlusion", four, "--mask", "8", "--stride", "3", "--save", "png,npy"},
      {"occlusion", four, "--mask", "8", "--stride", "5", "--algorithm", "full", "--pixels", "--target", "1,4", "--save", "npy"},
      {"occlusion", five, "--box", "0,0,9,9", "--box", "4,4,9,9", "--save", "npy"},
      {"occlusion", five, "--mask", "8", "--stride", "5", "--preview", "--save", "npy"},
      {"cam", flat, "--save", "png,npy"},
      {"cam", flat, "--layers", "conv1,conv2", "--method", "gradcam++", "--save", "npy"}};
  list.push_back({"regions", data + "[0:7]", "--model", "lenet", "--etalons", "--save", "png,json"});
  list.push_back({"regions", data + "[0:7]", "--model", "lenet", "--weights", "random:0,random:1", "--save", "png"});
  list.push_back({"embed", data, "--model", "lenet", "--layer", "input,conv1,fc2", "--clusters", "2", "--thumbnails", "--save", "png,npy"});
  list.push_back({"embed", flat, "--model", "lenet", "--layer", "fc1", "--method", "tsne", "--perplexity", "1", "--dims", "3", "--save", "npy"});
  list.push_back({"etalon", data + "[0:7]", "--model", "lenet", "--save", "png,npy"});
  list.push_back({"etalon", flat, four, "--model", "lenet", "--product", "--target", "max", "--batch", "1", "--save", "png,npy"});
  for (const Words& words : methods) list.push_back(words), list.back().insert(list.back().end(), {"--model", "lenet"});
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
    const int code = run_in(one, "", words);  // 1 where one image cannot be read
    const bool broken = code == 1;
    EXPECT_TRUE(!broken || bytes_of(one + "/said").find("broken.png") != std::string::npos) << bytes_of(one + "/said");
    const int shares = number % 2 ? 3 : 14;  // with 14, some have nothing to do
    for (int i = 1; i <= shares; ++i)
      ASSERT_EQ(run_in(parts, "", with(words, {"--shard", fmt::format("{}/{}", i, shares)})), 0) << bytes_of(parts + "/said");
    EXPECT_TRUE(files_in(parts + "/out").empty()) << "only parts are there";
    EXPECT_EQ(run_in(parts, "", {"merge", "out/*.part"}), code) << bytes_of(parts + "/said");
    EXPECT_EQ(bytes_of(parts + "/said").find("broken.png") != std::string::npos, broken);
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
  std::set<std::string> known;
  int number = 0;
  for (const Words& words : commands(data)) {
    const std::string one = folder / fmt::format("one{}", number);
    const int code = run_in(one, "", words);
    // All numbers of ranks for each command once, one of them for its other forms; one rank is a run like any other.
    const bool new_command = known.insert(words[0]).second;
    for (const int n : numbers) {
      if (n == 1 && number > 0) continue;
      if (!new_command && n != numbers[size_t(number) % 3 + 1]) continue;
      const std::string several = folder / fmt::format("ranks{}-{}", number, n);
      EXPECT_EQ(run_in(several, ranks(n), words), code) << bytes_of(several + "/said");
      EXPECT_EQ(bytes_of(several + "/said").find("broken.png") != std::string::npos, code == 1);
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

TEST(Ranks, GoOnWithWhatAnotherNumberOfThemHasLeft) {
  SKIP_WITHOUT_MPI();
  const TempFolder folder;
  Tensor x({40, 1, 28, 28});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = std::sin(0.05f * float(i % 1009) + float(i / 784));
  write_npy(folder / "x.npy", x);
  const Words words = {"etalon", "../x.npy", "--model", "lenet", "--save", "npy", "--batch", "2", "--threads", "1", "-o", "out", "--resume"};
  // Stopped behind thirteen rounds of three images, by an input that is none.
  folder.put("broken.npy", "no array");
  EXPECT_NE(run_in(folder / "ranks", ranks(3), with(words, {"../broken.npy", "--strict"})), 0);
  EXPECT_EQ(names_in(folder / "ranks/out"), (std::set<std::string>{"x.etalon.npy.journal", "x.etalon.npy.partial"}))
      << bytes_of(folder / "ranks/said");
  EXPECT_EQ(run_in(folder / "ranks", ranks(2), with(words, {"--json"})), 0);
  const json d = json::parse(bytes_of(folder / "ranks/said"));
  EXPECT_EQ(d["resumed_inputs"], 39);
  EXPECT_EQ(run_in(folder / "one", "", words), 0);
  for (const char* name : {"x.etalon.npy", "x.etalon-bias.npy"})
    EXPECT_EQ(bytes_of(folder / "ranks/out/" + name), bytes_of(folder / "one/out/" + name)) << name;
}

TEST(Ranks, OneThatIsKilledEndsAllWithoutAPartialFile) {
  SKIP_WITHOUT_MPI();
  const TempFolder folder;
  fs::create_directories(folder / "killed");
  const std::string command = fmt::format("'{}' smoothgrad '{}' --model lenet --samples 150000 --save png,npy -o out --threads 1",
                                          program(), digit(4));
  const std::string line = fmt::format("cd '{}' && {} {} : -n 1 timeout -s KILL 0.5 {} > said 2>&1", folder / "killed", ranks(2),
                                       command, command);
  EXPECT_NE(std::system(line.c_str()), 0);
  EXPECT_NE(bytes_of(folder / "killed/said").find("exit"), std::string::npos) << bytes_of(folder / "killed/said");  // mpirun's words
  EXPECT_TRUE(!fs::exists(folder / "killed/out") || fs::is_empty(folder / "killed/out"));
}

TEST(Ranks, SayWhatIsNotDivided) {
  const TempFolder folder;
  const auto fails = [&](const Words& words, const std::string& why) {
    const Outcome o = run_switchback(with(words, {"--model", "lenet", "--shard", "1/2", "-o", folder / "no"}));
    EXPECT_NE(o.code, 0) << o.err;
    EXPECT_NE(o.err.find(why), std::string::npos) << o.err;
  };
  fails({"gradient", "-"}, "standard input is read once");
  fails({"regions", "--plane"}, "--plane is not divided");
  fails({"etalon", digit(1), "--weights", "random:0,random:1"}, "several --weights of etalon are not divided");
  fails({"etalon", digit(1), "--resume", "--save", "npy"}, "--resume with --shard");
  fails({"embed", digit(1), digit(2), "--layer", "conv1", "--memory", "1K"}, "leave out --shard and mpirun");
  fails({"gradient", digit(1), "--along", "seed"}, "--along is not divided");
  fails({"gradient", digit(1), "--save-tape", folder / "tape.safetensors"}, "a tape file holds one batch");
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
