// The zoo: names and shapes of its state dicts, what its names may say, and that the methods' identities hold on the
// architectures of which no test elsewhere says so. What the networks compute: network_golden_test.cpp.
#include "engine/zoo/zoo.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <fstream>
#include <set>

#include "engine/model.h"
#include "engine/files/files.h"
#include "engine/files/json.h"
#include "engine/files/safetensors.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/cam.h"
#include "viz/methods/etalon.h"

namespace switchback::test {
namespace {

Tensor wave(Dims dims) {
  Tensor t(std::move(dims));
  for (int64_t i = 0; i < t.count(); ++i) t[i] = std::sin(0.7f * float(i)) + 0.3f * std::cos(0.05f * float(i));
  return t;
}

Net small_copy(const char* name, int64_t side = 0) {
  Net net = make_network(name, {.divide_channels = 16, .classes = 6, .side = side});
  net.weights = random_weights(net, 7);
  return net;
}

// "NAME D0,D1,...\n" of every tensor of a state dict, sorted.
std::string state_dict_lines(const Network& net) {
  std::set<std::string> lines;
  for (const Node& node : net.nodes)
    for (const ParameterSpec& spec : parameters(node.layer))
      lines.insert(fmt::format("{} {}\n", full_name(node, spec.name), fmt::join(spec.dims, ",")));
  std::string text;
  for (const std::string& line : lines) text += line;
  return text;
}

TEST(Zoo, StateDictsHaveTheReferencesNamesAndShapes) {
  const auto wanted =
      parse_json(read_file(std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/state_dicts.json", 1 << 30));
  EXPECT_GT(wanted.size(), 20u);
  for (const auto& [model, about] : wanted.items()) {
    const Network net = make_network(model);
    const std::string lines = state_dict_lines(net);
    EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), about["tensors"].get<int>()) << model;
    EXPECT_EQ(net.parameter_count(), about["parameters"].get<int64_t>()) << model;
    EXPECT_EQ(crc32(0, reinterpret_cast<const Bytef*>(lines.data()), uInt(lines.size())),
              about["crc32"].get<uint32_t>())
        << model << ":\n"
        << lines.substr(0, 2000);
  }
}

TEST(Zoo, DilatedBackbonesKeepTheirMapsAndTheirWeights) {
  const Net plain = make_network("resnet50"), dilated = make_network("resnet50:dilated=0,1,1");
  EXPECT_EQ(dilated.name, "resnet50:dilated=0,1,1");
  const auto side = [](const Net& net, const char* node) {
    return net.shapes(net.input)[size_t(net.find(node))].h;
  };
  for (const auto& [node, strided, kept] : {std::tuple{"layer1.2.relu_2", 56, 56},
                                            {"layer2.3.relu_2", 28, 28},
                                            {"layer3.5.relu_2", 14, 28},
                                            {"layer4.2.relu_2", 7, 28}}) {
    EXPECT_EQ(side(plain, node), strided) << node;
    EXPECT_EQ(side(dilated, node), kept) << node;
  }
  const auto dilation = [&](const char* node) {
    return std::get<Conv2d>(dilated.nodes[size_t(dilated.find(node))].layer).dilation_h;
  };
  EXPECT_EQ(dilation("layer3.0.conv2"), 1);  // a stage's first block has the dilation of the stage before
  EXPECT_EQ(dilation("layer3.1.conv2"), 2);
  EXPECT_EQ(dilation("layer4.0.conv2"), 2);
  EXPECT_EQ(dilation("layer4.2.conv2"), 4);
  const TempFolder folder;
  std::ofstream(folder / "resnet50.safetensors") << "weights";
  const auto found = installed_weights("resnet50:dilated=0,1,1", {folder.path()});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].file, folder / "resnet50.safetensors");
}

TEST(Zoo, NamesThatAreNone) {
  for (const auto& [name, message] : {std::pair{"resnet50:dilated=0,1", "0 or 1 for each of three stages"},
                                      {"resnet50:dilated=0,1,2", "0 or 1 for each of three stages"},
                                      {"resnet50:dilated=", "0 or 1 for each of three stages"},
                                      {"resnet18:dilated=0,0,1", "no bottleneck blocks"},
                                      {"resnet50:", "is no model"},
                                      {"resnet50:deep", "is no model"},
                                      {"googlenet:dilated=0,0,1", "is no model"},
                                      {"resnet51:dilated=0,0,1", "there is no model"}})
    expect_error(message, [&, name = name] { make_network(name); });
  expect_error("unknown model", [] { open_network({"resnet51:dilated=0,0,1"}); });
  EXPECT_EQ(open_network({"resnet101:dilated=1,1,1"}).name, "resnet101:dilated=1,1,1");
  EXPECT_EQ(make_network("resnet18:dilated=0,0,0").parameter_count(), make_network("resnet18").parameter_count());
}

// A published checkpoint of GoogLeNet has tensors of two more heads.
TEST(Zoo, OnlyGoogLeNetPassesOverAuxiliaryHeads) {
  const TempFolder folder;
  const std::string path = folder / "weights.safetensors";
  for (const char* model : {"googlenet", "resnet18"}) {
    Net net = small_copy(model);
    const auto save_with = [&](const std::string& more) {
      std::vector<NamedTensor> list;
      const Tensor surplus = wave({2, 3});
      for (const Parameter& p : net.weights.list())
        list.emplace_back(net.nodes[p.node].name + "." + p.name, p.dims, net.weights.values(p));
      list.emplace_back(more, surplus);
      write_safetensors(path, list, {});
    };
    Net loaded = make_network(model, {.divide_channels = 16, .classes = 6});
    save_with("aux1.conv.conv.weight");
    if (std::string(model) == "googlenet") {
      loaded.weights = load_weights(loaded, Safetensors(path));
      EXPECT_EQ(loaded.weights.values(net.output(), "weight")[5], net.weights.values(net.output(), "weight")[5]);
    } else {
      expect_error("1 surplus: aux1.conv.conv.weight", [&] { load_weights(loaded, Safetensors(path)); });
    }
    save_with("aux3.fc.weight");
    expect_error("1 surplus: aux3.fc.weight", [&] { load_weights(loaded, Safetensors(path)); });
  }
}

TEST(Zoo, InputsAreAsTheModelsWantThem) {
  const Preprocess small = open_model({"autoencoder", "random:1", ""}, {}).preprocess;
  EXPECT_EQ(small.size, (std::array{32, 32}));
  EXPECT_TRUE(small.mean.empty());
  const Preprocess tiny = open_model({"encoder_decoder", "random:1", ""}, {}).preprocess;
  EXPECT_EQ(tiny.size, (std::array{64, 64}));
  EXPECT_EQ(tiny.mean, imagenet_preprocess().mean);
  const Preprocess caffe = open_model({"caffenet", "random:1", ""}, {}).preprocess;
  EXPECT_EQ(caffe.size, (std::array{227, 227}));
  EXPECT_EQ(caffe.order, ChannelOrder::bgr);
  EXPECT_EQ(caffe.scale, 1);
}

class ZooMethods : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(ZooMethods);

// The mean of a class's exact map is its logit, less the bias of the linear layer where there is one.
TEST_P(ZooMethods, ExactMapsAverageToTheLogits) {
  std::vector<const char*> names{"encoder_decoder"};
  if (!device.emulated)
    names.insert(names.end(),
                 {"resnet50", "resnet50:dilated=0,0,1", "squeezenet1_0", "squeezenet1_1", "googlenet", "mobilenet_v2"});
  for (const char* name : names) {
    SCOPED_TRACE(name);
    const Net net = small_copy(name);
    const int64_t side = device.emulated ? 33 : 64;
    const Tensor x = wave({1, 3, side, side});
    const CamHead head = find_cam_head(net, {1, 3, side, side}).value();
    CamOptions options;
    options.method = CamMethod::cam;
    const Cams cams = class_activation_maps(ctx, net, x, {"all", "", Score::logit}, {}, options);
    const int64_t places = cams.maps[0].dim(2) * cams.maps[0].dim(3);
    EXPECT_GT(places, 1);
    double largest = 0;
    for (const double score : cams.explained[0].scores) largest = std::max(largest, std::abs(score));
    EXPECT_GT(largest, 0) << "all zero proves nothing";
    for (int64_t k = 0; k < 6; ++k) {
      double mean = head.linear < 0 ? 0 : double(net.weights.values(head.linear, "bias")[size_t(k)]);
      for (int64_t i = 0; i < places; ++i) mean += double(cams.maps[0][k * places + i]) / double(places);
      EXPECT_NEAR(mean, cams.explained[0].scores[size_t(k)], 1e-5 * largest) << "class " << k;
    }
  }
}

// NET(x)_p = <W_p, x> + b_p where outputs are maps: sums over an output map, and a unit inside the decoder.
TEST_P(ZooMethods, EtalonsOfNetworksThatGiveMaps) {
  for (const auto& [name, layer] : {std::pair{"autoencoder", "dec2:1:3,4"}, {"context", "ctx_conv4_1:2:9,7"}}) {
    SCOPED_TRACE(name);
    Net net = small_copy(name);
    const int64_t side = std::string(name) == "autoencoder" ? 32 : 18;
    const Tensor x = wave({1, net.input.c, side, side});
    for (const TargetSpec& target : {TargetSpec{"0,2", "", Score::logit}, TargetSpec{"max", layer, Score::logit}}) {
      const EtalonMaps found = etalons(ctx, net, x, target, {});
      for (const EtalonCheck& check : found.inputs[0].checks) {
        EXPECT_LE(check.relative(), EtalonCheck::kTolerance)
            << check.dot << " + " << check.bias << " is not " << check.score;
        EXPECT_GT(check.magnitude, 0) << "all zero proves nothing";
      }
    }
  }
}

}  // namespace
}  // namespace switchback::test
