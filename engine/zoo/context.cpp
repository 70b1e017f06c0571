// The context network of Yu & Koltun ("Multi-scale context aggregation by dilated convolutions", ICLR 2016, table 1,
// "basic"): it takes one map for each of C classes (21, Pascal VOC, at 64x64) from a network before it and gives as
// many, each place seeing 67x67 of the input. Its input is no image: give it .npy arrays [N,C,H,W].
//
// Every map is padded by its dilation and keeps its size, as in the authors' training program, whose names these are.
// (The weights that they published are of the larger variant, which pads once, by 33, at its front.)
#include "engine/zoo/zoo.h"

namespace switchback {

Network make_context(const ZooOptions& options) {
  const int64_t classes = options.classes ? options.classes : 21;
  Network net("context", {1, classes, 64, 64});
  const struct {
    const char *conv, *relu;
    int64_t dilation;
  } layers[] = {{"ctx_conv1_1", "ctx_relu1_1", 1}, {"ctx_conv1_2", "ctx_relu1_2", 1},
                {"ctx_conv2_1", "ctx_relu2_1", 2}, {"ctx_conv3_1", "ctx_relu3_1", 4},
                {"ctx_conv4_1", "ctx_relu4_1", 8}, {"ctx_conv5_1", "ctx_relu5_1", 16},
                {"ctx_fc1", "ctx_fc1_relu", 1}};
  for (const auto& layer : layers) {
    net.add(layer.conv, conv2d(classes, classes, 3, 1, layer.dilation, layer.dilation));
    net.add(layer.relu, ReLU{});
  }
  net.add("ctx_final", conv2d(classes, classes, 1));
  return net;
}

}  // namespace switchback
