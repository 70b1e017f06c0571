#include "kernels/epilogue/epilogue.h"

#include "kernels/pointwise/pointwise_loops.h"
#include "kernels/simd.h"

namespace switchback {

void apply_epilogue(Context& ctx, View y, const Epilogue& epilogue, int64_t first, int64_t last) {
  if (!epilogue.residual && !epilogue.relu && !epilogue.gates) return;
  with_type(y.dtype, "epilogue", [&](auto type) {
    using T = decltype(type);
    const ForwardTarget<T> target(y, epilogue);
    const int64_t hw = y.shape.h * y.shape.w, item = first * y.shape.item();
    const int64_t word = first * hw * gate_words_per_pixel(y.shape.c);
    const Groups groups((last - first) * hw, y.shape.c, !epilogue.gates);
    parallel_ranges(ctx, groups.count, 32, [=](int64_t begin, int64_t end) {
      groups.each(begin, end, [&](int64_t element, int64_t group, int64_t size) SB_LAMBDA {
        const T* p = target.y + item + element;
        target.write_group(item + element, word + group, size,
                           [&](int v, int lanes) SB_LAMBDA { return load8(p + 8 * v, lanes); });
      });
    });
  });
}

void apply_epilogue(Context& ctx, View dx, const BackwardEpilogue& epilogue, int64_t first, int64_t last) {
  if (!epilogue.other && !epilogue.relu) return;
  check_epilogue(epilogue, "epilogue");
  with_type(dx.dtype, "epilogue", [&](auto type) {
    using T = decltype(type);
    const BackwardTarget<T> target(dx, epilogue);
    each_gradient_group(ctx, dx.shape, target.gates, epilogue.seeds_per_item, first, last,
                        [=](int64_t element, int64_t word, int64_t size) SB_LAMBDA {
                          const T* p = target.dx + element;
                          target.write_group(element, word, size,
                                             [&](int v, int lanes) SB_LAMBDA { return load8(p + 8 * v, lanes); });
                        });
  });
}

}  // namespace switchback
