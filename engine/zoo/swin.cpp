// Swin Transformer (Liu et al. 2021) and Swin V2 (Liu et al. 2022) as in torchvision. Windows are made by one
// transposition of queries, keys and values each. Their number fixes the size of the input.
#include <cmath>

#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

struct SwinSize {
  std::string_view name;
  std::array<int, 4> depth;
  int64_t width;  // of the first stage; each further one has twice that of the one before
  std::array<int64_t, 4> heads;
  bool second;  // V2: norms behind, cosine attention, continuous biases
};
constexpr SwinSize kSwins[] = {
    {"swin_t", {2, 2, 6, 2}, 96, {3, 6, 12, 24}, false},    {"swin_s", {2, 2, 18, 2}, 96, {3, 6, 12, 24}, false},
    {"swin_b", {2, 2, 18, 2}, 128, {4, 8, 16, 32}, false},  {"swin_v2_t", {2, 2, 6, 2}, 96, {3, 6, 12, 24}, true},
    {"swin_v2_s", {2, 2, 18, 2}, 96, {3, 6, 12, 24}, true}, {"swin_v2_b", {2, 2, 18, 2}, 128, {4, 8, 16, 32}, true}};

int64_t missing_to(int64_t size, int64_t multiple) { return (multiple - size % multiple) % multiple; }

// x / max(|x|, 1e-12) along the channels of every place (torch.nn.functional.normalize).
int unit_length(Network& net, const std::string& name, int x) {
  net.add(name + ".square", Binary{BinaryFunction::mul}, {x, x});
  net.add(name + ".sum", Reduce{.c = true, .mean = false});
  net.add(name + ".norm", Smooth{SmoothFunction::sqrt});
  net.add(name + ".clamp_min", Clip{1e-12f, std::numeric_limits<float>::max()});
  return net.add(name + ".div", Binary{BinaryFunction::div}, {x, net.output()});
}

struct SwinStage {
  bool second;
  int64_t window, h, w, channels, heads;  // h, w: of its map
};

void window_attention(Network& net, const std::string& name, const SwinStage& s, bool shifted) {
  const int64_t bottom = missing_to(s.h, s.window), right = missing_to(s.w, s.window);
  if (bottom + right > 0) net.add(name + ".pad", Pad{.bottom = bottom, .right = right});
  const int64_t rows = (s.h + bottom) / s.window, columns = (s.w + right) / s.window, each = s.channels / s.heads;
  // A window as large as the map is not shifted.
  const int64_t shift_h = shifted && rows > 1 ? s.window / 2 : 0, shift_w = shifted && columns > 1 ? s.window / 2 : 0;
  if (shift_h + shift_w > 0) net.add(name + ".roll", Roll{-shift_h, -shift_w});
  PlaceLinear project{s.channels, 3 * s.channels};
  if (s.second) project.silent_begin = s.channels, project.silent_end = 2 * s.channels;
  const int qkv = net.add(name + ".qkv", project);
  const auto windows = [&](const char* part, int64_t which) {
    const std::string node = name + part;
    net.add(node, Slice{.c = {which * s.channels, (which + 1) * s.channels}}, {qkv});
    return net.add(node + ".windows", Transpose{.sizes = {rows, s.window, columns, s.window, s.heads, each},
                                                .axes = {0, 2, 4, 1, 3, 5},
                                                .c = each,
                                                .h = rows * columns * s.heads,
                                                .w = s.window * s.window});
  };
  int q = windows(".q", 0), k = windows(".k", 1);
  const int v = windows(".v", 2);
  if (s.second) {
    unit_length(net, name + ".normalize_q", q);
    q = net.add(name + ".logit_scale", HeadScale{s.heads});
    k = unit_length(net, name + ".normalize_k", k);
  }
  net.add(name,
          WindowAttention{.window = s.window,
                          .heads = s.heads,
                          .rows = rows,
                          .columns = columns,
                          .shift_h = shift_h,
                          .shift_w = shift_w,
                          .scale = s.second ? 1.f : 1 / std::sqrt(float(each)),
                          .continuous = s.second},
          {q, k, v});
  net.add(name + ".joined", Transpose{.sizes = {rows, columns, s.heads, s.window, s.window, each},
                                      .axes = {0, 3, 1, 4, 2, 5},
                                      .c = s.channels,
                                      .h = rows * s.window,
                                      .w = columns * s.window});
  net.add(name + ".proj", PlaceLinear{s.channels, s.channels});
  if (shift_h + shift_w > 0) net.add(name + ".roll_1", Roll{shift_h, shift_w});
  if (bottom + right > 0) net.add(name + ".getitem", Slice{.h = {0, s.h}, .w = {0, s.w}});
}

void swin_block(Network& net, const std::string& name, const SwinStage& s, bool shifted) {
  const auto norm = [&](const char* which) { net.add(name + which, LayerNorm{.c = s.channels}); };
  int input = net.output();
  if (!s.second) norm(".norm1");
  window_attention(net, name + ".attn", s, shifted);
  if (s.second) norm(".norm1");
  input = net.add(name + ".add", Add{}, {net.output(), input});
  if (!s.second) norm(".norm2");
  perceptron(net, name + ".mlp", s.channels, 4 * s.channels);
  if (s.second) norm(".norm2");
  net.add(name + ".add_1", Add{}, {net.output(), input});
}

// Patch merging: four neighbours become one place of four times the channels, column by column, and then of twice.
void merge_patches(Network& net, const std::string& name, SwinStage& s) {
  const int64_t bottom = missing_to(s.h, 2), right = missing_to(s.w, 2), c = s.channels;
  if (bottom + right > 0) net.add(name + ".pad", Pad{.bottom = bottom, .right = right});
  s.h = (s.h + bottom) / 2, s.w = (s.w + right) / 2, s.channels = 2 * c;
  net.add(name + ".cat",
          Transpose{.sizes = {s.h, 2, s.w, 2, c}, .axes = {0, 2, 3, 1, 4}, .c = 4 * c, .h = s.h, .w = s.w});
  if (!s.second) net.add(name + ".norm", LayerNorm{.c = 4 * c});
  net.add(name + ".reduction", PlaceLinear{4 * c, 2 * c, false});
  if (s.second) net.add(name + ".norm", LayerNorm{.c = 2 * c});
}

}  // namespace

Network make_swin(std::string_view name, const ZooOptions& options) {
  constexpr int64_t kPatch = 4;
  const SwinSize& v = variant_of(kSwins, name);
  const int64_t classes = options.classes ? options.classes : 1000, side = options.side ? options.side
                                                                           : v.second   ? 256
                                                                                        : 224;
  SwinStage s{.second = v.second,
              .window = v.second ? 8 : 7,
              .h = side / kPatch,
              .w = side / kPatch,
              .channels = v.width / options.divide_channels,
              .heads = 0};
  Network net(std::string(name), {1, 3, side, side});
  net.add("features.0.0", conv2d(3, s.channels, kPatch, kPatch));
  net.add("features.0.2", LayerNorm{.c = s.channels});
  for (size_t stage = 0; stage < 4; ++stage) {
    s.heads = v.heads[stage];
    for (int i = 0; i < v.depth[stage]; ++i)
      swin_block(net, fmt::format("features.{}.{}", 2 * stage + 1, i), s, i % 2 == 1);
    if (stage < 3) merge_patches(net, fmt::format("features.{}", 2 * stage + 2), s);
  }
  net.add("norm", LayerNorm{.c = s.channels});
  pooled_vector(net);
  net.add("head", Linear{s.channels, classes});
  return net;
}

}  // namespace switchback
