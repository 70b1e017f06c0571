// Tensor cores: mma.sync and ldmatrix, from the fragments' tables in the PTX ISA (9.7.14.5).
#pragma once

#include "tests/ptx/decoder.h"

namespace switchback::ptx {

bool decode_mma(Decoder& decoder, const std::vector<std::string_view>& opcode);
bool decode_ldmatrix(Decoder& decoder, const std::vector<std::string_view>& opcode);

}  // namespace switchback::ptx
