// A small network with every layer of transformers that has parameters: windows of 3x3 of a shifted 6x6 map, two heads,
// biases of places as Swin has them or (`continuous`) Swin V2, then tokens with a class token.
#pragma once

#include <array>

#include "tests/support/net.h"

namespace switchback::test {

inline Net token_network(bool continuous) {
  constexpr int64_t kChannels = 8, kHeads = 2, kEach = 4, kWindow = 3;
  Net net("tokens with parameters", {1, 3, 6, 6});
  const int embed = net.add("embed", conv2d(3, kChannels, 1));
  net.add("roll", Roll{-1, -1});
  const int qkv = net.add("qkv", PlaceLinear{kChannels, 3 * kChannels, true, kChannels, 2 * kChannels});
  std::array<int, 3> of{};
  for (int64_t i = 0; i < 3; ++i) {
    const std::string name(1, "qkv"[i]);
    net.add(name, Slice{.c = {kChannels * i, kChannels * (i + 1)}}, {qkv});
    of[size_t(i)] = net.add(
        name + "_windows",
        Transpose{{2, kWindow, 2, kWindow, kHeads, kEach}, {0, 2, 4, 1, 3, 5}, kEach, 4 * kHeads, kWindow * kWindow});
  }
  of[0] = net.add("attn.logit_scale", HeadScale{kHeads}, {of[0]});
  net.add("attn",
          WindowAttention{.window = kWindow,
                          .heads = kHeads,
                          .rows = 2,
                          .columns = 2,
                          .shift_h = 1,
                          .shift_w = 1,
                          .scale = 0.125f,
                          .continuous = continuous},
          {of[0], of[1], of[2]});
  net.add("joined", Transpose{{2, 2, kHeads, kWindow, kWindow, kEach}, {0, 3, 1, 4, 2, 5}, kChannels, 6, 6});
  net.add("proj", PlaceLinear{kChannels, kChannels});
  net.add("gelu", Smooth{SmoothFunction::gelu});
  net.add("back", Roll{1, 1});
  net.add("gamma", LayerScale{kChannels});
  net.add("sum", Add{}, {net.output(), embed});
  net.add("half", AvgPool2d{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2});
  const int larger = net.add("larger", ResizeLike{}, {net.output(), embed});
  net.add("tokens", Transpose{{36, kChannels}, {0, 1}, kChannels, 1, 36}, {larger});
  net.add("pad", Pad{.left = 1});
  net.add("class_token", Embedding{1, kChannels});
  net.add("position", Embedding{37, kChannels});
  net.add("some", Slice{.w = {0, 6}});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{6 * kChannels, 4});
  net.weights = random_weights(net, 12);
  return net;
}

}  // namespace switchback::test
