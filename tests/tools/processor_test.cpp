// What the command makes of the processors that it finds: too old ones, and fewer than the machine has.
#include "tools/cli/processors.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

// For programs that are run meanwhile.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name), had_(std::getenv(name)), before_(had_ ? std::getenv(name) : "") {
    value ? setenv(name, value, 1) : unsetenv(name);
  }
  ~Environment() { had_ ? setenv(name_, before_.c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  bool had_;
  std::string before_;
};

void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

TEST(Processors, OldOnesGetAMessage) {
  const Environment old("SWITCHBACK_CPU", "x86-64");
  for (const std::vector<std::string>& line : {std::vector<std::string>{}, {"--version"}, {"info"}}) {
    const Outcome o = run_switchback(line);
    EXPECT_EQ(o.code, 1) << o.line;
    EXPECT_EQ(o.out, "");
    EXPECT_TRUE(o.err.starts_with("switchback: error: this processor has no AVX2 and FMA")) << o.err;
    EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
  }
}

TEST(Processors, MoreThreadsThanProcessorsAreWarnedOf) {
  const int usable = usable_processors();
  const auto err = [](int threads) { return run_switchback({"info", "--threads", std::to_string(threads)}).err; };
  EXPECT_EQ(err(usable), "");
  const std::string warning = err(usable + 3);
  EXPECT_EQ(warning.find("switchback: warning: --threads " + std::to_string(usable + 3) + ", but only " + std::to_string(usable)), 0u)
      << warning;
}

TEST(Processors, AffinityIsRespected) {
  const Environment unset("OMP_NUM_THREADS", nullptr);
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  const Outcome o = run_switchback({"info", "--json"}), warned = run_switchback({"info", "--threads", "2"});
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(o.json()["cpu"]["threads"], 1);
  EXPECT_NE(warned.err.find("only 1 processor may be used"), std::string::npos) << warned.err;
}

TEST(Processors, ThreadsSpinBrieflyUnlessTheEnvironmentSaysOtherwise) {
  const Environment shown("OMP_DISPLAY_ENV", "verbose"), no_policy("OMP_WAIT_POLICY", nullptr);
  const auto says = [](const std::string& setting) {  // of the program's last start: OpenMP tells at each
    const std::string err = run_switchback({"--version"}).err;
    const size_t at = err.rfind("OPENMP DISPLAY ENVIRONMENT BEGIN");
    return at != std::string::npos && err.find(setting, at) != std::string::npos;
  };
  {
    const Environment unset("GOMP_SPINCOUNT", nullptr);
    EXPECT_TRUE(says("GOMP_SPINCOUNT = '1000'"));
    const Environment passive("OMP_WAIT_POLICY", "passive");
    EXPECT_TRUE(says("GOMP_SPINCOUNT = '0'"));
  }
  const Environment own("GOMP_SPINCOUNT", "77");
  EXPECT_TRUE(says("GOMP_SPINCOUNT = '77'"));
}

TEST(Processors, QuotasOfControlGroups) {
  const int all = omp_get_num_procs();
  const auto usable = [&](const std::vector<std::pair<std::string, std::string>>& files) {
    const TempFolder root;
    for (const auto& [path, text] : files) write(root / path, text);
    return usable_processors(root.path());
  };
  const std::string own = "proc/self/cgroup", two = "sys/fs/cgroup/", one = "sys/fs/cgroup/cpu/";
  EXPECT_EQ(usable({}), all);
  EXPECT_EQ(usable({{own, "0::/\n"}, {two + "cpu.max", "max 100000\n"}}), all);
  EXPECT_EQ(usable({{own, "0::/\n"}, {two + "cpu.max", "50000 100000\n"}}), 1);
  EXPECT_EQ(usable({{own, "0::/a/b\n"}, {two + "a/b/cpu.max", "max 100000\n"}, {two + "a/cpu.max", "100000 100000\n"}}), 1);
  EXPECT_EQ(usable({{own, "0::/a\n"}, {two + "cpu.max", "20000 20000\n"}}), 1) << "a path of the host's";
  EXPECT_EQ(usable({{own, "0::/a\n"}, {two + "a/cpu.max", "110000 100000\n"}}), std::min(all, 2)) << "a part is one more";
  EXPECT_EQ(usable({{own, "0::/a\n"}, {two + "a/cpu.max", "6400000 100000\n"}}), std::min(all, 64));
  EXPECT_EQ(usable({{own, "3:cpu,cpuacct:/d\n1:memory:/d\n"},
                    {one + "d/cpu.cfs_quota_us", "100000\n"},
                    {one + "d/cpu.cfs_period_us", "100000\n"}}),
            1);
  EXPECT_EQ(usable({{own, "3:cpuset:/d\n2:cpu:/d\n"},
                    {one + "d/cpu.cfs_quota_us", "-1\n"},
                    {one + "d/cpu.cfs_period_us", "100000\n"}}),
            all);
  EXPECT_EQ(usable({{own, "no group at all"}, {two + "cpu.max", "1 100000\n"}}), all);
}

}  // namespace
}  // namespace switchback::test
