// Labelled images in an archive of numpy.savez or savez_compressed, as Keras (cifar10.npz, mnist.npz: x_train, y_train, x_test,
// y_test), MedMNIST (train_images, train_labels) and others keep them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchback {

struct NpzImages {
  int width = 0, height = 0, channels = 0;  // 1 or 3
  std::vector<uint8_t> pixels;              // (image, height, width, channels)
  std::vector<int> labels;                  // one an image
  int classes = 0;                          // above every label of all arrays of the archive
};

// The array `name` of images, or ("") the only one. Images are uint8 [N,H,W], [N,H,W,C], [N,C,H,W], or [N,3072] as CIFAR's
// binary files have them; C is 1 or 3. Their labels are whole numbers [N] or [N,1] in the array of the same name with y for x,
// or labels for images or data.
NpzImages read_npz_images(const std::string& path, const std::string& name, int most_classes, int64_t most_bytes);

}  // namespace switchback
