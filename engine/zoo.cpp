#include "engine/zoo.h"

#include <fmt/ranges.h>

namespace switchback {

// The rows are the registration: a new model is one file in engine/zoo/ and one row here.
const std::vector<ZooEntry>& zoo() {
  static const std::vector<ZooEntry> entries{
      {"lenet", "LeCun et al. 1998, as 28x28 grey digits with ReLU", make_lenet},
      {"alexnet", "Krizhevsky 2014, one tower", make_alexnet},
      {"vgg11", "Simonyan & Zisserman 2014, 11 weight layers", [](const ZooOptions& o) { return make_vgg("vgg11", o); }},
      {"vgg13", "13 weight layers", [](const ZooOptions& o) { return make_vgg("vgg13", o); }},
      {"vgg16", "16 weight layers", [](const ZooOptions& o) { return make_vgg("vgg16", o); }},
      {"vgg19", "19 weight layers", [](const ZooOptions& o) { return make_vgg("vgg19", o); }},
      {"vgg11_bn", "vgg11 with batch norm", [](const ZooOptions& o) { return make_vgg("vgg11_bn", o); }},
      {"vgg13_bn", "vgg13 with batch norm", [](const ZooOptions& o) { return make_vgg("vgg13_bn", o); }},
      {"vgg16_bn", "vgg16 with batch norm", [](const ZooOptions& o) { return make_vgg("vgg16_bn", o); }},
      {"vgg19_bn", "vgg19 with batch norm", [](const ZooOptions& o) { return make_vgg("vgg19_bn", o); }},
      {"resnet18", "He et al. 2015, 18 weight layers", [](const ZooOptions& o) { return make_resnet("resnet18", o); }},
      {"resnet34", "34 weight layers", [](const ZooOptions& o) { return make_resnet("resnet34", o); }},
      {"mlp", "fully connected with ReLU; mlp:2-16-16-2 names the layers' sizes", make_mlp},
  };
  return entries;
}

Network make_network(std::string_view name, const ZooOptions& options) {
  if (name.starts_with("mlp:")) {
    ZooOptions with_sizes = options;
    with_sizes.sizes = parse_mlp_sizes(name.substr(4));
    return make_mlp(with_sizes);
  }
  std::vector<std::string> names;
  for (const ZooEntry& entry : zoo()) {
    if (name == entry.name) return entry.make(options);
    names.push_back(entry.name);
  }
  throw Error(fmt::format("there is no model '{}'", name), fmt::format("models: {}", fmt::join(names, ", ")), true);
}

}  // namespace switchback
