// NVIDIA's libraries, opened when they are first asked for: cuDNN 9 for convolutions (cudnn.cu), cuBLASLt for linear
// layers (cublas.cu). Nothing is linked: they weigh hundreds of MB, and a machine without them works too. Their headers
// give the types where the build has them; for the tests kernels/emulator/vendor.h stands in for headers and libraries.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>

#include "kernels/device/cuda.cuh"

#ifdef SB_EMULATED
#include "kernels/emulator/vendor.h"
#define SB_CUDNN_HEADERS 1
#define SB_CUBLAS_HEADERS 1
#else
#if __has_include(<cudnn.h>)
#include <cudnn.h>
#define SB_CUDNN_HEADERS 1
#endif
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define SB_CUBLAS_HEADERS 1
#endif
#endif

namespace switchback::SB_DEVICE {

inline constexpr const char* kOwnHint = "--conv own needs no vendor library";

// An opened library, or the reason why there is none.
struct Library {
  void* handle = nullptr;  // of dlopen; never closed, which these libraries do not survive
  std::string path;
  std::string why_not;
};

// Opens the first of these files that is found: in the folders of SWITCHBACK_LIBRARIES (separated by colons), where the
// loader looks, in $CUDA_HOME/lib64, in /usr/local/cuda/lib64.
Library open_library(std::initializer_list<const char*> names);

// The address of a function; null when the library lacks it, which library.why_not then says.
void* find_symbol(Library& library, const char* name);

// SB_RESOLVE(library, calls, cudnnCreate) sets the function pointer calls.cudnnCreate.
#ifdef SB_EMULATED
#define SB_RESOLVE(library, calls, name) ((void)(library), (calls).name = &name)
#else
#define SB_RESOLVE(library, calls, name) \
  ((calls).name = reinterpret_cast<decltype((calls).name)>(find_symbol(library, #name)))
#endif

// What Gpu::vendor holds; each part is made at first use by the file that knows it.
struct CudnnState;
struct CublasState;
struct Vendor {
  std::shared_ptr<CublasState> cublas;
  std::shared_ptr<CudnnState> cudnn;
};
Vendor& vendor_of(Gpu& gpu);

// A descriptor of a vendor's library with the function that destroys it.
template <typename Descriptor, typename Status>
struct Destroy {
  Status (*call)(Descriptor) = nullptr;
  void operator()(Descriptor d) const { call(d); }
};
template <typename Descriptor, typename Status>
using Owned = std::unique_ptr<std::remove_pointer_t<Descriptor>, Destroy<Descriptor, Status>>;

// "cuDNN 9.19.0 from /usr/lib/libcudnn.so.9" or "cuDNN: not found: …"; opens the library.
std::string cudnn_line(Gpu& gpu);
std::string cublas_line(Gpu& gpu);

// cublas.cu: sums, in f32, of a product with W [out_features, in_features], by rows:
//   forward   [rows, out_features] = x [rows, in_features] · Wᵀ
//   backward  [rows, in_features] = dy [rows, out_features] · W
struct Product {
  const char* op;  // for errors
  int64_t rows, in_features, out_features;
  bool backward;
  DType dtype;  // of x or dy, and of W
  bool tf32;    // f32 products may be rounded to TF32
  const void* in;
  const void* weight;  // may be null for cublas_fits; an allocation of its own
};
bool cublas_fits(Context& ctx, const Product& product, std::string& why_not);  // found, and it has an algorithm
float* cublas_sums(Context& ctx, const Product& product);                      // in ctx.scratch

}  // namespace switchback::SB_DEVICE
