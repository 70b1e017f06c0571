// NumPy array files (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace switchback {

// Format 1.0, 2.0 or 3.0; little-endian float32 in C order with finite values and no empty axis; anything else is an
// error that says how to convert. `ranks`: the numbers of dimensions allowed (empty: 1 to 6).
Tensor read_npy(const std::string& path, const std::vector<int>& ranks = {});

// The same of int64, int32 or uint8: labels, the order of images.
std::vector<int64_t> read_npy_integers(const std::string& path, const std::vector<int>& ranks, Dims& dims);

// Of a file in memory, as an .npz holds them; `what` names it in errors. Pixels are uint8, and stay where they are.
std::vector<int64_t> npy_integers(const std::string& what, std::span<const std::byte> file, const std::vector<int>& ranks, Dims& dims);
std::span<const std::byte> npy_pixels(const std::string& what, std::span<const std::byte> file, const std::vector<int>& ranks, Dims& dims);

// Whether it holds what read_npy_integers reads.
bool npy_holds_integers(const std::string& path);

// The dimensions alone: the header and the size of the file are checked, the values not looked at.
Dims npy_dims(const std::string& path, const std::vector<int>& ranks = {});

// Format 1.0, float32, C order.
std::vector<uint8_t> npy_bytes(const Tensor& tensor);
std::vector<uint8_t> npy_header(const Dims& dims, const char* type = "<f4");  // what stands before the values
void write_npy(const std::string& path, const Tensor& tensor);

}  // namespace switchback
