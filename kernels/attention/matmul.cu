// Products of matrices: a thread sums up one element, in the order of k. Plain, not fast: attention has kernels of its own.
#include "kernels/attention/matmul.h"

#include "kernels/device/ops.cuh"
#include "kernels/move/gather.cuh"

namespace switchback::SB_DEVICE {
namespace {

// One operand: element (row, k) or (k, column) of group g of an item.
template <typename T>
struct Operands {
  const T *a, *b;
  int groups, per_group;  // of an item; rows of a result's group
  int depth;
  int64_t a_item, a_group, b_item, b_group;
  int a_row, a_k, b_k, b_column;
  __device__ __forceinline__ float sum(int a_of, int b_of, int place, int column) const {
    const int group = place / per_group, row = place - group * per_group;
    const T* left = a + a_of * a_item + group * a_group + int64_t(row) * a_row;
    const T* right = b + b_of * b_item + group * b_group + int64_t(column) * b_column;
    float sum = 0.f;
    for (int k = 0; k < depth; ++k) sum = fmaf(to_float(left[int64_t(k) * a_k]), to_float(right[int64_t(k) * b_k]), sum);
    return sum;
  }
};

template <typename T>
__global__ void matmul_forward_kernel(Spread spread, Operands<T> o, T* y) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  y[pixel_of(spread, spot) * spread.channels + spot.channel] =
      from_float<T>(o.sum(spot.item, spot.item, spot.place, spot.channel));
}

// kKept: which of the operands is the tape's.
template <typename T, int kKept>
__global__ void matmul_backward_kernel(Spread spread, Operands<T> o, BackwardEnd<T> end) {
  const Spot spot = spot_of<1>(spread);
  if (!spot.live) return;
  const int kept = kept_item_of(end, spot.item);
  float v[1] = {o.sum(kKept == 0 ? kept : spot.item, kKept == 1 ? kept : spot.item, spot.place, spot.channel)};
  finish(end, spot.item, spot.place, spot.channel, v);
}

}  // namespace

void matmul_forward(Context& ctx, ConstView a, ConstView b, View y) {
  const int m = int(a.shape.w), k = int(a.shape.c), n = int(b.shape.c);
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    const Operands<T> o{a.as<T>(), b.as<T>(), int(a.shape.h), m, k, a.shape.item(), int64_t(m) * k, b.shape.item(),
                        int64_t(k) * n, k, 1, n, 1};
    spread_over<1>(y.shape, [&](Spread spread, dim3 grid, dim3 block) {
      launch(ctx, {"matmul_forward", y.shape, grid, block}, matmul_forward_kernel<T>, spread, o, y.as<T>());
    });
  });
}

void matmul_backward(Context& ctx, int operand, ConstView dy, ConstView a, ConstView b, View dx, const BackwardEpilogue& epilogue) {
  const int m = int(a.shape.w), k = int(a.shape.c), n = int(b.shape.c);
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    spread_over<1>(dx.shape, [&](Spread spread, dim3 grid, dim3 block) {
      const Launch how{"matmul_backward", dx.shape, grid, block};
      if (operand == 0) {  // dx [m,k] = dy [m,n] · b [k,n] transposed
        const Operands<T> o{dy.as<T>(), b.as<T>(), int(a.shape.h), m, n, dy.shape.item(), int64_t(m) * n, b.shape.item(),
                            int64_t(k) * n, n, 1, 1, n};
        launch(ctx, how, matmul_backward_kernel<T, 1>, spread, o, backward_end<T>(dx, epilogue));
      } else {  // dx [k,n] = a [m,k] transposed · dy [m,n]
        const Operands<T> o{a.as<T>(), dy.as<T>(), int(a.shape.h), k, m, a.shape.item(), int64_t(m) * k, dy.shape.item(),
                            int64_t(m) * n, 1, k, n, 1};
        launch(ctx, how, matmul_backward_kernel<T, 0>, spread, o, backward_end<T>(dx, epilogue));
      }
    });
  });
}

}  // namespace switchback::SB_DEVICE
