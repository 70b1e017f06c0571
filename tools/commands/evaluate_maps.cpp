// `switchback evaluate --grid` and `--similarity`: maps of a data set's images, as figures 6 to 10 of Zhang show them.
#include <algorithm>
#include <cmath>

#include "tools/cli/labelled.h"
#include "tools/commands/evaluate.h"
#include "viz/methods/similarity.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr int64_t kMostAtOnce = 64;
constexpr int64_t kLargestMap = 32;  // places a side: larger maps are compared by the means of as many cells

// Calls `take` with the maps of so many cases: views point into them.
void run_cases(Job& job, const MapMethod& method, const Dataset& data, const std::vector<Case>& cases,
               const std::function<void(size_t i, const MapView& view)>& take) {
  const Preprocess& how = job.model.preprocess;
  const Shape image{1, how.channels(), how.size[0], how.size[1]};
  const int64_t most = std::min(kMostAtOnce, chunk_items(job, method, image));
  for (size_t first = 0; first < cases.size(); first += size_t(most)) {
    const size_t n = std::min(size_t(most), cases.size() - first);
    Tensor x({int64_t(n), image.c, image.h, image.w});
    std::vector<uint32_t> index;
    for (size_t i = 0; i < n; ++i) {
      load_item(data, cases[first + i].index, job.model, x.data() + int64_t(i) * image.item());
      index.push_back(uint32_t(data.number(cases[first + i].index)));
    }
    const Maps maps = method.run(x, index, [&](int64_t done, int64_t total) {
      job.bar.update(int64_t(first) * total / int64_t(n) + done, int64_t(cases.size()) * total / int64_t(n),
                     method.noun);
    });
    const Dims dims(maps.values.dims().begin() + 2, maps.values.dims().end());
    const int64_t size = maps.values.count() / int64_t(n);
    for (size_t i = 0; i < n; ++i)
      take(first + i, {maps.values.data() + int64_t(i) * size, dims, input_picture(x, int64_t(i), job.model, false)});
  }
}

// So many cases, one of each class in turn.
std::vector<Case> in_turn(const std::vector<std::vector<Case>>& of_class, size_t count) {
  std::vector<Case> cases;
  for (size_t round = 0; cases.size() < count; ++round) {
    const size_t before = cases.size();
    for (const std::vector<Case>& of : of_class)
      if (round < of.size() && cases.size() < count) cases.push_back(of[round]);
    if (cases.size() == before) break;
  }
  return cases;
}

// Input and map of each case beside each other.
Canvas grid_of(Job& job, const MapMethod& method, const Dataset& data, const std::vector<Case>& cases, bool right) {
  std::vector<Panel> panels;
  int longest = 1;
  run_cases(job, method, data, cases, [&](size_t i, const MapView& view) {
    const Case& c = cases[i];
    longest = std::max({longest, view.photo.width, view.photo.height});
    const MapPanel map = std::move(method.panels(view).back());
    panels.push_back({enlarge_to_at_least(to_rgb(view.photo), 84),
                      fmt::format("#{}: {}", data.number(c.index), shown_class(job, c.label))});
    panels.push_back(
        {map.image(), right ? fmt::format("{:.1f} %", 100 * c.probability)
                            : fmt::format("{}, {:.1f} %", shown_class(job, c.predicted), 100 * c.probability)});
  });
  return grid(panels,
              {.columns = 2 * job.options.columns,
               .group = 2,
               .panel_side = longest < 112 ? 112 : std::min(longest, 168),
               .title = figure_title(job, fmt::format("{} predictions, {}", right ? "Right" : "Wrong", method.title),
                                     method.where ? method.where() : ""),
               .subtitle = fmt::format("image and label, map and confidence of the class that is read; {}",
                                       weights_text(job))});
}

// A map as a few values: |v| summed over channels, of large ones the means over cells.
std::vector<float> compared(const MapView& view) {
  const int h = int(view.dims[view.dims.size() - 2]), w = int(view.dims.back());
  const int channels = view.dims.size() == 3 ? int(view.dims[0]) : 1;
  std::vector<float> map = view.dims.size() == 3 ? absolute_sum(view.values, channels, h, w)
                                                 : std::vector<float>(view.values, view.values + int64_t(h) * w);
  const int rows = int(std::min<int64_t>(h, kLargestMap)), columns = int(std::min<int64_t>(w, kLargestMap));
  if (rows == h && columns == w) return map;
  std::vector<float> cells;
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) {
      double sum = 0;
      int count = 0;
      for (int y = r * h / rows; y < (r + 1) * h / rows; ++y)
        for (int x = c * w / columns; x < (c + 1) * w / columns; ++x, ++count) sum += map[size_t(y * w + x)];
      cells.push_back(float(sum / count));
    }
  return cells;
}

MapSimilarity similarity_of(Job& job, const MapMethod& method, const Dataset& data,
                            const std::vector<std::vector<Case>>& right, int64_t per_class) {
  std::vector<Case> cases;
  for (const std::vector<Case>& of : right)
    cases.insert(cases.end(), of.begin(), of.begin() + std::min(int64_t(of.size()), per_class));
  if (cases.empty()) throw Error("--similarity compares maps of images that are read rightly, and there is none");
  std::vector<float> values;
  std::vector<int> labels;
  run_cases(job, method, data, cases, [&](size_t i, const MapView& view) {
    const std::vector<float> map = compared(view);
    values.insert(values.end(), map.begin(), map.end());
    labels.push_back(int(cases[i].label));
  });
  Tensor maps({int64_t(cases.size()), int64_t(values.size() / cases.size())});
  std::ranges::copy(values, maps.data());
  return map_similarity(maps, labels, int64_t(right.size()));
}

// "0.812 within a class, 0.325 between classes"
std::string correlations(const MapSimilarity& s) {
  const auto number = [](double v) { return std::isfinite(v) ? fmt::format("{:.3f}", v) : "no pairs"; };
  return fmt::format("{} within a class, {} between classes", number(s.within), number(s.between));
}

Json matrix_json(const MapSimilarity& s) {
  Json rows = Json::array();
  for (int64_t r = 0; r < s.classes; ++r)
    rows.push_back(std::vector<double>(s.matrix.begin() + r * s.classes, s.matrix.begin() + (r + 1) * s.classes));
  return rows;
}

}  // namespace

void check_evaluate_maps(const EvaluateOptions& o) {
  for (const std::string& word : o.grid.empty() ? std::vector<std::string>() : split_list(o.grid))
    check_choice("--grid", word, {"right", "wrong"});
  check_choice("--map", o.method, map_method_names());
  if (o.cases < 1 || o.cases > int64_t(kMostGridPanels) / 2)
    throw Error(fmt::format("--cases {} is out of range", o.cases), fmt::format("1 to {}", kMostGridPanels / 2), true);
  if (o.per_class < 2 || o.per_class > 10000)
    throw Error(fmt::format("--per-class {} is out of range", o.per_class), "2 to 10000: pairs of maps are compared",
                true);
}

std::vector<std::string> evaluate_maps(Job& job, const EvaluateOptions& o, Output& output, const Dataset& data,
                                       const std::vector<std::vector<Case>>& right, const std::vector<Case>& wrong,
                                       const std::string& stem, Json& files, Json& details) {
  const auto named = named_method(job, o.method, o.flags);
  const MapMethod& method = named->method;
  std::vector<std::string> said;
  details["map"] = o.method;
  for (const std::string& word : o.grid.empty() ? std::vector<std::string>() : split_list(o.grid)) {
    std::vector<Case> cases = word == "right" ? in_turn(right, size_t(o.cases)) : wrong;
    cases.resize(std::min(cases.size(), size_t(o.cases)));
    details["grid"][word] = Json::array();
    for (const Case& c : cases) details["grid"][word].push_back(case_json(job, data, c));
    if (cases.empty())
      said.push_back(fmt::format("  no image is read {}", word == "right" ? "rightly" : "wrongly"));
    else if (output.pictures())
      output.add_picture(files, {stem, word}, grid_of(job, method, data, cases, word == "right"));
  }
  if (!o.similarity) return said;
  const MapSimilarity s = similarity_of(job, method, data, right, o.per_class);
  std::vector<std::string> names;
  Json classes = Json::array();
  for (int64_t c = 0; c < s.classes; ++c) {
    names.push_back(shown_class(job, c));
    classes.push_back(names.back());
  }
  details["similarity"] = {{"within", s.within},     {"between", s.between}, {"maps", s.maps},
                           {"constant", s.constant}, {"classes", classes},   {"matrix", matrix_json(s)}};
  said.push_back(fmt::format("  correlation of maps ({}): {}", method.title, correlations(s)));
  if (s.constant > 0) said.push_back(fmt::format("  {} of one value are left out", counted(s.constant, "map")));
  if (output.pictures())
    output.add_picture(
        files, {stem, "similarity"},
        matrix_chart(names, s.matrix,
                     {.title = fmt::format("{}, {}: correlation {}", method.title, job.model_name(), correlations(s)),
                      .map = o.map_or(ColorMap::red_blue)}));
  return said;
}

}  // namespace switchback
