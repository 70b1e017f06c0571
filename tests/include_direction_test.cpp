// The folders depend one way only: tools → viz → engine → kernels (tests see all), and the top level is fixed.
// Checked by reading the source tree (SWITCHBACK_SOURCE_DIR), and the checker itself on a small tree with mistakes.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {

const std::map<std::string, int> kRank = {{"kernels", 0}, {"engine", 1}, {"viz", 2}, {"tools", 3}, {"tests", 4}};
const std::set<std::string> kTopLevel = {"engine",  "kernels",        "viz",       "tools",   "tests",
                                         "weights", "CMakeLists.txt", "README.md", "LICENSE", "CMakePresets.json"};

std::string top_of(const std::string& path) { return path.substr(0, path.find('/')); }

// What git knows or would add (so that build folders do not count); empty where `root` is no checkout.
std::vector<std::string> files_by_git(const fs::path& root) {
  if (!fs::exists(root / ".git")) return {};
  const std::string command =
      fmt::format("git -C '{}' ls-files --cached --others --exclude-standard 2>/dev/null", root.string());
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return {};
  std::string text;
  char block[4096];
  for (size_t got; (got = fread(block, 1, sizeof block, pipe)) > 0;) text.append(block, got);
  if (pclose(pipe) != 0) return {};
  std::vector<std::string> files;
  for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    if (fs::exists(root / text.substr(at, end - at))) files.push_back(text.substr(at, end - at));
  }
  return files;
}

std::vector<std::string> files_by_walking(const fs::path& root) {
  std::vector<std::string> files;
  for (auto it = fs::recursive_directory_iterator(root); it != fs::recursive_directory_iterator(); ++it) {
    const std::string path = it->path().lexically_relative(root).string(), top = top_of(path);
    if (top.starts_with(".") || top.starts_with("build") || top == "out") {
      if (it->is_directory()) it.disable_recursion_pending();
    } else if (it->is_regular_file()) {
      files.push_back(path);
    }
  }
  return files;
}

std::vector<std::string> files_of(const fs::path& root) {
  std::vector<std::string> files = files_by_git(root);
  if (files.empty()) files = files_by_walking(root);
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::string> wrong_top_level(const std::vector<std::string>& files) {
  std::set<std::string> wrong;
  for (const std::string& file : files) {
    const std::string top = top_of(file);
    if (!top.starts_with(".") && !kTopLevel.contains(top)) wrong.insert(top + ": not part of the fixed top level");
  }
  return {wrong.begin(), wrong.end()};
}

// What is wrong with one #include "path" or <path> of a file in `folder`; empty if nothing.
std::string judge(const std::string& folder, const std::string& path, bool quoted) {
  if (path.find("..") != std::string::npos) return "paths start at the project's root, not with ..";
  const auto to = kRank.find(top_of(path));
  const bool ours = to != kRank.end() && path.find('/') != std::string::npos;
  if (ours && to->second > kRank.at(folder)) return fmt::format("{} must not depend on {}", folder, to->first);
  if (ours && !quoted) return "our own headers stand in quotes";
  if (!ours && quoted && folder != "tests") return "write the path from the root, or <...> for foreign headers";
  return "";
}

// Reads `#include "path"` or `#include <path>`; false for any other line.
bool parse_include(const std::string& line, std::string* path, bool* quoted) {
  const auto skip_blanks = [&line](size_t at) { return std::min(line.find_first_not_of(" \t", at), line.size()); };
  size_t at = skip_blanks(0);
  if (line.compare(at, 1, "#") != 0) return false;
  at = skip_blanks(at + 1);
  if (line.compare(at, 7, "include") != 0) return false;
  at = skip_blanks(at + 7);
  if (at == line.size() || (line[at] != '"' && line[at] != '<')) return false;
  *quoted = line[at] == '"';
  const size_t end = line.find(*quoted ? '"' : '>', at + 1);
  if (end == std::string::npos) return false;
  *path = line.substr(at + 1, end - at - 1);
  return true;
}

std::vector<std::string> wrong_includes(const fs::path& root, const std::vector<std::string>& files) {
  static const std::set<std::string> kSources = {".h", ".cpp", ".cu", ".cuh", ".inl", ".in"};
  std::vector<std::string> wrong;
  for (const std::string& file : files) {
    const std::string folder = top_of(file);
    if (!kRank.contains(folder) || !kSources.contains(fs::path(file).extension().string())) continue;
    std::ifstream stream(root / file);
    std::string line, path;
    bool quoted = false;
    for (int number = 1; std::getline(stream, line); ++number) {
      if (!parse_include(line, &path, &quoted)) continue;
      const std::string what = judge(folder, path, quoted);
      if (!what.empty()) wrong.push_back(fmt::format("{}:{}: {}: {}", file, number, path, what));
    }
  }
  return wrong;
}

// A folder for one test, removed at the end.
struct TemporaryTree {
  fs::path root;
  TemporaryTree() {
    std::string name = (fs::temp_directory_path() / "switchback-tree-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder: " + name);
    root = name;
  }
  ~TemporaryTree() {
    std::error_code ignored;
    fs::remove_all(root, ignored);
  }
  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }
};

TEST(IncludeDirection, SourceTree) {
  const std::vector<std::string> files = files_of(SWITCHBACK_SOURCE_DIR);
  for (const auto& [folder, rank] : kRank) {
    const auto in_folder = [&folder = folder](const std::string& f) { return f.starts_with(folder + "/"); };
    EXPECT_TRUE(std::any_of(files.begin(), files.end(), in_folder)) << "no file of " << folder << "/ was found";
  }
  const std::vector<std::string> wrong = wrong_includes(SWITCHBACK_SOURCE_DIR, files);
  EXPECT_TRUE(wrong.empty()) << fmt::format("{}", fmt::join(wrong, "\n"));
}

TEST(IncludeDirection, TopLevelIsFixed) {
  const std::vector<std::string> wrong = wrong_top_level(files_of(SWITCHBACK_SOURCE_DIR));
  EXPECT_TRUE(wrong.empty()) << fmt::format("{}", fmt::join(wrong, "\n"));
}

TEST(IncludeDirection, CheckerFindsMistakes) {
  const TemporaryTree tree;
  tree.write("kernels/good.h", "#include <vector>\n#include \"kernels/types.h\"\n// #include \"viz/no.h\"\n");
  tree.write("kernels/up.cpp", "#include \"kernels/good.h\"\n#include \"engine/tensor.h\"\n");
  tree.write("engine/up.cpp", "#include \"kernels/good.h\"\n  #  include \"viz/map.h\"  // why\n");
  tree.write("engine/zoo/deep.cpp", "#include \"tools/main.h\"\n");
  tree.write("viz/up.cpp", "#include <tools/main.h>\n#include <engine/tensor.h>\n");
  tree.write("viz/dots.h", "#include \"../engine/tensor.h\"\n#include \"map.h\"\n");
  tree.write("tools/good.cpp", "#include \"viz/map.h\"\n#include \"engine/x.h\"\n#include <CLI/CLI.hpp>\n");
  tree.write("tools/up.cpp", "#include \"tests/support/harness.h\"\n");
  tree.write("tests/good.cpp", "#include \"tools/main.h\"\n#include \"kernels/good.h\"\n");
  tree.write("build/ignored.cpp", "#include \"tools/main.h\"\n");
  const std::vector<std::string> expected = {
      "engine/up.cpp:2: viz/map.h: engine must not depend on viz",
      "engine/zoo/deep.cpp:1: tools/main.h: engine must not depend on tools",
      "kernels/up.cpp:2: engine/tensor.h: kernels must not depend on engine",
      "tools/up.cpp:1: tests/support/harness.h: tools must not depend on tests",
      "viz/dots.h:1: ../engine/tensor.h: paths start at the project's root, not with ..",
      "viz/dots.h:2: map.h: write the path from the root, or <...> for foreign headers",
      "viz/up.cpp:1: tools/main.h: viz must not depend on tools",
      "viz/up.cpp:2: engine/tensor.h: our own headers stand in quotes"};
  EXPECT_EQ(wrong_includes(tree.root, files_of(tree.root)), expected);
}

TEST(IncludeDirection, CheckerFindsStrayTopLevel) {
  const TemporaryTree tree;
  for (const char* file : {"README.md", "LICENSE", "weights/a.txt", ".gitignore", ".ci/run", "build-x/a.o", "out/a.png"})
    tree.write(file, "");
  EXPECT_TRUE(wrong_top_level(files_of(tree.root)).empty());
  tree.write("notes.txt", "");
  tree.write("scripts/a.sh", "");
  const std::vector<std::string> expected = {"notes.txt: not part of the fixed top level",
                                             "scripts: not part of the fixed top level"};
  EXPECT_EQ(wrong_top_level(files_of(tree.root)), expected);
}

}  // namespace
