// A state dict in a file: tensors by name. Its readers are safetensors.h and pytorch.h.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/files/files.h"
#include "engine/tensor.h"

namespace switchback {

inline constexpr size_t kMostDims = 8;

class StateDict {
 public:
  const std::string& path() const { return file_.path(); }
  std::vector<std::string> names() const;  // sorted
  bool has(const std::string& name) const { return entries_.contains(name); }
  const Dims& dims(const std::string& name) const { return entry(name).dims; }
  const std::string& dtype(const std::string& name) const { return entry(name).dtype; }  // as safetensors calls it
  std::span<const std::byte> bytes(const std::string& name) const { return entry(name).bytes; }  // may be unaligned
  // As float32, from F32, F16, BF16 or F64. A scalar (dims []) becomes [1].
  Tensor load(const std::string& name) const;
  void load(const std::string& name, std::span<float> values) const;  // as many as it has
  // From BOOL, U8, I8, U16, I16, U32, I32, U64, I64.
  std::vector<int64_t> load_ints(const std::string& name) const;
  // Those whose names begin with `prefix`, without it; the others go.
  void keep_under(const std::string& prefix);
  void rename(const std::string& from, const std::string& to);  // `from` is there, and `to` is not

 protected:
  struct Entry {
    std::string dtype;
    Dims dims;
    std::span<const std::byte> bytes;  // from the first element to the last
    Dims strides = {};                 // in elements; empty where they lie one behind the other
  };
  explicit StateDict(const std::string& path) : file_(path) {}
  const Entry& entry(const std::string& name) const;
  std::span<const std::byte> elements(const Entry& e, std::vector<std::byte>& room) const;
  MappedFile file_;
  std::map<std::string, Entry> entries_;
};

size_t size_of_type(const std::string& dtype);  // bytes of an element; 0 of what there isn't
int64_t byte_count(const Dims& dims, size_t size);  // elements times size, or −1 where that overflows

// By the file's content, not by its name: a safetensors file, or what torch.save wrote.
StateDict read_state_dict(const std::string& path);

}  // namespace switchback
