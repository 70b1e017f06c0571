// What tests of files share: a folder that goes away with the test, and the check of an error's form.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "kernels/check.h"

namespace switchback::test {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "switchback-test-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  TempFolder(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code code;
    std::filesystem::remove_all(path_, code);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  std::string put(const std::string& name, std::string_view bytes) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::filesystem::remove(path_ / name);  // or else ext4 waits for the disk: a file that was cut to nothing and written
    std::ofstream(path_ / name, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
    return *this / name;
  }
  size_t files() const {  // anywhere below
    return size_t(std::distance(std::filesystem::recursive_directory_iterator(path_), {}));
  }

 private:
  std::filesystem::path path_;
};

// `body` must throw an Error of one line that contains `part`, with a hint.
template <typename Body>
void expect_error(std::string_view part, Body&& body, bool hint_needed = true) {
  try {
    body();
  } catch (const Error& e) {
    const std::string_view what = e.what();
    EXPECT_NE(what.find(part), std::string_view::npos) << "said \"" << what << "\", not \"" << part << "\"";
    EXPECT_EQ(what.find('\n'), std::string_view::npos) << what;
    EXPECT_EQ(std::string_view(e.hint).find('\n'), std::string_view::npos) << e.hint;
    if (hint_needed) {
      EXPECT_FALSE(e.hint.empty()) << "no hint: " << what;
    }
    return;
  } catch (const std::exception& e) {
    ADD_FAILURE() << "expected an Error with \"" << part << "\", got: " << e.what();
    return;
  }
  ADD_FAILURE() << "expected an Error with \"" << part << "\", got none";
}

}  // namespace switchback::test
