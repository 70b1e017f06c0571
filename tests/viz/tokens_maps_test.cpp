// Maps of transformers: attention followed through their layers, and Grad-CAM at tokens, against PyTorch in float64
// (tests/golden/make_attention.py).
#include <gtest/gtest.h>

#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "engine/onnx/onnx.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/inspect.h"
#include "viz/methods/tokens.h"

namespace switchback::test {
namespace {

const Safetensors& golden(const std::string& file) {
  static const Safetensors tokens(SWITCHBACK_SOURCE_DIR "/tests/golden/tokens.safetensors");
  static const Safetensors attention(SWITCHBACK_SOURCE_DIR "/tests/golden/attention.safetensors");
  return file == "tokens" ? tokens : attention;
}

std::string put(const TempFolder& folder, const std::string& network) {
  const auto bytes = golden("tokens").bytes(network + ".torchscript");
  return folder.put(network + ".onnx", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

Model read(const std::string& network) {
  const TempFolder folder;
  OnnxNetwork found = read_onnx(put(folder, network));
  return {std::move(found.network), std::move(found.weights)};
}

void expect_near(const Tensor& got, const Tensor& want) {
  ASSERT_EQ(got.count(), want.count());
  double scale = 0;
  for (float v : want.values()) scale = std::max(scale, std::abs(double(v)));
  ASSERT_GT(scale, 0);
  for (int64_t i = 0; i < got.count(); ++i) ASSERT_NEAR(got[i], want[i], 2e-5 * scale) << "at " << i;
}

constexpr std::pair<const char*, CamMethod> kMethods[] = {{"rollout", CamMethod::rollout},
                                                          {"attention-gradient", CamMethod::attention_gradient},
                                                          {"gradcam", CamMethod::gradcam}};

class AttentionMaps : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(AttentionMaps);

TEST_P(AttentionMaps, ArePyTorchs) {
  for (const std::string network : {"deit", "vit"}) {
    const Model model = read(network);
    for (const auto& [name, method] : kMethods) {
      SCOPED_TRACE(network + " " + name);
      CamOptions options;
      options.method = method;
      const Cams cams = class_activation_maps(ctx, model, golden("tokens").load(network + ".x"), {}, {}, options);
      EXPECT_EQ(cams.maps[0].dims(), (Dims{2, 1, 4, 4}));
      expect_near(cams.maps[0], golden("attention").load(network + "." + name));
    }
  }
}

// Neither batch nor threads nor other targets change a bit.
TEST(AttentionMapsBits, DoNotDependOnTheBatch) {
  const Model model = read("vit");
  const Tensor x = golden("tokens").load("vit.x");
  Context all, one;
  one.threads = 1;
  CamOptions options;
  options.method = CamMethod::attention_gradient;
  const Tensor together =
      std::move(class_activation_maps(all, model, x, {"1,3,4", "", Score::logit}, {}, options).maps[0]);
  options.batch = 1;
  const Tensor alone =
      std::move(class_activation_maps(one, model, x, {"1,3,4", "", Score::logit}, {}, options).maps[0]);
  EXPECT_EQ(together.dims(), (Dims{2, 3, 4, 4}));
  EXPECT_TRUE(std::ranges::equal(together.values(), alone.values()));
}

TEST(AttentionMapsGraphs, GridsAreFoundAndWindowsRefused) {
  const Model deit = read("deit"), vit = read("vit"), swin = read("swin");
  const int tokens = last_patch_tokens(vit.network, vit.network.input);
  ASSERT_GE(tokens, 0);
  EXPECT_EQ(token_grid(vit.network, vit.network.input, tokens), (TokenGrid{1, 4, 4}));
  EXPECT_EQ(token_grid(deit.network, deit.network.input, last_patch_tokens(deit.network, deit.network.input)),
            (TokenGrid{2, 4, 4}));
  EXPECT_EQ(followed_attention(vit.network, vit.network.input).size(), 2u);
  EXPECT_EQ(last_patch_tokens(swin.network, swin.network.input), -1);  // the mean over all places
  expect_error("attends within windows", [&] { followed_attention(swin.network, swin.network.input); });
  const Net lenet = [] {
    Net net("flat", {1, 1, 4, 4});
    net.add("conv", conv2d(1, 2, 3, 1, 1));
    net.add("flatten", Flatten{});
    return net;
  }();
  expect_error("no attention layers", [&] { followed_attention(lenet, {1, 1, 4, 4}); });
  EXPECT_EQ(token_grid(lenet, {1, 1, 4, 4}, 1), std::nullopt);
}

TEST(AttentionMapsCommand, CamAndActivationsDrawPatches) {
  const TempFolder folder;
  const std::string model = put(folder, "vit"), x = folder / "x.npy", out = folder / "out";
  write_npy(x, golden("tokens").load("vit.x"));
  const auto document =
      succeed_json({"cam", "--model", model, "--method", "rollout", "-o", out, "--save", "png,npy", "--json", x});
  EXPECT_EQ(document["method"], "rollout");
  EXPECT_EQ(document["layers"].size(), 2u);
  expect_near(read_npy(result(document, ".npy")), golden("attention").load("vit.rollout"));
  const Network network = read("vit").network;
  const std::string layer = network.nodes[size_t(last_patch_tokens(network, network.input))].name;
  const auto shown =
      succeed_json({"activations", "--model", model, "--layer", layer, "-o", out, "--save", "png,npy", "--json", x});
  EXPECT_EQ(read_npy(result(shown, ".npy")).count(), 2 * 12 * 17);
  EXPECT_FALSE(result(shown, ".png").empty());
  const Outcome refused =
      run_switchback({"cam", "--model", model, "--method", "rollout", "--layer", layer, "-o", out, x});
  EXPECT_EQ(refused.code, 2);
}

}  // namespace
}  // namespace switchback::test
