// Fooling images: genes and their drawing networks against what is known of them; the same bits for any batch, any
// number of threads and any interruption; the gradient's way against PyTorch in float64; then the command `fool`.
#include "viz/methods/fool.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "tests/support/cli_run.h"
#include "tests/support/on_device.h"
#include "tests/support/smooth_model.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/inspect.h"

namespace switchback::test {
namespace {

using nlohmann::json;
using Encoding = FoolOptions::Encoding;

TEST(Genes, PolynomialMutationHasItsDistribution) {
  constexpr int kDraws = 20'000;
  Draws draws(1, 2, 3);
  int within = 0, up = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double change = polynomial_change(draws, 15);
    ASSERT_LT(std::abs(change), 1);
    within += std::abs(change)<0.05, up += change> 0;
  }
  EXPECT_NEAR(double(within) / kDraws, 1 - std::pow(0.95, 16), 0.01);
  EXPECT_NEAR(double(up) / kDraws, 0.5, 0.01);
}

TEST(Genes, CrossoverSpreadsAroundTheParents) {
  constexpr int kDraws = 20'000;
  Draws draws(1, 2, 3);
  int between = 0, lower = 0;
  for (int i = 0; i < kDraws; ++i) {
    const float child = crossed_gene(draws, 0.3f, 0.7f, 10);
    ASSERT_TRUE(child >= 0 && child <= 1);
    between += child >= 0.3f && child <= 0.7f, lower += child < 0.5f;
  }
  EXPECT_NEAR(double(between) / kDraws, 0.5, 0.01);  // as many contract as expand, but for the bounds: 1/(2 − 2.5^−11)
  EXPECT_NEAR(double(lower) / kDraws, 0.5, 0.01);
  EXPECT_EQ(crossed_gene(draws, 0.4f, 0.4f, 10), 0.4f);
}

TEST(Cppns, DrawWhatTheirFormulaSays) {
  // Output: sine of 2x − y. Nothing else.
  Cppn c{.outputs = 1, .functions = {Cppn::Function::sine}, .connections = {{0, 4, 2}, {1, 4, -1}}};
  std::vector<float> image(3 * 4);
  draw_cppn(c, 3, 4, image.data());
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j) {
      const double x = (j - 1.5) / 2, y = (i - 1.0) / 2;
      EXPECT_NEAR(image[size_t(4 * i + j)], (std::sin(2 * x - y) + 1) / 2, 1e-6);
    }
  // A hidden Gaussian of the distance from the middle, and 1 into a clipped line.
  c = {.outputs = 1,
       .functions = {Cppn::Function::gaussian, Cppn::Function::linear},
       .connections = {{2, 4, 3}, {3, 5, 0.25f}, {4, 5, 0.5f}}};
  draw_cppn(c, 3, 4, image.data());
  const double r = std::hypot(0.75, 0.5);
  EXPECT_NEAR(image[0], (0.25 + 0.5 * (2 * std::exp(-9 * r * r) - 1) + 1) / 2, 1e-6);
}

TEST(Cppns, StayNetworksHoweverOftenTheyChange) {
  Cppn c = [] {
    Draws draws(7, 0, 0);
    return random_cppn(draws, 3);
  }();
  int most = 0;
  for (uint32_t g = 1; g <= 600; ++g) {
    Draws draws(7, g, 0);
    c = mutated(c, draws);
    most = std::max(most, c.hidden());
    for (const Cppn::Connection& k : c.connections) {
      ASSERT_TRUE(k.from >= 0 && k.from < k.to && k.to < c.nodes() && k.to >= Cppn::kInputs);
      ASSERT_LT(k.from, c.nodes() - c.outputs);
      ASSERT_LE(std::abs(k.weight), Cppn::kMostWeight);
    }
    if (g % 100) continue;
    const Cppn again = cppn_from_numbers(numbers_of(c), 3);
    std::vector<float> a(3 * 30), b(a.size());
    draw_cppn(c, 5, 6, a.data());
    draw_cppn(again, 5, 6, b.data());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
    for (const float v : a) EXPECT_TRUE(v >= 0 && v <= 1) << v;
  }
  EXPECT_GT(most, 20);
  for (std::vector<float> wrong :
       {std::vector<float>{}, {200}, {0, 4}, {0, 0, 5, 4, 1}, {0, 0, 0, 4}, {0, 0, 0, 4, 11}, {0, 0.5f}})
    expect_error("pattern-producing", [&] { cppn_from_numbers(wrong, 1); });
}

TEST(Cppns, DrawTheSameAtAnySize) {
  Draws draws(3, 0, 0);
  const Cppn c = mutated(random_cppn(draws, 1), draws);
  std::vector<float> small(6 * 5), large(18 * 15);
  draw_cppn(c, 6, 5, small.data());
  draw_cppn(c, 18, 15, large.data());
  for (int i = 0; i < 6; ++i)
    for (int j = 0; j < 5; ++j)
      EXPECT_NEAR(small[size_t(5 * i + j)], large[size_t((3 * i + 1) * 15 + 3 * j + 1)], 1e-4);
}

TEST(Cppns, HueLightnessSaturation) {
  std::vector<float> planes{0,    1.f / 3, 2.f / 3, 0.4f, 1.f / 6, 1, 0.5f, 0.5f, 0.5f,
                            0.3f, 0.25f,   0.5f,    1,    1,       1, 0,    1,    0.5f};
  colours_of_hls(planes.data(), 6);
  const float want[6][3] = {{1, 0, 0},          {0, 1, 0},       {0, 0, 1},
                            {0.3f, 0.3f, 0.3f}, {0.5f, 0.5f, 0}, {0.75f, 0.25f, 0.25f}};
  for (size_t i = 0; i < 6; ++i)
    for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(planes[6 * k + i], want[i][k], 1e-6) << i << " " << k;
}

class Fool : public OnDevice {
 protected:
  Model model = smooth_model();
  FoolOptions options(Encoding encoding) const {
    FoolOptions o;
    o.encoding = encoding, o.generations = 6, o.children = 12, o.seed = 7;
    return o;
  }
  Tensor images(const Elites& e, Encoding encoding) const {
    Tensor all({5, 3, 20, 24});
    for (int64_t k = 0; k < 5; ++k) {
      const Tensor one = elite_image(model, e, encoding, k);
      std::copy_n(one.data(), one.count(), all.data() + k * one.count());
    }
    return all;
  }
  void expect_same(const Elites& a, const Elites& b, Encoding encoding) const {
    EXPECT_EQ(a.confidence, b.confidence);
    EXPECT_EQ(a.median, b.median);
    EXPECT_EQ(a.born, b.born);
    const Tensor one = images(a, encoding), two = images(b, encoding);
    EXPECT_EQ(std::memcmp(one.data(), two.data(), size_t(one.count()) * sizeof(float)), 0);
  }
};

TEST_P(Fool, SameBitsForAnyBatchThreadsAndInterruption) {
  const TempFolder folder;
  for (const Encoding encoding : {Encoding::direct, Encoding::cppn, Encoding::gradient}) {
    SCOPED_TRACE(int(encoding));
    FoolOptions o = options(encoding);
    Elites whole, pieces;
    ctx.threads = 1;
    fool(ctx, model, whole, o);
    ASSERT_EQ(whole.generation, 7);
    for (size_t g = 1; g < whole.median.size(); ++g)
      EXPECT_TRUE(encoding == Encoding::gradient || whole.median[g] >= whole.median[g - 1]);
    EXPECT_GT(whole.mean.back(), whole.mean.front());
    // What is said of the images holds.
    const Tensor x = images(whole, encoding), y = logits(ctx, model, x);
    for (int64_t k = 0; k < 5; ++k)
      EXPECT_NEAR(probabilities(y.values().subspan(size_t(5 * k), 5), Outputs::classes)[size_t(k)],
                  whole.confidence[size_t(k)], 1e-5);
    // In three pieces, from a file, by other batches and threads; saved in the middle.
    ctx.threads = 3;
    o.batch = 5;
    o.save_every = 2;
    int saved = 0;
    o.save = [&](const Elites& e) { saved += e.generation % 2 == 0; };
    o.generations = 2;
    fool(ctx, model, pieces, o);
    save_elites(folder / "state.safetensors", pieces, {{"run", "x"}});
    std::map<std::string, std::string> about;
    pieces = load_elites(folder / "state.safetensors", model, encoding, about);
    EXPECT_EQ(about["run"], "x");
    o.generations = 6;
    fool(ctx, model, pieces, o);
    EXPECT_EQ(saved, 3);
    expect_same(whole, pieces, encoding);
    o.generations = 3;
    expect_error("are done already", [&] { fool(ctx, model, pieces, o); });
    // Another seed, other images.
    FoolOptions other = options(encoding);
    other.seed = 8, other.generations = 1;
    Elites else_where;
    fool(ctx, model, else_where, other);
    EXPECT_NE(else_where.confidence, std::vector<float>(whole.confidence.size()));
    EXPECT_NE(else_where.mean[0], whole.mean[0]);
  }
}

TEST_P(Fool, TheGradientsWayFollowsPyTorch) {
  FoolOptions o = options(Encoding::gradient);
  o.generations = 20;
  Elites elites;
  fool(ctx, model, elites, o);
  const Tensor got = elite_image(model, elites, o.encoding, 2);
  const Tensor want =
      Safetensors(std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/dreams.safetensors").load("fooling");
  ASSERT_EQ(got.count(), want.count());
  for (int64_t i = 0; i < want.count(); ++i) ASSERT_NEAR(got[i], want[i], 2e-3) << i;
}

TEST_P(Fool, NetworksWithoutClassesAreRefused) {
  Network net("maps", {1, 1, 8, 8});
  net.add("conv", conv2d(1, 3, 3, 1, 1));
  const Model maps{net, random_weights(net, 1)};
  Elites elites;
  expect_error("names classes", [&] { fool(ctx, maps, elites, options(Encoding::cppn)); });
}

SWITCHBACK_ON_ALL_DEVICES(Fool);

TEST(CliFool, EvolvesAndGoesOn) {
  const TempFolder folder;
  const auto run = [&](const std::string& out, const std::string& generations, std::vector<std::string> more = {}) {
    std::vector<std::string> all{"fool",      "--model", "lenet",   "--children", "30", "--generations",
                                 generations, "--save",  "png,npy", "--json",     "-o", folder / out};
    all.insert(all.end(), more.begin(), more.end());
    return succeed_json(all);
  };
  const json whole = run("whole", "30");
  ASSERT_EQ(whole["inputs"].size(), 10u);
  EXPECT_EQ(whole["inputs"][0]["files"].size(), 3u);
  EXPECT_EQ(whole["medians"].size(), 31u);
  EXPECT_GT(whole["median"].get<double>(), whole["medians"][0].get<double>());
  run("pieces", "12", {"--threads", "1"});
  const json pieces = run("pieces", "30", {"--resume", "--render", "64"});
  EXPECT_EQ(pieces["resumed"], 12);
  EXPECT_EQ(pieces["medians"], whole["medians"]);
  EXPECT_EQ(bytes_of(result(whole, ".npy")), bytes_of(result(pieces, ".npy")));
  EXPECT_EQ(read_npy(result(whole, ".npy")).dims(), (Dims{10, 1, 28, 28}));
  // What is said of an image is what the network says of it.
  const json again =
      succeed_json({"classify", "--model", "lenet", "--json", "-o", folder / "out", result(whole, ".npy")});
  for (size_t k = 0; k < 10; ++k)
    if (whole["inputs"][k]["probability"].get<double>() > 0.5) {
      EXPECT_EQ(again["inputs"][k]["target"], k);
    }
  const json climbed = succeed_json(
      {"fool", "--model", "lenet", "--encoding", "gradient", "--generations", "40", "--json", "-o", folder / "out"});
  EXPECT_GT(climbed["median"].get<double>(), 0.5);
}

TEST(CliFool, BadInputIsToldOf) {
  const TempFolder folder;
  succeed_json({"fool", "--model", "lenet", "--children", "3", "--generations", "4", "--json", "--output", folder / "out"});
  const auto fails = [&](std::vector<std::string> more, const std::string& what, int code = 2) {
    std::vector<std::string> all{"fool", "--model", "lenet", "-o", folder / "out"};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome outcome = run_switchback(all);
    EXPECT_EQ(outcome.code, code) << outcome.line << outcome.err;
    EXPECT_NE(outcome.err.find(what), std::string::npos) << outcome.line << "\n" << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  };
  fails({"--generations", "0"}, "--generations");
  fails({"--children", "-1"}, "--children");
  fails({"--render", "0"}, "--render");
  fails({"--encoding", "direct", "--render", "64"}, "--encoding cppn");
  fails({"--encoding", "direct", "--resume"}, "no run to resume", 1);
  fails({"--children", "4", "--generations", "9", "--resume"}, "differ in children", 1);
  fails({"--children", "3", "--generations", "2", "--resume"}, "are done already");
  fails({digit(3)}, "makes its images itself");
  const std::string state = folder / "out/lenet.fool-cppn-seed0.state.safetensors";
  const std::string bytes = bytes_of(state);
  write_file_atomically(state, std::string_view(bytes).substr(0, bytes.size() / 2));
  fails({"--children", "3", "--generations", "9", "--resume"}, "state.safetensors", 1);
}

}  // namespace
}  // namespace switchback::test
