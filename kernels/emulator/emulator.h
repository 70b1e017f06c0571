// CUDA on the CPU, for tests: what kernels/device/cuda.cuh includes in place of the CUDA headers where a .cu file is compiled
// as C++ (SB_EMULATED). Programs link the .cpp files of this folder. x86-64 only.
//   language.h  keywords, vector types, scalar intrinsics
//   runtime.h   memory, streams, events, graphs
//   machine.h   the running block: fibers, barriers, races
//   shared.h    Shared<T>, wide accesses, asynchronous copies
//   warp.h      shuffles, votes, ldmatrix, mma
//   launch.cpp  a launch's runs in several orders
#pragma once

#include <functional>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/device/context.h"
#include "kernels/emulator/language.h"
#include "kernels/emulator/machine.h"
#include "kernels/emulator/runtime.h"
#include "kernels/emulator/shared.h"
#include "kernels/emulator/warp.h"

namespace switchback::emulated {

struct Launch;  // kernels/device/cuda.cuh

// A kernel's launch as an executor other than the emulator gets it (set_kernel_executor in runtime.h).
struct KernelArgument {
  const void* value;
  size_t bytes, alignment;
};
struct KernelCall {
  const void* kernel;  // tells kernels apart
  std::string name;    // op and shape
  dim3 grid, block;
  size_t shared;
  std::vector<KernelArgument> arguments;  // valid as long as `emulate` is
  std::function<void()> emulate;          // what the emulator would do
};

// `kernel` tells kernels apart, `body` is what each thread runs.
void launch_body(Context& ctx, const Launch& launch, const void* kernel, std::vector<KernelArgument> arguments,
                 std::function<void()> body);

template <typename... P, typename... A>
void launch(Context& ctx, const Launch& l, void (*kernel)(P...), A&&... args) {
  const auto parameters = std::make_shared<const std::tuple<P...>>(P(std::forward<A>(args))...);
  std::vector<KernelArgument> arguments;
  std::apply([&](const auto&... p) { (arguments.push_back({&p, sizeof p, alignof(decltype(p))}), ...); }, *parameters);
  launch_body(ctx, l, reinterpret_cast<const void*>(kernel), std::move(arguments),
              [kernel, parameters] { std::apply(kernel, *parameters); });
}

}  // namespace switchback::emulated
