// Training: 30 steps against PyTorch in float64 (tests/golden/make_training.py), the same bits however a batch is split,
// whatever the number of threads, and after going on from a state; schedules and what an epoch draws.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "engine/files/json.h"
#include "engine/files/safetensors.h"
#include "engine/train/augment.h"
#include "engine/train/schedule.h"
#include "engine/train/trainer.h"
#include "engine/zoo/zoo.h"
#include "tests/support/net.h"
#include "tests/support/network_reference.h"
#include "tests/support/on_device.h"
#include "tests/support/token_network.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

constexpr int kBatches = 4;
constexpr int64_t kBatch = 8;

Network resnet() {
  Network net("resnet", {1, 3, 16, 16});
  const auto conv_norm = [&](const char* conv, const char* norm, int64_t in, int64_t out, int64_t kernel, int64_t stride, int from) {
    net.add(conv, conv2d(in, out, kernel, stride, kernel / 2, 1, 1, false), {from});
    return net.add(norm, BatchNorm2d{out});
  };
  conv_norm("conv1", "bn1", 3, 8, 3, 1, 0);
  const int x = net.add("relu1", ReLU{});
  conv_norm("a.conv1", "a.bn1", 8, 8, 3, 1, x);
  conv_norm("a.conv2", "a.bn2", 8, 8, 3, 1, net.add("a.relu1", ReLU{}));
  net.add("a.add", Add{}, {net.output(), x});
  const int a = net.add("a.relu2", ReLU{});
  conv_norm("b.conv1", "b.bn1", 8, 16, 3, 2, a);
  const int b = conv_norm("b.conv2", "b.bn2", 16, 16, 3, 1, net.add("b.relu1", ReLU{}));
  const int down = conv_norm("b.down", "b.bn3", 8, 16, 1, 2, a);
  net.add("b.add", Add{}, {b, down});
  net.add("b.relu2", ReLU{});
  net.add("pool", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{16, 10});
  return net;
}

Network others() {
  Network net("others", {1, 3, 6, 8});
  net.add("conv1", Conv2d{.in_channels = 3, .out_channels = 12, .kernel_h = 3, .kernel_w = 2, .pad_top = 1, .pad_bottom = 1,
                          .dilation_w = 2, .groups = 3});
  net.add("group", GroupNorm{4, 12});
  net.add("gelu", Smooth{SmoothFunction::gelu});
  net.add("depthwise", conv2d(12, 12, 3, 1, 1, 1, 12));
  net.add("layer", LayerNorm{12, 6, 6});
  net.add("relu", ReLU{});
  net.add("up", conv_transpose2d(12, 8, 4, 2, 1, 0, 2, false));
  net.add("instance", GroupNorm{8, 8});
  net.add("sigmoid", Smooth{SmoothFunction::sigmoid});
  net.add("out", conv2d(8, 3, 1));
  return net;
}

struct TrainingCase {
  const char* name;
  Network network;
  TrainOptions options;
  double rate;
};
std::vector<TrainingCase> runs() {
  using Kind = Optimizer::Kind;
  const Network lenet = make_network("lenet", {.divide_channels = 4});
  return {
      {"lenet", lenet, {.optimizer = {.kind = Kind::adam}}, 1e-3},
      {"resnet", resnet(), {.label_smoothing = 0.125f, .optimizer = {.weight_decay = 1e-4, .momentum = 0.9}}, 0.05},
      {"others", others(), {.loss = Loss::mse, .optimizer = {.kind = Kind::adam, .weight_decay = 0.02, .decoupled = true}}, 3e-3},
      {"nesterov", lenet, {.optimizer = {.weight_decay = 1e-3, .momentum = 0.9, .nesterov = true}}, 0.02},
      {"adadelta", lenet, {.optimizer = {.kind = Kind::adadelta, .eps = 1e-6}, .clip_norm = 1.5}, 0.5},
  };
}

// The golden inputs of a run.
struct Data {
  std::vector<float> x, values;
  std::vector<int32_t> labels;
  Data(const Safetensors& file, const std::string& name, bool labelled) {
    const auto pixels = [&](const std::string& part) {
      std::vector<float> out;
      for (const int64_t v : file.load_ints(name + part)) out.push_back(float(v) / 128 - 1);
      return out;
    };
    x = pixels(".x");
    if (!labelled) values = pixels(".target");
    else for (const int64_t v : file.load_ints(name + ".target")) labels.push_back(int32_t(v));
  }
  const float* batch(int i) const { return x.data() + i % kBatches * (x.size() / kBatches); }
  Targets targets(int i) const {
    const auto part = [&](const auto& all) {
      return std::span(all).subspan(size_t(i % kBatches) * (all.size() / kBatches), all.size() / kBatches);
    };
    return {part(labels), part(values)};
  }
};

class Train : public test::OnDevice {
 protected:
  Safetensors file{std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/training.safetensors"};
  nlohmann::json about = parse_json(file.metadata().at("runs"));
  const nlohmann::json& golden(const std::string& name) const {
    return *std::ranges::find_if(about, [&](const auto& run) { return run["name"] == name; });
  }
  Trainer trainer(const TrainingCase& run) {
    TrainOptions options = run.options;
    options.batch = kBatch;
    return Trainer(ctx, {run.network, random_weights(run.network, golden(run.name)["seed"])}, run.network.input, options);
  }
  Data data(const TrainingCase& run) const { return Data(file, run.name, run.options.loss == Loss::cross_entropy); }
  // Emulated steps are slow: fewer of them, and of losses alone.
  int steps() const { return device.emulated ? 2 : 30; }
};

TEST_P(Train, AgreesWithPyTorchInFloat64) {
  ASSERT_EQ(about.size(), runs().size());
  for (const TrainingCase& run : runs()) {
    SCOPED_TRACE(run.name);
    const Data in = data(run);
    Trainer train = trainer(run);
    const std::vector<double> losses = golden(run.name)["losses"];
    for (int i = 0; i < steps(); ++i)
      ASSERT_NEAR(train.step(in.batch(i), kBatch, in.targets(i), run.rate).loss, losses[size_t(i)], 1e-5) << "step " << i;
    if (steps() < 30) continue;
    EXPECT_LT(losses.back(), 0.7 * losses.front());
    double worst = 0;
    for (const Parameter& p : train.weights().list()) {
      const Tensor want = file.load(fmt::format("{}.end.{}.{}", run.name, run.network.nodes[p.node].name, p.name));
      const std::span<const float> got = train.weights().values(p);
      ASSERT_EQ(want.count(), int64_t(got.size()));
      for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, double(std::abs(got[i] - want[int64_t(i)])));
    }
    EXPECT_LT(worst, 2e-5);
    RecordProperty(fmt::format("{}_weights", run.name), fmt::format("{:.1e}", worst));
  }
}

// A step of plain descent takes the gradient off the weights: that of every kind of parameter is the reference's numeric one.
TEST_P(Train, ParametersOfTokensLearnByTheirDerivatives) {
  for (const bool continuous : {false, true}) {
    SCOPED_TRACE(continuous ? "continuous" : "table");
    const test::Net net = test::token_network(continuous);
    const Shape shape = net.input.with_n(2);
    test::Nchw x(shape);
    for (size_t i = 0; i < x.v.size(); ++i) x.v[i] = double((i * 7919 + 13) % 1000) / 512 - 1;
    const std::vector<float> host(x.v.begin(), x.v.end()), target(8, 0.5f);
    const auto loss = [&](const test::Net& at) {
      double sum = 0;
      const std::vector<test::Nchw> values = test::evaluate(at, x);
      for (const double y : values.back().v) sum += (y - 0.5) * (y - 0.5) / 8;
      return sum;
    };
    Trainer train(ctx, {net, net.weights}, net.input, {.batch = 2, .loss = Loss::mse});
    EXPECT_NEAR(train.step(host.data(), 2, {{}, target}, 1).loss, loss(net), 1e-5 * loss(net));
    for (const Parameter& p : net.weights.list()) {
      const std::span<const float> before = net.weights.values(p), after = train.weights().values(p);
      double size = 0, wrong = 0;
      for (size_t i = 0; i < before.size(); i += std::max<size_t>(1, before.size() / 5)) {
        const auto moved = [&](float by) {
          test::Net other = net;
          const Parameter& there = *other.weights.find(p.node, p.name);
          other.weights.edit(there)[i] += by;
          return std::pair(loss(other), double(other.weights.values(there)[i]));
        };
        const auto above = moved(0x1p-16f), below = moved(-0x1p-16f);
        const double derivative = (above.first - below.first) / (above.second - below.second);
        size = std::max(size, std::abs(derivative));
        wrong = std::max(wrong, std::abs(double(before[i]) - double(after[i]) - derivative));
      }
      EXPECT_GT(size, 0) << full_name(net, p);
      EXPECT_LT(wrong, 1e-3 * size + 2e-7) << full_name(net, p);
    }
  }
}

std::vector<float> trained(Trainer& train, const Data& in, double rate, int first, int last) {
  for (int i = first; i < last; ++i) train.step(in.batch(i), kBatch, in.targets(i), rate);
  const std::span<const float> w = train.weights().values();
  std::vector<float> out;
  for (const Parameter& p : train.weights().list()) out.insert(out.end(), w.begin() + p.offset, w.begin() + p.offset + p.count());
  return out;
}

// A network with dropouts, whose draws belong to items of the batch.
TrainingCase with_dropout() {
  TrainingCase run = runs()[0];
  Network net("dropped", {1, 1, 28, 28});
  net.add("conv1", conv2d(1, 20, 5, 2));
  net.add("relu1", ReLU{});
  net.add("drop1", Dropout{0.25f, true});
  net.add("conv2", conv2d(20, 16, 3, 1, 1));
  net.add("slope", PReLU{16});
  net.add("pool", max_pool2d(3, 3));
  net.add("flatten", Flatten{});
  net.add("drop2", Dropout{0.5f});
  net.add("fc", Linear{256, 10});
  run.network = net;
  return run;
}

TEST_P(Train, SplitsAndThreadsLeaveTheSameBits) {
  const TrainingCase run = with_dropout();
  const Data in = data(run);
  const int last = device.emulated ? 2 : 4;
  ctx.threads = 1;
  Trainer whole = trainer(run);
  const std::vector<float> want = trained(whole, in, run.rate, 0, last);
  for (const int64_t piece : {3, 1}) {
    if (device.emulated && piece == 1) continue;
    TrainingCase split = run;
    split.options.piece = piece;
    ctx.threads = 2;
    Trainer pieces = trainer(split);
    EXPECT_EQ(trained(pieces, in, run.rate, 0, last), want) << piece << " items at a time";
  }
  TrainingCase other = run;
  other.options.seed = 1;
  Trainer another = trainer(other);
  EXPECT_NE(trained(another, in, run.rate, 0, last), want) << "dropouts of another seed";
}

TEST_P(Train, GoesOnFromAStateAsIfNeverStopped) {
  const test::TempFolder folder;
  for (TrainingCase run : {with_dropout(), runs()[1]}) {
    const Data in = data(run);
    const int last = device.emulated ? 2 : 6;
    Trainer whole = trainer(run);
    const std::vector<float> want = trained(whole, in, run.rate, 0, last);
    Trainer first = trainer(run);
    trained(first, in, run.rate, 0, last / 2);
    first.save_state(folder / "state.safetensors");
    Trainer second = trainer(run);
    second.load_state(folder / "state.safetensors");
    EXPECT_EQ(second.steps(), last / 2);
    EXPECT_EQ(trained(second, in, run.rate, last / 2, last), want);
  }
  TrainingCase sgd = runs()[0];
  sgd.options.optimizer = {.momentum = 0.9};
  trainer(sgd).save_state(folder / "sgd.safetensors");
  Trainer adam = trainer(runs()[0]);
  EXPECT_THROW(adam.load_state(folder / "sgd.safetensors"), Error);
  EXPECT_THROW(adam.load_state(std::string(SWITCHBACK_SOURCE_DIR) + "/weights/lenet.safetensors"), Error);
}

TEST_P(Train, FrozenParametersStay) {
  TrainingCase run = runs()[1];
  run.options.frozen = {"conv1.", "bn1.", "a."};
  const Data in = data(run);
  Trainer train = trainer(run);
  const Weights before = train.weights();
  train.step(in.batch(0), kBatch, in.targets(0), run.rate);
  for (const Parameter& p : before.list()) {
    const std::string name = run.network.nodes[p.node].name;
    const bool frozen = name == "conv1" || name == "bn1" || name.starts_with("a.");
    EXPECT_EQ(std::ranges::equal(before.values(p), train.weights().values(p)), frozen) << name << "." << p.name;
  }
}

TEST_P(Train, RefusesWhatDoesNotFit) {
  const TrainingCase lenet = runs()[0];
  const auto make = [&](const Network& net, TrainOptions o) { Trainer(ctx, {net, random_weights(net, 0)}, net.input, o); };
  Network probabilities = lenet.network, map = others();
  probabilities.add("softmax", Softmax{});
  EXPECT_NO_THROW(make(lenet.network, {}));
  EXPECT_THROW(make(probabilities, {}), Error);
  EXPECT_THROW(make(map, {}), Error) << "a cross entropy of maps";
  EXPECT_THROW(make(resnet(), {.batch = 8, .piece = 4}), Error) << "batch norms see the whole batch";
  EXPECT_THROW(make(lenet.network, {.class_weights = {1, 2}}), Error);
  Trainer train = trainer(lenet);
  const Data in = data(lenet);
  const std::vector<int32_t> wrong(size_t(kBatch), 10);
  EXPECT_THROW(train.step(in.batch(0), kBatch, {.labels = wrong}, 1), Error);
  EXPECT_THROW(train.step(in.batch(0), kBatch - 1, in.targets(0), 1), Error);
  EXPECT_THROW(train.step(in.batch(0), kBatch + 1, in.targets(0), 1), Error);
}

SWITCHBACK_ON_ALL_DEVICES(Train);

// --- schedules: PyTorch's values

TEST(Schedule, AsInPyTorch) {
  // lr_scheduler.X of torch 2.x at lr 0.5, 4 epochs of 5 steps.
  const auto rate = [](const char* text, int64_t step) { return parse_schedule(text).rate(0.5, step, 5, 4); };
  EXPECT_EQ(rate("constant", 19), 0.5);
  EXPECT_EQ(rate("step:1,3:0.1", 4), 0.5);
  EXPECT_DOUBLE_EQ(rate("step:1,3:0.1", 5), 0.05);
  EXPECT_DOUBLE_EQ(rate("step:1,3:0.1", 15), 0.005);
  EXPECT_DOUBLE_EQ(rate("exponential:0.7", 10), 0.5 * 0.49);
  EXPECT_DOUBLE_EQ(rate("cosine", 10), 0.25);
  EXPECT_DOUBLE_EQ(rate("cosine:0.1", 5), 0.1 + 0.4 * (1 + std::cos(std::acos(-1) / 4)) / 2);
  EXPECT_NEAR(rate("one-cycle", 0), 0.02, 1e-15);
  EXPECT_DOUBLE_EQ(rate("one-cycle", 5), 0.5);
  EXPECT_NEAR(rate("one-cycle", 12), 0.250001, 1e-12);
  EXPECT_NEAR(rate("one-cycle", 19), 2e-6, 1e-15);
  Schedule warm;
  warm.warm_up = 4;
  EXPECT_DOUBLE_EQ(warm.rate(0.5, 0, 5, 4), 0.1);
  EXPECT_DOUBLE_EQ(warm.rate(0.5, 4, 5, 4), 0.5);
  for (const char* wrong : {"", "step", "step:1", "step:a:0.1", "step:1:", "exponential:-1", "cosine:1:2", "linear", "constant:1"})
    EXPECT_THROW(parse_schedule(wrong), Error) << wrong;
}

TEST(Augmentation, IsDrawnByCounter) {
  const std::vector<int64_t> order = epoch_order(1001, 7, 0);
  std::vector<int64_t> sorted = order;
  std::ranges::sort(sorted);
  for (int64_t i = 0; i < 1001; ++i) ASSERT_EQ(sorted[size_t(i)], i);
  EXPECT_EQ(order, epoch_order(1001, 7, 0));
  EXPECT_NE(order, epoch_order(1001, 7, 1));
  EXPECT_NE(order, epoch_order(1001, 8, 0));

  const Shape item{1, 2, 5, 4};
  std::vector<float> image(40);
  std::iota(image.begin(), image.end(), 1.f);
  const ColourUnits units{.black = {-1, -2}};
  const std::vector<float>& padding = units.black;
  std::set<std::pair<int64_t, int64_t>> shifts;
  int mirrored = 0;
  for (int64_t i = 0; i < 300; ++i) {
    std::vector<float> x = image;
    augment(parse_augmentation("crop:1,flip"), 3, 2, i, item, units, x.data());
    // Which shift and mirror it is, by trying all: all pixels of both channels must fit.
    int fits = 0;
    for (int64_t down = -1; down <= 1; ++down)
      for (int64_t right = -1; right <= 1; ++right)
        for (const bool mirror : {false, true}) {
          bool same = true;
          for (int64_t e = 0; e < 40; ++e) {
            const int64_t c = e / 20, row = e % 20 / 4 + down, column = (mirror ? 3 - e % 4 : e % 4) + right;
            const bool inside = row >= 0 && row < 5 && column >= 0 && column < 4;
            same = same && x[size_t(e)] == (inside ? image[size_t((c * 5 + row) * 4 + column)] : padding[size_t(c)]);
          }
          if (!same) continue;
          ++fits, mirrored += mirror;
          shifts.insert({down, right});
        }
    EXPECT_EQ(fits, 1);
  }
  EXPECT_EQ(shifts.size(), 9u);
  EXPECT_NEAR(mirrored, 150, 40);
  // Bilinear values of a slope are the slope's: the column that each pixel came from.
  std::vector<float> slope(21 * 21);
  const ColourUnits dark{.black = {-100}};
  double most = 0;
  for (int64_t i = 0; i < 50; ++i) {
    for (size_t e = 0; e < slope.size(); ++e) slope[e] = float(e % 21) - 10;
    augment(parse_augmentation("rotate:20"), 3, 0, i, {1, 1, 21, 21}, dark, slope.data());
    const double cosine = double(slope[10 * 21 + 15]) / 5, sine = double(slope[5 * 21 + 10]) / 5;
    EXPECT_NEAR(cosine * cosine + sine * sine, 1, 1e-5);
    most = std::max(most, std::abs(std::atan2(sine, cosine)) * 180 / std::acos(-1));
    for (const auto& [row, column] : {std::pair{4, 6}, {3, -5}, {-6, 2}})
      EXPECT_NEAR(slope[size_t((10 + row) * 21 + 10 + column)], cosine * column - sine * row, 1e-4);
  }
  EXPECT_LT(most, 20.001);
  EXPECT_GT(most, 15);
  std::vector<float> same = image;
  augment(parse_augmentation(""), 3, 2, 0, item, units, same.data());
  EXPECT_EQ(same, image);
  for (const char* wrong : {"crop", "crop:", "crop:0", "crop:4x", "flip,spin", "rotate:0", "rotate:200", "rotate:20:1", "jitter", "jitter:0",
                            "jitter:-1", "jitter:0.1:0.1:0.1:0.6", "jitter:0.1:0.1:0.1:0.1:0.1", "erase:0", "erase:1.1", "erase:x"})
    EXPECT_THROW(parse_augmentation(wrong), Error) << wrong;
}

TEST(Augmentation, ColoursAreTorchvisions) {
  const Safetensors file(std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/jitter.safetensors");
  const nlohmann::json draws = parse_json(file.metadata().at("draws"));
  const std::vector<int64_t> bytes = file.load_ints("image");
  const Dims dims = file.dims("image");
  const int64_t plane = dims[1] * dims[2];
  for (size_t i = 0; i < draws.size(); ++i) {
    const nlohmann::json& d = draws[i];
    const DrawnJitter drawn{d["order"].get<std::array<int, 4>>(), d["brightness"], d["contrast"], d["saturation"], d["hue"]};
    for (const int64_t channels : {3, 1}) {
      const Tensor want = file.load(fmt::format("{}.{}", channels == 3 ? "after" : "grey", i));
      std::vector<float> x, mirrored;
      for (int64_t e = 0; e < channels * plane; ++e) x.push_back(float(bytes[size_t(e)]) / 255);
      for (int64_t e = 0; e < channels * plane; ++e) mirrored.push_back(x[size_t((channels - 1 - e / plane) * plane + e % plane)]);
      apply_jitter(drawn, {1, channels, dims[1], dims[2]}, ChannelOrder::rgb, x.data());
      apply_jitter(drawn, {1, channels, dims[1], dims[2]}, ChannelOrder::bgr, mirrored.data());
      for (int64_t e = 0; e < channels * plane; ++e) {
        EXPECT_NEAR(x[size_t(e)], want[e], 2e-6) << "draw " << i << ", element " << e << " of " << channels << " channels";
        EXPECT_EQ(mirrored[size_t((channels - 1 - e / plane) * plane + e % plane)], x[size_t(e)]);
      }
    }
  }
}

TEST(Augmentation, ColoursAndBoxesAreDrawn) {
  std::set<std::array<int, 4>> orders;
  float least = 9, most = -9, hue = 0;
  for (uint32_t i = 0; i < 24; ++i) {
    const uint32_t word = i * (UINT32_MAX / 24) + 1000;
    const DrawnJitter d = draw_jitter({0.5, 2, 0, 0.1}, {word, word, word, word}, word);
    orders.insert(d.order);
    least = std::min(least, d.contrast), most = std::max(most, d.brightness), hue = std::max(hue, std::abs(d.hue));
    EXPECT_EQ(d.saturation, 1);
  }
  EXPECT_EQ(orders.size(), 24u);
  EXPECT_NEAR(least, 0, 1e-5);
  EXPECT_NEAR(most, 1.5, 0.05);
  EXPECT_NEAR(hue, 0.1, 1e-5);

  // Brightness alone, in input units: every image is its own multiple, and black stays black.
  Preprocess units = imagenet_preprocess();
  units.size = {4, 5};
  const Shape item{1, 3, 4, 5};
  const Tensor dark = preprocess(Image::blank(5, 4, 3), units);
  std::set<float> factors;
  for (int64_t image = 0; image < 40; ++image) {
    std::vector<float> x(60);
    for (size_t e = 0; e < 60; ++e) x[e] = dark[int64_t(e)] + float(e % 7) * 0.1f;
    const std::vector<float> before = x;
    augment(parse_augmentation("jitter:0.25"), 3, 1, image, item, colour_units(units), x.data());
    const float factor = (x[6] - dark[6]) / (before[6] - dark[6]);
    EXPECT_NEAR(factor, 1, 0.2501);
    factors.insert(factor);
    for (size_t e = 0; e < 60; ++e) EXPECT_NEAR(x[e] - dark[int64_t(e)], factor * (before[e] - dark[int64_t(e)]), 1e-5);
  }
  EXPECT_GT(factors.size(), 35u);

  // One box of zeros in all channels, of the area and the shape that are allowed; about half of the images have one.
  int erased = 0;
  double smallest = 1, largest = 0;
  for (int64_t image = 0; image < 200; ++image) {
    const int64_t h = 24, w = 20;
    std::vector<float> x(size_t(2 * h * w), 1.f);
    augment(parse_augmentation("erase"), 3, 1, image, {1, 2, h, w}, {}, x.data());
    int64_t top = h, bottom = 0, left = w, right = 0, zeros = 0;
    for (int64_t e = 0; e < h * w; ++e) {
      EXPECT_EQ(x[size_t(e)], x[size_t(h * w + e)]);
      if (x[size_t(e)] != 0) continue;
      ++zeros;
      top = std::min(top, e / w), bottom = std::max(bottom, e / w + 1), left = std::min(left, e % w), right = std::max(right, e % w + 1);
    }
    if (zeros == 0) continue;
    ++erased;
    EXPECT_EQ(zeros, (bottom - top) * (right - left));
    const double area = double(zeros) / double(h * w);
    smallest = std::min(smallest, area), largest = std::max(largest, area);
  }
  EXPECT_NEAR(erased, 100, 25);
  EXPECT_LT(largest, 0.37);
  EXPECT_GT(largest, 0.25);
  EXPECT_GT(smallest, 0.01);
  EXPECT_LT(smallest, 0.06);
}

TEST(InitialWeights, ChangeNothingBesideTheDrawnOnes) {
  const Network net = resnet();
  const Weights w = initial_weights(net, 5), random = random_weights(net, 5);
  for (const Parameter& p : w.list()) {
    const std::span<const float> values = w.values(p);
    if (p.name == "weight" && p.dims.size() > 1) {
      EXPECT_TRUE(std::ranges::equal(values, random.values(p))) << p.name;
    } else {
      const float same = p.name == "weight" || p.name == "running_var" ? 1.f : 0.f;
      EXPECT_TRUE(std::ranges::all_of(values, [&](float v) { return v == same; })) << p.name;
    }
  }
}

}  // namespace
}  // namespace switchback
