// Convolutions on a GPU: packed weights and the choice of a kernel, by the layer and the size of one image, never by
// the batch. Only `automatic` looks at the batch: it takes cuDNN where that was faster when both were timed.
#include "kernels/conv/conv.cuh"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {

namespace {

// Sizes of an OIHW weight, and how its elements lie when packed.
struct PackShape {
  ConvPacking packing;
  int out, in, group_out, taps;  // in: of a group
  bool tf32;                     // rounded to it
};

// A thread a packed element, from w [out, in, taps] times scale[out] (null: 1).
template <typename T>
__global__ void pack_kernel(PackShape s, int64_t count, const float* w, const float* scale, T* packed) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= count) return;
  int o, i, tap;
  if (s.packing == ConvPacking::krsc) {  // [out][tap][in]
    i = int(at % s.in), tap = int(at / s.in % s.taps), o = int(at / s.in / s.taps);
  } else if (s.packing == ConvPacking::crsk) {  // [group][in][tap][out of the group]
    const int64_t rest = at / s.group_out / s.taps;
    tap = int(at / s.group_out % s.taps), i = int(rest % s.in);
    o = int(rest / s.in) * s.group_out + int(at % s.group_out);
  } else {  // [tap][in][out]
    o = int(at % s.out), i = int(at / s.out % s.in), tap = int(at / s.out / s.in);
  }
  const float v = w[(int64_t(o) * s.in + i) * s.taps + tap];
  const float scaled = scale ? v * scale[o] : v;
  packed[at] = from_float<T>(s.tf32 ? __uint_as_float(to_tf32(scaled)) : scaled);
}

// A host array on the device until the work that reads it is done.
Memory copied_in(Context& ctx, const float* values, size_t count) {
  if (count == 0) return {};
  Memory memory(ctx.gpu, count * sizeof(float));
  ctx.copy_in(memory.data(), values, memory.size());
  return memory;
}

template <typename T>
void pack(Context& ctx, const ConvWeights& weights, ConvPacking packing, bool tf32, void* packed) {
  const Conv2d& c = weights.conv();
  const PackShape s{packing,
                    int(c.out_channels),
                    int(c.in_channels / c.groups),
                    int(c.out_channels / c.groups),
                    int(c.kernel_h * c.kernel_w),
                    tf32};
  const int64_t count = int64_t(s.out) * s.in * s.taps;
  const Memory w = copied_in(ctx, weights.given(), size_t(count));
  const Memory scale = copied_in(ctx, weights.scale().data(), weights.scale().size());
  launch(ctx, {"pack", {1, c.out_channels, s.in, s.taps}, dim3(unsigned(ceil_div(count, 256))), dim3(256)}, pack_kernel<T>, s,
         count, static_cast<const float*>(w.as<float>()), static_cast<const float*>(scale.as<float>()), static_cast<T*>(packed));
  ctx.synchronize();
}

}  // namespace

const void* packed_weights(Context& ctx, const ConvWeights& weights, ConvPacking packing, DType dtype, bool tf32) {
  if (packing == ConvPacking::bias) {
    if (!weights.bias()) return nullptr;
    return weights.device().get(ctx, int(packing), [&] {
      const char* bias = reinterpret_cast<const char*>(weights.bias());
      return std::vector<char>(bias, bias + size_t(weights.conv().out_channels) * sizeof(float));
    });
  }
  const Conv2d& c = weights.conv();
  const size_t bytes = size_t(c.out_channels * c.in_channels / c.groups * c.kernel_h * c.kernel_w) * size_of(dtype);
  const bool rounded = tf32 && dtype == DType::f32;
  const int kind = rounded ? 3 : int(dtype);
  return weights.device().get(ctx, int(packing) + 4 * kind, bytes, [&](void* to) {
    by_type(dtype, [&](auto type) { pack<decltype(type)>(ctx, weights, packing, rounded, to); });
  });
}

ConvSize conv_size(const Conv2d& c, Shape x) {
  const Shape y = output_shape(c, x);
  CHECK(x.item() <= INT32_MAX && y.item() <= INT32_MAX && x.n <= INT32_MAX,
        "convolution: an image of [{},{},{}] -> [{},{},{}] has more than 2^31 elements", x.c, x.h, x.w, y.c, y.h, y.w);
  return {.n = int(x.n), .h = int(x.h), .w = int(x.w), .c = int(x.c), .p = int(y.h), .q = int(y.w), .k = int(y.c),
          .rows = sliding_rows<int>(c), .columns = sliding_columns<int>(c), .group_c = int(c.in_channels / c.groups),
          .group_k = int(c.out_channels / c.groups)};
}

dim3 image_grid(int64_t per_image, int64_t images) {
  const int64_t y = std::min<int64_t>(images, 65535);
  return dim3(unsigned(per_image), unsigned(y), unsigned(ceil_div(images, y)));
}

Launch warp_launch(const char* op, Shape shape, int64_t units) {
  const int64_t warps = std::min<int64_t>(units, 4);
  return {op, shape, image_grid(ceil_div(units, warps), shape.n), dim3(unsigned(32 * warps))};
}

namespace {

// Layers this small gain more from one launch less than from a faster product.
constexpr int64_t kSmallFlops = 20'000'000;

enum class Kernel { direct, depthwise, first, whole_map, gemm, cudnn };

void check_choice(const Context& ctx) {
  if (ctx.conv == ConvAlgorithm::winograd)
    throw Error("winograd convolutions are for the CPU", "on a GPU convolutions are auto, own, direct, gemm or vendor",
                true);
}

Kernel own_kernel(const Context& ctx, const Conv2d& conv, Shape x, DType dtype, bool backward) {
  if (ctx.conv == ConvAlgorithm::direct) return Kernel::direct;
  const bool product = gemm_fits(conv, x, dtype, backward);
  if (ctx.conv == ConvAlgorithm::gemm) return product ? Kernel::gemm : Kernel::direct;
  if (whole_map_fits(conv, x)) return Kernel::whole_map;
  if (depthwise_fits(conv)) return Kernel::depthwise;
  if (first_layer_fits(conv, backward)) return Kernel::first;
  return product ? Kernel::gemm : Kernel::direct;
}

// What one timing was of.
struct Problem {
  Conv2d conv;
  Shape x;
  DType dtype;
  bool backward, tf32;
  bool operator==(const Problem&) const = default;
};

struct Timed {
  Problem problem;
  bool cudnn_faster;
};
std::vector<Timed>& timings(Context& ctx) {  // kept with the GPU
  if (!ctx.gpu->tuning) ctx.gpu->tuning = std::make_shared<std::vector<Timed>>();
  return *static_cast<std::vector<Timed>*>(ctx.gpu->tuning.get());
}
const Timed* find_timed(Context& ctx, const Problem& problem) {
  for (const Timed& t : timings(ctx))
    if (t.problem == problem) return &t;
  return nullptr;
}

template <typename Work>
double median_milliseconds(Context& ctx, const Work& work) {
  work();  // packs weights, finds algorithms
  double ms[3];
  for (double& t : ms) t = ctx.gpu->ops->milliseconds(*ctx.gpu, work);
  std::sort(ms, ms + 3);
  return ms[1];
}

// The kernel for `problem`; run(kernel) runs it, and may be called several times.
template <typename Run>
Kernel choose(Context& ctx, const Problem& problem, const Run& run) {
  const Kernel own = own_kernel(ctx, problem.conv, problem.x, problem.dtype, problem.backward);
  const bool vendor = ctx.conv == ConvAlgorithm::vendor;
  if (!vendor && ctx.conv != ConvAlgorithm::automatic) return own;
  if (own == Kernel::whole_map) return own;  // linear layers choose for themselves
  std::string why_not;
  const bool found = cudnn_found(ctx, why_not);
  if (vendor && !found) throw Error("cuDNN cannot be used: " + why_not, "--conv own needs no vendor library");
  if (!found || !cudnn_fits(ctx, problem.conv, problem.x, problem.dtype, problem.backward, problem.tf32, why_not))
    return own;
  if (vendor) return Kernel::cudnn;
  if (const Timed* known = find_timed(ctx, problem)) return known->cudnn_faster ? Kernel::cudnn : own;
  if constexpr (std::is_null_pointer_v<Run>) {
    return own;
  } else {
    if (ctx.gpu->capturing) return own;  // a recording cannot be timed
    double cudnn = std::numeric_limits<double>::infinity();
    try {
      cudnn = median_milliseconds(ctx, [&] { run(Kernel::cudnn); });
    } catch (const OutOfMemory&) {  // no room for its workspace; ours may need none
    }
    const double ours = median_milliseconds(ctx, [&] { run(own); });
    timings(ctx).push_back({problem, cudnn < ours});
    return cudnn < ours ? Kernel::cudnn : own;
  }
}

bool gemm_takes_pool(Context& ctx, const Conv2d& conv, Shape x, DType dtype, const MaxPool2d& pool) {
  return own_kernel(ctx, conv, x, dtype, false) == Kernel::gemm && gemm_fuses_pool(conv, x, dtype, pool);
}

bool direct_takes_pool(const Conv2d& conv, Shape x, const MaxPool2d& pool) {
  const Shape y = output_shape(conv, x);
  return 2 * y.item() * conv.kernel_h * conv.kernel_w * conv.in_channels / conv.groups <= kSmallFlops &&
         direct_fuses_pool(pool, y);
}

}  // namespace

// Fusing a pool ties a layer to our kernel; `automatic` does so only where the layer is small or there is no other.
bool conv2d_fuses_pool(Context& ctx, const Conv2d& conv, Shape x, DType dtype, const MaxPool2d& pool) {
  check_choice(ctx);
  std::string why_not;
  if (ctx.conv == ConvAlgorithm::vendor) return false;
  if (direct_takes_pool(conv, x, pool)) return true;
  if (ctx.conv == ConvAlgorithm::automatic && cudnn_found(ctx, why_not)) return false;
  return gemm_takes_pool(ctx, conv, x, dtype, pool);
}

void conv2d_forward(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  check_choice(ctx);
  const Conv2d& conv = weights.conv();
  const auto run = [&](Kernel kernel) {
    switch (kernel) {
      case Kernel::direct: return direct_forward(ctx, weights, x, y, epilogue);
      case Kernel::depthwise: return depthwise_forward(ctx, weights, x, y, epilogue);
      case Kernel::first: return first_layer_forward(ctx, weights, x, y, epilogue);
      case Kernel::whole_map: return whole_map_forward(ctx, weights, x, y, epilogue);
      case Kernel::gemm: return gemm_forward(ctx, weights, x, y, epilogue);
      case Kernel::cudnn: return cudnn_forward(ctx, weights, x, y, epilogue);
    }
  };
  if (epilogue.pool) {
    CHECK(SB_DEVICE::conv2d_fuses_pool(ctx, conv, x.shape, x.dtype, *epilogue.pool),
          "convolution: a {}x{} pool cannot be fused behind this layer", epilogue.pool->kernel_h,
          epilogue.pool->kernel_w);
    return run(gemm_takes_pool(ctx, conv, x.shape, x.dtype, *epilogue.pool) ? Kernel::gemm : Kernel::direct);
  }
  // Libraries write whole maps only.
  if (epilogue.pitch) return run(own_kernel(ctx, conv, x.shape, x.dtype, false));
  run(choose(ctx, {conv, x.shape, x.dtype, false, epilogue.tf32}, run));
}

void conv2d_backward_data(Context& ctx, const ConvWeights& weights, ConstView dy, View dx,
                          const BackwardEpilogue& epilogue) {
  check_choice(ctx);
  const auto run = [&](Kernel kernel) {
    switch (kernel) {
      case Kernel::direct: return direct_backward(ctx, weights, dy, dx, epilogue);
      case Kernel::depthwise: return depthwise_backward(ctx, weights, dy, dx, epilogue);
      case Kernel::first: return first_layer_backward(ctx, weights, dy, dx, epilogue);
      case Kernel::whole_map: return whole_map_backward(ctx, weights, dy, dx, epilogue);
      case Kernel::gemm: return gemm_backward(ctx, weights, dy, dx, epilogue);
      case Kernel::cudnn: return cudnn_backward(ctx, weights, dy, dx, epilogue);
    }
  };
  run(choose(ctx, {weights.conv(), dx.shape, dx.dtype, true, epilogue.tf32}, run));
}

// Of `automatic`: cuDNN only where it has been timed.
std::string conv2d_algorithm(Context& ctx, const ConvWeights& weights, Shape x, DType dtype, bool backward,
                             bool tf32) {
  check_choice(ctx);
  switch (choose(ctx, {weights.conv(), x, dtype, backward, tf32}, nullptr)) {
    case Kernel::direct: return "direct";
    case Kernel::depthwise: return "depthwise";
    case Kernel::first: return "first";
    case Kernel::whole_map: return "linear";
    case Kernel::gemm: return gemm_name(ctx, weights.conv(), x, dtype, backward, tf32);
    case Kernel::cudnn: return "cudnn";
  }
  return {};
}

std::optional<GemmOffer> conv2d_gemm(Context& ctx, const Conv2d& conv, Shape x, DType dtype, bool backward,
                                     bool tf32) {
  const Kernel kernel = own_kernel(ctx, conv, x, dtype, backward);
  if (kernel == Kernel::gemm) return gemm_offer(ctx, conv, x, dtype, backward, tf32);
  if (kernel != Kernel::whole_map) return {};
  return linear_gemm(ctx, {conv.kernel_h * conv.kernel_w * conv.in_channels, conv.out_channels}, x.n, dtype, backward,
                     tf32);
}

}  // namespace switchback::SB_DEVICE
