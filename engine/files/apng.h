// Animated PNG files (APNG, PNG Specification Third Edition): what knows no animation shows the first picture.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/files/image.h"

namespace switchback {

// Pictures of one size, each shown for `milliseconds`, the last one for `last`; over and over. texts: as of png_bytes.
std::vector<uint8_t> apng_bytes(std::span<const Image> pictures, int milliseconds, int last,
                                const PngTexts& texts = {});

}  // namespace switchback
