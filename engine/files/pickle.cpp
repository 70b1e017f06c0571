// The opcodes are those of protocols 2 to 5 (Python's Lib/pickletools.py describes each).
#include "engine/files/pickle.h"

#include "kernels/check.h"

namespace switchback {
namespace {

constexpr size_t kMostValues = 4'000'000;  // a state dict of 1000 tensors has 50,000

[[noreturn]] void damaged(const std::string& what) {
  throw Error(fmt::format("its pickle is damaged: {}", what), "copy or download the file again");
}

}  // namespace

const PickleValue* PickleValue::find(std::string_view key) const {
  if (kind != Kind::dict) return nullptr;
  for (size_t i = items.size(); i >= 2; i -= 2)  // the last of equal keys counts
    if (items[i - 2]->is(Kind::text) && items[i - 2]->text == key) return items[i - 1];
  return nullptr;
}

Pickle::Pickle(std::string_view bytes) : bytes_(bytes) {
  while (step()) {
  }
}

std::string_view Pickle::take(uint64_t bytes) {
  if (bytes > bytes_.size() - at_) damaged("it is cut off");
  at_ += bytes;
  return bytes_.substr(at_ - bytes, bytes);
}

uint64_t Pickle::take_number(int bytes) {
  uint64_t v = 0;
  const std::string_view raw = take(uint64_t(bytes));
  for (int i = bytes; i-- > 0;) v = v << 8 | uint8_t(raw[i]);
  return v;
}

std::string_view Pickle::take_line() {
  const size_t end = bytes_.find('\n', at_);
  if (end == std::string_view::npos) damaged("it is cut off");
  const std::string_view line = bytes_.substr(at_, end - at_);
  at_ = end + 1;
  return line;
}

PickleValue* Pickle::make(Kind kind, int64_t number, std::string_view text) {
  if (values_.size() >= kMostValues) damaged(fmt::format("more than {} values", kMostValues));
  return &values_.emplace_back(PickleValue{kind, number, text, {}});
}

// A value made of others. Their number is bounded, too: a short pickle can ask for many copies of a long list.
PickleValue* Pickle::make(Kind kind, std::vector<const PickleValue*> items) {
  copied_ += items.size();
  if (copied_ > kMostValues) damaged(fmt::format("more than {} items", kMostValues));
  PickleValue* value = make(kind);
  value->items = std::move(items);
  return value;
}

PickleValue* Pickle::pop() {
  PickleValue* value = top();
  stack_.pop_back();
  return value;
}

PickleValue* Pickle::top() {
  if (stack_.empty()) damaged("too few values");
  return stack_.back();
}

std::vector<const PickleValue*> Pickle::pop_mark() {
  size_t at = stack_.size();
  while (at > 0 && !stack_[at - 1]->is(Kind::mark)) --at;
  if (at == 0) damaged("no mark");
  std::vector<const PickleValue*> items(stack_.begin() + int64_t(at), stack_.end());
  stack_.resize(at - 1);
  return items;
}

void Pickle::push_tuple(size_t count) {
  if (stack_.size() < count) damaged("too few values");
  std::vector<const PickleValue*> items(stack_.end() - int64_t(count), stack_.end());
  stack_.resize(stack_.size() - count);
  push(make(Kind::tuple, std::move(items)));
}

void Pickle::push_global(std::string_view module, std::string_view name) {
  push(make(Kind::global, 0, names_.emplace_back(fmt::format("{}.{}", module, name))));
}

// Items for the list or dict on top; what is unknown takes any and keeps none.
void Pickle::add(const std::vector<const PickleValue*>& items, Kind to) {
  PickleValue* target = top();
  if (target->is(Kind::unknown)) return;
  if (!target->is(to)) damaged("items for what takes none");
  if (to == Kind::dict && items.size() % 2) damaged("a key without a value");
  target->items.insert(target->items.end(), items.begin(), items.end());
}

// What the functions that make tensors and dicts would make; anything else is unknown.
PickleValue* Pickle::call(const PickleValue& callee, const PickleValue& arguments) {
  const std::string_view name = callee.text;
  const auto& a = arguments.items;
  if (!callee.is(Kind::global) || !arguments.is(Kind::tuple)) return make(Kind::unknown, 0, name);
  if (name == "collections.OrderedDict") {
    std::vector<const PickleValue*> items;
    if (!a.empty() && a[0]->is(Kind::tuple))  // of pairs, from Python 2
      for (const PickleValue* pair : a[0]->items) {
        if (!pair->is(Kind::tuple) || pair->items.size() != 2) damaged("a dict of what is no pair");
        items.insert(items.end(), pair->items.begin(), pair->items.end());
      }
    return make(Kind::dict, std::move(items));
  }
  if (name == "torch.Size" && a.size() == 1 && a[0]->is(Kind::tuple)) return make(Kind::tuple, a[0]->items);
  if ((name == "torch._utils._rebuild_tensor_v2" || name == "torch._utils._rebuild_tensor") && a.size() >= 4)
    return make(Kind::tensor, {a.begin(), a.begin() + 4});
  const bool parameter = name == "torch._utils._rebuild_parameter" || name == "torch._utils._rebuild_parameter_with_state" ||
                         name == "torch.nn.parameter.Parameter" || name == "torch.nn.parameter.Buffer";
  if (parameter && !a.empty() && a[0]->is(Kind::tensor)) return make(Kind::tensor, a[0]->items);
  if (name == "torch._tensor._rebuild_from_type_v2" && a.size() >= 3 && a[0]->text != name) return call(*a[0], *a[2]);
  return make(Kind::unknown, 0, name);
}

bool Pickle::step() {
  const auto text = [&](uint64_t bytes) { push(make(Kind::text, 0, take(bytes))); };
  const auto integer = [&](int64_t v) { push(make(Kind::integer, v)); };
  const auto big = [&](uint64_t bytes) {  // of any length; those that don't fit are kept as their bytes
    const std::string_view raw = take(bytes);
    if (raw.size() > 8) return push(make(Kind::text, 0, raw));
    uint64_t v = 0;
    for (size_t i = raw.size(); i-- > 0;) v = v << 8 | uint8_t(raw[i]);
    const bool negative = !raw.empty() && uint8_t(raw.back()) >= 0x80 && raw.size() < 8;
    integer(int64_t(negative ? v | ~uint64_t(0) << (8 * raw.size()) : v));
  };
  switch (const uint8_t code = uint8_t(take(1)[0])) {
    case 0x80: take(1); return true;                     // PROTO
    case 0x95: take(8); return true;                     // FRAME
    case '.': value_ = pop(); return false;              // STOP
    case '(': push(make(Kind::mark)); return true;       // MARK
    case '0': pop(); return true;                        // POP
    case '1': pop_mark(); return true;                   // POP_MARK
    case '2': push(top()); return true;                  // DUP
    case 'N': push(make(Kind::none)); return true;       // NONE
    case 0x88: push(make(Kind::boolean, 1)); return true;
    case 0x89: push(make(Kind::boolean, 0)); return true;
    case 'J': integer(int32_t(take_number(4))); return true;   // BININT
    case 'K': integer(int64_t(take_number(1))); return true;   // BININT1
    case 'M': integer(int64_t(take_number(2))); return true;   // BININT2
    case 0x8a: big(take_number(1)); return true;               // LONG1
    case 0x8b: big(take_number(4)); return true;               // LONG4
    case 'G': take(8); push(make(Kind::real)); return true;    // BINFLOAT
    case 'U': case 'C': case 0x8c: text(take_number(1)); return true;   // SHORT_BINSTRING, SHORT_BINBYTES, SHORT_BINUNICODE
    case 'T': case 'B': case 'X': text(take_number(4)); return true;    // BINSTRING, BINBYTES, BINUNICODE
    case 0x8d: case 0x8e: case 0x96: text(take_number(8)); return true;  // BINUNICODE8, BINBYTES8, BYTEARRAY8
    case ']': case ')': case 0x8f: push(make(Kind::tuple)); return true;  // EMPTY_LIST, EMPTY_TUPLE, EMPTY_SET
    case '}': push(make(Kind::dict)); return true;              // EMPTY_DICT
    case 0x85: push_tuple(1); return true;
    case 0x86: push_tuple(2); return true;
    case 0x87: push_tuple(3); return true;
    case 't': case 'l': case 0x91: push(make(Kind::tuple, pop_mark())); return true;  // TUPLE, LIST, FROZENSET
    case 'd': {                                                 // DICT
      const std::vector<const PickleValue*> items = pop_mark();
      push(make(Kind::dict));
      add(items, Kind::dict);
      return true;
    }
    case 'a': {                                                 // APPEND
      const PickleValue* item = pop();
      add({item}, Kind::tuple);
      return true;
    }
    case 'e': case 0x90: {                                      // APPENDS, ADDITEMS
      const std::vector<const PickleValue*> items = pop_mark();
      add(items, Kind::tuple);
      return true;
    }
    case 's': {                                                 // SETITEM
      const PickleValue *value = pop(), *key = pop();
      add({key, value}, Kind::dict);
      return true;
    }
    case 'u': {                                                 // SETITEMS
      const std::vector<const PickleValue*> items = pop_mark();
      add(items, Kind::dict);
      return true;
    }
    case 'q': memoize(take_number(1)); return true;             // BINPUT
    case 'r': memoize(take_number(4)); return true;             // LONG_BINPUT
    case 0x94: memoize(memo_.size()); return true;              // MEMOIZE
    case 'h': case 'j': {                                       // BINGET, LONG_BINGET
      const auto found = memo_.find(take_number(code == 'h' ? 1 : 4));
      if (found == memo_.end()) damaged("it recalls what it never stored");
      push(found->second);
      return true;
    }
    case 'c': {                                                 // GLOBAL
      const std::string_view module = take_line(), name = take_line();
      push_global(module, name);
      return true;
    }
    case 0x93: {                                                // STACK_GLOBAL
      const PickleValue *name = pop(), *module = pop();
      if (!name->is(Kind::text) || !module->is(Kind::text)) damaged("a name that is no text");
      push_global(module->text, name->text);
      return true;
    }
    case 'Q': {                                                 // BINPERSID
      const PickleValue* id = pop();
      if (!id->is(Kind::tuple)) damaged("a persistent id that is no storage");
      push(make(Kind::storage, id->items));
      storages_.push_back(top());
      return true;
    }
    case 'R': case 0x81: {                                      // REDUCE, NEWOBJ
      const PickleValue *arguments = pop(), *callee = pop();
      push(call(*callee, *arguments));
      return true;
    }
    case 0x92: {                                                // NEWOBJ_EX
      pop(), pop();
      const PickleValue* callee = pop();
      push(make(Kind::unknown, 0, callee->text));
      return true;
    }
    case 'b': pop(); top(); return true;  // BUILD: attributes, of a state dict its _metadata; they say nothing here
    default: damaged(fmt::format("the opcode 0x{:02x}, which state dicts do not need", code));
  }
}

}  // namespace switchback
