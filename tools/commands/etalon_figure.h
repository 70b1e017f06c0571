// Pictures of etalons as in figure 11 of Molchanov et al.: a row for each input, the input first, then its etalons, all in
// one symmetric colour scale; a single etalon large beside its input.
#pragma once

#include <string>
#include <vector>

#include "engine/files/image.h"
#include "kernels/types.h"
#include "tools/cli/output.h"

namespace switchback {

class EtalonFigure {
 public:
  static constexpr size_t kMostRows = 20;
  static constexpr int64_t kMostColumns = 20;

  struct Row {
    std::string label;                    // of the input
    Image input;
    std::vector<std::string> captions;    // below each etalon
    std::vector<std::vector<float>> maps;
  };

  // order: of the image's channels; columns: etalons of each input; product: maps are W ⊙ x, votes for and against.
  EtalonFigure(Shape image, ChannelOrder order, int64_t columns, bool product);
  bool full() const { return rows_.size() == kMostRows; }
  bool empty() const { return rows_.empty(); }
  int64_t columns() const { return columns_; }  // that are shown
  // What is kept of one map [C,H,W].
  std::vector<float> kept(const float* map) const;
  void add(Row row) { rows_.push_back(std::move(row)); }
  Json colors() const;  // what they mean (colors_json)
  Image draw(const std::string& title, const std::vector<std::string>& headings) const;

 private:
  Image picture(const std::vector<float>& map, float limit) const;
  float limit() const;  // of the colour scale: ±
  Shape image_;
  ChannelOrder order_;
  int64_t columns_;
  bool flat_;  // flat: one value a pixel is shown, the sum over channels
  std::vector<Row> rows_;
};

}  // namespace switchback
