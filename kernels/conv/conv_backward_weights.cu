// Gradients of weights: a block makes 16 output channels × 16 of the weights of each, from 16 places at a time. Every
// sum is one thread's, places in order, an item's sum before it is added.
#include "kernels/device/ops.cuh"
#include "kernels/sliding.h"

namespace switchback::SB_DEVICE {
namespace {

constexpr int kTile = 16;

struct Problem {
  int items, places, width;             // of dy
  int in_h, in_w, in_channels, out_channels;
  int inputs, outputs, depth;           // of a group; depth: inputs · taps, in the order of the weights
  int taps, kernel_w;
  SlidingAxisOf<int> down, along;
  bool apart;  // false: a single sum over all items, which have one place each
};

// Where weight k of an output channel reads: channel of the group, row and column of the kernel.
struct Reads {
  int channel, r, s;
  __device__ __forceinline__ Reads(const Problem& p, int k)
      : channel(k / p.taps), r(k % p.taps / p.kernel_w), s(k % p.kernel_w) {}
};

__global__ void backward_weights_kernel(Problem p, const float* x, const float* dy, float* dw) {
  const Shared<float> a(0, kTile * kTile), b(kTile * kTile * int(sizeof(float)), kTile * kTile);
  const int tx = threadIdx.x, ty = threadIdx.y, group = blockIdx.z;
  const int k = blockIdx.x * kTile + tx, o = blockIdx.y * kTile;  // this thread's weight is (o + ty, k)
  const Reads reads(p, k < p.depth ? k : 0);
  const bool live = k < p.depth && o + ty < p.outputs;
  float* to = dw + (int64_t(group) * p.outputs + o + ty) * p.depth + k;
  float total = live ? *to : 0.f;
  const int length = p.apart ? p.places : p.items, rounds = p.apart ? p.items : 1;
  for (int round = 0; round < rounds; ++round) {
    float sum = p.apart ? 0.f : total;
    for (int first = 0; first < length; first += kTile) {
      const int at = first + ty, item = p.apart ? round : at, place = p.apart ? at : 0;  // that this thread loads
      float of_x = 0.f, of_dy = 0.f;
      if (at < length) {
        if (o + tx < p.outputs)
          of_dy = dy[(int64_t(item) * p.places + place) * p.out_channels + group * p.outputs + o + tx];
        const int h = p.down.input(place / p.width, reads.r), w = p.along.input(place % p.width, reads.s);
        if (k < p.depth && h >= 0 && h < p.in_h && w >= 0 && w < p.in_w)
          of_x = x[((int64_t(item) * p.in_h + h) * p.in_w + w) * p.in_channels + group * p.inputs + reads.channel];
      }
      a[ty * kTile + tx] = of_dy;
      b[ty * kTile + tx] = of_x;
      __syncthreads();
      const int count = min(kTile, length - first);
      for (int i = 0; i < count; ++i) sum = fmaf(a[i * kTile + ty], b[i * kTile + tx], sum);
      __syncthreads();
    }
    total = p.apart ? total + sum : sum;
  }
  if (live) *to = total;
}

}  // namespace

void conv2d_backward_weights(Context& ctx, const Conv2d& v, ConstView x, ConstView dy, float* dw) {
  if (dy.shape.count() == 0) return;
  Problem p{};
  p.items = int(dy.shape.n), p.places = int(dy.shape.h * dy.shape.w), p.width = int(dy.shape.w);
  p.in_h = int(x.shape.h), p.in_w = int(x.shape.w), p.in_channels = int(x.shape.c), p.out_channels = int(dy.shape.c);
  p.inputs = int(v.in_channels / v.groups), p.outputs = int(v.out_channels / v.groups);
  p.taps = int(v.kernel_h * v.kernel_w), p.kernel_w = int(v.kernel_w), p.depth = p.inputs * p.taps;
  p.down = sliding_rows<int>(v), p.along = sliding_columns<int>(v);
  p.apart = p.places > 1;
  const dim3 grid(unsigned(ceil_div(p.depth, kTile)), unsigned(ceil_div(p.outputs, kTile)), unsigned(v.groups));
  launch(ctx, {"conv2d_backward_weights", dy.shape, grid, dim3(kTile, kTile), 2 * kTile * kTile * sizeof(float)},
         backward_weights_kernel, p, x.as<float>(), dy.as<float>(), dw);
}

}  // namespace switchback::SB_DEVICE
