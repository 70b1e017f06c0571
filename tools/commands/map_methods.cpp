// Methods by their names, for commands that show maps of several kinds.
#include "tools/commands/map_methods.h"

#include <algorithm>
#include <map>

namespace switchback {
namespace {

MapMethod make_rule(Job& job, MapFlags& f, const ReluRule& rule) {
  f.maps.rule = rule;
  return gradient_method(job, f.maps);
}
MapMethod make_cam(Job& job, MapFlags& f, std::optional<CamMethod> method) {
  f.cam.method = method;
  return cam_method(job, f.cam);
}

struct Known {
  const char* name;
  MapMethod (*make)(Job& job, MapFlags& f);
};
constexpr Known kKnown[] = {
    {"gradient", [](Job& job, MapFlags& f) { return make_rule(job, f, kGradient); }},
    {"deconv", [](Job& job, MapFlags& f) { return make_rule(job, f, kDeconv); }},
    {"guided", [](Job& job, MapFlags& f) { return make_rule(job, f, kGuided); }},
    {"gradient-input", [](Job& job, MapFlags& f) { f.maps.times_input = true; return make_rule(job, f, kGradient); }},
    {"smoothgrad", [](Job& job, MapFlags& f) { return smoothgrad_method(job, f.maps); }},
    {"smoothgrad-input", [](Job& job, MapFlags& f) { f.maps.times_input = true; return smoothgrad_method(job, f.maps); }},
    {"integrated", [](Job& job, MapFlags& f) { return integrated_method(job, f.maps); }},
    {"occlusion", [](Job& job, MapFlags& f) { return occlusion_method(job, f.occlusion); }},
    {"cam", [](Job& job, MapFlags& f) { return make_cam(job, f, std::nullopt); }},
    {"gradcam", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::gradcam); }},
    {"gradcam++", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::gradcam_plus_plus); }},
    {"hirescam", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::hirescam); }},
    {"layercam", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::layercam); }},
    {"xgradcam", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::xgradcam); }},
    {"fullgrad", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::fullgrad); }},
    {"eigencam", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::eigencam); }},
    {"scorecam", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::scorecam); }},
    {"ablationcam", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::ablationcam); }},
    {"rise", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::rise); }},
    {"guided-gradcam", [](Job& job, MapFlags& f) { return make_cam(job, f, CamMethod::guided_gradcam); }},
};

}  // namespace

void add_map_settings(CLI::App& app, Options& all, MapFlags& flags) {
  add_smoothgrad_samples(app, all, flags.maps);
  add_setting(app, all, "--steps", flags.maps.steps, Changes::values, "of integrated gradients (default 50)", "N");
  add_occlusion_grid(app, all, flags.occlusion);
  add_setting(app, all, "--cam-layer", flags.cam.layers, Changes::values,
              "whose maps class activation maps take (default: the last convolutional one)", "NAME");
}

std::vector<std::string> map_method_names() {
  std::vector<std::string> names;
  for (const Known& known : kKnown) names.emplace_back(known.name);
  return names;
}

std::unique_ptr<NamedMethod> named_method(Job& job, const std::string& name, const MapFlags& flags) {
  const Known* known = std::ranges::find(kKnown, name, [](const Known& k) { return std::string(k.name); });
  auto named = std::make_unique<NamedMethod>(NamedMethod{name, flags, {}});
  for (Options* shared : {static_cast<Options*>(&named->flags.maps), static_cast<Options*>(&named->flags.occlusion),
                          static_cast<Options*>(&named->flags.cam)})
    *shared = job.options;
  named->method = known->make(job, named->flags);
  return named;
}

Tensor maps_of_classes(Job& job, const MapMethod& method, const Tensor& x, const std::vector<uint32_t>& index,
                       const std::vector<int64_t>& classes) {
  std::map<int64_t, std::vector<int64_t>> of_class;
  for (size_t i = 0; i < classes.size(); ++i) of_class[classes[i]].push_back(int64_t(i));
  struct Restored {  // also where a method throws
    std::string& target;
    std::string value = target;
    ~Restored() { target = value; }
  } restored{job.target.target};
  const int64_t pixels = x.count() / x.dim(0);
  Tensor all;
  int64_t size = 0;
  for (const auto& [read, members] : of_class) {
    Tensor of({int64_t(members.size()), x.dim(1), x.dim(2), x.dim(3)});
    std::vector<uint32_t> numbers;
    for (size_t k = 0; k < members.size(); ++k) {
      std::copy_n(x.data() + members[k] * pixels, pixels, of.data() + int64_t(k) * pixels);
      numbers.push_back(index[size_t(members[k])]);
    }
    job.target.target = read < 0 ? restored.value : std::to_string(read);
    const Maps maps = method.run(of, numbers, [](int64_t, int64_t) {});
    if (size == 0) {
      Dims shape(maps.values.dims().begin() + 2, maps.values.dims().end());
      size = maps.values.count() / int64_t(members.size());
      shape.insert(shape.begin(), int64_t(classes.size()));
      all = allocate_maps(shape);
    }
    for (size_t k = 0; k < members.size(); ++k)
      std::copy_n(maps.values.data() + int64_t(k) * size, size, all.data() + members[k] * size);
  }
  return all;
}

}  // namespace switchback
