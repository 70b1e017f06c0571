#include "tools/cli/processors.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

namespace switchback {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

// Processors' worth of time that one group gets: version 2 has "QUOTA PERIOD" in a file, version 1 two files.
double quota_of(const std::string& folder) {
  std::ifstream both(folder + "/cpu.max"), one(folder + "/cpu.cfs_quota_us"), two(folder + "/cpu.cfs_period_us");
  std::string quota;
  double period = 0;
  if (!(both >> quota >> period) && !(one >> quota && two >> period)) return kNoLimit;
  const double share = std::strtod(quota.c_str(), nullptr);  // "max" is 0, version 1 says -1
  return share > 0 && period > 0 ? share / period : kNoLimit;
}

// The least of a group and those that it lies in. Inside a container the path may be the host's, and only its end there.
double quota_along(const std::string& mount, std::string path) {
  double least = quota_of(mount);
  for (; path.size() > 1; path.resize(path.find_last_of('/'))) least = std::min(least, quota_of(mount + path));
  return least;
}

}  // namespace

int usable_processors(const std::string& root) {
  double quota = kNoLimit;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "ID:CONTROLLERS:/PATH", version 2 without controllers
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty())
      quota = std::min(quota, quota_along(root + "/sys/fs/cgroup", path));
    else if (("," + controllers + ",").find(",cpu,") != std::string::npos)
      quota = std::min(quota, quota_along(root + "/sys/fs/cgroup/cpu", path));
  }
  const int processors = omp_get_num_procs();
  return quota < processors ? std::max(1, int(std::ceil(quota))) : processors;
}

void bound_spinning(char** arguments) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  std::error_code none;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", none);
  if (none || setenv("GOMP_SPINCOUNT", "1000", 1) != 0) return;
  execv(program.c_str(), arguments);  // comes back only where it cannot: then as OpenMP's default
}

}  // namespace switchback
