// SHA-256 (FIPS 180-4): what names a file's contents in reports, as `sha256sum` prints it.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace switchback {

std::string sha256(std::span<const std::byte> bytes);  // 64 hexadecimal digits
std::string sha256_of_file(const std::string& path);

}  // namespace switchback
