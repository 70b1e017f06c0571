// A kernel as nvcc wrote it in PTX, decoded for the machine that runs it (machine.h): what the column …/ptx/… of the op
// tests executes in place of the C++ that the emulated device compiles. Written from NVIDIA's PTX ISA alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace switchback::ptx {

inline constexpr uint32_t kLanes = 32;

struct Warp;

// A 32-lane array in a warp's register file. Immediates and special registers are such arrays, too.
struct Register {
  uint32_t offset = 0;  // bytes; of a predicate: its number
  uint8_t bytes = 0;    // of a lane: 2, 4 or 8; 0: a predicate, one bit a lane
  int32_t id = -1;      // of a declared register, for the record of what has been written; -1: always defined
};

struct Instruction {
  // What a plain instruction does for the lanes that are on.
  using Run = void (*)(Warp&, const Instruction&, uint32_t lanes);
  enum class Kind : uint8_t { plain, branch, exit, barrier, warp_operation };

  Run run = nullptr;
  Kind kind = Kind::plain;
  bool guarded = false, guard_negated = false;
  bool chooses = false;                     // selp: what is not chosen does not matter
  bool strict = false;                      // must not read what nobody wrote; others pass that on to what they write
  uint8_t space = 0, count = 1, bytes = 0;  // of memory accesses: where, how many elements and how large
  uint8_t variant = 0;                      // what else the operation has to tell apart
  Register guard, to, a, b, c, d;
  int64_t offset = 0;   // of an address, in bytes
  uint32_t target = 0;  // of a branch: an instruction's number
  uint32_t list = 0;    // first of the elements in Kernel::lists, for operands in braces
  uint32_t reads = 0;   // first in Kernel::uses, `read_count` ids that are read, then `write_count` ones written
  uint8_t read_count = 0, write_count = 0;
  uint32_t line = 0;  // of the PTX file
};

struct Parameter {
  std::string name;
  uint32_t offset = 0, bytes = 0, alignment = 1;
};

struct Kernel {
  std::string name, file;  // mangled; the PTX file, without its folder
  std::string text;        // from `.entry` to the closing brace
  uint32_t line = 0;       // where that begins
  std::vector<Parameter> parameters;
  uint32_t parameter_bytes = 0;

  // Filled by decode().
  bool decoded = false;
  std::vector<Instruction> code;
  std::vector<Register> lists;
  std::vector<int32_t> uses;
  uint32_t file_bytes = 0;  // of a warp's register file
  uint32_t registers = 0;   // declared ones, predicates included
  uint32_t predicates = 0;
  uint32_t local_bytes = 0;  // of local memory, a thread
  struct Constant {
    uint32_t offset;
    uint8_t bytes;
    uint64_t bits;
  };
  std::vector<Constant> constants;  // filled into every warp's register file

  const Parameter* parameter(std::string_view name) const;
  std::string instruction_text(uint32_t line) const;  // of a line of the file
};

// Special registers lie at the beginning of the register file, 4 bytes a lane.
enum Special : uint32_t {
  tid_x,
  tid_y,
  tid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  kSpecials
};

enum Space : uint8_t { generic, global, shared, local, param };

// The kernels of a PTX file, undecoded. Throws Error where it is none.
std::vector<std::unique_ptr<Kernel>> read_kernels(const std::string& file, const std::string& text);
// Throws Error naming text, line and kernel where an instruction is not known.
void decode(Kernel& kernel);

}  // namespace switchback::ptx
