// `switchback cam`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "tools/commands/commands.h"
#include "tools/cli/maps.h"
#include "viz/methods/cam.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr Choice<std::optional<CamMethod>> kMethods[] = {{"auto", {}},
                                                         {"cam", CamMethod::cam},
                                                         {"gradcam", CamMethod::gradcam},
                                                         {"gradcam++", CamMethod::gradcam_plus_plus},
                                                         {"guided-gradcam", CamMethod::guided_gradcam}};

struct CamFlags : Options {
  std::optional<CamMethod> method;
  std::vector<std::string> layers;
};

constexpr int kLeastSide = 112;  // of the photo below a map: so that the map is smooth on a small one too
constexpr float kOpacity = 0.5f;

std::string_view name_of(CamMethod method) { return word_of(kMethods, std::optional(method)); }

// auto: exact maps where the network has them and nothing else is asked for, else Grad-CAM.
CamMethod chosen_method(const CamFlags& o, const Network& network) {
  if (o.method) return *o.method;
  const bool exact = o.layers.empty() && o.score == Score::logit && find_cam_head(network, network.input);
  return exact ? CamMethod::cam : CamMethod::gradcam;
}

Image heat(const Image& photo, const float* map, int h, int w, Range range) {
  return overlay(enlarge_to_at_least(photo, kLeastSide), map, h, w, ColorMap::viridis, kOpacity, range);
}

Range range_from_zero(const float* map, int h, int w) { return {0, value_range({map, size_t(h) * size_t(w)}).hi}; }

// view: [L,H,W], the maps of several layers.
DrawnMap drawn(const Image& photo, const float* map, int h, int w, Range range) {
  return {heat(photo, map, h, w, range), colors_json("viridis", range)};
}

DrawnMap mean_picture(const MapView& view) {
  const int h = int(view.dims[1]), w = int(view.dims[2]);
  const std::vector<float> map = combined_map(view.values, view.dims[0], int64_t(h) * w);
  return drawn(view.photo, map.data(), h, w, range_from_zero(map.data(), h, w));
}

DrawnMap layers_picture(const MapView& view, const std::vector<std::string>& layers) {
  const int h = int(view.dims[1]), w = int(view.dims[2]);
  std::vector<Panel> panels;
  Json colors = Json::array();
  const auto add = [&](DrawnMap map, const std::string& label) {
    panels.push_back({std::move(map.image), label});
    colors.push_back(std::move(map.colors));
  };
  for (size_t l = 0; l < layers.size(); ++l) {
    const float* map = view.values + int64_t(l) * h * w;
    add(drawn(view.photo, map, h, w, range_from_zero(map, h, w)), layers[l]);
  }
  add(mean_picture(view), "all together");
  GridOptions options;
  options.panel_side = std::max({2 * kLeastSide, view.photo.width, view.photo.height});
  return {grid(panels, options), std::move(colors)};
}

// "gradcam at relu1 (all zero), relu2" for each image: Grad-CAM's ReLU leaves nothing where no place speaks for the
// class.
std::vector<std::string> descriptions(const Cams& cams, const Network& network, CamMethod method) {
  std::vector<std::string> all;
  for (int64_t i = 0; i < cams.maps[0].dim(0); ++i) {
    std::vector<std::string> layers;
    for (size_t l = 0; l < cams.layers.size(); ++l) {
      const Tensor& maps = cams.maps[l];
      const auto of_image =
          maps.values().subspan(size_t(i * maps.count() / maps.dim(0)), size_t(maps.count() / maps.dim(0)));
      const bool zero = std::ranges::all_of(of_image, [](float v) { return v == 0; });
      layers.push_back(network.nodes[size_t(cams.layers[l])].name + (zero ? " (all zero)" : ""));
    }
    all.push_back(fmt::format(", {} at {}", name_of(method), fmt::join(layers, ", ")));
  }
  return all;
}

CamOptions cam_options(const CamFlags& o, const Job& job) {
  CamOptions options;
  static_cast<RunOptions&>(options) = job.run;
  options.layers = parse_nodes(job.model.network, o.layers);
  options.method = chosen_method(o, job.model.network);
  return options;
}

void run_cam(const CamFlags& o) {
  Job job("cam", o);
  const Network& network = job.model.network;
  CamOptions options = cam_options(o, job);
  const bool guided = options.method == CamMethod::guided_gradcam, several = options.layers.size() > 1;
  MapMethod method;
  method.name = "cam";
  if (!guided) method.axes = several ? std::vector<std::string>{"L", "H", "W"} : std::vector<std::string>{"h", "w"};
  std::vector<std::string> layers, described;
  bool from_zero = true;
  method.run = [&](const Tensor& x, const std::vector<uint32_t>&, const Progress& progress) {
    options.progress = progress;
    Cams cams = class_activation_maps(job.ctx, job.model, x, job.target, job.model.labels, options);
    layers.clear();
    for (int layer : cams.layers) layers.push_back(network.nodes[size_t(layer)].name);
    described = descriptions(cams, network, options.method);
    from_zero = cams.from_zero;
    method.details = {{"method", name_of(options.method)}, {"layers", layers}};
    Tensor values = guided    ? std::move(cams.guided)
                    : several ? enlarged_maps(cams, x.dim(2), x.dim(3))
                              : std::move(cams.maps[0]);
    return Maps{std::move(values), std::move(cams.explained), cams.batch};
  };
  method.picture = [&](const MapView& view) -> DrawnMap {
    if (guided) {
      const int c = int(view.dims[0]), h = int(view.dims[1]), w = int(view.dims[2]);
      return {signed_rgb(view.values, c, h, w, job.model.preprocess.order),
              colors_json("signed", signed_range(view.values, c, h, w))};
    }
    if (several) return layers_picture(view, layers);
    const int h = int(view.dims[0]), w = int(view.dims[1]);
    return drawn(view.photo, view.values, h, w,
                 from_zero ? range_from_zero(view.values, h, w) : value_range({view.values, size_t(h) * size_t(w)}));
  };
  if (several && !guided) method.sheet_picture = mean_picture;
  method.finish = [&](int64_t i, Json&) { return described[size_t(i)]; };
  run_maps(job, method);
}

}  // namespace

std::function<void()> setup_cam(CLI::App& app) {
  auto o = std::make_shared<CamFlags>();
  add_inputs(app, *o, kInputs);
  add_choice(app, *o, "--method", kMethods, o->method, Changes::kind,
             "cam: exact, for networks that end in global average pooling and a linear layer, or in pooled maps of the "
             "classes; the others: any network; auto: cam where it can be, else gradcam");
  add_setting(app, *o, "--layer,--layers", o->layers, Changes::kind,
              "whose maps are taken (default: the last convolutional ones); several are overlaid at once",
              "NAME[,NAME...]");
  add_target(app, *o, false);
  add_model(app, *o);
  add_output(app, *o);
  add_run(app, *o);
  add_report(app, *o);
  return [o] { run_cam(*o); };
}

}  // namespace switchback
