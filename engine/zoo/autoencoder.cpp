// The convolutional autoencoder of Khozein's thesis on visualising what its layers encode (section 2.2, figure 5):
// CIFAR images of 3x32x32, halved four times while channels double, to 128x2x2, and back by the same steps in reverse.
// Every layer has stride 2 and a ReLU, the last one too. enc0 and dec1, enc1 and dec2, enc2 and dec3 give maps of one
// shape.
//
// The thesis does not name the kernel; that of its filters is larger than the stride, since it finds checkerboards.
// Here it is 3x3 with padding 1, and a row and column more at the end of what is enlarged. Images are in [0,1].
#include "engine/zoo/zoo.h"

namespace switchback {

Network make_autoencoder(const ZooOptions& options) {
  const int64_t d = options.divide_channels;
  const int64_t channels[] = {3, 16 / d, 32 / d, 64 / d, 128 / d};
  Network net("autoencoder", {1, 3, 32, 32});
  for (size_t i = 0; i < 4; ++i) {
    net.add(fmt::format("enc{}", i), conv2d(channels[i], channels[i + 1], 3, 2, 1));
    net.add(fmt::format("enc{}_relu", i), ReLU{});
  }
  for (size_t i = 4; i-- > 0;) {
    net.add(fmt::format("dec{}", i), conv_transpose2d(channels[i + 1], channels[i], 3, 2, 1, 1));
    net.add(fmt::format("dec{}_relu", i), ReLU{});
  }
  return net;
}

}  // namespace switchback
