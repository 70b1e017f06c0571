// Pictures of etalons as in figure 11 of Molchanov et al.: a row for each input, the input first, then its etalons; of
// one input with more than ten etalons a grid; a single etalon large beside its input. Colours are symmetric around 0:
// of one value a pixel on one scale for all, of RGB etalons each on its own, unless --panel-scale says otherwise.
#pragma once

#include <string>
#include <vector>

#include "engine/files/image.h"
#include "kernels/types.h"
#include "tools/cli/figure.h"

namespace switchback {

class EtalonFigure {
 public:
  static constexpr size_t kMostRows = 20;
  static constexpr int64_t kMostColumns = 20;

  struct Row {
    std::string label;                    // of the input
    int64_t order = 0;  // rows stand in the order of these, and as they were added: a data set's classes
    Image input;
    std::vector<std::string> captions;    // below each etalon
    std::vector<std::vector<float>> maps;
  };

  // order: of the image's channels; columns: etalons of each input; product: maps are W ⊙ x, votes for and against.
  EtalonFigure(const Options& options, Shape image, ChannelOrder order, int64_t columns, bool product);
  bool full() const { return rows_.size() == kMostRows; }
  bool empty() const { return rows_.empty(); }
  int64_t columns() const { return columns_; }  // that are shown
  // What is kept of one map [C,H,W].
  std::vector<float> kept(const float* map) const;
  void add(Row row) { rows_.push_back(std::move(row)); }
  MapPanel panel(const float* map) const;  // one map by itself, in its own colours
  Json colors() const;                     // what they mean (colors_json)
  Canvas draw(GridOptions words, const std::vector<std::string>& headings) const;

 private:
  ColorScale scale_of(const std::vector<float>& map) const;
  ColorScale shared_scale() const;
  Image picture(const std::vector<float>& map, const ColorScale& scale) const;
  bool own() const {
    return options_.panel_scale.value_or(flat_ ? PanelScale::shared : PanelScale::own) == PanelScale::own;
  }
  int side(bool single) const;  // of a panel
  const Options& options_;
  Shape image_;
  ChannelOrder order_;
  int64_t columns_;
  bool flat_;  // flat: one value a pixel is shown, the sum over channels
  std::vector<Row> rows_;
};

}  // namespace switchback
