// Results: picture and array files that appear together at the end or not at all, the contact sheet of all inputs, and
// the report on stdout.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/files/files.h"
#include "engine/files/image.h"
#include "engine/tensor.h"
#include "tools/cli/options.h"
#include "viz/pictures/grid.h"

namespace switchback {

using Json = nlohmann::ordered_json;

class Output {
 public:
  // Makes the folder at once, so that one that cannot be written is found before the work and not after it.
  explicit Output(const Options& o);
  bool png() const { return png_; }
  bool npy() const { return npy_; }
  // Each stages DIR/NAME and returns its entry for `files` of the JSON document.
  Json add_png(const std::string& name, const Image& image);
  Json add_npy(const std::string& name, const Tensor& tensor, const std::vector<std::string>& axes);
  // The same for an array whose values come piece by piece (OutputFile::write_at, behind `begin` bytes of header).
  OutputFile& add_npy(const std::string& name, const Dims& dims, int64_t& begin);
  std::string path(const std::string& name) const;  // DIR/NAME
  // One panel of the contact sheet; those beyond the first kMostPanels are counted but not drawn.
  void add_panel(Image picture, std::string label);
  // Writes DIR/contact_sheet.SUFFIX.png if there are at least two panels; returns its path or "". panel_side 0: chosen.
  std::string add_contact_sheet(const std::string& suffix, const std::string& title, int panel_side = 0);
  void commit() { files_.commit(); }
  const std::vector<std::string>& paths() const { return paths_; }  // of all that was staged

 private:
  static constexpr size_t kMostPanels = 120;
  std::string folder_;
  bool png_, npy_;
  StagedFiles files_;
  std::vector<std::string> paths_;
  std::vector<Panel> panels_;
  size_t panels_wanted_ = 0;
};

// Between `least` and `most` pixels on its shorter and longer side: what a panel of the contact sheet wants.
Image thumbnail(const Image& image, int least, int most);

// Pictures of one input's maps: the picture alone (enlarged where it is tiny), or a labelled grid of them.
Image arrange(std::vector<Panel> panels, const std::string& title);
inline constexpr size_t kMostGridPanels = 120;

size_t peak_memory_bytes();
void print_json(const Json& document);  // one document on stdout
void print_line(const std::string& line);

// 1234567 -> "1.23 M"; 0.0123 s -> "12.3 ms".
std::string human_count(double value);
std::string human_seconds(double seconds);

}  // namespace switchback
