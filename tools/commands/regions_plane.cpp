// `switchback regions --plane`: lines and regions of networks with two inputs, a panel for each.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "engine/files/npy.h"
#include "tools/commands/regions.h"
#include "viz/methods/plane.h"

namespace switchback {
namespace {

struct Plane {
  NetworkSpec spec;
  std::string weights;
  PlaneMap map;
  int64_t regions_with_points = 0, right = 0;  // of points
};

std::vector<PlanePoint> load_points(const std::string& path) {
  std::vector<PlanePoint> points;
  if (path.empty()) return points;
  const Tensor array = read_npy(path, {2});
  const int64_t columns = array.dim(1);
  if (columns != 2 && columns != 3)
    throw Error(fmt::format("{} is {}", path, to_string(array.dims())), "points are [N,2], or [N,3] with their class");
  for (int64_t i = 0; i < array.dim(0); ++i) {
    const float* row = array.data() + i * columns;
    const float label = columns == 3 ? row[2] : 0;
    if (label < 0 || label > 1e6f || label != std::floor(label))
      throw Error(fmt::format("{}: the class of point {} is {}", path, i, label),
                  "classes are whole numbers from 0 on");
    points.push_back({{row[0], row[1]}, int(label)});
  }
  return points;
}

// The bounding box of the points and a tenth more on each side; [-1,1]x[-1,1] where there are none.
PlaneBox box_around(const std::vector<PlanePoint>& points) {
  if (points.empty()) return {};
  PlaneBox box{points[0].at.x, points[0].at.x, points[0].at.y, points[0].at.y};
  for (const PlanePoint& p : points) {
    box.left = std::min(box.left, p.at.x), box.right = std::max(box.right, p.at.x);
    box.bottom = std::min(box.bottom, p.at.y), box.top = std::max(box.top, p.at.y);
  }
  const double margin = std::max(0.1 * std::max(box.right - box.left, box.top - box.bottom), 1e-3);
  return {box.left - margin, box.right + margin, box.bottom - margin, box.top + margin};
}

PlaneBox parse_range(const std::string& text) {
  std::vector<double> v;
  const char *at = text.data(), *end = at + text.size();
  for (bool more = true; more;) {
    double value = 0;
    const auto [stop, error] = std::from_chars(at, end, value);
    if (error != std::errc() || !std::isfinite(value) || std::fabs(value) > 1e6) break;
    v.push_back(value);
    more = stop != end && *stop == ',';
    at = more ? stop + 1 : stop;
  }
  if (v.size() == 2) v.insert(v.end(), {v[0], v[1]});
  const bool wide = v.size() == 4 && v[1] - v[0] >= 1e-6 && v[3] - v[2] >= 1e-6;
  const double ratio = wide ? (v[1] - v[0]) / (v[3] - v[2]) : 0;
  if (at != end || ratio < 0.05 || ratio > 20)
    throw Error(fmt::format("--range '{}' is no part of the plane", printable(text)),
                "LEFT,RIGHT[,BOTTOM,TOP], for example -1,1 or -2,2,0,1", true);
  return {v[0], v[1], v[2], v[3]};
}

Plane make_plane(const Model& model, const NetworkSpec& spec, const PlaneBox& box,
                 const std::vector<PlanePoint>& points) {
  Plane plane{.spec = spec, .weights = model.source, .map = plane_map(model, box)};
  std::set<int64_t> seen;
  for (const PlanePoint& p : points) {
    const int64_t region = region_of(plane.map, p.at);
    if (region < 0) continue;
    seen.insert(region);
    plane.right += class_at(plane.map.regions[size_t(region)], p.at) == p.label;
  }
  plane.regions_with_points = int64_t(seen.size());
  return plane;
}

std::string caption(const Plane& plane, size_t points, bool labelled) {
  std::string text = fmt::format("{} regions", plane.map.regions.size());
  if (points) text += fmt::format(", {} with points", plane.regions_with_points);
  if (labelled) text += fmt::format(", {:.1f} % right", 100 * double(plane.right) / double(points));
  return text;
}

Json plane_json(const Plane& plane, size_t points, bool labelled) {
  Json layers = Json::array();
  for (const PlaneLayer& l : plane.map.layers)
    layers.push_back(
        {{"name", l.name}, {"units", l.units}, {"crossing", l.crossing}, {"off", l.off}, {"regions", l.regions}});
  return {{"model", plane.spec.model},
          {"weights", plane.weights},
          {"name", plane.spec.name},
          {"regions", plane.map.regions.size()},
          {"regions_with_points", points ? Json(plane.regions_with_points) : Json()},
          {"right", labelled ? Json(double(plane.right) / double(points)) : Json()},
          {"layers", layers}};
}

void print_plane(const Plane& plane, size_t points, bool labelled) {
  print_line(fmt::format("  {}: {}", plane.spec.name, caption(plane, points, labelled)));
  for (const PlaneLayer& l : plane.map.layers)
    print_line(
        fmt::format("    ReLU {}: lines of {} of {} units cross, {} units are off everywhere; {} regions up to here",
                    l.name, l.crossing, l.units, l.off, l.regions));
}

}  // namespace

void run_regions_plane(const RegionsOptions& o) {
  if (!o.inputs.empty())
    throw Error(fmt::format("--plane takes no data set, but {} is given", printable(o.inputs[0])),
                "points go to --points", true);
  if (o.etalons) throw Error("--etalons belongs to a data set", "leave out --plane", true);
  if (!o.limit.empty()) throw Error("--limit belongs to a data set", "leave out --plane", true);
  if (o.saves("npy"))
    throw Error("regions saves no arrays", "--save png draws the plane, --json has all numbers", true);
  const std::vector<NetworkSpec> specs = network_specs(o.models, o.weights_given);
  const std::vector<PlanePoint> points = load_points(o.points);
  const bool labelled = std::any_of(points.begin(), points.end(), [](const PlanePoint& p) { return p.label > 0; });
  const PlaneBox box = o.range.empty() ? box_around(points) : parse_range(o.range);
  Options on_cpu = options_of(o, specs[0]);
  on_cpu.device = "cpu";
  Job job("regions", on_cpu);
  job.precision = "fp64";
  Output output(job, "plane");
  std::vector<Plane> planes;
  std::vector<Panel> panels;
  for (const NetworkSpec& spec : specs) {
    const Model model = planes.empty() ? std::move(job.model) : open_network_of(o, spec);
    planes.push_back(make_plane(model, spec, box, points));
    const int side = specs.size() == 1 ? 640 : 400;
    if (panels.size() < kMostGridPanels && output.pictures())
      panels.push_back({plane_picture(planes.back().map, points, side, std::max(2, int(std::ceil(o.scale)))),
                        planes.back().spec.name + "\n" + caption(planes.back(), points.size(), labelled)});
    job.bar.update(int64_t(planes.size()), int64_t(specs.size()), "networks");
  }
  Json files = Json::array();
  if (output.pictures()) {
    std::string stem = specs[0].model;
    std::replace(stem.begin(), stem.end(), ':', '-');
    const std::string title = fmt::format("hidden units' lines and linear regions on [{:.3g},{:.3g}]x[{:.3g},{:.3g}]",
                                          box.left, box.right, box.bottom, box.top);
    GridOptions grid_options{.title = title};
    for (const Panel& panel : panels)  // at their own size: their lines and text are not to be blurred
      grid_options.panel_side =
          std::max({grid_options.panel_side, int(panel.picture.width()), int(panel.picture.height())});
    output.add_picture(files, stem, grid(panels, grid_options));
  }
  job.model.source = planes[0].weights;
  Report report;
  report.inputs.push_back({{"path", o.points.empty() ? Json() : Json(o.points)}, {"index", 0}, {"files", files}});
  report.details = {{"box", {box.left, box.right, box.bottom, box.top}},
                    {"points", points.size()},
                    {"networks", Json::array()}};
  for (const Plane& plane : planes) report.details["networks"].push_back(plane_json(plane, points.size(), labelled));
  report.summary = [&] {
    print_line(fmt::format("regions of the plane [{:.3g},{:.3g}]x[{:.3g},{:.3g}], {}", box.left, box.right, box.bottom,
                           box.top,
                           o.points.empty() ? "no points" : fmt::format("{} points of {}", points.size(), o.points)));
    for (const Plane& plane : planes) print_plane(plane, points.size(), labelled);
    print_written(job, output.paths());
    print_line(job.summary_times(int64_t(planes.size()), "network"));
  };
  finish_run(job, output, std::move(report));
}

}  // namespace switchback
