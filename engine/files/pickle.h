// Reads pickles as data, for PyTorch's checkpoints. An interpreter of its own: it imports nothing and calls nothing that
// a file names, so no file can make it run code. What is neither a tensor nor plain data becomes `unknown`.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace switchback {

struct PickleValue {
  enum class Kind : uint8_t {
    none,
    boolean,   // number
    integer,   // number
    real,      // nothing is kept of it
    text,      // text; also bytes
    tuple,     // items; also lists and sets
    dict,      // items: key, value, key, value, …
    global,    // text: "module.name" that would be imported
    storage,   // items: "storage", type, key, location, count[, view], as torch.save writes them
    tensor,    // items: storage, offset, size, stride
    unknown,   // an object; text: its class, or what would have made it
    mark,
  };
  Kind kind = Kind::none;
  int64_t number = 0;
  std::string_view text;  // lies in what was read, or in the Pickle
  std::vector<const PickleValue*> items;

  bool is(Kind k) const { return kind == k; }
  const PickleValue* find(std::string_view key) const;  // of a dict, or null
};

class Pickle {
 public:
  // The value of the pickle that begins at `bytes`, which must outlive this. Throws Error where it is damaged.
  explicit Pickle(std::string_view bytes);
  const PickleValue& value() const { return *value_; }
  size_t size() const { return at_; }  // bytes of the pickle
  const std::vector<const PickleValue*>& storages() const { return storages_; }  // all that it mentions

 private:
  using Kind = PickleValue::Kind;
  bool step();  // one opcode; false at the end
  std::string_view take(uint64_t bytes);
  uint64_t take_number(int bytes);  // little-endian
  std::string_view take_line();
  PickleValue* make(Kind kind, int64_t number = 0, std::string_view text = {});
  PickleValue* make(Kind kind, std::vector<const PickleValue*> items);
  void push(PickleValue* value) { stack_.push_back(value); }
  PickleValue* pop();
  PickleValue* top();
  std::vector<const PickleValue*> pop_mark();  // what lies above it
  void push_tuple(size_t count);
  void push_global(std::string_view module, std::string_view name);
  void add(const std::vector<const PickleValue*>& items, Kind to);
  PickleValue* call(const PickleValue& callee, const PickleValue& arguments);
  void memoize(uint64_t at) { memo_[at] = top(); }

  std::string_view bytes_;
  size_t at_ = 0, copied_ = 0;
  std::deque<PickleValue> values_;
  std::deque<std::string> names_;
  std::vector<PickleValue*> stack_;
  std::map<uint64_t, PickleValue*> memo_;
  std::vector<const PickleValue*> storages_;
  PickleValue* value_ = nullptr;
};

}  // namespace switchback
