// Turns an instruction's words into an Instruction: registers and constants get their places, operations.cpp says what
// runs.
#pragma once

#include <optional>
#include <unordered_map>

#include "tests/ptx/kernel.h"

namespace switchback::ptx {

std::vector<std::string_view> split(std::string_view list);  // at commas outside of brackets

class Decoder {
 public:
  explicit Decoder(Kernel& kernel);
  void declare(std::string_view name, bool numbered, uint32_t count, uint32_t bytes, uint32_t line);
  void declare_local(std::string_view declaration, uint32_t line);
  void label(std::string_view name);
  void guard(std::string_view name, bool negated);
  void instruction(std::string_view opcode, const std::vector<std::string_view>& operands, uint32_t line);
  void finish();

  // ---- for operations.cpp: the instruction that is being decoded

  Kernel& kernel;
  Instruction* now = nullptr;
  std::vector<std::string_view> operands;

  [[noreturn]] void unknown(const std::string& why) const;  // names text, line and kernel
  // Operand n; fails where there is none, or where its size is another. bytes 0: a predicate.
  Register read(size_t n, uint32_t bytes);
  Register write(size_t n, uint32_t bytes);
  Register read_any(std::string_view name);   // a register of any size
  Register write_any(std::string_view name);  // `_`: one that nobody reads
  void address(size_t n);                     // [register + offset] into a and offset
  void elements(size_t n, bool written);      // {…} or one register, into list and count
  std::optional<int64_t> number(std::string_view text) const;
  bool is_register(std::string_view name) const { return !name.empty() && name[0] == '%'; }

 private:
  struct Bank {  // %r<12>
    uint32_t count, bytes, offset;
    int32_t id;
  };
  Register find(std::string_view name) const;
  Register constant(uint64_t bits, uint32_t bytes);
  Register operand(std::string_view text, uint32_t bytes);
  uint32_t room(uint32_t bytes);
  void use(const Register& r, bool written);

  std::unordered_map<std::string, Bank> banks_;
  std::unordered_map<std::string, Register> constants_;
  std::unordered_map<std::string, uint32_t> labels_;
  std::unordered_map<std::string, uint32_t> locals_;  // name -> offset
  std::vector<std::pair<uint32_t, std::string>> branches_;
  std::vector<int32_t> reads_, writes_;
  std::optional<std::pair<Register, bool>> guard_;
};

// Fills decoder.now by its opcode; false: no such instruction is known.
bool decode_operation(Decoder& decoder, const std::vector<std::string_view>& opcode);

}  // namespace switchback::ptx
