// Etalon images: the single pass against the coordinate algorithm, PyTorch's Jacobians and the affine identity, on the
// zoo's networks and on random graphs; receptive fields against whole maps.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "engine/files/json.h"
#include "engine/files/safetensors.h"
#include "engine/zoo/zoo.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/random_network.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/etalon.h"

namespace switchback::test {
namespace {

constexpr EtalonAlgorithm kCoordinate = EtalonAlgorithm::coordinate;

EtalonOptions with_algorithm(EtalonAlgorithm algorithm) {
  EtalonOptions options;
  options.algorithm = algorithm;
  return options;
}

// ‖a − b‖ / ‖b‖
double relative_error(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  if (a.size() != b.size()) return 1e30;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    norm += double(b[i]) * b[i];
  }
  return norm > 0 ? std::sqrt(difference / norm) : difference > 0 ? 1e30 : 0;
}

void expect_same_bits(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.dims(), b.dims()) << what;
  EXPECT_EQ(std::memcmp(a.data(), b.data(), size_t(a.count()) * sizeof(float)), 0) << what;
}

void expect_identity(const EtalonMaps& all, const std::string& what) {
  double largest = 0;
  for (const EtalonInput& input : all.inputs)
    for (size_t p = 0; p < input.checks.size(); ++p) {
      const EtalonCheck& check = input.checks[p];
      EXPECT_LE(check.relative(), EtalonCheck::kTolerance)
          << what << ", unit " << p << ": " << check.dot << " + " << check.bias << " is not " << check.score;
      EXPECT_NEAR(check.votes_for + check.votes_against, check.dot, 1e-9 * check.magnitude + 1e-30);
      largest = std::max(largest, check.magnitude);
    }
  EXPECT_GT(largest, 0) << what << ": all zero proves nothing";
}

class Etalon : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(Etalon);

// --- The zoo ---------------------------------------------------------------------------------------------------------

struct Golden {
  Safetensors file;
  nlohmann::json about;
  Net network;
  explicit Golden(const std::string& name)
      : file(std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/" + name + ".safetensors"),
        about(parse_json(file.metadata().at("golden"))),
        network(make_network(about["model"].get<std::string>(),
                             {.divide_channels = about["divide_channels"], .classes = about["classes"]})) {
    const std::string weights = about["weights"];
    if (weights.starts_with("random:"))
      network.weights = random_weights(network, std::stoull(weights.substr(7)));
    else
      network.weights = load_weights(network, Safetensors(std::string(SWITCHBACK_SOURCE_DIR) + "/weights/" + weights));
  }
};

// With the reference's gates and switches, the etalon of each image's target is PyTorch's float64 gradient. Without them
// too, since the images were chosen to be far from ties; and then <W, x> + b is the network's own output.
TEST_P(Etalon, ZooAgainstPyTorch) {
  std::vector<const char*> names = {"vgg11_bn", "resnet18"};
  if (!device.emulated)
    names.insert(names.end(), {"lenet", "lenet_noisy", "alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "vgg13_bn",
                               "vgg16_bn", "vgg19_bn", "resnet34", "resnet50", "resnet50_dilated011", "squeezenet1_1",
                               "googlenet", "mobilenet_v2", "encoder_decoder"});
  for (const char* name : names) {
    SCOPED_TRACE(name);
    const Golden golden(name);
    const Tensor x = golden.file.load("input"), want = golden.file.load("gradient"), logits = golden.file.load("logits");
    const int64_t item = x.count() / x.dim(0);
    std::set<int> targets;
    for (const int target : golden.about["targets"]) targets.insert(target);
    const TargetSpec spec{fmt::format("{}", fmt::join(targets, ",")), "", Score::logit};
    const size_t place_of_first = size_t(std::distance(targets.begin(), targets.find(golden.about["targets"][0])));
    EtalonOptions options;
    options.batch = int64_t(targets.size()) * x.dim(0);
    options.load_tape = golden.file.path();
    const EtalonMaps loaded = etalons(ctx, golden.network, x, spec, {}, options);
    for (int64_t i = 0; i < x.dim(0); ++i) {
      const auto t = std::distance(targets.begin(), targets.find(golden.about["targets"][size_t(i)]));
      const auto got = loaded.maps.values().subspan(size_t((i * int64_t(targets.size()) + t) * item), size_t(item));
      EXPECT_LT(relative_error(got, want.values().subspan(size_t(i * item), size_t(item))), 1e-5) << "image " << i;
    }
    options.load_tape.clear();
    const EtalonMaps free = etalons(ctx, golden.network, x, spec, {}, options);
    expect_identity(free, name);
    EXPECT_NEAR(free.inputs[0].checks[place_of_first].score, logits[golden.about["targets"][0]],
                1e-5 * std::abs(logits[golden.about["targets"][0]]));
  }
}

// Whatever the zoo holds: the identity, or a refusal that names the layer up to which it is kept.
TEST_P(Etalon, EveryZooNetworkKeepsTheIdentityOrIsRefused) {
  std::set<Network (*)(std::string_view, const ZooOptions&)> families;
  for (const ZooEntry& entry : zoo()) {
    if (device.emulated && std::string(entry.name) != "mlp") continue;
    // Of the larger families one network.
    const bool first = families.insert(entry.make).second, all = entry.make == make_vgg || entry.make == make_resnet;
    if (!first && !all && entry.make != make_squeezenet) continue;
    SCOPED_TRACE(entry.name);
    Net net = make_network(entry.name, {.divide_channels = 8});
    if (net.input.h > 256) net.input.h = net.input.w = 104;  // these take any size
    net.weights = random_weights(net, 5);
    TargetSpec spec{"0", "", Score::logit};
    try {
      check_piecewise_affine(net, logit_node(net));
    } catch (const Error& e) {
      const size_t at = e.hint.find("--layer ");
      ASSERT_NE(at, std::string::npos) << e.what() << " (" << e.hint << ")";
      const std::string layer = e.hint.substr(at + 8);
      spec = {"max", layer.substr(0, layer.find_first_of(" ,;)")) + ":0", Score::logit};
    }
    expect_identity(etalons(ctx, net, random_input(net, 6), spec, {}), entry.name);
  }
}

// --- A network with every bias, gate and join, in full ---------------------------------------------------------------

// As tests/golden/make_etalons.py has it.
Net mixed_network(uint64_t seed) {
  Net net("mixed", {1, 3, 14, 13});
  net.add("stem", conv2d(3, 8, 3, 1, 1));
  net.add("stem_bn", BatchNorm2d{8});
  net.add("relu_clipped", ReLU{0.75f});
  net.add("grouped", conv2d(8, 12, 3, 2, 1, 1, 2, false));
  net.add("grouped_bn", BatchNorm2d{12});
  net.add("relu", ReLU{});
  const int pool = net.add("pool", max_pool2d(3, 1, 1));
  const int body = net.add("body", conv2d(12, 12, 3, 1, 1));
  net.add("add", Add{}, {body, pool});
  const int added = net.add("relu_added", ReLU{});
  const int side = net.add("side", conv2d(12, 6, 1));
  AvgPool2d average{.kernel_h = 3, .kernel_w = 3, .stride_h = 1, .stride_w = 1, .pad_top = 1, .pad_left = 1,
                    .pad_bottom = 1, .pad_right = 1, .count_include_pad = false};
  const int avg = net.add("average", average, {added});
  net.add("join", Concat{}, {side, avg});
  net.add("join_bn", BatchNorm2d{18});
  net.add("relu_join", ReLU{1.25f});
  net.add("dilated", conv2d(18, 10, 3, 1, 2, 2));
  net.add("flatten", Flatten{});
  net.add("fc1", Linear{490, 20});
  net.add("relu_last", ReLU{});
  net.add("fc2", Linear{20, 5});
  net.weights = random_weights(net, seed);
  return net;
}

TEST_P(Etalon, WholeJacobianAndOffsetAgainstPyTorch) {
  const Safetensors file(std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/etalons.safetensors");
  const auto about = parse_json(file.metadata().at("golden"));
  const Net net = mixed_network(about["seed"]);
  const Tensor x = file.load("input");
  const TargetSpec all{"all", "", Score::logit};
  const auto& u = about["unit"];
  const TargetSpec unit{"max", fmt::format("{}:{}:{},{}", u["node"].get<std::string>(), u["channel"].get<int>(),
                                           u["row"].get<int>(), u["col"].get<int>()), Score::logit};
  for (const bool loaded : {true, false}) {
    EtalonOptions options;
    options.batch = 10;
    if (loaded) options.load_tape = file.path();
    const EtalonMaps got = etalons(ctx, net, x, all, {}, options);
    EXPECT_LT(relative_error(got.maps.values(), file.load("jacobian").values()), 1e-6);
    EXPECT_LT(relative_error(got.biases.values(), file.load("offset").values()), 1e-6);
    if (!loaded) expect_identity(got, "mixed");
  }
  for (const bool fields : {false, true}) {  // fields: one image at a time, without a tape file
    EtalonOptions options;
    options.fields = fields;
    const EtalonMaps got = etalons(ctx, net, x, unit, {}, options);
    EXPECT_LT(relative_error(got.maps.values(), file.load("unit.jacobian").values()), 1e-6);
    EXPECT_LT(relative_error(got.biases.values(), file.load("unit.offset").values()), 1e-6);
    expect_identity(got, "mixed unit");
  }
}

// --- Random graphs ---------------------------------------------------------------------------------------------------

RandomNetworkOptions sizes(bool emulated) {
  RandomNetworkOptions options;
  options.blocks = emulated ? 4 : 7;
  options.most_channels = emulated ? 6 : 14;
  if (emulated) options.input = {1, 2, 10, 9};
  return options;
}

TEST_P(Etalon, RandomGraphsKeepTheIdentity) {
  for (uint64_t seed = 0; seed < (device.emulated ? 5 : 30); ++seed) {
    const Net net = random_network(seed, sizes(device.emulated));
    const EtalonMaps all = etalons(ctx, net, random_input(net, seed, 2), {"all", "", Score::logit}, {});
    expect_identity(all, fmt::format("random network {}", seed));
    if (HasFailure()) return;
  }
}

// Every other piecewise-affine layer: what ramps, constants and paddings add, and what slopes do not.
TEST_P(Etalon, RareLayersKeepTheIdentity) {
  RandomNetworkOptions options = sizes(device.emulated);
  options.rare_layers = true;
  for (uint64_t seed = 300; seed < (device.emulated ? 308 : 340); ++seed) {
    const Net net = random_network(seed, options);
    const EtalonMaps all = etalons(ctx, net, random_input(net, seed, 2), {"all", "", Score::logit}, {});
    expect_identity(all, fmt::format("random network {}", seed));
    if (HasFailure()) return;
  }
}

TEST_P(Etalon, CoordinateAlgorithmAgrees) {
  for (uint64_t seed = 100; seed < (device.emulated ? 104 : 115); ++seed) {
    SCOPED_TRACE(seed);
    RandomNetworkOptions options = sizes(device.emulated);
    options.rare_layers = seed % 2 == 1;
    const Net net = random_network(seed, options);
    const Tensor x = random_input(net, seed);
    const TargetSpec spec{"all", "", Score::logit};
    const EtalonMaps single = etalons(ctx, net, x, spec, {}), coordinate = etalons(ctx, net, x, spec, {}, with_algorithm(kCoordinate));
    EXPECT_LT(relative_error(single.maps.values(), coordinate.maps.values()), 3e-6);
    for (size_t p = 0; p < single.inputs[0].checks.size(); ++p) {
      const EtalonCheck &a = single.inputs[0].checks[p], &b = coordinate.inputs[0].checks[p];
      EXPECT_NEAR(a.bias, b.bias, 3e-6 * a.magnitude);
      EXPECT_LE(b.residual(), EtalonCheck::kTolerance * a.magnitude);
    }
    if (HasFailure()) return;
  }
}

TEST_P(Etalon, CoordinateAlgorithmOnHiddenUnitsInAnyBatch) {
  const Net net = random_network(7, sizes(device.emulated));
  const Tensor x = random_input(net, 7);
  for (const char* layer : {"b0.conv:1:2,3", "b0.conv:1", "b0.conv:all"}) {
    const TargetSpec spec{"max", layer, Score::logit};
    EtalonOptions options = with_algorithm(kCoordinate);
    const EtalonMaps single = etalons(ctx, net, x, spec, {}), coordinate = etalons(ctx, net, x, spec, {}, options);
    EXPECT_LT(relative_error(single.maps.values(), coordinate.maps.values()), 1e-6) << layer;
    expect_identity(coordinate, layer);
    options.batch = 7;
    expect_same_bits(etalons(ctx, net, x, spec, {}, options).maps, coordinate.maps, "batch of coordinate images");
  }
}

// Nodes of a network whose units have places.
std::vector<int> nodes_with_places(const Net& net) {
  std::vector<int> nodes;
  const std::vector<Shape> shapes = net.shapes(net.input);
  for (size_t i = 1; i < net.nodes.size(); ++i)
    if (shapes[i].h * shapes[i].w > 1) nodes.push_back(int(i));
  return nodes;
}

// Every unit of a channel by receptive fields, overlapping and disjoint ones in one pass, is what whole maps give; and
// zero outside of its field, which single pixels show.
TEST_P(Etalon, ReceptiveFieldsGiveTheSameEtalons) {
  size_t compared = 0;
  for (uint64_t seed = 200; seed < (device.emulated ? 203 : 220); ++seed) {
    RandomNetworkOptions small = sizes(device.emulated);
    if (!device.emulated && seed % 2) small.strides = false, small.blocks = 5;
    small.rare_layers = seed % 3 == 0;
    const Net net = random_network(seed, small);
    const std::vector<int> nodes = nodes_with_places(net);
    const std::string name = net.nodes[size_t(nodes[seed % nodes.size()])].name;
    SCOPED_TRACE(fmt::format("network {} {}", seed, name));
    const Tensor x = random_input(net, seed);
    const TargetSpec spec{"max", name + ":max:all", Score::logit};
    EtalonOptions whole, fields;
    whole.fields = false;
    fields.batch = 5;  // places in several passes, the last of them not full
    const EtalonMaps a = etalons(ctx, net, x, spec, {}, whole), b = etalons(ctx, net, x, spec, {}, fields);
    EXPECT_LT(relative_error(b.maps.values(), a.maps.values()), 1e-6);
    for (size_t p = 0; p < a.inputs[0].checks.size(); ++p)
      EXPECT_NEAR(a.inputs[0].checks[p].bias, b.inputs[0].checks[p].bias, 1e-6 * a.inputs[0].checks[p].magnitude + 1e-30);
    expect_identity(b, "fields");
    compared += a.inputs[0].checks.size();
    if (HasFailure()) return;
  }
  EXPECT_GT(compared, 20u);
}

// All channels at one place, and each at its own strongest place: other ways to fill a pass.
TEST_P(Etalon, ReceptiveFieldsOfManyChannels) {
  const Net net = mixed_network(3);
  const Tensor x = random_input(net, 3, 2);
  for (const char* layer : {"body:all:2,4", "relu_added:all:max", "dilated:3:all", "side:all:0,0"}) {
    const TargetSpec spec{"max", layer, Score::logit};
    EtalonOptions whole, fields;
    whole.fields = false;
    for (const int64_t batch : {0, 3}) {
      fields.batch = batch;
      const EtalonMaps a = etalons(ctx, net, x, spec, {}, whole), b = etalons(ctx, net, x, spec, {}, fields);
      EXPECT_LT(relative_error(b.maps.values(), a.maps.values()), 1e-6) << layer;
      expect_identity(b, layer);
    }
  }
}

// A unit early in a network of padded convolutions has a small field; the engine must not run the rest.
TEST(EtalonFields, AreAsSmallAsTheyCanBe) {
  Context ctx;
  Net net = make_network("vgg16");
  const int node = net.find("features.14");  // conv3_3: 40x40 pixels, at every 4th
  net.weights = random_weights(net, 1);
  const Plan plan(ctx, net, {1, 3, 224, 224}, {.observe = {0, node}, .tape = true, .given = {0}});
  const auto box = [&](int64_t row, int64_t column) { return receptive_field(plan, node, row, column).boxes[0]; };
  EXPECT_EQ(box(28, 30), (FieldBox{94, 102, 40, 40}));
  EXPECT_EQ(box(0, 55), (FieldBox{0, 202, 22, 22}));
  EXPECT_EQ(receptive_field(plan, node, 20, 20).form(), receptive_field(plan, node, 31, 9).form());
  EXPECT_NE(receptive_field(plan, node, 20, 20).form(), receptive_field(plan, node, 20, 0).form());
}

// --- Batches, memory, what is refused --------------------------------------------------------------------------------

TEST_P(Etalon, BatchesDoNotChangeABit) {
  const Net net = random_network(11, sizes(device.emulated));
  const Tensor x = random_input(net, 11, 3);
  const TargetSpec spec{"all", "", Score::logit};
  const EtalonMaps all = etalons(ctx, net, x, spec, {});
  for (const int64_t batch : {1, 3, 5, 10, 15}) {
    EtalonOptions options;
    options.batch = batch;
    const EtalonMaps some = etalons(ctx, net, x, spec, {}, options);
    expect_same_bits(some.maps, all.maps, fmt::format("batch {}", batch));
    expect_same_bits(some.biases, all.biases, fmt::format("biases, batch {}", batch));
  }
}

TEST_P(Etalon, MemoryBoundsWhatRunsAtOnce) {
  const Net net = mixed_network(1);
  const TargetSpec spec{"all", "", Score::logit};
  EtalonOptions options;
  const Etalons most(ctx, net, net.input, spec, {}, options, 4);
  EXPECT_EQ(most.seeds(), 5);
  EXPECT_EQ(most.batch(), 4);
  const Plan plan(ctx, net, net.input, {});
  const size_t one = plan.tape_bytes() + std::max(plan.arena_bytes(), Backward(plan, net.output(), {.nodes = {0}}, 1).arena_bytes());
  options.memory = 4 * one;
  const Etalons fewer(ctx, net, net.input, spec, {}, options, 4);
  EXPECT_EQ(fewer.batch(), 1);
  EXPECT_LT(fewer.seeds(), 5);
  options.memory = one / 2;
  expect_error("allowed", [&] { Etalons(ctx, net, net.input, spec, {}, options, 4); });
}

// The offset is never taken from the output: with the gates of another image the identity must fail.
TEST_P(Etalon, TheResidualIsARealCheck) {
  const TempFolder folder;
  const Net net = mixed_network(2);
  const Tensor x = random_input(net, 1), other = random_input(net, 2);
  Plan plan(ctx, net, net.input, {});
  Tape tape;
  plan.write(other.data(), 1);
  plan.forward(&tape);
  save_tape(ctx, net, tape, folder / "other.safetensors");
  const TargetSpec spec{"all", "", Score::logit};
  EtalonOptions options;
  options.load_tape = folder / "other.safetensors";
  double worst = 0;
  const EtalonMaps maps = etalons(ctx, net, x, spec, {}, options);
  for (const EtalonCheck& check : maps.inputs[0].checks) worst = std::max(worst, check.relative());
  EXPECT_GT(worst, 1e-3);
  expect_identity(etalons(ctx, net, x, spec, {}), "its own gates");
}

TEST(EtalonRefusal, NamesTheLayerAndTheWayOut) {
  Context ctx;
  Net net("smooth", {1, 3, 8, 8});
  net.add("conv", conv2d(3, 4, 3, 1, 1));
  net.add("relu", ReLU{});
  net.add("lrn", LocalResponseNorm{});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{256, 3});
  net.add("softmax", Softmax{});
  net.weights = random_weights(net, 1);
  const auto run = [&](const TargetSpec& spec) { return etalons(ctx, net, random_input(net, 1), spec, {}); };
  try {
    run({"all", "", Score::logit});
    FAIL() << "went through";
  } catch (const Error& e) {
    EXPECT_TRUE(e.usage);
    EXPECT_NE(std::string(e.what()).find("lrn (LocalResponseNorm)"), std::string::npos) << e.what();
    EXPECT_NE(e.hint.find("--layer relu"), std::string::npos) << e.hint;
  }
  expect_identity(run({"max", "relu:all", Score::logit}), "before the smooth layer");
  expect_error("affine map", [&] { run({"max", "relu:all", Score::probability}); });
}

}  // namespace
}  // namespace switchback::test
