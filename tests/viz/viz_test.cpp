// The methods against small direct computations.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/model.h"
#include "engine/zoo/zoo.h"
#include "kernels/noise/noise.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/batches.h"
#include "viz/methods/gradient.h"
#include "viz/methods/inspect.h"

namespace switchback::test {
namespace {

// conv, flatten, linear: smooth, so that finite differences and integrals are exact up to rounding.
Net linear_network() {
  Net net("linear", {1, 2, 6, 6});
  net.add("conv", conv2d(2, 3, 3, 1, 1));
  net.add("flatten", Flatten{});
  net.add("fc", Linear{3 * 36, 5, true});
  net.weights = random_weights(net, 1);
  return net;
}

Net lenet() {
  Net net = make_network("lenet");
  net.weights = random_weights(net, 2);
  return net;
}

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

void expect_same_bits(const Tensor& a, const Tensor& b, const char* what) {
  ASSERT_EQ(a.dims(), b.dims()) << what;
  EXPECT_GT(largest(a.values()), 0) << what << ": all zero proves nothing";
  EXPECT_EQ(std::memcmp(a.data(), b.data(), size_t(a.count()) * sizeof(float)), 0) << what;
}

void expect_near(std::span<const float> got, std::span<const double> want, double relative, const char* what) {
  ASSERT_EQ(got.size(), want.size());
  double scale = 0;
  for (double w : want) scale = std::max(scale, std::abs(w));
  ASSERT_GT(scale, 0) << what;
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], relative * scale) << what << " at " << i;
}

double score_at(Context& ctx, const Net& net, const Tensor& x, Unit unit, Score score) {
  return score_of(unit, score, activations(ctx, net, x, unit.node));
}

TEST(VizTarget, UnitsAreResolved) {
  const Net net = lenet();
  const int conv2 = net.find("conv2");
  Tensor values = Tensor::zeros({1, 64, 4, 4});
  values[(7 * 4 + 2) * 4 + 3] = 5;                         // the strongest place
  for (int i = 0; i < 16; ++i) values[9 * 16 + i] = 0.5f;  // the strongest channel: sum 8
  values[(9 * 4 + 1) * 4 + 0] = 0.75f;
  const auto units = [&](const std::string& layer) {
    return resolve_target(net, {"max", layer, Score::logit}, values, {});
  };
  EXPECT_EQ(units("conv2"), (std::vector<Unit>{{conv2, 9}}));
  EXPECT_EQ(units("conv2:max"), (std::vector<Unit>{{conv2, 9}}));
  EXPECT_EQ(units("conv2:max:max"), (std::vector<Unit>{{conv2, 7, 2, 3}}));
  EXPECT_EQ(units("conv2:max:2,3"), (std::vector<Unit>{{conv2, 7, 2, 3}}));
  EXPECT_EQ(units("conv2:9:max"), (std::vector<Unit>{{conv2, 9, 1, 0}}));
  EXPECT_EQ(units("conv2:3:1,2"), (std::vector<Unit>{{conv2, 3, 1, 2}}));
  EXPECT_EQ(units("conv2:3"), (std::vector<Unit>{{conv2, 3}}));
  EXPECT_EQ(units("conv2:all:max").size(), 64u);
  EXPECT_EQ(units("conv2:all:max")[7], (Unit{conv2, 7, 2, 3}));
  EXPECT_DOUBLE_EQ(score_of({conv2, 9}, Score::logit, values), 8.25);
  EXPECT_EQ(check_target(net, net.input, {"max", "conv2:all", Score::logit}, {}), 64);
  EXPECT_EQ(units("conv2:9,3:max"), (std::vector<Unit>{{conv2, 9, 1, 0}, {conv2, 3, 0, 0}}));
  EXPECT_EQ(check_target(net, net.input, {"max", "conv2:9,3", Score::logit}, {}), 2);
  for (const char* wrong : {"conv2:9,64", "conv2:9,", "conv2:9,x"}) EXPECT_THROW(units(wrong), Error) << wrong;
}

TEST(VizTarget, ClassesAndLabels) {
  const Net net = lenet();
  const int out = net.output();
  Tensor values = Tensor::zeros({1, 10});
  values[4] = values[6] = 2;
  const std::vector<std::string> labels = {"zero", "One, uno", "two",   "three", "four",
                                           "five", "six",      "seven", "eight", "nine"};
  const auto units = [&](const std::string& target) {
    return resolve_target(net, {target, "", Score::logit}, values, labels);
  };
  EXPECT_EQ(units("max"), (std::vector<Unit>{{out, 4}})) << "the first of equals";
  EXPECT_EQ(units("3,7"), (std::vector<Unit>{{out, 3}, {out, 7}}));
  EXPECT_EQ(units("one, UNO"), (std::vector<Unit>{{out, 1}}));
  EXPECT_EQ(units("uno"), (std::vector<Unit>{{out, 1}}));
  EXPECT_EQ(units("uno,9"), (std::vector<Unit>{{out, 1}, {out, 9}}));
  EXPECT_EQ(units("all").size(), 10u);
  for (const char* wrong : {"10", "-1", "elf", "", "3,", "max,3"}) {
    const TargetSpec spec{wrong, "", Score::logit};
    expect_error("", [&] { check_target(net, net.input, spec, labels); });
    try {
      check_target(net, net.input, spec, labels);
    } catch (const Error& e) {
      EXPECT_TRUE(e.usage) << wrong;
    }
  }
  values[0] = std::numeric_limits<float>::quiet_NaN();
  expect_error("not finite", [&] { units("max"); });
}

TEST(VizTarget, SeedsAreDerivativesOfTheScore) {
  const Tensor values = wave({1, 5});
  for (const Score score : {Score::logit, Score::probability, Score::nll}) {
    const Unit unit{0, 2};
    const std::vector<float> seed = seed_values(unit, score, values);
    double sum = 0;
    for (int64_t c = 0; c < 5; ++c) {
      Tensor up = values.clone(), down = values.clone();
      const float h = 1e-2f;
      up[c] += h, down[c] -= h;
      const double d = (score_of(unit, score, up) - score_of(unit, score, down)) / (double(up[c]) - double(down[c]));
      EXPECT_NEAR(seed[size_t(c)], d, 1e-4) << int(score) << " " << c;
      sum += seed[size_t(c)];
    }
    EXPECT_NEAR(sum, score == Score::logit ? 1 : 0, 1e-6);
  }
}

// Of labels and of probabilities as they are: only the unit's own value counts.
TEST(VizTarget, SeedsOfOtherOutputs) {
  Tensor values = wave({1, 5});
  for (float& v : values.values()) v = 0.5f + v / 4;
  for (const Outputs outputs : {Outputs::labels, Outputs::probabilities})
    for (const Score score : {Score::probability, Score::nll}) {
      const Unit unit{0, 2};
      const std::vector<float> seed = seed_values(unit, {score, outputs}, values);
      for (int64_t c = 0; c < 5; ++c) {
        Tensor up = values.clone(), down = values.clone();
        up[c] += 1e-2f, down[c] -= 1e-2f;
        const double d = (score_of(unit, {score, outputs}, up) - score_of(unit, {score, outputs}, down)) /
                         (double(up[c]) - double(down[c]));
        EXPECT_NEAR(seed[size_t(c)], d, 1e-3) << int(score) << " " << c;
        EXPECT_EQ(seed[size_t(c)] != 0, c == 2);
      }
    }
  Tensor far({1, 1});
  far[0] = -1000;  // where the probability underflows its logarithm does not
  EXPECT_DOUBLE_EQ(score_of({0, 0}, {Score::nll, Outputs::labels}, far), 1000);
  EXPECT_EQ(seed_values({0, 0}, {Score::nll, Outputs::labels}, far)[0], -1);
}

class VizGradient : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(VizGradient);

TEST_P(VizGradient, OfALinearNetworkByFiniteDifferences) {
  const Net net = linear_network();
  const Tensor x = wave({1, 2, 6, 6});
  for (const Score score : {Score::logit, Score::probability, Score::nll}) {
    const Maps maps = gradient(ctx, net, x, {"3", "", score}, {});
    std::vector<double> want;
    const float h = score == Score::logit ? 0.5f : 0.02f;
    for (int64_t i = 0; i < x.count(); ++i) {
      Tensor up = x.clone(), down = x.clone();
      up[i] += h, down[i] -= h;
      want.push_back(
          (score_at(ctx, net, up, {net.output(), 3}, score) - score_at(ctx, net, down, {net.output(), 3}, score)) /
          (double(up[i]) - double(down[i])));
    }
    expect_near(maps.values.values(), want, score == Score::logit ? 1e-5 : 2e-3, "finite differences");
    EXPECT_NEAR(maps.explained[0].scores[0], score_at(ctx, net, x, {net.output(), 3}, score), 1e-6);
  }
}

TEST_P(VizGradient, OfAConvUnitIsItsKernel) {
  const Net net = linear_network();
  const Maps maps = gradient(ctx, net, wave({1, 2, 6, 6}), {"max", "conv:1:2,3", Score::logit}, {});
  const Tensor w = net.weights.tensor(net.find("conv"), "weight");  // [3,2,3,3], padding 1
  for (int64_t c = 0; c < 2; ++c)
    for (int64_t r = 0; r < 6; ++r)
      for (int64_t q = 0; q < 6; ++q) {
        const int64_t kr = r - 1, kq = q - 2;  // row 2, column 3 sees rows 1..3, columns 2..4
        const float want = kr >= 0 && kr < 3 && kq >= 0 && kq < 3 ? w[((1 * 2 + c) * 3 + kr) * 3 + kq] : 0.f;
        EXPECT_FLOAT_EQ(maps.values[(c * 6 + r) * 6 + q], want) << c << " " << r << " " << q;
      }
  EXPECT_TRUE(std::isnan(maps.explained[0].probabilities[0]));
}

TEST_P(VizGradient, TargetsAndBatchesDoNotChangeAMap) {
  const Net net = lenet();
  const Tensor x = wave({3, 1, 28, 28});
  GradientOptions options;
  const Maps all = gradient(ctx, net, x, {"all", "", Score::logit}, {}, options);
  ASSERT_EQ(all.values.dims(), (Dims{3, 10, 1, 28, 28}));
  for (const int64_t batch : {1, 2, 7, 30}) {
    options.batch = batch;
    expect_same_bits(gradient(ctx, net, x, {"all", "", Score::logit}, {}, options).values, all.values,
                     "targets at once");
  }
  for (int64_t i = 0; i < 3; ++i) {
    const Tensor one = batch_item(x, i);
    const Maps single = gradient(ctx, net, one, {"4", "", Score::logit}, {});
    EXPECT_EQ(std::memcmp(single.values.data(), all.values.data() + (i * 10 + 4) * 784, 784 * sizeof(float)), 0) << i;
  }
}

TEST_P(VizGradient, TimesInput) {
  const Net net = lenet();
  const Tensor x = wave({2, 1, 28, 28});
  GradientOptions options;
  const Maps plain = gradient(ctx, net, x, {"3,4", "", Score::logit}, {}, options);
  options.times_input = true;
  const Maps times = gradient(ctx, net, x, {"3,4", "", Score::logit}, {}, options);
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t t = 0; t < 2; ++t)
      for (int64_t e = 0; e < 784; ++e)
        EXPECT_EQ(times.values[(i * 2 + t) * 784 + e], plain.values[(i * 2 + t) * 784 + e] * x[i * 784 + e]);
}

TEST_P(VizGradient, RulesDifferAndGuidedIsSparser) {
  const Net net = lenet();
  const Tensor x = wave({1, 1, 28, 28});
  const auto map = [&](ReluRule rule) {
    GradientOptions options;
    options.rule = rule;
    return gradient(ctx, net, x, {"3", "", Score::logit}, {}, options).values;
  };
  const Tensor plain = map(kGradient), deconv = map(kDeconv), guided = map(kGuided);
  EXPECT_NE(std::memcmp(plain.data(), guided.data(), 784 * 4), 0);
  EXPECT_NE(std::memcmp(deconv.data(), guided.data(), 784 * 4), 0);
}

TEST_P(VizGradient, TapesComeBackFromAFile) {
  TempFolder folder;
  const Net net = lenet();
  const Tensor x = wave({2, 1, 28, 28}), other = wave({2, 1, 28, 28}, 1);
  GradientOptions save, load;
  save.save_tape = load.load_tape = folder / "tape.safetensors";
  const Maps first = gradient(ctx, net, x, {"3", "", Score::logit}, {}, save);
  // With x's tape the map of any input is that of x: the network is affine between the tape's gates.
  const Maps second = gradient(ctx, net, other, {"3", "", Score::logit}, {}, load);
  expect_same_bits(first.values, second.values, "with the tape of x");
  const Maps free = gradient(ctx, net, other, {"3", "", Score::logit}, {});
  EXPECT_NE(std::memcmp(first.values.data(), free.values.data(), 784 * 4), 0);
  load.batch = 1;
  expect_error("tape", [&] { gradient(ctx, net, x, {"3", "", Score::logit}, {}, load); });
}

class VizSmoothGrad : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(VizSmoothGrad);

TEST_P(VizSmoothGrad, WithoutNoiseIsTheGradient) {
  const Net net = lenet();
  const Tensor x = wave({2, 1, 28, 28});
  SmoothGradOptions options;
  options.samples = 1;
  options.noise = 0;
  options.batch = 1;
  expect_same_bits(smoothgrad(ctx, net, x, {}, {}, options).values, gradient(ctx, net, x, {}, {}).values,
                   "one clean sample");
}

TEST_P(VizSmoothGrad, MomentsAreThoseOfTheNoisyGradients) {
  const Net net = lenet();
  const Tensor x = wave({2, 1, 28, 28});
  constexpr int kSamples = 5;
  SmoothGradOptions options;
  options.samples = kSamples;
  options.noise = 0.2;
  options.seed = 42;
  options.batch = 2;
  using Moment = SmoothGradOptions::Moment;
  for (int64_t i = 0; i < 2; ++i) {
    const float* pixels = x.data() + i * 784;
    const auto [lo, hi] = std::minmax_element(pixels, pixels + 784);
    Tensor noisy({kSamples, 1, 28, 28});  // one channel: NHWC and NCHW are the same
    Context cpu;  // the noise is the same bits on every device
    write_noisy_input(cpu, pixels, {float(0.2 * (double(*hi) - double(*lo))), 42, uint32_t(i), 0},
                      {noisy.data(), {kSamples, 1, 28, 28}, DType::f32});
    const Maps clean = gradient(ctx, net, batch_item(x, i), {}, {});
    const std::string target = std::to_string(clean.explained[0].units[0].channel);
    const Maps maps = gradient(ctx, net, noisy, {target, "", Score::logit}, {});
    std::vector<double> mean(784, 0), square(784, 0), variance(784, 0);
    for (int64_t e = 0; e < 784; ++e) {
      for (int64_t s = 0; s < kSamples; ++s) {
        const double g = maps.values[s * 784 + e];
        mean[size_t(e)] += g / kSamples;
        square[size_t(e)] += g * g / kSamples;
      }
      variance[size_t(e)] = square[size_t(e)] - mean[size_t(e)] * mean[size_t(e)];
    }
    for (const auto& [moment, want] :
         {std::pair{Moment::mean, mean}, {Moment::square, square}, {Moment::variance, variance}}) {
      options.moment = moment;
      const Maps got = smoothgrad(ctx, net, x, {}, {}, options);
      expect_near(got.values.values().subspan(size_t(i * 784), 784), want, 1e-6, "moment");
      EXPECT_EQ(std::to_string(got.explained[size_t(i)].units[0].channel), target) << "fixed on the clean input";
    }
  }
}

TEST_P(VizSmoothGrad, BatchesAndCompanyDoNotChangeAMap) {
  const Net net = lenet();
  const Tensor x = wave({2, 1, 28, 28});
  SmoothGradOptions options;
  options.samples = 7;
  for (const Score score : {Score::logit, Score::probability}) {
    options.batch = 7;
    options.images.clear();
    const Maps whole = smoothgrad(ctx, net, x, {"2,5", "", score}, {}, options);
    for (const int64_t batch : {1, 2, 3}) {
      options.batch = batch;
      expect_same_bits(smoothgrad(ctx, net, x, {"2,5", "", score}, {}, options).values, whole.values, "batch split");
    }
    options.times_input = true;
    const Maps times = smoothgrad(ctx, net, x, {"2,5", "", score}, {}, options);
    options.times_input = false;
    const int64_t image = x.count() / x.dim(0);
    for (int64_t e = 0; e < times.values.count(); ++e)
      ASSERT_EQ(times.values[e], whole.values[e] * x[e / (2 * image) * image + e % image]) << e;
    options.images = {1};  // the second image alone, with its own noise
    const Maps second = smoothgrad(ctx, net, batch_item(x, 1), {"2,5", "", score}, {}, options);
    EXPECT_EQ(std::memcmp(second.values.data(), whole.values.data() + 2 * 784, 2 * 784 * sizeof(float)), 0);
  }
}

TEST_P(VizSmoothGrad, SharesOfItsSamplesJoinToTheSameBits) {
  const Net net = lenet();
  const Tensor x = wave({1, 1, 28, 28});
  SmoothGradOptions options;
  options.samples = 7;
  for (const auto moment : {SmoothGradOptions::Moment::mean, SmoothGradOptions::Moment::variance}) {
    options.moment = moment, options.pieces = {}, options.batch = 3;
    const Maps whole = smoothgrad(ctx, net, x, {"2,5", "", Score::logit}, {}, options);
    for (const int64_t shares : {2, 9}) {  // of nine some have nothing to do
      PieceValues all;
      for (int64_t i = 0; i < shares; ++i) {
        PieceValues mine;
        options.batch = 1 + i % 3, options.pieces = {i, shares, &mine, nullptr};
        smoothgrad(ctx, net, x, {"2,5", "", Score::logit}, {}, options);
        all.merge(std::move(mine));
      }
      EXPECT_EQ(all.numbers, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6}));
      options.pieces = {0, 1, nullptr, &all};
      expect_same_bits(smoothgrad(ctx, net, x, {"2,5", "", Score::logit}, {}, options).values, whole.values, "shares");
    }
  }
}

class VizIntegrated : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(VizIntegrated);

TEST_P(VizIntegrated, IsCompleteOnALinearNetwork) {
  const Net net = linear_network();
  const Tensor x = wave({2, 2, 6, 6});
  IntegratedOptions options;
  options.steps = 3;
  for (const auto baseline :
       {IntegratedOptions::Baseline::zero, IntegratedOptions::Baseline::mean, IntegratedOptions::Baseline::given}) {
    options.baseline = baseline;
    options.given = wave({2, 6, 6}, 2);
    const Maps maps = integrated(ctx, net, x, {"all", "", Score::logit}, {}, options);
    const Maps grads = gradient(ctx, net, x, {"all", "", Score::logit}, {});
    for (int64_t i = 0; i < 2; ++i) {
      ASSERT_EQ(maps.explained[size_t(i)].completeness.size(), 5u);
      for (const Completeness& c : maps.explained[size_t(i)].completeness) {
        EXPECT_GT(std::abs(c.difference), 1e-3);
        EXPECT_LT(c.error(), 1e-5);
      }
    }
    for (int64_t i = 0; i < maps.values.count() && baseline == IntegratedOptions::Baseline::zero; ++i)
      EXPECT_NEAR(maps.values[i], grads.values[i] * x[i / 360 * 72 + i % 72], 1e-5);
  }
}

TEST_P(VizIntegrated, ConvergesOnLenetWithAnyBatch) {
  const Net net = lenet();
  const Tensor x = wave({1, 1, 28, 28});
  IntegratedOptions options;
  options.steps = 400;
  EXPECT_LT(integrated(ctx, net, x, {}, {}, options).explained[0].completeness[0].error(), 2e-2);
  options.steps = 40;
  const Tensor maps = integrated(ctx, net, x, {}, {}, options).values;
  options.batch = 7;
  expect_same_bits(integrated(ctx, net, x, {}, {}, options).values, maps, "batch split");
}

class VizInspect : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(VizInspect);

TEST_P(VizInspect, LogitsActivationsFilters) {
  const Net net = lenet();
  const Tensor x = wave({5, 1, 28, 28});
  RunOptions options;
  options.batch = 5;
  const Tensor all = logits(ctx, net, x, options);
  EXPECT_EQ(all.dims(), (Dims{5, 10}));
  options.batch = 2;
  expect_same_bits(logits(ctx, net, x, options), all, "batch split");
  const Tensor maps = activations(ctx, net, x, net.find("conv1"), options);
  EXPECT_EQ(maps.dims(), (Dims{5, 32, 24, 24}));
  const std::vector<int64_t> order = strongest_channels(maps, 3);
  ASSERT_EQ(order.size(), 32u);
  const auto mean = [&](int64_t c) {
    double sum = 0;
    for (int64_t i = 0; i < 576; ++i) sum += maps[(3 * 32 + c) * 576 + i];
    return sum;
  };
  for (size_t i = 1; i < order.size(); ++i) EXPECT_GE(mean(order[i - 1]), mean(order[i]));
  EXPECT_EQ(filters(net, first_conv(net)).dims(), (Dims{32, 1, 5, 5}));
  expect_error("has no filters", [&] { filters(net, net.find("relu1")); });
}

TEST_P(VizInspect, WrongShapes) {
  const Net net = lenet();
  expect_error("channels", [&] { logits(ctx, net, wave({1, 3, 28, 28})); });
  expect_error(
      "[28,28]",
      [&] {
        logits(ctx, net, wave({28, 28}));
      },
      false);
}

TEST(VizModel, WeightsMustBeAskedFor) {
  TempFolder folder;
  expect_error("no weights", [&] { open_model({"vgg11", "", ""}, {folder.path()}); });
  expect_error("unknown model", [&] { open_model({"vgg12", "random:0", ""}, {}); });
  const Model model = open_model({"lenet", "random:7", ""}, {});
  EXPECT_EQ(model.source, "random:7");
  EXPECT_EQ(model.labels.size(), 10u);
  const Model shipped = open_model({"lenet", "", ""}, {std::string(SWITCHBACK_SOURCE_DIR) + "/weights"});
  EXPECT_TRUE(shipped.source.ends_with("weights/lenet.safetensors")) << shipped.source;
}

}  // namespace
}  // namespace switchback::test
