// Finds and opens NVIDIA's libraries.
#include "kernels/device/vendor.cuh"

#ifndef SB_EMULATED
#include <dlfcn.h>
#include <link.h>
#endif

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <vector>

#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {

#ifdef SB_EMULATED

Library open_library(std::initializer_list<const char*> names) {
  Library library;
  if (vendor_libraries_present()) library.path = std::string("the emulator's model of ") + *names.begin();
  else library.why_not = std::string("not found: ") + *names.begin() + " (hidden by a test)";
  return library;
}

#else

// PyTorch's wheels bring cuDNN and cuBLASLt along, in the Python environment that is active.
static void add_wheels(std::vector<std::string>& folders, const char* environment) {
  std::error_code none;  // no such folder: nothing to add
  for (const auto& python : std::filesystem::directory_iterator(std::filesystem::path(environment) / "lib", none))
    for (const auto& wheel : std::filesystem::directory_iterator(python.path() / "site-packages/nvidia", none))
      if (std::filesystem::is_directory(wheel.path() / "lib", none)) folders.push_back(wheel.path() / "lib");
}

// In the order of the search; "" stands for where the loader looks.
static std::vector<std::string> search_folders() {
  std::vector<std::string> folders;
  if (const char* ours = std::getenv("SWITCHBACK_LIBRARIES")) {
    std::istringstream list(ours);
    for (std::string folder; std::getline(list, folder, ':');)
      if (!folder.empty()) folders.push_back(folder);
  }
  folders.push_back("");
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const char* environment = std::getenv(variable)) add_wheels(folders, environment);
  if (const char* home = std::getenv("CUDA_HOME")) folders.push_back(std::string(home) + "/lib64");
  folders.push_back("/usr/local/cuda/lib64");
  return folders;
}

static std::string path_of(void* handle, const std::string& asked_for) {
  link_map* map = nullptr;
  return dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map && *map->l_name ? map->l_name : asked_for;
}

Library open_library(std::initializer_list<const char*> names) {
  Library library;
  std::string tried;
  for (const std::string& folder : search_folders()) {
    for (const char* name : names) {
      const std::string file = folder.empty() ? name : folder + "/" + name;
      library.handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (library.handle) {
        library.path = path_of(library.handle, file);
        return library;
      }
      tried += (tried.empty() ? "" : "; ") + std::string(dlerror());
    }
  }
  library.why_not = "not found: " + tried;
  return library;
}

void* find_symbol(Library& library, const char* name) {
  void* address = dlsym(library.handle, name);
  if (!address) library.why_not = fmt::format("{} has no function {}", library.path, name);
  return address;
}

#endif

Vendor& vendor_of(Gpu& gpu) {
  make_current(gpu);  // these libraries bind handles to it, and want it again in every call
  if (!gpu.vendor) gpu.vendor = std::make_shared<Vendor>();
  return *static_cast<Vendor*>(gpu.vendor.get());
}

std::vector<std::string> vendor_libraries(Gpu& gpu) { return {cublas_line(gpu), cudnn_line(gpu)}; }

}  // namespace switchback::SB_DEVICE
