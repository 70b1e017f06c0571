// safetensors files: 8 bytes little-endian header length, a JSON header
// {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …, "__metadata__": {string: string}}, then the data.
// The reader maps the file and checks everything before use: lengths, dtypes, shapes against spans, and that the
// spans cover the data exactly once.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/files/files.h"
#include "engine/tensor.h"

namespace switchback {

class Safetensors {
 public:
  explicit Safetensors(const std::string& path);
  const std::string& path() const { return file_.path(); }
  std::vector<std::string> names() const;  // sorted
  bool has(const std::string& name) const { return entries_.contains(name); }
  const Dims& dims(const std::string& name) const { return entry(name).dims; }
  const std::string& dtype(const std::string& name) const { return entry(name).dtype; }
  std::span<const std::byte> bytes(const std::string& name) const { return entry(name).bytes; }  // may be unaligned
  // As float32, from F32, F16, BF16 or F64. A scalar (dims []) becomes [1].
  Tensor load(const std::string& name) const;
  void load(const std::string& name, std::span<float> values) const;  // as many as it has
  // From BOOL, U8, I8, U16, I16, U32, I32, U64, I64.
  std::vector<int64_t> load_ints(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  struct Entry {
    std::string dtype;
    Dims dims;
    std::span<const std::byte> bytes;
  };
  const Entry& entry(const std::string& name) const;
  MappedFile file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

// What the writer takes: a view, so the caller keeps the data alive until the file is written.
struct NamedTensor {
  NamedTensor(std::string name, const Tensor& tensor);
  NamedTensor(std::string name, Dims dims, std::span<const float> values);
  NamedTensor(std::string name, Dims dims, std::span<const uint8_t> values);
  NamedTensor(std::string name, Dims dims, std::span<const int16_t> values);
  std::string name, dtype;
  Dims dims;
  std::span<const std::byte> bytes;
};

void write_safetensors(OutputFile& file, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace switchback
