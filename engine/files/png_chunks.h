// Pieces of PNG files.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace switchback {

// "kind", the data and their checksum.
void append_png_chunk(std::vector<uint8_t>& out, std::string_view kind, std::string_view data);

}  // namespace switchback
