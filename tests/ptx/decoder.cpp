#include "tests/ptx/decoder.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "kernels/check.h"
#include "tests/ptx/machine.h"

namespace switchback::ptx {
namespace {

constexpr std::pair<const char*, Special> kSpecialNames[] = {
    {"%tid.x", tid_x},     {"%tid.y", tid_y},       {"%tid.z", tid_z},       {"%ntid.x", ntid_x},
    {"%ntid.y", ntid_y},   {"%ntid.z", ntid_z},     {"%ctaid.x", ctaid_x},   {"%ctaid.y", ctaid_y},
    {"%ctaid.z", ctaid_z}, {"%nctaid.x", nctaid_x}, {"%nctaid.y", nctaid_y}, {"%nctaid.z", nctaid_z},
    {"%laneid", laneid}};

template <typename T>
std::optional<T> parsed(std::string_view digits, int base) {
  T value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (error != std::errc() || end != digits.data() + digits.size()) return {};
  return value;
}

constexpr const char* kSharedArray = "sb_shared_memory";  // kernels/device/cuda.cuh: all shared memory is dynamic

}  // namespace

Decoder::Decoder(Kernel& k) : kernel(k) { kernel.file_bytes = kSpecials * kLanes * 4; }

void Decoder::unknown(const std::string& why) const {
  const uint32_t line = now ? now->line : kernel.line;
  throw Error(fmt::format("PTX that the interpreter does not know: `{}` ({}), {}:{}, kernel {}",
                          kernel.instruction_text(line), why, kernel.file, line, kernel.name),
              "add the instruction to tests/ptx/operations.cpp");
}

uint32_t Decoder::room(uint32_t bytes) {
  const uint32_t at = kernel.file_bytes;
  kernel.file_bytes += bytes * kLanes;
  return at;
}

void Decoder::declare(std::string_view name, bool numbered, uint32_t count, uint32_t bytes, uint32_t line) {
  const std::string key(name);
  if (const auto known = banks_.find(key);
      known != banks_.end()) {  // in the braces of another piece of inline assembly
    CHECK(!numbered && known->second.bytes == bytes, "{}:{}: {} is declared twice", kernel.file, line, name);
    return;
  }
  Bank bank{numbered ? count : 0, bytes, 0, int32_t(kernel.registers)};
  if (bytes == 0) {
    bank.offset = kernel.predicates;
    kernel.predicates += count;
  } else {
    bank.offset = kernel.file_bytes;
    kernel.file_bytes += count * bytes * kLanes;
    kernel.file_bytes = (kernel.file_bytes + 63) / 64 * 64;
  }
  kernel.registers += count;
  banks_[key] = bank;
}

// `.align 16 .b8 __local_depot0[64]`
void Decoder::declare_local(std::string_view declaration, uint32_t line) {
  const size_t open = declaration.find('['), name = declaration.rfind(' ', open);
  CHECK(declaration.starts_with(".align") && open != declaration.npos && name != declaration.npos &&
            declaration.find(".b8") != declaration.npos,
        "{}:{}: unknown `.local {}`", kernel.file, line, declaration);
  const uint32_t alignment = uint32_t(std::stoul(std::string(declaration.substr(7))));
  kernel.local_bytes = (kernel.local_bytes + alignment - 1) / alignment * alignment;
  locals_[std::string(declaration.substr(name + 1, open - name - 1))] = kernel.local_bytes;
  kernel.local_bytes += uint32_t(std::stoul(std::string(declaration.substr(open + 1))));
}

void Decoder::label(std::string_view name) { labels_[std::string(name)] = uint32_t(kernel.code.size()); }

void Decoder::guard(std::string_view name, bool negated) { guard_ = {find(name), negated}; }

Register Decoder::find(std::string_view name) const {
  for (const auto& [special, number] : kSpecialNames)
    if (name == special) return {number * kLanes * 4, 4, -1};
  const auto alone = banks_.find(std::string(name));
  if (alone != banks_.end() && alone->second.count == 0)
    return {alone->second.offset, uint8_t(alone->second.bytes), alone->second.id};
  size_t digits = name.size();
  while (digits > 0 && std::isdigit(static_cast<unsigned char>(name[digits - 1]))) --digits;
  const auto bank = banks_.find(std::string(name.substr(0, digits)));
  const auto number = parsed<uint32_t>(name.substr(digits), 10);
  if (bank == banks_.end() || !number || *number >= bank->second.count) unknown(fmt::format("no register {}", name));
  const Bank& b = bank->second;
  return {b.offset + *number * (b.bytes ? b.bytes * kLanes : 1), uint8_t(b.bytes), b.id + int32_t(*number)};
}

Register Decoder::constant(uint64_t bits, uint32_t bytes) {
  const std::string key = fmt::format("{}:{}", bytes, bits);
  const auto known = constants_.find(key);
  if (known != constants_.end()) return known->second;
  kernel.file_bytes = (kernel.file_bytes + 63) / 64 * 64;
  const Register r{room(bytes), uint8_t(bytes), -1};
  kernel.constants.push_back({r.offset, uint8_t(bytes), bits});
  return constants_[key] = r;
}

// Integers, 0fXXXXXXXX and 0dXXXXXXXXXXXXXXXX (as their bits), and the addresses of what has a name.
std::optional<int64_t> Decoder::number(std::string_view text) const {
  if (text.empty()) return {};
  if (text.starts_with("0f") || text.starts_with("0d") || text.starts_with("0F") || text.starts_with("0D")) {
    const auto bits = parsed<uint64_t>(text.substr(2), 16);
    return bits ? std::optional<int64_t>(int64_t(*bits)) : std::nullopt;
  }
  if (text == kSharedArray) return 0;
  if (const auto local = locals_.find(std::string(text)); local != locals_.end()) return local->second;
  if (const Parameter* p = kernel.parameter(text)) return int64_t(kParameterWindow + p->offset);
  const bool negative = text[0] == '-';
  if (negative) text.remove_prefix(1);
  if (text.ends_with('U')) text.remove_suffix(1);
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  const auto value = parsed<uint64_t>(hex ? text.substr(2) : text, hex ? 16 : 10);
  if (!value) return {};
  return negative ? -int64_t(*value) : int64_t(*value);
}

void Decoder::use(const Register& r, bool written) {
  if (r.id < 0) return;
  auto& ids = written ? writes_ : reads_;
  if (std::find(ids.begin(), ids.end(), r.id) == ids.end()) ids.push_back(r.id);
}

Register Decoder::operand(std::string_view text, uint32_t bytes) {
  if (is_register(text)) return find(text);
  const auto bits = number(text);
  if (!bits) unknown(fmt::format("no operand `{}`", text));
  return constant(bytes == 8 ? uint64_t(*bits) : uint64_t(*bits) & ((uint64_t{1} << 8 * bytes) - 1), bytes);
}

Register Decoder::read(size_t n, uint32_t bytes) {
  if (n >= operands.size()) unknown("too few operands");
  const Register r = operand(operands[n], bytes ? bytes : 4);
  if (r.bytes != bytes) unknown(fmt::format("operand {} has {} bits", operands[n], 8 * r.bytes));
  use(r, false);
  return r;
}

Register Decoder::write(size_t n, uint32_t bytes) {
  if (n >= operands.size()) unknown("too few operands");
  const Register r = write_any(operands[n]);
  if (r.bytes != bytes) unknown(fmt::format("operand {} has {} bits", operands[n], 8 * r.bytes));
  return r;
}

Register Decoder::read_any(std::string_view name) {
  const Register r = find(name);
  use(r, false);
  return r;
}

Register Decoder::write_any(std::string_view name) {
  if (!is_register(name)) unknown(fmt::format("no register `{}`", name));
  const Register r = find(name);
  if (r.id < 0) unknown(fmt::format("{} cannot be written", name));
  use(r, true);
  return r;
}

void Decoder::address(size_t n) {
  if (n >= operands.size() || operands[n].size() < 3 || operands[n].front() != '[') unknown("an address is missing");
  std::string_view inside = operands[n].substr(1, operands[n].size() - 2);
  if (const size_t plus = inside.find('+'); plus != inside.npos) {
    const auto offset = number(inside.substr(plus + 1));
    if (!offset) unknown("an address's offset");
    now->offset = *offset;
    inside = inside.substr(0, plus);
  }
  if (is_register(inside)) {
    now->a = read_any(inside);
    if (now->a.bytes < 4) unknown("an address in a small register");
  } else {
    now->a = operand(inside, 8);
  }
}

void Decoder::elements(size_t n, bool written) {
  if (n >= operands.size()) unknown("too few operands");
  std::string_view text = operands[n];
  if (text.front() == '{') text = text.substr(1, text.size() - 2);
  const auto names = split(text);
  now->list = uint32_t(kernel.lists.size());
  now->count = uint8_t(names.size());
  for (const std::string_view name : names) {
    if (written) {
      kernel.lists.push_back(write_any(name));
    } else if (is_register(name)) {
      kernel.lists.push_back(read_any(name));
    } else {
      kernel.lists.push_back(operand(name, 8));
    }
  }
}

void Decoder::instruction(std::string_view opcode, const std::vector<std::string_view>& list, uint32_t line) {
  Instruction i;
  i.line = line;
  now = &i;
  operands = list;
  reads_.clear();
  writes_.clear();
  if (guard_) {
    i.guarded = true;
    i.guard = guard_->first;
    i.guard_negated = guard_->second;
    guard_.reset();
  }
  std::vector<std::string_view> parts;
  for (size_t from = 0; from <= opcode.size();) {
    const size_t dot = std::min(opcode.find('.', from), opcode.size());
    parts.push_back(opcode.substr(from, dot - from));
    from = dot + 1;
  }
  if (parts[0] == "bra") {
    i.kind = Instruction::Kind::branch;
    if (operands.size() != 1) unknown("a branch to one label");
    branches_.emplace_back(uint32_t(kernel.code.size()), operands[0]);
  } else if (parts[0] == "ret" || parts[0] == "exit") {
    i.kind = Instruction::Kind::exit;
  } else if (!decode_operation(*this, parts)) {
    unknown("no such operation");
  }
  i.strict |= i.kind != Instruction::Kind::plain;
  i.reads = uint32_t(kernel.uses.size());
  i.read_count = uint8_t(reads_.size());
  i.write_count = uint8_t(writes_.size());
  kernel.uses.insert(kernel.uses.end(), reads_.begin(), reads_.end());
  kernel.uses.insert(kernel.uses.end(), writes_.begin(), writes_.end());
  kernel.code.push_back(i);
  now = nullptr;
}

void Decoder::finish() {
  for (const auto& [at, name] : branches_) {
    const auto target = labels_.find(name);
    CHECK(target != labels_.end(), "{}: {}: a branch to {}, which is nowhere", kernel.file, kernel.name, name);
    kernel.code[at].target = target->second;
  }
  Instruction end;  // a body may end without ret
  end.kind = Instruction::Kind::exit;
  end.line = kernel.line;
  kernel.code.push_back(end);
}

}  // namespace switchback::ptx
