// What .cu files are written against: launches, shared memory, warp operations, asynchronous copies, tensor cores and
// conversions. All inline PTX of the project stands here, in small wrappers; kernels/emulator/emulator.h has the same
// names for the emulated device. Everything in a .cu file lives in `namespace switchback::SB_DEVICE`.
//
// Rules that keep a kernel honest under the emulator (kernels/README.md):
//   launch    only through launch(ctx, {op, shape, grid, block, shared}, kernel, args...)
//   shared    only dynamic, only through Shared<T>(byte offset, count): one region an array, offsets by hand
//   warps     __syncwarp, __shfl_*_sync, __ballot_sync, __any_sync, __all_sync with the full mask unless stated
//   vectors   load_as<uint4>(pointer), store_as(pointer, value) for wide global accesses; Shared::load<V>, store<V>
//   async     cp_async<Bytes>(...), cp_async_commit(), cp_async_wait<groups still in flight>(), then __syncthreads()
//   no static __shared__, no inline PTX, no atomics on floats, no __activemask, no dynamic parallelism
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/check.h"
#include "kernels/device/context.h"
#include "kernels/device/device_ops.h"
#include "kernels/types.h"

#ifdef SB_EMULATED
#define SB_DEVICE emulated
#include "kernels/emulator/emulator.h"
#else
#define SB_DEVICE cuda
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

extern __shared__ __align__(128) unsigned char sb_shared_memory[];
#endif

namespace switchback::SB_DEVICE {

inline constexpr unsigned kFullMask = 0xffffffffu;

// What a launch is, for errors and profilers: the op and the shape that it works on.
struct Launch {
  const char* op;
  Shape shape;
  dim3 grid, block;
  size_t shared = 0;  // bytes of dynamic shared memory
};

// Throws on a failed CUDA call, naming the call, the op and its shape.
void check_cuda(cudaError_t code, const char* call, const char* op = "", Shape shape = {});

// Makes a Gpu the calling thread's device, which CUDA wants of launches, allocations and events: contexts on several
// GPUs may take turns in one thread, and new threads begin at device 0. Costs nothing where it is already.
void make_current(const Gpu& gpu);

inline cudaStream_t stream_of(const Context& ctx) { return static_cast<cudaStream_t>(ctx.gpu->stream); }
bool synchronous_launches();  // SWITCHBACK_CUDA_SYNC=1: wait after every launch, so that errors name their kernel

#ifndef SB_EMULATED

template <typename... P, typename... A>
void launch(Context& ctx, const Launch& l, void (*kernel)(P...), A&&... args) {
  CHECK(l.grid.x > 0 && l.grid.y > 0 && l.grid.z > 0 && l.grid.y < 65536 && l.grid.z < 65536,
        "{} [{},{},{},{}]: grid {}x{}x{}", l.op, l.shape.n, l.shape.c, l.shape.h, l.shape.w, l.grid.x, l.grid.y, l.grid.z);
  make_current(*ctx.gpu);
  if (l.shared > 48 << 10)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(l.shared)),
               "cudaFuncSetAttribute", l.op, l.shape);
  if (l.shared >= 16 << 10)  // several blocks shall fit into a multiprocessor: shared memory before L1
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
               "cudaFuncSetAttribute", l.op, l.shape);
  nvtxRangePushA(l.op);
  kernel<<<l.grid, l.block, l.shared, stream_of(ctx)>>>(P(std::forward<A>(args))...);
  nvtxRangePop();
  check_cuda(cudaGetLastError(), "launch", l.op, l.shape);
  if (synchronous_launches() && !ctx.gpu->capturing)
    check_cuda(cudaStreamSynchronize(stream_of(ctx)), "cudaStreamSynchronize", l.op, l.shape);
}

// An array in the block's dynamic shared memory. Under the emulator every access is checked for bounds and races.
template <typename T>
class Shared {
 public:
  Shared() = default;
  __device__ __forceinline__ Shared(int byte_offset, int /*count*/)
      : p_(reinterpret_cast<T*>(sb_shared_memory + byte_offset)) {}
  __device__ __forceinline__ T& operator[](int i) const { return p_[i]; }
  template <typename V>  // V wide, at element i; aligned to sizeof(V)
  __device__ __forceinline__ V load(int i) const { return *reinterpret_cast<const V*>(p_ + i); }
  template <typename V>
  __device__ __forceinline__ void store(int i, V v) const { *reinterpret_cast<V*>(p_ + i) = v; }
  __device__ __forceinline__ uint32_t address(int i) const { return uint32_t(__cvta_generic_to_shared(p_ + i)); }

 private:
  T* p_;
};

template <typename V>
__device__ __forceinline__ V load_as(const void* p) { return *static_cast<const V*>(p); }
template <typename V>
__device__ __forceinline__ void store_as(void* p, V v) { *static_cast<V*>(p) = v; }

// What other blocks of the launch wrote before a fence: past the multiprocessor's own cache, in any order among such loads.
__device__ __forceinline__ float4 load_shared_by_blocks(const float4* p) {
  float4 v;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(p)
               : "memory");
  return v;
}

// Copies Bytes (4, 8 or 16; both sides aligned to them) from global to shared memory without waiting; zeros where `valid`
// is 0 (`from` is then not read, and may lie anywhere). `valid` becomes a predicate here: from a count of bytes the compiler
// makes shifts and masks of every bit tested.
template <int Bytes, typename T>
__device__ __forceinline__ void cp_async(Shared<T> to, int i, const void* from, uint32_t valid = 1) {
  if constexpr (Bytes == 16)
    asm volatile("{\n.reg .pred %%ignored;\nsetp.eq.u32 %%ignored, %2, 0;\n"
                 "cp.async.cg.shared.global [%0], [%1], 16, %%ignored;\n}" ::"r"(to.address(i)), "l"(from), "r"(valid)
                 : "memory");
  else
    asm volatile("{\n.reg .pred %%ignored;\nsetp.eq.u32 %%ignored, %2, 0;\n"
                 "cp.async.ca.shared.global [%0], [%1], %3, %%ignored;\n}" ::"r"(to.address(i)), "l"(from), "r"(valid),
                 "n"(Bytes)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int InFlight>  // waits until at most that many of this thread's groups are unfinished
__device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(InFlight) : "memory"); }

// ldmatrix: lane l gives the address of row l % 8 of matrix l / 8 (8 rows of 16 bytes each); r[j] then holds, of matrix
// j, row lane/4, 16-bit elements 2·(lane%4) and +1. _trans: element (row, column) swapped.
template <typename T>
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], Shared<T> s, int i) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(s.address(i))
               : "memory");
}
template <typename T>
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], Shared<T> s, int i) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(s.address(i))
               : "memory");
}

// mma.sync m16n8k16, T = bf16 or f16, f32 sums: c += a·b. With g = lane/4, t = lane%4:
//   a[0] = A[g][2t,2t+1]  a[1] = A[g+8][2t,2t+1]  a[2] = A[g][2t+8,2t+9]  a[3] = A[g+8][2t+8,2t+9]
//   b[0] = B[2t,2t+1][g]  b[1] = B[2t+8,2t+9][g]
//   c[0],c[1] = C[g][2t,2t+1]  c[2],c[3] = C[g+8][2t,2t+1]
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, bf16>)
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// mma.sync m16n8k8 on TF32 operands (f32 rounded by to_tf32):
//   a[0] = A[g][t]  a[1] = A[g+8][t]  a[2] = A[g][t+4]  a[3] = A[g+8][t+4];  b[0] = B[t][g]  b[1] = B[t+4][g]; c as above
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ uint32_t to_tf32(float v) {  // nearest, ties away from zero
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
  return r;
}

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(bf16 v) { return __uint_as_float(uint32_t(v.bits) << 16); }
__device__ __forceinline__ float to_float(f16 v) { return __half2float(__ushort_as_half(v.bits)); }
template <typename T>
__device__ __forceinline__ T from_float(float v) {
  if constexpr (std::is_same_v<T, f16>) {
    f16 h;
    h.bits = __half_as_ushort(__float2half_rn(v));
    return h;
  } else if constexpr (std::is_same_v<T, bf16>) {
    bf16 b;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(b.bits) : "f"(v));
    return b;
  } else {
    return T(v);
  }
}

#endif  // SB_EMULATED

// Calls f(T()) for the element type.
template <typename F>
void by_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32: return f(float());
    case DType::f16: return f(f16());
    case DType::bf16: return f(bf16());
  }
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace switchback::SB_DEVICE
