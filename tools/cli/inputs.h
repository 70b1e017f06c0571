// INPUT arguments: which files they mean, and how they become tensors.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/files/dataset.h"
#include "engine/files/files.h"
#include "engine/model.h"
#include "engine/tensor.h"

namespace switchback {

struct Job;
class Output;

struct InputFile {
  std::string path;    // "-": standard input
  std::string stem;    // of result files, unique within the run: equal ones get _2, _3
  bool array = false;  // .npy: used as it is, N items; else an image (one item) or a data set
  int64_t index = 0;   // in the run
  std::shared_ptr<const Dataset> dataset = nullptr;
  bool many() const { return array || dataset; }
};
inline constexpr const char* kContactSheet = "contact_sheet";  // the stem of the sheet of all inputs
inline constexpr const char* kAverage = "average";             // and of what is the average over all
inline constexpr const char* kInputs =
    "images, folders of images, - (an image on standard input), .npy arrays [N,C,H,W], or data sets (an idx file, a CIFAR "
    "mosaic, a folder with one sub-folder a class) and parts of them, DATASET[INDEX] and DATASET[FIRST:LAST]";

// Consecutive files of one image shape, run together.
struct Chunk {
  struct Part {
    const InputFile* file;
    int64_t first, count;  // its items in x
  };
  std::vector<Part> parts;
  Tensor x;  // [N,C,H,W]
};

// The inputs of a run. One of several that cannot be read is told of and left out (Job::failed), but with --strict.
class Inputs {
 public:
  // Directories give their images in the order of their names (other files are skipped with a warning). Throws (usage) on
  // an empty list.
  Inputs(Job& job, Output& output);
  const std::vector<InputFile>& files() const { return files_; }
  int64_t readable() const { return int64_t(files_.size()) - unread_; }  // of the files, as far as is known
  // How many items the files hold, for progress: only the headers of arrays are read.
  int64_t count() const;
  static int64_t count_of(const InputFile& file);  // 1 where that cannot be told
  nlohmann::ordered_json about() const;  // how many, and their paths: so that parts of different runs are told apart
  // [N,C,H,W], checked against the model; nothing where it cannot be read.
  std::optional<Tensor> load(const InputFile& file);
  // Calls `run` for chunks of at most most(image shape) items (a file is never split); only one chunk is in memory.
  void for_each_chunk(const std::function<int64_t(Shape image)>& most, const std::function<void(const Chunk&)>& run);

 private:
  void add(const std::string& argument);
  void add_file(const std::string& path, std::string stem, std::shared_ptr<const Dataset> dataset = nullptr);
  // What `read` throws about `path` ends the run, or is noted where other inputs may be read.
  bool attempt(const std::string& path, const std::function<void()>& read);
  [[noreturn]] void none_read() const;
  Job& job_;
  Output& output_;
  std::vector<InputFile> files_;
  int64_t loaded_ = 0, unread_ = 0;
};

// --save-input: what the network sees of all inputs, as one array [N,C,H,W].
class InputRecorder {
 public:
  explicit InputRecorder(std::string path) : path_(std::move(path)) {}
  // n items of one shape; the file is among the output's.
  void add(Output& output, const float* items, int64_t n, Shape image);
  void finish();

 private:
  std::string path_;
  OutputFile* file_ = nullptr;
  Shape image_;
  int64_t count_ = 0;
};

// Whether a path's name is that of an image or an array.
bool is_array(const std::string& path);  // a .npy file
bool is_single_input(const std::string& path);

// An image or array, [N,C,H,W]; one image of it: the baseline of integrated gradients.
Tensor load_file(const std::string& path, const Job& job);
Tensor load_single(const std::string& path, const Job& job);

// What the network saw of one item, as a picture in its own colours: images with their normalisation undone, arrays
// stretched to 0..255.
Image input_picture(const Tensor& x, int64_t item, const Model& model, bool array);

// An item's name in labels and summaries: "chelsea.png", "batch.npy[3]", of a data set "t10k.gz[9729]" or "cat/a.png".
std::string item_name(const InputFile& file, int64_t index);
// Its number in the file or the whole data set, and the fields that begin its entry in the JSON document.
int64_t item_number(const InputFile& file, int64_t index);
nlohmann::ordered_json item_json(const InputFile& file, int64_t index);

}  // namespace switchback
