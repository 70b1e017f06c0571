// Small copies of torchvision's networks against PyTorch in float64 (tests/golden/make_zoo.py): outputs, and the
// gradient of the largest of them averaged over a grid.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/files/files.h"
#include "engine/files/json.h"
#include "engine/run/backward.h"
#include "engine/run/plan.h"
#include "engine/zoo/zoo.h"
#include "kernels/noise/noise.h"
#include "kernels/pointwise/pointwise.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"

namespace switchback::test {
namespace {

const nlohmann::json& cases() {
  static const nlohmann::json all =
      parse_json(read_file(SWITCHBACK_SOURCE_DIR "/tests/golden/zoo.json", 1 << 24));
  return all;
}

// Element i in [-1, 1), as random_weights draws a parameter called "input" (CRC-32 d82832d7).
Tensor golden_input(int64_t side, uint64_t seed) {
  Tensor x({1, 3, side, side});
  const std::array<uint32_t, 2> key{uint32_t(seed), uint32_t(seed >> 32)};
  for (int64_t i = 0; i < x.count(); ++i)
    x[i] =
        2.f * (float(philox4x32({uint32_t(i / 4), 0, 0xd82832d7u, 0x80000000u}, key)[size_t(i % 4)] >> 8) * 0x1p-24f) -
        1.f;
  return x;
}

double distance(const std::vector<double>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i)
    difference += (got[i] - want[i]) * (got[i] - want[i]), norm += want[i] * want[i];
  EXPECT_GT(norm, 0) << "the reference is all zero";
  return std::sqrt(difference / norm);
}

// torch.nn.functional.adaptive_avg_pool2d(x, 8) of [1,C,side,side].
std::vector<double> on_grid(const std::vector<float>& x, int64_t side) {
  std::vector<double> means;
  for (size_t c = 0; c < x.size() / size_t(side * side); ++c)
    for (int64_t row = 0; row < 8; ++row)
      for (int64_t column = 0; column < 8; ++column) {
        double sum = 0;
        int64_t count = 0;
        for (int64_t h = row * side / 8; h < (row * side + side + 7) / 8; ++h)
          for (int64_t w = column * side / 8; w < (column * side + side + 7) / 8; ++w, ++count)
            sum += double(x[c * size_t(side * side) + size_t(h * side + w)]);
        means.push_back(sum / double(count));
      }
  return means;
}

class ZooGolden : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(ZooGolden);

TEST_P(ZooGolden, OutputsAndGradientsAreTorchvisions) {
  EXPECT_GT(cases().size(), 15u);
  for (const auto& about : cases()) {
    const std::string model = about["model"];
    if (device.emulated && model != "mobilenet_v3_small") continue;  // layer by layer: TokensWithParameters…
    SCOPED_TRACE(model);
    const int64_t side = about["side"];
    Net net =
        make_network(model, {.divide_channels = about["divide_channels"], .classes = about["classes"], .side = side});
    net.weights = random_weights(net, about["seed"]);
    const Tensor x = golden_input(side, about["seed"]);
    Plan plan(ctx, net, {1, 3, side, side}, {});
    Tape tape;
    plan.write(x.data(), 1);
    plan.forward(&tape);
    const Tensor y = plan.read(net.output());
    const Shape out = plan.shapes().back();
    std::vector<double> logits(size_t(out.c), 0.0);
    for (int64_t i = 0; i < y.count(); ++i) logits[size_t(i / (out.h * out.w))] += double(y[i]);
    const double near = std::max(1e-5, 5 * about["float32"].get<double>());
    EXPECT_LT(distance(logits, about["logits"]), near);
    Backward backward(plan, net.output(), {.nodes = {0}}, 1);
    one_hot(ctx, backward.seed(1), std::vector<SeedUnit>{{about["target"], -1, -1}});
    const ConstView g = backward.run(tape, {});
    std::vector<float> gradient(size_t(g.shape.count()));
    read_nchw(ctx, g, gradient.data());
    EXPECT_LT(distance(on_grid(gradient, side), about["gradient"]), near);
  }
}

}  // namespace
}  // namespace switchback::test
