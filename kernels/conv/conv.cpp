// Checks, choice of algorithm and dispatch. The algorithm is a function of the layer and the size of one image, never of
// the batch: results do not depend on how a batch is split.
#include "kernels/conv/conv.h"

#include <omp.h>

#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/conv/conv_im2col.h"
#include "kernels/device/device_ops.h"
#include "kernels/conv/dnnl.h"
#include "kernels/conv/winograd.h"
#include "kernels/sliding.h"

namespace switchback {

Conv2d conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel, int64_t stride, int64_t padding,
              int64_t dilation, int64_t groups, bool has_bias) {
  return {.in_channels = in_channels, .out_channels = out_channels, .kernel_h = kernel, .kernel_w = kernel,
          .stride_h = stride, .stride_w = stride, .pad_top = padding, .pad_left = padding, .pad_bottom = padding,
          .pad_right = padding, .dilation_h = dilation, .dilation_w = dilation, .groups = groups,
          .has_bias = has_bias};
}

Shape output_shape(const Conv2d& c, Shape x) {
  CHECK(c.in_channels > 0 && c.out_channels > 0 && c.groups > 0 && c.in_channels % c.groups == 0 &&
            c.out_channels % c.groups == 0,
        "convolution: {} -> {} channels do not divide into {} groups", c.in_channels, c.out_channels, c.groups);
  CHECK(c.kernel_h > 0 && c.kernel_w > 0 && c.stride_h > 0 && c.stride_w > 0 && c.dilation_h > 0 && c.dilation_w > 0 &&
            c.pad_top >= 0 && c.pad_left >= 0 && c.pad_bottom >= 0 && c.pad_right >= 0,
        "convolution: kernel {}x{}, stride {}x{}, dilation {}x{} must be positive and padding not negative", c.kernel_h,
        c.kernel_w, c.stride_h, c.stride_w, c.dilation_h, c.dilation_w);
  CHECK(x.c == c.in_channels, "convolution: input has {} channels, weights expect {}", x.c, c.in_channels);
  const SlidingAxis rows = sliding_rows(c), columns = sliding_columns(c);
  const int64_t padded_h = x.h + c.pad_top + c.pad_bottom, padded_w = x.w + c.pad_left + c.pad_right;
  CHECK(rows.extent() <= padded_h && columns.extent() <= padded_w,
        "convolution: kernel {}x{} exceeds the padded input {}x{}", rows.extent(), columns.extent(), padded_h, padded_w);
  return {x.n, c.out_channels, rows.outputs(x.h, c.pad_bottom), columns.outputs(x.w, c.pad_right)};
}

// Weights in the layouts that algorithms ask for, made at first use.
struct ConvWeights::Packed {
  std::vector<float> winograd, im2col[3];
  int small_calls = 0;  // of Winograd with the weights as given
  DnnlWeights dnnl;
};

ConvWeights::ConvWeights(const Conv2d& conv, const float* weight, std::vector<float> bias, std::vector<float> scale)
    : conv_(conv), weight_(weight), bias_(std::move(bias)), scale_(std::move(scale)),
      packed_(std::make_shared<Packed>()), device_(std::make_shared<DeviceCache>()) {}
ConvWeights::~ConvWeights() = default;
ConvWeights::ConvWeights(ConvWeights&&) noexcept = default;
ConvWeights& ConvWeights::operator=(ConvWeights&&) noexcept = default;

ConvWeights ConvWeights::without_bias(const Conv2d& conv) const {
  CHECK(conv.in_channels == conv_.in_channels && conv.out_channels == conv_.out_channels && conv.groups == conv_.groups &&
            conv.kernel_h == conv_.kernel_h && conv.kernel_w == conv_.kernel_w,
        "convolution: other weights are wanted, not these under another padding");
  ConvWeights same(conv, weight_, {}, scale_);
  same.packed_ = packed_;
  same.device_ = device_;
  return same;
}

namespace {

std::vector<float> pack_winograd(const ConvWeights& weights) {
  const Conv2d& c = weights.conv();
  constexpr int64_t B = kWinogradBlock;
  std::vector<float> packed(size_t(9 * c.in_channels * c.out_channels));
#pragma omp parallel for schedule(static)
  for (int64_t o = 0; o < c.out_channels; ++o)
    for (int64_t i = 0; i < c.in_channels; ++i) {
      float* block = packed.data() + ((o / B) * (c.in_channels / B) + i / B) * 9 * B * B + i % B * B + o % B;
      for (int64_t tap = 0; tap < 9; ++tap) block[tap * B * B] = weights.weight(o, i, tap / 3, tap % 3);
    }
  return packed;
}

// The packed weights of one algorithm, made at first use.
template <typename Pack>
const float* packed_once(std::vector<float>& packed, const Pack& pack) {
  if (packed.empty()) packed = pack();
  return packed.data();
}

// oneDNN's convolution of x, as it is asked for.
DnnlConvKey direct_key(const Context& ctx, const ConvWeights& weights, Shape x, DType dtype, bool backward) {
  return {weights.conv(), x, dtype, backward, !backward && weights.bias() != nullptr, ctx.thread_count()};
}

int64_t tiles_of(Shape y) { return y.n * ceil_div(y.h, int64_t(4)) * ceil_div(y.w, int64_t(4)); }

// A copy of the weights, packed for Winograd, pays where calls of few tiles are repeated: making U is a good part of
// them, and turning blocks round makes it half as long again. Elsewhere it would cost its memory and a first call's time.
constexpr int64_t kManyTiles = 64;
constexpr int kSmallCalls = 4;
WinogradWeights winograd_weights(const ConvWeights& weights, ConvWeights::Packed& packed, Shape y, bool backward) {
  const Conv2d& c = weights.conv();
  const bool many = tiles_of(y) >= (backward ? 2 : 1) * kManyTiles;
  if (packed.winograd.empty() && !many && ++packed.small_calls > kSmallCalls) packed.winograd = pack_winograd(weights);
  return {weights.given(), weights.scale().empty() ? nullptr : weights.scale().data(),
          packed.winograd.empty() ? nullptr : packed.winograd.data(), c.out_channels, c.in_channels};
}

enum class Algorithm { winograd, windows, patches, direct };

Algorithm choose(Context& ctx, const ConvWeights& weights, Shape x, DType dtype, bool backward) {
  const Conv2d& c = weights.conv();
  if (ctx.conv == ConvAlgorithm::own || ctx.conv == ConvAlgorithm::gemm || ctx.conv == ConvAlgorithm::vendor)
    throw Error("own, gemm and vendor convolutions are for GPUs",
                "on the CPU convolutions are auto, direct or winograd", true);
  const Shape y = output_shape(c, x);
  if (winograd_fits(c, dtype) && ctx.conv != ConvAlgorithm::direct) {
    // Its rounding error grows with the square root of the channels and reaches 1.7e-6 at 512 (2e-6 is the limit for
    // `automatic`); on maps smaller than one 4x4 tile it saves nothing.
    const bool worth = y.h >= 4 && y.w >= 4 && std::max(c.in_channels, c.out_channels) <= 512;
    if (ctx.conv == ConvAlgorithm::winograd || worth) return Algorithm::winograd;
  }
  const int64_t count = c.kernel_h * c.kernel_w * c.in_channels * c.out_channels;
  const bool few_channels = c.in_channels <= 4 && c.kernel_h * c.kernel_w <= 256, tiny = count <= 65536 && y.h * y.w <= 256;
  const bool plain = dtype == DType::f32 && c.groups == 1 && c.dilation_h == 1 && c.dilation_w == 1;
  if (plain && is_pointwise(c)) return Algorithm::windows;
  if (plain && (few_channels || tiny)) return backward ? Algorithm::patches : Algorithm::windows;
  // Our sums are cut and oneDNN's run through all taps and channels: half of the error, up to a third slower.
  if (dtype == DType::f32 && c.groups == 1 && ctx.conv == ConvAlgorithm::direct) return Algorithm::windows;
  const DnnlChoice& direct = dnnl_choice(ctx, direct_key(ctx, weights, x, dtype, backward));
  return direct.implementation.empty() ? Algorithm::windows : Algorithm::direct;
}

bool avx512() { return cpu_features().avx512; }

// oneDNN runs as many images at a time as leave the result in the cache for the epilogue that follows.
int64_t images_at_a_time(Shape in, Shape out, DType dtype, bool epilogue) {
  if (!epilogue) return in.n;
  const int64_t bytes = (in.item() + out.item()) * int64_t(size_of(dtype));
  return std::clamp<int64_t>((int64_t(8) << 20) / bytes, 1, in.n);
}

template <typename AnyEpilogue>
void run_direct(Context& ctx, const ConvWeights& weights, ConstView in, View out, bool backward, bool finish,
                const AnyEpilogue& epilogue, DnnlWeights& packed) {
  const int before = omp_get_max_threads(), threads = ctx.thread_count();
  if (threads != before) omp_set_num_threads(threads);  // oneDNN asks OpenMP
  const Shape x = backward ? out.shape : in.shape;
  const int64_t step = images_at_a_time(in.shape, out.shape, in.dtype, finish);
  for (int64_t first = 0, count; first < x.n; first += count) {
    const Shape some = x.with_n(std::min(step, x.n - first));
    const std::shared_ptr<const DnnlConv> conv = dnnl_conv(ctx, direct_key(ctx, weights, some, in.dtype, backward));
    count = conv->images;
    const size_t size = size_of(in.dtype);
    dnnl_conv_run(ctx, *conv, weights, packed, in.as<char>() + size_t(first * in.shape.item()) * size,
                  out.as<char>() + size_t(first * out.shape.item()) * size, backward);
    if (finish) apply_epilogue(ctx, out, epilogue, first, first + count);
  }
  if (threads != before) omp_set_num_threads(before);
}

void check_views(const Context& ctx, const ConvWeights& weights, ConstView x, ConstView y, const MaxPool2d* pool) {
  Shape want = output_shape(weights.conv(), x.shape);
  if (pool) want = output_shape(*pool, want);
  CHECK(want == y.shape, "convolution: output is [{},{},{},{}], the layer gives [{},{},{},{}]", y.shape.n, y.shape.c,
        y.shape.h, y.shape.w, want.n, want.c, want.h, want.w);
  CHECK(x.dtype == y.dtype, "convolution: {} in, {} out", name_of(x.dtype), name_of(y.dtype));
  if (ctx.gpu) return;
  CHECK(x.dtype != DType::f16, "convolution: the CPU does float32 and bfloat16, not float16");
  CHECK(!pool, "convolution: the CPU does not fuse pools");
}

// Gates are needed where a rule looks at them.
void check_gates(const BackwardEpilogue& e) {
  CHECK(!e.relu || !e.rule.gate_forward || e.gates, "convolution backward: the rule needs gate bits and there are none");
}

}  // namespace

bool winograd_fits(const Conv2d& c, DType dtype) {
  return dtype == DType::f32 && c.kernel_h == 3 && c.kernel_w == 3 && c.stride_h == 1 && c.stride_w == 1 &&
         c.dilation_h == 1 && c.dilation_w == 1 && c.groups == 1 && c.in_channels % kWinogradBlock == 0 &&
         c.out_channels % kWinogradBlock == 0 && cpu_features().avx2;
}

bool conv2d_fuses_pool(Context& ctx, const Conv2d& conv, Shape x, DType dtype, const MaxPool2d& pool) {
  return ctx.gpu && ctx.gpu->ops->conv2d_fuses_pool(ctx, conv, x, dtype, pool);
}

void conv2d_forward(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  check_views(ctx, weights, x, y, epilogue.pool);
  CHECK(!epilogue.pool || !epilogue.residual, "convolution: no residual can be added before a fused pool");
  if (ctx.gpu) return ctx.gpu->ops->conv2d_forward(ctx, weights, x, y, epilogue);
  const Conv2d& c = weights.conv();
  auto& packed = weights.packed();
  switch (choose(ctx, weights, x.shape, x.dtype, false)) {
    case Algorithm::winograd: {
      const WinogradProblem problem{.x = x.as<float>(), .n = x.shape.n, .h = x.shape.h, .w = x.shape.w, .c = x.shape.c,
                                    .y = y.as<float>(), .p = y.shape.h, .q = y.shape.w, .k = y.shape.c,
                                    .pad_top = c.pad_top, .pad_left = c.pad_left,
                                    .weights = winograd_weights(weights, packed, y.shape, false), .transposed = false, .bias = weights.bias(),
                                    .forward = &epilogue};
      return avx512() ? winograd_avx512(ctx, problem) : winograd_avx2(ctx, problem);
    }
    case Algorithm::windows:
    case Algorithm::patches: {
      const float* w = packed_once(packed.im2col[int(Im2col::forward)], [&] { return pack_im2col(weights, Im2col::forward); });
      return im2col_forward(ctx, weights, w, x, y, epilogue);
    }
    case Algorithm::direct:
      return run_direct(ctx, weights, x, y, false, epilogue.relu || epilogue.residual, epilogue, packed.dnnl);
  }
}

void conv2d_backward_data(Context& ctx, const ConvWeights& weights, ConstView dy, View dx,
                          const BackwardEpilogue& epilogue) {
  check_views(ctx, weights, dx, dy, nullptr);
  check_gates(epilogue);
  CHECK(!epilogue.other || epilogue.other != dx.data, "convolution backward: `other` must not be dx itself");
  if (ctx.gpu) return ctx.gpu->ops->conv2d_backward_data(ctx, weights, dy, dx, epilogue);
  const Conv2d& c = weights.conv();
  auto& packed = weights.packed();
  const Algorithm algorithm = choose(ctx, weights, dx.shape, dx.dtype, true);
  switch (algorithm) {
    case Algorithm::winograd: {
      const WinogradProblem problem{.x = dy.as<float>(), .n = dy.shape.n, .h = dy.shape.h, .w = dy.shape.w,
                                    .c = dy.shape.c, .y = dx.as<float>(), .p = dx.shape.h, .q = dx.shape.w,
                                    .k = dx.shape.c, .pad_top = 2 - c.pad_top, .pad_left = 2 - c.pad_left,
                                    .weights = winograd_weights(weights, packed, dx.shape, true), .transposed = true,
                                    .backward = &epilogue};
      return avx512() ? winograd_avx512(ctx, problem) : winograd_avx2(ctx, problem);
    }
    case Algorithm::windows:
    case Algorithm::patches: {
      const Im2col way = algorithm == Algorithm::patches ? Im2col::patches : Im2col::backward;
      const float* w = packed_once(packed.im2col[int(way)], [&] { return pack_im2col(weights, way); });
      return im2col_backward(ctx, weights, way, w, dy, dx, epilogue);
    }
    case Algorithm::direct:
      return run_direct(ctx, weights, dy, dx, true, epilogue.relu || epilogue.other, epilogue, packed.dnnl);
  }
}

std::string conv2d_algorithm(Context& ctx, const ConvWeights& weights, Shape x, DType dtype, bool backward,
                             bool tf32) {
  if (ctx.gpu) return ctx.gpu->ops->conv2d_algorithm(ctx, weights, x, dtype, backward, tf32);
  switch (choose(ctx, weights, x, dtype, backward)) {
    case Algorithm::winograd: return "winograd";
    case Algorithm::windows:
    case Algorithm::patches: return "im2col";
    case Algorithm::direct: break;
  }
  return "direct:" + dnnl_conv(ctx, direct_key(ctx, weights, x, dtype, backward))->implementation;
}

}  // namespace switchback
