// Labelled data sets as commands use them: their images as a model's input, their classes as its outputs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/files/dataset.h"
#include "engine/model.h"
#include "tools/cli/read_ahead.h"

namespace switchback {

struct Job;

inline constexpr char kDatasets[] = "an idx file, a binary file or mosaic of CIFAR, an .npz, a .tar, or a folder with one sub-folder a class";

// Output of the model for each class of the data set: by name where the model's labels hold all of them, else by
// number. Throws where the numbers of classes and outputs differ as well.
std::vector<int64_t> class_map(const Dataset& data, const Model& model, int64_t outputs, const std::string& path);

// [1,C,H,W] that the model's preprocessing makes of an image.
Shape image_of(const Model& model);
// How many of its images are meant: all, or with --limit the first ones.
int64_t limited(const Dataset& data, const std::string& limit);
std::vector<int64_t> numbers_of(int64_t first, int64_t last);  // first, first + 1, … last - 1

// Image i through the model's preprocessing, NCHW.
void load_item(const Dataset& data, int64_t i, const Model& model, float* to);

// These images of a data set in batches of at most `batch`, read ahead of `work`. leave_out: of those that cannot be read;
// where each is wanted, kLeaveNoneOut.
inline const ReadAhead::LeaveOut kLeaveNoneOut = [](int64_t, const Error& why) { throw why; };
void read_batches(const Dataset& data, std::span<const int64_t> images, const Model& model, int64_t batch, int threads,
                  const ReadAhead::LeaveOut& leave_out, const std::function<void(const ReadAhead::Batch&)>& work);

// The same as a command's run: work(pixels [n,C,H,W], their numbers), and the progress bar. Those that cannot be read are
// told of and left out (--strict: thrown). Returns how many were read.
int64_t for_batches(Job& job, const Dataset& data, std::span<const int64_t> images, int64_t batch,
                    const std::function<void(const float* pixels, std::span<const int64_t> numbers)>& work);

}  // namespace switchback
