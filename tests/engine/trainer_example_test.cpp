// The example of engine/README.md, "Training": what stands between the marks below is what stands there, and it learns.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/files/files.h"
#include "engine/train/augment.h"
#include "engine/train/trainer.h"
#include "engine/weights.h"
#include "engine/zoo/zoo.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

// The code lines of a text between two marks, without what indents them.
std::string lines_between(const std::string& text, const std::string& begin, const std::string& end) {
  const size_t first = text.find(begin), from = text.find('\n', first) + 1, last = text.find(end, from);
  if (first == text.npos || last == text.npos) return "not found: " + begin;
  std::string out;
  for (size_t at = from; at < last;) {
    const size_t stop = std::min(text.find('\n', at), last), word = text.find_first_not_of(' ', at);
    if (word < stop) out += text.substr(word, stop - word) + "\n";
    at = stop + 1;
  }
  return out;
}

TEST(TrainerExample, IsTheReadmesAndLearns) {
  const std::string root = SWITCHBACK_SOURCE_DIR;
  EXPECT_EQ(lines_between(read_file(root + "/tests/engine/trainer_example_test.cpp", 1 << 20), "// example" " begins",
                          "// example" " ends"),
            lines_between(read_file(root + "/engine/README.md", 1 << 20), "## Training", "A `Trainer`"));

  const test::TempFolder folder;
  const std::string file = folder / "trained.safetensors";
  Context ctx;
  const Network network = make_network("mlp:2-8-2");
  const int64_t images = 128;
  const uint64_t seed = 4;
  std::vector<float> points(size_t(images) * 2);
  std::vector<int32_t> sides(static_cast<size_t>(images));
  for (size_t i = 0; i < sides.size(); ++i) {
    const double turn = double(i) * 2.4;
    points[2 * i] = float(std::cos(turn)), points[2 * i + 1] = float(std::sin(turn));
    sides[i] = points[2 * i] > points[2 * i + 1];
  }
  std::vector<float> x;
  std::vector<int32_t> y;
  const auto batch = [&](const std::vector<int64_t>& order, int64_t first) {
    x.clear();
    for (int64_t i = first; i < first + 64; ++i) x.insert(x.end(), {points[2 * order[i]], points[2 * order[i] + 1]});
    return x.data();
  };
  const auto labels = [&](const std::vector<int64_t>& order, int64_t first) {
    y.clear();
    for (int64_t i = first; i < first + 64; ++i) y.push_back(sides[order[i]]);
    return std::span<const int32_t>(y);
  };
  testing::internal::CaptureStdout();
  {
    // example begins
    Trainer trainer(ctx, {network, initial_weights(network, seed)}, network.input,
                    {.batch = 64, .optimizer = {.kind = Optimizer::Kind::adam, .weight_decay = 1e-4}, .seed = seed});
    for (int64_t epoch = 0; epoch < 10; ++epoch) {
      const std::vector<int64_t> order = epoch_order(images, seed, epoch);
      for (int64_t first = 0; first < images; first += 64) {
        const StepResult r = trainer.step(batch(order, first), 64, {.labels = labels(order, first)}, 1e-2);
        fmt::print("{}: loss {}, {} of 64 right\n", trainer.steps(), r.loss, r.right);
      }
    }
    save_weights(network, trainer.weights(), file);
    // example ends
  }
  const std::string said = testing::internal::GetCapturedStdout();
  EXPECT_NE(said.find("20: loss 0."), said.npos) << said;
  const size_t last = said.rfind(" of 64 right"), comma = said.rfind(", ", last);
  EXPECT_GT(std::stoi(said.substr(comma + 2, last - comma - 2)), 45) << said;
  EXPECT_GT(file_size(file), 0);
}

}  // namespace
}  // namespace switchback
