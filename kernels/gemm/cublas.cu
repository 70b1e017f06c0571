// Matrix products of linear layers by cuBLASLt. It counts by columns: our rows of x are its columns, so that
//   forward   [out, rows] = Wᵀ · x   with W [in, out] as it sees our [out_features, in_features]
//   backward  [in, rows]  = W · dy
// and W lies as it is in both directions. Sums stay f32 for the epilogue, whatever the elements are.
#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/device/vendor.cuh"

namespace switchback::SB_DEVICE {

#if SB_CUBLAS_HEADERS

// clang-format off
#define SB_CUBLAS_CALLS(CALL)                                                                                    \
  CALL(cublasLtGetVersion) CALL(cublasLtGetStatusString) CALL(cublasLtCreate) CALL(cublasLtDestroy)              \
  CALL(cublasLtMatmulDescCreate) CALL(cublasLtMatmulDescDestroy) CALL(cublasLtMatmulDescSetAttribute)            \
  CALL(cublasLtMatrixLayoutCreate) CALL(cublasLtMatrixLayoutDestroy) CALL(cublasLtMatmulPreferenceCreate)        \
  CALL(cublasLtMatmulPreferenceDestroy) CALL(cublasLtMatmulPreferenceSetAttribute)                               \
  CALL(cublasLtMatmulAlgoGetHeuristic) CALL(cublasLtMatmul)

#define SB_TYPE(name) using name##_type = decltype(&name);
#define SB_MEMBER(name) name##_type name;
#define SB_LOAD(name) && SB_RESOLVE(library, calls, name)
// clang-format on
SB_CUBLAS_CALLS(SB_TYPE)
struct CublasCalls {
  SB_CUBLAS_CALLS(SB_MEMBER)
};
static bool load(Library& library, CublasCalls& calls) { return true SB_CUBLAS_CALLS(SB_LOAD); }

namespace {

constexpr uint64_t kWorkspaceLimit = uint64_t(32) << 20;  // as NVIDIA recommends for Hopper

template <typename D>
using CublasOwned = Owned<D, cublasStatus_t>;

struct ProductKey {
  int64_t rows, in_features, out_features;
  bool backward, tf32;
  DType dtype;
  uint32_t in_alignment;  // bytes; weights and scratch memory are allocations of their own
  bool operator==(const ProductKey&) const = default;
};

struct ProductPlan {
  ProductKey key;
  bool found = false;  // an algorithm; all below is else of no use
  CublasOwned<cublasLtMatmulDesc_t> operation;
  CublasOwned<cublasLtMatrixLayout_t> weight, in, out;
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace = 0;  // bytes
};

uint32_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return uint32_t(std::min<uintptr_t>(address & -address, 256));  // more is never asked for
}

ProductKey key_of(const Product& p) {
  return {p.rows,  p.in_features,     p.out_features, p.backward, p.tf32 && p.dtype == DType::f32,
          p.dtype, alignment_of(p.in)};
}

int64_t columns_of(const Product& p) { return p.backward ? p.in_features : p.out_features; }

std::string text(const Product& p) {
  return fmt::format("{} [{},{}] {}, {} features", p.op, p.rows, p.backward ? p.out_features : p.in_features,
                     name_of(p.dtype), columns_of(p));
}

}  // namespace

struct CublasState {
  Library opened;
  CublasCalls calls;
  cublasLtHandle_t handle = nullptr;
  std::vector<std::unique_ptr<ProductPlan>> plans;
  ~CublasState() {
    plans.clear();
    if (handle) calls.cublasLtDestroy(handle);
  }
};

static void open(CublasState& s) {
  s.opened = open_library({"libcublasLt.so.13", "libcublasLt.so.12"});
  if (!s.opened.why_not.empty() || !load(s.opened, s.calls)) return;
  const cublasStatus_t status = s.calls.cublasLtCreate(&s.handle);
  if (status != CUBLAS_STATUS_SUCCESS)
    s.opened.why_not = fmt::format("{} cannot be used: {}", s.opened.path, s.calls.cublasLtGetStatusString(status));
}

static CublasState& cublas_of(Gpu& gpu) {
  std::shared_ptr<CublasState>& state = vendor_of(gpu).cublas;
  if (!state) {
    state = std::make_shared<CublasState>();
    open(*state);
  }
  return *state;
}

std::string cublas_line(Gpu& gpu) {
  const CublasState& s = cublas_of(gpu);
  if (!s.opened.why_not.empty()) return "cuBLASLt: " + s.opened.why_not;
  const size_t v = s.calls.cublasLtGetVersion();
  return fmt::format("cuBLASLt {}.{}.{} from {}", v / 10000, v / 100 % 100, v % 100, s.opened.path);
}

static void check(const CublasState& s, cublasStatus_t status, const char* call, const Product& p) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error(fmt::format("{} for {}: {}", call, text(p), s.calls.cublasLtGetStatusString(status)), kOwnHint);
}
#define SB_CUBLAS(call, ...) check(s, s.calls.call(__VA_ARGS__), #call, p)

static cudaDataType_t type_of(DType t) {
  return t == DType::f32 ? CUDA_R_32F : t == DType::f16 ? CUDA_R_16F : CUDA_R_16BF;
}

static CublasOwned<cublasLtMatmulDesc_t> operation(const CublasState& s, const Product& p, const ProductKey& key) {
  cublasLtMatmulDesc_t d = nullptr;
  SB_CUBLAS(cublasLtMatmulDescCreate, &d, key.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F);
  CublasOwned<cublasLtMatmulDesc_t> owned(d, {s.calls.cublasLtMatmulDescDestroy});
  const int32_t transposed = p.backward ? CUBLAS_OP_N : CUBLAS_OP_T;
  SB_CUBLAS(cublasLtMatmulDescSetAttribute, d, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed));
  return owned;
}

static CublasOwned<cublasLtMatrixLayout_t> layout(const CublasState& s, const Product& p, DType dtype, int64_t rows,
                                                  int64_t columns) {
  cublasLtMatrixLayout_t d = nullptr;
  SB_CUBLAS(cublasLtMatrixLayoutCreate, &d, type_of(dtype), uint64_t(rows), uint64_t(columns), rows);
  return {d, {s.calls.cublasLtMatrixLayoutDestroy}};
}

template <typename V>
static void prefer(const CublasState& s, const Product& p, cublasLtMatmulPreference_t preference,
                   cublasLtMatmulPreferenceAttributes_t attribute, V value) {
  SB_CUBLAS(cublasLtMatmulPreferenceSetAttribute, preference, attribute, &value, sizeof(value));
}

static CublasOwned<cublasLtMatmulPreference_t> preference(const CublasState& s, const Product& p,
                                                          const ProductKey& key) {
  cublasLtMatmulPreference_t d = nullptr;
  SB_CUBLAS(cublasLtMatmulPreferenceCreate, &d);
  CublasOwned<cublasLtMatmulPreference_t> owned(d, {s.calls.cublasLtMatmulPreferenceDestroy});
  prefer(s, p, d, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceLimit);
  // Partial sums of a split product stay f32.
  prefer(s, p, d, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(s, p, d, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.in_alignment);
  return owned;
}

static std::unique_ptr<ProductPlan> make_plan(const CublasState& s, const Product& p, const ProductKey& key) {
  auto plan = std::make_unique<ProductPlan>();
  plan->key = key;
  plan->operation = operation(s, p, key);
  plan->weight = layout(s, p, p.dtype, p.in_features, p.out_features);
  plan->in = layout(s, p, p.dtype, p.backward ? p.out_features : p.in_features, p.rows);
  plan->out = layout(s, p, DType::f32, columns_of(p), p.rows);
  const CublasOwned<cublasLtMatmulPreference_t> wanted = preference(s, p, key);
  cublasLtMatmulHeuristicResult_t best = {};
  int count = 0;
  const cublasStatus_t status =
      s.calls.cublasLtMatmulAlgoGetHeuristic(s.handle, plan->operation.get(), plan->weight.get(), plan->in.get(),
                                             plan->out.get(), plan->out.get(), wanted.get(), 1, &best, &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return plan;
  check(s, status, "cublasLtMatmulAlgoGetHeuristic", p);
  plan->found = count > 0 && best.state == CUBLAS_STATUS_SUCCESS;
  plan->algorithm = best.algo;
  plan->workspace = best.workspaceSize;
  return plan;
}

static const ProductPlan& plan_of(Context& ctx, const Product& p) {
  CublasState& s = cublas_of(*ctx.gpu);
  const ProductKey key = key_of(p);
  for (const auto& plan : s.plans)
    if (plan->key == key) return *plan;
  s.plans.push_back(make_plan(s, p, key));
  return *s.plans.back();
}

bool cublas_fits(Context& ctx, const Product& p, std::string& why_not) {
  why_not = cublas_of(*ctx.gpu).opened.why_not;
  if (!why_not.empty()) return false;
  if (plan_of(ctx, p).found) return true;
  why_not = fmt::format("no algorithm for {}", text(p));
  return false;
}

float* cublas_sums(Context& ctx, const Product& p) {
  std::string why_not;
  if (!cublas_fits(ctx, p, why_not)) throw Error("cuBLASLt: " + why_not, kOwnHint);
  const CublasState& s = cublas_of(*ctx.gpu);
  const ProductPlan& plan = plan_of(ctx, p);
  const size_t bytes = size_t(ceil_div(p.rows * columns_of(p) * int64_t(sizeof(float)), 256) * 256);
  auto* sums = static_cast<char*>(ctx.scratch.reserve(bytes + plan.workspace));
  const float one = 1, zero = 0;
  SB_CUBLAS(cublasLtMatmul, s.handle, plan.operation.get(), &one, p.weight, plan.weight.get(), p.in, plan.in.get(),
            &zero, sums, plan.out.get(), sums, plan.out.get(), &plan.algorithm, sums + bytes, plan.workspace,
            stream_of(ctx));
  return reinterpret_cast<float*>(sums);
}

#else  // without cuBLASLt's headers

static constexpr const char* kNoHeaders = "this build was made without cuBLASLt's headers";

std::string cublas_line(Gpu&) { return std::string("cuBLASLt: ") + kNoHeaders; }

bool cublas_fits(Context&, const Product&, std::string& why_not) {
  why_not = kNoHeaders;
  return false;
}

float* cublas_sums(Context&, const Product&) { throw Error(kNoHeaders, kOwnHint); }

#endif

}  // namespace switchback::SB_DEVICE
