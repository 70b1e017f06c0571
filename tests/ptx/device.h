// The column …/ptx/… of the op tests: a GPU with the emulated runtime's memory, streams and graphs, whose kernels run
// from the PTX that nvcc wrote for them. SWITCHBACK_PTX names the folder that holds it: FILE.ptx, somewhere, for every
// FILE.cu.
//
// The first launches of each kernel also run on the emulated device, from the same memory, and both results are
// compared bit by bit.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/ptx/kernel.h"
#include "tests/ptx/symbols.h"

namespace switchback {
struct Gpu;
namespace emulated {
struct KernelCall;
}
}  // namespace switchback

namespace switchback::ptx {

std::string why_not();  // "" where there is PTX
std::shared_ptr<Gpu> open();
// To the file that SWITCHBACK_PTX_REPORT names, if it does; tests/ptx/report.py reads it.
void write_report();

// The kernels of a folder and what became of them.
class Library {
 public:
  explicit Library(const std::string& folder);
  void execute(const emulated::KernelCall& call);
  // A line for each kernel: file, name, launches, those that were compared, those whose bits were not the emulated
  // device's, instructions, the case that ran it first, the first difference.
  std::string report() const;
  int64_t different() const;  // launches, of all kernels

 private:
  struct Entry {
    std::unique_ptr<Kernel> kernel;
    int64_t launches = 0, compared = 0, different = 0;
    uint64_t instructions = 0;
    std::string first_case, difference;
  };
  Entry& entry_of(const emulated::KernelCall& call);

  std::string folder_;
  std::vector<Entry> all_;
  std::map<std::pair<std::string, std::string>, size_t> by_name_;  // source file of a local one, else ""; readable name
  std::map<const void*, size_t> by_function_;
  std::unordered_map<const void*, Symbol> functions_;
  std::mutex mutex_;
};

}  // namespace switchback::ptx
