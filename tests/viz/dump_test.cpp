// .npz archives, read back by a reader of their own and by Python's; every node's value and gradient.
#include "viz/methods/dump.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "engine/files/npy.h"
#include "engine/files/npz.h"
#include "engine/zoo/zoo.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"
#include "viz/methods/gradient.h"
#include "viz/methods/inspect.h"

namespace switchback::test {
namespace {

using nlohmann::json;

Tensor wave(Dims dims, float shift = 0) {
  Tensor t(std::move(dims));
  for (int64_t i = 0; i < t.count(); ++i) t[i] = std::sin(0.7f * float(i) + shift) + 0.3f * std::cos(0.05f * float(i));
  return t;
}

double largest(const Tensor& t) {
  double m = 0;
  for (float x : t.values()) m = std::max(m, std::abs(double(x)));
  return m;
}

void expect_same_bits(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.dims(), b.dims()) << what;
  EXPECT_GT(largest(a), 0) << what << ": all zero proves nothing";
  EXPECT_EQ(std::memcmp(a.data(), b.data(), size_t(a.count()) * sizeof(float)), 0) << what;
}

void expect_near(const Tensor& a, const Tensor& b, double relative, const std::string& what) {
  ASSERT_EQ(a.dims(), b.dims()) << what;
  EXPECT_GT(largest(b), 0) << what << ": all zero proves nothing";
  for (int64_t i = 0; i < a.count(); ++i) ASSERT_NEAR(a[i], b[i], relative * largest(b)) << what << " at " << i;
}

// --- Archives --------------------------------------------------------------------------------------------------------

// Reads a zip of stored entries from its end, as every reader does: end record, directory, local headers; sizes in
// zip64 extra fields. All that is said twice must agree.
class ZipReader {
 public:
  explicit ZipReader(const std::string& path) : bytes_(read_file(path, 1 << 26)) {
    const size_t end = bytes_.size() - 22, locator = end - 20;
    EXPECT_EQ(number(end, 4), 0x06054b50u);
    EXPECT_EQ(number(locator, 4), 0x07064b50u);
    const size_t end64 = number(locator + 8, 8);
    EXPECT_EQ(number(end64, 4), 0x06064b50u);
    EXPECT_EQ(end64 + 12 + number(end64 + 4, 8), locator);
    const size_t entries = number(end64 + 32, 8);
    EXPECT_EQ(number(end64 + 24, 8), entries);
    size_t at = number(end64 + 48, 8);
    EXPECT_EQ(at + number(end64 + 40, 8), end64) << "the directory's size";
    for (size_t i = 0; i < entries; ++i) at = read_entry(at);
    EXPECT_EQ(at, end64);
  }
  std::map<std::string, std::string> files;

 private:
  uint64_t number(size_t at, int size) const {
    uint64_t v = 0;
    for (int i = size; i-- > 0;) v = v << 8 | uint8_t(bytes_.at(at + size_t(i)));
    return v;
  }
  size_t read_entry(size_t at) {
    EXPECT_EQ(number(at, 4), 0x02014b50u);
    EXPECT_EQ(number(at + 10, 2), 0u) << "stored, not compressed";
    const size_t name_size = number(at + 28, 2), extra = at + 46 + name_size;
    const std::string name = bytes_.substr(at + 46, name_size);
    EXPECT_EQ(number(extra, 2), 1u);
    EXPECT_EQ(number(extra + 2, 2), 24u);
    const size_t size = number(extra + 4, 8), local = number(extra + 20, 8);
    EXPECT_EQ(number(extra + 12, 8), size);
    EXPECT_EQ(number(local, 4), 0x04034b50u);
    EXPECT_EQ(bytes_.substr(local + 4, 10), bytes_.substr(at + 6, 10)) << "version, flags, method, time, date";
    EXPECT_EQ(number(local + 14, 4), number(at + 16, 4)) << "crc";
    EXPECT_EQ(number(local + 26, 2), name_size);
    EXPECT_EQ(bytes_.substr(local + 30, name_size), name);
    EXPECT_EQ(number(local + 30 + name_size + 4, 8), size);
    const std::string data = bytes_.substr(local + 30 + name_size + number(local + 28, 2), size);
    EXPECT_EQ(crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()), number(at + 16, 4)) << name;
    EXPECT_TRUE(files.emplace(name, data).second) << name << " twice";
    return extra + number(at + 30, 2);
  }
  std::string bytes_;
};

std::map<std::string, Tensor> read_npz(const std::string& path) {
  const TempFolder folder;
  std::map<std::string, Tensor> arrays;
  for (const auto& [name, data] : ZipReader(path).files) {
    EXPECT_TRUE(name.ends_with(".npy")) << name;
    arrays.emplace(name.substr(0, name.size() - 4), read_npy(folder.put("a.npy", data)));
  }
  return arrays;
}

TEST(Npz, ArraysFilledInTurns) {
  const TempFolder folder;
  const std::string path = folder / "a.npz";
  const Tensor a = wave({3, 2, 4}), b = wave({3, 5}, 1), late = wave({7}, 2);
  {
    OutputFile file(path);
    NpzWriter writer(file);
    const size_t first = writer.add("layer1.0/add", a.dims()), second = writer.add("b", b.dims());
    for (size_t i = 0; i < 3; ++i) {
      writer.write(second, b.values().subspan(i * 5, 5));
      writer.write(first, a.values().subspan(i * 8, 8));
    }
    writer.write(writer.add("größe", late.dims()), late.values());
    writer.finish();
    file.commit();
  }
  const auto arrays = read_npz(path);
  ASSERT_EQ(arrays.size(), 3u);
  expect_same_bits(arrays.at("layer1.0/add"), a, "a");
  expect_same_bits(arrays.at("b"), b, "b");
  expect_same_bits(arrays.at("größe"), late, "late");
}

TEST(Npz, PythonReadsIt) {
  const TempFolder folder;
  const std::string path = folder / "a.npz", script = folder / "check.py";
  {
    OutputFile file(path);
    NpzWriter writer(file);
    const Tensor a = wave({2, 3});
    writer.write(writer.add("a.grad", a.dims()), a.values());
    writer.finish();
    file.commit();
  }
  folder.put("check.py",
             "import sys, zipfile\n"
             "z = zipfile.ZipFile(sys.argv[1])\n"
             "assert z.testzip() is None and z.namelist() == ['a.grad.npy'], z.namelist()\n"
             "try:\n"
             "    import numpy\n"
             "except ImportError:\n"
             "    sys.exit(0)\n"
             "a = numpy.load(sys.argv[1])['a.grad']\n"
             "assert a.dtype == numpy.float32 and a.shape == (2, 3) and a[0, 0] == numpy.float32(0.3), a\n");
  if (std::system("python3 -c 'import zipfile' 2>/dev/null") != 0) GTEST_SKIP() << "no python3";
  EXPECT_EQ(std::system(fmt::format("python3 '{}' '{}'", script, path).c_str()), 0);
}

TEST(Npz, MisuseIsFound) {
  const TempFolder folder;
  OutputFile file(folder / "a.npz");
  NpzWriter writer(file);
  const Tensor a = wave({2, 3});
  const size_t entry = writer.add("a", a.dims());
  expect_error(
      "twice", [&] { writer.add("a", a.dims()); }, false);
  writer.write(entry, a.values().subspan(0, 4));
  expect_error(
      "were written", [&] { writer.finish(); }, false);
  expect_error(
      "into the last", [&] { writer.write(entry, a.values().subspan(0, 3)); }, false);
  writer.write(entry, a.values().subspan(4, 2));
  writer.finish();
}

// --- Values and gradients --------------------------------------------------------------------------------------------

// Branches that join, a value with three readers, dropouts that share memory or stand alone, a branch to nowhere.
Net branching_network(bool with_relus) {
  Net net("branching", {1, 2, 8, 7});
  const int stem = net.add("stem", conv2d(2, 4, 3, 1, 1));
  net.add("bn", BatchNorm2d{4});
  const int relu = with_relus ? net.add("relu", ReLU{}) : net.output();
  const int body = net.add("body", conv2d(4, 4, 3, 1, 1), {relu});
  const int drop = net.add("drop", Dropout{}, {relu});
  net.add("add", Add{}, {body, drop});
  const int joined = with_relus ? net.add("relu2", ReLU{}) : net.output();
  const int side = net.add("side", conv2d(4, 4, 1), {stem});
  const int both = net.add("concat", Concat{}, {joined, side});
  net.add("nowhere", conv2d(8, 2, 1), {both});
  net.add("pool", max_pool2d(2, 2), {both});
  net.add("alone", Dropout{});
  net.add("average", AdaptiveAvgPool2d{});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{8, 5, true});
  net.add("softmax", Softmax{});
  net.weights = random_weights(net, 3);
  return net;
}

std::map<std::string, Tensor> gradients_of(NodeDump& dump, const Net& net, const Tensor& x, int64_t c, Score score,
                                           const std::vector<int>& nodes) {
  dump.forward(x.data());
  const Tensor values = dump.value(logit_node(net));
  std::map<std::string, Tensor> all;
  std::vector<int> order;
  dump.gradients({logit_node(net), c}, score, values, nodes, [&](int node, const Tensor& g) {
    all.emplace(net.nodes[size_t(node)].name, g.clone());
    order.push_back(node);
  });
  EXPECT_TRUE(std::is_sorted(order.rbegin(), order.rend()));
  return all;
}

std::vector<int> all_nodes(const Net& net) {
  std::vector<int> nodes;
  for (size_t i = 0; i < net.nodes.size(); ++i) nodes.push_back(int(i));
  return nodes;
}

class DumpNodes : public OnDevice {};
SWITCHBACK_ON_ALL_DEVICES(DumpNodes);

TEST_P(DumpNodes, ValuesAreThoseOfEachLayer) {
  const Net net = branching_network(true);
  const Tensor x = wave({1, 2, 8, 7});
  NodeDump dump(ctx, net, {1, 2, 8, 7}, Precision::fp32, false);
  dump.forward(x.data());
  std::vector<Tensor> values;
  for (int node : all_nodes(net)) values.push_back(dump.value(node));
  expect_same_bits(values[0], x, "x");
  EXPECT_EQ(values[size_t(net.find("average"))].dims(), (Dims{1, 8, 1, 1}));
  EXPECT_EQ(values[size_t(net.find("flatten"))].dims(), (Dims{1, 8}));
  for (int node : all_nodes(net))
    expect_near(values[size_t(node)], activations(ctx, net, x, node), 1e-6, net.nodes[size_t(node)].name);
}

// One pass from the output to each node alone gives the same.
TEST_P(DumpNodes, GradientsAreThoseOfOnePassEach) {
  const Net net = branching_network(true);
  const Tensor x = wave({1, 2, 8, 7});
  NodeDump dump(ctx, net, {1, 2, 8, 7}, Precision::fp32, true);
  Plan plan(ctx, net, {1, 2, 8, 7}, {.observe = all_nodes(net)});
  for (const Score score : {Score::logit, Score::nll}) {
    const auto all = gradients_of(dump, net, x, 2, score, all_nodes(net));
    EXPECT_EQ(all.size(), net.nodes.size() - 3) << "drop, nowhere and softmax have none";
    for (const auto& [name, g] : all) {
      Tape tape;
      plan.write(x.data(), 1);
      plan.forward(&tape);
      const Unit unit{logit_node(net), 2};
      const Tensor values = plan.read(unit.node);
      Backward backward(plan, unit.node, {.nodes = {net.find(name)}}, 1);
      write_seeds(ctx, {&unit, 1}, score, values, 1, backward.seed(1));
      Tensor want(plan.dims(net.find(name)));
      read_nchw(ctx, backward.run(tape), want.data());
      expect_near(g, want, 1e-6, name);
    }
    const Maps map = gradient(ctx, net, x, {"2", "", score}, {});
    expect_near(all.at("x"), batch_item(x, 0).dims() == x.dims() ? map.values.clone().reshaped({1, 2, 8, 7}) : Tensor(),
                1e-5, "the map at the input");
    expect_same_bits(all.at("alone"), all.at("pool"), "a dropout that alone reads its input");
  }
}

TEST_P(DumpNodes, DropoutsThatShareTheirMemory) {
  const Net net = branching_network(true);
  NodeDump dump(ctx, net, {1, 2, 8, 7}, Precision::fp32, true);
  for (int node : all_nodes(net))
    EXPECT_EQ(dump.shares_gradient(node), net.nodes[size_t(node)].name == "drop") << net.nodes[size_t(node)].name;
}

TEST_P(DumpNodes, ChosenNodesOnly) {
  const Net net = branching_network(true);
  const Tensor x = wave({1, 2, 8, 7});
  NodeDump dump(ctx, net, {1, 2, 8, 7}, Precision::fp32, true);
  const auto all = gradients_of(dump, net, x, 1, Score::logit, all_nodes(net));
  const auto some =
      gradients_of(dump, net, x, 1, Score::logit, {net.find("stem"), net.find("body"), net.find("nowhere")});
  ASSERT_EQ(some.size(), 2u);
  for (const auto& [name, g] : some) expect_same_bits(g, all.at(name), name);
}

// The score's derivative by a bias is the sum of the gradient over that channel's places. Without ReLUs and with an
// average instead of the maximum the score is linear in each bias: differences are exact but for rounding.
TEST_P(DumpNodes, GradientsAgainstFiniteDifferencesOfBiases) {
  Net net = branching_network(false);
  net.nodes.edit(net.find("pool")).layer = AvgPool2d{};
  const Tensor x = wave({1, 2, 8, 7});
  NodeDump dump(ctx, net, {1, 2, 8, 7}, Precision::fp32, true);
  const auto all = gradients_of(dump, net, x, 4, Score::logit, all_nodes(net));
  const auto score = [&](const std::string& name, int64_t channel, float step) {
    Net moved = branching_network(false);
    moved.nodes.edit(moved.find("pool")).layer = AvgPool2d{};
    moved.weights.edit(moved.find(name), "bias")[size_t(channel)] += step;
    return double(activations(ctx, moved, x, logit_node(moved))[4]);
  };
  for (const std::string name : {"stem", "bn", "body", "side", "fc"}) {
    const Tensor& g = all.at(name);
    const int64_t channels = g.dim(1), places = g.count() / channels;
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0, terms = 0;
      for (int64_t i = 0; i < places; ++i) sum += g[c * places + i], terms += std::abs(g[c * places + i]);
      EXPECT_NEAR(sum, (score(name, c, 2) - score(name, c, -2)) / 4, 1e-5 * std::max(1.0, terms)) << name << " " << c;
    }
  }
}

// --- The command -----------------------------------------------------------------------------------------------------

TEST(CliDump, ActivationsAndGradientsOfABatch) {
  const TempFolder folder;
  const std::string input = folder / "x.npy";
  const Tensor x = wave({2, 1, 28, 28});
  write_npy(input, x);
  const json d =
      succeed_json({"dump", "--model", "lenet", "--backward", "--target", "7", "--json", "-o", folder / "out", input});
  const auto arrays = read_npz(folder / "out/x.dump-backward-target7.npz");
  const Net net = make_network("lenet");
  EXPECT_EQ(arrays.size(), 2 * net.nodes.size());
  const json& file = d["inputs"][1]["files"][0];
  EXPECT_EQ(file["path"], folder / "out/x.dump-backward-target7.npz");
  EXPECT_EQ(file["arrays"].size(), arrays.size());
  for (const json& array : file["arrays"]) EXPECT_EQ(arrays.at(array["name"]).dims(), array["shape"].get<Dims>());
  EXPECT_EQ(d["inputs"][1]["target"], 7);
  expect_same_bits(arrays.at("x"), x, "x");
  for (const Node& node : net.nodes) EXPECT_EQ(arrays.at(node.name).dims(), arrays.at(node.name + ".grad").dims());
  const json gradient = succeed_json(
      {"gradient", "--model", "lenet", "--target", "7", "--save", "npy", "--json", "-o", folder / "out", input});
  expect_near(arrays.at("x.grad"), read_npy(result(gradient, ".npy")), 1e-5, "gradient");
  const json activations = succeed_json(
      {"activations", "--model", "lenet", "--layer", "relu2", "--save", "npy", "--json", "-o", folder / "out", input});
  expect_near(arrays.at("relu2"), read_npy(result(activations, ".npy")), 1e-5, "relu2");
  const Tensor& seed = arrays.at("fc2.grad");
  for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(seed[i], i % 10 == 7 ? 1.f : 0.f);
}

TEST(CliDump, ChosenLayers) {
  const TempFolder folder;
  const std::string digit = std::string(SWITCHBACK_SOURCE_DIR) + "/weights/samples/digit_3.png";
  const json forward = succeed_json({"dump", "--model", "lenet", "--layers", "conv2,fc1", "--json", "-o", folder.path(), digit});
  const auto arrays = read_npz(result(forward, ".npz"));
  ASSERT_EQ(arrays.size(), 2u);
  EXPECT_EQ(arrays.at("conv2").dims(), (Dims{1, 64, 4, 4}));
  EXPECT_EQ(arrays.at("fc1").dims(), (Dims{1, 200}));
  // A hidden unit's gradients: nothing behind it has one.
  const json d = succeed_json({"dump", "--model", "lenet", "--backward", "--layer", "conv2:5:1,2", "--layers", "x,conv2,fc1",
                          "--json", "-o", folder.path(), digit});
  const auto hidden = read_npz(result(d, ".npz"));
  ASSERT_EQ(hidden.size(), 5u);
  EXPECT_EQ(hidden.at("conv2.grad")[5 * 16 + 1 * 4 + 2], 1.f);
  EXPECT_EQ(d["inputs"][0]["unit"]["layer"], "conv2");
  EXPECT_EQ(hidden.count("fc1.grad"), 0u);
}

TEST(CliDump, WrongUse) {
  const std::string digit = std::string(SWITCHBACK_SOURCE_DIR) + "/weights/samples/digit_3.png";
  const auto fails = [&](std::vector<std::string> more, const std::string& says, int code = 2) {
    const TempFolder folder;
    std::vector<std::string> all = {"dump", "--model", "lenet", digit, "-o", folder / "out"};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome o = run_switchback(all);
    EXPECT_EQ(o.code, code) << o.line << o.err;
    EXPECT_TRUE(o.err.starts_with("switchback: error: ")) << o.err;
    EXPECT_NE(o.err.find(says), std::string::npos) << o.err;
    EXPECT_LE(folder.files(), 1u) << "more than the empty folder: " << o.line;
  };
  fails({"--layers", "conv9"}, "conv");
  fails({"--target", "3"}, "--backward");
  fails({"--layer", "conv2:1"}, "--layers");
  fails({"--backward", "--target", "3,4"}, "one class");
  fails({"--backward", "--target", "all"}, "one class");
  fails({"--save", "npy"}, "--save");
}

TEST(CliDump, AFullDiskLeavesNothing) {
  const TempFolder folder;
  const std::string digit = std::string(SWITCHBACK_SOURCE_DIR) + "/weights/samples/digit_3.png";
  const Outcome o = run_switchback({"dump", "--model", "lenet", digit, "-o", folder.path()}, {.file_bytes = 50000});
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_EQ(folder.files(), 0u);
}

}  // namespace
}  // namespace switchback::test
