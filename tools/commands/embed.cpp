// `switchback embed`: a data set's values at layers as points of two or three dimensions, and their clusters.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "engine/files/dataset.h"
#include "engine/files/npy.h"
#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/labelled.h"
#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "viz/methods/batches.h"
#include "viz/methods/genes.h"
#include "viz/methods/inspect.h"
#include "viz/methods/kmeans.h"
#include "viz/methods/pca.h"
#include "viz/methods/tsne.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr char kSwissRoll[] = "swiss-roll";
constexpr int64_t kRollPoints = 1500, kRollBands = 6;
constexpr char kInputLayer[] = "input";
constexpr int64_t kWide = 2048;        // values a point, beyond which its principal components stand for it
constexpr int64_t kStandIns = 50;      // so many
constexpr size_t kHeld = size_t(1) << 30;  // bytes of values that are kept; wider layers are run anew for each pass
constexpr int64_t kTrusted = 5;        // neighbours of trustworthiness
constexpr int kViewSide = 380;

enum class EmbedMethod { pca, tsne };
constexpr Choice<EmbedMethod> kEmbedMethods[] = {{"pca", EmbedMethod::pca}, {"tsne", EmbedMethod::tsne}};

struct EmbedFlags : Options {
  std::vector<std::string> layers;
  std::string limit;
  EmbedMethod method = EmbedMethod::pca;
  int64_t dims = 2, clusters = 0, restarts = 10, neighbours = 0, iterations = 750;
  double perplexity = 30;
  bool thumbnails = false;
};

// Points in memory, or a layer that makes them anew.
struct EmbedSource {
  std::string name;
  int node = -1;  // none: points of no model
  int64_t d = 0;
  std::vector<float> values = {};  // [n,d], or nothing
};

struct EmbeddedLayer {
  std::string name;
  int64_t d = 0;
  std::string measured = {};  // what distances are of
  Components pca = {};
  int64_t neighbours = 0;
  double kl = NAN, trust = NAN;
  Tensor places = {};  // [n,dims]
  Clusters clusters = {};
  double neighbour_seconds = 0, descent_seconds = 0;
};

// What a share of a run that is divided keeps: the values of all layers for its images, and which could be read.
struct ShareOfValues {
  std::vector<int64_t> kept;
  std::vector<std::vector<float>> layers;
  void merge(ShareOfValues&& next) {
    kept.insert(kept.end(), next.kept.begin(), next.kept.end());
    layers.resize(std::max(layers.size(), next.layers.size()));
    for (size_t l = 0; l < next.layers.size(); ++l) layers[l].insert(layers[l].end(), next.layers[l].begin(), next.layers[l].end());
  }
  template <typename A>
  void fields(A& a) {
    a(kept, layers);
  }
};

struct EmbedRun {
  Job& job;
  const EmbedFlags& flags;
  Output& output;
  Context& host;
  std::optional<Dataset> data = {};
  Tensor held = {};  // images of no data set, [N,C,H,W]
  Shape image = {};
  std::vector<int64_t> kept = {};  // numbers of the images that can be read
  std::vector<int> labels = {};    // theirs, or none
  std::vector<std::string> classes = {};
  bool read = false;
  std::pair<int64_t, int64_t> share = {};  // of the images
  std::vector<EmbeddedLayer> layers = {};
  int64_t n() const { return int64_t(kept.size()); }
};

// ---- what is embedded

// t cos t, height, t sin t; t from 1.5 π to 4.5 π, as scikit-learn's make_swiss_roll has it. Classes are bands of t.
std::vector<float> swiss_roll(int64_t n, uint64_t seed, std::vector<int>& labels) {
  std::vector<float> points;
  Draws draws(seed, 0, 0x5111);
  for (int64_t i = 0; i < n; ++i) {
    const double along = draws.uniform(), t = 1.5 * M_PI * (1 + 2 * along), height = 21 * draws.uniform();
    points.insert(points.end(), {float(t * std::cos(t)), float(height), float(t * std::sin(t))});
    labels.push_back(int(along * kRollBands));
  }
  return points;
}

void check_finite(const float* values, int64_t n, int64_t d, const std::string& what, std::span<const int64_t> numbers) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < d; ++k)
      CHECK(std::isfinite(values[i * d + k]), "{} is not finite in image {}", what, numbers[size_t(i)]);
}

// All images that can be read, in order; the first pass finds out which these are.
void for_images(EmbedRun& run, int64_t batch, const std::function<void(const float*, std::span<const int64_t>)>& work) {
  if (run.data && !run.read) {
    std::vector<int64_t> kept;
    for_batches(run.job, *run.data, numbers_of(run.share.first, run.share.second), batch,
                [&](const float* pixels, std::span<const int64_t> numbers) {
                  kept.insert(kept.end(), numbers.begin(), numbers.end());
                  work(pixels, numbers);
                });
    run.kept = std::move(kept), run.read = true;
    return;
  }
  if (run.data)
    return read_batches(*run.data, run.kept, run.job.model, batch, run.job.ctx.thread_count(),
                        kLeaveNoneOut,
                        [&](const ReadAhead::Batch& b) { work(b.pixels.data(), b.images); });
  for (int64_t first = 0; first < run.n(); first += batch) {
    const int64_t count = std::min(batch, run.n() - first);
    work(run.held.data() + run.kept[size_t(first)] * run.image.item(), std::span(run.kept).subspan(size_t(first), size_t(count)));
  }
}

// Images of no data set: they have no classes.
void hold_images(EmbedRun& run) {
  Inputs inputs(run.job, run.output);
  std::vector<Tensor> parts;
  int64_t count = 0;
  for (const InputFile& file : inputs.files()) {
    std::optional<Tensor> x = inputs.load(file);
    if (!x) continue;
    const Shape image{1, x->dim(1), x->dim(2), x->dim(3)};
    if (parts.empty()) run.image = image;
    if (image != run.image)
      throw Error(fmt::format("{} holds {}x{} pixels of {} channels, the first input {}x{} of {}", printable(file.path), image.h,
                              image.w, image.c, run.image.h, run.image.w, run.image.c),
                  "points need one size; embed them one by one");
    count += x->dim(0);
    parts.push_back(std::move(*x));
  }
  if (!run.flags.limit.empty()) count = std::min(count, parse_whole("--limit", run.flags.limit, 1, int64_t(1) << 40));
  run.held = allocate_maps({count, run.image.c, run.image.h, run.image.w});
  float* to = run.held.data();
  for (const Tensor& part : parts) {
    const int64_t taken = std::min(part.count(), run.held.data() + run.held.count() - to);
    to = std::copy_n(part.data(), taken, to);
  }
  run.share = shares().of(count);
  run.kept = numbers_of(run.share.first, run.share.second);
  run.read = true;
}

// Calls take(rows [n,d], numbers) for a layer's values of all images.
void for_rows(EmbedRun& run, const EmbedSource& source,
              const std::function<void(const float* rows, std::span<const int64_t> numbers)>& take) {
  const int64_t most = std::max<int64_t>(1, run.read ? run.n() : run.share.second - run.share.first);
  const auto pass = [&](const float* rows, std::span<const int64_t> numbers) {
    check_finite(rows, int64_t(numbers.size()), source.d, source.name, numbers);
    take(rows, numbers);
  };
  if (source.node == 0) return for_images(run, std::min<int64_t>(64, most), pass);
  Forward forward(run.job.ctx, run.job.model, run.image, source.node, run.job.run, std::min<int64_t>(256, most));
  for_images(run, forward.batch(), [&](const float* pixels, std::span<const int64_t> numbers) {
    const Tensor values = forward.run(pixels, int64_t(numbers.size()));
    pass(values.data(), numbers);
  });
}

EmbedSource open_layer(EmbedRun& run, int node, const std::string& name) {
  EmbedSource source{.name = name, .node = node};
  source.d = node == 0 ? run.image.item() : run.job.model.network.shapes(run.image)[size_t(node)].item();
  const int64_t all = run.data ? limited(*run.data, run.flags.limit) : run.held.dim(0);
  const int64_t most = shares().divided() ? all : run.read ? run.n() : run.share.second - run.share.first;
  const size_t budget = run.job.run.memory > 0 ? run.job.run.memory : kHeld;
  if (size_t(most) > budget / sizeof(float) / size_t(source.d)) {
    if (shares().divided())
      throw Error(fmt::format("the {} values of {} for {} do not fit into {} MiB, and only what does is divided", source.d, name,
                              counted(most, "image"), budget >> 20),
                  "allow more with --memory, or leave out --shard and mpirun: one run makes them anew for each pass");
    if (!run.read) for_images(run, 64, [](const float*, std::span<const int64_t>) {});  // which can be read
    return source;
  }
  source.values.reserve(size_t(most * source.d));
  for_rows(run, source, [&](const float* rows, std::span<const int64_t> numbers) {
    source.values.insert(source.values.end(), rows, rows + int64_t(numbers.size()) * source.d);
  });
  return source;
}

// The layers with their values; of a run that is divided with those of all shares, or nothing where another one goes on.
std::vector<EmbedSource> gathered_layers(EmbedRun& run, std::span<const std::pair<int, std::string>> layers) {
  ShareOfValues all;
  std::vector<EmbedSource> sources;
  for (const auto& [node, name] : layers) {
    sources.push_back(open_layer(run, node, name));
    all.layers.push_back(std::move(sources.back().values));
  }
  all.kept = run.kept;
  const std::string& path = run.flags.inputs[0];
  const Json about = run.data ? dataset_json(*run.data, limited(*run.data, run.flags.limit)) : Json(run.held.dims());
  if (!gather(run.job, run.output, dataset_stem(path), about, all)) return {};
  run.kept = std::move(all.kept), run.read = true;
  for (size_t l = 0; l < sources.size(); ++l) sources[l].values = std::move(all.layers[l]);
  return sources;
}

// ---- the work

int64_t wanted_neighbours(const EmbedRun& run) {
  const EmbedFlags& o = run.flags;
  const int64_t others = run.n() - 1, k = o.neighbours > 0 ? o.neighbours : int64_t(std::ceil(3 * o.perplexity));
  const int64_t there = std::min(k, others);
  if (o.neighbours > 0 && k > others)
    throw Error(fmt::format("--neighbours {}, but each of {} has {} others", k, counted(run.n(), "point"), others), "", true);
  if (3 * o.perplexity > double(there))
    throw Error(fmt::format("a perplexity of {} is more than a third of the {} neighbours", o.perplexity, there),
                there >= 3 ? fmt::format("--perplexity {} or less", there / 3) : "t-SNE takes four points or more", true);
  return k;
}

EmbeddedLayer embed(EmbedRun& run, EmbedSource source) {
  const EmbedFlags& o = run.flags;
  const int64_t n = run.n(), d = source.d;
  if (n < 2) throw Error(fmt::format("{} cannot be embedded", counted(n, "point")), "give two or more");
  if (o.clusters > n) throw Error(fmt::format("--clusters {} of {}", o.clusters, counted(n, "point")), "", true);
  EmbeddedLayer out{.name = source.name, .d = d};
  const int64_t k = o.method == EmbedMethod::tsne ? wanted_neighbours(run) : 0;
  const bool held = !source.values.empty(), stand_ins = !held || d > kWide;
  const uint64_t seed = parse_seed(o.seed);
  const RowPass pass = held ? rows_in_memory(source.values.data(), n, d) : RowPass([&](const auto& take) {
    for_rows(run, source, [&](const float* rows, std::span<const int64_t> numbers) { take(rows, int64_t(numbers.size())); });
  });
  out.pca = principal_components(run.host, n, d, stand_ins ? std::max(kStandIns, o.dims) : o.dims, seed, pass);
  const Components& pca = out.pca;
  if (pca.k == 0)
    throw Error(fmt::format("{} has the same values for all {}", source.name, counted(n, "point")), "there is nothing to embed");
  if (pca.change > 1e-4)
    run.output.note(fmt::format("{}: components still turned by {:.1g} after {} passes", source.name, pca.change, pca.passes));
  if (pca.k < o.dims) run.output.note(fmt::format("{}: the points lie in {}", source.name, counted(pca.k, "dimension")));
  out.places = Tensor::zeros({n, o.dims});
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < std::min(o.dims, pca.k); ++c) out.places[i * o.dims + c] = pca.scores[size_t(i * pca.k + c)];

  // Distances: of the values about their mean, or of the components.
  PointSet points{pca.scores.data(), n, pca.k};
  out.measured = fmt::format("the first {} of {} values", counted(pca.k, "principal component"), d);
  if (!stand_ins) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t e = 0; e < d; ++e) {
        float& v = source.values[size_t(i * d + e)];
        v = float(double(v) - pca.mean[size_t(e)]);
      }
    points = {source.values.data(), n, d};
    out.measured = counted(d, "value");
  }
  if (o.method == EmbedMethod::tsne) {
    const auto start = std::chrono::steady_clock::now();
    const Neighbours near = nearest_neighbours(run.job.ctx, points, k, [&](int64_t done, int64_t all) {
      run.job.bar.update(done, all, "points with neighbours");
    });
    out.neighbours = k, out.neighbour_seconds = seconds_since(start);
    const auto then = std::chrono::steady_clock::now();
    Tsne made = tsne(run.host, near, out.places.data(),
                     {.dims = o.dims,
                      .perplexity = o.perplexity,
                      .iterations = o.iterations,
                      .early = std::min<int64_t>(250, o.iterations / 3),
                      .seed = seed,
                      .progress = [&](int64_t done, int64_t all) { run.job.bar.update(done, all, "iterations"); }});
    out.kl = made.kl, out.descent_seconds = seconds_since(then);
    std::ranges::copy(made.places, out.places.data());
  }
  if (const int64_t trusted = std::min(kTrusted, (n - 1) / 2); trusted > 0)
    out.trust = trustworthiness(run.job.ctx, points, {out.places.data(), n, o.dims}, trusted);
  if (o.clusters > 0) out.clusters = k_means(run.host, points, o.clusters, o.restarts, seed);
  return out;
}

// ---- the figure

// Points seen from the side, furthest first; those further back are paler.
struct SideView {
  std::vector<float> places;  // [n,2]
  std::vector<int64_t> order;
  std::vector<float> depth;   // 0 (near) to 1, in that order
};

SideView view_of(const Tensor& places, double azimuth) {
  const int64_t n = places.dim(0), dims = places.dim(1);
  SideView view;
  view.order.resize(size_t(n)), view.depth.assign(size_t(n), 0);
  std::iota(view.order.begin(), view.order.end(), 0);
  if (dims == 2) {
    view.places.assign(places.data(), places.data() + 2 * n);
    return view;
  }
  const double elevation = 0.35, ca = std::cos(azimuth), sa = std::sin(azimuth), ce = std::cos(elevation), se = std::sin(elevation);
  std::vector<float> depth, flat;
  for (int64_t i = 0; i < n; ++i) {
    const double x = places[3 * i], y = places[3 * i + 1], z = places[3 * i + 2], across = ca * x + sa * y, back = ca * y - sa * x;
    flat.insert(flat.end(), {float(across), float(ce * z + se * back)});
    depth.push_back(float(ce * back - se * z));
  }
  std::stable_sort(view.order.begin(), view.order.end(), [&](int64_t a, int64_t b) { return depth[size_t(a)] > depth[size_t(b)]; });
  const float far = depth[size_t(view.order.front())], near = depth[size_t(view.order.back())];
  for (size_t e = 0; e < view.order.size(); ++e) {
    const size_t i = size_t(view.order[e]);
    view.places.insert(view.places.end(), {flat[2 * i], flat[2 * i + 1]});
    view.depth[e] = far > near ? (depth[i] - near) / (far - near) : 0;
  }
  return view;
}

Canvas draw_view(const EmbedRun& run, const SideView& view, std::span<const int> colored) {
  std::vector<Rgb> colors;
  for (size_t e = 0; e < view.order.size(); ++e) {
    Rgb color = colored.empty() ? Rgb{49, 104, 142} : series_color(colored[size_t(view.order[e])]);
    for (uint8_t& part : color) part = uint8_t(float(part) + 0.6f * view.depth[e] * float(255 - part));
    colors.push_back(color);
  }
  ScatterOptions options{.side = kViewSide};
  if (run.flags.thumbnails)
    options.thumbnail = [&](int64_t e) {
      const int64_t i = view.order[size_t(e)], number = run.kept[size_t(i)];
      return to_rgb(run.data ? run.data->image(number) : input_picture(run.held, number, run.job.model, false));
    };
  return scatter_chart(view.places, colors, options);
}

std::string layer_words(const EmbedRun& run, const EmbeddedLayer& layer) {
  std::string words;
  if (run.flags.method == EmbedMethod::tsne) {
    words = fmt::format("KL {:.3f}", layer.kl);
  } else {
    double share = 0;
    for (int64_t c = 0; c < std::min(layer.pca.k, run.flags.dims); ++c) share += layer.pca.variances[size_t(c)] / layer.pca.total;
    words = fmt::format("{:.1f} % of variance", 100 * share);
  }
  if (std::isfinite(layer.trust)) words += fmt::format(", trustworthiness {:.3f}", layer.trust);
  return words;
}

void draw(EmbedRun& run, Output& output, Json& files, const std::string& stem) {
  const EmbedFlags& o = run.flags;
  const std::vector<double> azimuths = o.dims == 3 ? std::vector<double>{0.5, 0.5 + M_PI / 2} : std::vector<double>{0};
  std::vector<Panel> panels;
  const auto add = [&](const EmbeddedLayer& layer, std::span<const int> colored, const std::string& words) {
    for (const double azimuth : azimuths)
      panels.push_back({draw_view(run, view_of(layer.places, azimuth), colored),
                        fmt::format("{}{}: {}", layer.name, azimuth == azimuths[0] ? "" : ", from the side", words)});
  };
  for (const EmbeddedLayer& layer : run.layers) add(layer, run.labels, layer_words(run, layer));
  for (const EmbeddedLayer& layer : run.layers)
    if (o.clusters > 0) add(layer, layer.clusters.labels, counted(o.clusters, "cluster") + " by k-means");
  std::string note = run.labels.empty() ? "no labels: points have one colour" : "";
  if (o.clusters > 0 && !run.labels.empty()) note = "clusters have colours of their own";
  const bool model = !o.model.empty();
  std::string subtitle = counted(run.n(), "point");
  if (o.method == EmbedMethod::tsne)
    subtitle += fmt::format("; perplexity {}, {} neighbours, {} iterations, seed {}", o.perplexity, run.layers[0].neighbours,
                            o.iterations, o.seed);
  if (model) subtitle += "; " + weights_text(run.job);
  const std::string what = o.method == EmbedMethod::tsne ? "t-SNE" : "Principal components";
  int columns = o.columns;
  if (columns == 0 && run.layers.size() * azimuths.size() <= 4) columns = int(run.layers.size() * azimuths.size());
  const Canvas sheet = grid(panels, {.columns = columns,
                                     .panel_side = kViewSide,
                                     .title = model ? figure_title(run.job, what) : what + ", " + stem,
                                     .subtitle = subtitle,
                                     .note = note});
  std::vector<Canvas> parts{sheet};
  if (!run.labels.empty()) {
    std::vector<std::string> names;
    std::vector<Rgb> colors;
    for (size_t c = 0; c < run.classes.size() && c < kSeriesColors; ++c)
      if (std::ranges::find(run.labels, int(c)) != run.labels.end())
        names.push_back(run.classes[c]), colors.push_back(series_color(int64_t(c)));
    if (run.classes.size() > kSeriesColors) names.push_back("… the further ones by the same colours"), colors.push_back(kPaper);
    parts.push_back(series_legend(names, colors, int(sheet.width())));
  }
  output.add_picture(files, ResultOf(stem), one_below_other(parts));
}

void save_arrays(EmbedRun& run, Output& output, Json& files, const std::string& stem) {
  for (const EmbeddedLayer& layer : run.layers) {
    ResultOf of(stem);
    of.layer = layer.name;
    files.push_back(output.add_npy(of, layer.places, {"N", "D"}));
    if (run.flags.clusters == 0) continue;
    ResultOf clusters = of;
    clusters.part = ".clusters";
    files.push_back(output.add_npy(clusters, layer.clusters.labels, "N"));
  }
}

// ---- what is told

Json or_null(double v) { return std::isfinite(v) ? Json(v) : Json(nullptr); }

Json layer_json(const EmbedRun& run, const EmbeddedLayer& layer) {
  const EmbedFlags& o = run.flags;
  Json explained = Json::array();
  for (int64_t c = 0; c < std::min(layer.pca.k, o.dims); ++c) explained.push_back(layer.pca.variances[size_t(c)] / layer.pca.total);
  const bool tsne = o.method == EmbedMethod::tsne;
  return {{"layer", layer.name},
          {"values", layer.d},
          {"distances", layer.measured},
          {"explained", std::move(explained)},
          {"passes", layer.pca.passes},
          {"change", layer.pca.change},
          {"kl", or_null(layer.kl)},
          {"perplexity", tsne ? Json(o.perplexity) : Json(nullptr)},
          {"neighbours", tsne ? Json(layer.neighbours) : Json(nullptr)},
          {"trustworthiness", or_null(layer.trust)},
          {"inertia", o.clusters > 0 ? Json(layer.clusters.inertia) : Json(nullptr)}};
}

void print_embed(const EmbedRun& run, const Output& output) {
  const EmbedFlags& o = run.flags;
  print_line(o.model.empty() ? fmt::format("embed of {}, on {}", o.inputs[0], device_text(run.job.ctx)) : run.job.summary_title("embed"));
  for (const EmbeddedLayer& layer : run.layers) {
    std::string line = fmt::format("  {}: {}, of {}", layer.name, layer_words(run, layer), layer.measured);
    if (o.method == EmbedMethod::tsne)
      line += fmt::format("; perplexity {}, {} neighbours, seed {}", o.perplexity, layer.neighbours, o.seed);
    if (o.clusters > 0)
      line += fmt::format("; {}, inertia {:.6g}", counted(o.clusters, "cluster"), layer.clusters.inertia);
    print_line(line);
  }
  print_written(run.job, output.paths());
  print_line(o.model.empty() ? fmt::format("{} in {}", counted(run.n(), "point"), human_seconds(run.job.seconds()))
                             : run.job.summary_times(run.n(), "image"));
}

void check_flags(const EmbedFlags& o) {
  if (o.inputs.empty()) throw Error("no DATASET given", fmt::format("{}; or {}", kDatasets, kSwissRoll), true);
  if (o.dims != 2 && o.dims != 3) throw Error(fmt::format("--dims {} is out of range", o.dims), "2 or 3", true);
  if (!(o.perplexity >= 1 && o.perplexity <= 1e5)) throw Error(fmt::format("--perplexity {} is out of range", o.perplexity), "1 or more", true);
  if (o.clusters < 0 || o.clusters > 10000) throw Error(fmt::format("--clusters {} is out of range", o.clusters), "1 to 10000", true);
  if (o.restarts < 1 || o.restarts > 1000) throw Error(fmt::format("--restarts {} is out of range", o.restarts), "1 to 1000", true);
  if (o.iterations < 1 || o.iterations > 100000) throw Error(fmt::format("--iterations {} is out of range", o.iterations), "1 to 100000", true);
  if (o.neighbours < 0) throw Error(fmt::format("--neighbours {} is out of range", o.neighbours), "1 or more", true);
}

// The layers by name; `input` is the network's input.
std::vector<std::pair<int, std::string>> chosen_layers(const EmbedRun& run) {
  const Network& network = run.job.model.network;
  std::vector<std::string> names;
  std::vector<std::pair<int, std::string>> layers;
  for (const std::string& text : run.flags.layers)
    for (const std::string& name : split_list(text))
      names.push_back(name == kInputLayer ? network.nodes[0].name : name);
  for (const int node : required_nodes(network, names, run.flags.model))
    layers.emplace_back(node, node == 0 ? kInputLayer : network.nodes[size_t(node)].name);
  return layers;
}

void run_embed(const EmbedFlags& o) {
  check_flags(o);
  const bool roll = o.inputs.size() == 1 && o.inputs[0] == kSwissRoll;
  const bool vectors = o.inputs.size() == 1 && o.model.empty() && is_array(o.inputs[0]);
  if (roll && !o.model.empty()) throw Error("swiss-roll has no images for a model", "leave out --model", true);
  Job job("embed", o, !roll && !vectors);
  if ((roll || vectors) && !o.layers.empty()) throw Error("--layer without a model", "leave it out, or give --model", true);
  if ((roll || vectors) && o.thumbnails) throw Error("--thumbnails of points that are no images", "leave it out", true);
  std::optional<Context> own;
  if (job.ctx.gpu) own.emplace(), own->threads = job.ctx.thread_count();
  Output output(job);
  EmbedRun run{.job = job, .flags = o, .output = output, .host = own ? *own : job.ctx};
  std::string stem = o.inputs[0];
  if ((roll || vectors) && shares().divided()) throw Error("points of no model are not divided", "leave out --shard and mpirun", true);
  if (roll || vectors) {
    EmbedSource source{.name = "points"};
    const int64_t most = o.limit.empty() ? 0 : parse_whole("--limit", o.limit, 1, int64_t(1) << 31);
    int64_t n = roll ? (most ? most : kRollPoints) : 0;
    if (roll) {
      source.d = 3, source.values = swiss_roll(n, parse_seed(o.seed), run.labels);
      for (int64_t b = 0; b < kRollBands; ++b)
        run.classes.push_back(fmt::format("t {:.1f} to {:.1f}", M_PI * (1.5 + 3.0 * double(b) / kRollBands),
                                          M_PI * (1.5 + 3.0 * double(b + 1) / kRollBands)));
    } else {
      const Tensor points = read_npy(o.inputs[0], {2});
      n = most ? std::min(most, points.dim(0)) : points.dim(0);
      source.d = points.dim(1), source.values.assign(points.data(), points.data() + n * source.d);
      stem = dataset_stem(o.inputs[0]);
    }
    run.kept.resize(size_t(n)), run.read = true;
    std::iota(run.kept.begin(), run.kept.end(), 0);
    run.layers.push_back(embed(run, std::move(source)));
  } else {
    if (o.inputs.size() == 1 && is_dataset(o.inputs[0])) {
      run.data = open_dataset(o.inputs[0], o.exif);
      run.share = shares().of(limited(*run.data, o.limit));
      run.image = image_of(job.model), run.classes = run.data->classes;
    }
    const std::vector<std::pair<int, std::string>> layers = chosen_layers(run);
    if (!run.data) hold_images(run);
    check_image_shape(job.model.network, run.image);
    stem = dataset_stem(o.inputs[0]);
    std::vector<EmbedSource> gathered;
    if (shares().divided() && (gathered = gathered_layers(run, layers)).empty()) return;
    for (size_t l = 0; l < layers.size(); ++l) {
      EmbedSource source = gathered.empty() ? open_layer(run, layers[l].first, layers[l].second) : std::move(gathered[l]);
      if (l == 0 && run.data && run.data->labelled())
        for (const int64_t i : run.kept) run.labels.push_back(run.data->label(i));
      run.layers.push_back(embed(run, std::move(source)));
    }
  }
  if (run.labels.empty()) output.note("no labels: points have one colour");
  Json files = Json::array();
  if (output.pictures()) draw(run, output, files, stem);
  if (output.npy()) save_arrays(run, output, files, stem);
  Report report;
  report.inputs.push_back({{"path", o.inputs[0]}, {"index", 0}, {"files", files}});
  report.details = {{"method", word_of(kEmbedMethods, o.method)},
                    {"points", run.n()},
                    {"dims", o.dims},
                    {"iterations", o.method == EmbedMethod::tsne ? Json(o.iterations) : Json(nullptr)},
                    {"clusters", o.clusters},
                    {"labelled", !run.labels.empty()}};
  // Of one layer its fields stand here, too.
  if (run.layers.size() == 1) report.details.update(layer_json(run, run.layers[0]));
  report.details["layers"] = Json::array();
  report.times["layer_seconds"] = Json::array();
  for (const EmbeddedLayer& layer : run.layers) {
    report.details["layers"].push_back(layer_json(run, layer));
    report.times["layer_seconds"].push_back(
        {{"layer", layer.name}, {"neighbours", layer.neighbour_seconds}, {"descent", layer.descent_seconds}});
  }
  report.summary = [&] { print_embed(run, output); };
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_embed(CLI::App& app) {
  auto o = std::make_shared<EmbedFlags>();
  add_inputs(app, *o,
             fmt::format("{}; or a part of one, DATASET[FIRST:LAST]; images or arrays without labels; without --model: "
                         "points.npy [N,D], or {} (--limit: its points, {})",
                         kDatasets, kSwissRoll, kRollPoints)
                 .c_str());
  add_setting(app, *o, "--limit", o->limit, Changes::values, "only the first N images", "N");
  add_model(app, *o);
  add_setting(app, *o, "--layer", o->layers, Changes::values,
              "the layers, as `switchback info` names them; input: the images themselves", "NAME[,NAME]");
  add_choice(app, *o, "--method", kEmbedMethods, o->method, Changes::kind, "how values become places");
  add_setting(app, *o, "--dims", o->dims, Changes::values, "of the places; 3 are drawn from two sides", "2|3");
  add_setting(app, *o, "--clusters", o->clusters, Changes::values, "also clusters by k-means (0: none)", "K");
  add_setting(app, *o, "--restarts", o->restarts, Changes::values, "starts of k-means, of which the best counts", "N");
  add_setting(app, *o, "--perplexity", o->perplexity, Changes::values, "tsne: neighbours that count, in effect", "P");
  add_setting(app, *o, "--neighbours", o->neighbours, Changes::values, "tsne: that are looked at (0: three times the perplexity)", "N");
  add_setting(app, *o, "--iterations", o->iterations, Changes::values, "tsne: steps, the first third (250 at most) exaggerated", "N");
  add_switch(app, *o, "--thumbnails", o->thumbnails, Changes::pictures, "images in their places, as many as have room");
  add_output(app, *o);
  add_drawing(app, *o, Drawing::columns);
  add_run(app, *o, true);
  add_shard(app, *o);
  add_report(app, *o);
  return [o] { run_embed(*o); };
}

}  // namespace switchback
