#include "tests/ptx/device.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "kernels/device/cuda.cuh"
#include "kernels/emulator/emulated.h"
#include "kernels/emulator/memory.h"
#include "tests/ptx/machine.h"

namespace switchback::ptx {
namespace {

namespace fs = std::filesystem;

// Launches that are compared: of each kernel so many, with at most so many bytes of device memory in use.
constexpr int64_t kCompared = 6;
constexpr size_t kMostBytes = size_t{64} << 20;

std::string folder() {
  const char* name = std::getenv("SWITCHBACK_PTX");
  return name ? name : "";
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// As PTX wants them, and as the host has them: both must agree.
std::vector<char> laid_out(const Kernel& kernel, const emulated::KernelCall& call) {
  CHECK(call.arguments.size() == kernel.parameters.size(), "{}: {} arguments where the PTX of {} has {} parameters",
        call.name, call.arguments.size(), kernel.name, kernel.parameters.size());
  std::vector<char> bytes(kernel.parameter_bytes);
  for (size_t i = 0; i < kernel.parameters.size(); ++i) {
    const Parameter& p = kernel.parameters[i];
    const emulated::KernelArgument& a = call.arguments[i];
    CHECK(a.bytes == p.bytes && a.alignment == p.alignment,
          "{}: parameter {} of {} has {} bytes aligned to {}, in PTX {} to {}", call.name, i, kernel.name, a.bytes,
          a.alignment, p.bytes, p.alignment);
    std::memcpy(bytes.data() + p.offset, a.value, a.bytes);
  }
  return bytes;
}

std::string current_case() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  return info ? fmt::format("{}.{}", info->test_suite_name(), info->name()) : "";
}

Library& library() {
  static auto& all = *new Library(folder());  // never destroyed: the report is written at the very end
  return all;
}

}  // namespace

Library::Library(const std::string& folder) : folder_(folder), functions_(own_functions()) {
  std::vector<fs::path> files;
  for (const auto& e : fs::recursive_directory_iterator(folder))
    if (e.path().extension() == ".ptx") files.push_back(e.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& path : files)
    for (auto& kernel : read_kernels(path.filename(), read_file(path))) {
      // In an anonymous namespace: known to its own file alone, as `_GLOBAL__N_...`.
      const bool local = kernel->name.find("_GLOBAL__N_") != std::string::npos;
      by_name_[{local ? path.stem().string() + ".cu" : "", readable(kernel->name)}] = all_.size();
      all_.emplace_back().kernel = std::move(kernel);
    }
}

Library::Entry& Library::entry_of(const emulated::KernelCall& call) {
  const auto known = by_function_.find(call.kernel);
  if (known != by_function_.end()) return all_[known->second];
  const auto function = functions_.find(call.kernel);
  CHECK(function != functions_.end(), "{}: a kernel whose name is not known", call.name);
  const std::string name = readable(function->second.name);
  const auto found = by_name_.find({function->second.file, name});
  CHECK(found != by_name_.end(), "{}: {} holds no kernel `{}` of {}", call.name, folder_, name, function->second.file);
  by_function_[call.kernel] = found->second;
  return all_[found->second];
}

void Library::execute(const emulated::KernelCall& call) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entry_of(call);
  decode(*entry.kernel);
  Launch launch{.kernel = entry.kernel.get(),
                .grid = {call.grid.x, call.grid.y, call.grid.z},
                .block = {call.block.x, call.block.y, call.block.z},
                .shared_bytes = uint32_t(call.shared),
                .parameters = laid_out(*entry.kernel, call),
                .name = call.name};
  if (entry.launches++ == 0) entry.first_case = current_case();
  emulator::DeviceMemory& memory = emulator::device_memory();
  if (entry.compared >= kCompared || memory.used() > kMostBytes) {
    entry.instructions += run(launch);
    return;
  }
  static emulator::DeviceMemory::Snapshot before, emulated;  // kept: fresh pages cost more than the copies
  memory.save(before);
  set_emulator_mode(EmulatorMode::quick);  // the column /emulated/ has repeated its launches
  call.emulate();
  set_emulator_mode(EmulatorMode::automatic);
  memory.save(emulated);
  memory.restore(before);
  entry.instructions += run(launch);
  ++entry.compared;
  const std::string difference = memory.difference(emulated, false);
  if (difference.empty()) return;
  if (entry.different++ == 0) entry.difference = fmt::format("{}: {}", current_case(), difference);
}

std::string why_not() {
  if (folder().empty()) return "no PTX: SWITCHBACK_PTX names no folder (tools/test.sh --all makes one where nvcc is)";
  return fs::is_directory(folder()) ? "" : fmt::format("no PTX: SWITCHBACK_PTX is {}, which is no folder", folder());
}

std::shared_ptr<Gpu> open() {
  const std::shared_ptr<Gpu> gpu = emulated_ops()->open(0);
  emulated::set_kernel_executor(static_cast<emulated::cudaStream_t>(gpu->stream),
                                [](const emulated::KernelCall& call) { library().execute(call); });
  return gpu;
}

std::string Library::report() const {
  std::string out;
  for (const Entry& e : all_)
    out += fmt::format("{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n", e.kernel->file, readable(e.kernel->name), e.launches,
                       e.compared, e.different, e.instructions, e.first_case, e.difference);
  return out;
}

int64_t Library::different() const {
  int64_t sum = 0;
  for (const Entry& e : all_) sum += e.different;
  return sum;
}

void write_report() {
  const char* path = std::getenv("SWITCHBACK_PTX_REPORT");
  if (!path || !why_not().empty()) return;
  std::ofstream out(path);
  out << library().report();
  if (!out.flush()) fmt::print(stderr, "cannot write {}\n", path);
}

}  // namespace switchback::ptx
