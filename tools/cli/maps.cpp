#include "tools/cli/maps.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tools/cli/divided_maps.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr int64_t kChunkBytes = 256 << 20;  // of maps that are computed before they are written
constexpr int64_t kChunkItems = 64;

// "285 Egyptian cat, 93.2 %"
std::string caption(const Job& job, const Explained& explained, size_t t) {
  const double p = explained.probabilities[t];
  const std::string name = unit_name(job, explained.units[t]);
  return std::isnan(p) ? name : fmt::format("{}, {:.1f} %", name, 100 * p);
}

Json save_array(const MapResults& r, const Chunk::Part& part, Output& output) {
  Dims dims{part.count};
  std::vector<std::string> axes{"N"};
  if (r.targets() > 1) {
    dims.push_back(r.targets());
    axes.push_back("T");
  }
  const Dims map = r.map_dims();
  dims.insert(dims.end(), map.begin(), map.end());
  axes.insert(axes.end(), r.method.axes.begin(), r.method.axes.end());
  Tensor array(dims);
  std::memcpy(array.data(), r.map(part.first, 0), size_t(array.count()) * sizeof(float));
  return output.add_npy(*part.file, array, axes);
}

// The maps of one input that a figure shows, and whose they are.
struct Shown {
  struct Map {
    int64_t item, target;
    size_t first, count;  // of its panels
  };
  std::vector<Map> maps;
  std::vector<MapPanel> panels;
  bool all = true;  // whether these are all maps
};

Shown shown_maps(const MapResults& r, const Chunk::Part& part) {
  Shown shown;
  for (int64_t i = 0; i < part.count; ++i)
    for (int64_t t = 0; t < r.targets(); ++t) {
      if (shown.panels.size() >= kMostGridPanels) {
        shown.all = false;
        continue;
      }
      const int64_t item = part.first + i;
      std::vector<MapPanel> panels = r.method.panels({r.map(item, t), r.map_dims(), r.photo(part, item)});
      shown.maps.push_back({i, t, shown.panels.size(), panels.size()});
      for (MapPanel& panel : panels) shown.panels.push_back(std::move(panel));
    }
  if (r.job.options.panel_scale == PanelScale::shared) share_scale(shown.panels);
  return shown;
}

// The maps alone, as large as they are.
Canvas plain_picture(const MapResults& r, const Chunk::Part& part, const Shown& shown) {
  std::vector<Panel> panels;
  for (const Shown::Map& m : shown.maps)
    for (size_t p = m.first; p < m.first + m.count; ++p) {
      const Explained& explained = r.maps.explained[size_t(part.first + m.item)];
      const std::string number = part.count > 1 ? fmt::format("[{}] ", m.item) : "";
      const std::string& label = shown.panels[p].label;
      panels.push_back(
          {shown.panels[p].image(), label.empty() ? number + caption(r.job, explained, size_t(m.target)) : label});
    }
  return arrange(std::move(panels), {.columns = r.job.options.columns});
}

// Each input beside its maps, with bars, classes and scores.
Canvas figure(const MapResults& r, const Chunk::Part& part, const Shown& shown) {
  const bool one_scale = r.job.options.panel_scale == PanelScale::shared && shown.panels.size() > 1;
  std::vector<Panel> panels;
  int64_t last = -1;
  size_t of_first = 0;  // panels of the first input
  int longest = 1;
  for (const Shown::Map& m : shown.maps) {
    const Explained& explained = r.maps.explained[size_t(part.first + m.item)];
    const std::string about = figure_caption(r.job, explained, size_t(m.target));
    if (m.item != last) {
      Image photo = r.photo(part, part.first + m.item);
      longest = std::max({longest, photo.width, photo.height});
      panels.push_back({std::move(photo), item_name(*part.file, m.item) + (m.count > 1 ? "\n" + about : "")});
      last = m.item;
    }
    for (size_t p = m.first; p < m.first + m.count; ++p) {
      const MapPanel& map = shown.panels[p];
      panels.push_back({map.image(), m.count > 1 ? map.label : about});
      if (!one_scale) panels.back().colors = map.colors;
    }
    if (m.item == 0) of_first = panels.size();
  }
  GridOptions options{.columns = r.job.options.columns,
                      .group = of_first <= 6 ? int(of_first) : 1,
                      .title = figure_title(r.job, r.method.title, r.method.where ? r.method.where() : ""),
                      .subtitle = weights_text(r.job)};
  if (panels.size() <= 4) options.panel_side = large_side(longest);
  if (panels.size() <= 4 && options.columns == 0) options.columns = int(panels.size());
  if (one_scale) options.colors = shown.panels[0].colors;
  if (!shown.all) options.note = fmt::format("the first {} of {} maps", shown.maps.size(), part.count * r.targets());
  return grid(panels, std::move(options));
}

void save_picture(const MapResults& r, const Chunk::Part& part, Output& output, Json& files) {
  const Shown shown = shown_maps(r, part);
  if (!shown.all)
    output.note(fmt::format("the picture of {} shows the first {} of {} maps", part.file->path, shown.maps.size(),
                            part.count * r.targets()));
  Json units = Json::array(), colors = Json::array();  // of each map
  for (const Shown::Map& m : shown.maps) {
    units.push_back(unit_name(r.job, r.maps.explained[size_t(part.first + m.item)].units[size_t(m.target)]));
    Json of_map = Json::array();
    for (size_t p = m.first; p < m.first + m.count; ++p) of_map.push_back(colors_json(shown.panels[p]));
    colors.push_back(m.count == 1 ? of_map[0] : of_map);
  }
  output.add_picture(files, *part.file, r.job.options.plain ? plain_picture(r, part, shown) : figure(r, part, shown),
                     {{"units", units}, {"colors", colors}});
}

void add_to_sheet(const MapResults& r, const Chunk::Part& part, Output& output) {
  for (int64_t i = 0; i < part.count; ++i) {
    const int64_t item = part.first + i;
    const MapView view{r.map(item, 0), r.map_dims(), r.photo(part, item)};
    const MapPanel map = std::move(r.method.panels(view).back());
    output.add_to_sheet(
        {{thumbnail(view.photo, 112, 224), item_name(*part.file, i)},
         {thumbnail(map.image(), 112, 224), caption(r.job, r.maps.explained[size_t(item)], 0), map.colors}});
  }
}

Json completeness_json(const Explained& explained) {
  Json list = Json::array();
  for (const Completeness& c : explained.completeness)
    list.push_back({{"sum", c.sum}, {"difference", c.difference}, {"error", c.error()}});
  return list.size() == 1 ? list[0] : list;
}

// Saves the files of one input and returns its items' entries; `lines` gains what the summary says of them.
std::vector<Json> finish_input(const MapResults& r, const Chunk::Part& part, Output& output, ItemLines& lines) {
  Json files = Json::array();
  if (output.pictures()) save_picture(r, part, output, files);
  if (output.npy()) files.push_back(save_array(r, part, output));
  if (output.pictures()) add_to_sheet(r, part, output);
  std::vector<Json> entries;
  for (int64_t i = 0; i < part.count; ++i) {
    Json entry = item_json(*part.file, i);
    lines.add(fmt::format("  {:<28} {}", item_name(*part.file, i), add_result(r, part.first + i, entry)));
    entry["files"] = files;
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace

std::string add_result(const MapResults& r, int64_t item, Json& entry) {
  const Explained& explained = r.maps.explained[size_t(item)];
  add_explained(entry, r.job, explained);
  const Shape sum = r.summed(explained);
  if (sum.h * sum.w > 1) entry["summed_positions"] = {sum.h, sum.w};
  if (!explained.completeness.empty()) entry["completeness"] = completeness_json(explained);
  std::string line = caption(r.job, explained, 0);
  if (explained.units.size() > 1)
    line += fmt::format(" and {}", counted(int64_t(explained.units.size()) - 1, "more target"));
  if (!std::isnan(explained.scores[0]))
    line += fmt::format(", {} {:.4g}", score_word(r.job.model.network, r.job.target), explained.scores[0]);
  if (sum.h * sum.w > 1) line += fmt::format(" (the sum over {}x{} positions)", sum.h, sum.w);
  if (!explained.completeness.empty())
    line += fmt::format(", completeness error {:.1e}", explained.completeness[0].error());
  return line + (r.method.finish ? r.method.finish(item, entry) : "");
}

std::string figure_caption(const Job& job, const Explained& explained, size_t t) {
  std::string text = caption(job, explained, t);
  if (!std::isnan(explained.scores[t]))
    text += fmt::format("\n{} {:.4g}", score_word(job.model.network, job.target), explained.scores[t]);
  return text;
}

std::vector<uint32_t> item_numbers(const Chunk& chunk) {
  std::vector<uint32_t> numbers;
  for (const Chunk::Part& part : chunk.parts)
    for (int64_t i = 0; i < part.count; ++i) numbers.push_back(uint32_t(item_number(*part.file, i)));
  return numbers;
}

int64_t chunk_items(const Job& job, const MapMethod& method, Shape image) {
  const int64_t targets = check_target(job.model.network, image, job.target, job.model.labels);
  if (method.one_chunk) return std::numeric_limits<int64_t>::max();
  return std::clamp<int64_t>(kChunkBytes / (targets * image.item() * int64_t(sizeof(float))), 1, kChunkItems);
}

std::string unit_name(const Job& job, const Unit& unit) {
  if (job.options.layer.empty()) {
    const std::string name = job.class_name(unit.channel), number = std::to_string(unit.channel);
    const bool class_like = job.outputs == Outputs::classes || job.outputs == Outputs::labels;
    return name.empty() || name == number ? fmt::format("{} {}", class_like ? "class" : "output", unit.channel)
                                          : fmt::format("{} {}", unit.channel, name);
  }
  std::string name = fmt::format("{}:{}", job.model.network.nodes[size_t(unit.node)].name, unit.channel);
  return unit.row < 0 ? name : name + fmt::format(":{},{}", unit.row, unit.col);
}

void add_explained(Json& entry, const Job& job, const Explained& explained) {
  const bool hidden = !job.options.layer.empty();
  Json target = Json::array(), name = Json::array(), score = Json::array(), probability = Json::array(),
       unit = Json::array();
  for (size_t t = 0; t < explained.units.size(); ++t) {
    const Unit& u = explained.units[t];
    target.push_back(u.channel);
    name.push_back(hidden ? Json(nullptr) : job.class_json(u.channel));
    score.push_back(explained.scores[t]);
    probability.push_back(explained.probabilities[t]);  // NaN becomes null
    if (hidden)
      unit.push_back({{"layer", job.model.network.nodes[size_t(u.node)].name},
                      {"channel", u.channel},
                      {"row", u.row < 0 ? Json(nullptr) : Json(u.row)},
                      {"column", u.row < 0 ? Json(nullptr) : Json(u.col)}});
  }
  const bool one = explained.units.size() == 1;
  entry["target"] = one ? target[0] : target;
  entry["class"] = one ? name[0] : name;
  entry["score"] = one ? score[0] : score;
  entry["probability"] = one ? probability[0] : probability;
  if (hidden) entry["unit"] = one ? unit[0] : unit;
}

void finish_maps(Job& job, const MapMethod& method, Output& output, Report report, const ItemLines& lines, int64_t items,
                 int64_t batch) {
  report.details = method.details;
  if (method.details_of_run) report.details.update(method.details_of_run());
  report.details["score_kind"] = word_of(kScores, job.options.score);
  report.times["batch"] = batch;  // what memory allowed: not in files
  report.summary = [&, sheet = report.sheet] {
    print_line(job.summary_title(method.name));
    lines.print();
    print_written(job, output.paths(), sheet);
    print_line(job.summary_times(items, "image"));
  };
  finish_run(job, output, std::move(report));
}

void run_maps(Job& job, const MapMethod& method) {
  if (job.several()) return run_map_strips(job, method);
  Output output(job, method.command);
  Inputs inputs(job, output);
  Report report;
  ItemLines lines;
  const int64_t all_items = inputs.count();
  int64_t items = 0, batch = 0;
  const auto most = [&](Shape image) { return chunk_items(job, method, image); };
  DividedMaps divided(job, method, output, inputs);
  if (!divided.gather(most)) return;
  inputs.for_each_chunk(most,
                        [&](const Chunk& chunk) {
                          if (method.one_chunk && int64_t(chunk.parts.size()) != inputs.readable())
                            throw Error("a tape file holds one batch, so all inputs must have one shape",
                                        "give them in several runs", true);
                          const Maps maps = divided.run(chunk, [&](int64_t done, int64_t total) {
                            const int64_t each = total / chunk.x.dim(0);  // samples, steps or positions of one image
                            job.bar.update(items * each + done, all_items * each, method.noun);
                          });
                          const MapResults results{job, method, chunk, maps};
                          for (const Chunk::Part& part : chunk.parts)
                            for (Json& entry : finish_input(results, part, output, lines))
                              report.inputs.push_back(std::move(entry));
                          items += chunk.x.dim(0);
                          batch = std::max(batch, maps.batch);
                        });
  if (output.pictures())
    report.sheet =
        output.add_contact_sheet({.columns = 2 * job.options.columns,
                                  .group = 2,
                                  .title = figure_title(job, method.title, method.where ? method.where() : ""),
                                  .subtitle = weights_text(job)});
  finish_maps(job, method, output, std::move(report), lines, items, batch);
}

}  // namespace switchback
