// safetensors files: 8 bytes little-endian header length, a JSON header
// {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …, "__metadata__": {string: string}}, then the data.
// The reader maps the file and checks everything before use: lengths, dtypes, shapes against spans, and that the
// spans cover the data exactly once.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/files/state_dict.h"

namespace switchback {

class Safetensors : public StateDict {
 public:
  explicit Safetensors(const std::string& path);
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
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
