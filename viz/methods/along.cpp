#include "viz/methods/along.h"

#include <algorithm>
#include <cmath>

#include "kernels/noise/noise.h"
#include "viz/methods/batches.h"

namespace switchback {
namespace {

constexpr int64_t kMostFloats = int64_t(16) << 20;  // of the inputs, and of the maps, of one call

// The unit alone, whatever other points would choose.
TargetSpec exactly(const Network& network, const TargetSpec& spec, const Unit& unit) {
  TargetSpec fixed = spec;
  if (spec.layer.empty()) {
    fixed.target = std::to_string(unit.channel);
  } else {
    fixed.layer = fmt::format("{}:{}", network.nodes[size_t(unit.node)].name, unit.channel);
    if (unit.row >= 0) fixed.layer += fmt::format(":{},{}", unit.row, unit.col);
  }
  return fixed;
}

Tensor noisy(const Tensor& x, const AlongOptions& o) {
  const auto [least, most] = std::ranges::minmax_element(x.values());
  Tensor end(x.dims());
  Context host;
  write_noisy_input(host, x.data(),
                    {.sigma = float(o.noise * (double(*most) - double(*least))), .seed = o.seed, .image = o.image},
                    {end.data(), {1, x.count(), 1, 1}, DType::f32});  // as a vector: in NCHW order
  return end;
}

}  // namespace

Along along(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
            const std::vector<std::string>& labels, const AlongOptions& o) {
  const Shape image = image_shape(model.network, x);
  CHECK(x.dim(0) == 1, "a line of {} images", x.dim(0));
  const auto wrong = [](const std::string& what, const std::string& hint) { throw Error(what, hint, true); };
  if (o.points < 2) wrong(fmt::format("--points {} is less than 2", o.points), "500 is usual");
  if (!(o.noise > 0 && o.noise <= 1e6))
    wrong(fmt::format("--noise {} is no share of the value range", o.noise), "0.01 is usual");
  if (o.pixel[0] >= image.h || o.pixel[1] >= image.w)
    wrong(fmt::format("--pixel {},{} lies outside of the input of {}x{}", o.pixel[1], o.pixel[0], image.h, image.w),
          fmt::format("X,Y: 0 to {} and 0 to {}", image.w - 1, image.h - 1));
  if (!o.end.empty() && o.end.count() != image.item())
    wrong(fmt::format("the line's end is of shape {}, the input {}", to_string(o.end.dims()),
                      to_string(Dims{image.c, image.h, image.w})),
          "");
  if (check_target(model.network, image, target, labels) != 1)
    wrong("a line wants one target", "--target C, or --layer NAME:CHANNEL:ROW,COL");
  GradientOptions options;
  static_cast<RunOptions&>(options) = o;
  options.rule = o.rule;
  options.progress = {};
  Along result;
  result.end = o.end.empty() ? noisy(x, o) : Tensor(x.dims());
  if (!o.end.empty()) std::ranges::copy(o.end.values(), result.end.data());
  const int64_t map = image.h * image.w;
  const Maps clean = gradient(ctx, model, x, target, labels, options);
  result.explained = clean.explained[0];
  result.pixel = o.pixel;
  if (o.pixel[0] < 0) result.pixel = {image.h / 2, image.w / 2};
  const TargetSpec fixed = exactly(model.network, target, result.explained.units[0]);
  result.derivative = Tensor({o.points, image.c});
  result.largest = Tensor({o.points});
  const int64_t most = std::clamp<int64_t>(kMostFloats / image.item(), 1, o.points);
  for (int64_t first = 0; first < o.points; first += most) {
    const int64_t n = std::min(most, o.points - first);
    Tensor points({n, image.c, image.h, image.w});
    for (int64_t i = 0; i < points.count(); ++i) {
      const int64_t e = i % image.item();
      const double t = double(first + i / image.item()) / double(o.points - 1);
      points[i] = float(double(x[e]) + t * (double(result.end[e]) - double(x[e])));
    }
    const Maps maps = gradient(ctx, model, points, fixed, labels, options);
    result.batch = std::max(result.batch, maps.batch);
    for (int64_t i = 0; i < n; ++i) {
      const float* g = maps.values.data() + i * image.item();
      float largest = 0;
      for (int64_t e = 0; e < image.item(); ++e) largest = std::max(largest, std::abs(g[e]));
      result.largest[first + i] = largest;
      for (int64_t c = 0; c < image.c; ++c)
        result.derivative[(first + i) * image.c + c] = g[c * map + result.pixel[0] * image.w + result.pixel[1]];
    }
    if (o.progress) o.progress(first + n, o.points);
  }
  return result;
}

}  // namespace switchback
