// INPUT arguments: which files they mean, and how they become tensors.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/tensor.h"

namespace switchback {

struct InputFile {
  std::string path;
  std::string stem;    // of result files, unique within the run: equal ones get _2, _3
  bool array = false;  // .npy: used as it is, N items; else an image: one item
  int64_t index = 0;   // in the run
};
inline constexpr const char* kContactSheet = "contact_sheet";  // the stem of the sheet of all inputs

// Directories give their images in the order of their names (other files are skipped with a warning). Throws on what
// does not exist, on an empty directory and (usage) on an empty list.
std::vector<InputFile> list_inputs(const std::vector<std::string>& arguments);

// How many items the files hold, for progress: only the headers of arrays are read.
int64_t count_items(const std::vector<InputFile>& files);

// Whether a path's name is that of an image or an array.
bool is_single_input(const std::string& path);

// [N,C,H,W], checked against the model; errors name the file.
Tensor load_input(const InputFile& file, const Model& model);

// Consecutive files of one image shape, run together.
struct Chunk {
  struct Part {
    const InputFile* file;
    int64_t first, count;  // its items in x
  };
  std::vector<Part> parts;
  Tensor x;  // [N,C,H,W]
};
// Calls `run` for chunks of at most most(image shape) items (a file is never split); only one chunk is in memory.
void for_each_chunk(const std::vector<InputFile>& files, const Model& model,
                    const std::function<int64_t(Shape image)>& most, const std::function<void(const Chunk&)>& run);

// Images of another form that hold no class: the baseline of integrated gradients.
Tensor load_single(const std::string& path, const Model& model);

// What the network saw of one item, as a picture in its own colours: images with their normalisation undone, arrays
// stretched to 0..255.
Image input_picture(const Tensor& x, int64_t item, const Model& model, bool array);

// An item's name in labels and summaries: "chelsea.png" or "batch.npy[3]".
std::string item_name(const InputFile& file, int64_t index);

}  // namespace switchback
