// Results: picture and array files that appear together at the end or not at all, what made them, and the contact sheet of
// all inputs.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/files/files.h"
#include "engine/files/image.h"
#include "engine/tensor.h"
#include "tools/cli/inputs.h"
#include "tools/cli/names.h"
#include "viz/pictures/grid.h"

namespace switchback {

using Json = nlohmann::ordered_json;
struct Job;

// What a result belongs to.
struct ResultOf {
  ResultOf(const InputFile& file, std::string part = "") : stem(file.stem), index(file.index), part(std::move(part)) {}
  ResultOf(std::string stem, std::string part = "") : stem(std::move(stem)), part(std::move(part)) {}
  std::string stem;
  int64_t index = 0;   // of the input in the run
  std::string part;    // of several results of one input: "bias" is NAME-bias.npy, ".maps" NAME.maps.npy
  std::string layer = "";  // of several results of one input: instead of --layer
};

class Output {
 public:
  // Makes the folder at once, so that one that cannot be written is found before the work and not after it. `command`: in
  // names, where it is not the job's.
  explicit Output(Job& job, std::string command = "");
  bool pictures() const { return png_ || svg_; }
  bool npy() const { return npy_; }
  // Stages a PNG, an SVG or both, and adds their entries to `files` of the JSON document. `about`: what the picture's
  // metadata say beside the run, as `target` and `colors`.
  void add_picture(Json& files, const ResultOf& of, const Canvas& canvas, const Json& about = Json::object());
  // Stages a file and returns its entry for `files`.
  Json add_npy(const ResultOf& of, const Tensor& tensor, const std::vector<std::string>& axes);
  Json add_npy(const ResultOf& of, std::span<const int32_t> values, const std::string& axis);  // int32
  // The same for an array whose values come piece by piece (OutputFile::write_at, behind `begin` bytes of header).
  Json add_npy(const ResultOf& of, const Dims& dims, const std::vector<std::string>& axes, const Json& more,
               OutputFile*& file, int64_t& begin);
  OutputFile& add_file(const std::string& path) { return files_.add(path); }  // elsewhere, by the name that is given
  OutputFile& add_npz(const ResultOf& of, std::string& path);  // the caller writes the archive
  // An array that the caller writes itself, and completes in `finish` once the other files are there. `more`: beside its
  // entry in FILE.json.
  Json add_own_npy(const ResultOf& of, const Dims& dims, const std::vector<std::string>& axes, const Json& more,
                   std::function<void()> finish = {});
  std::string path(const ResultOf& of, std::string_view ending) const;  // DIR/NAME.ending
  // An item's panels of the contact sheet, as many for each; items beyond the first kMostItems are counted but not
  // drawn.
  void add_to_sheet(std::vector<Panel> panels);
  // Writes the contact sheet if there are at least two items; returns its path or "".
  std::string add_contact_sheet(GridOptions options);
  // What pictures leave out, for the summary's end.
  void note(std::string text) { notes_.push_back(std::move(text)); }
  const std::vector<std::string>& notes() const { return notes_; }
  // All files appear, with what the run's document says of each array (and of pictures, where that is asked for) beside it.
  void commit(const Json& document);
  const std::vector<std::string>& paths() const { return paths_; }  // of all pictures and arrays
  static std::string description_path(const std::string& path);     // FILE.json of FILE.npy

 private:
  static constexpr size_t kMostItems = 120;
  std::string take(const ResultOf& of, std::string_view ending);  // its path, which no other result may have
  void describe(const std::string& path, Json entry);
  Job& job_;
  std::string command_, folder_;
  bool png_, svg_, npy_, json_;
  StagedFiles files_;
  std::vector<std::function<void()>> finish_;
  std::vector<std::string> paths_, notes_;
  std::set<std::string> taken_;
  std::vector<std::pair<std::string, Json>> described_;  // FILE.json and `files` of what lies beside it
  std::vector<Panel> panels_;
  size_t items_ = 0;
};

// {"map": "seismic", "from": -0.2, "to": 0.2}: what a picture's colours mean, for its metadata.
Json colors_json(std::string_view map, Range range);

// Between `least` and `most` pixels on its shorter and longer side: what a panel of the contact sheet wants.
Image thumbnail(const Image& image, int least, int most);

// Pictures of one input's maps: the picture alone (enlarged where it is tiny), or a grid of them.
Canvas arrange(std::vector<Panel> panels, GridOptions options);
inline constexpr size_t kMostGridPanels = 120;

}  // namespace switchback
