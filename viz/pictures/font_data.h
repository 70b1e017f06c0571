// The font file fonts/DejaVuSans-subset.ttf, made into a part of the program by fonts/embed.cmake.
#pragma once

namespace switchback {

const unsigned char* font_data();

}  // namespace switchback
