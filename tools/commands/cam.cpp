// `switchback cam`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "tools/commands/map_methods.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr Choice<std::optional<CamMethod>> kCamMethods[] = {{"auto", {}},
                                                         {"cam", CamMethod::cam},
                                                         {"gradcam", CamMethod::gradcam},
                                                         {"gradcam++", CamMethod::gradcam_plus_plus},
                                                         {"hirescam", CamMethod::hirescam},
                                                         {"layercam", CamMethod::layercam},
                                                         {"xgradcam", CamMethod::xgradcam},
                                                         {"guided-gradcam", CamMethod::guided_gradcam},
                                                         {"fullgrad", CamMethod::fullgrad},
                                                         {"eigencam", CamMethod::eigencam},
                                                         {"scorecam", CamMethod::scorecam},
                                                         {"ablationcam", CamMethod::ablationcam},
                                                         {"rise", CamMethod::rise},
                                                         {"rollout", CamMethod::rollout},
                                                         {"attention-gradient", CamMethod::attention_gradient}};

constexpr int kLeastSide = 112;  // of the photo below a map: so that the map is smooth on a small one too

std::string_view name_of(CamMethod method) { return word_of(kCamMethods, std::optional(method)); }

// auto: exact maps where the network has them and nothing else is asked for, else Grad-CAM.
CamMethod chosen_method(const CamFlags& o, const Network& network) {
  if (o.method) return *o.method;
  const bool exact = o.layers.empty() && o.score == Score::logit && find_cam_head(network, network.input);
  return exact ? CamMethod::cam : CamMethod::gradcam;
}

Range range_from_zero(std::span<const float> map, double clip) {
  return {0, clip < 100 ? percentile(map, clip) : value_range(map).hi};
}

// map [h,w], which the panel keeps.
MapPanel heat(const Options& o, const Image& photo, std::vector<float> map, int h, int w, Range range) {
  const float alpha = o.alpha_or(0.5);
  return {.colors = {.map = o.map_or(ColorMap::viridis), .range = range},
          .draw = [photo = enlarge_to_at_least(photo, kLeastSide), map = std::move(map), h, w,
                   alpha](const ColorScale& s) { return overlay(photo, map.data(), h, w, s.map, alpha, s.range); }};
}

// view: [L,H,W], the maps of several layers; one by one and all together.
std::vector<MapPanel> layers_panels(const Options& o, const MapView& view, const std::vector<std::string>& layers) {
  const int h = int(view.dims[1]), w = int(view.dims[2]);
  std::vector<MapPanel> panels;
  const auto add = [&](std::vector<float> map, const std::string& label) {
    const Range range = range_from_zero(map, o.clip_or(100));
    panels.push_back(heat(o, view.photo, std::move(map), h, w, range));
    panels.back().label = label;
  };
  const int64_t size = int64_t(h) * w;
  for (int64_t l = 0; l < int64_t(layers.size()); ++l)
    add({view.values + l * size, view.values + (l + 1) * size}, layers[size_t(l)]);
  add(combined_map(view.values, view.dims[0], size), "all together");
  return panels;
}

// "Grad-CAM, layer conv2"
std::string title_of(CamMethod method) {
  constexpr Choice<CamMethod> kTitles[] = {{"Class activation map", CamMethod::cam},
                                           {"Grad-CAM", CamMethod::gradcam},
                                           {"Grad-CAM++", CamMethod::gradcam_plus_plus},
                                           {"HiResCAM", CamMethod::hirescam},
                                           {"LayerCAM", CamMethod::layercam},
                                           {"XGrad-CAM", CamMethod::xgradcam},
                                           {"Guided Grad-CAM", CamMethod::guided_gradcam},
                                           {"FullGrad", CamMethod::fullgrad},
                                           {"Eigen-CAM", CamMethod::eigencam},
                                           {"Score-CAM", CamMethod::scorecam},
                                           {"Ablation-CAM", CamMethod::ablationcam},
                                           {"RISE", CamMethod::rise},
                                           {"Attention rollout", CamMethod::rollout},
                                           {"Attention × gradient", CamMethod::attention_gradient}};
  return std::string(word_of(kTitles, method));
}

// "gradcam at relu1 (all zero), relu2" for each image: Grad-CAM's ReLU leaves nothing where no place speaks for the
// class.
std::vector<std::string> descriptions(const Cams& cams, const Network& network, CamMethod method) {
  std::vector<std::string> all;
  if (!cams.attention.empty())
    return std::vector<std::string>(size_t(cams.maps[0].dim(0)),
                                    fmt::format(", {} through {} attention layers", name_of(method), cams.attention.size()));
  for (int64_t i = 0; i < cams.maps[0].dim(0); ++i) {
    std::vector<std::string> layers;
    for (size_t l = 0; l < cams.layers.size(); ++l) {
      const Tensor& maps = cams.maps[l];
      const auto of_image =
          maps.values().subspan(size_t(i * maps.count() / maps.dim(0)), size_t(maps.count() / maps.dim(0)));
      const bool zero = std::ranges::all_of(of_image, [](float v) { return v == 0; });
      layers.push_back(network.nodes[size_t(cams.layers[l])].name + (zero ? " (all zero)" : ""));
    }
    all.push_back(fmt::format(", {}{}{}", name_of(method), layers.empty() ? "" : " at ", fmt::join(layers, ", ")));
  }
  return all;
}

CamOptions cam_options(const CamFlags& o, const Job& job) {
  CamOptions options;
  static_cast<RunOptions&>(options) = job.run;
  options.layers = parse_nodes(job.model.network, o.layers);
  options.method = chosen_method(o, job.model.network);
  options.masks = o.masks, options.grid = o.grid, options.keep = o.keep;
  options.seed = parse_seed(o.seed);
  return options;
}

void run_cam(const CamFlags& o) {
  Job job("cam", o);
  run_maps(job, cam_method(job, o));
}

// What the last run left for pictures and reports.
struct LastRun {
  std::vector<std::string> layers, described;
  bool from_zero = true, attention = false;
  void merge(LastRun&& next) {
    described.insert(described.end(), next.described.begin(), next.described.end());
    layers = std::move(next.layers), from_zero = next.from_zero, attention = next.attention;
  }
  template <typename A>
  void fields(A& a) {
    a(layers, described, from_zero, attention);
  }
};

}  // namespace

MapMethod cam_method(Job& job, const CamFlags& o) {
  const CamOptions given = cam_options(o, job);
  const bool guided = given.method == CamMethod::guided_gradcam, several = given.layers.size() > 1, rise = given.method == CamMethod::rise;
  const auto last = std::make_shared<LastRun>();
  MapMethod method;
  method.name = "cam";
  method.title = title_of(given.method);
  if (!guided) method.axes = several ? std::vector<std::string>{"L", "H", "W"} : std::vector<std::string>{"h", "w"};
  method.run = [&job, given, guided, several, last](const Tensor& x, const std::vector<uint32_t>&,
                                                    const Progress& progress) {
    CamOptions options = given;
    options.progress = progress;
    Cams cams = class_activation_maps(job.ctx, job.model, x, job.target, job.model.labels, options);
    last->layers.clear();
    last->attention = !cams.attention.empty();
    for (int layer : last->attention ? cams.attention : cams.layers) last->layers.push_back(job.model.network.nodes[size_t(layer)].name);
    last->described = descriptions(cams, job.model.network, options.method);
    last->from_zero = cams.from_zero;
    Tensor values = guided    ? std::move(cams.guided)
                    : several ? enlarged_maps(cams, x.dim(2), x.dim(3))
                              : std::move(cams.maps[0]);
    return Maps{std::move(values), std::move(cams.explained), cams.batch};
  };
  method.details_of_run = [given, last, rise] {
    Json details{{"method", name_of(given.method)}, {"layers", last->layers}};
    if (rise) details["masks"] = given.masks, details["grid"] = given.grid, details["keep"] = given.keep;
    return details;
  };
  method.where = [last, rise, given] {
    if (rise) return counted(given.masks, "mask");
    if (last->attention) return fmt::format("{} attention layers", last->layers.size());
    if (given.method == CamMethod::fullgrad) return std::string("all layers");
    return fmt::format("{} {}", last->layers.size() == 1 ? "layer" : "layers", fmt::join(last->layers, ", "));
  };
  method.panels = [&job, &o, guided, several, last](const MapView& view) -> std::vector<MapPanel> {
    if (guided) return {signed_panel(o, view, job.model.preprocess.order)};
    if (several) return layers_panels(o, view, last->layers);
    const int h = int(view.dims[0]), w = int(view.dims[1]);
    std::vector<float> map(view.values, view.values + int64_t(h) * w);
    const double clip = o.clip_or(100);
    const Range all = value_range(map);
    const Range range =
        last->from_zero ? range_from_zero(map, clip) : Range{all.lo, clip < 100 ? percentile(map, clip) : all.hi};
    return {heat(o, view.photo, std::move(map), h, w, range)};
  };
  keep_last(method, last);
  method.finish = [last](int64_t i, Json&) { return last->described[size_t(i)]; };
  return method;
}

std::function<void()> setup_cam(CLI::App& app) {
  auto o = std::make_shared<CamFlags>();
  add_inputs(app, *o, kInputs);
  add_choice(app, *o, "--method", kCamMethods, o->method, Changes::kind,
             "cam: exact, for networks that end in global average pooling and a linear layer, or in pooled maps of the "
             "classes; rollout, attention-gradient: transformers; the others: any network; eigencam, scorecam, ablationcam and "
             "rise take no gradients; auto: cam where it can be, else gradcam");
  add_setting(app, *o, "--layer,--layers", o->layers, Changes::kind,
              "whose maps are taken (default: the last convolutional ones); several are overlaid at once",
              "NAME[,NAME...]");
  add_target(app, *o, false);
  add_setting(app, *o, "--masks", o->masks, Changes::values, "random masks of rise (default 4000)", "N");
  add_setting(app, *o, "--grid", o->grid, Changes::values, "cells of such a mask along each side (default 7)", "N");
  add_setting(app, *o, "--keep", o->keep, Changes::values, "probability that a cell is left (default 0.5)", "P");
  add_checkpoints(app, *o);
  add_output(app, *o);
  add_drawing(
      app, *o, kMapDrawing | Drawing::alpha,
      {.colormap = "viridis; guided-gradcam red, green and blue around grey", .clip = "none; guided-gradcam 99.5"});
  add_run(app, *o);
  add_shard(app, *o);
  add_report(app, *o);
  return [o] { run_cam(*o); };
}

}  // namespace switchback
