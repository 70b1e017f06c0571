// `switchback occlusion`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>

#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "tools/commands/map_methods.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

using Algorithm = OcclusionOptions::Algorithm;
constexpr Choice<Algorithm> kAlgorithms[] = {{"incremental", Algorithm::incremental}, {"full", Algorithm::full}};

OcclusionOptions occlusion_options(const OcclusionFlags& o) {
  if (!o.boxes.empty() && (o.cover || o.pixels))
    throw Error("--cover and --pixels are for a grid of masks, not for --box", "leave one of them out", true);
  if (o.preview && o.check_preview)
    throw Error("--preview leaves the exact map out, which --check-preview compares with", "give one of them", true);
  OcclusionOptions options;
  std::tie(options.mask_h, options.mask_w) = parse_size("--mask", o.mask);
  std::tie(options.stride_h, options.stride_w) = parse_size("--stride", o.stride);
  options.cover = o.cover;
  options.fill = parse_fill(o.fill);
  for (const std::string& box : o.boxes) options.boxes.push_back(parse_box(box));
  options.algorithm = o.algorithm;
  return options;
}

// [N,T,rows,cols] -> [N,T,H,W], each pixel the mean over the masks on it.
Tensor by_pixels(const OcclusionMaps& maps, Shape image) {
  const int64_t places = int64_t(maps.places.boxes.size()), count = maps.values.dim(0) * maps.values.dim(1);
  Tensor out({maps.values.dim(0), maps.values.dim(1), image.h, image.w});
  for (int64_t m = 0; m < count; ++m) {
    const std::vector<float> map = pixel_average(maps.places, maps.values.data() + m * places, image.h, image.w);
    std::copy(map.begin(), map.end(), out.data() + m * image.h * image.w);
  }
  return out;
}

// Red where the score falls, blue where it rises, the stronger the more opaque; pixels that no mask covers show the
// photo alone.
MapPanel heat_on_photo(const Options& o, const Image& photo, std::vector<float> map, int h, int w) {
  const ColorScale colors{.map = o.map_or(ColorMap::coolwarm),
                          .range = symmetric_range(map, o.clip_or(99.5)),
                          .fading = std::max(o.alpha_or(0.85), 1e-3f)};  // 0 means none
  for (float& v : map)
    if (std::isnan(v)) v = 0;
  return {.colors = colors, .draw = [photo, map = std::move(map), h, w](const ColorScale& s) {
            return faded_overlay(photo, map.data(), h, w, s.map, s.fading, s.range);
          }};
}

Json details_of(const OcclusionFlags& o, const OcclusionOptions& options, const OcclusionMaps& maps) {
  Json details = {{"algorithm", o.preview ? "preview" : word_of(kAlgorithms, o.algorithm)}, {"fill", o.fill}};
  if (options.boxes.empty()) {
    details["mask"] = {options.mask_h, options.mask_w};
    details["stride"] = {options.stride_h, options.stride_w};
  }
  details["rows"] = maps.places.rows;
  details["cols"] = maps.places.cols;
  if (!options.boxes.empty()) details["boxes"] = o.boxes;
  if (!o.preview) {
    details["window_groups"] = maps.groups;
    details["flop_ratio"] = maps.flop_ratio;
  }
  return details;
}

// "0.125"; what rounds to zero is never "-0.000".
std::string rounded(double correlation) {
  return fmt::format("{:.3f}", std::abs(correlation) < 0.0005 ? 0.0 : correlation);
}

// The drops of an item, [T,B] or [B] of one target: a field of its entry, and the first ones for the summary.
std::string add_drops(Json& entry, const std::vector<float>& drops, const std::vector<std::string>& boxes) {
  constexpr size_t kMostNamed = 4;
  const int64_t count = int64_t(boxes.size()), targets = int64_t(drops.size()) / count;
  Json list = Json::array();
  for (int64_t t = 0; t < targets; ++t) {
    const float* first = drops.data() + t * count;
    list.push_back(std::vector<float>(first, first + count));
  }
  std::string line = ", drop";
  for (size_t b = 0; b < std::min(boxes.size(), kMostNamed); ++b)
    line += fmt::format("{} {:.4g} without {}", b > 0 ? "," : "", list[0][b].get<float>(), boxes[b]);
  if (boxes.size() > kMostNamed) line += fmt::format(" and {} more", boxes.size() - kMostNamed);
  entry["drops"] = targets == 1 ? list[0] : list;
  return line;
}

void run_occlusion(const OcclusionFlags& o) {
  occlusion_options(o);  // what is wrong with them is said before a model is opened
  Job job("occlusion", o);
  run_maps(job, occlusion_method(job, o));
}

// What the last run left for pictures and reports.
struct LastOcclusion {
  Places places;
  std::vector<std::vector<float>> drops;  // [T,B] of every item, where boxes are given
  std::vector<double> correlations;  // of every item's first target, where the preview is checked
  std::string details;               // JSON
  void merge(LastOcclusion&& next) {
    std::ranges::move(next.drops, std::back_inserter(drops));
    correlations.insert(correlations.end(), next.correlations.begin(), next.correlations.end());
    places = std::move(next.places), details = std::move(next.details);
  }
  template <typename A>
  void fields(A& a) {
    a(places, drops, correlations, details);
  }
};

}  // namespace

MapMethod occlusion_method(Job& job, const OcclusionFlags& o) {
  const auto last = std::make_shared<LastOcclusion>();
  MapMethod method;
  method.name = o.preview ? "occlusion-preview" : "occlusion";
  method.noun = "positions";
  if (o.pixels)
    method.axes = {"H", "W"};
  else
    method.axes = {"rows", "cols"};
  method.run = [&job, &o, last](const Tensor& x, const std::vector<uint32_t>&, const Progress& progress) {
    OcclusionOptions options = occlusion_options(o);
    static_cast<RunOptions&>(options) = job.run;
    options.progress = progress;
    const auto run = [&](const auto& map) {
      return map(job.ctx, job.model, x, job.target, job.model.labels, options);
    };
    OcclusionMaps maps = o.preview ? run(occlusion_preview) : run(occlusion);
    last->correlations.clear();
    if (o.check_preview && !job.run.pieces.keep) {
      const OcclusionMaps preview = run(occlusion_preview);
      const size_t size = maps.places.boxes.size();
      for (size_t m = 0; m < size_t(x.dim(0) * maps.values.dim(1)); m += size_t(maps.values.dim(1)))
        last->correlations.push_back(rank_correlation(maps.values.values().subspan(m * size, size),
                                                      preview.values.values().subspan(m * size, size)));
    }
    last->places = maps.places;
    last->details = details_of(o, options, maps).dump();
    last->drops.clear();
    const int64_t of_item = maps.values.count() / x.dim(0);
    for (int64_t i = 0; i < x.dim(0) && !options.boxes.empty(); ++i)
      last->drops.emplace_back(maps.values.data() + i * of_item, maps.values.data() + (i + 1) * of_item);
    const Shape image{1, x.dim(1), x.dim(2), x.dim(3)};
    return Maps{o.pixels ? by_pixels(maps, image) : std::move(maps.values), std::move(maps.explained), maps.batch};
  };
  method.title = fmt::format(
      "Occlusion{}, {}", o.preview ? ", first order" : "",
      o.boxes.empty() ? fmt::format("mask {}, stride {}", o.mask, o.stride) : counted(int64_t(o.boxes.size()), "box"));
  method.panels = [&o, last](const MapView& view) -> std::vector<MapPanel> {
    const int h = view.photo.height, w = view.photo.width;
    return {heat_on_photo(o, view.photo,
                          o.pixels ? std::vector<float>(view.values, view.values + int64_t(h) * w)
                                   : pixel_average(last->places, view.values, h, w),
                          h, w)};
  };
  method.finish = [&o, last](int64_t i, Json& entry) -> std::string {
    std::string line;
    if (!last->drops.empty()) line = add_drops(entry, last->drops[size_t(i)], o.boxes);
    if (last->correlations.empty()) return line;
    entry["preview_rank_correlation"] = last->correlations[size_t(i)];
    return line + fmt::format(", preview's rank correlation {}", rounded(last->correlations[size_t(i)]));
  };
  method.details_of_run = [last] { return Json::parse(last->details); };
  method.pieces = !o.preview;
  keep_last(method, last);
  return method;
}

void add_occlusion_grid(CLI::App& app, Options& all, OcclusionFlags& o) {
  add_setting(app, all, "--mask", o.mask, Changes::values,
              "occlusion's mask, in pixels of the network's input (default 32)", "S|HxW");
  add_setting(app, all, "--stride", o.stride, Changes::values,
              "pixels from one place of occlusion's mask to the next (default 8)", "S|HxW");
}

std::function<void()> setup_occlusion(CLI::App& app) {
  auto o = std::make_shared<OcclusionFlags>();
  add_inputs(app, *o, kInputs);
  add_switch(app, *o, "--preview", o->preview, Changes::values,
             "instead of the exact map the first-order one, from a single backward pass");
  add_occlusion_grid(app, *o, *o);
  add_occlusion(app, *o, o->boxes, o->fill);
  add_switch(app, *o, "--cover", o->cover, Changes::values, "add a last row and column of places, flush with the border");
  add_switch(app, *o, "--pixels", o->pixels, Changes::values,
             "save each pixel's mean over the masks that cover it, [N,H,W]");
  add_choice(app, *o, "--algorithm", kAlgorithms, o->algorithm, Changes::nothing,
             "incremental computes only what changes, full a whole forward pass for each place; both are exact");
  add_switch(app, *o, "--check-preview", o->check_preview, Changes::nothing,
             "both: the exact map, and how the first-order one ranks the places");
  add_target(app, *o);
  add_checkpoints(app, *o);
  add_output(app, *o);
  add_drawing(app, *o, kMapDrawing | Drawing::alpha,
              {.colormap = "coolwarm", .alpha = "0.85, of the strongest; less the nearer to 0", .clip = "99.5"});
  add_run(app, *o);
  add_shard(app, *o);
  add_report(app, *o);
  return [o] { run_occlusion(*o); };
}

}  // namespace switchback
