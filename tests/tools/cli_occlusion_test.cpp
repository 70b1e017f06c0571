// `switchback occlusion`: shapes and axes of what it saves, and that its options mean what the contract says.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/cli_run.h"
#include "engine/files/image.h"
#include "engine/files/npy.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

using nlohmann::json;

const std::string kDigits = std::string(SWITCHBACK_SOURCE_DIR) + "/weights/samples/digit_";

json occlude(const TempFolder& folder, std::vector<std::string> more) {
  std::vector<std::string> arguments = {"occlusion", "--model", "lenet",       "--save",         "png,npy",
                                        "--json",    "-o",      folder.path(), kDigits + "4.png"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome o = run_switchback(arguments);
  EXPECT_EQ(o.code, 0) << o.line << "\n" << o.err;
  return o.json();
}

TEST(CliOcclusion, GridCoverAndPixels) {
  TempFolder folder;
  json d = occlude(folder, {"--mask", "6x8", "--stride", "5"});
  EXPECT_EQ(d["inputs"][0]["files"][1]["axes"], json({"N", "rows", "cols"}));
  EXPECT_EQ(d["algorithm"], "incremental");
  EXPECT_EQ(d["mask"], json({6, 8}));
  EXPECT_EQ(d["inputs"][0]["target"], 4);
  const Tensor grid = read_npy(result(d, ".npy"));
  EXPECT_EQ(grid.dims(), (Dims{1, (28 - 6) / 5 + 1, (28 - 8) / 5 + 1}));
  EXPECT_GE(load_image(result(d, ".png")).width, 28);
  const Tensor covered = read_npy(result(occlude(folder, {"--mask", "6x8", "--stride", "5", "--cover"}), ".npy"));
  EXPECT_EQ(covered.dims(), (Dims{1, 6, 5})) << "22 is no multiple of 5, and 20 is one";
  for (int64_t r = 0; r < 5; ++r)
    for (int64_t c = 0; c < 5; ++c) EXPECT_NEAR(covered[r * 5 + c], grid[r * 5 + c], 1e-4) << r << "," << c;
  d = occlude(folder, {"--mask", "8", "--stride", "4", "--pixels", "--target", "4,9"});
  EXPECT_EQ(d["inputs"][0]["files"][1]["axes"], json({"N", "T", "H", "W"}));
  EXPECT_EQ(read_npy(result(d, ".npy")).dims(), (Dims{1, 2, 28, 28}));
}

TEST(CliOcclusion, FullPreviewAndBoxes) {
  TempFolder folder;
  json d = occlude(folder, {"--mask", "7", "--stride", "3", "--fill", "mean", "--target", "all"});
  const Tensor fast = read_npy(result(d, ".npy"));
  d = occlude(folder, {"--mask", "7", "--stride", "3", "--fill", "mean", "--target", "all", "--algorithm", "full"});
  const Tensor full = read_npy(result(d, ".npy"));
  ASSERT_EQ(fast.dims(), (Dims{1, 10, 8, 8}));
  ASSERT_EQ(full.dims(), fast.dims());
  for (int64_t i = 0; i < full.count(); ++i) EXPECT_NEAR(fast[i], full[i], 5e-4);
  d = occlude(folder, {"--mask", "7", "--stride", "3", "--check-preview"});
  EXPECT_LE(std::abs(d["inputs"][0]["preview_rank_correlation"].get<double>()), 1);
  d = occlude(folder, {"--mask", "7", "--stride", "3", "--preview"});
  EXPECT_EQ(result(d, ".npy"), folder / "digit_4.occlusion-preview-mask7-stride3.npy");
  EXPECT_EQ(read_npy(result(d, ".npy")).dims(), (Dims{1, 8, 8}));
  d = occlude(folder, {"--box", "3,6,7,7", "--box", "0,0,28,28", "--fill", "mean", "--target", "all"});
  EXPECT_EQ(d["boxes"].size(), 2u);
  const Tensor boxes = read_npy(result(d, ".npy"));
  ASSERT_EQ(boxes.dims(), (Dims{1, 10, 1, 2}));
  for (int64_t t = 0; t < 10; ++t) EXPECT_NEAR(boxes[2 * t], fast[(t * 8 + 2) * 8 + 1], 5e-4) << "row 2, column 1";
}

}  // namespace
}  // namespace switchback::test
