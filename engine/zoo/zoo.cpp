#include "engine/zoo/zoo.h"

#include <fmt/ranges.h>

#include <charconv>

#include "engine/files/files.h"
#include "engine/text.h"

namespace switchback {

namespace {

// Of a family of one.
template <Network (*make)(const ZooOptions&)>
Network only(std::string_view, const ZooOptions& options) {
  return make(options);
}

}  // namespace

// The rows are the registration: a new model is one file in engine/zoo/ and one row here.
const std::vector<ZooEntry>& zoo() {
  static const std::vector<ZooEntry> entries{
      {"alexnet", "Krizhevsky 2014, one tower", only<make_alexnet>, "Plain"},
      {"caffenet", "Krizhevsky et al. 2012: the original AlexNet with groups and LRN, in Caffe's layout",
       only<make_caffenet>},
      {"vgg11", "Simonyan & Zisserman 2014, 11 weight layers", make_vgg},
      {"vgg13", "13 weight layers", make_vgg},
      {"vgg16", "16 weight layers", make_vgg},
      {"vgg19", "19 weight layers", make_vgg},
      {"vgg11_bn", "vgg11 with batch norm", make_vgg},
      {"vgg13_bn", "vgg13 with batch norm", make_vgg},
      {"vgg16_bn", "vgg16 with batch norm", make_vgg},
      {"vgg19_bn", "vgg19 with batch norm", make_vgg},
      {"resnet18", "He et al. 2015, 18 weight layers", make_resnet, "Residual"},
      {"resnet34", "34 weight layers", make_resnet},
      {"resnet50", "50 weight layers, bottlenecks; resnet50:dilated=0,1,1 dilates layer3 and layer4", make_resnet},
      {"resnet101", "101 weight layers", make_resnet},
      {"resnet152", "152 weight layers", make_resnet},
      {"wide_resnet50_2", "Zagoruyko & Komodakis 2016, resnet50 with twice the inner width", make_resnet},
      {"resnext50_32x4d", "Xie et al. 2016, resnet50 with 32 groups of 4", make_resnet},
      {"resnet20", "He et al. 2015, 20 weight layers for CIFAR's 32x32 images", only<make_resnet20>},
      {"googlenet", "Szegedy et al. 2014, with batch norm, without auxiliary heads", only<make_googlenet>,
       "Concatenating"},
      {"densenet121", "Huang et al. 2017, 121 weight layers", make_densenet},
      {"densenet161", "161 weight layers", make_densenet},
      {"densenet169", "169 weight layers", make_densenet},
      {"densenet201", "201 weight layers", make_densenet},
      {"inception_v3", "Szegedy et al. 2016, without the auxiliary head", only<make_inception_v3>},
      {"squeezenet1_0", "Iandola et al. 2016", make_squeezenet, "Small"},
      {"squeezenet1_1", "the same with less work", make_squeezenet},
      {"mobilenet_v2", "Sandler et al. 2018", only<make_mobilenet_v2>},
      {"mnasnet0_5", "Tan et al. 2019, half the width", make_mnasnet},
      {"mnasnet0_75", "three quarters of the width", make_mnasnet},
      {"mnasnet1_0", "the whole width", make_mnasnet},
      {"mnasnet1_3", "1.3 times the width", make_mnasnet},
      {"mobilenet_v3_small", "Howard et al. 2019", make_mobilenet_v3},
      {"mobilenet_v3_large", "the larger one", make_mobilenet_v3},
      {"shufflenet_v2_x0_5", "Ma et al. 2018, half the width", make_shufflenet},
      {"shufflenet_v2_x1_0", "the whole width", make_shufflenet},
      {"shufflenet_v2_x1_5", "1.5 times the width", make_shufflenet},
      {"shufflenet_v2_x2_0", "twice the width", make_shufflenet},
      {"efficientnet_b0", "Tan & Le 2019", make_efficientnet, "EfficientNets"},
      {"efficientnet_b1", "scaled 1 times", make_efficientnet},
      {"efficientnet_b2", "scaled 2 times", make_efficientnet},
      {"efficientnet_b3", "scaled 3 times", make_efficientnet},
      {"efficientnet_b4", "scaled 4 times", make_efficientnet},
      {"efficientnet_b5", "scaled 5 times", make_efficientnet},
      {"efficientnet_b6", "scaled 6 times", make_efficientnet},
      {"efficientnet_b7", "scaled 7 times", make_efficientnet},
      {"efficientnet_v2_s", "Tan & Le 2021", make_efficientnet},
      {"efficientnet_v2_m", "the middle one", make_efficientnet},
      {"efficientnet_v2_l", "the large one", make_efficientnet},
      {"regnet_y_400mf", "Radosavovic et al. 2020, with squeeze-and-excitation, 400 million multiply-adds", make_regnet,
       "RegNets"},
      {"regnet_y_800mf", "800 million multiply-adds", make_regnet},
      {"regnet_y_1_6gf", "1.6 billion multiply-adds", make_regnet},
      {"regnet_y_3_2gf", "3.2 billion multiply-adds", make_regnet},
      {"regnet_y_8gf", "8 billion multiply-adds", make_regnet},
      {"regnet_y_16gf", "16 billion multiply-adds", make_regnet},
      {"regnet_y_32gf", "32 billion multiply-adds", make_regnet},
      {"regnet_y_128gf", "128 billion multiply-adds", make_regnet},
      {"regnet_x_400mf", "the same without, 400 million multiply-adds", make_regnet},
      {"regnet_x_800mf", "800 million multiply-adds", make_regnet},
      {"regnet_x_1_6gf", "1.6 billion multiply-adds", make_regnet},
      {"regnet_x_3_2gf", "3.2 billion multiply-adds", make_regnet},
      {"regnet_x_8gf", "8 billion multiply-adds", make_regnet},
      {"regnet_x_16gf", "16 billion multiply-adds", make_regnet},
      {"regnet_x_32gf", "32 billion multiply-adds", make_regnet},
      {"convnext_tiny", "Liu et al. 2022", make_convnext, "ConvNeXts"},
      {"convnext_small", "three times as deep in the third stage", make_convnext},
      {"convnext_base", "wider", make_convnext},
      {"convnext_large", "wider still", make_convnext},
      {"vit_b_16", "Dosovitskiy et al. 2020, base, patches of 16x16", make_vit, "Transformers"},
      {"vit_b_32", "base, patches of 32x32", make_vit},
      {"vit_l_16", "large, patches of 16x16", make_vit},
      {"vit_l_32", "large, patches of 32x32", make_vit},
      {"vit_h_14", "huge, patches of 14x14", make_vit},
      {"swin_t", "Liu et al. 2021, tiny", make_swin},
      {"swin_s", "small", make_swin},
      {"swin_b", "base", make_swin},
      {"swin_v2_t", "Liu et al. 2022, tiny", make_swin},
      {"swin_v2_s", "small", make_swin},
      {"swin_v2_b", "base", make_swin},
      {"fcn_resnet50", "Long et al. 2015, on a dilated resnet50: 21 classes of Pascal VOC at every place",
       make_segmentation, "Segmentation"},
      {"fcn_resnet101", "on resnet101", make_segmentation},
      {"deeplabv3_resnet50", "Chen et al. 2017, on a dilated resnet50", make_segmentation},
      {"deeplabv3_resnet101", "on resnet101", make_segmentation},
      {"lraspp_mobilenet_v3_large", "Howard et al. 2019, on mobilenet_v3_large", only<make_lraspp>},
      {"context", "Yu & Koltun 2016, context network (basic) on maps of 21 classes", only<make_context>},
      {"lenet", "LeCun et al. 1998, as 28x28 grey digits with ReLU", only<make_lenet>, "Others"},
      {"autoencoder", "Khozein's thesis, CIFAR images to 128x2x2 and back", only<make_autoencoder>},
      {"encoder_decoder",
       "Zhang 2019, resnet18 and a decoder to one map for each class; encoder_decoder:classes=10,narrow=8 for smaller tasks",
       only<make_encoder_decoder>},
      {"mlp", "fully connected with ReLU; mlp:2-16-16-2 names the layers' sizes", only<make_mlp>},
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
  if (head_function(fmt::format("{}:{}", model, argument))) {
    // of weights that are still to come
  } else if (model == "mlp") {
    options.sizes = parse_mlp_sizes(argument);
  } else if (model == "encoder_decoder") {
    parse_encoder_decoder(model, argument, options);
  } else if (model.find("resne") != model.npos && model != "resnet20" && argument.starts_with(kDilated)) {
    options.replace_stride_with_dilation = parse_dilated(model, argument.substr(kDilated.size()));
  } else {
    throw Error(fmt::format("{}:{} is no model", model, printable(argument)),
                "behind a colon: sizes as in mlp:2-16-16-2, a ResNet's dilation as in resnet50:dilated=0,1,1, "
                "encoder_decoder:classes=10,narrow=8, or the function in a head of one's own as in resnet18:head=relu",
                true);
  }
  return options;
}

}  // namespace

std::optional<Layer> head_function(std::string_view model) {
  constexpr std::string_view kHead = ":head=";
  const size_t at = model.find(kHead);
  if (at == model.npos) return {};
  const std::string_view name = model.substr(at + kHead.size());
  if (name == "none") return Dropout{};
  if (name == "relu") return ReLU{};
  for (const auto& [known, function] : {std::pair{"gelu", SmoothFunction::gelu}, {"tanh", SmoothFunction::tanh},
                                        {"silu", SmoothFunction::silu}, {"hardswish", SmoothFunction::hardswish}})
    if (name == known) return Smooth{function};
  throw Error(fmt::format("{}: there is no function '{}'", model.substr(0, at), printable(name)),
              "head=relu, gelu, tanh, silu, hardswish or none", true);
}

std::string_view base_name(std::string_view model) { return model.substr(0, model.find(':')); }

Network make_network(std::string_view name, const ZooOptions& options) {
  const std::string_view base = base_name(name);
  std::vector<std::string> names;
  for (const ZooEntry& entry : zoo()) {
    if (base == entry.name && base == name) return entry.make(entry.name, options);
    if (base == entry.name) {
      Network net = entry.make(entry.name, with_argument(base, name.substr(base.size() + 1), options));
      if (base != "mlp") net.name = name;  // an mlp's is made of its sizes
      return net;
    }
    names.push_back(entry.name);
  }
  throw Error(fmt::format("there is no model '{}'", name), fmt::format("models: {}", fmt::join(names, ", ")), true);
}

}  // namespace switchback
