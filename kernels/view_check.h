// What every op checks of its views.
#pragma once

#include <string>

#include "kernels/check.h"
#include "kernels/types.h"

namespace switchback {

inline std::string to_string(Shape s) { return fmt::format("[{},{},{},{}]", s.n, s.c, s.h, s.w); }

inline void check_same(const char* op, ConstView a, ConstView b) {
  CHECK(a.shape == b.shape && a.dtype == b.dtype, "{}: {} {} and {} {} differ", op, name_of(a.dtype), to_string(a.shape),
        name_of(b.dtype), to_string(b.shape));
}

// `v` has this shape and element type.
inline void check_view(const char* op, const char* what, ConstView v, Shape shape, DType dtype) {
  CHECK(v.shape == shape && v.dtype == dtype, "{}: {} is {} {}, must be {} {}", op, what, name_of(v.dtype),
        to_string(v.shape), name_of(dtype), to_string(shape));
}

// `kept`, a value of the tape, serves the items of dx in groups of seeds_per_item.
inline void check_kept(const char* op, ConstView dx, ConstView kept, int64_t seeds_per_item) {
  CHECK(kept.dtype == dx.dtype && kept.shape.with_n(dx.shape.n) == dx.shape &&
            kept.shape.n * seeds_per_item >= dx.shape.n,
        "{}: {} kept items {} do not serve {} seeds each for {}", op, kept.shape.n, to_string(kept.shape), seeds_per_item,
        to_string(dx.shape));
}

}  // namespace switchback
