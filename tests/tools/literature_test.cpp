// tools/literature.sh: its quick part runs, and every figure has a picture that shows something and numbers that are numbers.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <regex>

#include "engine/files/files.h"
#include "engine/files/image.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

std::vector<std::string> all_of(const std::string& text, const std::string& pattern) {
  std::vector<std::string> found;
  const std::regex expression(pattern);
  for (std::sregex_iterator i(text.begin(), text.end(), expression), end; i != end; ++i) found.push_back((*i)[1]);
  return found;
}

int run_script(const std::string& arguments) {
  return std::system(("SWITCHBACK='" SWITCHBACK_BINARY "' '" SWITCHBACK_SOURCE_DIR "/tools/literature.sh' " + arguments).c_str());
}

bool is_blank(const Image& image) {
  const size_t pixel = size_t(image.channels);
  for (size_t i = pixel; i < image.pixels.size(); ++i)
    if (image.pixels[i] != image.pixels[i % pixel]) return false;
  return true;
}

TEST(Literature, QuickPageIsComplete) {
  const TempFolder folder;
  ASSERT_EQ(run_script("--quick --out '" + folder / "page" + "' > '" + folder / "log" + "' 2>&1"), 0)
      << read_file(folder / "log", 1 << 20);
  const std::string page = read_file(folder / "page/index.html", 1 << 20);
  EXPECT_EQ(page.find("class=\"failed\""), std::string::npos);
  size_t figures = 0;
  for (size_t at = page.find("<section id="); at != std::string::npos; at = page.find("<section id=", at + 1)) {
    const std::string section = page.substr(at, page.find("</section>", at) - at);
    ++figures;
    const std::vector<std::string> pictures = all_of(section, "<img src=\"([^\"]+)\"");
    EXPECT_FALSE(pictures.empty()) << section;
    for (const std::string& name : pictures) EXPECT_FALSE(is_blank(load_image(folder / ("page/" + name)))) << name;
    const std::vector<std::string> numbers = all_of(section, "class=\"number\">([^<]*)<");
    EXPECT_FALSE(numbers.empty()) << section;
    for (const std::string& number : numbers) {
      char* end = nullptr;
      const double value = std::strtod(number.c_str(), &end);
      EXPECT_TRUE(end != number.c_str() && *end == 0 && std::isfinite(value)) << number << " in " << section;
    }
    for (const std::string& list : all_of(section, "class=\"list\">([^<]*)<")) {
      EXPECT_TRUE(std::regex_match(list, std::regex("[-+.0-9e]+(( | &middot; )[-+.0-9e]+)*"))) << list << " in " << section;
    }
    EXPECT_NE(section.find("<pre><code>switchback "), std::string::npos) << section;
  }
  EXPECT_GE(figures, 12u);
  for (const char* document : {"d000", "d001", "d003", "d004"})
    EXPECT_NE(page.find(std::string("<h2 id=\"") + document), std::string::npos) << document;
}

// Data that are not there leave a page that says so; what fails is told by the exit code.
TEST(Literature, MissingDataAndBadOptions) {
  const TempFolder folder;
  const std::string quiet = " > '" + folder / "log" + "' 2>&1";
  EXPECT_EQ(run_script("--only 002 --data '" + folder / "none" + "' --out '" + folder / "page" + "'" + quiet), 0);
  const std::string page = read_file(folder / "page/index.html", 1 << 20);
  EXPECT_NE(page.find("Not run: there is no " + folder / "none/models"), std::string::npos) << page;
  EXPECT_EQ(page.find("<img"), std::string::npos);
  EXPECT_NE(run_script("--only 007 --out '" + folder / "no" + "'" + quiet), 0);
  EXPECT_NE(run_script("--nonsense" + quiet), 0);
  EXPECT_FALSE(std::filesystem::exists(folder / "no"));
}

}  // namespace
}  // namespace switchback::test
