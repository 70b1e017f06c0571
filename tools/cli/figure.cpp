#include "tools/cli/figure.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "tools/cli/checkpoints.h"
#include "viz/pictures/render.h"

namespace switchback {

MapPanel saliency_panel(const Options& o, const MapView& view) {
  const int c = int(view.dims[0]), h = int(view.dims[1]), w = int(view.dims[2]);
  const float* values = view.values;
  return {
      .colors = {.map = o.map_or(ColorMap::grey), .range = saliency_range(values, c, h, w, o.clip_or(99))},
      .draw = [=](const ColorScale& s) { return heatmap(absolute_sum(values, c, h, w).data(), h, w, s.map, s.range); }};
}

MapPanel signed_panel(const Options& o, const MapView& view, ChannelOrder order) {
  const int c = int(view.dims[0]), h = int(view.dims[1]), w = int(view.dims[2]);
  const float* values = view.values;
  const double clip = o.clip_or(99.5);
  if (c == 3 && !o.colormap)
    return {.colors = {.kind = ColorScale::Kind::channels, .range = signed_range(values, c, h, w, clip)},
            .draw = [=](const ColorScale& s) { return signed_rgb_in(values, c, h, w, order, s.range); }};
  const ColorMap standard = c == 1 ? ColorMap::grey : ColorMap::seismic;
  return {
      .colors = {.map = o.map_or(standard), .range = symmetric_range(channel_mean(values, c, h, w), clip)},
      .draw = [=](const ColorScale& s) { return heatmap(channel_mean(values, c, h, w).data(), h, w, s.map, s.range); }};
}

void share_scale(std::vector<MapPanel>& panels) {
  if (panels.empty()) return;
  Range all = panels[0].colors.range;
  for (const MapPanel& p : panels) all = {std::min(all.lo, p.colors.range.lo), std::max(all.hi, p.colors.range.hi)};
  for (MapPanel& p : panels) p.colors.range = all;
}

Json colors_json(const MapPanel& panel) { return colors_json(name_of(panel.colors), panel.colors.range); }

std::string figure_title(const Job& job, const std::string& what, const std::string& where) {
  std::string title = fmt::format("{}, {}", what, job.model_name());
  if (!where.empty()) title += ", " + where;
  if (!job.options.layer.empty()) return title + ", layer " + job.options.layer;
  const std::string& target = job.options.target;
  if (target == "all") return title + ", all outputs";
  if (!target.empty() && target != "max")
    title += fmt::format(", {} {}", target.find(',') == std::string::npos ? "target" : "targets", target);
  return title;
}

std::string weights_text(const Job& job) {
  if (job.several()) return "weights: " + checkpoints_text(job.checkpoints);
  const std::string& source = job.model.source;
  const std::string name = source.starts_with("random") ? source : std::filesystem::path(source).filename().string();
  return "weights: " + (name.empty() ? source : name);
}

Canvas titled(const Canvas& picture, GridOptions words) {
  words.frames = false;
  words.panel_side = int(std::ceil(std::max(picture.width(), picture.height())));
  return grid(std::vector<Panel>{{picture, ""}}, std::move(words));
}

int large_side(int longest) {
  constexpr int kLeast = 224, kMost = 512;
  return longest < kLeast ? longest * ((kLeast + longest - 1) / longest) : std::min(longest, kMost);
}

}  // namespace switchback
