// The methods whose results are maps of the input, for their own commands and for `compare`. Flags outlive the methods
// made of them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/cli/maps.h"
#include "viz/methods/cam.h"
#include "viz/methods/gradient.h"
#include "viz/methods/occlusion.h"

namespace switchback {

struct MapOptions : Options {
  ReluRule rule = kGradient;
  SmoothGradOptions::Moment moment = SmoothGradOptions::Moment::mean;
  std::string baseline = "0", save_tape, load_tape;
  std::string along, points = "500", pixel;  // of gradient
  double along_noise = 0.01;
  bool times_input = false;
  int64_t samples = 50, steps = 50;
  double noise = 0.15;
};
void check_maps(const MapOptions& o);  // throws (usage) on numbers out of range
void run_along(const MapOptions& o);      // gradient --along (along.cpp)
MapMethod gradient_method(Job& job, const MapOptions& o);
MapMethod smoothgrad_method(Job& job, const MapOptions& o);
MapMethod integrated_method(Job& job, const MapOptions& o);
void add_smoothgrad_samples(CLI::App& app, Options& all, MapOptions& o);  // --samples, --noise

struct OcclusionFlags : Options {
  OcclusionOptions::Algorithm algorithm = OcclusionOptions::Algorithm::incremental;
  std::string mask = "32", stride = "8", fill = "0";
  std::vector<std::string> boxes;
  bool cover = false, pixels = false, preview = false, check_preview = false;
};
MapMethod occlusion_method(Job& job, const OcclusionFlags& o);
void add_occlusion_grid(CLI::App& app, Options& all, OcclusionFlags& o);  // --mask, --stride

struct CamFlags : Options {
  std::optional<CamMethod> method;
  std::vector<std::string> layers;
  int64_t masks = 4000, grid = 7;  // of rise
  double keep = 0.5;
};
MapMethod cam_method(Job& job, const CamFlags& o);

// The flags of all of them, and one with its own copy of them. Methods refer to their flags, so it never moves.
struct MapFlags {
  MapOptions maps;
  OcclusionFlags occlusion;
  CamFlags cam;
};
void add_map_settings(CLI::App& app, Options& all, MapFlags& flags);  // of the methods' own: --samples to --cam-layer
struct NamedMethod {
  std::string name;
  MapFlags flags;
  MapMethod method;
};
// "gradient", "deconv", "guided", "gradient-input", "smoothgrad", "smoothgrad-input", "integrated", "occlusion", and the
// methods of `cam` that any network has
std::vector<std::string> map_method_names();
// `name` is one of these. The job's options stand for what all commands share.
std::unique_ptr<NamedMethod> named_method(Job& job, const std::string& name, const MapFlags& flags);
// The maps [N,…] of x [N,C,H,W], each of its own class (of an output's units; -1: of the job's target). Items of one class run
// together; index: of each item, for its noise.
Tensor maps_of_classes(Job& job, const MapMethod& method, const Tensor& x, const std::vector<uint32_t>& index,
                       const std::vector<int64_t>& classes);

}  // namespace switchback
