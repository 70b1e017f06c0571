#include "tests/support/net.h"
#include "tests/support/random_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <random>
#include <vector>

namespace switchback::test {
namespace {

// Builds one network front to back; `at` is the node that the next block reads.
class Builder {
 public:
  Builder(uint64_t seed, const RandomNetworkOptions& options) : o_(options), rng_(seed * 2654435761u + 1) {
    const int64_t h = o_.input.h ? o_.input.h : between(12, 24), w = o_.input.w ? o_.input.w : between(12, 20);
    net_ = Network("random", {1, o_.input.c, h, w});
  }

  Net build() {
    conv(3, 1);  // a stem: from here on there are channels to group and to concatenate
    end_of_conv();
    for (block_ = 1; block_ <= o_.blocks; ++block_) add_block();
    if (o_.head) add_head();
    return std::move(net_);
  }

 private:
  int64_t between(int64_t least, int64_t most) { return least + int64_t(rng_() % uint64_t(most - least + 1)); }
  bool chance(int percent) { return between(0, 99) < percent; }
  Shape shape(int node) const { return net_.shapes(net_.input)[size_t(node)]; }
  std::string name(const char* kind) {
    std::string text = fmt::format("b{}.{}", block_, kind);
    const auto taken = [&] {
      return std::any_of(net_.nodes.begin(), net_.nodes.end(), [&](const Node& n) { return n.name == text; });
    };
    while (taken()) text += "_";
    return text;
  }
  void add(const char* kind, Layer layer) { at_ = net_.add(name(kind), std::move(layer), {at_}); }

  // A convolution of random form that keeps at least one pixel. kernel 0: drawn; stride 0: drawn.
  void conv(int64_t kernel = 0, int64_t stride = 0) {
    const Shape x = shape(at_);
    Conv2d c;
    do {
      c = Conv2d{.in_channels = x.c, .has_bias = chance(80)};
      c.kernel_h = kernel ? kernel : between(1, 5);
      c.kernel_w = kernel ? kernel : chance(70) ? c.kernel_h : between(1, 5);
      c.stride_h = stride ? stride : o_.strides && chance(30) ? between(2, 3) : 1;
      c.stride_w = stride ? stride : chance(70) ? c.stride_h : o_.strides ? between(1, 3) : 1;
      c.dilation_h = c.dilation_w = !kernel && o_.dilation && chance(25) ? 2 : 1;
      c.pad_top = c.pad_bottom = between(0, c.kernel_h / 2 * c.dilation_h);
      c.pad_left = c.pad_right = between(0, c.kernel_w / 2 * c.dilation_w);
      if (o_.asymmetric_padding && chance(25)) c.pad_bottom = between(0, 2), c.pad_right = between(0, 2);
      c.out_channels = between(2, o_.most_channels);
      if (o_.groups && chance(20)) use_groups(c);
    } while (!fits(c, x));
    add("conv", c);
  }
  // Groups that divide both sides: depthwise, or two.
  void use_groups(Conv2d& c) {
    if (chance(50)) {
      c.groups = c.out_channels = c.in_channels;
    } else if (c.in_channels % 2 == 0) {
      c.groups = 2;
      c.out_channels += c.out_channels % 2;
    }
  }
  static bool fits(const Conv2d& c, Shape x) {
    const int64_t h = x.h + c.pad_top + c.pad_bottom - c.dilation_h * (c.kernel_h - 1);
    const int64_t w = x.w + c.pad_left + c.pad_right - c.dilation_w * (c.kernel_w - 1);
    return h >= 1 && w >= 1;
  }
  // Like conv, but the map keeps its size.
  void same_conv(int64_t out_channels) {
    const int64_t kernel = chance(70) ? 3 : 1;
    add("conv", conv2d(shape(at_).c, out_channels, kernel, 1, kernel / 2));
  }
  void batch_norm() { add("bn", BatchNorm2d{shape(at_).c}); }
  void relu() { add("relu", ReLU{o_.clips && chance(30) ? (chance(50) ? 0.5f : 1.f) : kNoClip}); }
  void end_of_conv() {
    if (o_.batch_norm && chance(40)) batch_norm();
    if (chance(80)) relu();
  }

  void max_pool() {
    const Shape x = shape(at_);
    MaxPool2d p = max_pool2d(between(2, 3), o_.strides ? between(1, 3) : 1);
    if (chance(40)) p.pad_top = p.pad_left = p.pad_bottom = p.pad_right = 1;
    p.ceil_mode = chance(30);
    if (o_.dilation && chance(20)) p.dilation_h = p.dilation_w = 2;
    if (x.h + 2 * p.pad_top <= p.dilation_h * 2 || x.w + 2 * p.pad_left <= p.dilation_w * 2) return relu();
    add("max", p);
    if (chance(40)) relu();
  }
  void average_pool() {
    const Shape x = shape(at_);
    const int64_t kernel = between(1, std::min<int64_t>({3, x.h, x.w}));
    AvgPool2d p{.kernel_h = kernel, .kernel_w = kernel};
    p.stride_h = p.stride_w = o_.strides ? between(1, 2) : 1;
    if (kernel > 1 && chance(40)) p.pad_top = p.pad_left = p.pad_bottom = p.pad_right = 1;
    p.count_include_pad = chance(50);
    p.ceil_mode = chance(30);
    add("avg", p);
  }
  // x + f(x), where f is one or two convolutions; sometimes x + x, or through a dropout.
  void residual() {
    const int trunk = at_;
    same_conv(shape(trunk).c);
    if (o_.batch_norm && chance(50)) batch_norm();
    if (chance(50)) {
      relu();
      same_conv(shape(trunk).c);
    }
    if (chance(20)) add("drop", Dropout{});
    const int other = chance(15) ? trunk : at_;
    at_ = net_.add(name("add"), Add{}, {other, trunk});
    if (chance(70)) relu();
  }
  void concatenation() {
    const int trunk = at_;
    std::vector<int> parts;
    for (int64_t i = between(2, 3); i > 0; --i) {
      at_ = trunk;
      const int64_t kind = between(0, 3);
      if (kind == 0 && o_.max_pools) {
        add("max", max_pool2d(3, 1, 1));
      } else if (kind > 0 || !chance(50)) {
        same_conv(between(2, std::max<int64_t>(2, o_.most_channels / 2)));
        end_of_conv();
      }
      parts.push_back(at_);
    }
    at_ = net_.add(name("concat"), Concat{}, parts);
  }

  void ramp_or_slope() {
    switch (between(0, 4)) {
      case 0: return add("leaky", LeakyReLU{0.3f});
      case 1: return add("prelu", PReLU{chance(50) ? 1 : shape(at_).c});
      case 2: return add("clip", Clip{-0.4f, 0.7f});
      case 3: return add("clip", chance(50) ? Clip{.min = -0.2f} : Clip{.max = 0.6f});
      default: return add("hardsigmoid", Hardsigmoid{0.4f, 0.3f});
    }
  }
  void constant() {
    const Shape x = shape(at_);
    BinaryConstant c{.function = BinaryFunction(between(0, 3)), .values = {}, .shape = {1, 1, 1, 1}, .reversed = false};
    if (chance(60)) c.shape.c = x.c;
    if (chance(40)) c.shape.h = x.h, c.shape.w = x.w;
    c.reversed = chance(40) && c.function != BinaryFunction::div;
    for (int64_t i = 0; i < c.shape.item(); ++i) c.values.push_back(float(between(2, 12)) / 6.f);
    add("constant", c);
  }
  void move_around() {
    const Shape x = shape(at_);
    switch (between(0, 6)) {
      case 0: return add("pad", Pad{.top = between(0, 2), .left = 1, .bottom = 0, .right = between(0, 2), .value = 0.5f});
      case 1: return add("pad", Pad{.top = 1, .left = 1, .bottom = 1, .right = 1, .mode = Pad::Mode::edge});
      case 2: return add("resize", bilinear_to(std::max<int64_t>(1, x.h - 1), x.w + 1, chance(50)));
      case 3: return add("slice", Slice{.c = {0, std::numeric_limits<int64_t>::max(), x.c > 3 ? 2 : 1}, .h = {x.h > 4 ? 1 : 0}});
      case 4: return add("shuffle", ChannelShuffle{x.c % 2 == 0 ? 2 : 1});
      case 5: return add("permute", Permute{{1, 3, 2}});
      default: return add("reshape", Reshape{x.c, x.w, x.h});
    }
  }
  void transposed_conv() {
    const Shape x = shape(at_);
    ConvTranspose2d c{.in_channels = x.c, .out_channels = between(2, o_.most_channels)};
    c.kernel_h = c.kernel_w = between(2, 3);
    c.stride_h = c.stride_w = x.h * x.w > 150 ? 1 : between(1, 2);
    add("transposed", c);
    if (chance(40)) batch_norm();
  }
  void difference() {  // x − f(x), f(x) for all places alike
    const int trunk = at_;
    if (chance(50)) same_conv(shape(trunk).c);
    else add("mean", Reduce{.h = true, .w = true});
    at_ = net_.add(name("sub"), Binary{BinaryFunction::sub}, {trunk, at_});
  }
  void rare_layer() {
    switch (between(0, 4)) {
      case 0: return ramp_or_slope();
      case 1: return constant();
      case 2: return move_around();
      case 3: return transposed_conv();
      default: return difference();
    }
  }

  void add_block() {
    if (o_.rare_layers && chance(50)) return rare_layer();
    std::vector<std::function<void()>> kinds(3, [this] { conv(), end_of_conv(); });
    kinds.push_back([this] { chance(50) || !o_.batch_norm ? relu() : batch_norm(); });
    if (o_.max_pools) kinds.insert(kinds.end(), 2, [this] { max_pool(); });
    if (o_.average_pools) kinds.push_back([this] { average_pool(); });
    if (o_.residuals) kinds.insert(kinds.end(), 2, [this] { residual(); });
    if (o_.concats) kinds.insert(kinds.end(), 2, [this] { concatenation(); });
    kinds[size_t(between(0, int64_t(kinds.size()) - 1))]();
  }

  void add_head() {
    const Shape x = shape(at_);
    if (o_.rare_layers && chance(30))
      add("global", GlobalMaxPool{});
    else if (x.item() > 400 || chance(40)) add("global", AdaptiveAvgPool2d{between(1, std::min<int64_t>(2, x.h)), 1});
    add("flatten", Flatten{});
    if (chance(50)) {
      add("fc", Linear{shape(at_).c, between(4, 20), chance(80)});
      relu();
    }
    add("out", Linear{shape(at_).c, o_.classes, true});
  }

  RandomNetworkOptions o_;
  std::mt19937_64 rng_;
  Net net_;
  int at_ = 0, block_ = 0;
};

}  // namespace

Net random_network(uint64_t seed, const RandomNetworkOptions& options) {
  Net network = Builder(seed, options).build();
  network.weights = random_weights(network, seed);
  return network;
}

void make_whole(Net& net, int64_t range) {
  std::mt19937_64 rng(1);
  net.fill([&](const Parameter&, int64_t) { return float(int64_t(rng() % uint64_t(2 * range + 1)) - range); });
}

Tensor random_input(const Net& network, uint64_t seed, int64_t n) {
  std::mt19937_64 rng(seed * 0x9e3779b97f4a7c15u + 7);
  Tensor x({n, network.input.c, network.input.h, network.input.w});
  for (float& v : x.values()) v = float(double(rng() >> 40) / double(1 << 23) - 1.0);
  return x;
}

}  // namespace switchback::test
