// The built-in architectures, with torchvision's names for parameters and nodes. A new model = one file in engine/zoo/
// and one row in zoo.cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/network.h"

namespace switchback {

struct ZooOptions {
  int64_t divide_channels = 1;  // 8 gives the small copies that tests use; heads of 4096 shrink likewise
  int64_t classes = 0;          // 0: the architecture's own (1000, lenet 10)
};

struct ZooEntry {
  const char* name;
  const char* about;  // "Simonyan & Zisserman 2014, 16 weight layers"
  Network (*make)(const ZooOptions&);
};
const std::vector<ZooEntry>& zoo();

// Parameters are not set. Throws naming the valid names.
Network make_network(std::string_view name, const ZooOptions& options = {});

Network make_lenet(const ZooOptions& options);
Network make_alexnet(const ZooOptions& options);
Network make_vgg(std::string_view name, const ZooOptions& options);     // vgg11 … vgg19_bn
Network make_resnet(std::string_view name, const ZooOptions& options);  // resnet18, resnet34

}  // namespace switchback
