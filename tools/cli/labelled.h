// Labelled data sets as commands use them: their images as a model's input, their classes as its outputs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/files/dataset.h"
#include "engine/model.h"

namespace switchback {

inline constexpr char kDatasets[] = "an idx file, a binary file or mosaic of CIFAR, an .npz, or a folder with one sub-folder a class";

// Output of the model for each class of the data set: by name where the model's labels hold all of them, else by
// number. Throws where the numbers of classes and outputs differ as well.
std::vector<int64_t> class_map(const Dataset& data, const Model& model, int64_t outputs, const std::string& path);

// Image i through the model's preprocessing, NCHW.
void load_item(const Dataset& data, int64_t i, const Model& model, float* to);

}  // namespace switchback
