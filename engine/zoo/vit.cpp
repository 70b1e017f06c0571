// Vision transformer (Dosovitskiy et al. 2020) as in torchvision. Tokens are a map [C,1,T]: linear layers and norms act
// on each place, and only heads are moved. Its embeddings of positions fix the size of its input.
#include <cmath>

#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

constexpr float kVitEps = 1e-6f;

struct VitSize {
  std::string_view name;
  int64_t patch;
  int layers;
  int64_t heads, width, inner;  // inner: of the perceptrons
};
constexpr VitSize kVits[] = {{"vit_b_16", 16, 12, 12, 768, 3072},
                             {"vit_b_32", 32, 12, 12, 768, 3072},
                             {"vit_l_16", 16, 24, 16, 1024, 4096},
                             {"vit_l_32", 32, 24, 16, 1024, 4096},
                             {"vit_h_14", 14, 32, 16, 1280, 5120}};

// Queries, keys or values of all heads: [3·C,1,T] to [C/heads, heads, T].
int heads_of(Network& net, const std::string& name, int qkv, int which, int64_t tokens, int64_t heads, int64_t width) {
  net.add(name, Slice{.c = {which * width, (which + 1) * width}}, {qkv});
  return net.add(
      name + ".heads",
      Transpose{
          .sizes = {tokens, heads, width / heads}, .axes = {1, 0, 2}, .c = width / heads, .h = heads, .w = tokens});
}

void self_attention(Network& net, const std::string& name, int64_t tokens, int64_t heads, int64_t width) {
  const int qkv = net.add(name + ".in_proj", PlaceLinear{width, 3 * width});
  const int q = heads_of(net, name + ".q", qkv, 0, tokens, heads, width);
  const int k = heads_of(net, name + ".k", qkv, 1, tokens, heads, width);
  const int v = heads_of(net, name + ".v", qkv, 2, tokens, heads, width);
  net.add(name + ".attention", Attention{.scale = 1 / std::sqrt(float(width / heads)), .bias = {}}, {q, k, v});
  net.add(name + ".joined",
          Transpose{.sizes = {heads, tokens, width / heads}, .axes = {1, 0, 2}, .c = width, .h = 1, .w = tokens});
  net.add(name + ".out_proj", PlaceLinear{width, width});
}

}  // namespace

Network make_vit(std::string_view name, const ZooOptions& options) {
  const VitSize& v = variant_of(kVits, name);
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 1000;
  const int64_t side = options.side ? options.side : 224, width = v.width / d, inner = v.inner / d;
  CHECK(side % v.patch == 0, "{} takes images whose sides are multiples of {}, not {}", name, v.patch, side);
  const int64_t patches = (side / v.patch) * (side / v.patch), tokens = patches + 1;
  Network net(std::string(name), {1, 3, side, side});
  net.add("conv_proj", conv2d(3, width, v.patch, v.patch));
  net.add("reshape", Transpose{.sizes = {patches, width}, .axes = {0, 1}, .c = width, .h = 1, .w = patches});
  net.add("pad", Pad{.left = 1});
  net.add("class_token", Embedding{1, width});
  net.add("encoder.pos_embedding", Embedding{tokens, width});
  for (int i = 0; i < v.layers; ++i) {
    const std::string layer = fmt::format("encoder.layers.encoder_layer_{}", i);
    int input = net.output();
    net.add(layer + ".ln_1", LayerNorm{.c = width, .eps = kVitEps});
    self_attention(net, layer + ".self_attention", tokens, v.heads, width);
    input = net.add(layer + ".add", Add{}, {net.output(), input});
    net.add(layer + ".ln_2", LayerNorm{.c = width, .eps = kVitEps});
    perceptron(net, layer + ".mlp", width, inner);
    net.add(layer + ".add_1", Add{}, {net.output(), input});
  }
  net.add("encoder.ln", LayerNorm{.c = width, .eps = kVitEps});
  net.add("getitem", Slice{.w = {0, 1}});
  net.add("flatten", Flatten{});
  net.add("heads.head", Linear{width, classes});
  return net;
}

}  // namespace switchback
