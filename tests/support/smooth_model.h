// A small network without a gate that could fall otherwise (GELU), as tests/golden/make_dreams.py has it.
#pragma once

#include "engine/model.h"

namespace switchback::test {

inline Model smooth_model() {
  Network net("smooth", {1, 3, 20, 24});
  net.add("conv1", conv2d(3, 8, 3, 1, 1));
  net.add("gelu1", Smooth{SmoothFunction::gelu});
  net.add("conv2", conv2d(8, 12, 3, 2, 1));
  net.add("gelu2", Smooth{SmoothFunction::gelu});
  net.add("pool", AdaptiveAvgPool2d{1, 1});
  net.add("flatten", Flatten{});
  net.add("fc", Linear{12, 5});
  Model model{net, random_weights(net, 7)};
  model.preprocess = imagenet_preprocess();
  return model;
}

}  // namespace switchback::test
