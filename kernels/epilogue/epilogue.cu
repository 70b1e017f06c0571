// The epilogues as passes of their own, in place, behind kernels that have none (cuDNN, cuBLASLt). A warp takes 32
// channels of a pixel: memory-bound, every element is read and written once.
#include "kernels/conv/conv.cuh"

namespace switchback::SB_DEVICE {

template <typename T>
__global__ void __launch_bounds__(128) forward_pass_kernel(ForwardEnd<T> end, int images, int places) {
  const int unit = warp_unit(), place = unit / end.words, word = unit % end.words, n = image();
  if (place >= places || n >= images) return;
  const int channel = min(32 * word + int(threadIdx.x & 31), end.channels - 1);  // any value will do past the end
  const int64_t pixel = int64_t(n) * places + place;
  finish(end, pixel, word, to_float(end.y[pixel * end.pitch + channel]));
}

template <typename T>
__global__ void __launch_bounds__(128) backward_pass_kernel(BackwardEnd<T> end, int images) {
  const int unit = warp_unit(), place = unit / end.words, n = image();
  const int channel = unit % end.words * 32 + int(threadIdx.x & 31);
  if (place >= end.places || channel >= end.channels || n >= images) return;
  const int64_t at = (int64_t(n) * end.places + place) * end.channels + channel;
  finish(end, n, place, channel, to_float(end.dx[at]));
}

void epilogue_pass(Context& ctx, View y, const float* bias, const Epilogue& epilogue) {
  if (!bias && !epilogue.residual && !epilogue.relu && !epilogue.gates) return;
  const int64_t places = y.shape.h * y.shape.w;
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, warp_launch("epilogue", y.shape, places * gate_words_per_pixel(y.shape.c)), forward_pass_kernel<T>,
           forward_end<T>(y, bias, epilogue), int(y.shape.n), int(places));
  });
}

void epilogue_pass(Context& ctx, View dx, const BackwardEpilogue& epilogue) {
  if (!epilogue.other && !epilogue.relu) return;
  by_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    launch(ctx, warp_launch("epilogue_backward", dx.shape, dx.shape.h * dx.shape.w * gate_words_per_pixel(dx.shape.c)),
           backward_pass_kernel<T>, backward_end<T>(dx, epilogue), int(dx.shape.n));
  });
}

}  // namespace switchback::SB_DEVICE
