// How many processors a command may use.
#pragma once

#include <string>

namespace switchback {

// Those of the process's affinity mask, or fewer where its control groups (version 1 or 2) get no more CPU time than that.
// `root` stands before /proc and /sys: for tests.
int usable_processors(const std::string& root = "");

// Starts the program again, once, with a bound on how long OpenMP's threads spin when they wait (some 20 us, instead of 6 ms):
// nothing is slower for it, and beside another program's work a forward pass of ResNet-18 takes twice as long instead of 40
// times. libgomp reads the environment before any code of ours runs, so that this is the only way to tell it. Does nothing
// where the environment says how to wait (OMP_WAIT_POLICY, GOMP_SPINCOUNT).
void bound_spinning(char** arguments);

}  // namespace switchback
