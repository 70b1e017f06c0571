// `switchback judge`: how good the maps of several methods are, by metrics, beside a random map and an edge detector.
#include "viz/methods/judge.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <sstream>

#include "engine/files/npy.h"
#include "tools/commands/commands.h"
#include "tools/commands/map_methods.h"
#include "viz/methods/batches.h"
#include "viz/methods/fill.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr const char *kRandomMap = "random", *kEdgeMap = "edges", *kGivenMaps = "maps";
enum class Metric {
  deletion, insertion, fidelity, road, infidelity, max_sensitivity, avg_sensitivity, sparseness, pointing, energy, randomisation,
  randomised_layers, random_logit
};
constexpr Choice<Metric> kMetrics[] = {{"deletion", Metric::deletion},
                                       {"insertion", Metric::insertion},
                                       {"mu-fidelity", Metric::fidelity},
                                       {"road", Metric::road},
                                       {"infidelity", Metric::infidelity},
                                       {"max-sensitivity", Metric::max_sensitivity},
                                       {"avg-sensitivity", Metric::avg_sensitivity},
                                       {"sparseness", Metric::sparseness},
                                       {"pointing", Metric::pointing},
                                       {"energy", Metric::energy},
                                       {"randomisation", Metric::randomisation},
                                       {"layer-randomisation", Metric::randomised_layers},
                                       {"random-logit", Metric::random_logit}};
constexpr size_t kMetricsAbreast = 4, kMostPairs = 60;  // of the table; methods whose pairs are compared
constexpr Rgb kJudgedColors[] = {{49, 104, 142}, {222, 110, 30}, {53, 183, 121}, {145, 70, 150}, {180, 40, 60},
                                 {120, 90, 40},  {20, 160, 180}, {200, 160, 30}, {90, 90, 200},  {60, 110, 60}};

struct JudgeFlags : Options {
  std::string methods = "gradient,smoothgrad,gradcam,occlusion", metrics = "deletion,insertion,mu-fidelity,sparseness", maps, boxes;
  std::string deletion_fill = "0", insertion_fill = "blur";
  int64_t points = 28, grid = 9, subsets = 200, draws = 10;
  double radius = 0.02, sigma = 0.1, road_noise = 0.01;
  MapFlags flags;
};

using Curves = std::vector<std::vector<double>>;  // of each image

struct JudgedMethod {
  std::string name;
  std::unique_ptr<NamedMethod> method = nullptr;  // null: random, edges, given
  Curves values = {};                             // of each metric, one an image; NaN where there is none
  std::vector<Curves> curves = {}, others = {};   // of each metric that has them (curve_names)
  int64_t constant = 0;                           // maps of one value
  std::string skipped = {};                       // why the network does not allow it
};

struct JudgeRun {
  Job& job;
  const JudgeFlags& flags;
  std::vector<Metric> metrics;
  std::vector<JudgedMethod> methods;
  RunOptions options;                   // of the forward passes: their part of --memory
  Tensor given;                         // --maps, [N,H,W] or [N,C,H,W]
  std::vector<std::vector<Box>> boxes;  // of each image
  Weights random;                       // of the randomisations
  std::vector<int> layers;              // with parameters, from the output down
  Shape image = {};
  std::unique_ptr<Forward> forward = nullptr;
  int64_t images = 0;
};

bool wants(const JudgeRun& run, Metric m) { return std::ranges::find(run.metrics, m) != run.metrics.end(); }
bool randomises(Metric m) { return m == Metric::randomisation || m == Metric::randomised_layers; }
bool higher_is_better(Metric m) {
  return m == Metric::insertion || m == Metric::fidelity || m == Metric::road || m == Metric::sparseness || m == Metric::pointing ||
         m == Metric::energy;
}
// The names of a metric's curves in the document; empty where it has none.
std::pair<const char*, const char*> curve_names(Metric m) {
  if (m == Metric::deletion || m == Metric::insertion) return {"curves", ""};
  if (m == Metric::road) return {"most_first", "least_first"};
  return randomises(m) ? std::pair("spearman", "ssim") : std::pair("", "");
}

// Lines "index,x,y,w,h": the index of an image in the run, from 0, and a box in its pixels.
std::vector<std::vector<Box>> read_boxes(const std::string& path) {
  std::istringstream lines(read_file(path, 64 << 20));
  std::vector<std::vector<Box>> boxes;
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line[0] == '#') continue;
    const size_t comma = line.find(',');
    if (comma == std::string::npos)
      throw Error(fmt::format("{} line {}: '{}' is no box", printable(path), number, printable(line)), "index,x,y,w,h", true);
    const size_t index = size_t(parse_whole("--boxes", line.substr(0, comma), 0, 1'000'000));
    if (boxes.size() <= index) boxes.resize(index + 1);
    boxes[index].push_back(parse_box(line.substr(comma + 1)));
  }
  return boxes;
}

// A strength for every pixel: |v| summed over channels, a heat map enlarged bilinearly to the image.
std::vector<float> pixel_strengths(const float* map, const Dims& dims, Shape image) {
  const int h = int(dims[dims.size() - 2]), w = int(dims.back());
  if (dims.size() == 3) return absolute_sum(map, int(dims[0]), h, w);
  return bilinear_map(map, h, w, int(image.h), int(image.w));
}

const std::vector<Box>& boxes_of(const JudgeRun& run, int64_t number) {
  if (number >= int64_t(run.boxes.size()) || run.boxes[size_t(number)].empty())
    throw Error(fmt::format("{} has no box of image {}", printable(run.flags.boxes), number), "a line index,x,y,w,h for every image", true);
  return run.boxes[size_t(number)];
}

// Images of a chunk, each with its class.
struct Items {
  const Tensor& x;                     // [N,C,H,W]
  const std::vector<uint32_t>& index;  // of each within its file, for the noise of methods
  std::vector<int64_t> classes, numbers;
};

// What takes the place of one image's pixels, and the ends of its curves: the same for all maps.
struct Fills {
  Tensor deleted, inserted;
  CurveEnds deletion, insertion;
};
Fills fills_of(JudgeRun& run, const Judged& judged) {
  Fills f{baseline(parse_fill(run.flags.deletion_fill), judged.x, judged.image), baseline(parse_fill(run.flags.insertion_fill), judged.x, judged.image), {}, {}};
  if (wants(run, Metric::deletion)) f.deletion = curve_ends(*run.forward, judged, f.deleted);
  if (wants(run, Metric::insertion)) f.insertion = curve_ends(*run.forward, judged, f.inserted);
  return f;
}

// The raw maps of a method, [N,C,H,W] or [N,rows,cols], with the job's weights as they now are.
Tensor raw_maps(JudgeRun& run, const JudgedMethod& method, const Items& items) {
  if (method.method) return maps_of_classes(run.job, method.method->method, items.x, items.index, items.classes);
  const int64_t n = items.x.dim(0), pixels = run.image.item();
  if (method.name == kGivenMaps) {
    Dims dims = run.given.dims();
    const int64_t size = run.given.count() / dims[0];
    if (items.numbers.back() >= dims[0])
      throw Error(fmt::format("{} has {} for more images", printable(run.flags.maps), counted(dims[0], "map")), "one for every input", true);
    if (dims[dims.size() - 2] != run.image.h || dims.back() != run.image.w)
      throw Error(fmt::format("{} has maps of {}x{} for an image of {}x{}", printable(run.flags.maps), dims[dims.size() - 2], dims.back(),
                              run.image.h, run.image.w),
                  "maps are judged pixel by pixel", true);
    dims[0] = n;
    Tensor maps(dims);
    std::copy_n(run.given.data() + items.numbers[0] * size, n * size, maps.data());
    return maps;
  }
  Tensor maps({n, run.image.h, run.image.w});
  for (int64_t i = 0; i < n; ++i)
    std::ranges::copy(method.name == kRandomMap ? random_map(run.image, parse_seed(run.flags.seed), uint32_t(items.numbers[size_t(i)]))
                                                : edge_map(items.x.data() + i * pixels, run.image),
                      maps.data() + i * run.image.h * run.image.w);
  return maps;
}

Dims map_dims(const Tensor& maps) { return {maps.dims().begin() + 1, maps.dims().end()}; }
std::span<const float> raw_map(const Tensor& maps, int64_t i) {
  return maps.values().subspan(size_t(i * (maps.count() / maps.dim(0))), size_t(maps.count() / maps.dim(0)));
}

// |map| of every item, at the image's size: what randomised networks' maps are compared by.
std::vector<std::vector<float>> strengths_of(const JudgeRun& run, const Tensor& maps) {
  std::vector<std::vector<float>> all;
  for (int64_t i = 0; i < maps.dim(0); ++i) {
    all.push_back(pixel_strengths(raw_map(maps, i).data(), map_dims(maps), run.image));
    for (float& v : all.back()) v = std::abs(v);
  }
  return all;
}

double mean_of_finite(const std::vector<double>& values) {
  double sum = 0;
  int64_t n = 0;
  for (const double v : values)
    if (std::isfinite(v)) sum += v, ++n;
  return sum / double(n);
}

// Metric m by changed weights: of the layers from the output down one after the other (cascading), or each alone.
void randomise(JudgeRun& run, JudgedMethod& method, size_t m, const Items& items, const std::vector<std::vector<float>>& trained) {
  struct Restored {  // also where a method throws
    Weights& weights;
    Weights value = weights;
    ~Restored() { weights = value; }
  } restored{run.job.model.weights};
  const size_t n = trained.size();
  Curves ranks(n), similar(n);
  std::vector<std::vector<float>> now;
  for (const int layer : run.layers) {
    if (!method.method) {  // a base line knows no weights: its map is the same
      if (now.empty()) now = trained;
    } else {
      take_layer(run.job.model.weights, run.random, layer);
      now = strengths_of(run, raw_maps(run, method, items));
      if (run.metrics[m] == Metric::randomised_layers) take_layer(run.job.model.weights, restored.value, layer);
    }
    for (size_t i = 0; i < n; ++i) {
      if (!method.method && !ranks[i].empty()) {
        ranks[i].push_back(ranks[i][0]), similar[i].push_back(similar[i][0]);
        continue;
      }
      ranks[i].push_back(rank_correlation(trained[i], now[i]));
      similar[i].push_back(structural_similarity(trained[i], now[i], run.image.h, run.image.w));
    }
  }
  for (size_t i = 0; i < n; ++i) {
    method.values[m].push_back(mean_of_finite(ranks[i]));
    method.curves[m].push_back(std::move(ranks[i]));
    method.others[m].push_back(std::move(similar[i]));
  }
}

// One value of the metrics that look at one image.
double judge_map(JudgeRun& run, JudgedMethod& method, size_t m, const Judged& judged, const Fills& fills, const std::vector<float>& map,
                 std::span<const float> raw, int64_t number) {
  const JudgeFlags& o = run.flags;
  const uint64_t seed = parse_seed(o.seed);
  Judged by_score = judged;
  by_score.scoring = scoring_of(run.job.model.network, run.job.target);
  switch (run.metrics[m]) {
    case Metric::deletion:
      method.curves[m].push_back(deletion(*run.forward, judged, map, fills.deleted, fills.deletion, o.points).scores);
      return Curve{method.curves[m].back()}.area();
    case Metric::insertion:
      method.curves[m].push_back(insertion(*run.forward, judged, map, fills.inserted, fills.insertion, o.points).scores);
      return Curve{method.curves[m].back()}.area();
    case Metric::fidelity:
      return fidelity(*run.forward, by_score, map, fills.deleted,
                      {.grid = o.grid, .subsets = o.subsets, .seed = seed, .number = uint32_t(number)});
    case Metric::road: {
      const Road r = road(*run.forward, judged, map, {.noise = o.road_noise, .seed = seed, .number = uint32_t(number)});
      method.curves[m].push_back(r.most_first), method.others[m].push_back(r.least_first);
      return r.combined();
    }
    case Metric::infidelity: {
      const bool of_values = int64_t(raw.size()) == judged.image.item();
      return infidelity(*run.forward, by_score, of_values ? raw : std::span<const float>(map),
                        {.samples = o.draws, .size = o.sigma, .seed = seed, .number = uint32_t(number)});
    }
    case Metric::sparseness:
      return gini(map);
    case Metric::pointing:
      return pointing(map, judged.image, boxes_of(run, number));
    case Metric::energy:
      return energy(map, judged.image, boxes_of(run, number));
    default:
      fail("no metric of one map");
  }
}

// raw: the method's maps of the items.
void judge_method(JudgeRun& run, JudgedMethod& method, const Items& items, const std::vector<Unit>& units, const std::vector<Fills>& fills,
                  const Tensor& raw) {
  const int64_t n = items.x.dim(0), pixels = run.image.item();
  const bool given = method.name == kGivenMaps;
  const uint64_t seed = parse_seed(run.flags.seed);
  const double none = std::nan("");
  std::vector<std::vector<float>> maps;
  for (int64_t i = 0; i < n; ++i) {
    maps.push_back(pixel_strengths(raw_map(raw, i).data(), map_dims(raw), run.image));
    check_map(maps.back(), run.image, fmt::format("the {} map of image {}", method.name, items.numbers[size_t(i)]));
    const auto [least, most] = std::ranges::minmax(maps.back());
    method.constant += least == most;
  }
  for (size_t m = 0; m < run.metrics.size(); ++m) {
    const Metric metric = run.metrics[m];
    if (randomises(metric) || metric == Metric::random_logit) {
      if (given) {  // of no network that could be changed
        method.values[m].insert(method.values[m].end(), size_t(n), none);
        continue;
      }
      const std::vector<std::vector<float>> trained = strengths_of(run, raw);
      if (randomises(metric)) {
        randomise(run, method, m, items, trained);
        continue;
      }
      Items others{items.x, items.index, {}, items.numbers};
      const int64_t classes = run.job.model.network.shapes(run.image)[size_t(logit_node(run.job.model.network))].c;
      for (int64_t i = 0; i < n; ++i)
        others.classes.push_back(other_class(items.classes[size_t(i)], classes, seed, uint32_t(items.numbers[size_t(i)])));
      const std::vector<std::vector<float>> of_others = strengths_of(run, raw_maps(run, method, others));
      for (size_t i = 0; i < size_t(n); ++i)
        method.values[m].push_back(structural_similarity(trained[i], of_others[i], run.image.h, run.image.w));
      continue;
    }
    for (int64_t i = 0; i < n; ++i) {
      const int64_t number = items.numbers[size_t(i)];
      const Judged judged{run.image, items.x.data() + i * pixels, units[size_t(i)], {Score::probability, run.job.outputs}};
      if (metric != Metric::max_sensitivity && metric != Metric::avg_sensitivity) {
        method.values[m].push_back(judge_map(run, method, m, judged, fills[size_t(i)], maps[size_t(i)], raw_map(raw, i), number));
        continue;
      }
      if (given) {
        method.values[m].push_back(none);
        continue;
      }
      const Mapper mapper = [&](const Tensor& copies) {
        const std::vector<uint32_t> index(size_t(copies.dim(0)), items.index[size_t(i)]);  // the same noise for every copy
        return raw_maps(run, method, {copies, index, std::vector<int64_t>(index.size(), items.classes[size_t(i)]),
                                      std::vector<int64_t>(index.size(), number)});
      };
      const Sensitivity moved = sensitivity(mapper, judged, raw_map(raw, i),
                                            {.samples = run.flags.draws, .size = run.flags.radius, .seed = seed, .number = uint32_t(number)});
      method.values[m].push_back(metric == Metric::max_sensitivity ? moved.most : moved.mean);
    }
  }
}

void judge_chunk(JudgeRun& run, const Chunk& chunk, const std::vector<uint32_t>& index, Json& entries) {
  Job& job = run.job;
  const Tensor& x = chunk.x;
  const Shape image{1, x.dim(1), x.dim(2), x.dim(3)};
  const int64_t n = x.dim(0);
  if (!run.forward || !(run.image == image)) {
    check_image_shape(job.model.network, image);
    const int node = logit_node(job.model.network);
    const Shape outputs = job.model.network.shapes(image)[size_t(node)];
    if (outputs.h * outputs.w != 1)
      throw Error(fmt::format("judge is about classes, but {} gives maps of {}x{}", job.model_name(), outputs.h, outputs.w),
                  "`switchback compare` shows its maps");
    if (wants(run, Metric::random_logit) && outputs.c < 2)
      throw Error(fmt::format("{} has one output, so random-logit has no other", job.model_name()), "--metrics without it", true);
    run.image = image;
    const int64_t most = std::max({run.flags.points, run.flags.subsets, run.flags.draws}) + 1;
    run.forward = std::make_unique<Forward>(job.ctx, job.model, image, node, run.options, std::min<int64_t>(256, most));
  }
  Items items{x, index, {}, {}};
  std::vector<Unit> units;
  for (int64_t i = 0; i < n; ++i) {
    const Tensor values = run.forward->run(x.data() + i * image.item(), 1);
    const Explained explained = explain(job.model.network, job.target, values, job.model.labels);
    units.push_back(explained.units[0]);
    items.classes.push_back(units.back().channel), items.numbers.push_back(run.images + i);
    add_explained(entries[size_t(run.images + i)], job, explained);
    for (const Box& b : run.flags.boxes.empty() ? std::vector<Box>() : boxes_of(run, run.images + i)) check_boxes({b}, image);
  }
  std::vector<Fills> fills;
  for (int64_t i = 0; i < n; ++i)
    fills.push_back(fills_of(run, {image, x.data() + i * image.item(), units[size_t(i)], {Score::probability, job.outputs}}));
  for (JudgedMethod& method : run.methods) {
    if (!method.skipped.empty()) continue;
    Tensor raw;
    try {
      raw = raw_maps(run, method, items);
    } catch (const OutOfMemory&) {
      throw;
    } catch (const Error& e) {
      // What the network does not allow shows at the first image, and concerns class activation maps, and the default mask on
      // a small input; anything else is the user's.
      const bool chosen = method.name == "occlusion" ? run.flags.flags.occlusion.mask != OcclusionFlags{}.mask : !run.flags.flags.cam.layers.empty();
      if (run.images > 0 || !method.method || chosen) throw;
      method.skipped = e.hint.empty() ? std::string(e.what()) : fmt::format("{} ({})", e.what(), e.hint);
      continue;
    }
    judge_method(run, method, items, units, fills, raw);
  }
  if (std::ranges::all_of(run.methods, [](const JudgedMethod& m) { return !m.skipped.empty() || m.name == kRandomMap || m.name == kEdgeMap; }))
    throw Error(fmt::format("{} allows none of these methods: {}: {}", job.model_name(), run.methods[0].name, run.methods[0].skipped));
  run.images += n;
}

struct Spread {
  double mean = 0, deviation = 0;
  int64_t n = 0;
};
Spread spread_of(const std::vector<double>& values) {
  Spread s{.mean = mean_of_finite(values)};  // NaN where there is none
  for (const double v : values)
    if (std::isfinite(v)) s.deviation += (v - s.mean) * (v - s.mean), ++s.n;
  s.deviation = std::sqrt(s.deviation / double(s.n));
  return s;
}

std::vector<const JudgedMethod*> judged_methods(const JudgeRun& run) {
  std::vector<const JudgedMethod*> all;
  for (const JudgedMethod& method : run.methods)
    if (method.skipped.empty()) all.push_back(&method);
  return all;
}

// 1: the best; 0: has no value.
int64_t rank_of(const JudgeRun& run, const JudgedMethod& method, size_t m) {
  const double own = mean_of_finite(method.values[m]);
  if (!std::isfinite(own)) return 0;
  int64_t rank = 1;
  for (const JudgedMethod* other : judged_methods(run)) {
    const double mean = mean_of_finite(other->values[m]);
    rank += higher_is_better(run.metrics[m]) ? mean > own : mean < own;
  }
  return rank;
}

// Over the images where both have a value; none where there are fewer than two.
std::optional<PairedDifference> difference(const JudgeRun& run, const JudgedMethod& a, const JudgedMethod& b, size_t m) {
  std::vector<double> of_a, of_b;
  for (size_t i = 0; i < a.values[m].size(); ++i)
    if (std::isfinite(a.values[m][i]) && std::isfinite(b.values[m][i])) of_a.push_back(a.values[m][i]), of_b.push_back(b.values[m][i]);
  if (of_a.size() < 2 || &a == &b) return std::nullopt;
  return paired_bootstrap(of_a, of_b, parse_seed(run.flags.seed));
}
bool beyond_chance(const std::optional<PairedDifference>& d) { return d && (d->low > 0 || d->high < 0); }
Json difference_json(const std::optional<PairedDifference>& d) {
  return d ? Json{{"difference", d->mean}, {"low", d->low}, {"high", d->high}} : Json(nullptr);
}
const JudgedMethod& random_of(const JudgeRun& run) {
  return *std::ranges::find(run.methods, std::string(kRandomMap), &JudgedMethod::name);
}

Json results_json(const JudgeRun& run) {
  Json results = Json::array();
  for (size_t m = 0; m < run.metrics.size(); ++m)
    for (const JudgedMethod* method : judged_methods(run)) {
      const Spread s = spread_of(method->values[m]);
      const int64_t rank = rank_of(run, *method, m);
      Json entry = {{"method", method->name}, {"metric", word_of(kMetrics, run.metrics[m])}, {"mean", s.mean}, {"std", s.deviation},
                    {"n", s.n}, {"rank", rank > 0 ? Json(rank) : Json(nullptr)}, {"values", method->values[m]},
                    {"versus_random", difference_json(difference(run, *method, random_of(run), m))}};
      const auto [first, second] = curve_names(run.metrics[m]);
      if (*first) entry[first] = method->curves[m];
      if (*second) entry[second] = method->others[m];
      results.push_back(std::move(entry));
    }
  return results;
}

// Every two methods by every metric: what the paired bootstrap says of their difference.
Json pairs_json(const JudgeRun& run) {
  Json pairs = Json::array();
  const std::vector<const JudgedMethod*> all = judged_methods(run);
  for (size_t m = 0; m < run.metrics.size(); ++m)
    for (size_t a = 0; a < all.size(); ++a)
      for (size_t b = a + 1; b < all.size(); ++b)
        if (const std::optional<PairedDifference> d = difference(run, *all[a], *all[b], m)) {
          Json pair = difference_json(d);
          pair["metric"] = word_of(kMetrics, run.metrics[m]), pair["a"] = all[a]->name, pair["b"] = all[b]->name;
          pair["beyond_chance"] = beyond_chance(d);
          pairs.push_back(std::move(pair));
        }
  return pairs;
}

std::vector<std::string> layer_names(const JudgeRun& run) {
  std::vector<std::string> names;
  for (const int layer : run.layers) names.push_back(run.job.model.network.nodes[size_t(layer)].name);
  return names;
}

// A line for each method: the mean of its curves over the images.
Canvas curve_chart(const JudgeRun& run, const std::string& title, const std::vector<std::string>& places, double least,
                   const std::function<const Curves&(const JudgedMethod&)>& curves_of) {
  std::vector<Series> series;
  for (const JudgedMethod* method : judged_methods(run)) {
    const Curves& curves = curves_of(*method);
    if (curves.empty()) continue;
    Series line{method->name, {}, kJudgedColors[series.size() % std::size(kJudgedColors)]};
    if (method->name == kRandomMap) line.color = {150, 150, 150};
    if (method->name == kEdgeMap) line.color = {60, 60, 60};
    for (size_t k = 0; k < places.size(); ++k) {
      std::vector<double> here;
      for (const std::vector<double>& curve : curves) here.push_back(curve[k]);
      line.values.push_back(mean_of_finite(here));
    }
    series.push_back(std::move(line));
  }
  return line_chart(places, series, {.title = fmt::format("{}, mean over {}", title, counted(run.images, "image")), .least = least, .most = 1});
}

std::vector<Canvas> curve_charts(const JudgeRun& run) {
  std::vector<Canvas> charts;
  std::vector<std::string> steps, shares, layers = layer_names(run);
  for (int64_t k = 0; k <= run.flags.points; ++k) steps.push_back(fmt::format("{:.0f} %", 100 * double(k) / double(run.flags.points)));
  for (const double share : RoadOptions().shares) shares.push_back(fmt::format("{:.0f} %", 100 * share));
  for (size_t m = 0; m < run.metrics.size(); ++m) {
    const auto draw = [&](const std::string& title, const std::vector<std::string>& places, double least, bool second) {
      charts.push_back(curve_chart(run, title, places, least, [m, second](const JudgedMethod& method) -> const Curves& {
        return second ? method.others[m] : method.curves[m];
      }));
    };
    switch (run.metrics[m]) {
      case Metric::deletion:
        draw("Deletion: probability of the class by share of pixels taken away", steps, 0, false);
        break;
      case Metric::insertion:
        draw("Insertion: probability of the class by share of pixels given back", steps, 0, false);
        break;
      case Metric::road:
        draw("ROAD: probability of the class by share of pixels removed, the most relevant first", shares, 0, false);
        draw("ROAD: the least relevant first", shares, 0, true);
        break;
      case Metric::randomisation:
        draw("Layers randomised from the output down: rank correlation of |map| with the trained network's", layers, 0, false);
        draw("The same: structural similarity", layers, 0, true);
        break;
      case Metric::randomised_layers:
        draw("One layer randomised at a time: rank correlation of |map| with the trained network's", layers, 0, false);
        draw("The same: structural similarity", layers, 0, true);
        break;
      default:
        break;
    }
  }
  return charts;
}

std::string value_text(double v) { return v == 0 || std::abs(v) >= 0.001 ? fmt::format("{:.3f}", v) : fmt::format("{:.1e}", v); }

void print_judged(const JudgeRun& run, const Output& output) {
  print_line(run.job.summary_title("judge"));
  for (size_t first = 0; first < run.metrics.size(); first += kMetricsAbreast) {
    const size_t end = std::min(run.metrics.size(), first + kMetricsAbreast);
    std::string head = fmt::format("  {:<16}", "");
    for (size_t m = first; m < end; ++m)
      head += fmt::format(" {:>23}", fmt::format("{} {}", word_of(kMetrics, run.metrics[m]), higher_is_better(run.metrics[m]) ? "+" : "-"));
    print_line(head);
    for (const JudgedMethod* method : judged_methods(run)) {
      std::string line = fmt::format("  {:<16}", method->name);
      for (size_t m = first; m < end; ++m) {
        const Spread s = spread_of(method->values[m]);
        std::string cell = "none";
        if (s.n > 0)
          cell = fmt::format("{} ± {}{} #{}", value_text(s.mean), value_text(s.deviation),
                             beyond_chance(difference(run, *method, random_of(run), m)) ? "*" : " ", rank_of(run, *method, m));
        line += fmt::format(" {:>23}", cell);
      }
      print_line(line);
    }
  }
  for (const JudgedMethod& method : run.methods) {
    if (!method.skipped.empty()) print_line(fmt::format("  {:<16} skipped: {}", method.name, method.skipped));
    if (method.skipped.empty() && method.constant > 0)
      print_line(fmt::format("  {:<16} is constant on {}: pixels by rows and columns", method.name, counted(method.constant, "image")));
  }
  print_line("  mean ± standard deviation over images; +: more is better, -: less is better; #: rank; *: differs from the random map by more "
             "than chance (paired bootstrap, 95 %)");
  print_written(run.job, output.paths());
  print_line(run.job.summary_times(run.images, "image"));
}

void run_judge(const JudgeFlags& o) {
  std::vector<std::string> names = o.methods == "none" ? std::vector<std::string>() : split_list(o.methods);
  for (const std::string& name : names) check_choice("--methods", name, map_method_names());
  if (names.empty() && o.maps.empty()) throw Error("there are no maps to judge", "--methods LIST or --maps FILE.npy", true);
  std::vector<Metric> metrics;
  for (const std::string& word : split_list(o.metrics)) metrics.push_back(parse_choice("--metrics", word, kMetrics));
  if (o.saves("npy")) throw Error("judge saves no arrays", "values are in the JSON document: --json", true);
  if (o.target == "all" || o.target.find(',') != std::string::npos)
    throw Error("judge explains one target of each input", "--target max, a class or a label", true);
  const std::tuple<const char*, int64_t, int64_t> counts[] = {
      {"--points", o.points, 10'000}, {"--grid", o.grid, 64}, {"--subsets", o.subsets, 100'000}, {"--draws", o.draws, 10'000}};
  for (const auto& [option, value, most] : counts)
    if (value < 3 || value > most) throw Error(fmt::format("{} {} is out of range", option, value), fmt::format("3 to {}", most), true);
  const std::tuple<const char*, double, double> sizes[] = {
      {"--radius", o.radius, 1e-6}, {"--sigma", o.sigma, 1e-6}, {"--road-noise", o.road_noise, 0}};
  for (const auto& [option, value, least] : sizes)
    if (!(value >= least && value <= 1000)) throw Error(fmt::format("{} {} is out of range", option, value), fmt::format("{} to 1000", least), true);
  const bool of_boxes = std::ranges::any_of(metrics, [](Metric m) { return m == Metric::pointing || m == Metric::energy; });
  if (of_boxes && o.boxes.empty()) throw Error("pointing and energy want to know where the object is", "--boxes FILE with lines index,x,y,w,h", true);
  for (const auto& [option, list] : {std::pair{"--methods", names}, {"--metrics", split_list(o.metrics)}})
    for (size_t i = 0; i < list.size(); ++i)
      if (std::ranges::find(list.begin(), list.begin() + ptrdiff_t(i), list[i]) != list.begin() + ptrdiff_t(i))
        throw Error(fmt::format("{} names {} twice", option, list[i]), "", true);
  check_maps(o.flags.maps);
  parse_fill(o.deletion_fill), parse_fill(o.insertion_fill);
  Job job("judge", o);
  if (job.outputs == Outputs::value)
    throw Error(fmt::format("judge is about classes, but {} gives one value", job.model_name()), "`switchback compare` shows its maps");
  // The plan of the changed images stays while methods make their maps: a quarter of the memory that was given is its own.
  JudgeRun run{.job = job, .flags = o, .metrics = metrics, .methods = {}, .options = job.run, .given = {}, .boxes = {}, .random = {}, .layers = {}};
  run.options.memory = job.run.memory / 4;
  job.run.memory -= run.options.memory;
  if (std::ranges::any_of(metrics, randomises)) {
    run.random = random_weights(job.model.network, parse_seed(o.seed) + 1);
    run.layers = layers_from_top(job.model.weights);
  }
  if (!o.boxes.empty()) run.boxes = read_boxes(o.boxes);
  if (!o.maps.empty()) run.given = read_npy(o.maps, {3, 4});
  for (const std::string& name : names) run.methods.push_back({name, named_method(job, name, o.flags)});
  if (!o.maps.empty()) run.methods.push_back({kGivenMaps});
  run.methods.push_back({kRandomMap});
  run.methods.push_back({kEdgeMap});
  for (JudgedMethod& method : run.methods)
    method.values.resize(metrics.size()), method.curves.resize(metrics.size()), method.others.resize(metrics.size());
  Output output(job);
  Inputs inputs(job, output);
  Report report;
  std::string stem;
  inputs.for_each_chunk(
      [&](Shape image) { return names.empty() ? int64_t(16) : chunk_items(job, run.methods[0].method->method, image); },
      [&](const Chunk& chunk) {
        for (const Chunk::Part& part : chunk.parts)
          for (int64_t i = 0; i < part.count; ++i) {
            stem = stem.empty() || stem == part.file->stem ? part.file->stem : kContactSheet;
            report.inputs.push_back(item_json(*part.file, i));
          }
        judge_chunk(run, chunk, item_numbers(chunk), report.inputs);
        job.bar.update(run.images, inputs.count(), "images");
      });
  if (!o.maps.empty() && run.given.dim(0) != run.images)
    throw Error(fmt::format("{} has {}, but there {} {}", printable(o.maps), counted(run.given.dim(0), "map"), run.images == 1 ? "is" : "are", counted(run.images, "input")), "one for every input", true);
  Json files = Json::array();
  const std::vector<Canvas> parts = output.pictures() ? curve_charts(run) : std::vector<Canvas>();
  if (!parts.empty()) output.add_picture(files, stem, one_below_other(parts));
  for (Json& entry : report.inputs) entry["files"] = files;
  Json skipped = Json::array(), constant = Json::object();
  for (const JudgedMethod& method : run.methods) {
    if (!method.skipped.empty()) skipped.push_back({{"method", method.name}, {"why", method.skipped}});
    if (method.constant > 0) constant[method.name] = method.constant;
  }
  report.details = {{"points", o.points}, {"draws", o.draws}, {"results", results_json(run)}, {"skipped", skipped}, {"constant_maps", constant}};
  if (judged_methods(run).size() <= kMostPairs) report.details["pairs"] = pairs_json(run);
  if (!run.layers.empty()) report.details["randomised_layers"] = layer_names(run);
  report.summary = [&] { print_judged(run, output); };
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_judge(CLI::App& app) {
  auto o = std::make_shared<JudgeFlags>();
  add_inputs(app, *o, kInputs);
  add_setting(app, *o, "--methods", o->methods, Changes::values,
              fmt::format("whose maps: {}, or none (default {})", fmt::join(map_method_names(), ", "), o->methods), "LIST");
  std::vector<std::string> metrics;
  for (const auto& metric : kMetrics) metrics.emplace_back(metric.word);
  add_setting(app, *o, "--metrics", o->metrics, Changes::values,
              fmt::format("by what: {} (default {})", fmt::join(metrics, ", "), o->metrics), "LIST");
  add_setting(app, *o, "--maps", o->maps, Changes::values, "maps of any program, [N,H,W] or [N,C,H,W], one for every input", "FILE.npy");
  add_setting(app, *o, "--boxes", o->boxes, Changes::values, "where the objects are: lines index,x,y,w,h", "FILE");
  add_setting(app, *o, "--points", o->points, Changes::values, "steps of deletion and insertion (default 28)", "K");
  add_setting(app, *o, "--deletion-fill", o->deletion_fill, Changes::values, "what pixels become (default 0)", "0|mean|NUMBER|blur");
  add_setting(app, *o, "--insertion-fill", o->insertion_fill, Changes::values, "what they are at first (default blur)", "0|mean|NUMBER|blur");
  add_setting(app, *o, "--grid", o->grid, Changes::values, "cells a side of mu-fidelity (default 9)", "N");
  add_setting(app, *o, "--subsets", o->subsets, Changes::values, "of mu-fidelity (default 200)", "N");
  add_setting(app, *o, "--draws", o->draws, Changes::values, "noisy copies of infidelity and of the sensitivities (default 10)", "N");
  add_setting(app, *o, "--sigma", o->sigma, Changes::values, "of infidelity's normal noise, in input units (default 0.1)", "S");
  add_setting(app, *o, "--radius", o->radius, Changes::values, "of the sensitivities' uniform noise, in input units (default 0.02)", "R");
  add_setting(app, *o, "--road-noise", o->road_noise, Changes::values, "sigma of ROAD's imputation, in input units (default 0.01)", "S");
  add_map_settings(app, *o, o->flags);
  add_target(app, *o, false);
  add_model(app, *o);
  add_output(app, *o);
  add_run(app, *o, true);
  add_report(app, *o);
  return [o] { run_judge(*o); };
}

}  // namespace switchback
