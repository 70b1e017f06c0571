// How far linear regions go along a way: against a network whose borders are known, and against LeNet's patterns.
#include "viz/methods/border.h"

#include <gtest/gtest.h>

#include "engine/zoo/zoo.h"
#include "tests/support/cli_run.h"
#include "tests/support/net.h"
#include "tests/support/on_device.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

using nlohmann::json;

class Border : public OnDevice {};

// Units relu(x0 - 0.25), relu(x1 - 0.5), relu(x0 + x1 + 1).
Net three_lines() {
  Net net("lines", Shape{1, 2, 1, 1});
  net.add("flatten", Flatten{});
  net.add("fc1", Linear{2, 3});
  net.add("relu", ReLU{});
  net.add("fc2", Linear{3, 2});
  net.weights = random_weights(net, 1);
  const float weight[6] = {1, 0, 0, 1, 1, 1}, bias[3] = {-0.25f, -0.5f, 1};
  std::ranges::copy(weight, net.weights.edit(2, "weight").begin());
  std::ranges::copy(bias, net.weights.edit(2, "bias").begin());
  return net;
}

TEST_P(Border, LiesWhereTheFirstUnitTurns) {
  const Net net = three_lines();
  Tensor x({4, 2, 1, 1}), to({4, 2, 1, 1});
  // x0 = 0.25 at a quarter; x1 = 0.5 before x0 = 0.25; all the way; the sum is -1 at a half.
  const float from[8] = {0, 0, 0, 0.4f, 0, 0, 0, 0}, end[8] = {1, 0, 0.5f, 0.6f, 0.2f, 0.4f, -2, 0};
  std::copy_n(from, 8, x.data());
  std::copy_n(end, 8, to.data());
  for (const int64_t batch : {1, 4}) {
    RunOptions o;
    o.batch = batch;
    const std::vector<double> t = border_along(ctx, net, x, to, o);
    EXPECT_NEAR(t[0], 0.25, 1e-6);
    EXPECT_NEAR(t[1], 0.5, 1e-6);
    EXPECT_EQ(t[2], 1);
    EXPECT_NEAR(t[3], 0.5, 1e-6);
  }
  Network smooth("smooth", {1, 2, 1, 1});
  smooth.add("flatten", Flatten{});
  smooth.add("fc1", Linear{2, 3});
  smooth.add("gelu", Smooth{SmoothFunction::gelu});
  smooth.add("fc2", Linear{3, 2});
  const Model model{smooth, random_weights(smooth, 1)};
  expect_error("gelu", [&] { border_along(ctx, model, x, to, {}); });
}

SWITCHBACK_ON_ALL_DEVICES(Border);

TEST(CliBorder, OfDigits) {
  const TempFolder folder;
  const json d = succeed_json({"adversarial", "--model", "lenet", "--epsilon", "0.2", "--border", "--save", "none",
                               "--json", "-o", folder / "out", digit(3), digit(8)});
  for (const json& input : d["inputs"]) {
    const double share = input["border"]["share"];
    EXPECT_GT(share, 0);
    EXPECT_LT(share, 0.2) << "many units turn on the way";
    EXPECT_NEAR(input["border"]["l2"].get<double>(), share * input["l2"].get<double>(), 1e-9);
  }
}

}  // namespace
}  // namespace switchback::test
