// `switchback regions` of several runs of `train` beside each other: how regions, Hamming distances and etalons change while
// networks learn, too little and too much (Molchanov et al., section 5, ask it).
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>

#include "tools/commands/regions.h"

namespace switchback {
namespace {

constexpr Rgb kColors[][2] = {  // of a run: of one quantity, of a second one
    {{31, 88, 160}, {130, 180, 230}}, {{200, 90, 20}, {245, 180, 110}}, {{30, 120, 60}, {140, 200, 140}},
    {{120, 50, 130}, {200, 150, 210}}, {{90, 90, 90}, {180, 180, 180}}};

struct Run {
  std::string name;  // its folder's
  std::vector<const NetworkRegions*> epochs;
  std::map<int64_t, double> accuracy;  // on its training images, by epoch
};

// The number of RUN/epoch-NNN.safetensors.
int64_t epoch_of(const NetworkRegions& n) {
  const std::string stem = std::filesystem::path(n.spec.weights).stem().string();
  int64_t number = -1;
  const size_t dash = stem.rfind('-');
  if (dash != std::string::npos) std::from_chars(stem.data() + dash + 1, stem.data() + stem.size(), number);
  return number;
}

std::vector<Run> runs_of(const std::vector<NetworkRegions>& networks) {
  std::vector<Run> runs;
  std::string folder;
  for (const NetworkRegions& n : networks) {
    if (n.spec.run != folder) {
      folder = n.spec.run;
      const std::filesystem::path path = folder.ends_with('/') ? folder.substr(0, folder.size() - 1) : folder;
      Run& run = runs.emplace_back(path.filename().string());
      std::ifstream log(path / "log.jsonl");
      for (std::string line; std::getline(log, line);) {
        const Json entry = Json::parse(line, nullptr, false);
        if (entry.is_object() && entry.contains("epoch") && entry["epoch"].is_number() && entry.contains("accuracy") &&
            entry["accuracy"].is_number())
          run.accuracy[entry["epoch"].get<int64_t>()] = entry["accuracy"].get<double>();
      }
    }
    runs.back().epochs.push_back(&n);
  }
  return runs;
}

}  // namespace

bool of_several_runs(const std::vector<NetworkRegions>& networks) {
  bool several = false;
  for (const NetworkRegions& n : networks) {
    if (n.spec.run.empty() || epoch_of(n) < 0) return false;
    several |= n.spec.run != networks[0].spec.run;
  }
  return several;
}

Canvas picture_of_runs(const std::vector<NetworkRegions>& networks, const std::string& title) {
  const std::vector<Run> runs = runs_of(networks);
  std::map<int64_t, size_t> at;  // place of an epoch
  for (const NetworkRegions& n : networks) at[epoch_of(n)] = 0;
  std::vector<std::string> places;
  for (auto& [epoch, place] : at) place = places.size(), places.push_back(std::to_string(epoch));
  LineOptions options;
  options.width = std::clamp(420 + 36 * int(places.size()), 760, 2400);
  options.most = 1;
  std::vector<Canvas> charts;
  using Value = std::function<double(const Run&, const NetworkRegions&)>;
  // One line a run, or two.
  const auto add = [&](const char* about, const std::vector<std::pair<std::string, Value>>& values) {
    std::vector<Series> all;
    for (size_t r = 0; r < runs.size(); ++r)
      for (size_t v = 0; v < values.size(); ++v) {
        Series s{fmt::format("{}{}", runs[r].name, values[v].first),
                 std::vector<double>(places.size(), std::numeric_limits<double>::quiet_NaN()),
                 kColors[r % std::size(kColors)][v], v == 0};
        for (const NetworkRegions* n : runs[r].epochs) s.values[at[epoch_of(*n)]] = values[v].second(runs[r], *n);
        if (has_values(s)) all.push_back(std::move(s));
      }
    options.title = about;
    if (!all.empty()) charts.push_back(line_chart(places, all, options));
  };
  add("top-1, and the run's own on its training images", {{"", [](const Run&, const NetworkRegions& n) { return n.top1; }},
                                            {", in training", [](const Run& run, const NetworkRegions& n) {
                                               const auto found = run.accuracy.find(epoch_of(n));
                                               return found == run.accuracy.end() ? std::numeric_limits<double>::quiet_NaN() : found->second;
                                             }}});
  add("linear regions / images", {{"", [](const Run&, const NetworkRegions& n) {
                                     return double(n.report.total.distinct) / double(images_of(n.report));
                                   }}});
  options.most = 0;
  add("Hamming distance of two images' patterns / units", {{", of a class", [](const Run&, const NetworkRegions& n) {
                                                              return n.report.total.within / double(units_of(n.report));
                                                            }},
                                                           {", of different classes", [](const Run&, const NetworkRegions& n) {
                                                              return n.report.total.between / double(units_of(n.report));
                                                            }}});
  add("correlation of two images' etalons", {{", of a class", [](const Run&, const NetworkRegions& n) { return n.alike_within; }},
                                             {", of different classes", [](const Run&, const NetworkRegions& n) { return n.alike_between; }}});
  return charts_below(charts, title);
}

}  // namespace switchback
