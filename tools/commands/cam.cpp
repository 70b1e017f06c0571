// `switchback cam`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "tools/commands/commands.h"
#include "tools/cli/maps.h"
#include "viz/methods/cam.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

struct CamFlags : Options {
  std::string method = "auto";
  std::vector<std::string> layers;
};

constexpr int kLeastSide = 112;  // of the photo below a map: so that the map is smooth on a small one too
constexpr float kOpacity = 0.5f;

const char* name_of(CamMethod method) {
  return method == CamMethod::cam                 ? "cam"
         : method == CamMethod::gradcam           ? "gradcam"
         : method == CamMethod::gradcam_plus_plus ? "gradcam++"
                                                  : "guided-gradcam";
}

// auto: exact maps where the network has them and nothing else is asked for, else Grad-CAM.
CamMethod parse_method(const CamFlags& o, const Network& network) {
  for (const CamMethod method :
       {CamMethod::cam, CamMethod::gradcam, CamMethod::gradcam_plus_plus, CamMethod::guided_gradcam})
    if (o.method == name_of(method)) return method;
  const bool exact = o.layers.empty() && o.score == "logit" && find_cam_head(network, network.input);
  return exact ? CamMethod::cam : CamMethod::gradcam;
}

Image heat(const Image& photo, const float* map, int h, int w, Range range) {
  return overlay(enlarge_to_at_least(photo, kLeastSide), map, h, w, ColorMap::viridis, kOpacity, range);
}

Image heat_from_zero(const Image& photo, const float* map, int h, int w) {
  return heat(photo, map, h, w, {0, value_range({map, size_t(h) * size_t(w)}).hi});
}

// view: [L,H,W], the maps of several layers.
Image mean_picture(const MapView& view) {
  const int h = int(view.dims[1]), w = int(view.dims[2]);
  return heat_from_zero(view.photo, combined_map(view.values, view.dims[0], int64_t(h) * w).data(), h, w);
}

Image layers_picture(const MapView& view, const std::vector<std::string>& layers) {
  const int h = int(view.dims[1]), w = int(view.dims[2]);
  std::vector<Panel> panels;
  for (size_t l = 0; l < layers.size(); ++l)
    panels.push_back({heat_from_zero(view.photo, view.values + int64_t(l) * h * w, h, w), layers[l]});
  panels.push_back({mean_picture(view), "all together"});
  GridOptions options;
  options.panel_side = std::max({2 * kLeastSide, view.photo.width, view.photo.height});
  return grid(panels, options);
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
  options.method = parse_method(o, job.model.network);
  return options;
}

void run_cam(const CamFlags& o) {
  check_choice("--method", o.method, {"auto", "cam", "gradcam", "gradcam++", "guided-gradcam"});
  Job job("cam", o);
  const Network& network = job.model.network;
  CamOptions options = cam_options(o, job);
  const bool guided = options.method == CamMethod::guided_gradcam, several = options.layers.size() > 1;
  MapMethod method;
  method.suffix = "cam";
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
  method.picture = [&](const MapView& view) {
    if (guided)
      return signed_rgb(view.values, int(view.dims[0]), int(view.dims[1]), int(view.dims[2]), job.model.preprocess.order);
    if (several) return layers_picture(view, layers);
    const int h = int(view.dims[0]), w = int(view.dims[1]);
    if (from_zero) return heat_from_zero(view.photo, view.values, h, w);
    return heat(view.photo, view.values, h, w, value_range({view.values, size_t(h) * size_t(w)}));
  };
  if (several && !guided) method.sheet_picture = mean_picture;
  method.finish = [&](int64_t i, Json&) { return described[size_t(i)]; };
  run_maps(job, method);
}

}  // namespace

std::function<void()> setup_cam(CLI::App& app) {
  auto o = std::make_shared<CamFlags>();
  add_inputs(app, *o, "images, folders of images, .npy arrays [N,C,H,W]");
  add_model(app, *o);
  add_target(app, *o, false);
  app.add_option("--method", o->method,
                 "cam: exact, for networks that end in global average pooling and a linear layer, or in pooled maps of "
                 "the classes; the others: any network (default auto: cam where it can be, else gradcam)")
      ->type_name("auto|cam|gradcam|gradcam++|guided-gradcam");
  app.add_option("--layer,--layers", o->layers,
                 "whose maps are taken (default: the last convolutional ones); several are overlaid at once")
      ->type_name("NAME[,NAME...]")
      ->allow_extra_args(false);  // each takes one word: what follows is the INPUT
  add_output(app, *o);
  add_run(app, *o);
  add_report(app, *o);
  return [o] { run_cam(*o); };
}

}  // namespace switchback
