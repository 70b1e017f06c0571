// The emulated GPU's models of what the real one does: warp operations, tensor cores, memory, streams, events, graphs.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/kernels/emulator_fixture.h"

namespace switchback::emulated {
namespace {

// ---- warps ----

__global__ void shuffles(int* y, int kind, int operand, int width) {
  const int v = 100 + int(threadIdx.x);
  int got = 0;
  if (kind == 0) got = __shfl_sync(kFullMask, v, operand, width);
  if (kind == 1) got = __shfl_xor_sync(kFullMask, v, operand, width);
  if (kind == 2) got = __shfl_down_sync(kFullMask, v, unsigned(operand), width);
  if (kind == 3) got = __shfl_up_sync(kFullMask, v, unsigned(operand), width);
  y[threadIdx.x] = got;
}

TEST_F(EmulatorTest, Shuffles) {
  int* y = allocate<int>(kThreads);
  const auto lanes = [&](int kind, int operand, int width) {
    EXPECT_EQ(run(shuffles, 0, y, kind, operand, width), "");
    std::vector<int> v = download(y, 32);
    for (int& x : v) x -= 100;
    return v;
  };
  EXPECT_EQ(lanes(0, 7, 32)[30], 7);
  EXPECT_EQ(lanes(0, 9, 8)[30], 25);  // lane 9 % 8 of the group that begins at 24
  EXPECT_EQ(lanes(1, 5, 32)[30], 27);
  EXPECT_EQ(lanes(2, 3, 32)[27], 30);
  EXPECT_EQ(lanes(2, 3, 32)[30], 30);
  EXPECT_EQ(lanes(2, 3, 16)[14], 14);
  EXPECT_EQ(lanes(3, 3, 32)[5], 2);
  EXPECT_EQ(lanes(3, 3, 8)[9], 9);
}

__global__ void votes(int* any, int* all, int from) {
  any[threadIdx.x] = __any_sync(kFullMask, int(threadIdx.x) >= from);
  all[threadIdx.x] = __all_sync(kFullMask, int(threadIdx.x) >= from);
}

TEST_F(EmulatorTest, Votes) {
  int *any = allocate<int>(kThreads), *all = allocate<int>(kThreads);
  ASSERT_EQ(run(votes, 0, any, all, 40), "");
  EXPECT_EQ(download(any, kThreads)[3], 0);
  EXPECT_EQ(download(any, kThreads)[33], 1);
  EXPECT_EQ(download(all, kThreads)[33], 0);
  ASSERT_EQ(run(votes, 0, any, all, 32), "");
  EXPECT_EQ(download(all, kThreads)[33], 1);
}

// ---- tensor cores ----

// One warp: C[16][8] = A[16][K]·B[K][8] with A, B and C in row-major global memory, fragments gathered by their
// indices.
template <typename T, bool kWrong>
__global__ void product(const float* a, const float* b, float* c) {
  constexpr int K = std::is_same_v<T, float> ? 8 : 16;
  const int g = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
  uint32_t fa[4], fb[2];
  float fc[4] = {};
  if constexpr (K == 8) {
    for (int i = 0; i < 4; ++i) fa[i] = to_tf32(a[(g + i % 2 * 8) * K + t + i / 2 * 4]);
    for (int i = 0; i < 2; ++i) fb[i] = to_tf32(b[(t + i * 4) * 8 + g]);
    mma_m16n8k8_tf32(fc, fa, fb);
  } else {
    const auto pair = [](float low, float high) {
      return from_float<T>(low).bits | uint32_t(from_float<T>(high).bits) << 16;
    };
    for (int i = 0; i < 4; ++i) {
      const int row = kWrong ? g + i / 2 * 8 : g + i % 2 * 8, k = kWrong ? 2 * t + i % 2 * 8 : 2 * t + i / 2 * 8;
      fa[i] = pair(a[row * K + k], a[row * K + k + 1]);
    }
    for (int i = 0; i < 2; ++i) fb[i] = pair(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
    mma_m16n8k16<T>(fc, fa, fb);
  }
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fc[i];
}

TEST_F(EmulatorTest, TensorCoreProducts) {
  const auto check = [&](void (*kernel)(const float*, const float*, float*), int K) {
    std::vector<float> a(16 * K), b(K * 8);
    for (size_t i = 0; i < a.size(); ++i) a[i] = float(int(i * 7 % 23) - 11);
    for (size_t i = 0; i < b.size(); ++i) b[i] = float(int(i * 5 % 19) - 9);
    float* c = allocate<float>(16 * 8);
    EXPECT_EQ(run_blocks(1, 32, kernel, 0, upload(a), upload(b), c), "");
    const std::vector<float> got = download(c, 16 * 8);
    int wrong = 0;
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        float sum = 0.f;
        for (int k = 0; k < K; ++k) sum += a[m * K + k] * b[k * 8 + n];
        wrong += got[m * 8 + n] != sum;
      }
    return wrong;
  };
  EXPECT_EQ(check(product<bf16, false>, 16), 0);
  EXPECT_EQ(check(product<f16, false>, 16), 0);
  EXPECT_EQ(check(product<float, false>, 8), 0);
  EXPECT_GT(check(product<bf16, true>, 16), 32) << "swapped fragments must show";
}

__global__ void load_matrices(uint32_t* y, bool transposed) {
  Shared<bf16> s(0, 32 * 8);  // 32 rows of 8: four matrices
  const int t = int(threadIdx.x);
  for (int j = 0; j < 8; ++j) {
    bf16 v;
    v.bits = uint16_t(t * 8 + j);  // 64 m + 8 row + column
    s[t * 8 + j] = v;
  }
  __syncthreads();
  uint32_t r[4];
  if (transposed) ldmatrix_x4_trans(r, s, t * 8);
  else ldmatrix_x4(r, s, t * 8);
  for (int j = 0; j < 4; ++j) y[4 * t + j] = r[j];
}

TEST_F(EmulatorTest, MatrixLoads) {
  uint32_t* y = allocate<uint32_t>(4 * 32);
  for (const bool transposed : {false, true}) {
    ASSERT_EQ(run_blocks(1, 32, load_matrices, 512, y, transposed), "");
    const std::vector<uint32_t> got = download(y, 4 * 32);
    for (uint32_t lane = 0; lane < 32; ++lane)
      for (uint32_t j = 0; j < 4; ++j) {
        const uint32_t g = lane / 4, t = lane % 4;
        const uint32_t low = transposed ? 8 * (2 * t) + g : 8 * g + 2 * t, high = transposed ? low + 8 : low + 1;
        ASSERT_EQ(got[4 * lane + j], (64 * j + low) | (64 * j + high) << 16) << "lane " << lane << " matrix " << j;
      }
  }
}

TEST(EmulatorModel, Tf32Rounding) {
  EXPECT_EQ(to_tf32(1.f), 0x3f800000u);
  EXPECT_EQ(to_tf32(__uint_as_float(0x3f801000u)), 0x3f802000u);  // a tie goes away from zero
  EXPECT_EQ(to_tf32(__uint_as_float(0xbf801000u)), 0xbf802000u);
  EXPECT_EQ(to_tf32(__uint_as_float(0x3f800fffu)), 0x3f800000u);
  EXPECT_EQ(to_tf32(__uint_as_float(0x7f800000u)), 0x7f800000u);
  EXPECT_TRUE(std::isnan(__uint_as_float(to_tf32(__uint_as_float(0x7f800001u)))));
}

// ---- the runtime ----

TEST_F(EmulatorTest, MemoryIsPoisonedAndCopiesAreChecked) {
  float* y = allocate<float>(10);
  for (const float v : download(y, 10)) EXPECT_TRUE(std::isnan(v));
  float host[11] = {};
  EXPECT_EQ(cudaMemcpyAsync(host, y, 44, cudaMemcpyDeviceToHost, stream()), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(y, host, 44, cudaMemcpyHostToDevice, stream()), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(host, y, 40, cudaMemcpyHostToDevice, stream()), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(y, y + 5, 20, cudaMemcpyDeviceToHost, stream()), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(y + 1, 0, 40, stream()), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaFree(host), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(y, 0, 40, stream()), cudaSuccess);
  EXPECT_EQ(download(y, 10)[9], 0.f);

  float* z = nullptr;
  ASSERT_EQ(cudaMalloc(&z, 7), cudaSuccess);
  reinterpret_cast<char*>(z)[7] = 1;
  EXPECT_EQ(cudaFree(z), cudaErrorIllegalAddress);
}

TEST_F(EmulatorTest, OutOfMemory) {
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  set_emulator_memory(total - free + 1000);
  void* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, 1001), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&p, 1000), cudaSuccess);
  size_t left = 1;
  cudaMemGetInfo(&left, &total);
  EXPECT_EQ(left, 0u);
  EXPECT_EQ(cudaFree(p), cudaSuccess);
  set_emulator_memory(size_t{1} << 30);
}

TEST_F(EmulatorTest, GraphsRecordAndReplay) {
  const int n = 100;
  float *x = upload(counting(n)), *y = upload(std::vector<float>(n));
  ASSERT_EQ(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(y, x, n * 4, cudaMemcpyDeviceToDevice, stream()), cudaSuccess);
  EXPECT_EQ(run_blocks(2, kThreads, add_one, 0, x, n), "");
  EXPECT_EQ(run_blocks(2, kThreads, add_one, 0, y, n), "");
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream(), &graph), cudaSuccess);
  EXPECT_EQ(download(x, n)[7], 7.f) << "nothing runs while it is recorded";

  size_t count = 0;
  EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &count), cudaSuccess);
  std::vector<cudaGraphNode_t> nodes(count);
  EXPECT_EQ(cudaGraphGetNodes(graph, nodes.data(), &count), cudaSuccess);
  std::vector<cudaGraphNodeType> types(count);
  for (size_t i = 0; i < count; ++i) EXPECT_EQ(cudaGraphNodeGetType(nodes[i], &types[i]), cudaSuccess);
  EXPECT_EQ(types, (std::vector{cudaGraphNodeTypeMemcpy, cudaGraphNodeTypeKernel, cudaGraphNodeTypeKernel}));

  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(cudaGraphLaunch(exec, stream()), cudaSuccess);
  EXPECT_EQ(download(x, n)[7], 10.f);
  EXPECT_EQ(download(y, n)[7], 10.f);
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
}

TEST_F(EmulatorTest, WhatACaptureCannotHave) {
  cudaGraph_t graph = nullptr;
  void* p = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&p, 4), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream(), &graph), cudaErrorStreamCaptureInvalidated);
  ASSERT_EQ(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream()), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream(), &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamSynchronize(stream()), cudaSuccess);
}

TEST_F(EmulatorTest, EventsMeasure) {
  cudaEvent_t start = nullptr, end = nullptr;
  cudaEventCreate(&start);
  cudaEventCreate(&end);
  cudaEventRecord(start, stream());
  float* y = upload(counting(10000));
  EXPECT_EQ(run_blocks(200, kThreads, add_one, 0, y, 10000), "");
  cudaEventRecord(end, stream());
  cudaEventSynchronize(end);
  float milliseconds = 0.f;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaSuccess);
  EXPECT_GT(milliseconds, 0.f);
  cudaEventDestroy(start);
  cudaEventDestroy(end);
}

}  // namespace
}  // namespace switchback::emulated
