// ShuffleNet V2 (Ma et al. 2018) as in torchvision.
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

struct ShuffleNetSize {
  std::string_view name;
  std::array<int64_t, 4> channels;  // of stage2, stage3, stage4 and conv5
};
constexpr ShuffleNetSize kShuffleNets[] = {{"shufflenet_v2_x0_5", {48, 96, 192, 1024}},
                                           {"shufflenet_v2_x1_0", {116, 232, 464, 1024}},
                                           {"shufflenet_v2_x1_5", {176, 352, 704, 1024}},
                                           {"shufflenet_v2_x2_0", {244, 488, 976, 2048}}};

// Layers of a branch: NAME.0, NAME.1 and so on.
struct ShuffleBranch {
  Network& net;
  std::string name;
  int input, at = 0;
  void add(Layer layer) { input = net.add(fmt::format("{}.{}", name, at++), std::move(layer), {input}); }
  void conv_norm(const Conv2d& conv, bool relu) {
    add(conv);
    add(BatchNorm2d{conv.out_channels});
    if (relu) add(ReLU{});
  }
};

// Figure 3 of the paper: one half of the channels stays as it is (c); where the map is halved both branches read all
// (d).
void shuffle_block(Network& net, const std::string& name, int64_t in, int64_t out, int64_t stride) {
  const int input = net.output();
  const int64_t half = out / 2;
  ShuffleBranch first{net, name + ".branch1", input}, second{net, name + ".branch2", input};
  if (stride > 1) {
    first.conv_norm(depthwise(in, 3, stride), false);
    first.conv_norm(same_conv(in, half, 1), true);
  } else {
    first.input = net.add(name + ".chunk", Slice{.c = {0, half}}, {input});
    second.input = net.add(name + ".chunk_1", Slice{.c = {half, out}}, {input});
  }
  second.conv_norm(same_conv(stride > 1 ? in : half, half, 1), true);
  second.conv_norm(depthwise(half, 3, stride), false);
  second.conv_norm(same_conv(half, half, 1), true);
  net.add(name + ".cat", Concat{}, {first.input, second.input});
  net.add(name + ".channel_shuffle", ChannelShuffle{2});
}

}  // namespace

Network make_shufflenet(std::string_view name, const ZooOptions& options) {
  const ShuffleNetSize& v = variant_of(kShuffleNets, name);
  const int64_t classes = options.classes ? options.classes : 1000;
  constexpr int kBlocks[] = {4, 8, 4};
  Network net(std::string(name), {1, 3, 224, 224});
  int64_t channels = 24;
  conv_norm_activation(net, "conv1", same_conv(3, channels, 3, 2), ReLU{});
  net.add("maxpool", max_pool2d(3, 2, 1));
  for (size_t stage = 0; stage < 3; ++stage)
    for (int i = 0; i < kBlocks[stage]; ++i) {
      shuffle_block(net, fmt::format("stage{}.{}", stage + 2, i), channels, v.channels[stage], i == 0 ? 2 : 1);
      channels = v.channels[stage];
    }
  conv_norm_activation(net, "conv5", same_conv(channels, v.channels[3], 1), ReLU{});
  net.add("mean", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{v.channels[3], classes});
  return divided(net, options.divide_channels, classes);
}

}  // namespace switchback
