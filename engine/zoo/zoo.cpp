#include "engine/zoo/zoo.h"

#include <fmt/ranges.h>

#include <charconv>

#include "engine/files/files.h"
#include "engine/text.h"

namespace switchback {

// The rows are the registration: a new model is one file in engine/zoo/ and one row here.
const std::vector<ZooEntry>& zoo() {
  static const std::vector<ZooEntry> entries{
      {"lenet", "LeCun et al. 1998, as 28x28 grey digits with ReLU", make_lenet},
      {"alexnet", "Krizhevsky 2014, one tower", make_alexnet},
      {"caffenet", "Krizhevsky et al. 2012: the original AlexNet with groups and LRN, in Caffe's layout",
       make_caffenet},
      {"vgg11", "Simonyan & Zisserman 2014, 11 weight layers",
       [](const ZooOptions& o) { return make_vgg("vgg11", o); }},
      {"vgg13", "13 weight layers", [](const ZooOptions& o) { return make_vgg("vgg13", o); }},
      {"vgg16", "16 weight layers", [](const ZooOptions& o) { return make_vgg("vgg16", o); }},
      {"vgg19", "19 weight layers", [](const ZooOptions& o) { return make_vgg("vgg19", o); }},
      {"vgg11_bn", "vgg11 with batch norm", [](const ZooOptions& o) { return make_vgg("vgg11_bn", o); }},
      {"vgg13_bn", "vgg13 with batch norm", [](const ZooOptions& o) { return make_vgg("vgg13_bn", o); }},
      {"vgg16_bn", "vgg16 with batch norm", [](const ZooOptions& o) { return make_vgg("vgg16_bn", o); }},
      {"vgg19_bn", "vgg19 with batch norm", [](const ZooOptions& o) { return make_vgg("vgg19_bn", o); }},
      {"resnet18", "He et al. 2015, 18 weight layers", [](const ZooOptions& o) { return make_resnet("resnet18", o); }},
      {"resnet34", "34 weight layers", [](const ZooOptions& o) { return make_resnet("resnet34", o); }},
      {"resnet50", "50 weight layers, bottlenecks; resnet50:dilated=0,1,1 dilates layer3 and layer4",
       [](const ZooOptions& o) { return make_resnet("resnet50", o); }},
      {"resnet101", "101 weight layers", [](const ZooOptions& o) { return make_resnet("resnet101", o); }},
      {"resnet152", "152 weight layers", [](const ZooOptions& o) { return make_resnet("resnet152", o); }},
      {"wide_resnet50_2", "Zagoruyko & Komodakis 2016, resnet50 with twice the inner width",
       [](const ZooOptions& o) { return make_resnet("wide_resnet50_2", o); }},
      {"resnext50_32x4d", "Xie et al. 2016, resnet50 with 32 groups of 4",
       [](const ZooOptions& o) { return make_resnet("resnext50_32x4d", o); }},
      {"resnet20", "He et al. 2015, 20 weight layers for CIFAR's 32x32 images", make_resnet20},
      {"squeezenet1_0", "Iandola et al. 2016", [](const ZooOptions& o) { return make_squeezenet("squeezenet1_0", o); }},
      {"squeezenet1_1", "the same with less work",
       [](const ZooOptions& o) { return make_squeezenet("squeezenet1_1", o); }},
      {"googlenet", "Szegedy et al. 2014, with batch norm, without auxiliary heads", make_googlenet},
      {"mobilenet_v2", "Sandler et al. 2018", make_mobilenet_v2},
      {"context", "Yu & Koltun 2016, context network (basic) on maps of 21 classes", make_context},
      {"autoencoder", "Khozein's thesis, CIFAR images to 128x2x2 and back", make_autoencoder},
      {"encoder_decoder",
       "Zhang 2019, resnet18 and a decoder to one map for each class; encoder_decoder:classes=10,narrow=8 for smaller tasks",
       make_encoder_decoder},
      {"mlp", "fully connected with ReLU; mlp:2-16-16-2 names the layers' sizes", make_mlp},
  };
  return entries;
}

namespace {

// "0,1,1" behind "dilated="
std::array<bool, 3> parse_dilated(std::string_view model, std::string_view text) {
  const auto flag = [](char c) { return c == '0' || c == '1'; };
  if (text.size() != 5 || !flag(text[0]) || text[1] != ',' || !flag(text[2]) || text[3] != ',' || !flag(text[4]))
    throw Error(fmt::format("{}:dilated={} does not say 0 or 1 for each of three stages", model, printable(text)),
                fmt::format("{}:dilated=0,1,1 dilates layer3 and layer4, not layer2", model), true);
  return {text[0] == '1', text[2] == '1', text[4] == '1'};
}

// "classes=10,narrow=8,form=code" behind "encoder_decoder:"
void parse_encoder_decoder(std::string_view model, std::string_view text, ZooOptions& options) {
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    const std::string key = part.substr(0, equals), value = equals == part.npos ? "" : part.substr(equals + 1);
    int64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    const bool whole = error == std::errc() && end == value.data() + value.size();
    if (key == "classes" && whole && number >= 2 && number <= 100000)
      options.classes = number;
    else if (key == "narrow" && whole && (number == 1 || number == 2 || number == 4 || number == 8 || number == 16))
      options.divide_channels *= number;
    else if (key == "form" && (value == "paper" || value == "code"))
      options.published = value == "code";
    else
      throw Error(fmt::format("{}: '{}' says nothing of it", model, printable(part)),
                  fmt::format("{}:classes=N,narrow=1|2|4|8|16,form=paper|code", model), true);
  }
}

// What stands behind the colon of a model's name.
ZooOptions with_argument(std::string_view model, std::string_view argument, ZooOptions options) {
  constexpr std::string_view kDilated = "dilated=";
  if (model == "mlp") {
    options.sizes = parse_mlp_sizes(argument);
  } else if (model == "encoder_decoder") {
    parse_encoder_decoder(model, argument, options);
  } else if (model.find("resne") != model.npos && model != "resnet20" && argument.starts_with(kDilated)) {
    options.replace_stride_with_dilation = parse_dilated(model, argument.substr(kDilated.size()));
  } else {
    throw Error(fmt::format("{}:{} is no model", model, printable(argument)),
                "behind a colon: sizes as in mlp:2-16-16-2, a ResNet's dilation as in resnet50:dilated=0,1,1, or "
                "encoder_decoder:classes=10,narrow=8",
                true);
  }
  return options;
}

}  // namespace

std::string_view base_name(std::string_view model) { return model.substr(0, model.find(':')); }

Network make_network(std::string_view name, const ZooOptions& options) {
  const std::string_view base = base_name(name);
  std::vector<std::string> names;
  for (const ZooEntry& entry : zoo()) {
    if (base == entry.name && base == name) return entry.make(options);
    if (base == entry.name) {
      Network net = entry.make(with_argument(base, name.substr(base.size() + 1), options));
      if (base != "mlp") net.name = name;  // an mlp's is made of its sizes
      return net;
    }
    names.push_back(entry.name);
  }
  throw Error(fmt::format("there is no model '{}'", name), fmt::format("models: {}", fmt::join(names, ", ")), true);
}

}  // namespace switchback
