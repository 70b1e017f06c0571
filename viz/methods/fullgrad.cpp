// FullGrad (Srinivas and Fleuret 2019): cam.h.
#include <algorithm>
#include <cmath>

#include "engine/layers/calls.h"
#include "engine/run/backward.h"
#include "viz/methods/batches.h"
#include "viz/methods/cam_parts.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

// |v| of one channel [h,w] stretched to 0 … 1 and enlarged to the image, added to `to`; of a constant channel nothing.
void add_stretched(std::vector<float> v, Shape s, Shape image, double* to) {
  for (float& e : v) e = std::abs(e);
  const auto [least, most] = std::ranges::minmax(v);
  if (most == least) return;
  for (float& e : v) e = (e - least) / (most - least);  // NaN passes
  const std::vector<float> large = bilinear_map(v.data(), int(s.h), int(s.w), int(image.h), int(image.w));
  for (size_t p = 0; p < large.size(); ++p) to[p] += double(large[p]);
}

}  // namespace

Cams fullgrad_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target, const std::vector<std::string>& labels,
                   const CamOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0), targets = check_target(network, image, target, labels), places = image.h * image.w;
  if (!options.layers.empty()) throw Error("fullgrad takes all layers", "leave out --layer", true);
  const int node = logit_node(network);
  Plan plan(ctx, model, image, {.precision = options.precision, .observe = {node}});
  Backward backward(plan, node, {.nodes = {0}, .parameters = true}, 1);
  Tape tape;
  Cams cams;
  cams.batch = 1;
  cams.maps.push_back(allocate_maps({images, targets, image.h, image.w}));
  for (int64_t i = 0; i < images; ++i) {
    const float* pixels = x.data() + i * image.item();
    plan.write(pixels, 1);
    plan.forward(&tape);
    const Tensor values = plan.read(node);
    cams.explained.push_back(explain(network, target, values, labels));
    for (int64_t t = 0; t < targets; ++t) {
      std::vector<double> sum(size_t(places), 0);
      const auto each_channel = [&](ConstView g, const auto& factor) {  // factor(channel, place)
        const Shape s = g.shape;
        Tensor host({1, s.c, s.h, s.w});
        read_nchw(ctx, g, host.data());
        for (int64_t c = 0; c < s.c; ++c) {
          std::vector<float> v(host.data() + c * s.h * s.w, host.data() + (c + 1) * s.h * s.w);
          for (int64_t p = 0; p < s.h * s.w; ++p) v[size_t(p)] *= factor(c, p);
          add_stretched(std::move(v), s, image, sum.data());
        }
      };
      write_seeds(ctx, {&cams.explained.back().units[size_t(t)], 1}, scoring_of(network, target), values, 1, backward.seed(1));
      const ConstView g = backward.run(tape, {.at_step = [&](const Step& step, ConstView dy) {
        const Shape before = plan.shapes()[size_t(step.inputs[0])].with_n(1);
        const StepShift* shift = step_shift(plan.layer(step), plan.weights(step), {&before, 1});
        if (!shift || dy.shape.h * dy.shape.w == 1) return;
        const Shape s = shift->shape;
        each_channel(dy, [&](int64_t c, int64_t p) {  // NHWC
          const int64_t row = s.h > 1 ? p / dy.shape.w : 0, col = s.w > 1 ? p % dy.shape.w : 0;
          return shift->array.values[size_t((row * s.w + col) * s.c + (s.c > 1 ? c : 0))];
        });
      }});
      each_channel(g, [&](int64_t c, int64_t p) { return pixels[c * places + p]; });
      for (int64_t p = 0; p < places; ++p) cams.maps[0][(i * targets + t) * places + p] = float(sum[size_t(p)]);
    }
    if (options.progress) options.progress(i + 1, images);
  }
  return cams;
}

}  // namespace switchback
