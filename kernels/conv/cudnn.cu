// Convolutions by cuDNN's legacy API: NHWC tensors, KRSC filters, deterministic algorithms only, as its heuristics rank
// them. Our epilogue runs behind it as a pass of its own.
#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/conv/conv.cuh"
#include "kernels/device/vendor.cuh"

namespace switchback::SB_DEVICE {

#if SB_CUDNN_HEADERS

// clang-format off
#define SB_CUDNN_CALLS(CALL)                                                                                       \
  CALL(cudnnGetVersion) CALL(cudnnGetErrorString) CALL(cudnnCreate) CALL(cudnnDestroy) CALL(cudnnSetStream)        \
  CALL(cudnnCreateTensorDescriptor) CALL(cudnnDestroyTensorDescriptor) CALL(cudnnSetTensor4dDescriptor)            \
  CALL(cudnnCreateFilterDescriptor) CALL(cudnnDestroyFilterDescriptor) CALL(cudnnSetFilter4dDescriptor)            \
  CALL(cudnnCreateConvolutionDescriptor) CALL(cudnnDestroyConvolutionDescriptor)                                   \
  CALL(cudnnSetConvolution2dDescriptor) CALL(cudnnSetConvolutionGroupCount) CALL(cudnnSetConvolutionMathType)      \
  CALL(cudnnGetConvolutionForwardAlgorithm_v7) CALL(cudnnGetConvolutionForwardWorkspaceSize)                       \
  CALL(cudnnConvolutionForward) CALL(cudnnGetConvolutionBackwardDataAlgorithm_v7)                                  \
  CALL(cudnnGetConvolutionBackwardDataWorkspaceSize) CALL(cudnnConvolutionBackwardData)

#define SB_TYPE(name) using name##_type = decltype(&name);
#define SB_MEMBER(name) name##_type name;
#define SB_LOAD(name) && SB_RESOLVE(library, calls, name)
// clang-format on
SB_CUDNN_CALLS(SB_TYPE)
struct CudnnCalls {
  SB_CUDNN_CALLS(SB_MEMBER)
};
static bool load(Library& library, CudnnCalls& calls) { return true SB_CUDNN_CALLS(SB_LOAD); }

namespace {

// Workspaces beyond this are not worth their memory.
constexpr size_t kWorkspaceLimit = size_t(512) << 20;

template <typename D>
using CudnnOwned = Owned<D, cudnnStatus_t>;

struct ConvKey {
  Conv2d conv;
  Shape x;
  DType dtype;
  bool tf32, backward;
  bool operator==(const ConvKey&) const = default;
};

// One convolution as cuDNN wants it described, and the algorithm for it.
struct ConvPlan {
  ConvKey key;
  std::string why_not;  // there is no algorithm; all below is then of no use
  CudnnOwned<cudnnTensorDescriptor_t> x, y;
  CudnnOwned<cudnnFilterDescriptor_t> w;
  CudnnOwned<cudnnConvolutionDescriptor_t> conv;
  cudnnConvolutionFwdAlgo_t forward = {};
  cudnnConvolutionBwdDataAlgo_t backward = {};
  size_t workspace = 0;  // bytes
};

std::string text(const ConvKey& k) {
  return fmt::format("{} [{},{},{},{}] {}, {} channels by {}x{}",
                     k.backward ? "conv2d_backward_data" : "conv2d_forward", k.x.n, k.x.c, k.x.h, k.x.w,
                     name_of(k.dtype), k.conv.out_channels, k.conv.kernel_h, k.conv.kernel_w);
}

}  // namespace

struct CudnnState {
  Library opened;
  CudnnCalls calls;
  cudnnHandle_t handle = nullptr;
  std::vector<std::unique_ptr<ConvPlan>> plans;
  ~CudnnState() {
    plans.clear();
    if (handle) calls.cudnnDestroy(handle);
  }
};

static void open(CudnnState& s, Gpu& gpu) {
  cublas_line(gpu);  // opens cuBLASLt: cuDNN needs it, and the loader may not find it by itself
  s.opened = open_library({"libcudnn.so.9"});
  if (!s.opened.why_not.empty() || !load(s.opened, s.calls)) return;
  cudnnStatus_t status = s.calls.cudnnCreate(&s.handle);
  if (status == CUDNN_STATUS_SUCCESS) status = s.calls.cudnnSetStream(s.handle, static_cast<cudaStream_t>(gpu.stream));
  if (status != CUDNN_STATUS_SUCCESS)
    s.opened.why_not = fmt::format("{} cannot be used: {}", s.opened.path, s.calls.cudnnGetErrorString(status));
}

static CudnnState& cudnn_of(Gpu& gpu) {
  std::shared_ptr<CudnnState>& state = vendor_of(gpu).cudnn;
  if (!state) {
    state = std::make_shared<CudnnState>();
    open(*state, gpu);
  }
  return *state;
}

std::string cudnn_line(Gpu& gpu) {
  const CudnnState& s = cudnn_of(gpu);
  if (!s.opened.why_not.empty()) return "cuDNN: " + s.opened.why_not;
  const size_t v = s.calls.cudnnGetVersion();
  return fmt::format("cuDNN {}.{}.{} from {}", v / 10000, v / 100 % 100, v % 100, s.opened.path);
}

bool cudnn_found(Context& ctx, std::string& why_not) {
  why_not = cudnn_of(*ctx.gpu).opened.why_not;
  return why_not.empty();
}

static void check(const CudnnState& s, cudnnStatus_t status, const char* call, const ConvKey& key) {
  if (status != CUDNN_STATUS_SUCCESS)
    throw Error(fmt::format("{} for {}: {}", call, text(key), s.calls.cudnnGetErrorString(status)), kOwnHint);
}
#define SB_CUDNN(call, ...) check(s, s.calls.call(__VA_ARGS__), #call, key)

static cudnnDataType_t type_of(DType t) {
  return t == DType::f32 ? CUDNN_DATA_FLOAT : t == DType::f16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16;
}

static CudnnOwned<cudnnTensorDescriptor_t> tensor(const CudnnState& s, const ConvKey& key, Shape t) {
  cudnnTensorDescriptor_t d = nullptr;
  SB_CUDNN(cudnnCreateTensorDescriptor, &d);
  CudnnOwned<cudnnTensorDescriptor_t> owned(d, {s.calls.cudnnDestroyTensorDescriptor});
  SB_CUDNN(cudnnSetTensor4dDescriptor, d, CUDNN_TENSOR_NHWC, type_of(key.dtype), int(t.n), int(t.c), int(t.h),
           int(t.w));
  return owned;
}

static CudnnOwned<cudnnFilterDescriptor_t> filter(const CudnnState& s, const ConvKey& key) {
  const Conv2d& c = key.conv;
  cudnnFilterDescriptor_t d = nullptr;
  SB_CUDNN(cudnnCreateFilterDescriptor, &d);
  CudnnOwned<cudnnFilterDescriptor_t> owned(d, {s.calls.cudnnDestroyFilterDescriptor});
  SB_CUDNN(cudnnSetFilter4dDescriptor, d, type_of(key.dtype), CUDNN_TENSOR_NHWC, int(c.out_channels),
           int(c.in_channels / c.groups), int(c.kernel_h), int(c.kernel_w));
  return owned;
}

static CudnnOwned<cudnnConvolutionDescriptor_t> convolution(const CudnnState& s, const ConvKey& key) {
  const Conv2d& c = key.conv;
  cudnnConvolutionDescriptor_t d = nullptr;
  SB_CUDNN(cudnnCreateConvolutionDescriptor, &d);
  CudnnOwned<cudnnConvolutionDescriptor_t> owned(d, {s.calls.cudnnDestroyConvolutionDescriptor});
  SB_CUDNN(cudnnSetConvolution2dDescriptor, d, int(c.pad_top), int(c.pad_left), int(c.stride_h), int(c.stride_w),
           int(c.dilation_h), int(c.dilation_w), CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT);
  SB_CUDNN(cudnnSetConvolutionGroupCount, d, int(c.groups));
  return owned;
}

// f32 stays f32 unless TF32 is allowed, which cuDNN's default is; 16-bit types have tensor cores that sum in f32.
static cudnnMathType_t math_of(const ConvKey& key) {
  if (key.dtype != DType::f32) return CUDNN_TENSOR_OP_MATH;
  return key.tf32 ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
}

// Takes the first of cuDNN's suggestions, best first, that gives the same bits in every run. size(algorithm, &bytes)
// asks for its workspace; false: there is none.
template <typename Perf, typename Algorithm, typename Size>
static bool choose(const CudnnState& s, ConvPlan& plan, const std::vector<Perf>& found, Algorithm& algorithm,
                   const Size& size) {
  const ConvKey& key = plan.key;
  size_t least = 0;  // of the workspaces that are too large
  for (const Perf& f : found) {
    if (f.status != CUDNN_STATUS_SUCCESS || f.determinism != CUDNN_DETERMINISTIC) continue;
    // A suggestion can be for another kind of arithmetic than was asked for; of f32 it must not be.
    const cudnnMathType_t math = key.dtype == DType::f32 ? math_of(key) : f.mathType;
    SB_CUDNN(cudnnSetConvolutionMathType, plan.conv.get(), math);
    if (size(f.algo, &plan.workspace) != CUDNN_STATUS_SUCCESS) continue;
    if (plan.workspace > kWorkspaceLimit) {
      least = least ? std::min(least, plan.workspace) : plan.workspace;
      continue;
    }
    algorithm = f.algo;
    return true;
  }
  plan.workspace = least;
  if (least)
    plan.why_not = fmt::format("cuDNN's deterministic algorithms for it take {} MB of workspace or more, and {} are allowed",
                               (least + (1 << 20) - 1) >> 20, kWorkspaceLimit >> 20);
  return false;
}

static bool choose_forward(const CudnnState& s, ConvPlan& p) {
  const ConvKey& key = p.key;
  int count = 0;
  std::vector<cudnnConvolutionFwdAlgoPerf_t> found(CUDNN_CONVOLUTION_FWD_ALGO_COUNT);
  SB_CUDNN(cudnnGetConvolutionForwardAlgorithm_v7, s.handle, p.x.get(), p.w.get(), p.conv.get(), p.y.get(),
           int(found.size()), &count, found.data());
  found.resize(count);
  return choose(s, p, found, p.forward, [&](cudnnConvolutionFwdAlgo_t a, size_t* bytes) {
    return s.calls.cudnnGetConvolutionForwardWorkspaceSize(s.handle, p.x.get(), p.w.get(), p.conv.get(), p.y.get(), a,
                                                           bytes);
  });
}

static bool choose_backward(const CudnnState& s, ConvPlan& p) {
  const ConvKey& key = p.key;
  int count = 0;
  std::vector<cudnnConvolutionBwdDataAlgoPerf_t> found(CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT);
  SB_CUDNN(cudnnGetConvolutionBackwardDataAlgorithm_v7, s.handle, p.w.get(), p.y.get(), p.conv.get(), p.x.get(),
           int(found.size()), &count, found.data());
  found.resize(count);
  return choose(s, p, found, p.backward, [&](cudnnConvolutionBwdDataAlgo_t a, size_t* bytes) {
    return s.calls.cudnnGetConvolutionBackwardDataWorkspaceSize(s.handle, p.w.get(), p.y.get(), p.conv.get(), p.x.get(),
                                                                a, bytes);
  });
}

static std::string outside_api(const ConvKey& key, Shape y) {
  const Conv2d& c = key.conv;
  if (c.pad_top != c.pad_bottom || c.pad_left != c.pad_right) return "cuDNN pads both sides alike";
  if (std::max(key.x.count(), y.count()) > std::numeric_limits<int>::max()) return "cuDNN counts elements in 32 bits";
  return "";
}

static std::unique_ptr<ConvPlan> make_plan(const CudnnState& s, const ConvKey& key) {
  auto plan = std::make_unique<ConvPlan>();
  const Shape y = output_shape(key.conv, key.x);
  plan->key = key;
  plan->why_not = outside_api(key, y);
  if (!plan->why_not.empty()) return plan;
  plan->x = tensor(s, key, key.x);
  plan->y = tensor(s, key, y);
  plan->w = filter(s, key);
  plan->conv = convolution(s, key);
  SB_CUDNN(cudnnSetConvolutionMathType, plan->conv.get(), math_of(key));
  if (!(key.backward ? choose_backward(s, *plan) : choose_forward(s, *plan)) && plan->why_not.empty())
    plan->why_not = "cuDNN has no deterministic algorithm for it";
  return plan;
}

// Made at the first call of a shape: heuristics take longer than many a convolution.
static const ConvPlan& plan_of(Context& ctx, const Conv2d& conv, Shape x, DType dtype, bool backward,
                               bool tf32) {
  CudnnState& s = cudnn_of(*ctx.gpu);
  const ConvKey key{conv, x, dtype, tf32 && dtype == DType::f32, backward};
  for (const auto& plan : s.plans)
    if (plan->key == key) return *plan;
  s.plans.push_back(make_plan(s, key));
  return *s.plans.back();
}

bool cudnn_fits(Context& ctx, const Conv2d& conv, Shape x, DType dtype, bool backward, bool tf32,
                std::string& why_not) {
  if (!cudnn_found(ctx, why_not)) return false;
  const ConvPlan& plan = plan_of(ctx, conv, x, dtype, backward, tf32);
  why_not = plan.why_not;
  // Where there are algorithms, ours in their place would be a surprise.
  if (ctx.conv == ConvAlgorithm::vendor && plan.workspace > kWorkspaceLimit)
    throw Error(fmt::format("{}: {}", text(plan.key), why_not), "a smaller batch needs less; " + std::string(kOwnHint), true);
  return why_not.empty();
}

static const ConvPlan& usable_plan(Context& ctx, const Conv2d& conv, Shape x, DType dtype, bool backward, bool tf32) {
  std::string why_not;
  if (!cudnn_found(ctx, why_not)) throw Error("cuDNN: " + why_not, kOwnHint);
  const ConvPlan& plan = plan_of(ctx, conv, x, dtype, backward, tf32);
  if (!plan.why_not.empty()) throw Error(fmt::format("{}: {}", text(plan.key), plan.why_not), kOwnHint);
  return plan;
}

constexpr float kOne = 1, kZero = 0;

void cudnn_forward(Context& ctx, const ConvWeights& weights, ConstView x, View y, const Epilogue& epilogue) {
  const ConvPlan& p = usable_plan(ctx, weights.conv(), x.shape, x.dtype, false, epilogue.tf32);
  CHECK(!epilogue.pool, "{}: cuDNN runs without a fused pool", text(p.key));
  const CudnnState& s = cudnn_of(*ctx.gpu);
  const ConvKey& key = p.key;
  const void* w = packed_weights(ctx, weights, ConvPacking::krsc, x.dtype);
  const auto* bias = static_cast<const float*>(packed_weights(ctx, weights, ConvPacking::bias, DType::f32));
  SB_CUDNN(cudnnConvolutionForward, s.handle, &kOne, p.x.get(), x.data, p.w.get(), w, p.conv.get(), p.forward,
           ctx.scratch.reserve(p.workspace), p.workspace, &kZero, p.y.get(), y.data);
  epilogue_pass(ctx, y, bias, epilogue);
}

void cudnn_backward(Context& ctx, const ConvWeights& weights, ConstView dy, View dx, const BackwardEpilogue& epilogue) {
  const ConvPlan& p = usable_plan(ctx, weights.conv(), dx.shape, dx.dtype, true, epilogue.tf32);
  const CudnnState& s = cudnn_of(*ctx.gpu);
  const ConvKey& key = p.key;
  const void* w = packed_weights(ctx, weights, ConvPacking::krsc, dx.dtype);
  SB_CUDNN(cudnnConvolutionBackwardData, s.handle, &kOne, p.w.get(), w, p.y.get(), dy.data, p.conv.get(), p.backward,
           ctx.scratch.reserve(p.workspace), p.workspace, &kZero, p.x.get(), dx.data);
  epilogue_pass(ctx, dx, epilogue);
}

#else  // without cuDNN's headers

static constexpr const char* kNoHeaders = "this build was made without cuDNN's headers";

std::string cudnn_line(Gpu&) { return std::string("cuDNN: ") + kNoHeaders; }

bool cudnn_found(Context&, std::string& why_not) {
  why_not = kNoHeaders;
  return false;
}

bool cudnn_fits(Context& ctx, const Conv2d&, Shape, DType, bool, bool, std::string& why_not) {
  return cudnn_found(ctx, why_not);
}

void cudnn_forward(Context&, const ConvWeights&, ConstView, View, const Epilogue&) {
  throw Error(kNoHeaders, kOwnHint);
}

void cudnn_backward(Context&, const ConvWeights&, ConstView, View, const BackwardEpilogue&) {
  throw Error(kNoHeaders, kOwnHint);
}

#endif

}  // namespace switchback::SB_DEVICE
