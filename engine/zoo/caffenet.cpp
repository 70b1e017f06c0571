// The original AlexNet (Krizhevsky, Sutskever & Hinton 2012) in the layout of Caffe's reference network, "CaffeNet":
// two groups in conv2, conv4 and conv5, as of two GPUs, and local response normalisation after the first two pools (in
// the paper before them). Layers have Caffe's names, pools its rounding up. fc6's columns are in CHW order, as Caffe's.
#include "engine/zoo/zoo.h"

namespace switchback {

Network make_caffenet(const ZooOptions& options) {
  const int64_t d = options.divide_channels, classes = options.classes ? options.classes : 1000;
  const Layer pool = max_pool2d(3, 2, 0, 1, true);
  const Layer norm = LocalResponseNorm{.size = 5, .alpha = 1e-4f, .beta = 0.75f, .k = 1.f};
  const int64_t side = options.side ? options.side : 227;
  Network net("caffenet", {1, 3, side, side});
  net.add("conv1", conv2d(3, 96 / d, 11, 4));
  net.add("relu1", ReLU{});
  net.add("pool1", pool);
  net.add("norm1", norm);
  net.add("conv2", conv2d(96 / d, 256 / d, 5, 1, 2, 1, 2));
  net.add("relu2", ReLU{});
  net.add("pool2", pool);
  net.add("norm2", norm);
  net.add("conv3", conv2d(256 / d, 384 / d, 3, 1, 1));
  net.add("relu3", ReLU{});
  net.add("conv4", conv2d(384 / d, 384 / d, 3, 1, 1, 1, 2));
  net.add("relu4", ReLU{});
  net.add("conv5", conv2d(384 / d, 256 / d, 3, 1, 1, 1, 2));
  net.add("relu5", ReLU{});
  net.add("pool5", pool);
  net.add("flatten", Flatten{});
  net.add("fc6", Linear{net.shapes(net.input).back().c, 4096 / d});
  net.add("relu6", ReLU{});
  net.add("drop6", Dropout{});
  net.add("fc7", Linear{4096 / d, 4096 / d});
  net.add("relu7", ReLU{});
  net.add("drop7", Dropout{});
  net.add("fc8", Linear{4096 / d, classes});
  return net;
}

}  // namespace switchback
