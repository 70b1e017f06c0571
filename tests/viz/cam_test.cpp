// Class activation maps: against PyTorch in float64 (tests/golden/cams.py), against the papers' equations computed
// naively from values and gradients, by the identities that tie them together, and which networks have which.
#include "engine/run/backward.h"
#include "viz/methods/cam.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "engine/files/json.h"
#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "engine/zoo/zoo.h"
#include "kernels/noise/noise.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/inspect.h"
#include "viz/pictures/render.h"

namespace switchback::test {
namespace {

using nlohmann::json;
const std::string kGolden = std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/";
const std::string kDigit = std::string(SWITCHBACK_SOURCE_DIR) + "/weights/samples/digit_3.png";

Tensor wave(Dims dims, float shift = 0) {
  Tensor t(std::move(dims));
  for (int64_t i = 0; i < t.count(); ++i) t[i] = std::sin(0.7f * float(i) + shift) + 0.3f * std::cos(0.05f * float(i));
  return t;
}

double largest(std::span<const float> v) {
  double m = 0;
  for (float x : v) m = std::max(m, std::abs(double(x)));
  return m;
}

void expect_near(std::span<const float> got, std::span<const float> want, double relative, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  const double scale = largest(want);
  ASSERT_GT(scale, 0) << what << ": all zero proves nothing";
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], relative * scale) << what << " at " << i;
}

// Pooled maps weighed by a linear layer, with what may stand in between. Values of `maps` are of both signs.
Net gap_network(const Layer& pool, bool conv_classifier = false, const Layer& flatten = Flatten{}) {
  Net net("gap", {1, 2, 9, 7});
  net.add("stem", conv2d(2, 4, 3, 2, 1));  // [4,5,4]
  net.add("relu", ReLU{});
  net.add("maps", conv2d(4, 6, 3, 1, 1));
  net.add("drop1", Dropout{});
  net.add("pool", pool);
  if (!conv_classifier) net.add("flatten", flatten);
  net.add("drop2", Dropout{});
  net.add("fc", conv_classifier ? Layer{conv2d(6, 5, 1)} : Layer{Linear{6, 5, true}});
  if (conv_classifier) net.add("flatten", Flatten{});
  net.add("softmax", Softmax{});
  net.weights = random_weights(net, 5);
  return net;
}

const AvgPool2d kWholeMap{.kernel_h = 5, .kernel_w = 4, .stride_h = 1, .stride_w = 1};

// One map for each class, pooled: Zhang's head, and SqueezeNet's.
Net class_map_network(const Layer& pool) {
  Net net("class maps", {1, 2, 9, 7});
  net.add("stem", conv2d(2, 4, 3, 2, 1));
  net.add("classes", conv2d(4, 5, 3, 1, 1));
  net.add("relu", ReLU{});
  net.add("pool", pool);
  net.add("flatten", Flatten{});
  net.weights = random_weights(net, 6);
  return net;
}

Cams cams_of(Context& ctx, const Net& net, const Tensor& x, const std::string& target, CamMethod method,
             std::vector<int> layers = {}, Score score = Score::logit, int64_t batch = 0) {
  CamOptions options;
  options.method = method;
  options.layers = std::move(layers);
  options.batch = batch;
  return class_activation_maps(ctx, net, x, {target, "", score}, {}, options);
}

// --- PyTorch in float64 ----------------------------------------------------------------------------------------------

struct GoldenRow {
  const char* model;
  const DeviceRow* device;
};

class CamGolden : public testing::TestWithParam<GoldenRow> {
 protected:
  Context ctx{GetParam().device->open()};
  const std::string model = GetParam().model;
  Safetensors maps{kGolden + "cams.safetensors"}, base{kGolden + model + ".safetensors"};
  json about = parse_json(maps.metadata().at("cams"))[model], facts = parse_json(base.metadata().at("golden"));
  Net network = make_network(facts["model"].get<std::string>(),
                                 {.divide_channels = facts["divide_channels"], .classes = facts["classes"]});
  std::string targets = fmt::format("{},{}", about["targets"][0].get<int>(), about["targets"][1].get<int>());
  std::vector<int> layers;

  void SetUp() override {
    const std::string weights = facts["weights"];
    if (weights.starts_with("random:"))
      network.weights = random_weights(network, std::stoull(weights.substr(7)));
    else
      network.weights = load_weights(network, Safetensors(std::string(SWITCHBACK_SOURCE_DIR) + "/weights/" + weights));
    for (const json& layer : about["layers"]) layers.push_back(network.find(layer.get<std::string>()));
  }
  // Compares all that is stored of a method: where Grad-CAM's ReLU left nothing, nothing is.
  void compare(CamMethod method, const std::string& method_name) {
    using Named = std::pair<Score, const char*>;
    std::vector<Named> scores = {{Score::logit, "logit"}};
    if (!GetParam().device->emulated)  // scores differ in their seeds alone, and it is slow
      scores.insert(scores.end(), {Named{Score::probability, "probability"}, Named{Score::nll, "nll"}});
    // Of the gradients' own error, e: Grad-CAM++ weighs relu(g) by g^2 / (2 g^2 + sum of A g^3), which carries
    // (2 + 1) e from its numerator and relu(g), and up to (3 + 1) e from the denominator.
    const double of_logits = 2e-5 * (method == CamMethod::gradcam_plus_plus ? 7 : 1);
    // Seeds of the other scores are made of softmax, whose error is that of the logits: 1e-5 of the largest, twice.
    const double of_softmax = of_logits * (1 + largest(logits(ctx, network, base.load("input")).values()));
    size_t compared = 0;
    for (const auto& [score, score_name] : scores) {
      const Cams cams = cams_of(ctx, network, base.load("input"), targets, method, layers, score);
      for (size_t l = 0; l < layers.size(); ++l) {
        const std::string& layer = network.nodes[size_t(layers[l])].name;
        const std::string name = fmt::format("{}.{}.{}.{}", model, score_name, method_name, layer);
        if (!maps.has(name)) continue;
        EXPECT_EQ(cams.maps[l].dims(), maps.dims(name)) << name;
        expect_near(cams.maps[l].values(), maps.load(name).values(),
                    score == Score::logit ? of_logits : of_softmax, name);
        ++compared;
      }
    }
    EXPECT_GE(compared, 2 * scores.size() - 1);
  }
};

TEST_P(CamGolden, GradCamOfAllScoresAndLayers) { compare(CamMethod::gradcam, "gradcam"); }
TEST_P(CamGolden, GradCamPlusPlusOfAllScoresAndLayers) { compare(CamMethod::gradcam_plus_plus, "gradcam++"); }

TEST_P(CamGolden, ExactAndGuidedAtTheDefaultLayer) {
  const Tensor x = base.load("input");
  const std::string guided_name = model + ".guided-gradcam", cam_name = model + ".cam";
  EXPECT_EQ(last_map_node(network, {1, x.dim(1), x.dim(2), x.dim(3)}), layers[0]);
  if (maps.has(guided_name)) {
    const Tensor first = batch_item(x, 0);
    const Cams cams =
        cams_of(ctx, network, first, std::to_string(about["targets"][0].get<int>()), CamMethod::guided_gradcam);
    EXPECT_EQ(cams.guided.dims(), maps.dims(guided_name));
    expect_near(cams.guided.values(), maps.load(guided_name).values(), 2e-5, guided_name);
  }
  EXPECT_EQ(maps.has(cam_name), model == "resnet18");
  if (!maps.has(cam_name)) return;
  const Cams cams = cams_of(ctx, network, x, targets, CamMethod::cam);
  EXPECT_EQ(cams.layers, std::vector{layers[0]});
  EXPECT_EQ(cams.maps[0].dims(), maps.dims(cam_name));
  expect_near(cams.maps[0].values(), maps.load(cam_name).values(), 2e-5, cam_name);
}

std::vector<GoldenRow> golden_rows() {
  std::vector<GoldenRow> rows;
  for (const DeviceRow& device : devices()) {
    if (!device.why_not().empty()) continue;  // counted as skipped by the suites below
    for (const char* model : {"resnet18", "vgg11", "lenet_noisy"}) rows.push_back({model, &device});
  }
  return rows;
}
INSTANTIATE_TEST_SUITE_P(Zoo, CamGolden, testing::ValuesIn(golden_rows()), [](const auto& info) {
  return fmt::format("{}_{}", info.param.model, info.param.device->name);
});

// --- The equations, naively ------------------------------------------------------------------------------------------

// Values and gradients of one layer, as the equations want them.
struct Naive {
  Tensor a, g;  // [1,C,h,w]
  double score;
  Naive(Context& ctx, const Net& net, const Tensor& x, int layer, Unit unit, Score kind) {
    Plan plan(ctx, net, {1, x.dim(1), x.dim(2), x.dim(3)}, {.observe = {layer, unit.node}});
    Tape tape;
    plan.write(x.data(), 1);
    plan.forward(&tape);
    a = plan.read(layer);
    const Tensor values = plan.read(unit.node);
    score = score_of(unit, kind, values);
    Backward backward(plan, unit.node, {.nodes = {layer}}, 1);
    write_seeds(ctx, {&unit, 1}, kind, values, 1, backward.seed(1));
    const ConstView view = backward.run(tape);
    g = Tensor(a.dims());
    read_nchw(ctx, view, g.data());
  }
  double at(const Tensor& t, int64_t k, int64_t i) const { return t[k * a.dim(2) * a.dim(3) + i]; }
  // ReLU of the maps weighed by weight(k).
  template <typename Weight>
  std::vector<float> map(Weight&& weight) const {
    std::vector<float> out;
    for (int64_t i = 0; i < a.dim(2) * a.dim(3); ++i) {
      double sum = 0;
      for (int64_t k = 0; k < a.dim(1); ++k) sum += weight(k) * at(a, k, i);
      out.push_back(float(std::max(0.0, sum)));
    }
    return out;
  }
};

class CamEquations : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(CamEquations);

TEST_P(CamEquations, GradCam) {
  const Net net = gap_network(AdaptiveAvgPool2d{});
  const Tensor x = wave({1, 2, 9, 7});
  for (const char* layer : {"relu", "maps", "stem", "x"})
    for (const Score score : {Score::logit, Score::probability, Score::nll}) {
      const int node = net.find(layer);
      const Naive naive(ctx, net, x, node, {logit_node(net), 2}, score);
      const auto alpha = [&](int64_t k) {  // eq. 1
        double sum = 0;
        for (int64_t i = 0; i < naive.a.dim(2) * naive.a.dim(3); ++i) sum += naive.at(naive.g, k, i);
        return sum / double(naive.a.dim(2) * naive.a.dim(3));
      };
      const Cams cams = cams_of(ctx, net, x, "2", CamMethod::gradcam, {node}, score);
      const std::vector<float> want = naive.map(alpha);
      if (largest(want) > 0)
        expect_near(cams.maps[0].values(), want, 1e-6, layer);
      else
        EXPECT_EQ(largest(cams.maps[0].values()), 0) << layer;
      EXPECT_DOUBLE_EQ(cams.explained[0].scores[0], naive.score);
    }
}

// The closed form with Y = exp(S) written out: all three derivatives carry exp(S), and only ∂Y/∂A keeps it.
TEST_P(CamEquations, GradCamPlusPlus) {
  const Net net = gap_network(AdaptiveAvgPool2d{});
  const Tensor x = wave({1, 2, 9, 7});
  for (const char* layer : {"relu", "maps"}) {
    const int node = net.find(layer);
    const Naive naive(ctx, net, x, node, {logit_node(net), 1}, Score::logit);
    const int64_t places = naive.a.dim(2) * naive.a.dim(3);
    const double y = std::exp(naive.score);
    const auto weight = [&](int64_t k) {
      double w = 0, sum = 0;
      for (int64_t i = 0; i < places; ++i) sum += naive.at(naive.a, k, i);
      for (int64_t i = 0; i < places; ++i) {
        const double g = naive.at(naive.g, k, i), first = y * g, second = y * g * g, third = y * g * g * g;
        if (g != 0) w += second / (2 * second + sum * third) * std::max(first, 0.0);
      }
      return w / y;
    };
    const Cams cams = cams_of(ctx, net, x, "1", CamMethod::gradcam_plus_plus, {node});
    expect_near(cams.maps[0].values(), naive.map(weight), 1e-6, layer);
  }
}

TEST_P(CamEquations, ProductsOfGradientsAndMaps) {
  const Net net = gap_network(AdaptiveAvgPool2d{});
  const Tensor x = wave({1, 2, 9, 7});
  int filled = 0;
  for (const char* layer : {"relu", "maps", "x"}) {
    const int node = net.find(layer);
    for (int64_t target = 1; target < 4; ++target) {
      const Naive naive(ctx, net, x, node, {logit_node(net), target}, Score::logit);
      const int64_t places = naive.a.dim(2) * naive.a.dim(3), channels = naive.a.dim(1);
      std::vector<float> hires, layers;
      for (int64_t i = 0; i < places; ++i) {
        double all = 0, positive = 0;
        for (int64_t k = 0; k < channels; ++k) {
          all += naive.at(naive.g, k, i) * naive.at(naive.a, k, i);
          positive += std::max(0.0, naive.at(naive.g, k, i)) * naive.at(naive.a, k, i);
        }
        hires.push_back(float(std::max(0.0, all)));
        layers.push_back(float(std::max(0.0, positive)));
      }
      const auto xgrad = naive.map([&](int64_t k) {
        double weight = 0, sum = 0;
        for (int64_t i = 0; i < places; ++i) {
          weight += naive.at(naive.g, k, i) * naive.at(naive.a, k, i);
          sum += naive.at(naive.a, k, i);
        }
        return sum == 0 ? 0 : weight / sum;
      });
      const std::string text = std::to_string(target);
      const auto near = [&](CamMethod method, const std::vector<float>& want) {
        const Cams cams = cams_of(ctx, net, x, text, method, {node});
        const double scale = std::max(largest(want), 1e-30);
        for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(cams.maps[0][int64_t(i)], want[i], 2e-6 * scale) << layer << " " << int(method);
        return largest(want) > 0;
      };
      filled += int(near(CamMethod::hirescam, hires)) + int(near(CamMethod::layercam, layers)) + int(near(CamMethod::xgradcam, xgrad));
    }
  }
  EXPECT_GE(filled, 20) << "too many of the 27 maps are all zero";
}

// Behind a stride the gradients are computed by hand from the plan's own: biases of the two convolutions and of the batch norm
// that is one with the first; not of the linear layer.
TEST_P(CamEquations, AllBiases) {
  Net net("biases", {1, 2, 9, 7});
  net.add("stem", conv2d(2, 4, 3, 2, 1));
  net.add("norm", BatchNorm2d{4});
  net.add("relu", ReLU{});
  net.add("maps", conv2d(4, 3, 3, 1, 1));
  net.add("relu2", ReLU{});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{60, 3, true});
  net.weights = random_weights(net, 12);
  const Tensor x = wave({2, 2, 9, 7});
  CamOptions options;
  options.method = CamMethod::fullgrad;
  const Cams cams = class_activation_maps(ctx, net, x, {"2,0", "", Score::logit}, {}, options);
  ASSERT_EQ(cams.maps[0].dims(), (Dims{2, 2, 9, 7}));
  const auto parameter = [&](const char* layer, const char* name) { return net.weights.tensor(net.find(layer), name); };
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t t = 0; t < 2; ++t) {
      std::vector<double> sum(63, 0);
      const auto add = [&](const Naive& at, const auto& factor) {
        const int h = int(at.a.dim(2)), w = int(at.a.dim(3));
        for (int64_t k = 0; k < at.a.dim(1); ++k) {
          std::vector<float> v;
          for (int64_t p = 0; p < h * w; ++p) v.push_back(float(std::abs(factor(k, p) * at.at(at.g, k, p))));
          const auto [lo, hi] = std::ranges::minmax(v);
          if (hi == lo) continue;
          for (float& e : v) e = (e - lo) / (hi - lo);
          const std::vector<float> large = bilinear_map(v.data(), h, w, 9, 7);
          for (size_t p = 0; p < 63; ++p) sum[p] += double(large[p]);
        }
      };
      const Tensor one = batch_item(x, i);
      const Unit unit{logit_node(net), t ? 0 : 2};
      add({ctx, net, one, 0, unit, Score::logit}, [&](int64_t k, int64_t p) { return double(one[k * 63 + p]); });
      add({ctx, net, one, net.find("norm"), unit, Score::logit}, [&](int64_t k, int64_t) {
        const double slope = double(parameter("norm", "weight")[k]) / std::sqrt(double(parameter("norm", "running_var")[k]) + 1e-5);
        return slope * (double(parameter("stem", "bias")[k]) - double(parameter("norm", "running_mean")[k])) + double(parameter("norm", "bias")[k]);
      });
      add({ctx, net, one, net.find("maps"), unit, Score::logit}, [&](int64_t k, int64_t) { return double(parameter("maps", "bias")[k]); });
      const std::vector<float> want(sum.begin(), sum.end());
      expect_near(cams.maps[0].values().subspan(size_t((i * 2 + t) * 63), 63), want, 1e-5, "fullgrad");
    }
}

// Of places q with the sum 0, x_k = a_k + b_k q has the one direction b: the projection is ‖b‖ q, with the sign of Σb. Few
// channels and many places, and the other way round.
TEST_P(CamEquations, FirstPrincipalComponent) {
  for (const Shape s : {Shape{1, 3, 4, 5}, Shape{1, 9, 2, 2}}) {
    Net net("flat", s);
    net.add("fc", conv2d(int(s.c), 2, 1));
    net.add("pool", AdaptiveAvgPool2d{});
    net.add("flatten", Flatten{});
    net.weights = random_weights(net, 3);
    const int64_t places = s.h * s.w;
    for (const float sign : {1.f, -1.f}) {
      Tensor x({1, s.c, s.h, s.w});
      std::vector<float> want;
      double squares = 0;
      for (int64_t k = 0; k < s.c; ++k) squares += std::pow(0.5 + 0.1 * double(k), 2);
      for (int64_t i = 0; i < places; ++i) {
        const double q = std::sin(1.3 * double(i)) - std::sin(1.3 * double(places - 1 - i));  // adds up to 0
        for (int64_t k = 0; k < s.c; ++k) x[k * places + i] = float(0.2 * double(k) + sign * (0.5 + 0.1 * double(k)) * q);
        want.push_back(float(std::max(0.0, double(sign) * q * std::sqrt(squares))));
      }
      const Cams cams = cams_of(ctx, net, x, "0,1", CamMethod::eigencam, {0});
      for (int64_t t = 0; t < 2; ++t)
        expect_near(cams.maps[0].values().subspan(size_t(t * places), size_t(places)), want, 1e-5, "eigencam");
    }
  }
}

TEST_P(CamEquations, ScoresOfMaskedImages) {
  const Net net = gap_network(AdaptiveAvgPool2d{});
  const Tensor x = wave({2, 2, 9, 7});
  const int node = net.find("maps");
  for (const Score score : {Score::logit, Score::probability}) {
    const Cams cams = cams_of(ctx, net, x, "3,1", CamMethod::scorecam, {node}, score);
    const Tensor maps = activations(ctx, net, x, node);  // [2,6,5,4]
    for (int64_t i = 0; i < 2; ++i)
      for (int64_t t = 0; t < 2; ++t) {
        std::vector<double> scores, sum(20, 0);
        for (int64_t k = 0; k < 6; ++k) {
          const std::vector<float> large = bilinear_map(maps.data() + (i * 6 + k) * 20, 5, 4, 9, 7);
          const auto [lo, hi] = std::ranges::minmax(large);
          Tensor masked({1, 2, 9, 7});
          for (int64_t e = 0; e < 126; ++e) masked[e] = x[i * 126 + e] * (large[size_t(e % 63)] - lo) / (hi - lo);
          scores.push_back(score_of({logit_node(net), t ? 1 : 3}, score, activations(ctx, net, masked, logit_node(net))));
        }
        double total = 0;
        for (const double s : scores) total += std::exp(s);
        for (int64_t k = 0; k < 6; ++k)
          for (int64_t p = 0; p < 20; ++p) sum[size_t(p)] += std::exp(scores[size_t(k)]) / total * double(maps[(i * 6 + k) * 20 + p]);
        std::vector<float> want;
        for (const double v : sum) want.push_back(float(std::max(0.0, v)));
        expect_near(cams.maps[0].values().subspan(size_t((i * 2 + t) * 20), 20), want, 1e-5, "scorecam");
      }
  }
}

// Behind the maps all is linear: taking out channel k takes fc_k · mean(A_k) from the logit. The second network adds what lies
// before the layer behind it: that stays.
TEST_P(CamEquations, ScoresWithoutAChannel) {
  Net around("around", {1, 2, 9, 7});
  around.add("stem", conv2d(2, 6, 3, 2, 1));
  around.add("relu", ReLU{});
  around.add("maps", conv2d(6, 6, 3, 1, 1), {2});
  around.add("sum", Add{}, {2, 3});
  around.add("pool", AdaptiveAvgPool2d{});
  around.add("flatten", Flatten{});
  around.add("fc", Linear{6, 5, true});
  around.weights = random_weights(around, 9);
  for (const Net& net : {gap_network(AdaptiveAvgPool2d{}), around}) {
    const Tensor x = wave({2, 2, 9, 7});
    const int node = net.find("maps");
    const Tensor maps = activations(ctx, net, x, node), logits = activations(ctx, net, x, logit_node(net));
    const Tensor row = net.weights.tensor(net.find("fc"), "weight");
    const Cams cams = cams_of(ctx, net, x, "all", CamMethod::ablationcam, {node}, Score::logit, 4);
    for (int64_t m = 0; m < 10; ++m) {
      std::vector<double> sum(20, 0);
      for (int64_t k = 0; k < 6; ++k) {
        const float* a = maps.data() + (m / 5 * 6 + k) * 20;
        double mean = 0;
        for (int64_t p = 0; p < 20; ++p) mean += double(a[p]) / 20;
        for (int64_t p = 0; p < 20; ++p) sum[size_t(p)] += double(row[m % 5 * 6 + k]) * mean / double(logits[m]) * double(a[p]);
      }
      std::vector<float> want;
      for (const double v : sum) want.push_back(float(std::max(0.0, v)));
      if (largest(want) > 0) expect_near(cams.maps[0].values().subspan(size_t(m * 20), 20), want, 2e-4, net.name);
    }
  }
}

TEST_P(CamEquations, ScoresUnderRandomMasks) {
  const Net net = gap_network(AdaptiveAvgPool2d{});
  const Tensor x = wave({1, 2, 9, 7});
  CamOptions options;
  options.method = CamMethod::rise;
  options.masks = 12, options.grid = 2, options.keep = 0.25, options.seed = (uint64_t{5} << 32) + 9, options.batch = 5;
  const Cams cams = class_activation_maps(ctx, net, x, {"all", "", Score::logit}, {}, options);
  ASSERT_EQ(cams.maps[0].dims(), (Dims{1, 5, 9, 7}));
  std::vector<double> sums(5 * 63, 0);
  for (uint32_t m = 0; m < 12; ++m) {
    const auto u = [&](uint32_t e) { return (double(philox4x32({e / 4, 3, m, 0}, {9, 5})[e % 4] >> 8) + 0.5) / (1 << 24); };
    std::vector<float> cells;
    for (uint32_t e = 0; e < 4; ++e) cells.push_back(u(2 + e) < 0.25 ? 1.f : 0.f);
    const std::vector<float> large = bilinear_map(cells.data(), 2, 2, 15, 12);  // cells of 5 and 4 pixels, and one more
    const int64_t down = int64_t(u(0) * 5), right = int64_t(u(1) * 4);
    Tensor masked({1, 2, 9, 7});
    const auto at = [&](int64_t p) { return large[size_t((p / 7 + down) * 12 + p % 7 + right)]; };
    for (int64_t e = 0; e < 126; ++e) masked[e] = x[e] * at(e % 63);
    const Tensor logits = activations(ctx, net, masked, logit_node(net));
    for (int64_t t = 0; t < 5; ++t)
      for (int64_t p = 0; p < 63; ++p) sums[size_t(t * 63 + p)] += double(logits[t]) * double(at(p)) / (12 * 0.25);
  }
  expect_near(cams.maps[0].values(), std::vector<float>(sums.begin(), sums.end()), 1e-5, "rise");
}

TEST_P(CamEquations, GuidedIsTheProductWithGuidedBackpropagation) {
  const Net net = gap_network(AdaptiveAvgPool2d{});
  const Tensor x = wave({2, 2, 9, 7});
  GradientOptions guided;
  guided.rule = kGuided;
  const Maps back = gradient(ctx, net, x, {"all", "", Score::logit}, {}, guided);
  const Cams cams = cams_of(ctx, net, x, "all", CamMethod::guided_gradcam, {net.find("maps")});
  ASSERT_EQ(cams.guided.dims(), (Dims{2, 5, 2, 9, 7}));
  EXPECT_EQ(cams.maps[0].dims(), (Dims{2, 5, 5, 4}));
  int filled = 0;
  for (int64_t m = 0; m < 10; ++m) {
    const std::vector<float> large = bilinear_map(cams.maps[0].data() + m * 20, 5, 4, 9, 7);
    filled += largest(large) > 0;
    for (int64_t e = 0; e < 126; ++e)
      ASSERT_FLOAT_EQ(cams.guided[m * 126 + e], back.values[m * 126 + e] * large[size_t(e % 63)]) << m << " at " << e;
  }
  EXPECT_GE(filled, 5) << "too many maps are all zero";
}

// Without its bias a logit is the mean of its map; and Grad-CAM is then ReLU(M_c / places).
TEST_P(CamEquations, ExactMapsAddUpToTheLogit) {
  for (const Net& net :
       {gap_network(AdaptiveAvgPool2d{}), gap_network(kWholeMap), gap_network(AdaptiveAvgPool2d{}, true),
        gap_network(Reduce{.h = true, .w = true}, false, Reshape{.c = 6})}) {
    const Tensor x = wave({2, 2, 9, 7});
    const Cams cams = cams_of(ctx, net, x, "all", CamMethod::cam);
    ASSERT_EQ(cams.maps[0].dims(), (Dims{2, 5, 5, 4}));
    EXPECT_EQ(cams.layers, std::vector{net.find("maps")});
    EXPECT_FALSE(cams.from_zero);
    const Tensor logits = activations(ctx, net, x, logit_node(net));
    const Tensor bias = net.weights.tensor(net.find("fc"), "bias");
    const Cams gradients = cams_of(ctx, net, x, "all", CamMethod::gradcam, {net.find("maps")});
    std::vector<float> positive;
    for (int64_t m = 0; m < 10; ++m) {
      double mean = 0, terms = 0;
      for (int64_t i = 0; i < 20; ++i) {
        const float v = cams.maps[0][m * 20 + i];
        mean += v / 20, terms += std::abs(v) / 20;
        positive.push_back(std::max(0.f, v) / 20);
      }
      EXPECT_NEAR(mean + bias[m % 5], logits[m], 1e-5 * (terms + std::abs(bias[m % 5]))) << m;
    }
    expect_near(gradients.maps[0].values(), positive, 1e-5, "Grad-CAM");
  }
}

TEST_P(CamEquations, MapsOfTheClassesThemselves) {
  for (const Layer& pool : {Layer{AdaptiveAvgPool2d{}}, Layer{kWholeMap}, Layer{GlobalMaxPool{}},
                            Layer{MaxPool2d{.kernel_h = 5, .kernel_w = 4, .stride_h = 1, .stride_w = 1}}}) {
    const Net net = class_map_network(pool);
    const Tensor x = wave({2, 2, 9, 7});
    const Cams cams = cams_of(ctx, net, x, "3,0", CamMethod::cam);
    EXPECT_EQ(cams.layers, std::vector{net.find("relu")});
    EXPECT_TRUE(cams.from_zero);
    const Tensor maps = activations(ctx, net, x, net.find("relu"));  // [2,5,5,4]
    for (int64_t i = 0; i < 2; ++i)
      for (int64_t t = 0; t < 2; ++t)
        EXPECT_EQ(std::memcmp(cams.maps[0].data() + (i * 2 + t) * 20, maps.data() + (i * 5 + (t ? 0 : 3)) * 20, 80), 0);
    EXPECT_GT(largest(maps.values()), 0);
  }
}

TEST_P(CamEquations, BatchesAndTargetsDoNotChangeAMap) {
  const Net net = gap_network(AdaptiveAvgPool2d{});
  const Tensor x = wave({3, 2, 9, 7});
  const std::vector<int> layers = {net.find("relu"), net.find("stem")};
  for (const CamMethod method :
       {CamMethod::cam, CamMethod::gradcam, CamMethod::gradcam_plus_plus, CamMethod::guided_gradcam, CamMethod::layercam,
        CamMethod::scorecam, CamMethod::ablationcam, CamMethod::eigencam}) {
    const bool two = method != CamMethod::cam && method != CamMethod::guided_gradcam;
    const auto run = [&](const Tensor& images, const char* target, int64_t batch) {
      return cams_of(ctx, net, images, target, method, two ? layers : std::vector<int>{}, Score::logit, batch);
    };
    const Cams whole = run(x, "all", 15);
    for (const int64_t batch : {1, 2, 7}) {
      const Cams split = run(x, "all", batch);
      for (size_t l = 0; l < whole.maps.size(); ++l)
        EXPECT_TRUE(std::ranges::equal(split.maps[l].values(), whole.maps[l].values()))
            << int(method) << " batch " << batch;
      EXPECT_TRUE(std::ranges::equal(split.guided.values(), whole.guided.values()))
          << int(method) << " batch " << batch;
    }
    const Cams one = run(batch_item(x, 1), "3", 1);
    const Tensor &part = method == CamMethod::guided_gradcam ? one.guided : one.maps[0],
                 &all = method == CamMethod::guided_gradcam ? whole.guided : whole.maps[0];
    EXPECT_TRUE(
        std::ranges::equal(part.values(), all.values().subspan(size_t(8 * part.count()), size_t(part.count()))));
  }
}

TEST(Cam, LayersTogether) {
  Context ctx;
  const Net net = gap_network(AdaptiveAvgPool2d{});
  const std::vector<int> layers = {net.find("stem"), net.find("maps")};
  const Cams cams = cams_of(ctx, net, wave({1, 2, 9, 7}), "all", CamMethod::gradcam, layers);
  const Tensor large = enlarged_maps(cams, 9, 7);
  ASSERT_EQ(large.dims(), (Dims{1, 5, 2, 9, 7}));
  int filled = 0;
  for (int64_t t = 0; t < 5; ++t) {
    std::vector<double> mean(63, 0);
    for (int64_t l = 0; l < 2; ++l) {
      const std::vector<float> map = bilinear_map(cams.maps[size_t(l)].data() + t * 20, 5, 4, 9, 7);
      EXPECT_EQ(std::memcmp(map.data(), large.data() + (t * 2 + l) * 63, sizeof(float) * 63), 0);
      if (largest(map) == 0) continue;  // counts as zero
      ++filled;
      for (size_t i = 0; i < 63; ++i) mean[i] += double(map[i]) / largest(map) / 2;
    }
    const std::vector<float> combined = combined_map(large.data() + t * 2 * 63, 2, 63);
    for (size_t i = 0; i < 63; ++i) EXPECT_NEAR(combined[i], mean[i], 1e-6) << i;
  }
  EXPECT_GE(filled, 5) << "too many maps are all zero";
}

// --- Which networks have what ----------------------------------------------------------------------------------------

TEST(Cam, HeadsAndLastMapsOfTheZoo) {
  const std::vector<std::pair<const char*, const char*>> last = {{"lenet", "relu2"},
                                                                 {"alexnet", "features.11"},
                                                                 {"vgg16", "features.29"},
                                                                 {"vgg19_bn", "features.51"},
                                                                 {"vgg11", "features.19"},
                                                                 {"vgg13_bn", "features.33"},
                                                                 {"resnet18", "layer4.1.relu_1"},
                                                                 {"resnet34", "layer4.2.relu_1"},
                                                                 {"resnet50", "layer4.2.relu_2"},
                                                                 {"resnet152:dilated=0,0,1", "layer4.2.relu_2"},
                                                                 {"resnext50_32x4d", "layer4.2.relu_2"},
                                                                 {"squeezenet1_0", "classifier.2"},
                                                                 {"squeezenet1_1", "classifier.2"},
                                                                 {"googlenet", "inception5b.cat"},
                                                                 {"mobilenet_v2", "features.18.2"},
                                                                 {"caffenet", "relu5"},
                                                                 {"encoder_decoder", "up2_relu"}};
  const std::map<std::string, std::string> linear = {{"googlenet", "fc"}, {"mobilenet_v2", "classifier.1"}};
  const std::set<std::string> class_maps = {"squeezenet1_0", "squeezenet1_1", "encoder_decoder"};
  for (const auto& [model, layer] : last) {
    const Net net = make_network(model);
    EXPECT_EQ(net.nodes[size_t(last_map_node(net, net.input))].name, layer) << model;
    const std::optional<CamHead> head = find_cam_head(net, net.input);
    const bool exact = std::string(model).starts_with("resne") || linear.contains(model) || class_maps.contains(model);
    EXPECT_EQ(head.has_value(), exact) << model;
    if (!head) continue;
    EXPECT_EQ(net.nodes[size_t(head->maps)].name, layer);
    if (class_maps.contains(model))
      EXPECT_EQ(head->linear, -1) << model;
    else
      EXPECT_EQ(net.nodes[size_t(head->linear)].name, linear.contains(model) ? linear.at(model) : "fc");
  }
}

TEST(Cam, HeadsThatAreNone) {
  EXPECT_TRUE(find_cam_head(gap_network(kWholeMap), {1, 2, 9, 7}));
  AvgPool2d part = kWholeMap;
  part.kernel_w = 3, part.stride_w = 2;  // 1x1 output, but a column of the map is not looked at
  EXPECT_FALSE(find_cam_head(gap_network(part), {1, 2, 9, 7}));
  const MaxPool2d maximum{.kernel_h = 5, .kernel_w = 4, .stride_h = 1, .stride_w = 1};
  EXPECT_FALSE(find_cam_head(gap_network(maximum), {1, 2, 9, 7})) << "a maximum is no sum over places";
  EXPECT_FALSE(find_cam_head(gap_network(GlobalMaxPool{}), {1, 2, 9, 7}));
  EXPECT_TRUE(find_cam_head(class_map_network(maximum), {1, 2, 9, 7}));
  EXPECT_TRUE(find_cam_head(gap_network(Reduce{.h = true, .w = true, .mean = false}), {1, 2, 9, 7}));
  const Net one = gap_network(AdaptiveAvgPool2d{});
  Net two("two linear layers", one.input);
  for (int i = 1; i + 1 < one.nodes.count(); ++i) two.add(one.nodes[i].name, one.nodes[i].layer, one.nodes[i].inputs);
  two.add("fc2", Linear{5, 5, true});
  EXPECT_FALSE(find_cam_head(two, {1, 2, 9, 7}));
}

TEST(Cam, WrongUse) {
  Context ctx;
  const Net lenet = [] {
    Net net = make_network("lenet");
    net.weights = random_weights(net, 1);
    return net;
  }();
  const Tensor digit = wave({1, 1, 28, 28}), x = wave({1, 2, 9, 7});
  const Net gap = gap_network(AdaptiveAvgPool2d{});
  const auto expect_usage = [](const std::string& what, const std::string& hint, auto&& body) {
    try {
      body();
      ADD_FAILURE() << "no error: " << what;
    } catch (const Error& e) {
      EXPECT_TRUE(e.usage) << e.what();
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
      EXPECT_NE(e.hint.find(hint), std::string::npos) << e.hint;
    }
  };
  expect_usage("no exact", "gradcam", [&] { cams_of(ctx, lenet, digit, "max", CamMethod::cam); });
  expect_usage("logits", "gradcam", [&] { cams_of(ctx, gap, x, "max", CamMethod::cam, {}, Score::nll); });
  expect_usage("those of maps", "gradcam", [&] { cams_of(ctx, gap, x, "max", CamMethod::cam, {gap.find("relu")}); });
  for (const char* layer : {"flatten", "fc1", "relu3", "fc2"})
    expect_usage("no maps", "relu2",
                 [&] { cams_of(ctx, lenet, digit, "max", CamMethod::gradcam, {lenet.find(layer)}); });
  for (const char* layer : {"pool", "softmax"})
    expect_usage("no maps", "maps", [&] { cams_of(ctx, gap, x, "max", CamMethod::gradcam, {gap.find(layer)}); });
  expect_usage("one layer", "gradcam", [&] {
    cams_of(ctx, lenet, digit, "max", CamMethod::guided_gradcam, {lenet.find("relu2"), lenet.find("relu1")});
  });
  Net convolutions("maps out", {1, 2, 9, 7});
  convolutions.add("conv", conv2d(2, 3, 3, 1, 1));
  convolutions.add("classes", conv2d(3, 4, 3, 1, 1));
  convolutions.weights = random_weights(convolutions, 1);
  expect_usage("made of maps", "--layer", [&] { cams_of(ctx, convolutions, x, "1", CamMethod::gradcam); });
  EXPECT_EQ(cams_of(ctx, convolutions, x, "1", CamMethod::gradcam, {1}).maps[0].dims(), (Dims{1, 1, 9, 7}));
}

// --- The command -----------------------------------------------------------------------------------------------------

TEST(CliCam, FilesAndAxes) {
  TempFolder folder;
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> all = {"cam",    "--model", "lenet",       "--save", "png,npy",
                                    "--json", "-o",      folder.path(), kDigit};
    all.insert(all.end(), more.begin(), more.end());
    return succeed_json(all);
  };
  json d = run({});
  EXPECT_EQ(d["method"], "gradcam") << "lenet has no exact maps";
  EXPECT_EQ(d["layers"], json({"relu2"}));
  EXPECT_EQ(d["inputs"][0]["target"], 3);
  EXPECT_EQ(d["inputs"][0]["files"][1]["axes"], json({"N", "h", "w"}));
  EXPECT_EQ(read_npy(result(d, ".npy")).dims(), (Dims{1, 2, 2}));
  EXPECT_EQ(result(d, ".png"), folder / "digit_3.cam.png");
  d = run({"--method", "gradcam++", "--target", "3,5", "--layer", "conv1"});
  EXPECT_EQ(d["inputs"][0]["files"][1]["axes"], json({"N", "T", "h", "w"}));
  EXPECT_EQ(read_npy(result(d, ".npy")).dims(), (Dims{1, 2, 24, 24}));
  for (const std::vector<std::string>& method : {std::vector<std::string>{"rise", "--masks", "20"}, {"fullgrad"}}) {
    std::vector<std::string> options{"--method"};
    options.insert(options.end(), method.begin(), method.end());
    d = run(options);
    EXPECT_EQ(d["layers"], json::array());
    EXPECT_EQ(d["inputs"][0]["files"][1]["axes"], json({"N", "h", "w"}));
    EXPECT_EQ(read_npy(result(d, ".npy")).dims(), (Dims{1, 28, 28}));
  }
  d = run({"--method", "guided-gradcam"});
  EXPECT_EQ(d["inputs"][0]["files"][1]["axes"], json({"N", "C", "H", "W"}));
  EXPECT_EQ(read_npy(result(d, ".npy")).dims(), (Dims{1, 1, 28, 28}));
  for (const std::vector<std::string>& layers :
       {std::vector<std::string>{"--layers", "relu1,conv2,relu2"}, {"--layer", "relu1", "--layer", "conv2,relu2"}}) {
    d = run(layers);
    EXPECT_EQ(d["layers"], json({"relu1", "conv2", "relu2"}));
    EXPECT_EQ(d["inputs"][0]["files"][1]["axes"], json({"N", "L", "H", "W"}));
    EXPECT_EQ(read_npy(result(d, ".npy")).dims(), (Dims{1, 3, 28, 28}));
  }
}

TEST(CliCam, ExactMapsWhereTheNetworkHasThem) {
  TempFolder folder;
  const std::string input = folder / "x.npy";
  write_npy(input, wave({2, 3, 40, 48}));
  const std::vector<std::string> base = {"cam", "--model",     "resnet18", "--weights", "random:3", "--json",
                                         "-o",  folder.path(), "--save",   "npy",       input};
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), base.begin(), base.end());
    return succeed_json(more);
  };
  const json exact = run({});
  EXPECT_EQ(exact["method"], "cam");
  EXPECT_EQ(exact["layers"], json({"layer4.1.relu_1"}));
  const Tensor maps = read_npy(result(exact, ".npy"));
  ASSERT_EQ(maps.dims(), (Dims{2, 2, 2}));
  const Tensor positive = read_npy(result(run({"--method", "gradcam"}), ".npy"));
  for (int64_t i = 0; i < 8; ++i) EXPECT_NEAR(positive[i], std::max(0.f, maps[i]) / 4, 1e-5 * largest(maps.values()));
  EXPECT_EQ(run({"--score", "probability"})["method"], "gradcam") << "exact maps are about logits";
}

TEST(CliCam, WrongUse) {
  const auto fails = [](std::vector<std::string> more, const std::string& says) {
    TempFolder folder;
    std::vector<std::string> all = {"cam", "--model", "lenet", kDigit, "-o", folder / "out"};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome o = run_switchback(all);
    EXPECT_EQ(o.code, 2) << o.line << o.err;
    EXPECT_TRUE(o.err.starts_with("switchback: error: ")) << o.err;
    EXPECT_NE(o.err.find(says), std::string::npos) << o.err;
    EXPECT_LE(folder.files(), 1u) << "more than the empty folder: " << o.line;
  };
  fails({"--method", "dreamcam"}, "guided-gradcam");
  fails({"--method", "cam"}, "--method gradcam");
  fails({"--layer", "fc1"}, "relu2");
  fails({"--layer", "conv3"}, "conv2");
  fails({"--layers", "conv1,conv1"}, "twice");
  fails({"--layers", "conv1,"}, "no layer ''");
  fails({"--method", "guided-gradcam", "--layers", "conv1,conv2"}, "one layer");
  fails({"--target", "10"}, "0 to 9");
  fails({"--method", "scorecam", "--layer", "fc1"}, "relu2");
  fails({"--method", "rise", "--layer", "conv1"}, "no layer");
  fails({"--method", "rise", "--masks", "0"}, "--masks 0");
  fails({"--method", "rise", "--grid", "29"}, "1 to 28");
  fails({"--method", "rise", "--keep", "1"}, "between 0 and 1");
  fails({"--method", "fullgrad", "--layer", "conv1"}, "all layers");
}

}  // namespace
}  // namespace switchback::test
