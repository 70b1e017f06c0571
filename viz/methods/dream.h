// One size of images that are optimised, n at a time: all that a step of maximize() and invert() needs. Not part of the public
// surface.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/run/backward.h"
#include "viz/methods/maximize.h"
#include "viz/methods/parametrisation.h"

namespace switchback {

// What is to become large, or small.
struct Goal {
  std::function<void(View seed)> seed;                  // [n,c,h,w] of the node, n: what the network sees at a time
  std::function<std::vector<double>(int64_t n)> value;  // of the items that ran last
};

// Gradients past rectifiers that let nothing through, as lucid redirects them (optvis/overrides/redirected_relu_grad.py): where
// the gradient of an item is 0 behind a ReLU, that ReLU passes what is to rise, whether open or not. lucid asks this of every
// ReLU; here of those of images whose gradient is 0 altogether, from the unit to the input.
class Redirection {
 public:
  Redirection(Context& ctx, const Model& model, Shape image);
  // The gradient at one image x [1,C,H,W] (NCHW) of the sum of seed [1,c,h,w] (NCHW) times the node's values.
  Tensor gradient(const float* x, const float* seed);

 private:
  Context& ctx_;
  const Model& model_;
  std::vector<int> relus_, before_;  // from the last one; before_: what they rectify
  Plan plan_;
  Backward backward_;
  Tape tape_;
};

struct Dream {
  // n images on a canvas, of each of which the network, whose input is `net`, sees `per` parts at a time.
  Dream(Context& ctx, const Model& model, Shape net, Shape canvas, const MaximizeOptions& o, int64_t n, int64_t per);

  // Does a part of a step, and notes its time where that is wanted.
  template <typename Part>
  decltype(auto) timed(double StepTimes::* of, const Part& part) {
    struct Watch {
      ~Watch() {
        if (!dream.o.times) return;
        dream.ctx.synchronize();
        dream.o.times->*of += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      }
      Dream& dream;
      double StepTimes::* of;
      std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
    };
    const Watch watch{*this, of};
    return part();
  }
  Memory floats(int64_t count) { return ctx.allocate(size_t(count) * sizeof(float)); }
  int states() const;  // arrays of the optimiser
  bool moves() const { return o.jitter > 0 || o.rotate > 0 || o.zoom > 0 || o.crops > 0; }
  int64_t passes(bool still) const { return o.crops > 0 && !still ? o.crops / per : 1; }
  Shape shown() const { return o.crops > 0 ? canvas_shape : net; }  // of what is made
  View on_canvas(const Memory& m) const { return {m.data(), canvas_shape, DType::f32}; }
  View image(const Memory& m) const { return parts.z(m.as<float>(), n); }
  void reset() {  // a fresh optimiser
    ctx.zero(state0.data(), state0.size());
    ctx.zero(state1.data(), state1.size());
  }

  void start(std::span<const Drive> drives, const Tensor& given);
  void place(std::span<const Drive> drives, int64_t step, bool still, int64_t pass = 0);
  void see(std::span<const Drive> drives, int64_t step, bool still, int64_t pass = 0);
  void add_noise(std::span<const Drive> drives, int64_t step, int64_t pass);
  std::vector<double> values_of(const Goal& goal, bool still);  // of the images, from what ran last
  void add_edges();
  ConstView gradient(const Goal& goal);
  void ascend(int64_t step, bool late);
  ConstView redirected(const Goal& goal, ConstView g, bool redirect, std::vector<bool>& zero);
  void clip_exactly(std::span<const Drive> drives);
  void run(std::span<const Drive> drives, const Goal& goal, int64_t steps, int64_t& done, Maximized& out, int64_t first,
           int64_t total);
  void read(std::span<const Drive> drives, float* to);

  Context& ctx;
  const Model& model;
  const MaximizeOptions& o;
  int64_t n, per;
  int node;
  Shape net, canvas_shape;
  int64_t margin;
  Plan plan;
  Backward backward;
  Tape tape;
  std::unique_ptr<Redirection> redirection;  // made at first use
  Parametrisation parts;
  PixelUnits units;
  Memory z, dz, good, best, state0, state1, canvas, dcanvas, spare, maps, limits, weight, noise, noise_base, noise_scale;
};


}  // namespace switchback
