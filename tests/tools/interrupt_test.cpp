// The command in a terminal: what its progress bar shows, and that Ctrl-C and SIGTERM leave nothing partial behind, say
// how far the work was, and end it by the signal.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <regex>

#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;

const std::string kSamples = std::string(SWITCHBACK_SOURCE_DIR) + "/weights/samples/";

bool shows(const std::string& text, const std::string& pattern) { return std::regex_search(text, std::regex(pattern)); }

// Far more samples than anybody waits for.
std::vector<std::string> endless(const std::string& folder) {
  return {"smoothgrad", "--model", "lenet", "--samples", "100000000",
          "--save",     "npy",     "-o",    folder,      kSamples + "digit_3.png"};
}

class Interrupt : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = why_no_terminal(); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_F(Interrupt, CtrlCSaysHowFarItWas) {
  const TempFolder folder;
  const std::string bar = R"(\rsmoothgrad \[\.+\]   0 %  [1-9][0-9]*/100000000 samples, [0-9]+/s\x1b\[K)";
  const Outcome o = interrupt_switchback(endless(folder / "out"), 100, SIGINT,
                                         [&](const std::string& shown) { return shows(shown, bar); });
  EXPECT_EQ(o.code, 128 + SIGINT) << o.out;
  EXPECT_TRUE(shows(o.out,
                    "\\r\x1b\\[Kswitchback: interrupted at [1-9][0-9]* of 100000000 samples "
                    "\\(nothing was written\\)\\r\\n$"))
      << o.out;
  EXPECT_TRUE(fs::is_empty(folder / "out"));
}

TEST_F(Interrupt, ProgressFitsIntoANarrowTerminal) {
  const TempFolder folder;
  const Outcome o = interrupt_switchback(endless(folder / "out"), 40, SIGTERM,
                                         [](const std::string& shown) { return shows(shown, "/100000000"); });
  EXPECT_EQ(o.code, 128 + SIGTERM) << o.out;
  const size_t first = o.out.find('\r') + 1, end = o.out.find('\x1b');
  EXPECT_LT(end - first, 40u) << o.out;
  EXPECT_EQ(o.out.find('['), end + 1) << "no room for a bar: " << o.out;
}

TEST_F(Interrupt, FilesUnderWayAreRemoved) {
  // 128 images are two rounds of 64. When the first round's arrays lie there as temporary files, the second is under
  // way.
  const TempFolder folder;
  std::vector<std::string> arguments = {"smoothgrad", "--model", "lenet", "--samples", "100", "--threads",
                                        "1",          "--save",  "npy",   "--quiet",   "-o",  folder / "out"};
  for (int i = 0; i < 128; ++i) arguments.push_back(kSamples + "digit_" + std::to_string(i % 10) + ".png");
  size_t most = 0;
  const Outcome o = interrupt_switchback(arguments, 80, SIGTERM, [&](const std::string&) {
    most = fs::exists(folder / "out") ? folder.files() - 1 : 0;
    return most >= 64;
  });
  EXPECT_GE(most, 64u) << "nothing to remove proves nothing";
  EXPECT_EQ(o.code, 128 + SIGTERM) << o.out;
  EXPECT_TRUE(shows(o.out, "switchback: interrupted at [1-9][0-9]* of 12800 samples \\(nothing was written\\)"))
      << o.out;
  EXPECT_TRUE(fs::is_empty(folder / "out"));
}

TEST_F(Interrupt, WorkWithoutCountsStopsAtOnce) {
  const TempFolder folder;
  const Outcome o = interrupt_switchback({"bench", "--model", "lenet", "--method", "gradient", "--min-seconds", "1000"},
                                         80, SIGINT, [](const std::string&) { return true; });
  EXPECT_EQ(o.code, 128 + SIGINT) << o.out;
  EXPECT_TRUE(shows(o.out, "switchback: interrupted \\(nothing was written\\)")) << o.out;
}

}  // namespace
}  // namespace switchback::test
