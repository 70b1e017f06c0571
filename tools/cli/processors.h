// How many processors a command may use.
#pragma once

#include <string>

namespace switchback {

// Those of the process's affinity mask, or fewer where its control groups (version 1 or 2) get no more CPU time than that.
// `root` stands before /proc and /sys: for tests.
int usable_processors(const std::string& root = "");

}  // namespace switchback
