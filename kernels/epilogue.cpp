#include "kernels/epilogue.h"

#include "kernels/pointwise_loops.h"
#include "kernels/simd.h"

namespace switchback {

void apply_epilogue(View y, const Epilogue& epilogue, int64_t first, int64_t last) {
  if (!epilogue.residual && !epilogue.relu && !epilogue.gates) return;
  with_type(y.dtype, "epilogue", [&](auto type) {
    using T = decltype(type);
    const ForwardTarget<T> target(y, epilogue);
    const int64_t hw = y.shape.h * y.shape.w, words = hw * gate_words_per_pixel(y.shape.c);
    for (int64_t n = first; n < last; ++n) {
      const int64_t item = n * y.shape.item();
      const Groups groups(hw, y.shape.c, !epilogue.gates);
      groups.each(0, groups.count, [&](int64_t element, int64_t group, int64_t size) SB_LAMBDA {
        const T* p = target.y + item + element;
        target.write_group(item + element, n * words + group, size,
                           [&](int v, int lanes) SB_LAMBDA { return load8(p + 8 * v, lanes); });
      });
    }
  });
}

void apply_epilogue(View dx, const BackwardEpilogue& epilogue, int64_t first, int64_t last) {
  if (!epilogue.other && !epilogue.relu) return;
  check_epilogue(epilogue, "epilogue");
  with_type(dx.dtype, "epilogue", [&](auto type) {
    using T = decltype(type);
    const BackwardTarget<T> target(dx, epilogue);
    const int64_t hw = dx.shape.h * dx.shape.w, words = hw * gate_words_per_pixel(dx.shape.c);
    for (int64_t n = first; n < last; ++n) {
      const int64_t item = n * dx.shape.item(), gate_item = n / epilogue.seeds_per_item * words;
      const Groups groups(hw, dx.shape.c, !target.gates);
      groups.each(0, groups.count, [&](int64_t element, int64_t group, int64_t size) SB_LAMBDA {
        const T* p = target.dx + item + element;
        target.write_group(item + element, gate_item + group, size,
                           [&](int v, int lanes) SB_LAMBDA { return load8(p + 8 * v, lanes); });
      });
    }
  });
}

}  // namespace switchback
