// NumPy archives (.npz): a zip of uncompressed .npy entries, as numpy.savez writes it.
//
// Entries have their whole size from the start and are filled piece by piece, in any turn: a batch of images writes its
// first image into every entry, then its second, and no more than one image is ever in memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/files/files.h"
#include "engine/tensor.h"

namespace switchback {

class NpzWriter {
 public:
  explicit NpzWriter(OutputFile& file) : file_(file) {}  // which is empty and outlives the writer
  // A new array of float32, numpy.load(...)[name]. Returns its number.
  size_t add(const std::string& name, const Dims& dims);
  void write(size_t entry, std::span<const float> values);  // the next values, in C order
  void finish();                                            // when all arrays are full: the zip's own records

 private:
  struct Entry {
    std::string name;       // in the zip, "….npy"
    int64_t offset, bytes;  // of its local header; of the .npy file behind it
    int64_t written = 0;
    uint32_t crc = 0;
    int64_t data() const;  // where the .npy file begins
  };
  void append(Entry& entry, std::span<const std::byte> bytes);
  OutputFile& file_;
  std::vector<Entry> entries_;
  int64_t end_ = 0;  // of the last entry
};

}  // namespace switchback
