#include "tests/ptx/symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "kernels/check.h"

namespace switchback::ptx {

std::unordered_map<const void*, Symbol> own_functions() {
  std::ifstream in("/proc/self/exe", std::ios::binary);
  const std::vector<char> file((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  CHECK(file.size() > sizeof(Elf64_Ehdr) && std::memcmp(file.data(), ELFMAG, SELFMAG) == 0,
        "this program's file cannot be read");
  const auto at = [&]<typename T>(size_t offset, T) {
    CHECK(offset + sizeof(T) <= file.size(), "this program's symbol table is cut off");
    T v;
    std::memcpy(&v, file.data() + offset, sizeof v);
    return v;
  };
  uintptr_t base = 0;  // where the program was loaded; it comes first
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        *static_cast<uintptr_t*>(out) = info->dlpi_addr;
        return 1;
      },
      &base);
  std::unordered_map<const void*, Symbol> out;
  const auto header = at(0, Elf64_Ehdr());
  for (int s = 0; s < header.e_shnum; ++s) {
    const auto section = at(header.e_shoff + size_t(s) * header.e_shentsize, Elf64_Shdr());
    if (section.sh_type != SHT_SYMTAB) continue;
    const auto strings = at(header.e_shoff + size_t(section.sh_link) * header.e_shentsize, Elf64_Shdr());
    std::string source;
    for (size_t o = 0; o < section.sh_size; o += sizeof(Elf64_Sym)) {
      const auto symbol = at(section.sh_offset + o, Elf64_Sym());
      const char* name = file.data() + strings.sh_offset + symbol.st_name;
      if (ELF64_ST_TYPE(symbol.st_info) == STT_FILE) source = name;
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_value == 0) continue;
      const bool local = ELF64_ST_BIND(symbol.st_info) == STB_LOCAL;
      out[reinterpret_cast<const void*>(base + symbol.st_value)] = {name, local ? source : ""};
    }
  }
  CHECK(!out.empty(), "this program has no symbol table: it was stripped");
  return out;
}

std::string readable(const std::string& mangled) {
  int status = 0;
  char* text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  if (status != 0) return mangled;
  std::string name = text;
  std::free(text);
  for (const char* part : {"switchback::emulated::", "switchback::cuda::", "(anonymous namespace)::", "switchback::"})
    for (size_t i; (i = name.find(part)) != name.npos;) name.erase(i, std::strlen(part));
  return name;
}

}  // namespace switchback::ptx
