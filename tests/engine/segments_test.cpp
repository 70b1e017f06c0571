// Batches in pieces that fit the cache (engine/run/segments.h): bits, gates, switches and kept values are those of single
// images, and steps are divided as the maps' sizes say.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "engine/run/backward.h"
#include "engine/run/plan.h"
#include "engine/run/segments.h"
#include "tests/support/net.h"
#include "tests/support/random_network.h"

namespace switchback {
namespace {

// Maps of 4 MB an image at first: clipped gates, a residual, switches of both sizes, a concatenation, gates that run with
// the whole batch, kept values and kept operands, then a small end.
test::Net heavy_network() {
  test::Net net("heavy", {1, 3, 256, 256});
  net.add("stem", conv2d(3, 16, 3, 1, 1));
  const int relu6 = net.add("relu6", ReLU{6.f});
  net.add("body", conv2d(16, 16, 3, 1, 1));
  const int body = net.add("body_relu", ReLU{});
  net.add("sum", Add{}, {relu6, body});
  const int sum = net.add("sum_relu", ReLU{6.f});
  const int odd = net.add("odd", conv2d(16, 5, 1), {sum});  // gates with padding bits
  net.add("odd_relu", ReLU{6.f}, {odd});
  const int left = net.add("left_pool", max_pool2d(2, 2));
  const int right = net.add("right_pool", max_pool2d(17, 2, 8), {sum});
  net.add("cat", Concat{}, {left, right});
  const int gate = net.add("hard", Hardsigmoid{});
  const int smooth = net.add("smooth", Smooth{SmoothFunction::sigmoid}, {net.find("cat")});
  net.add("product", Binary{BinaryFunction::mul}, {gate, smooth});
  net.add("narrow", conv2d(21, 8, 1));
  net.add("narrow_relu", ReLU{});
  net.add("pool", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{8, 3});
  net.weights = random_weights(net, 11);
  test::make_whole(net, 1);
  return net;
}

constexpr int64_t kBatch = 5;
constexpr Shape kItem{1, 3, 256, 256};

std::vector<float> images() {
  std::vector<float> x(size_t(kBatch * kItem.item()));
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(int(i * 2654435761u >> 16) % 7 - 3);
  return x;
}

struct Pass {
  Context ctx;
  Plan plan;
  Tape tape;
  Pass(const test::Net& net, const float* x, int64_t capacity, int64_t n)
      : plan((ctx.conv = ConvAlgorithm::direct, ctx), net, kItem.with_n(capacity), {}) {
    plan.write(x, n);
    plan.forward(&tape);
  }
  Tensor gradient(ReluRule rule) {
    Backward backward(plan, plan.network().output(), {.nodes = {0}}, tape.n);
    one_hot(ctx, backward.seed(tape.n), std::vector<SeedUnit>(size_t(tape.n), {1, -1, -1}));
    const ConstView g = backward.run(tape, {.rule = rule});
    Tensor out({g.shape.n, g.shape.c, g.shape.h, g.shape.w});
    read_nchw(ctx, g, out.data());
    return out;
  }
};

void expect_item(const Tensor& whole, int64_t item, const Tensor& alone) {
  EXPECT_EQ(std::memcmp(whole.data() + item * alone.count(), alone.data(), size_t(alone.count()) * sizeof(float)), 0)
      << "image " << item;
}

// Both planes of all gates. Returns how many units are clipped.
int expect_gates(const Tape& batch, int64_t item, const Tape& alone) {
  int clipped = 0;
  for (const Tape::Slot& slot : batch.slots) {
    if (slot.kind != Tape::Kind::gate) continue;
    const size_t words = size_t(gate_words(slot.shape.with_n(1)));
    const GatePlanes all = gate_planes(batch, slot.node), one = gate_planes(alone, slot.node);
    EXPECT_EQ(std::memcmp(all.gates + size_t(item) * words, one.gates, words * 4), 0) << slot.node << " image " << item;
    if (!one.above) continue;
    EXPECT_EQ(std::memcmp(all.above + size_t(item) * words, one.above, words * 4), 0) << slot.node << " image " << item;
    for (size_t i = 0; i < words; ++i) clipped += std::popcount(one.above[i]);
  }
  return clipped;
}

TEST(Segments, PiecesAreSingleImages) {
  const test::Net net = heavy_network();
  const std::vector<float> x = images();
  for (const int64_t n : {kBatch, kBatch - 2}) {  // a full batch and one that leaves room
    Pass batch(net, x.data(), kBatch, n);
    const Tensor scores = batch.plan.read(net.output());
    for (const ReluRule rule : {kGradient, kGuided}) {
      const Tensor gradients = batch.gradient(rule);
      for (int64_t i = 0; i < n; ++i) {
        Pass alone(net, x.data() + i * kItem.item(), 1, 1);
        expect_item(scores, i, alone.plan.read(net.output()));
        EXPECT_GT(expect_gates(batch.tape, i, alone.tape), 0);
        const Tensor gradient = alone.gradient(rule);
        double sum = 0;
        for (float v : gradient.values()) sum += std::abs(v);
        EXPECT_GT(sum, 0);
        expect_item(gradients, i, gradient);
      }
    }
  }
}

// Every step once and in order, few images at a time where maps are large, all of them where they are small; less memory.
TEST(Segments, FollowTheSizeOfMaps) {
  const test::Net net = heavy_network();
  Context ctx;
  const auto divide = [&](int64_t n) {
    const Plan plan(ctx, net, kItem.with_n(n), {});
    return cache_segments(net, plan.steps(), plan.shapes(), DType::f32, List<bool>(plan.steps().size(), false));
  };
  for (const int64_t n : {int64_t(2), kBatch, int64_t(64)}) {
    int next = 0;
    for (const Segment& s : divide(n)) {
      EXPECT_EQ(s.first, next);
      EXPECT_GE(s.last, s.first);
      EXPECT_GE(s.items, 1);
      EXPECT_LE(s.items, n);
      next = s.last + 1;
    }
    EXPECT_EQ(next, int(Plan(ctx, net, kItem.with_n(n), {}).steps().size()));
  }
  const List<Segment> segments = divide(64);
  EXPECT_LE(segments.front().items, 2);
  EXPECT_EQ(segments.back().items, 64);
  EXPECT_EQ(divide(1).size(), 1u);
  const auto arena = [&](int64_t n) { return Plan(ctx, net, kItem.with_n(n), {}).arena_bytes(); };
  EXPECT_LT(arena(64), 40 * arena(1));
}

}  // namespace
}  // namespace switchback
