// One pixel's derivative along a line of inputs: at both ends and between it is the gradient's; then `gradient --along`.
#include "viz/methods/along.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/files/npy.h"
#include "tests/support/cli_run.h"
#include "tests/support/on_device.h"
#include "tests/support/smooth_model.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

using nlohmann::json;

class AlongLine : public OnDevice {
 protected:
  Model model = smooth_model();
  Tensor image(float phase) const {
    Tensor x({1, 3, 20, 24});
    for (int64_t i = 0; i < x.count(); ++i) x[i] = std::sin(0.1f * float(i) + phase);
    return x;
  }
  TargetSpec target{"2", "", Score::logit, false};
};

TEST_P(AlongLine, IsTheGradientAtEveryPoint) {
  const Tensor x = image(0), end = image(1);
  AlongOptions o;
  o.points = 5;
  o.end = end.clone();
  o.pixel = {7, 11};
  const Along a = along(ctx, model, x, target, {}, o);
  ASSERT_EQ(a.derivative.dims(), (Dims{5, 3}));
  for (int64_t p = 0; p < 5; ++p) {
    Tensor between(x.dims());
    for (int64_t i = 0; i < x.count(); ++i) between[i] = float(double(x[i]) + double(p) / 4 * (double(end[i]) - double(x[i])));
    const Maps maps = gradient(ctx, model, between, target, {});
    float largest = 0;
    for (const float v : maps.values.values()) largest = std::max(largest, std::abs(v));
    EXPECT_EQ(a.largest[p], largest);
    for (int64_t c = 0; c < 3; ++c) EXPECT_EQ(a.derivative[3 * p + c], maps.values[(c * 20 + 7) * 24 + 11]);
  }
}

TEST_P(AlongLine, NoiseAndPixelAreChosen) {
  const Tensor x = image(0);
  AlongOptions o;
  o.points = 3, o.noise = 0.1, o.seed = 5;
  const Along a = along(ctx, model, x, target, {}, o);
  EXPECT_EQ(a.pixel, (std::array<int64_t, 2>{10, 12}));
  double squares = 0;
  for (int64_t i = 0; i < x.count(); ++i) squares += std::pow(double(a.end[i]) - double(x[i]), 2);
  EXPECT_NEAR(std::sqrt(squares / double(x.count())), 0.2, 0.01);  // 0.1 of a range of 2
  o.batch = 2, o.seed = 5;
  const Along again = along(ctx, model, x, target, {}, o);
  EXPECT_EQ(std::memcmp(a.derivative.data(), again.derivative.data(), 9 * sizeof(float)), 0);
  o.seed = 6;
  EXPECT_NE(along(ctx, model, x, target, {}, o).end[0], a.end[0]);
  o.pixel = {20, 0};
  expect_error("outside", [&] { along(ctx, model, x, target, {}, o); });
}

SWITCHBACK_ON_ALL_DEVICES(AlongLine);

TEST(CliAlong, PlotAndArrays) {
  const TempFolder folder;
  const json d = succeed_json({"gradient", "--model", "lenet", "--along", "seed", "--points", "20", "--pixel", "13,9", "--save", "png,npy",
                               "--json", "-o", folder / "out", digit(3)});
  EXPECT_EQ(d["points"], 20);
  EXPECT_EQ(d["inputs"][0]["target"], 3);
  EXPECT_EQ(d["inputs"][0]["pixel"], (json{13, 9}));
  EXPECT_EQ(d["inputs"][0]["files"].size(), 3u);
  EXPECT_EQ(read_npy(result(d, "13,9.npy")).dims(), (Dims{1, 20, 1}));
  EXPECT_EQ(read_npy(result(d, "largest.npy")).dims(), (Dims{1, 20}));
  succeed_json({"gradient", "--model", "lenet", "--along", digit(8), "--points", "4", "--json", "-o", folder / "out", digit(3)});
  for (const auto& [more, what] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--along", "seed", "--pixel", "28,0"}, "outside"},
           {{"--along", "seed", "--pixel", "3"}, "X,Y"},
           {{"--along", "seed", "--points", "1"}, "--points"},
           {{"--along", "seed", "--noise", "0"}, "--noise"},
           {{"--along", "seed", "--target", "1,2"}, "one target"},
           {{"--along", "seed", "--times-input"}, "of maps"},
           {{"--points", "20"}, "of --along"}}) {
    std::vector<std::string> all{"gradient", "--model", "lenet", "-o", folder / "out", digit(3)};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome outcome = run_switchback(all);
    EXPECT_EQ(outcome.code, 2) << outcome.line << outcome.err;
    EXPECT_NE(outcome.err.find(what), std::string::npos) << outcome.line << "\n" << outcome.err;
  }
}

}  // namespace
}  // namespace switchback::test
