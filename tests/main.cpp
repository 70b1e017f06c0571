// Entry of switchback_tests: ops are registered by an explicit list, other tests use TEST as usual.
#include <gtest/gtest.h>

#include "tests/ptx/device.h"

namespace switchback::test {
void register_gates_tests();
void register_conv_tests();
void register_linear_tests();
void register_pool_tests();
void register_pointwise_tests();
void register_normalize_tests();
void register_rule_tests();
void register_noise_tests();
void register_patch_tests();
void register_frozen_tests();
void register_golden_tests();
void register_golden_layer_tests();
void register_activation_tests();
void register_binary_tests();
void register_conv_transpose_tests();
void register_resample_tests();
void register_image_tests();
void register_learn_tests();
void register_attention_tests();
}  // namespace switchback::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  switchback::test::register_gates_tests();
  switchback::test::register_conv_tests();
  switchback::test::register_linear_tests();
  switchback::test::register_pool_tests();
  switchback::test::register_pointwise_tests();
  switchback::test::register_normalize_tests();
  switchback::test::register_rule_tests();
  switchback::test::register_noise_tests();
  switchback::test::register_patch_tests();
  switchback::test::register_frozen_tests();
  switchback::test::register_golden_tests();
  switchback::test::register_golden_layer_tests();
  switchback::test::register_activation_tests();
  switchback::test::register_binary_tests();
  switchback::test::register_conv_transpose_tests();
  switchback::test::register_resample_tests();
  switchback::test::register_image_tests();
  switchback::test::register_learn_tests();
  switchback::test::register_attention_tests();
  const int failed = RUN_ALL_TESTS();
  switchback::ptx::write_report();
  return failed;
}
