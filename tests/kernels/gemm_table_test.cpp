// Measured choices of GEMM kernels: tables and what refuses them, that no kernel changes a bit of a result, and the
// sweep that measures tables, on the emulated GPU and on a real one where there is one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <set>

#include "engine/files/json.h"
#include "kernels/device/device_ops.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "tools/bench/sweep.h"
#include "viz/methods/gradient.h"

namespace switchback::test {
namespace {

// --- tables

const std::string kHead = "switchback gemm table 1\ndevice A GPU\n";

std::string refusal(const std::string& text) {
  try {
    GemmTable::parse(text, "FILE");
  } catch (const Error& e) {
    EXPECT_FALSE(e.hint.empty()) << e.what();
    return e.what();
  }
  return "taken";
}

TEST(GemmTable, IsReadAsItIsWritten) {
  GemmTable table("NVIDIA H200");
  table.set({Arithmetic::bf16, false, 16, 3136, 256, 128, 9, 1, 1}, {128, 64, 3, false});
  table.set({Arithmetic::bf16, false, 4, 3136, 256, 128, 9, 1, 1}, {64, 64, 0, true});
  table.set({Arithmetic::fp32, true, 1, 49, 8, 16, 4, 4, 2}, {16, 64, 2, true});
  table.set({Arithmetic::fp32, true, 1, 49, 8, 16, 4, 4, 2}, {16, 64, 0, false});
  EXPECT_EQ(table.text(),
            "switchback gemm table 1\ndevice NVIDIA H200\n"
            "# arithmetic direction n rows columns depth taps phases groups kernel\n"
            "fp32 backward 1 49 8 16 4 4 2 16x64\n"
            "bf16 forward 4 3136 256 128 9 1 1 64x64_split\n"
            "bf16 forward 16 3136 256 128 9 1 1 128x64_ring3\n");
  const GemmTable read = GemmTable::parse("# a remark\n\n" + table.text(), "FILE");
  EXPECT_EQ(read.text(), table.text());
  EXPECT_EQ(read.device(), "NVIDIA H200");
}

TEST(GemmTable, ABatchTakesTheNearestLessThanTwiceAway) {
  GemmTable table("A GPU");
  GemmKey key{Arithmetic::tf32, false, 0, 100, 8, 8, 1, 1, 1};
  for (const int64_t n : {4, 9, 100}) {
    key.n = n;
    table.set(key, {int(n), 1, 0, false});
  }
  const auto found = [&](int64_t n) {
    key.n = n;
    const auto* entry = table.find(key);
    return entry ? entry->n : 0;
  };
  const std::vector<std::pair<int64_t, int64_t>> expected = {{2, 0},  {3, 4},  {4, 4},    {6, 4},     {7, 9},
                                                             {17, 9}, {18, 0}, {51, 100}, {199, 100}, {200, 0}};
  for (const auto& [n, nearest] : expected) EXPECT_EQ(found(n), nearest) << n;
  key.n = 4, key.columns = 9;
  EXPECT_EQ(table.find(key), nullptr) << "another product";
}

TEST(GemmTable, MalformedFilesAreRefused) {
  const std::string good = "bf16 forward 16 3136 256 128 9 1 1 128x64";
  EXPECT_EQ(refusal(kHead + good), "taken");
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"", "FILE is no table of GEMM kernels"},
      {"{\"json\": 1}\n", "FILE, line 1: this is no table"},
      {"switchback gemm table 2\ndevice A GPU\n", "line 1: this is no table"},
      {"switchback gemm table 1\n", "ends before its 'device' line"},
      {"switchback gemm table 1\n" + good, "line 2: no device"},
      {kHead + "bf16 forward 16 3136 256 128 9 1 1", "line 3: 9 words where 10 are wanted"},
      {kHead + good + " 7", "11 words"},
      {kHead + "int8 forward 16 3136 256 128 9 1 1 128x64", "no arithmetic"},
      {kHead + "bf16 sideways 16 3136 256 128 9 1 1 128x64", "no direction"},
      {kHead + "bf16 forward 0 3136 256 128 9 1 1 128x64", "word 3 is no whole number"},
      {kHead + "bf16 forward 16 3136 -1 128 9 1 1 128x64", "word 5 is no whole number"},
      {kHead + "bf16 forward 16 3136 256 128 9 1 99999999999999999999 128x64", "word 9 is no whole number"},
      {kHead + good + "\n\n" + good, "line 5: this product has a kernel already"},
  };
  for (const auto& [text, says] : wrong) EXPECT_NE(refusal(text).find(says), std::string::npos) << refusal(text);
  for (const char* kernel : {"128", "128x", "x64", "128x64_", "128x64_rings", "128x64_ring", "128x64_ring0",
                             "128x64_split_ring2", "128x64_split8", "128x64_ring2_splits", "65536x64", "0x64"})
    EXPECT_NE(refusal(kHead + "bf16 forward 16 3136 256 128 9 1 1 " + kernel).find("no kernel"), std::string::npos)
        << kernel;
}

TEST(GemmTable, TheCommandRefusesWhatCannotBe) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{"--sweep", "lenet", "--device", "cpu"}, "--sweep is for a GPU"},
      {{"--sweep", "lenet", "--precisions", "fp8", "--device", "cpu"}, "fp32, tf32, bf16, fp16"},
      {{"--sweep", "lenet", "--batches", "0", "--device", "cpu"}, "--batches"},
      {{"--sweep", "lenet", "--minutes", "0", "--device", "cpu"}, "--minutes"},
      {{"--sweep", "lenet", "--backward"}, "--backward"},
      {{"--sweep", "lenet", "--conv", "cudnn"}, "--conv cudnn"},
      {{"--sweep", "lenet", "--op", "conv"}, "one of --method, --op and --sweep"},
      {{"--op", "conv", "--shape", "1,8,4,4,8,3", "--save-table", "t.txt"}, "--save-table wants --sweep"},
      {{"--sweep", "lenex", "--device", "cpu"}, "lenet"},
      {{"--op", "conv", "--shape", "1,8,4,4,8,3", "--device", "cpu", "--gemm-table", "t.txt"},
       "--gemm-table is for a GPU"},
  };
  for (const auto& [arguments, says] : wrong) {
    std::vector<std::string> line = {"bench"};
    line.insert(line.end(), arguments.begin(), arguments.end());
    const Outcome o = run_switchback(line);
    EXPECT_EQ(o.code, 2) << o.line << "\n" << o.err;
    EXPECT_NE(o.err.find(says), std::string::npos) << o.line << "\n" << o.err;
    EXPECT_EQ(o.out, "") << o.line;
  }
}

// --- on GPUs

std::vector<const DeviceRow*> gpus() {
  std::vector<const DeviceRow*> all;
  for (const DeviceRow& row : devices())
    if (row.gpu) all.push_back(&row);
  return all;
}

// A convolution's random operands on the device, and its result as bytes.
struct ConvCase {
  Context& ctx;
  Conv2d conv;
  Shape x;
  DType dtype;
  bool backward;
  std::vector<float> values =
      std::vector<float>(size_t(conv.out_channels * conv.in_channels / conv.groups * conv.kernel_h * conv.kernel_w));
  ConvWeights weights{conv, values.data()};
  bool tf32;
  Memory in, out;

  ConvCase(Context& c, const Conv2d& layer, Shape shape, DType type, bool back, bool to_tf32 = false)
      : ctx(c), conv(layer), x(shape), dtype(type), backward(back), tf32(to_tf32) {
    std::mt19937 rng(7);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& v : values) v = uniform(rng);
    std::vector<char> bytes;
    for (int64_t i = 0; i < from().count(); ++i) append(bytes, uniform(rng));
    in = ctx.allocate(bytes.size());
    ctx.copy_in(in.data(), bytes.data(), bytes.size());
    out = ctx.allocate(size_t(to().count()) * size_of(dtype));
  }
  Shape y() const { return output_shape(conv, x); }
  Shape from() const { return backward ? y() : x; }
  Shape to() const { return backward ? x : y(); }
  void append(std::vector<char>& bytes, float v) const {
    const auto put = [&](auto value) {
      const char* p = reinterpret_cast<const char*>(&value);
      bytes.insert(bytes.end(), p, p + sizeof value);
    };
    dtype == DType::f32 ? put(v) : dtype == DType::bf16 ? put(bf16(v)) : put(f16(v));
  }
  std::vector<char> run() {
    ctx.zero(out.data(), out.size());
    if (backward)
      conv2d_backward_data(ctx, weights, {in.data(), y(), dtype}, {out.data(), x, dtype}, {.tf32 = tf32});
    else
      conv2d_forward(ctx, weights, {in.data(), x, dtype}, {out.data(), y(), dtype}, {.tf32 = tf32});
    std::vector<char> bytes(out.size());
    ctx.copy_out(bytes.data(), out.data(), bytes.size());
    return bytes;
  }
  std::optional<GemmOffer> offer() { return ctx.gpu->ops->conv2d_gemm(ctx, conv, x, dtype, backward, tf32); }
  std::string algorithm() { return conv2d_algorithm(ctx, weights, x, dtype, backward, tf32); }
};

void use(Context& ctx, const GemmKey& key, const GemmVariant& variant) {
  GemmTable table(ctx.gpu->name);
  table.set(key, variant);
  use_gemm_table(ctx, table.text(), "FILE");
}

class GpuGemm : public OnDevice {
 protected:
  // Deeper rings are a lab build's, as the emulated device is; nvcc's PTX is of the program as it is shipped.
  bool is_built(const GemmVariant& v) const { return &device != &ptx_device() || v.ring == 0; }
  // Every kernel that fits, by a table: it is the one that runs, and it leaves the bits that the model's choice leaves.
  void expect_same_bits(const Conv2d& conv, Shape x, DType dtype, std::set<std::string>* names = nullptr,
                        bool tf32 = false) {
    for (const bool backward : {false, true}) {
      ctx.gemm_table = nullptr;
      ConvCase layer(ctx, conv, x, dtype, backward, tf32);
      const auto offer = layer.offer();
      ASSERT_TRUE(offer);
      EXPECT_NE(std::find(offer->fitting.begin(), offer->fitting.end(), offer->chosen), offer->fitting.end());
      const std::vector<char> expected = layer.run();
      const std::string chosen = layer.algorithm();
      for (const GemmVariant& v : offer->fitting) {
        if (!is_built(v)) continue;
        use(ctx, offer->key, v);
        EXPECT_EQ(layer.offer()->chosen, v);
        const std::string algorithm = layer.algorithm();
        EXPECT_NE(algorithm.find(fmt::format("_{}x{}", v.rows, v.columns)), std::string::npos) << algorithm;
        EXPECT_EQ(algorithm.find("_split") != std::string::npos, v.split) << algorithm;
        EXPECT_EQ(algorithm.find(fmt::format("_ring{}", v.ring)) != std::string::npos, v.ring > 0) << algorithm;
        EXPECT_EQ(algorithm == chosen, v == offer->chosen) << algorithm << " and " << chosen;
        EXPECT_EQ(layer.run(), expected) << algorithm << " leaves other bits than " << chosen;
        if (names) names->insert(name_of(v));
      }
    }
  }
};
const auto name_of_device = [](const testing::TestParamInfo<const DeviceRow*>& info) { return std::string(info.param->name); };
INSTANTIATE_TEST_SUITE_P(On, GpuGemm, testing::ValuesIn(gpus()), name_of_device);

// What runs on nvcc's PTX, too: every kernel once.
class GemmKernels : public GpuGemm {};
std::vector<const DeviceRow*> gpus_and_ptx() {
  std::vector<const DeviceRow*> all = gpus();
  all.push_back(&ptx_device());
  return all;
}
INSTANTIATE_TEST_SUITE_P(On, GemmKernels, testing::ValuesIn(gpus_and_ptx()), name_of_device);

TEST_P(GemmKernels, AllKernelsGiveTheSameBitsInFp32) {
  std::set<std::string> names;
  expect_same_bits(conv2d(16, 40, 4, 1, 2), {1, 16, 5, 4}, DType::f32, &names);
  for (const GemmVariant& v : ctx.gpu->ops->gemm_variants())
    EXPECT_EQ(names.count(name_of(v)), v.ring == 3 || !is_built(v) ? 0u : 1u) << name_of(v);
}
TEST_P(GemmKernels, AllKernelsGiveTheSameBitsInTf32) {
  expect_same_bits(conv2d(16, 40, 4, 1, 2), {1, 16, 5, 4}, DType::f32, nullptr, true);
}
TEST_P(GemmKernels, AllKernelsGiveTheSameBitsInBf16) {
  std::set<std::string> names;
  expect_same_bits(conv2d(32, 40, 4, 1, 2), {1, 32, 5, 4}, DType::bf16, &names);
  for (const GemmVariant& v : ctx.gpu->ops->gemm_variants())
    EXPECT_EQ(names.count(name_of(v)), v.ring == 4 || !is_built(v) ? 0u : 1u) << name_of(v);
}
TEST_P(GemmKernels, AllKernelsGiveTheSameBitsInFp16) {
  expect_same_bits(conv2d(32, 40, 4, 1, 2), {1, 32, 5, 4}, DType::f16);
}
TEST_P(GemmKernels, AllKernelsGiveTheSameBitsWithStridesAndGroups) {
  expect_same_bits(conv2d(64, 64, 3, 2, 1, 1, 2), {2, 64, 5, 5}, DType::bf16);
}
// Rows of 36 bytes, which are copied four at a time; the second one is deep enough for segments.
TEST_P(GemmKernels, AllKernelsGiveTheSameBitsOnNarrowRows) {
  expect_same_bits(conv2d(18, 22, 3, 1, 1), {1, 18, 4, 4}, DType::bf16);
}
TEST_P(GemmKernels, AllKernelsGiveTheSameBitsOnNarrowRowsInSegments) {
  std::set<std::string> names;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const bool tf32 : {false, true})
      if (!tf32 || dtype == DType::f32) expect_same_bits(conv2d(530, 530, 1), {1, 530, 2, 2}, dtype, &names, tf32);
  EXPECT_EQ(names.count("16x64_split"), 1u);
}

std::string refusal_of(Context& ctx, const std::string& text) {
  try {
    use_gemm_table(ctx, text, "FILE");
  } catch (const Error& e) {
    EXPECT_FALSE(e.hint.empty()) << e.what();
    return e.what();
  }
  return "taken";
}

TEST_P(GpuGemm, ForeignTablesAreRefused) {
  const std::string head = fmt::format("switchback gemm table 1\ndevice {}\n", ctx.gpu->name);
  const std::string product = "bf16 forward 16 3136 256 128 9 1 1 ";
  EXPECT_EQ(refusal_of(ctx, kHead + product + "64x64"),
            fmt::format("FILE was measured on 'A GPU', and this is '{}'", ctx.gpu->name));
  EXPECT_NE(refusal_of(ctx, head + product + "256x64").find("this build has no kernel 256x64"), std::string::npos);
  EXPECT_NE(refusal_of(ctx, head + product + "64x64_ring9").find("no kernel 64x64_ring9"), std::string::npos);
  EXPECT_EQ(ctx.gemm_table, nullptr);
  EXPECT_EQ(refusal_of(ctx, head + product + "64x64"), "taken");
}

// Only a split at another batch may fall back to the model: at the table's own batch the table is wrong.
TEST_P(GpuGemm, AKernelThatCannotComputeTheProductIsAnError) {
  ConvCase layer(ctx, conv2d(16, 32, 1), {2, 16, 3, 3}, DType::bf16, false);
  GemmKey key = layer.offer()->key;
  const GemmVariant model = layer.offer()->chosen, split{64, 64, 0, true};
  use(ctx, key, split);
  EXPECT_THROW(layer.run(), Error);
  key.n = 3;
  use(ctx, key, split);
  EXPECT_EQ(layer.offer()->chosen, model);
  const GemmVariant other = model.rows == 16 ? GemmVariant{64, 64, 0, false} : GemmVariant{16, 64, 0, false};
  use(ctx, key, other);
  EXPECT_EQ(layer.offer()->chosen, other) << "batch 2 takes batch 3's";
}

TEST_P(GemmKernels, DifferencesAreCounted) {
  std::vector<uint32_t> a(4 * 1037), b;
  for (size_t i = 0; i < a.size(); ++i) a[i] = uint32_t(i * 2654435761u);
  b = a;
  const Memory left = ctx.allocate(4 * a.size()), right = ctx.allocate(4 * a.size()), count = ctx.allocate(16);
  const auto differences = [&](size_t words) {
    uint32_t found = 0;
    ctx.copy_in(left.data(), a.data(), 4 * a.size());
    ctx.copy_in(right.data(), b.data(), 4 * b.size());
    ctx.zero(count.data(), 16);
    ctx.gpu->ops->count_differences(ctx, left.data(), right.data(), 4 * words, count.as<uint32_t>());
    ctx.copy_out(&found, count.data(), 4);
    return found;
  };
  EXPECT_EQ(differences(a.size()), 0u);
  for (const size_t at : {size_t(0), size_t(1), size_t(514), size_t(1023), a.size() - 1}) b[at] ^= 1u << at % 32;
  EXPECT_EQ(differences(a.size()), 5u);
  EXPECT_EQ(differences(a.size() - 4), 4u) << "the last word lies outside";
  EXPECT_EQ(differences(0), 0u);
}

// Two convolutions, gated, one with a pool behind it and the other beside a skip: all that is fused into a product.
Net fused() {
  Net net("fused", {1, 16, 6, 6});
  net.add("conv1", conv2d(16, 40, 3, 1, 1));
  net.add("relu1", ReLU{});
  const int pool = net.add("pool", max_pool2d(2, 2));
  net.add("conv2", conv2d(40, 40, 3, 1, 1));
  const int sum = net.add("sum", Add{}, {net.output(), pool});
  net.add("relu2", ReLU{}, {sum});
  net.add("flatten", Flatten{});
  net.add("last", Linear{360, 5});
  return net;
}

// A map by each kernel for every product that it fits.
TEST_P(GpuGemm, TablesChangeNoBitOfAMap) {
  Net net = fused();
  net.weights = random_weights(net, 4);
  Tensor x({2, 16, 6, 6});
  for (int64_t i = 0; i < x.count(); ++i) x[i] = std::sin(0.7f * float(i));
  GradientOptions options;
  options.batch = 2;
  options.rule = kGuided;
  const auto map = [&] { return gradient(ctx, net, x, {.target = "3", .layer = ""}, {}, options).values; };
  const Tensor expected = map();
  for (const GemmVariant& v : ctx.gpu->ops->gemm_variants()) {
    if (v.ring > 0) continue;
    GemmTable table(ctx.gpu->name);
    for (const auto& [node, size] : {std::pair{1, 6}, {4, 3}})
      for (const bool backward : {false, true}) {
        ctx.gemm_table = nullptr;
        const Conv2d& conv = std::get<Conv2d>(net.nodes[size_t(node)].layer);
        const auto offer =
            ctx.gpu->ops->conv2d_gemm(ctx, conv, {2, conv.in_channels, size, size}, DType::f32, backward, false);
        if (std::count(offer->fitting.begin(), offer->fitting.end(), v) > 0) table.set(offer->key, v);
      }
    EXPECT_FALSE(table.empty()) << name_of(v);
    use_gemm_table(ctx, table.text(), "FILE");
    const Tensor found = map();
    EXPECT_EQ(std::memcmp(found.data(), expected.data(), size_t(found.count()) * sizeof(float)), 0) << name_of(v);
  }
}

// --- the sweep

Net tiny() {
  Net net("tiny", {1, 16, 4, 4});
  net.add("first", conv2d(16, 24, 3, 1, 1));
  net.add("second", conv2d(24, 24, 3, 1, 1));
  net.add("third", conv2d(24, 24, 3, 1, 1));
  net.add("flatten", Flatten{});
  net.add("last", Linear{384, 8});
  return net;
}

std::vector<SweepLayer> tiny_layers() {
  return sweep_layers({tiny()});
}

SweepOptions little() {
  return {.batches = {2},
          .precisions = {Precision::fp32, Precision::bf16},
          .seconds = 60,
          .flush_bytes = 4096,
          .first_runs = 1,
          .last_runs = 1};
}

TEST(Sweep, LayersStandInTheOrderOfTheirShares) {
  const std::vector<SweepLayer> layers = tiny_layers();
  ASSERT_EQ(layers.size(), 3u);
  EXPECT_EQ(std::get<Conv2d>(layers[0].layer).in_channels, 24);
  ASSERT_EQ(layers[0].uses.size(), 1u);
  EXPECT_EQ(layers[0].uses[0].count, 2);
  // Multiplications and additions in pairs; by memory traffic the twins' share is smaller.
  const double first = 16 * 24 * 9 * 16, second = 24 * 24 * 9 * 16, last = 384 * 8;
  EXPECT_NEAR(layers[0].uses[0].share, 2 * second / (first + 2 * second + last), 1e-12);
  EXPECT_GE(layers[0].share(), layers[1].share());
  EXPECT_GE(layers[1].share(), layers[2].share());
}

// All products, each with all its kernels and times; winners that a table takes; and the times of the model's choice.
TEST_P(GpuGemm, SweepIsComplete) {
  const std::vector<SweepLayer> layers = tiny_layers();
  std::vector<nlohmann::ordered_json> documents;
  const SweepResult result =
      sweep(ctx, layers, little(), [&](const auto& document, int64_t, int64_t) { documents.push_back(document); });
  EXPECT_EQ(result.failed, 0);
  EXPECT_EQ(result.left_out, 0);
  EXPECT_EQ(result.measured, int64_t(documents.size()));
  // Two convolutions, of which one stands twice in the network, and the linear layer, which is a product in bf16 alone.
  EXPECT_EQ(result.measured, 2 * 2 * 2 + 2);
  EXPECT_EQ(ctx.gemm_table, nullptr);
  for (const auto& d : documents) {
    ASSERT_FALSE(d.contains("error")) << d.dump();
    EXPECT_TRUE(d["same_bits"]);
    std::set<std::string> names;
    for (const auto& kernel : d["kernels"]) {
      names.insert(kernel["kernel"]);
      EXPECT_GT(kernel["ms"].get<double>(), 0);
      EXPECT_GE(kernel["runs"].get<int>(), 1);
    }
    if (d["layer"] == describe(layers[0].layer)) {  // which in fp32 can be split
      const DType dtype = d["precision"] == "fp32" ? DType::f32 : DType::bf16;
      const Conv2d& conv = std::get<Conv2d>(layers[0].layer);
      std::set<std::string> fitting;
      const auto offer = ctx.gpu->ops->conv2d_gemm(ctx, conv, {2, 24, 4, 4}, dtype, d["backward"], false);
      for (const GemmVariant& v : offer->fitting) fitting.insert(name_of(v));
      EXPECT_EQ(names, fitting);
      EXPECT_EQ(fitting.count("64x64_split"), dtype == DType::f32 ? 1u : 0u);
    }
    EXPECT_EQ(names.size(), d["kernels"].size());
    EXPECT_EQ(names.count(d["winner"]) + names.count(d["model"]), 2u) << d.dump();
    EXPECT_GE(d["gain"].get<double>(), 1);
    EXPECT_EQ(d["uses"][0]["network"], "tiny");
  }
  use_gemm_table(ctx, result.table.text(), "FILE");
  ConvCase layer(ctx, std::get<Conv2d>(layers[0].layer), {2, 24, 4, 4}, DType::bf16, true);
  for (const auto& d : documents)
    if (d["layer"] == describe(layers[0].layer) && d["precision"] == "bf16" && d["batch"] == 2 && d["backward"]) {
      EXPECT_EQ(name_of(layer.offer()->chosen), d["winner"]);
    }
}

TEST_P(GpuGemm, SweepLeavesOutWhatItHasNoTimeFor) {
  SweepOptions options = little();
  options.seconds = -1;
  int64_t reported = 0;
  const SweepResult result = sweep(ctx, tiny_layers(), options, [&](const auto&, int64_t, int64_t) { ++reported; });
  EXPECT_EQ(reported, 0);
  EXPECT_EQ(result.left_out, 3 * 2 * 2);
  EXPECT_TRUE(result.table.empty());
}

// gpu_check's stage and report, on lines of a sweep that a script prints instead of the command.
class Report {
 public:
  explicit Report(const std::string& lines) {
    folder_.put("lines", lines);
    const std::string program = folder_.put("switchback", fmt::format("#!/bin/sh\ncat '{}'\n", folder_ / "lines"));
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    folder_.put("parts/info.json", R"({"stage": "info", "status": "done", "switchback": {"version": "", "commit": "",
      "build": {"compiler": ""}, "gpus": [{"device": "cuda:0", "name": "NVIDIA H200", "compute_capability": "9.0",
      "multiprocessors": 132, "driver": "", "runtime": "", "libraries": []}]}})");
    const std::string bench = fmt::format("{}/tools/bench", SWITCHBACK_SOURCE_DIR), parts = folder_ / "parts";
    stage_code = shell(fmt::format("/usr/bin/python3 {}/gpu_measure.py lab --switchback '{}' --out '{}' --quick", bench,
                                   program, parts));
    report_code = shell(fmt::format("/usr/bin/python3 {}/gpu_report.py --parts '{}'", bench, parts));
    text = bytes_of(folder_ / "parts/REPORT.md");
    stage = parse_json(bytes_of(folder_ / "parts/lab.json"));
  }
  bool has(const std::string& words) const { return text.find(words) != std::string::npos; }

  int stage_code = -1, report_code = -1;
  std::string text;
  nlohmann::json stage;

 private:
  int shell(const std::string& line) const {
    return WEXITSTATUS(
        std::system(fmt::format("PYTHONDONTWRITEBYTECODE=1 {} >'{}' 2>&1", line, folder_ / "log").c_str()));
  }
  TempFolder folder_;
};

TEST_P(GpuGemm, SweepIsReported) {
  if (std::system("/usr/bin/python3 -c '' >/dev/null 2>&1") != 0) GTEST_SKIP() << "no /usr/bin/python3";
  std::vector<nlohmann::ordered_json> documents;
  SweepOptions options = little();
  options.precisions = {Precision::bf16};
  const SweepResult result = sweep(ctx, tiny_layers(), options,
                                   [&](const auto& document, int64_t, int64_t) { documents.push_back(document); });
  documents[0]["winner"] = "16x64_ring2";  // a gain that the report must name
  documents[0]["winner_ms"] = documents[0]["model_ms"].get<double>() / 4;
  documents[0]["gain"] = 4;
  std::string lines;
  for (const auto& d : documents) lines += d.dump() + "\n";
  const Report good(lines + summary_of(ctx, result).dump() + "\n");
  EXPECT_EQ(good.stage_code, 0);
  EXPECT_EQ(good.report_code, 0);
  EXPECT_EQ(good.stage["status"], "done");
  EXPECT_EQ(good.stage["rows"].size(), documents.size());
  EXPECT_EQ(good.stage["summary"]["table"], result.table.text());
  for (const char* words : {"## Lab", "6 products in", "| tiny | 2 | bf16 | 6 | 100 % |", "| 16x64_ring2 |", "| 4.00 |",
                            "Measured over predicted, bf16: median"})
    EXPECT_TRUE(good.has(words)) << words << " is not in\n" << good.text;

  documents[1] = {{"layer", "Conv2d(1)"},
                  {"batch", 1},
                  {"precision", "bf16"},
                  {"backward", true},
                  {"error", "other bits than 64x64 leaves: 128x64"}};
  // A sweep that was stopped before its summary, with a kernel that leaves other bits.
  const Report bad(documents[0].dump() + "\n" + documents[1].dump() + "\n");
  EXPECT_EQ(bad.stage_code, 1);
  EXPECT_EQ(bad.stage["status"], "failed");
  EXPECT_TRUE(bad.has("lab: failures")) << bad.text;
  EXPECT_TRUE(bad.has("| 16x64_ring2 |")) << "the others are reported";
  EXPECT_TRUE(bad.has("other bits than 64x64 leaves: 128x64"));
  EXPECT_EQ(Report("").stage["status"], "failed") << "a sweep without a result";
}

}  // namespace
}  // namespace switchback::test
