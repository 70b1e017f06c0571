// One size of images that are optimised, n at a time: all that a step of maximize() and invert() needs. Not part of the public
// surface.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/run/backward.h"
#include "viz/methods/maximize.h"
#include "viz/methods/parametrisation.h"

namespace switchback {

// What is to become large, or small.
struct Goal {
  std::function<void(View seed)> seed;                  // [n,c,h,w] of the node; n items from `first` on
  std::function<std::vector<double>(int64_t n)> value;  // of the items that ran last
};

struct Dream {
  Dream(Context& ctx, const Model& model, Shape net, const MaximizeOptions& o, int64_t n, int64_t margin);

  Memory floats(int64_t count) { return ctx.allocate(size_t(count) * sizeof(float)); }
  int states() const;  // arrays of the optimiser
  bool moves() const { return o.jitter > 0 || o.rotate > 0 || o.zoom > 0; }
  View on_canvas(const Memory& m) const { return {m.data(), canvas_shape, DType::f32}; }
  View image(const Memory& m) const { return parts.z(m.as<float>(), n); }
  void reset() {  // a fresh optimiser
    ctx.zero(state0.data(), state0.size());
    ctx.zero(state1.data(), state1.size());
  }

  void start(std::span<const Drive> drives, const Tensor& given);
  void place(std::span<const Drive> drives, int64_t step, bool still);
  void see(std::span<const Drive> drives, int64_t step, bool still);
  void add_edges();
  ConstView gradient(const Goal& goal, ReluRule rule);
  void ascend(int64_t step, bool late);
  void clip_exactly(std::span<const Drive> drives);
  void run(std::span<const Drive> drives, const Goal& goal, int64_t steps, int64_t& done, Maximized& out, int64_t first,
           int64_t total);
  void read(std::span<const Drive> drives, float* to);

  Context& ctx;
  const Model& model;
  const MaximizeOptions& o;
  int64_t n;
  int node;
  Shape net, canvas_shape;
  int64_t margin;
  Plan plan;
  Backward backward;
  Tape tape;
  Parametrisation parts;
  PixelUnits units;
  Memory z, dz, good, best, state0, state1, canvas, dcanvas, spare, maps, limits;
};


}  // namespace switchback
