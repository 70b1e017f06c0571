// RegNet X and Y (Radosavovic et al. 2020) as in torchvision. Y has squeeze-and-excitation.
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

// What the paper's parameters (w_0, w_a, w_m, depth) come to, once quantised.
struct RegNetSize {
  std::string_view name;
  bool squeeze;
  std::array<int, 4> depth;
  std::array<int64_t, 4> width;
  int64_t group;  // channels of one; never more than the stage has
};
constexpr RegNetSize kRegNets[] = {{"regnet_y_400mf", true, {1, 3, 6, 6}, {48, 104, 208, 440}, 8},
                                   {"regnet_y_800mf", true, {1, 3, 8, 2}, {64, 144, 320, 784}, 16},
                                   {"regnet_y_1_6gf", true, {2, 6, 17, 2}, {48, 120, 336, 888}, 24},
                                   {"regnet_y_3_2gf", true, {2, 5, 13, 1}, {72, 216, 576, 1512}, 24},
                                   {"regnet_y_8gf", true, {2, 4, 10, 1}, {224, 448, 896, 2016}, 56},
                                   {"regnet_y_16gf", true, {2, 4, 11, 1}, {224, 448, 1232, 3024}, 112},
                                   {"regnet_y_32gf", true, {2, 5, 12, 1}, {232, 696, 1392, 3712}, 232},
                                   {"regnet_y_128gf", true, {2, 7, 17, 1}, {528, 1056, 2904, 7392}, 264},
                                   {"regnet_x_400mf", false, {1, 2, 7, 12}, {32, 64, 160, 400}, 16},
                                   {"regnet_x_800mf", false, {1, 3, 7, 5}, {64, 128, 288, 672}, 16},
                                   {"regnet_x_1_6gf", false, {2, 4, 10, 2}, {72, 168, 408, 912}, 24},
                                   {"regnet_x_3_2gf", false, {2, 6, 15, 2}, {96, 192, 432, 1008}, 48},
                                   {"regnet_x_8gf", false, {2, 5, 15, 1}, {80, 240, 720, 1920}, 120},
                                   {"regnet_x_16gf", false, {2, 6, 13, 1}, {256, 512, 896, 2048}, 128},
                                   {"regnet_x_32gf", false, {2, 7, 13, 1}, {336, 672, 1344, 2520}, 168}};

// A bottleneck whose inner width is that of its output: 1x1, 3x3 in groups, squeeze-and-excitation to a quarter of what
// the block reads, 1x1; plus the input, projected where shapes differ.
void regnet_block(Network& net, const std::string& name, int64_t in, int64_t out, int64_t stride, const RegNetSize& v) {
  const int input = net.output();
  int shortcut = input;
  if (in != out || stride != 1) {
    const Conv2d projection = conv2d(in, out, 1, stride, 0, 1, 1, false);
    shortcut = conv_norm_activation(net, name + ".proj", projection, {}, 1e-5f, input);
  }
  conv_norm_activation(net, name + ".f.a", same_conv(in, out, 1), ReLU{}, 1e-5f, input);
  conv_norm_activation(net, name + ".f.b", same_conv(out, out, 3, stride, out / std::min(out, v.group)), ReLU{});
  if (v.squeeze) squeeze_excitation(net, name + ".f.se", out, in / 4, ReLU{}, sigmoid());
  const int body = conv_norm_activation(net, name + ".f.c", same_conv(out, out, 1), {});
  net.add(name + ".add", Add{}, {shortcut, body});
  net.add(name + ".activation", ReLU{});
}

}  // namespace

Network make_regnet(std::string_view name, const ZooOptions& options) {
  const RegNetSize& v = variant_of(kRegNets, name);
  const int64_t classes = options.classes ? options.classes : 1000;
  const int64_t side = name == "regnet_y_128gf" ? 384 : 224;  // the largest one has weights for that size alone
  Network net(std::string(name), {1, 3, side, side});
  int64_t channels = 32;
  conv_norm_activation(net, "stem", same_conv(3, channels, 3, 2), ReLU{});
  for (size_t stage = 0; stage < 4; ++stage)
    for (int i = 0; i < v.depth[stage]; ++i) {
      regnet_block(net, fmt::format("trunk_output.block{}.block{}-{}", stage + 1, stage + 1, i), channels,
                   v.width[stage], i == 0 ? 2 : 1, v);
      channels = v.width[stage];
    }
  pooled_vector(net);
  net.add("fc", Linear{channels, classes});
  return divided(net, options.divide_channels, classes);
}

}  // namespace switchback
