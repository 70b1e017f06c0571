// The functions of the running program by their address, local ones included: from its own symbol table.
#pragma once

#include <string>
#include <unordered_map>

namespace switchback::ptx {

struct Symbol {
  std::string name;  // mangled
  std::string file;  // of a local one: the source file, without its folder; else empty
};
std::unordered_map<const void*, Symbol> own_functions();

// A name as it reads, without what differs between nvcc and the C++ compiler: namespaces and the types of vectors.
std::string readable(const std::string& mangled);

}  // namespace switchback::ptx
