// What a Resampling's tables say, where kernels can read it.
#pragma once

#include <cstring>

#include "kernels/device/cuda.cuh"
#include "kernels/move/resample.h"

namespace switchback::SB_DEVICE {

// Resampling::Tables on the device.
struct ResampleTables {
  const int32_t *first_row, *first_column;
  const Resampling::Tap *rows, *columns;
  const int32_t* channels;  // or null
};

// All five arrays one behind the other, each at a multiple of 8 bytes.
struct ResampleLayout {
  size_t offset[5], bytes;
  explicit ResampleLayout(const Resampling::Tables& t) {
    const size_t sizes[] = {t.rows.first.size() * 4, t.columns.first.size() * 4,
                            t.rows.taps.size() * sizeof(Resampling::Tap),
                            t.columns.taps.size() * sizeof(Resampling::Tap), t.channels.size() * 4};
    bytes = 0;
    for (int i = 0; i < 5; ++i) offset[i] = bytes, bytes += (sizes[i] + 7) / 8 * 8;
  }
};

inline ResampleTables tables_on_device(Context& ctx, const Resampling& r, bool backward) {
  const Resampling::Tables& t = backward ? r.backward() : r.forward();
  const ResampleLayout layout(t);
  const char* base = static_cast<const char*>(r.device().get(ctx, backward ? 1 : 0, [&] {
    std::vector<char> bytes(layout.bytes);
    const auto put = [&](int i, const auto& values) {
      if (!values.empty())
        std::memcpy(bytes.data() + layout.offset[i], values.data(), values.size() * sizeof(values[0]));
    };
    put(0, t.rows.first), put(1, t.columns.first), put(2, t.rows.taps), put(3, t.columns.taps), put(4, t.channels);
    return bytes;
  }));
  const auto at = [&](int i) { return static_cast<const void*>(base + layout.offset[i]); };
  return {static_cast<const int32_t*>(at(0)), static_cast<const int32_t*>(at(1)),
          static_cast<const Resampling::Tap*>(at(2)), static_cast<const Resampling::Tap*>(at(3)),
          t.channels.empty() ? nullptr : static_cast<const int32_t*>(at(4))};
}

}  // namespace switchback::SB_DEVICE
