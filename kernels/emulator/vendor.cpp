// Host models of cuDNN and cuBLASLt (vendor.h).
#include "kernels/emulator/vendor.h"

#include <array>
#include <cstring>
#include <vector>

#include "kernels/emulator/emulated.h"
#include "kernels/types.h"

namespace switchback {

static bool vendor_present = true;
void set_emulated_vendor_libraries(bool present) { vendor_present = present; }
static size_t workspace_asked_for = 64;
void set_emulated_workspace(size_t bytes) { workspace_asked_for = bytes; }

namespace emulated {

bool vendor_libraries_present() { return vendor_present; }

namespace {

constexpr size_t kWorkspace = 64;  // that callers have to bring, so that they show that they do

float read(DType type, const void* p, int64_t i) {
  switch (type) {
    case DType::f32: return static_cast<const float*>(p)[i];
    case DType::f16: return static_cast<const f16*>(p)[i];
    case DType::bf16: return static_cast<const bf16*>(p)[i];
  }
  return 0;
}

void write(DType type, void* p, int64_t i, float v) {
  switch (type) {
    case DType::f32: static_cast<float*>(p)[i] = v; break;
    case DType::f16: static_cast<f16*>(p)[i] = f16(v); break;
    case DType::bf16: static_cast<bf16*>(p)[i] = bf16(v); break;
  }
}

// Plain products only, with the workspace that was asked for.
bool plain(const void* alpha, const void* beta, const void* workspace, size_t bytes) {
  return *static_cast<const float*>(alpha) == 1 && *static_cast<const float*>(beta) == 0 && workspace &&
         bytes >= kWorkspace;
}

template <typename Status, typename D>
Status made(D** d) {
  *d = new D();
  return Status(0);
}
template <typename Status, typename D>
Status destroyed(D* d) {
  delete d;
  return Status(0);
}

}  // namespace

// --- cuDNN

struct CudnnHandle {
  cudaStream_t stream = nullptr;
};
struct CudnnTensor {
  DType type;
  int n, c, h, w;
};
struct CudnnFilter {
  DType type;
  int k, c, h, w;
};
struct CudnnConvolution {
  int pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, groups = 1;
  cudnnMathType_t math = CUDNN_DEFAULT_MATH;
};

static DType dtype(cudnnDataType_t t) {
  return t == CUDNN_DATA_FLOAT ? DType::f32 : t == CUDNN_DATA_HALF ? DType::f16 : DType::bf16;
}

size_t cudnnGetVersion() { return 90000; }
const char* cudnnGetErrorString(cudnnStatus_t status) {
  return status == CUDNN_STATUS_SUCCESS     ? "CUDNN_STATUS_SUCCESS"
         : status == CUDNN_STATUS_BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM"
                                            : "CUDNN_STATUS_NOT_SUPPORTED";
}
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) { return made<cudnnStatus_t>(handle); }
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return destroyed<cudnnStatus_t>(handle); }
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* d) { return made<cudnnStatus_t>(d); }
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t d) { return destroyed<cudnnStatus_t>(d); }
cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t d, cudnnTensorFormat_t format, cudnnDataType_t type,
                                         int n, int c, int h, int w) {
  *d = {dtype(type), n, c, h, w};
  return format == CUDNN_TENSOR_NHWC ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* d) { return made<cudnnStatus_t>(d); }
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t d) { return destroyed<cudnnStatus_t>(d); }
cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t d, cudnnDataType_t type, cudnnTensorFormat_t format,
                                         int k, int c, int h, int w) {
  *d = {dtype(type), k, c, h, w};
  return format == CUDNN_TENSOR_NHWC ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t* d) { return made<cudnnStatus_t>(d); }
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t d) { return destroyed<cudnnStatus_t>(d); }
cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t d, int pad_h, int pad_w, int u, int v,
                                              int dilation_h, int dilation_w, cudnnConvolutionMode_t mode,
                                              cudnnDataType_t compute) {
  *d = {pad_h, pad_w, u, v, dilation_h, dilation_w};
  return mode == CUDNN_CROSS_CORRELATION && compute == CUDNN_DATA_FLOAT ? CUDNN_STATUS_SUCCESS
                                                                        : CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t d, int groups) {
  d->groups = groups;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t d, cudnnMathType_t math) {
  d->math = math;
  return CUDNN_STATUS_SUCCESS;
}

// Whether tensors and filter belong together, as the library checks it.
static bool consistent(const CudnnTensor& x, const CudnnFilter& w, const CudnnConvolution& c, const CudnnTensor& y) {
  const int h = (x.h + 2 * c.pad_h - c.dilation_h * (w.h - 1) - 1) / c.stride_h + 1;
  const int v = (x.w + 2 * c.pad_w - c.dilation_w * (w.w - 1) - 1) / c.stride_w + 1;
  return x.type == w.type && w.type == y.type && x.n == y.n && x.c == w.c * c.groups && y.c == w.k && y.h == h &&
         y.w == v;
}

// Two suggestions, of which the first sums in no fixed order.
template <typename Algorithm>
static cudnnStatus_t suggest(Algorithm other, Algorithm usable, cudnnMathType_t math, int requested, int* returned,
                             CudnnPerf<Algorithm>* found) {
  if (requested < 2) return CUDNN_STATUS_BAD_PARAM;
  *returned = 2;
  found[0] = {other, CUDNN_STATUS_SUCCESS, 1, 0, CUDNN_NON_DETERMINISTIC, math, {}};
  found[1] = {usable, CUDNN_STATUS_SUCCESS, 2, kWorkspace, CUDNN_DETERMINISTIC, math, {}};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, cudnnTensorDescriptor_t x,
                                                     cudnnFilterDescriptor_t w, cudnnConvolutionDescriptor_t conv,
                                                     cudnnTensorDescriptor_t y, int requested, int* returned,
                                                     cudnnConvolutionFwdAlgoPerf_t* found) {
  if (!consistent(*x, *w, *conv, *y)) return CUDNN_STATUS_BAD_PARAM;
  return suggest(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, conv->math,
                 requested, returned, found);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, cudnnFilterDescriptor_t w,
                                                          cudnnTensorDescriptor_t dy, cudnnConvolutionDescriptor_t conv,
                                                          cudnnTensorDescriptor_t dx, int requested, int* returned,
                                                          cudnnConvolutionBwdDataAlgoPerf_t* found) {
  if (!consistent(*dx, *w, *conv, *dy)) return CUDNN_STATUS_BAD_PARAM;
  return suggest(CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, conv->math, requested, returned,
                 found);
}
cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t,
                                                      cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t,
                                                      cudnnConvolutionFwdAlgo_t, size_t* bytes) {
  *bytes = workspace_asked_for;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t, cudnnFilterDescriptor_t,
                                                           cudnnTensorDescriptor_t, cudnnConvolutionDescriptor_t,
                                                           cudnnTensorDescriptor_t, cudnnConvolutionBwdDataAlgo_t,
                                                           size_t* bytes) {
  *bytes = workspace_asked_for;
  return CUDNN_STATUS_SUCCESS;
}

// visit(x index, weight index, y index) for every product of the convolution.
template <typename Visit>
static void for_products(const CudnnTensor& x, const CudnnFilter& w, const CudnnConvolution& v, const CudnnTensor& y,
                         const Visit& visit) {
  for (int n = 0; n < y.n; ++n)
    for (int p = 0; p < y.h; ++p)
      for (int q = 0; q < y.w; ++q)
        for (int r = 0; r < w.h; ++r)
          for (int s = 0; s < w.w; ++s) {
            const int i = p * v.stride_h + r * v.dilation_h - v.pad_h, j = q * v.stride_w + s * v.dilation_w - v.pad_w;
            if (i < 0 || i >= x.h || j < 0 || j >= x.w) continue;
            const int64_t x_at = ((int64_t(n) * x.h + i) * x.w + j) * x.c,
                          y_at = ((int64_t(n) * y.h + p) * y.w + q) * y.c;
            for (int k = 0; k < w.k; ++k)
              for (int c = 0; c < w.c; ++c)
                visit(x_at + k / (w.k / v.groups) * w.c + c, ((int64_t(k) * w.h + r) * w.w + s) * w.c + c, y_at + k);
          }
}

static void write_all(DType type, void* to, const std::vector<float>& sums) {
  for (size_t i = 0; i < sums.size(); ++i) write(type, to, int64_t(i), sums[i]);
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void* alpha, cudnnTensorDescriptor_t x_d,
                                      const void* x, cudnnFilterDescriptor_t w_d, const void* w,
                                      cudnnConvolutionDescriptor_t conv, cudnnConvolutionFwdAlgo_t algo,
                                      void* workspace, size_t bytes, const void* beta, cudnnTensorDescriptor_t y_d,
                                      void* y) {
  if (!consistent(*x_d, *w_d, *conv, *y_d) || !plain(alpha, beta, workspace, bytes)) return CUDNN_STATUS_BAD_PARAM;
  if (algo != CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM) return CUDNN_STATUS_NOT_SUPPORTED;
  enqueue(handle->stream, cudaGraphNodeTypeKernel, [xd = *x_d, wd = *w_d, v = *conv, yd = *y_d, x, w, y] {
    std::vector<float> sums(size_t(yd.n) * yd.h * yd.w * yd.c);
    for_products(xd, wd, v, yd,
                 [&](int64_t i, int64_t j, int64_t o) { sums[o] += read(xd.type, x, i) * read(wd.type, w, j); });
    write_all(yd.type, y, sums);
  });
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void* alpha, cudnnFilterDescriptor_t w_d,
                                           const void* w, cudnnTensorDescriptor_t dy_d, const void* dy,
                                           cudnnConvolutionDescriptor_t conv, cudnnConvolutionBwdDataAlgo_t algo,
                                           void* workspace, size_t bytes, const void* beta,
                                           cudnnTensorDescriptor_t dx_d, void* dx) {
  if (!consistent(*dx_d, *w_d, *conv, *dy_d) || !plain(alpha, beta, workspace, bytes)) return CUDNN_STATUS_BAD_PARAM;
  if (algo != CUDNN_CONVOLUTION_BWD_DATA_ALGO_1) return CUDNN_STATUS_NOT_SUPPORTED;
  enqueue(handle->stream, cudaGraphNodeTypeKernel, [xd = *dx_d, wd = *w_d, v = *conv, yd = *dy_d, dx, w, dy] {
    std::vector<float> sums(size_t(xd.n) * xd.h * xd.w * xd.c);
    for_products(xd, wd, v, yd,
                 [&](int64_t i, int64_t j, int64_t o) { sums[i] += read(yd.type, dy, o) * read(wd.type, w, j); });
    write_all(xd.type, dx, sums);
  });
  return CUDNN_STATUS_SUCCESS;
}

// --- cuBLASLt

struct CublasLtHandle {};
struct CublasLtOperation {
  int32_t transposed_a = CUBLAS_OP_N;
};
struct CublasLtLayout {  // counted by columns
  DType type;
  int64_t rows, columns, leading;
};
struct CublasLtPreference {
  uint64_t workspace = 0;
  std::array<uint32_t, 4> alignment{256, 256, 256, 256};  // of A, B, C, D
};

static DType dtype(cudaDataType_t t) {
  return t == CUDA_R_32F ? DType::f32 : t == CUDA_R_16F ? DType::f16 : DType::bf16;
}

size_t cublasLtGetVersion() { return 130000; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS         ? "CUBLAS_STATUS_SUCCESS"
         : status == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
                                                 : "CUBLAS_STATUS_NOT_SUPPORTED";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { return made<cublasStatus_t>(handle); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroyed<cublasStatus_t>(handle); }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t, cudaDataType_t scale) {
  return scale == CUDA_R_32F ? made<cublasStatus_t>(d) : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return destroyed<cublasStatus_t>(d); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  if (attribute != CUBLASLT_MATMUL_DESC_TRANSA || bytes != sizeof(d->transposed_a)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&d->transposed_a, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* d, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  *d = new CublasLtLayout{dtype(type), int64_t(rows), int64_t(columns), leading};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t d) { return destroyed<cublasStatus_t>(d); }
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* d) { return made<cublasStatus_t>(d); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t d) { return destroyed<cublasStatus_t>(d); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t d,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  const bool workspace = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
  if (bytes != (workspace ? sizeof(uint64_t) : sizeof(uint32_t))) return CUBLAS_STATUS_INVALID_VALUE;
  if (workspace) std::memcpy(&d->workspace, value, bytes);
  else if (attribute >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES)
    std::memcpy(&d->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

static bool consistent(const CublasLtOperation& o, const CublasLtLayout& a, const CublasLtLayout& b,
                       const CublasLtLayout& d) {
  const bool t = o.transposed_a == CUBLAS_OP_T;
  return a.type == b.type && d.type == DType::f32 && (t ? a.columns : a.rows) == d.rows &&
         (t ? a.rows : a.columns) == b.rows && b.columns == d.columns && a.leading >= a.rows && b.leading >= b.rows &&
         d.leading >= d.rows;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t* found, int* returned) {
  if (!consistent(*operation, *a, *b, *d) || requested < 1) return CUBLAS_STATUS_INVALID_VALUE;
  *returned = preference->workspace >= kWorkspace;
  *found = {{}, kWorkspace, CUBLAS_STATUS_SUCCESS, 1, {}};
  for (int i = 0; i < 4; ++i) found->algo.data[i] = preference->alignment[i];
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_d, const void* b, cublasLtMatrixLayout_t b_d, const void* beta,
                              const void* c, cublasLtMatrixLayout_t, void* d, cublasLtMatrixLayout_t d_d,
                              const cublasLtMatmulAlgo_t* algo, void* workspace, size_t bytes, cudaStream_t stream) {
  if (!consistent(*operation, *a_d, *b_d, *d_d) || !plain(alpha, beta, workspace, bytes))
    return CUBLAS_STATUS_INVALID_VALUE;
  const void* pointers[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (reinterpret_cast<uintptr_t>(pointers[i]) % algo->data[i] != 0) return CUBLAS_STATUS_INVALID_VALUE;
  enqueue(stream, cudaGraphNodeTypeKernel, [o = *operation, a_l = *a_d, b_l = *b_d, d_l = *d_d, a, b, d] {
    const bool t = o.transposed_a == CUBLAS_OP_T;
    for (int64_t column = 0; column < d_l.columns; ++column)
      for (int64_t row = 0; row < d_l.rows; ++row) {
        float sum = 0;
        for (int64_t k = 0; k < b_l.rows; ++k)
          sum += read(a_l.type, a, t ? row * a_l.leading + k : k * a_l.leading + row) *
                 read(b_l.type, b, column * b_l.leading + k);
        write(d_l.type, d, column * d_l.leading + row, sum);
      }
  });
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace emulated
}  // namespace switchback
