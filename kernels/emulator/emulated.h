// What tests see of the emulated GPU: its table of operations and its controls.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device/device_ops.h"

namespace switchback {

const DeviceOps* emulated_ops();  // defined by device.cu, compiled as C++

// How often a launch is repeated in other orders of its threads and blocks (kernels/emulator/launch.cpp):
//   automatic  the first two launches of each (kernel, grid, block, shared memory), the others run once
//   quick      never
//   thorough   always
// SWITCHBACK_EMULATOR=quick|thorough in the environment says what automatic means.
enum class EmulatorMode { automatic, quick, thorough };
void set_emulator_mode(EmulatorMode mode);

void set_emulator_memory(size_t bytes);  // how much device memory there is in all; 1 GiB at first
int64_t emulator_launches();             // kernels launched so far, replays of graphs included, repeats not

// What the machine says of itself, so that tests can see what is said of GPUs that cannot be used. {} is the usable
// one.
struct EmulatedMachine {
  int devices = 1, major = 8, minor = 0;
  int driver = 13000;  // the CUDA version that the driver is for; 0: no driver
};
void set_emulated_machine(const EmulatedMachine& machine);
void set_emulated_vendor_libraries(
    bool present);  // whether the models of cuDNN and cuBLASLt are found; at first they are
void set_emulated_workspace(size_t bytes);  // what the model of cuDNN asks for; at first 64

}  // namespace switchback
