// EfficientNet (Tan and Le 2019) and EfficientNetV2 (Tan and Le 2021) as in torchvision. Stochastic depth is the
// identity at inference, and no layer here.
#include <cmath>

#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

struct EfficientStage {
  bool fused;  // of the second paper: expansion and convolution as one, without squeeze-and-excitation
  int64_t expand, kernel, stride, in, out;
  int blocks;
};
// Table 1 of the first paper.
constexpr EfficientStage kEfficientB0[] = {{false, 1, 3, 1, 32, 16, 1},  {false, 6, 3, 2, 16, 24, 2},
                                           {false, 6, 5, 2, 24, 40, 2},  {false, 6, 3, 2, 40, 80, 3},
                                           {false, 6, 5, 1, 80, 112, 3}, {false, 6, 5, 2, 112, 192, 4},
                                           {false, 6, 3, 1, 192, 320, 1}};
// Table 4 of the second one.
constexpr EfficientStage kEfficientV2S[] = {{true, 1, 3, 1, 24, 24, 2},    {true, 4, 3, 2, 24, 48, 4},
                                            {true, 4, 3, 2, 48, 64, 4},    {false, 4, 3, 2, 64, 128, 6},
                                            {false, 6, 3, 1, 128, 160, 9}, {false, 6, 3, 2, 160, 256, 15}};
constexpr EfficientStage kEfficientV2M[] = {{true, 1, 3, 1, 24, 24, 3},     {true, 4, 3, 2, 24, 48, 5},
                                            {true, 4, 3, 2, 48, 80, 5},     {false, 4, 3, 2, 80, 160, 7},
                                            {false, 6, 3, 1, 160, 176, 14}, {false, 6, 3, 2, 176, 304, 18},
                                            {false, 6, 3, 1, 304, 512, 5}};
constexpr EfficientStage kEfficientV2L[] = {{true, 1, 3, 1, 32, 32, 4},     {true, 4, 3, 2, 32, 64, 7},
                                            {true, 4, 3, 2, 64, 96, 7},     {false, 4, 3, 2, 96, 192, 10},
                                            {false, 6, 3, 1, 192, 224, 19}, {false, 6, 3, 2, 224, 384, 25},
                                            {false, 6, 3, 1, 384, 640, 7}};

struct EfficientNetSize {
  std::string_view name;
  std::span<const EfficientStage> stages;
  double width, depth;  // by which B0's are scaled
  float dropout, eps;
  int64_t side, last;  // last: channels of the last convolution, 0: four times those before it
};
const EfficientNetSize kEfficientNets[] = {{"efficientnet_b0", kEfficientB0, 1, 1, 0.2f, 1e-5f, 224, 0},
                                           {"efficientnet_b1", kEfficientB0, 1, 1.1, 0.2f, 1e-5f, 240, 0},
                                           {"efficientnet_b2", kEfficientB0, 1.1, 1.2, 0.3f, 1e-5f, 288, 0},
                                           {"efficientnet_b3", kEfficientB0, 1.2, 1.4, 0.3f, 1e-5f, 300, 0},
                                           {"efficientnet_b4", kEfficientB0, 1.4, 1.8, 0.4f, 1e-5f, 380, 0},
                                           {"efficientnet_b5", kEfficientB0, 1.6, 2.2, 0.4f, 1e-3f, 456, 0},
                                           {"efficientnet_b6", kEfficientB0, 1.8, 2.6, 0.5f, 1e-3f, 528, 0},
                                           {"efficientnet_b7", kEfficientB0, 2, 3.1, 0.5f, 1e-3f, 600, 0},
                                           {"efficientnet_v2_s", kEfficientV2S, 1, 1, 0.2f, 1e-3f, 384, 1280},
                                           {"efficientnet_v2_m", kEfficientV2M, 1, 1, 0.3f, 1e-3f, 480, 1280},
                                           {"efficientnet_v2_l", kEfficientV2L, 1, 1, 0.4f, 1e-3f, 480, 1280}};

void fused_block(Network& net, const std::string& name, int64_t in, int64_t out, const EfficientStage& s,
                 int64_t stride, float eps) {
  const int input = net.output();
  if (s.expand == 1) {
    conv_norm_activation(net, name + ".block.0", same_conv(in, out, s.kernel, stride), silu(), eps);
  } else {
    const int64_t expanded = make_divisible(double(in * s.expand), 8);
    conv_norm_activation(net, name + ".block.0", same_conv(in, expanded, s.kernel, stride), silu(), eps);
    conv_norm_activation(net, name + ".block.1", same_conv(expanded, out, 1), {}, eps);
  }
  if (stride == 1 && in == out) net.add(name + ".add", Add{}, {net.output(), input});
}

}  // namespace

Network make_efficientnet(std::string_view name, const ZooOptions& options) {
  const EfficientNetSize& v = variant_of(kEfficientNets, name);
  const int64_t classes = options.classes ? options.classes : 1000;
  const auto width = [&](int64_t channels) { return make_divisible(double(channels) * v.width, 8); };
  Network net(std::string(name), {1, 3, v.side, v.side});
  int64_t channels = width(v.stages[0].in);
  int at = 0;
  conv_norm_activation(net, fmt::format("features.{}", at++), same_conv(3, channels, 3, 2), silu(), v.eps);
  for (const EfficientStage& s : v.stages) {
    const int blocks = int(std::ceil(double(s.blocks) * v.depth));
    for (int i = 0; i < blocks; ++i) {
      const std::string block = fmt::format("features.{}.{}", at, i);
      const int64_t out = width(s.out), stride = i == 0 ? s.stride : 1;
      if (s.fused) {
        fused_block(net, block, channels, out, s, stride, v.eps);
      } else {
        const InvertedResidual b{.in = channels,
                                 .expanded = make_divisible(double(channels * s.expand), 8),
                                 .out = out,
                                 .kernel = s.kernel,
                                 .stride = stride,
                                 .squeezed = std::max<int64_t>(1, channels / 4)};
        inverted_residual(net, block, block + ".block", b, silu(), silu(), sigmoid(), v.eps);
      }
      channels = out;
    }
    ++at;
  }
  const int64_t last = v.last ? v.last : 4 * channels;
  conv_norm_activation(net, fmt::format("features.{}", at), same_conv(channels, last, 1), silu(), v.eps);
  pooled_vector(net);
  net.add("classifier.0", Dropout{v.dropout});
  net.add("classifier.1", Linear{last, classes});
  return divided(net, options.divide_channels, classes);
}

}  // namespace switchback
