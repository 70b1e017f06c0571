// Networks of tokens and windows from both of PyTorch's exporters, against PyTorch's float64 (tests/golden/make_tokens.py).
#include <gtest/gtest.h>

#include <cmath>

#include "engine/files/safetensors.h"
#include "engine/onnx/onnx.h"
#include "engine/run/backward.h"
#include "engine/run/plan.h"
#include "kernels/pointwise/pointwise.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

const Safetensors& golden() {
  static const Safetensors file(SWITCHBACK_SOURCE_DIR "/tests/golden/tokens.safetensors");
  return file;
}

OnnxNetwork read(const std::string& name) {
  const test::TempFolder folder;
  const auto bytes = golden().bytes(name);
  return read_onnx(folder.put("m.onnx", {reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
}

double distance(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    difference += std::pow(double(a[i]) - double(b[i]), 2), norm += std::pow(double(b[i]), 2);
  return std::sqrt(difference / norm);
}

int64_t count(const Network& network, const char* type) {
  return std::count_if(network.nodes.begin(), network.nodes.end(), [&](const Node& n) { return type_name(n.layer) == type; });
}

class Tokens : public test::OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(Tokens);

// Some hundred roundings lie between the image and the outputs; nothing is decided by a gate but Swin V2's constants.
TEST_P(Tokens, OutputsAndGradientsArePyTorchs) {
  for (const std::string network : {"convnext", "deit", "maxvit", "swin", "swin_v2", "vit"})
    for (const std::string exporter : {"dynamo", "torchscript"}) {
      if (ctx.gpu && exporter == "torchscript") continue;  // the same layers again
      SCOPED_TRACE(network + " by " + exporter);
      const OnnxNetwork model = read(network + "." + exporter);
      const Tensor x = golden().load(network + ".x"), y = golden().load(network + ".y"), g = golden().load(network + ".g");
      Plan plan(ctx, {model.network, model.weights}, model.network.input.with_n(2), {});
      Tape tape;
      plan.write(x.data(), 2);
      plan.forward(&tape);
      EXPECT_LT(distance(plan.read(model.network.output()).values(), y.values()), 1e-5);
      std::vector<SeedUnit> units;
      for (int64_t i = 0; i < 2; ++i) {
        const auto scores = y.values().subspan(size_t(5 * i), 5);
        units.push_back({std::max_element(scores.begin(), scores.end()) - scores.begin(), -1, -1});
      }
      Backward backward(plan, model.network.output(), {.nodes = {0}}, 2);
      one_hot(ctx, backward.seed(2), units);
      const ConstView dx = backward.run(tape, {});
      std::vector<float> read(size_t(dx.shape.count()));
      read_nchw(ctx, dx, read.data());
      EXPECT_LT(distance(read, g.values()), 2e-5);
    }
}

// What exporters write as MatMul, scale, mask, Softmax and MatMul is one layer, whose scores are never stored.
TEST(TokensGraphs, AttentionIsOneLayer) {
  for (const std::string exporter : {"dynamo", "torchscript"}) {
    SCOPED_TRACE(exporter);
    for (const auto& [name, layers] : {std::pair{"vit", 2}, {"deit", 2}, {"swin", 3}, {"swin_v2", 3}, {"maxvit", 4}}) {
      const Network network = read(name + ("." + exporter)).network;
      EXPECT_EQ(count(network, "Attention"), layers) << name;
      EXPECT_EQ(count(network, "MatMul") + count(network, "Softmax") + count(network, "Erf"), 0) << name;
    }
    const Network convnext = read("convnext." + exporter).network;
    EXPECT_EQ(count(convnext, "Permute") + count(convnext, "Transpose") + count(convnext, "Reshape"), 0);
    EXPECT_EQ(count(convnext, "GELU"), 2);
  }
}

}  // namespace
}  // namespace switchback
