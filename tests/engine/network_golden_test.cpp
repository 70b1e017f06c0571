// Whole networks against PyTorch in float64 (tests/golden/make_golden.py): channel-reduced copies of every architecture
// with `random:SEED` weights, and LeNet as shipped. Logits, activations, and maps of the three rules for an output and a
// hidden unit: once with the reference's gates and switches loaded, once run freely, once on half the batch.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "engine/run/backward.h"
#include "engine/run/plan.h"
#include "engine/files/json.h"
#include "engine/files/safetensors.h"
#include "engine/zoo/zoo.h"
#include "kernels/noise/noise.h"
#include "kernels/pointwise/pointwise.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

struct Golden {
  Safetensors file;
  nlohmann::json about;
  test::Net network;

  explicit Golden(const std::string& name)
      : file(std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/" + name + ".safetensors"),
        about(parse_json(file.metadata().at("golden"))),
        network(make_network(about["model"].get<std::string>(),
                             {.divide_channels = about["divide_channels"],
                              .classes = about["classes"],
                              .side = about.value("side", int64_t(0))})) {
    const std::string weights = about["weights"];
    if (weights.starts_with("random:"))
      network.weights = random_weights(network, std::stoull(weights.substr(7)));
    else
      network.weights = load_weights(network, Safetensors(std::string(SWITCHBACK_SOURCE_DIR) + "/weights/" + weights));
  }
  Shape shape() const {
    const Dims d = file.dims("input");
    return {d[0], d[1], d[2], d[3]};
  }
};

double relative_error(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.dims(), b.dims());
  if (a.dims() != b.dims()) return 1e30;
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < a.count(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    norm += double(b[i]) * b[i];
  }
  EXPECT_GT(norm, 0) << "the reference is all zero";
  return std::sqrt(difference / norm);
}

struct NamedRule {
  const char* name;
  ReluRule rule;
};
constexpr NamedRule kRules[] = {{"gradient", kGradient}, {"deconv", kDeconv}, {"guided", kGuided}};

struct Pass {
  Pass(Golden& g, std::shared_ptr<Gpu> gpu)
      : golden(g), ctx(std::move(gpu)), unit_node(g.network.find(g.about["unit"]["node"].get<std::string>())), input(g.shape()) {}
  Golden& golden;
  Context ctx;
  int unit_node;
  Shape input;
  Tape tape;

  Plan plan(std::vector<int> observe, int64_t capacity = 0) {
    return Plan(ctx, golden.network, input.with_n(capacity ? capacity : input.n), {.observe = std::move(observe)});
  }
  void forward(Plan& p, const Tensor& x, int64_t first, int64_t n) {
    p.write(x.data() + first * input.item(), n);
    p.forward(&tape);
  }
  std::vector<SeedUnit> output_units(int64_t first, int64_t n) const {
    std::vector<SeedUnit> units;
    for (int64_t i = first; i < first + n; ++i) units.push_back({golden.about["targets"][size_t(i)], -1, -1});
    return units;
  }
  std::vector<SeedUnit> hidden_units() const {
    const auto& u = golden.about["unit"];
    return std::vector<SeedUnit>(size_t(input.n), {u["channel"], u["row"], u["col"]});
  }
  Tensor map(Plan& p, int from, const std::vector<SeedUnit>& units, ReluRule rule) {
    const int64_t n = int64_t(units.size());
    Backward backward(p, from, {.nodes = {0}}, n);
    one_hot(ctx, backward.seed(n), units);
    const ConstView g = backward.run(tape, {.rule = rule});
    Tensor out({n, input.c, input.h, input.w});
    read_nchw(ctx, g, out.data());
    return out;
  }
};

struct Row {
  const char* name;
  const test::DeviceRow* device;
  ConvAlgorithm algorithm;
};

class NetworkGolden : public testing::TestWithParam<Row> {
 protected:
  Golden golden{GetParam().name};
  Pass run{golden, GetParam().device->open()};
  void SetUp() override { run.ctx.conv = GetParam().algorithm; }
  void expect_activations();
  void expect_maps_with_the_references_tape();
};

void NetworkGolden::expect_activations() {
  std::vector<int> nodes;
  for (const auto& name : golden.about["activations"]) nodes.push_back(golden.network.find(name.get<std::string>()));
  nodes.push_back(run.unit_node);
  Plan plan = run.plan(nodes);
  run.forward(plan, golden.file.load("input"), 0, run.input.n);
  EXPECT_LT(relative_error(plan.read(golden.network.output()), golden.file.load("logits")), 1e-5);
  for (const auto& name : golden.about["activations"]) {
    const std::string node = name;
    EXPECT_LT(relative_error(plan.read(golden.network.find(node)), golden.file.load("activation." + node)), 1e-5) << node;
  }
  const Tensor values = plan.read(run.unit_node);
  const SeedUnit u = run.hidden_units()[0];
  for (int64_t n = 0; n < run.input.n; ++n) {
    const int64_t at = ((n * values.dim(1) + u.channel) * values.dim(2) + u.row) * values.dim(3) + u.col;
    const float expected = golden.file.load("unit.value")[n];
    EXPECT_NEAR(values[at], expected, 1e-5 * std::max(1.f, std::abs(expected)));
  }
}

TEST_P(NetworkGolden, LogitsAndActivations) { expect_activations(); }

void NetworkGolden::expect_maps_with_the_references_tape() {
  Plan plan = run.plan({run.unit_node});
  run.forward(plan, golden.file.load("input"), 0, run.input.n);
  load_tape(run.ctx, golden.network, run.tape, golden.file.path());
  for (const auto& [name, rule] : kRules) {
    EXPECT_LT(relative_error(run.map(plan, golden.network.output(), run.output_units(0, run.input.n), rule),
                             golden.file.load(name)), 1e-5) << name;
    EXPECT_LT(relative_error(run.map(plan, run.unit_node, run.hidden_units(), rule),
                             golden.file.load(std::string("unit.") + name)), 1e-5) << "unit." << name;
  }
}

TEST_P(NetworkGolden, MapsWithTheReferencesGatesAndSwitches) { expect_maps_with_the_references_tape(); }

// Networks that would be too slow on the emulated device with all the tests below.
class SlowNetworkGolden : public NetworkGolden {};

TEST_P(SlowNetworkGolden, ActivationsAndMaps) {
  expect_activations();
  expect_maps_with_the_references_tape();
}

// The inputs were chosen so that no gate or switch is near a tie (LeNet's flat backgrounds tie exactly instead, in both).
TEST_P(NetworkGolden, GatesAndSwitchesRunFreely) {
  const test::TempFolder folder;
  Plan plan = run.plan({run.unit_node});
  run.forward(plan, golden.file.load("input"), 0, run.input.n);
  const std::string path = folder / "tape.safetensors";
  save_tape(run.ctx, golden.network, run.tape, path);
  const Safetensors ours(path);
  int compared = 0;
  for (const std::string& name : ours.names()) {
    ASSERT_TRUE(golden.file.has(name)) << name;
    const auto a = ours.load_ints(name), b = golden.file.load_ints(name);
    ASSERT_EQ(a.size(), b.size()) << name;
    size_t differ = 0;
    for (size_t i = 0; i < a.size(); ++i) differ += a[i] != b[i];
    EXPECT_EQ(differ, 0u) << name << ": " << differ << " of " << a.size() << " differ";
    ++compared;
  }
  EXPECT_GE(compared, 4);
  for (const auto& [name, rule] : kRules)
    EXPECT_LT(relative_error(run.map(plan, golden.network.output(), run.output_units(0, run.input.n), rule),
                             golden.file.load(name)), 1e-5) << name;
}

// The same bits whether images run alone, together, or in a plan made for more of them, and by how many threads.
TEST_P(NetworkGolden, BatchSplitChangesNothing) {
  const Tensor x = golden.file.load("input");
  run.ctx.threads = 2;
  Plan whole = run.plan({run.unit_node});
  run.forward(whole, x, 0, run.input.n);
  const Tensor logits = whole.read(golden.network.output());
  const Tensor maps = run.map(whole, golden.network.output(), run.output_units(0, run.input.n), kGuided);
  Plan single = run.plan({run.unit_node}, 3);
  for (int64_t n = 0; n < run.input.n; ++n) {
    run.ctx.threads = int(1 + n % 2);
    run.forward(single, x, n, 1);
    const Tensor one = single.read(golden.network.output());
    for (int64_t k = 0; k < one.count(); ++k) ASSERT_EQ(one[k], logits[n * one.count() + k]) << "image " << n;
    const Tensor map = run.map(single, golden.network.output(), run.output_units(n, 1), kGuided);
    for (int64_t i = 0; i < map.count(); ++i) ASSERT_EQ(map[i], maps[n * map.count() + i]) << "image " << n << " at " << i;
  }
}

// All outputs of one image from one tape, in one batch of seeds by two threads: as one by one by a single thread.
TEST_P(NetworkGolden, ManySeedsShareOneTape) {
  Plan plan = run.plan({run.unit_node});
  run.forward(plan, golden.file.load("input"), 0, 1);
  const int64_t classes = plan.shapes().back().c;
  std::vector<SeedUnit> all;
  for (int64_t k = 0; k < classes; ++k) all.push_back({k, -1, -1});
  for (const auto& [name, rule] : kRules) {
    run.ctx.threads = 2;
    Backward backward(plan, golden.network.output(), {.nodes = {0}}, classes);
    one_hot(run.ctx, backward.seed(classes), all);
    Tensor maps({classes, run.input.c, run.input.h, run.input.w});
    read_nchw(run.ctx, backward.run(run.tape, {.rule = rule, .seeds_per_item = classes}), maps.data());
    double total = 0;
    run.ctx.threads = 1;
    for (int64_t k = 0; k < classes; ++k) {
      const Tensor one = run.map(plan, golden.network.output(), {{k, -1, -1}}, rule);
      for (int64_t i = 0; i < one.count(); ++i) {
        ASSERT_EQ(one[i], maps[k * one.count() + i]) << name << " class " << k;
        total += std::abs(one[i]);
      }
    }
    EXPECT_GT(total, 0);
  }
}

std::string test_name(const testing::TestParamInfo<Row>& info) {
  constexpr const char* kNames[] = {"auto", "direct", "winograd", "own", "gemm", "cudnn"};
  const std::string name = std::string(info.param.name) + "_" + kNames[int(info.param.algorithm)];
  return info.param.device->gpu ? name + "_" + info.param.device->name : name;
}

constexpr const char* kSmall[] = {"lenet",    "lenet_noisy", "alexnet",  "vgg11",    "vgg13",
                                  "vgg16",    "vgg19",       "vgg11_bn", "vgg13_bn", "vgg16_bn",
                                  "vgg19_bn", "resnet18",    "resnet34", "autoencoder", "resnet20"};
constexpr const char* kSlow[] = {"resnet50",        "resnet101",           "resnet152",     "wide_resnet50_2",
                                 "resnext50_32x4d", "resnet50_dilated011", "squeezenet1_0", "squeezenet1_1",
                                 "googlenet",       "mobilenet_v2",        "caffenet",      "context",
                                 "encoder_decoder"};

// slow: kSlow on the emulated device; else all that remains.
std::vector<Row> rows(bool slow) {
  using enum ConvAlgorithm;
  std::vector<Row> all;
  for (const test::DeviceRow& device : test::devices()) {
    if (!device.why_not().empty()) continue;  // counted as skipped by Op/Conv
    for (const ConvAlgorithm algorithm : device.gpu ? std::vector{own} : std::vector{automatic, direct, winograd}) {
      if (!slow)
        for (const char* name : kSmall) all.push_back({name, &device, algorithm});
      if (slow == device.emulated)
        for (const char* name : kSlow) all.push_back({name, &device, algorithm});
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Zoo, NetworkGolden, testing::ValuesIn(rows(false)), test_name);
INSTANTIATE_TEST_SUITE_P(Zoo, SlowNetworkGolden, testing::ValuesIn(rows(true)), test_name);

// Gradients with respect to an inner layer: chained through it they give the gradient at the input.
class InnerLayers : public test::OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(InnerLayers);

TEST_P(InnerLayers, BackwardStopsAtAnyLayer) {
  Golden golden("resnet18");
  Pass run{golden, ctx.gpu};
  const int middle = golden.network.find("layer2.0.relu_1");
  Plan plan = run.plan({middle});
  run.forward(plan, golden.file.load("input"), 0, 1);
  Backward upper(plan, golden.network.output(), {.nodes = {middle}}, 1), lower(plan, middle, {.nodes = {0}}, 1);
  one_hot(run.ctx, upper.seed(1), run.output_units(0, 1));
  const ConstView at_middle = upper.run(run.tape);
  const size_t bytes = size_t(at_middle.shape.count()) * sizeof(float);
  const Memory kept = run.ctx.allocate(bytes);  // seeds are written where it lies
  run.ctx.copy(kept.data(), at_middle.data, bytes);
  run.ctx.copy(lower.seed(1).data, kept.data(), bytes);
  const ConstView at_input = lower.run(run.tape);
  Tensor chained({1, run.input.c, run.input.h, run.input.w});
  read_nchw(run.ctx, at_input, chained.data());
  EXPECT_LT(relative_error(chained, golden.file.load("gradient")), 1e-5);
}

}  // namespace
}  // namespace switchback
