#include "tools/cli/checkpoints.h"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "engine/files/files.h"
#include "engine/text.h"
#include "kernels/check.h"

namespace switchback {
namespace {

namespace fs = std::filesystem;

bool is_file(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_folder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

bool is_numeral(char c) { return c >= '0' && c <= '9'; }

// step_50 before step_200: digits that follow each other are one number.
bool named_before(const std::string& a, const std::string& b) {
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (is_numeral(a[i]) && is_numeral(b[j])) {
      const auto number = [](const std::string& text, size_t& at) {
        while (at < text.size() && text[at] == '0') ++at;
        const size_t first = at;
        while (at < text.size() && is_numeral(text[at])) ++at;
        return text.substr(first, at - first);
      };
      const std::string m = number(a, i), n = number(b, j);
      if (m.size() != n.size()) return m.size() < n.size();
      if (m != n) return m < n;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
    }
  }
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

std::vector<std::string> matches(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  if (glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found) == 0)
    for (size_t i = 0; i < found.gl_pathc; ++i)
      if (is_file(found.gl_pathv[i])) paths.emplace_back(found.gl_pathv[i]);
  globfree(&found);
  std::sort(paths.begin(), paths.end(), named_before);
  return paths;
}

// The checkpoints of a run's folder, or all weights in another.
std::vector<std::string> weights_in(const std::string& folder) {
  std::vector<std::string> epochs, others;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string(), ending = entry.path().extension().string();
    if (!entry.is_regular_file(error)) continue;
    if (ending == ".safetensors" && name.starts_with("epoch-")) epochs.push_back(entry.path().string());
    if (ending == ".safetensors" || ending == ".pth" || ending == ".pt" || ending == ".ckpt")
      others.push_back(entry.path().string());
  }
  std::vector<std::string>& all = epochs.empty() ? others : epochs;
  std::sort(all.begin(), all.end(), named_before);
  return all;
}

void expand(const std::string& text, std::vector<std::string>& all) {
  if (is_file(text) || text == "random" || text.starts_with("random:")) {
    if (text.starts_with("random:") && text.find(',') != std::string::npos)
      for (const std::string& part : split(text, ',')) expand(part, all);
    else
      all.push_back(text);
    return;
  }
  const auto add = [&](const std::vector<std::string>& found, const char* hint) {
    if (found.empty()) throw Error(fmt::format("--weights {}: no weights are there", printable(text)), hint, true);
    all.insert(all.end(), found.begin(), found.end());
  };
  if (is_folder(text))
    return add(weights_in(text), "a folder with epoch-000.safetensors …, as `switchback train` writes them");
  const bool list = text.find(',') != std::string::npos;
  const std::vector<std::string> found =
      text.find_first_of("*?[") == std::string::npos ? std::vector<std::string>() : matches(text);
  if (!found.empty()) return add(found, "");
  if (list)
    for (const std::string& part : split(text, ',')) expand(part, all);
  else if (text.find_first_of("*?[") != std::string::npos)
    add({}, "no file's name fits the pattern");
  else
    all.push_back(text);  // opening it says what is wrong
}

}  // namespace

std::vector<std::string> expand_weights(const std::vector<std::string>& given) {
  std::vector<std::string> all;
  for (const std::string& text : given) expand(text, all);
  return all;
}

bool holds_weights(const std::string& folder) { return is_folder(folder) && !weights_in(folder).empty(); }

std::vector<std::string> weights_names(const std::vector<std::string>& weights) {
  std::vector<std::string> names;
  std::set<std::string> all;
  for (const std::string& path : weights) {
    const bool file = path != "random" && !path.starts_with("random:");
    names.push_back(file ? fs::path(path).stem().string() : path);
    all.insert(names.back());
  }
  return all.size() == names.size() ? names : weights;
}

Tensor over_checkpoints(const std::vector<const Tensor*>& arrays, int64_t first, int64_t count) {
  const int64_t epochs = int64_t(arrays.size()), item = arrays[0]->count() / arrays[0]->dim(0);
  Dims dims = arrays[0]->dims();
  dims[0] = epochs;
  dims.insert(dims.begin(), count);
  Tensor all(dims);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t e = 0; e < epochs; ++e)
      std::memcpy(all.data() + (i * epochs + e) * item, arrays[size_t(e)]->data() + (first + i) * item,
                  size_t(item) * sizeof(float));
  return all;
}

Tensor stacked(const std::vector<const Tensor*>& arrays) {
  Dims dims = arrays[0]->dims();
  dims.insert(dims.begin(), int64_t(arrays.size()));
  Tensor all(dims);
  for (size_t e = 0; e < arrays.size(); ++e)
    std::copy_n(arrays[e]->data(), arrays[e]->count(), all.data() + int64_t(e) * arrays[e]->count());
  return all;
}

std::string checkpoints_text(const std::vector<std::string>& weights) {
  const std::vector<std::string> names = weights_names(weights);
  return fmt::format("{}, {} to {}", names.size(), names.front(), names.back());
}

}  // namespace switchback
