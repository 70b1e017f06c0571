# Run by the build: FROM, a file, becomes TO, C++ source that holds its bytes behind `switchback::font_data()`.
file(READ ${FROM} bytes HEX)
string(REGEX REPLACE "(................................................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${TO} "#include \"viz/pictures/font_data.h\"\n\nnamespace switchback {\n\nconst unsigned char* font_data() {\n  static const unsigned char bytes[] = {\n${bytes}};\n  return bytes;\n}\n\n}  // namespace switchback\n")
