// Inception v3 (Szegedy et al. 2016) as in torchvision, without the head that only helps training. It begins with
// torchvision's transform_input, which published weights want (see googlenet.cpp).
#include "engine/zoo/blocks.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

constexpr float kInceptionEps = 1e-3f;  // of all its batch norms

// h x w, with what keeps the map's size around it, or of stride 2 without.
Conv2d hw_conv(int64_t in, int64_t out, int64_t h, int64_t w) {
  return {.in_channels = in,
          .out_channels = out,
          .kernel_h = h,
          .kernel_w = w,
          .pad_top = h / 2,
          .pad_left = w / 2,
          .pad_bottom = h / 2,
          .pad_right = w / 2,
          .has_bias = false};
}
Conv2d halving_conv(int64_t in, int64_t out) { return conv2d(in, out, 3, 2, 0, 1, 1, false); }

// One branch of a module: layers in a row.
struct InceptionBranch {
  Network& net;
  std::string module;
  int at;
  InceptionBranch& then(const char* name, const Conv2d& layer) {
    at = conv_bn_relu(net, module + "." + name, layer, kInceptionEps, at);
    return *this;
  }
  InceptionBranch& mean() {
    at = net.add(module + ".avg_pool2d",
                 AvgPool2d{.kernel_h = 3,
                           .kernel_w = 3,
                           .stride_h = 1,
                           .stride_w = 1,
                           .pad_top = 1,
                           .pad_left = 1,
                           .pad_bottom = 1,
                           .pad_right = 1},
                 {at});
    return *this;
  }
  InceptionBranch& maximum() {
    at = net.add(module + ".max_pool2d", max_pool2d(3, 2), {at});
    return *this;
  }
};

struct InceptionModule {
  Network& net;
  std::string name;
  int input = net.output();
  InceptionBranch branch() const { return {net, name, input}; }
  void join(const std::vector<int>& branches) const { net.add(name + ".cat", Concat{}, branches); }
};

// Figure 5 of the paper: two 3x3 convolutions for a 5x5 one.
void module_a(Network& net, const char* name, int64_t in, int64_t pool) {
  const InceptionModule m{net, name};
  const int one = m.branch().then("branch1x1", hw_conv(in, 64, 1, 1)).at;
  const int five = m.branch().then("branch5x5_1", hw_conv(in, 48, 1, 1)).then("branch5x5_2", hw_conv(48, 64, 5, 5)).at;
  const int three = m.branch()
                        .then("branch3x3dbl_1", hw_conv(in, 64, 1, 1))
                        .then("branch3x3dbl_2", hw_conv(64, 96, 3, 3))
                        .then("branch3x3dbl_3", hw_conv(96, 96, 3, 3))
                        .at;
  m.join({one, five, three, m.branch().mean().then("branch_pool", hw_conv(in, pool, 1, 1)).at});
}

void module_b(Network& net, const char* name, int64_t in) {
  const InceptionModule m{net, name};
  const int three = m.branch().then("branch3x3", halving_conv(in, 384)).at;
  const int twice = m.branch()
                        .then("branch3x3dbl_1", hw_conv(in, 64, 1, 1))
                        .then("branch3x3dbl_2", hw_conv(64, 96, 3, 3))
                        .then("branch3x3dbl_3", halving_conv(96, 96))
                        .at;
  m.join({three, twice, m.branch().maximum().at});
}

// Figure 6: 7x7 as 1x7 and 7x1; c: channels between them.
void module_c(Network& net, const char* name, int64_t in, int64_t c) {
  const InceptionModule m{net, name};
  const int one = m.branch().then("branch1x1", hw_conv(in, 192, 1, 1)).at;
  const int seven = m.branch()
                        .then("branch7x7_1", hw_conv(in, c, 1, 1))
                        .then("branch7x7_2", hw_conv(c, c, 1, 7))
                        .then("branch7x7_3", hw_conv(c, 192, 7, 1))
                        .at;
  const int twice = m.branch()
                        .then("branch7x7dbl_1", hw_conv(in, c, 1, 1))
                        .then("branch7x7dbl_2", hw_conv(c, c, 7, 1))
                        .then("branch7x7dbl_3", hw_conv(c, c, 1, 7))
                        .then("branch7x7dbl_4", hw_conv(c, c, 7, 1))
                        .then("branch7x7dbl_5", hw_conv(c, 192, 1, 7))
                        .at;
  m.join({one, seven, twice, m.branch().mean().then("branch_pool", hw_conv(in, 192, 1, 1)).at});
}

void module_d(Network& net, const char* name, int64_t in) {
  const InceptionModule m{net, name};
  const int three =
      m.branch().then("branch3x3_1", hw_conv(in, 192, 1, 1)).then("branch3x3_2", halving_conv(192, 320)).at;
  const int seven = m.branch()
                        .then("branch7x7x3_1", hw_conv(in, 192, 1, 1))
                        .then("branch7x7x3_2", hw_conv(192, 192, 1, 7))
                        .then("branch7x7x3_3", hw_conv(192, 192, 7, 1))
                        .then("branch7x7x3_4", halving_conv(192, 192))
                        .at;
  m.join({three, seven, m.branch().maximum().at});
}

// Figure 7: the last convolutions of two branches side by side.
void module_e(Network& net, const char* name, int64_t in) {
  const InceptionModule m{net, name};
  const auto both = [&](const InceptionBranch& before, const char* across, const char* down) {
    const int a = InceptionBranch(before).then(across, hw_conv(384, 384, 1, 3)).at,
              b = InceptionBranch(before).then(down, hw_conv(384, 384, 3, 1)).at;
    return std::vector<int>{a, b};
  };
  const int one = m.branch().then("branch1x1", hw_conv(in, 320, 1, 1)).at;
  const InceptionBranch three = m.branch().then("branch3x3_1", hw_conv(in, 384, 1, 1));
  const std::vector<int> threes = both(three, "branch3x3_2a", "branch3x3_2b");
  const InceptionBranch twice =
      m.branch().then("branch3x3dbl_1", hw_conv(in, 448, 1, 1)).then("branch3x3dbl_2", hw_conv(448, 384, 3, 3));
  const std::vector<int> twices = both(twice, "branch3x3dbl_3a", "branch3x3dbl_3b");
  const int pool = m.branch().mean().then("branch_pool", hw_conv(in, 192, 1, 1)).at;
  m.join({one, threes[0], threes[1], twices[0], twices[1], pool});
}

}  // namespace

Network make_inception_v3(const ZooOptions& options) {
  const int64_t classes = options.classes ? options.classes : 1000;
  Network net("inception_v3", {1, 3, 299, 299});
  net.training_only = {"AuxLogits."};
  transform_input(net);
  conv_bn_relu(net, "Conv2d_1a_3x3", halving_conv(3, 32), kInceptionEps);
  conv_bn_relu(net, "Conv2d_2a_3x3", conv2d(32, 32, 3, 1, 0, 1, 1, false), kInceptionEps);
  conv_bn_relu(net, "Conv2d_2b_3x3", hw_conv(32, 64, 3, 3), kInceptionEps);
  net.add("maxpool1", max_pool2d(3, 2));
  conv_bn_relu(net, "Conv2d_3b_1x1", hw_conv(64, 80, 1, 1), kInceptionEps);
  conv_bn_relu(net, "Conv2d_4a_3x3", conv2d(80, 192, 3, 1, 0, 1, 1, false), kInceptionEps);
  net.add("maxpool2", max_pool2d(3, 2));
  module_a(net, "Mixed_5b", 192, 32);
  module_a(net, "Mixed_5c", 256, 64);
  module_a(net, "Mixed_5d", 288, 64);
  module_b(net, "Mixed_6a", 288);
  module_c(net, "Mixed_6b", 768, 128);
  module_c(net, "Mixed_6c", 768, 160);
  module_c(net, "Mixed_6d", 768, 160);
  module_c(net, "Mixed_6e", 768, 192);
  module_d(net, "Mixed_7a", 768);
  module_e(net, "Mixed_7b", 1280);
  module_e(net, "Mixed_7c", 2048);
  net.add("avgpool", AdaptiveAvgPool2d{1, 1});
  net.add("dropout", Dropout{});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{2048, classes});
  return divided(net, options.divide_channels, classes);
}

}  // namespace switchback
