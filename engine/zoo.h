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
  std::vector<int64_t> sizes = {};  // mlp: of its input, its hidden layers and its output; empty: 2-20-2
};

struct ZooEntry {
  const char* name;
  const char* about;  // "Simonyan & Zisserman 2014, 16 weight layers"
  Network (*make)(const ZooOptions&);
};
const std::vector<ZooEntry>& zoo();

// Parameters are not set. Throws naming the valid names. "mlp:2-16-16-2" is an mlp of these sizes.
Network make_network(std::string_view name, const ZooOptions& options = {});

Network make_lenet(const ZooOptions& options);
Network make_alexnet(const ZooOptions& options);
Network make_vgg(std::string_view name, const ZooOptions& options);     // vgg11 … vgg19_bn
Network make_resnet(std::string_view name, const ZooOptions& options);  // resnet18, resnet34
Network make_mlp(const ZooOptions& options);

std::vector<int64_t> parse_mlp_sizes(std::string_view text);  // "2-16-16-2"; throws (usage) on anything else
std::vector<int64_t> mlp_sizes(const Safetensors& file);      // from the shapes of its weights

}  // namespace switchback
