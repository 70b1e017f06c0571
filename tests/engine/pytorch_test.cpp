// State dicts that torch.save wrote (engine/files/pytorch.h), and how networks and such files are fitted to each other.
#include "engine/files/pytorch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "engine/fit.h"
#include "engine/model.h"
#include "engine/zoo/zoo.h"
#include "tests/support/cli_run.h"
#include "tests/support/harness.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

using test::expect_error;

const std::string kGolden = std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/";

float base(int64_t row, int64_t column) { return float(6 * row + column) / 8 - 1; }

// What tests/golden/make_checkpoints.py saves: types, strides, offsets, shared storages.
TEST(Pytorch, ReadsTheGoldenCheckpoints) {
  for (const char* name : {"checkpoint.pth", "checkpoint_legacy.pth"}) {
    SCOPED_TRACE(name);
    const StateDict file = read_state_dict(kGolden + name);
    const auto expect = [&](const char* tensor, Dims dims, const auto& value) {
      const Tensor t = file.load(tensor);
      ASSERT_EQ(t.dims(), dims) << tensor;
      for (int64_t i = 0; i < dims[0]; ++i)
        for (int64_t j = 0; j < dims[1]; ++j) EXPECT_EQ(t[i * dims[1] + j], value(i, j)) << tensor << " " << i << "," << j;
    };
    for (const char* same : {"plain", "half", "bfloat", "double"}) expect(same, {4, 6}, base);
    expect("transposed", {6, 4}, [](int64_t i, int64_t j) { return base(j, i); });
    expect("slice", {3, 3}, [](int64_t i, int64_t j) { return base(i + 1, j + 2); });
    expect("steps", {2, 2}, [](int64_t i, int64_t j) { return base(2 * i, 3 * j); });
    EXPECT_EQ(file.load("scalar")[0], 2.5f);
    EXPECT_EQ(file.dims("empty"), (Dims{0, 3}));
    EXPECT_EQ(file.load_ints("integers"), (std::vector<int64_t>{-2, -1, 0, 1, 2}));
    EXPECT_EQ(file.load_ints("flags"), (std::vector<int64_t>{1, 0, 1}));
    const Tensor conv = file.load("conv.weight");  // channels last
    ASSERT_EQ(conv.dims(), (Dims{2, 3, 2, 2}));
    for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(conv[i], base(0, i));
    EXPECT_TRUE(file.has("bn.num_batches_tracked"));
    EXPECT_EQ(file.names().size(), 14u) << "all names lost 'module.'";
  }
}

// The length of the header, 0x280, makes the first bytes a pickle's.
TEST(Pytorch, SafetensorsMayBeginLikeAPickle) {
  const test::TempFolder folder;
  const std::string path = folder / "like.safetensors";
  const Tensor values({2});
  bool seen = false;
  for (size_t more = 540; more < 640 && !seen; ++more) {
    write_safetensors(path, {{"a", values}}, {{"about", std::string(more, 'x')}});
    std::ifstream file(path, std::ios::binary);
    seen = file.get() == 0x80 && file.get() == 2;
    EXPECT_EQ(read_state_dict(path).names(), std::vector<std::string>{"a"});
  }
  EXPECT_TRUE(seen);
}

TEST(Pytorch, WhatIsNoStateDictIsNamed) {
  expect_error("holds no state dict but an object 'torch.nn.modules.linear.Linear'",
               [] { PytorchFile file(kGolden + "checkpoint_model.pth"); });
  const test::TempFolder t;
  const std::string zip = read_file(kGolden + "checkpoint.pth", 1 << 20);
  std::string other = zip;
  for (size_t at = 0; (at = other.find("data.pkl", at)) != std::string::npos;) other[at] = 'D';
  expect_error("none that torch.save wrote", [&] { PytorchFile file(t.put("other.pth", other)); });
  expect_error("a pickle, but none that torch.save wrote", [&] { PytorchFile file(t.put("plain.pkl", std::string("\x80\x02}q\0.", 6))); });
  expect_error("damaged", [&] { PytorchFile file(t.put("short.pth", zip.substr(0, zip.size() / 2))); });
}

// Whatever is cut off or flipped: an error with the file's name, or tensors that can be read.
TEST(Pytorch, CutAndFlipped) {
  const test::TempFolder t;
  for (const char* name : {"checkpoint.pth", "checkpoint_legacy.pth", "checkpoint_training.ckpt"}) {
    const std::string good = read_file(kGolden + name, 1 << 20);
    const auto read = [&](const std::string& bytes, bool must_fail) {
      try {
        const PytorchFile file(t.put("damaged", bytes));
        for (const std::string& tensor : file.names())
          file.dtype(tensor)[0] == 'F' || file.dtype(tensor) == "BF16" ? void(file.load(tensor)) : void(file.load_ints(tensor));
        EXPECT_FALSE(must_fail);
      } catch (const Error& e) {
        EXPECT_EQ(std::string(e.what()).find(t.path()), 0u) << e.what();
        EXPECT_EQ(std::strchr(e.what(), '\n'), nullptr) << e.what();
      }
    };
    // Some of all: fuzzing goes through the rest (tests/fuzz/pytorch.cpp).
    for (size_t n = 0; n < good.size(); n += 23) {
      SCOPED_TRACE(fmt::format("cut to {} of {} bytes", n, good.size()));
      read(good.substr(0, n), true);
    }
    for (size_t i = 0; i < good.size(); i += 4) {
      SCOPED_TRACE(fmt::format("byte {}", i));
      std::string bad = good;
      bad[i] = char(bad[i] ^ (i % 3 == 0 ? 0x80 : i % 3 == 1 ? 0xff : 0x01));
      read(bad, false);
    }
  }
}

// Lightning's prefix, averaged weights and a criterion beside the network's own; objects that only Python knows.
TEST(Fit, TakesTheNetworksOwnFromATrainingCheckpoint) {
  const Model model = open_model({.name = "mlp", .weights = kGolden + "checkpoint_training.ckpt"});
  EXPECT_EQ(model.network.input.c, 2);
  EXPECT_EQ(model.weights.list().size(), 4u);
  ASSERT_EQ(model.warnings.size(), 1u);
  EXPECT_NE(model.warnings[0].find("begin with 'model.': cut off, 5 others left out"), std::string::npos) << model.warnings[0];
  float largest = 0;
  for (const float v : model.weights.values(1, "weight")) largest = std::max(largest, std::abs(v));
  EXPECT_GT(largest, 0) << "these are the averaged weights, which are zero";
}

// Copies of equal shapes beside the network, the shortest name of all among them.
TEST(Fit, LeavesCopiesOfTheNetworkOut) {
  const test::TempFolder t;
  Network network = make_network("mlp");
  const Weights weights = random_weights(network, 3), copy = random_weights(network, 4);
  std::vector<NamedTensor> list;
  for (const Parameter& p : weights.list())
    for (const char* prefix : {"ema.", "model.", "teacher."})
      list.emplace_back(prefix + full_name(network, p), p.dims, (prefix[0] == 'm' ? weights : copy).values(p));
  write_safetensors(t / "all.safetensors", list, {});
  StateDict file = read_state_dict(t / "all.safetensors");
  EXPECT_NE(fit(network, file).at(0).find("begin with 'model.': cut off, 8 others left out"), std::string::npos);
  EXPECT_TRUE(std::ranges::equal(load_weights(network, file).values(), weights.values()));
}

// What torchvision publishes for DenseNets and ViTs, with its names of then.
TEST(Fit, NamesOfAnOlderTorchvisionBecomeTodays) {
  const test::TempFolder t;
  const auto replaced = [](std::string name, std::string_view now, std::string_view before) {
    if (const size_t at = name.find(now); at != std::string::npos) name.replace(at, now.size(), before);
    return name;
  };
  for (const char* model : {"densenet121", "vit_b_16"}) {
    SCOPED_TRACE(model);
    Network network = make_network(model, {.divide_channels = 16, .classes = 6});
    const Weights weights = random_weights(network, 3);
    std::vector<NamedTensor> list;
    size_t old = 0;
    for (const Parameter& p : weights.list()) {
      const std::string today = "module." + full_name(network, p);
      std::string then = today;
      for (const char* which : {"norm", "conv"})
        for (const char* number : {"1", "2"})
          if (today.find("denselayer") != std::string::npos)
            then = replaced(then, fmt::format(".{}{}.", which, number), fmt::format(".{}.{}.", which, number));
      then = replaced(replaced(then, ".mlp.0.", ".mlp.linear_1."), ".mlp.3.", ".mlp.linear_2.");
      old += then != today;
      list.emplace_back(then, p.dims, weights.values(p));
    }
    EXPECT_GT(old, 40u);
    write_safetensors(t / "then.safetensors", list, {});
    StateDict file = read_state_dict(t / "then.safetensors");
    const std::vector<std::string> notes = fit(network, file);
    ASSERT_EQ(notes.size(), 2u);
    EXPECT_TRUE(notes[0].starts_with(fmt::format("{} names in ", old))) << notes[0];
    EXPECT_TRUE(std::ranges::equal(load_weights(network, file).values(), weights.values()));
  }
}

// resnet18 with ten outputs and one input channel, and what cannot be fitted.
TEST(Fit, TakesOutputsAndChannelsFromTheFile) {
  const test::TempFolder t;
  Network own = make_network("resnet18");
  const auto resize = [&](const char* node, const auto& change) { change(own.nodes.edit(own.find(node)).layer); };
  resize("fc", [](Layer& l) { std::get<Linear>(l).out_features = 10; });
  resize("conv1", [](Layer& l) { std::get<Conv2d>(l).in_channels = 1; });
  own.input.c = 1;
  const Weights weights = random_weights(own, 3);
  save_weights(own, weights, t / "mine.safetensors");
  const Model model = open_model({.name = "resnet18", .weights = t / "mine.safetensors", .labels = t.put("ten.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n")});
  EXPECT_EQ(model.network.nodes, own.nodes);
  EXPECT_EQ(model.network.input.c, 1);
  EXPECT_TRUE(std::ranges::equal(model.weights.values(), weights.values()));
  EXPECT_EQ(model.labels[9], "j");
  EXPECT_EQ(model.preprocess.channels(), 1);
  EXPECT_EQ(model.warnings.size(), 3u) << fmt::format("{}", fmt::join(model.warnings, "; "));
  expect_error("3 labels, but resnet18 has 10 outputs", [&] {
    open_model({.name = "resnet18", .weights = t / "mine.safetensors", .labels = t.put("three.txt", "a\nb\nc\n")});
  });
  resize("layer2.0.conv1", [](Layer& l) { std::get<Conv2d>(l).out_channels = 64; });  // no head: the architecture's own
  resize("layer2.0.bn1", [](Layer& l) { std::get<BatchNorm2d>(l).features = 64; });
  resize("layer2.0.conv2", [](Layer& l) { std::get<Conv2d>(l).in_channels = 64; });
  save_weights(own, random_weights(own, 3), t / "narrow.safetensors");
  expect_error("layer2.0.conv1.weight is [64,64,3,3], should be [128,64,3,3]",
               [&] { open_model({.name = "resnet18", .weights = t / "narrow.safetensors"}); });
}

// A checkpoint as it is: no conversion before.
TEST(Fit, TheCommandReadsCheckpoints) {
  const test::TempFolder t;
  Tensor x({1, 2});
  x[0] = 1, x[1] = -2;
  write_npy(t / "x.npy", x);
  const auto out = test::succeed_json({"classify", "--model", "mlp", "--weights", kGolden + "checkpoint_training.ckpt", "--json",
                                       "-o", t / "out", "--save", "npy", t / "x.npy"});
  const Model model = open_model({.name = "mlp", .weights = kGolden + "checkpoint_training.ckpt"});
  const Weights& w = model.weights;
  double want[2] = {w.values(3, "bias")[0], w.values(3, "bias")[1]};
  for (int j = 0; j < 3; ++j) {
    const auto first = w.values(1, "weight");
    const double hidden = std::max(0., double(first[2 * j]) * x[0] + double(first[2 * j + 1]) * x[1] + w.values(1, "bias")[j]);
    for (int k = 0; k < 2; ++k) want[k] += w.values(3, "weight")[3 * k + j] * hidden;
  }
  const Tensor y = read_npy(t / "out/x.classify.npy");
  for (int k = 0; k < 2; ++k) EXPECT_NEAR(y[k], want[k], 1e-6);
}

// A small copy of `model` whose head is linear layers of these names and sizes, as torch.nn.Sequential calls them.
struct HeadCase {
  const char* model;
  std::vector<std::pair<const char*, int64_t>> layers;  // with their outputs
  bool bias = true;
  const char* function = nullptr;  // ":head=" of the model's name
};
Network with_head(const HeadCase& h, const std::string& last, Network net) {
  Network own(net.name, net.input);
  own.training_only = net.training_only;
  const std::string root = last.substr(0, std::min(last.size(), last.rfind('.')));
  for (int i = 1; i < net.nodes.count(); ++i) {
    if (std::holds_alternative<Linear>(net.nodes[i].layer) && (net.nodes[i].name == last || net.nodes[i].name.starts_with(root + "."))) break;
    const bool dropout = std::holds_alternative<Dropout>(net.nodes[i].layer) && net.nodes[i].name.starts_with(root + ".");
    if (!dropout) own.add(net.nodes[i].name, net.nodes[i].layer, net.nodes[i].inputs);
  }
  int64_t in = own.shapes(net.input)[own.output()].item();
  for (const auto& [name, out] : h.layers) {
    if (name != h.layers[0].first) own.add(std::string(name) + ".before", ReLU{});
    own.add(name, Linear{in, out, h.bias});
    in = out;
  }
  return own;
}

TEST(Fit, HeadsOfOtherLinearLayers) {
  const test::TempFolder t;
  for (const HeadCase& h : {HeadCase{"resnet18", {{"fc.1", 7}}}, {"densenet121", {{"classifier.1", 7}}}, {"mobilenet_v2", {{"classifier.1.1", 7}}},
                            {"mobilenet_v2", {{"classifier", 7}}}, {"efficientnet_b0", {{"classifier.3", 7}}, false}, {"vit_b_32", {{"heads", 7}}},
                            {"vit_b_32", {{"heads.head.1", 7}}}, {"swin_t", {{"head.10", 7}}}, {"resnet18", {{"fc.0", 9}, {"fc.2", 7}}, true, ":head=relu"},
                            {"resnet18", {{"fc.2", 9}, {"fc.10", 7}}, true, ":head=relu"}, {"alexnet", {{"classifier.0", 9}, {"classifier.2", 7}}, true, ":head=relu"}}) {
    SCOPED_TRACE(fmt::format("{} {}", h.model, h.layers[0].first));
    Network network = make_network(h.model, {.divide_channels = 16, .classes = 6});
    const Network own = with_head(h, network.nodes[network.output()].name, network);
    const Weights weights = random_weights(own, 3);
    save_weights(own, weights, t / "own.safetensors");
    if (h.function) {
      StateDict file = read_state_dict(t / "own.safetensors");
      expect_error("weights do not say which function stands between its layers", [&] {
        Network tried = network;
        fit(tried, file);
      });
    }
    StateDict file = read_state_dict(t / "own.safetensors");
    const std::vector<std::string> notes = fit(network, file, h.function ? head_function(std::string(h.model) + h.function) : std::nullopt);
    ASSERT_EQ(notes.size(), 1u) << fmt::format("{}", fmt::join(notes, "; "));
    EXPECT_NE(notes[0].find(h.layers[0].first), std::string::npos) << notes[0];
    EXPECT_EQ(network.nodes, own.nodes);
    EXPECT_TRUE(std::ranges::equal(load_weights(network, file).values(), weights.values()));
  }
  EXPECT_THROW(head_function("resnet18:head=twice"), Error);
  EXPECT_EQ(make_network("resnet18:head=gelu").nodes, make_network("resnet18").nodes);
}

// Sizes inside a head that has the network's own layers: their functions are known. What no row of linear layers is, isn't.
TEST(Fit, SizesInsideAHead) {
  const test::TempFolder t;
  Network network = make_network("mobilenet_v3_small", {.divide_channels = 8, .classes = 6});
  Network own = network;
  std::get<Linear>(own.nodes.edit(own.find("classifier.0")).layer).out_features = 11;
  own.nodes.edit(own.find("classifier.3")).layer = Linear{11, 5, false};
  const Weights weights = random_weights(own, 3);
  save_weights(own, weights, t / "own.safetensors");
  StateDict file = read_state_dict(t / "own.safetensors");
  fit(network, file);
  EXPECT_EQ(network.nodes, own.nodes);
  EXPECT_TRUE(std::ranges::equal(load_weights(network, file).values(), weights.values()));
  const Network small = make_network("resnet18", {.divide_channels = 16, .classes = 6});
  Network with = with_head({"resnet18", {{"fc.0", 9}, {"fc.3", 7}}}, "fc", small);
  with.add("fc.4", BatchNorm2d{7});
  save_weights(with, random_weights(with, 3), t / "norm.safetensors");
  StateDict bad = read_state_dict(t / "norm.safetensors");
  expect_error("its head is fc.0, fc.3, fc.4, where resnet18 has fc: no row of linear layers", [&] {
    Network tried = small;
    fit(tried, bad, ReLU{});
  });
}

// Biases that came or went, the sum of two heads, a first convolution behind transform_input, a ViT's positions.
TEST(Fit, TakesBiasesChannelsAndPositionsFromTheFile) {
  const test::TempFolder t;
  const auto check = [&](const char* model, int64_t classes, const auto& make) {
    SCOPED_TRACE(model);
    Network network = make_network(model, {.divide_channels = 8, .classes = 21});
    const Network own = make(make_network(model, {.divide_channels = 8, .classes = classes}));
    const Weights weights = random_weights(own, 3);
    save_weights(own, weights, t / "own.safetensors");
    StateDict file = read_state_dict(t / "own.safetensors");
    EXPECT_FALSE(fit(network, file).empty());
    EXPECT_EQ(network.nodes, own.nodes);
    EXPECT_EQ(network.input.c, own.input.c);
    EXPECT_TRUE(std::ranges::equal(load_weights(network, file).values(), weights.values()));
  };
  check("lraspp_mobilenet_v3_large", 5, [](Network n) { return n; });
  check("deeplabv3_resnet50", 5, [](Network n) { return n; });
  check("resnet18", 21, [](Network n) {
    std::get<Conv2d>(n.nodes.edit(n.find("conv1")).layer).has_bias = true;
    std::get<Linear>(n.nodes.edit(n.find("fc")).layer).has_bias = false;
    return n;
  });
  for (const char* inception : {"inception_v3", "googlenet"})
    check(inception, 21, [](const Network& n) {
      Network own(n.name, n.input);
      own.training_only = n.training_only;
      own.input.c = 4;
      for (int i = 3; i < n.nodes.count(); ++i) {
        std::vector<int> inputs = n.nodes[i].inputs;
        for (int& input : inputs) input = std::max(0, input - 2);
        own.add(n.nodes[i].name, n.nodes[i].layer, inputs);
      }
      std::get<Conv2d>(own.nodes.edit(1).layer).in_channels = 4;
      return own;
    });
  Network vit = make_network("vit_b_16");
  const std::vector<float> zeros(768 * 768, 0.f);
  write_safetensors(t / "positions.safetensors", {{"encoder.pos_embedding", {1, 577, 768}, std::span(zeros).first(577 * 768)},
                                                  {"conv_proj.bias", {768}, std::span(zeros).first(768)},
                                                  {"conv_proj.weight", {768, 3, 16, 16}, std::span(zeros)}}, {});
  StateDict file = read_state_dict(t / "positions.safetensors");
  fit(vit, file);
  EXPECT_EQ(vit.nodes, make_network("vit_b_16", {.side = 384}).nodes);
  EXPECT_EQ(vit.input.h, 384);
}

}  // namespace
}  // namespace switchback
