// Patches: how the values of a network change when a rectangle of its input does (occlusion). Only a rectangle of every
// map changes then, so the change Δ = x' − x is kept on patches: item p of a patch view [P,h,w,C] holds Δ at rows
// origins[p].row … + h − 1 and columns origins[p].col … + w − 1 of the map, and Δ is zero everywhere else. What maps
// are without the change, "clean", is kept once for all items: [1,H,W,C].
//
// Linear layers act on Δ alone (a convolution without its bias), so a layer costs what its patch costs, not its map.
// All views have one element type, f32 or bf16 (GPUs: or f16); sums are f32. Pointers to origins and boxes are on the
// context's device.
#pragma once

#include <cstdint>

#include "kernels/device/context.h"
#include "kernels/pool/pool.h"
#include "kernels/move/resample.h"
#include "kernels/types.h"

namespace switchback {

struct Origin {
  int32_t row = 0, col = 0;
};

struct Box {
  int32_t row = 0, col = 0, height = 0, width = 0;
  bool operator==(const Box&) const = default;
  template <typename A>
  void fields(A& a) {
    a(row, col, height, width);
  }
};

// A layer's value as its readers see it: act(clean + Δ), whose change is act(clean + Δ) − act(clean), or just Δ where
// there is no ReLU. Each of these sums is rounded to f32, and only what is written to the element type. The ReLU is
// applied by whoever reads, so that it is no pass of its own. Patches lie inside the map (but see gather_changes); the
// CPU checks that, a GPU reads and writes elsewhere where they do not.
struct Change {
  ConstView patch;                   // Δ before the ReLU: [P,h,w,C]
  const Origin* origins = nullptr;   // [P]
  ConstView clean;                   // before the ReLU: [1,H,W,C]
  bool relu = false;                 // act = min(max(·, 0), clip), NaN passes; else the identity
  float clip = kNoClip;
};

// Channels `channel` … + C − 1 of y [P,h',w',≥C] = the change of x at y's places; zero outside of the map and of x's
// patches. y's patches may reach beyond the map: the padding of a convolution that follows. So may x's where there is no
// ReLU: what a transposed convolution gives before it is cut. Other channels of y stay.
void gather_changes(Context& ctx, const Change& x, const Origin* origins, View y, int64_t channel = 0);
// y [P,h',w',C] += the change of x at y's places, which lie inside the map.
void add_changes(Context& ctx, const Change& x, const Origin* origins, View y);
// y [P,h',w',C] = the values (not the changes) of x at y's places, which lie inside the map.
void gather_values(Context& ctx, const Change& x, const Origin* origins, View y);
// y [P,h',w',C] −= clean [1,H,W,C] at y's places: from new values to changes.
void subtract_clean(Context& ctx, ConstView clean, const Origin* origins, View y);
// y [P,H,W,C]: the values of whole maps.
void expand_patches(Context& ctx, const Change& x, View y);

// y [P,h',w',C]: by how much the outputs of a max pool of x's values change, at y's places, which lie inside the pooled
// map. `clean` is that map without the change, [1,H',W',C]. NaN as in max_pool2d_forward, but outputs whose pooling
// windows hold no place of x's patch change by exactly 0, NaN or not.
void max_pool2d_changes(Context& ctx, const MaxPool2d& pool, const Change& x, ConstView clean, const Origin* origins,
                        View y);
// The same for an average pool, which is linear: y is the sum of x's changes over each window, divided as
// avg_pool2d_forward divides.
void avg_pool2d_changes(Context& ctx, const AvgPool2d& pool, const Change& x, const Origin* origins, View y);

// The changes of what a Resize, Pad, Slice or ChannelShuffle makes of x, at y's places, which lie inside the resampled
// map: weighted sums of x's changes. Its constant drops out.
void resample_changes(Context& ctx, const Resampling& resampling, const Change& x, const Origin* origins, View y);

// The change of the input: y [P,h,w,C] = baseline − x inside boxes[p], zero outside. x, baseline: [1,H,W,C]. A box may
// reach beyond the image.
void occlude_patches(Context& ctx, ConstView x, ConstView baseline, const Box* boxes, const Origin* origins, View y);
// Whole images: y [P,H,W,C] = baseline inside boxes[p], x elsewhere.
void occlude_images(Context& ctx, ConstView x, ConstView baseline, const Box* boxes, View y);

}  // namespace switchback
