#include "viz/pictures/label_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>

namespace switchback {

LabelMap label_map(const float* scores, int classes, int h, int w) {
  const int64_t places = int64_t(h) * w;
  LabelMap map{h, w, std::vector<int32_t>(size_t(places), 0), {}};
  std::vector<float> best(scores, scores + places);
  for (int32_t c = 1; c < classes; ++c) {
    const float* plane = scores + c * places;
    for (int64_t i = 0; i < places; ++i)
      if (plane[i] > best[size_t(i)]) best[size_t(i)] = plane[i], map.labels[size_t(i)] = c;
  }
  std::map<int32_t, int64_t> counts;
  for (int32_t label : map.labels) ++counts[label];
  for (const auto& [label, count] : counts) map.shares.push_back({label, double(count) / double(places)});
  std::stable_sort(map.shares.begin(), map.shares.end(), [](const auto& a, const auto& b) { return a.share > b.share; });
  return map;
}

Rgb label_color(int32_t label) {
  if (label == 0) return {224, 224, 192};
  int r = 0, g = 0, b = 0;
  for (int bit = 7; bit >= 0 && label > 0; --bit, label >>= 3) {
    r |= (label & 1) << bit;
    g |= (label >> 1 & 1) << bit;
    b |= (label >> 2 & 1) << bit;
  }
  return {uint8_t(r), uint8_t(g), uint8_t(b)};
}

bool is_background(const std::vector<std::string>& names, int32_t label) {
  if (label >= int32_t(names.size())) return false;
  std::string name = names[size_t(label)];
  for (char& c : name) c = char(std::tolower(static_cast<unsigned char>(c)));
  constexpr std::string_view kNames[] = {"background", "__background__", "unlabeled", "unlabelled", "void"};
  return std::ranges::find(kNames, name) != std::end(kNames);
}

Image label_overlay(const Image& photo, const LabelMap& map, const std::vector<std::string>& names, float alpha) {
  Image out = to_rgb(photo);
  std::vector<bool> hidden;
  for (int32_t c = 0; c < int32_t(names.size()); ++c) hidden.push_back(is_background(names, c));
  for (int y = 0; y < out.height; ++y)
    for (int x = 0; x < out.width; ++x) {
      const int row = int(int64_t(y) * map.h / out.height), column = int(int64_t(x) * map.w / out.width);
      const int32_t label = map.labels[size_t(row) * size_t(map.w) + size_t(column)];
      if (size_t(label) < hidden.size() && hidden[size_t(label)]) continue;
      const Rgb color = label_color(label);
      uint8_t* pixel = out.pixels.data() + 3 * (size_t(y) * size_t(out.width) + size_t(x));
      for (int k = 0; k < 3; ++k) pixel[k] = uint8_t((1 - alpha) * float(pixel[k]) + alpha * float(color[size_t(k)]) + 0.5f);
    }
  return out;
}

Canvas label_legend(const LabelMap& map, const std::vector<std::string>& names, size_t most) {
  const size_t shown = std::min(most, map.shares.size());
  constexpr int kRow = 20, kSquare = 14;
  std::vector<std::string> lines;
  int width = 0;
  for (size_t i = 0; i < shown; ++i) {
    const auto& [label, share] = map.shares[i];
    const std::string name = label < int32_t(names.size()) ? names[size_t(label)] : fmt::format("class {}", label);
    lines.push_back(fmt::format("{} {:.1f} %", name, 100 * share));
    width = std::max(width, text_width(lines.back()));
  }
  if (shown < map.shares.size()) lines.push_back(fmt::format("and {} more", map.shares.size() - shown));
  Canvas legend(kSquare + 10 + std::max(width, 80), kRow * int(lines.size()));
  for (size_t i = 0; i < lines.size(); ++i) {
    const int y = kRow * int(i);
    if (i < shown) {
      const int32_t label = map.shares[i].label;
      legend.rectangle(0, y, kSquare, kSquare, {128, 128, 128});
      legend.rectangle(1, y + 1, kSquare - 2, kSquare - 2, is_background(names, label) ? kPaper : label_color(label));
    }
    legend.text(kSquare + 8, y + 1, lines[i]);
  }
  return legend;
}

}  // namespace switchback
