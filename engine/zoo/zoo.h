// The built-in architectures, with torchvision's names for parameters and nodes. A new model = one file in engine/zoo/
// and one row in zoo.cpp.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/network.h"

namespace switchback {

class StateDict;

struct ZooOptions {
  int64_t divide_channels = 1;      // 8 gives the small copies that tests use; heads of 4096 and groups shrink likewise
  int64_t classes = 0;              // 0: the architecture's own (1000, lenet 10)
  std::vector<int64_t> sizes = {};  // mlp: of its input, its hidden layers and its output; empty: 2-20-2
  int64_t side = 0;  // of the input, where the network depends on it: caffenet (0: 227), ViTs, Swins (0: torchvision's)
  bool published = false;  // encoder_decoder: as in its author's program, not as in the paper
  // resnet50 and deeper, of layer2, layer3, layer4: dilated by two instead of halving the map, as in torchvision.
  std::array<bool, 3> replace_stride_with_dilation = {};
};

struct ZooEntry {
  const char* name;
  const char* about;  // "Simonyan & Zisserman 2014, 16 weight layers"
  Network (*make)(std::string_view name, const ZooOptions&);
  const char* heading = nullptr;  // of the rows from here on, in lists
};
const std::vector<ZooEntry>& zoo();

// Parameters are not set. Throws naming the valid names. Behind a colon stands what some of them take:
// "mlp:2-16-16-2" is an mlp of these sizes, "resnet50:dilated=0,1,1" has replace_stride_with_dilation,
// "encoder_decoder:classes=10,narrow=8,form=code" divides its channels by 8.
Network make_network(std::string_view name, const ZooOptions& options = {});
// resnet18:head=relu: the function between the linear layers of a head that the weights' file has in the network's place (fit.h);
// a Dropout for "none". Nothing where the name does not say it.
std::optional<Layer> head_function(std::string_view model);
// The name before the colon: whose weights a network takes.
std::string_view base_name(std::string_view model);

Network make_lenet(const ZooOptions& options);
Network make_alexnet(const ZooOptions& options);
Network make_caffenet(const ZooOptions& options);
Network make_vgg(std::string_view name, const ZooOptions& options);          // vgg11 … vgg19_bn
Network make_resnet(std::string_view name, const ZooOptions& options);       // resnet18 … resnext50_32x4d
Network make_resnet_body(std::string_view name, const ZooOptions& options);  // without the pooling and the classifier
Network make_resnet20(const ZooOptions& options);
Network make_squeezenet(std::string_view name, const ZooOptions& options);   // squeezenet1_0, squeezenet1_1
Network make_googlenet(const ZooOptions& options);
Network make_mobilenet_v2(const ZooOptions& options);
Network make_mobilenet_v3(std::string_view name, const ZooOptions& options);  // mobilenet_v3_small, mobilenet_v3_large
Network make_densenet(std::string_view name, const ZooOptions& options);      // densenet121 … densenet201
Network make_inception_v3(const ZooOptions& options);
Network make_mnasnet(std::string_view name, const ZooOptions& options);     // mnasnet0_5 … mnasnet1_3
Network make_shufflenet(std::string_view name, const ZooOptions& options);  // shufflenet_v2_x0_5 … shufflenet_v2_x2_0
Network make_efficientnet(std::string_view name, const ZooOptions& options);  // efficientnet_b0 … efficientnet_v2_l
Network make_regnet(std::string_view name, const ZooOptions& options);        // regnet_y_400mf … regnet_x_32gf
Network make_convnext(std::string_view name, const ZooOptions& options);      // convnext_tiny … convnext_large
Network make_vit(std::string_view name, const ZooOptions& options);           // vit_b_16 … vit_h_14
Network make_swin(std::string_view name, const ZooOptions& options);          // swin_t … swin_v2_b
Network make_segmentation(std::string_view name, const ZooOptions& options);  // fcn_resnet50 … deeplabv3_resnet101
Network make_lraspp(const ZooOptions& options);
Network make_context(const ZooOptions& options);
Network make_autoencoder(const ZooOptions& options);
Network make_encoder_decoder(const ZooOptions& options);
Network make_mlp(const ZooOptions& options);

std::vector<int64_t> parse_mlp_sizes(std::string_view text);  // "2-16-16-2"; throws (usage) on anything else
std::vector<int64_t> mlp_sizes(const StateDict& file);        // from the shapes of its weights

}  // namespace switchback
