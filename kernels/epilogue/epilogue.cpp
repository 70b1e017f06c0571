#include "kernels/epilogue/epilogue.h"

#include "kernels/pointwise/pointwise_loops.h"
#include "kernels/simd.h"

namespace switchback {

namespace {

// From where items [first, last) lie: in `sums`, or, where that is null, in y itself.
void finish(Context& ctx, const float* sums, View y, const Epilogue& epilogue, int64_t first, int64_t last) {
  with_type(y.dtype, "epilogue", [&](auto type) {
    using T = decltype(type);
    const ForwardTarget<T> target(y, epilogue);
    const int64_t hw = y.shape.h * y.shape.w, item = first * y.shape.item();
    const int64_t word = first * hw * gate_words_per_pixel(y.shape.c);
    const Groups groups((last - first) * hw, y.shape.c, !epilogue.gates);
    const auto from = [&](const auto* source) {
      parallel_ranges(ctx, groups.count, 32, [=](int64_t begin, int64_t end) {
        groups.each(begin, end, [&](int64_t element, int64_t group, int64_t size) SB_LAMBDA {
          target.write_group(item + element, word + group, size,
                             [&](int v, int lanes) SB_LAMBDA { return load8(source + element + 8 * v, lanes); });
        });
      });
    };
    sums ? from(sums) : from(target.y + item);
  });
}

void finish(Context& ctx, const float* sums, View dx, const BackwardEpilogue& epilogue, int64_t first, int64_t last) {
  check_epilogue(epilogue, "epilogue");
  with_type(dx.dtype, "epilogue", [&](auto type) {
    using T = decltype(type);
    const BackwardTarget<T> target(dx, epilogue);
    const int64_t item = first * dx.shape.item();
    const auto from = [&](const auto* source) {
      each_gradient_group(ctx, dx.shape, target.gates, epilogue.seeds_per_item, first, last,
                          [=](int64_t element, int64_t word, int64_t size) SB_LAMBDA {
                            target.write_group(element, word, size, [&](int v, int lanes) SB_LAMBDA {
                              return load8(source + element - item + 8 * v, lanes);
                            });
                          });
    };
    sums ? from(sums) : from(target.dx + item);
  });
}

}  // namespace

void apply_epilogue(Context& ctx, View y, const Epilogue& epilogue, int64_t first, int64_t last) {
  if (epilogue.residual || epilogue.relu || epilogue.gates) finish(ctx, nullptr, y, epilogue, first, last);
}
void apply_epilogue(Context& ctx, View dx, const BackwardEpilogue& epilogue, int64_t first, int64_t last) {
  if (epilogue.other || epilogue.relu) finish(ctx, nullptr, dx, epilogue, first, last);
}
void store_sums(Context& ctx, const float* sums, View y, const Epilogue& epilogue, int64_t first, int64_t last) {
  finish(ctx, sums, y, epilogue, first, last);
}
void store_sums(Context& ctx, const float* sums, View dx, const BackwardEpilogue& epilogue, int64_t first, int64_t last) {
  finish(ctx, sums, dx, epilogue, first, last);
}

}  // namespace switchback
