// Bugs planted in kernels that the emulated GPU must catch, each beside its correct twin that must pass. A new check =
// a kernel with a parameter that plants the bug, and a test that runs it with and without.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/kernels/emulator_fixture.h"

namespace switchback::emulated {
namespace {

// ---- shared memory ----

__global__ void reverse(float* y, bool barrier) {
  Shared<float> s(0, kThreads);
  const int t = int(threadIdx.x);
  s[t] = float(t);
  if (barrier) __syncthreads();
  y[t] = s[kThreads - 1 - t];
}

TEST_F(EmulatorTest, MissingBarrier) {
  float* y = allocate<float>(kThreads);
  for (const EmulatorMode mode : {EmulatorMode::quick, EmulatorMode::thorough}) {
    set_emulator_mode(mode);
    const std::string said = run(reverse, 4 * kThreads, y, false);
    expect_says(said, "shared-memory race");
    expect_says(said, "planted [1,2,3,4]: block (0,0,0), thread (");
    EXPECT_EQ(run(reverse, 4 * kThreads, y, true), "");
    EXPECT_EQ(download(y, kThreads)[5], float(kThreads - 6));
  }
}

__global__ void shift_in_place(float* y, bool barrier) {
  Shared<float> s(0, kThreads);
  const int t = int(threadIdx.x);
  s[t] = float(t);
  __syncthreads();
  const float next = s[(t + 1) % kThreads];
  if (barrier) __syncthreads();
  s[t] = next;
  y[t] = next;
}

TEST_F(EmulatorTest, WriteAfterRead) {
  float* y = allocate<float>(kThreads);
  expect_says(run(shift_in_place, 4 * kThreads, y, false), "shared-memory race: writes");
  EXPECT_EQ(run(shift_in_place, 4 * kThreads, y, true), "");
}

__global__ void all_write(float* y, bool own) {
  Shared<float> s(0, kThreads);
  s[own ? int(threadIdx.x) : 0] = 1.f;
  __syncthreads();
  y[threadIdx.x] = s[0];
}

TEST_F(EmulatorTest, WriteAfterWrite) {
  float* y = allocate<float>(kThreads);
  expect_says(run(all_write, 4 * kThreads, y, false), "shared-memory race: writes");
  EXPECT_EQ(run(all_write, 4 * kThreads, y, true), "");
}

// All threads read one word, some warp then writes it.
__global__ void broadcast_then_write(float* y, bool barrier) {
  Shared<float> s(0, 1);
  if (threadIdx.x == 0) s[0] = 3.f;
  __syncthreads();
  y[threadIdx.x] = s[0];
  if (barrier) __syncthreads();
  if (threadIdx.x == 17) s[0] = 4.f;
}

TEST_F(EmulatorTest, WriteAfterManyReads) {
  float* y = allocate<float>(kThreads);
  expect_says(run(broadcast_then_write, 4, y, false), "shared-memory race: writes");
  EXPECT_EQ(run(broadcast_then_write, 4, y, true), "");
}

enum class Within { nothing, shuffle, warp, pairs, other_warp };

// Lanes hand values to their neighbours through shared memory, ordered by __syncwarp only.
__global__ void exchange_in_warp(float* y, Within order) {
  Shared<float> s(0, kThreads);
  const int t = int(threadIdx.x), lane = t % 32;
  s[t] = float(t);
  if (order == Within::shuffle) __shfl_sync(kFullMask, t, 0);
  if (order == Within::warp || order == Within::other_warp) __syncwarp();
  if (order == Within::pairs) __syncwarp(3u << (lane & ~1));
  y[t] = s[order == Within::other_warp ? t ^ 32 : t ^ 1];
}

TEST_F(EmulatorTest, SyncwarpOrdersItsLanes) {
  float* y = allocate<float>(kThreads);
  expect_says(run(exchange_in_warp, 4 * kThreads, y, Within::nothing), "shared-memory race");
  expect_says(run(exchange_in_warp, 4 * kThreads, y, Within::shuffle), "shared-memory race");
  expect_says(run(exchange_in_warp, 4 * kThreads, y, Within::other_warp), "shared-memory race");
  EXPECT_EQ(run(exchange_in_warp, 4 * kThreads, y, Within::pairs), "");
  EXPECT_EQ(run(exchange_in_warp, 4 * kThreads, y, Within::warp), "");
  EXPECT_EQ(download(y, kThreads)[6], 7.f);
}

// Threads that write the two halves of one word do not race; threads that share a half, or store whole words, do.
__global__ void halves(float* y, int threads_per_half, int threads_per_word) {
  Shared<bf16> s(0, kThreads);
  const int t = int(threadIdx.x);
  s[t / threads_per_half] = bf16(float(t));
  __syncthreads();
  y[t] = to_float(s[t ^ 1]);
  __syncthreads();
  if (threads_per_word == 2 || t % 2 == 0) s.store<uint32_t>(t & ~1, 0u);
  __syncthreads();
  y[t] += to_float(s[t ^ 1]);
}

TEST_F(EmulatorTest, HalvesOfAWord) {
  float* y = allocate<float>(kThreads);
  expect_says(run(halves, 2 * kThreads, y, 2, 1), "shared-memory race: writes");
  expect_says(run(halves, 2 * kThreads, y, 1, 2), "shared-memory race: writes");
  EXPECT_EQ(run(halves, 2 * kThreads, y, 1, 1), "");
  EXPECT_EQ(download(y, kThreads)[8], 9.f);
}

__global__ void store_at(float* y, int index, int count) {
  Shared<float> s(16, count);
  if (threadIdx.x == 3) s[index] = 1.f;
  y[threadIdx.x] = 0.f;
}

TEST_F(EmulatorTest, SharedOutOfBounds) {
  float* y = allocate<float>(kThreads);
  EXPECT_EQ(run(store_at, 16 + 32, y, 7, 8), "");
  const std::string said = run(store_at, 16 + 32, y, 8, 8);
  expect_says(said, "shared memory out of bounds");
  expect_says(said, "thread (3,0,0)");
  expect_says(run(store_at, 16 + 32, y, -1, 8), "shared memory out of bounds");
  expect_says(run(store_at, 16 + 32, y, 0, 9), "shared memory out of bounds");  // the array does not fit in the block's
}

__global__ void read_unwritten(float* y, bool write) {
  Shared<float> s(0, kThreads);
  if (write) s[int(threadIdx.x)] = 1.f;
  y[threadIdx.x] = s[int(threadIdx.x)];
}

TEST_F(EmulatorTest, UninitialisedShared) {
  float* y = allocate<float>(kThreads);
  ASSERT_EQ(run(read_unwritten, 4 * kThreads, y, true), "");
  EXPECT_EQ(download(y, kThreads)[9], 1.f);
  ASSERT_EQ(run(read_unwritten, 4 * kThreads, y, false), "");
  for (const float v : download(y, kThreads)) EXPECT_TRUE(std::isnan(v));
}

// ---- barriers and warps ----

__global__ void barrier_for(float* y, int threads) {
  y[threadIdx.x] = 1.f;
  if (int(threadIdx.x) < threads) __syncthreads();
  y[threadIdx.x] = 2.f;
}

TEST_F(EmulatorTest, DivergentBarrier) {
  float* y = allocate<float>(kThreads);
  expect_says(run(barrier_for, 0, y, 40), "divergent __syncthreads: 40 of 64 threads");
  EXPECT_EQ(run(barrier_for, 0, y, kThreads), "");
  EXPECT_EQ(run(barrier_for, 0, y, 0), "");
}

enum class Divergence { none, ended, other_operation, other_mask, barrier, outside, absent };

__global__ void diverge(unsigned* y, Divergence how) {
  const int lane = int(threadIdx.x) % 32;
  const unsigned mask = how == Divergence::other_mask && lane > 3 ? ~15u
                        : how == Divergence::outside              ? ~1u
                                                                  : kFullMask;
  if (how == Divergence::ended && lane == 5) return;
  if (how == Divergence::barrier && lane == 5) __syncthreads();
  if (how == Divergence::other_operation && lane == 5) __any_sync(mask, true);
  else y[threadIdx.x] = __ballot_sync(mask, lane % 2);
}

TEST_F(EmulatorTest, DivergentWarpOperation) {
  unsigned* y = allocate<unsigned>(kThreads);
  for (const Divergence how : {Divergence::ended, Divergence::other_operation, Divergence::other_mask,
                               Divergence::barrier, Divergence::outside}) {
    const std::string said = run(diverge, 0, y, how);
    expect_says(said, "divergent warp operation: ");
    expect_says(said, "__ballot_sync");
  }
  expect_says(run_blocks(1, 48, diverge, 0, y, Divergence::absent), "does not exist");
  EXPECT_EQ(run(diverge, 0, y, Divergence::none), "");
  EXPECT_EQ(download(y, kThreads)[40], 0xaaaaaaaau);
}

__global__ void shuffle_half(int* y, int from) {
  const int lane = int(threadIdx.x) % 32;
  if (lane < 16) y[threadIdx.x] = __shfl_sync(0xffffu, lane, from);
}

TEST_F(EmulatorTest, ShuffleFromALaneOutsideTheMask) {
  int* y = allocate<int>(kThreads);
  expect_says(run(shuffle_half, 0, y, 20), "reads lane 20, which is not in the mask");
  EXPECT_EQ(run(shuffle_half, 0, y, 9), "");
  EXPECT_EQ(download(y, 4)[3], 9);
}

__global__ void throws(float*) { fail("from a thread"); }

TEST_F(EmulatorTest, ExceptionInAKernel) {
  expect_says(run(throws, 0, nullptr), "exception in a kernel: from a thread");
}

// ---- global memory ----

__global__ void write_at(float* y, int64_t index) {
  if (threadIdx.x == 0) y[index] = 1.f;
}

TEST_F(EmulatorTest, GlobalOutOfBounds) {
  float* y = allocate<float>(101);
  EXPECT_EQ(run(write_at, 0, y, int64_t(100)), "");
  expect_says(run(write_at, 0, y, int64_t(101)), "planted [1,2,3,4]: wrote out of bounds: 0 bytes behind");
  expect_says(run(write_at, 0, y, int64_t(-2)), "wrote out of bounds: 8 bytes before");
  EXPECT_EQ(run(write_at, 0, y, int64_t(0)), "") << "the canaries are whole again";
}

__global__ void wide(float* y, int offset, int shared_offset) {
  Shared<float> s(0, 4 * kThreads);
  const int t = int(threadIdx.x);
  s.store(4 * t, make_float4(1.f, 2.f, 3.f, 4.f));
  __syncwarp();
  if (t == 0) store_as(y + offset, s.load<float4>(shared_offset));
}

TEST_F(EmulatorTest, WideAccesses) {
  float* y = allocate<float>(8);
  EXPECT_EQ(run(wide, 16 * kThreads, y, 4, 8), "");
  EXPECT_EQ(download(y, 8)[6], 3.f);
  expect_says(run(wide, 16 * kThreads, y, 8, 8), "global memory out of bounds: store_as");
  expect_says(run(wide, 16 * kThreads, y, 2, 8), "misaligned access: store_as");
  expect_says(run(wide, 16 * kThreads, y, 4, 6), "misaligned access: shared memory");
}

// The last thread to come wins, or, correctly, thread 5 of block 1.
__global__ void winner(float* y, bool ordered) {
  if (!ordered || (threadIdx.x == 5 && blockIdx.x == 1)) y[0] = float(100 * blockIdx.x + threadIdx.x);
}

TEST_F(EmulatorTest, ResultThatDependsOnOrder) {
  float* y = allocate<float>(1);
  expect_says(run_blocks(3, kThreads, winner, 0, y, false), "the result depends on the order");
  EXPECT_EQ(run_blocks(3, kThreads, winner, 0, y, true), "");
  EXPECT_EQ(download(y, 1)[0], 105.f);
}

TEST_F(EmulatorTest, RepeatsAddUpOnce) {
  const int n = 1000;
  float* y = upload(counting(n));
  const int64_t before = emulator_launches();
  EXPECT_EQ(run_blocks(unsigned(ceil_div(n, kThreads)), kThreads, add_one, 0, y, n), "");
  EXPECT_EQ(emulator_launches(), before + 1);
  const std::vector<float> got = download(y, n);
  for (int i = 0; i < n; ++i) ASSERT_EQ(got[i], float(i + 1));
}

TEST_F(EmulatorTest, BadLaunches) {
  float* y = allocate<float>(1);
  expect_says(run_blocks(0, 32, add_one, 0, y, 1), "grid 0x1x1");
  expect_says(run_blocks(1, 1025, add_one, 0, y, 1), "block 1025x1x1");
  expect_says(run_blocks(1, 32, add_one, 200 << 10, y, 1), "bytes of shared memory");
}

// ---- asynchronous copies ----

enum class Wait { right, none, too_few, no_commit, no_barrier };

__global__ void staged(const float* x, float* y, Wait wait) {
  Shared<float> s(0, 8 * kThreads);
  const int t = int(threadIdx.x), neighbour = (t + 33) % kThreads;
  cp_async<16>(s, 4 * t, x + 4 * t);
  if (wait != Wait::no_commit) cp_async_commit();
  cp_async<16>(s, 4 * (kThreads + t), x, false);
  cp_async_commit();
  if (wait == Wait::right || wait == Wait::no_barrier) cp_async_wait<0>();
  if (wait == Wait::too_few) cp_async_wait<2>();
  if (wait == Wait::no_commit) cp_async_wait<1>();
  if (wait != Wait::no_barrier) __syncthreads();
  y[t] = s[4 * neighbour] + s[4 * (kThreads + neighbour) + 3];
  __syncthreads();
  cp_async_wait<0>();
}

TEST_F(EmulatorTest, AsynchronousCopies) {
  const float* x = upload(counting(4 * kThreads));
  float* y = allocate<float>(kThreads);
  const size_t shared = 32 * kThreads;
  EXPECT_EQ(run(staged, shared, x, y, Wait::right), "");
  for (int t = 0; t < kThreads; ++t) EXPECT_EQ(download(y, kThreads)[t], float(4 * ((t + 33) % kThreads)));
  for (const Wait wait : {Wait::none, Wait::too_few, Wait::no_commit})
    expect_says(run(staged, shared, x, y, wait), "depends on the order of threads or copies");
  expect_says(run(staged, shared, x, y, Wait::no_barrier), "shared-memory race");

  set_emulator_mode(EmulatorMode::quick);
  EXPECT_EQ(run(staged, shared, x, y, Wait::none), "");
  EXPECT_TRUE(std::isnan(download(y, kThreads)[0]));
}

__global__ void copy_and_end(const float* x, int offset) {
  Shared<float> s(0, 8 * kThreads);
  cp_async<16>(s, 4 * int(threadIdx.x), x + offset);
  cp_async_commit();
  if (offset != 0) cp_async_wait<0>();
}

TEST_F(EmulatorTest, AsynchronousCopiesThatNobodyWaitsFor) {
  const float* x = upload(counting(16));
  expect_says(run(copy_and_end, 32 * kThreads, x, 0), "never waited for");
  expect_says(run(copy_and_end, 32 * kThreads, x, 2), "misaligned access: cp_async");
  expect_says(run(copy_and_end, 32 * kThreads, x, 16), "global memory out of bounds: cp_async");
  EXPECT_EQ(run(copy_and_end, 32 * kThreads, x, 4), "");
}

}  // namespace
}  // namespace switchback::emulated
