// Etalons of units at positions: everything outside of a unit's receptive field is zero, so that only the fields are
// computed. Units of one place share a cut-out of the tape; places whose fields have one form share a pass, whether the
// fields overlap or not.
#include <algorithm>
#include <cstring>
#include <map>

#include "kernels/pointwise/pointwise.h"
#include "viz/methods/batches.h"
#include "viz/methods/etalon_group.h"

namespace switchback {
namespace {

// Floats of one box of an image [C,H,W], as [C,height,width].
void copy_box(const float* image, Shape s, const FieldBox& box, float* to) {
  for (int64_t c = 0; c < s.c; ++c)
    for (int64_t h = 0; h < box.height; ++h, to += box.width)
      std::memcpy(to, image + (c * s.h + box.top + h) * s.w + box.left, size_t(box.width) * sizeof(float));
}
// And back.
void paste_box(const float* from, Shape s, const FieldBox& box, float* image) {
  for (int64_t c = 0; c < s.c; ++c)
    for (int64_t h = 0; h < box.height; ++h, from += box.width)
      std::memcpy(image + (c * s.h + box.top + h) * s.w + box.left, from, size_t(box.width) * sizeof(float));
}
void clear_box(Shape s, const FieldBox& box, float* image) {
  for (int64_t c = 0; c < s.c; ++c)
    for (int64_t h = 0; h < box.height; ++h)
      std::fill_n(image + (c * s.h + box.top + h) * s.w + box.left, box.width, 0.f);
}

}  // namespace

void Etalons::group_units(const std::vector<Unit>& units) {
  if (units == grouped_) return;
  groups_.clear();
  grouped_ = units;
  std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> places;
  for (size_t p = 0; p < units.size(); ++p) places[{units[p].row, units[p].col}].push_back(int64_t(p));
  std::map<std::vector<int64_t>, Group*> by_form;
  for (auto& [place, here] : places) {
    Field field = receptive_field(*plan_, node_, place.first, place.second);
    std::vector<int64_t> form = field.form();
    form.push_back(int64_t(here.size()));
    Group*& group = by_form[form];
    if (!group) group = groups_.emplace_back(std::make_unique<Group>()).get();
    group->places.push_back({std::move(field), std::move(here)});
  }
}

// The backward pass of a group: as many places and units at once as gain from it and fit into memory.
void Etalons::prepare(Group& group) {
  if (group.backward) return;
  const Field& field = group.places[0].field;
  const int64_t places = int64_t(group.places.size()), units = int64_t(group.places[0].units.size());
  const Shape crop{1, image_.c, field.boxes[0].height, field.boxes[0].width};
  const int64_t wanted = options_.batch > 0 ? options_.batch : useful_batch(ctx_, crop);
  group.seeds = std::min(units, wanted);
  group.at_once = group.seeds < units ? 1 : std::clamp<int64_t>(wanted / units, 1, places);
  const auto make = [&] {
    group.backward.emplace(*plan_, node_, Wanted{.nodes = {0}}, group.at_once * group.seeds,
                           BackwardOptions{.offsets = true, .field = &field});
    const size_t maps = size_t(group.at_once * group.seeds * crop.item()) * sizeof(float);
    const size_t tapes = plan_->tape_bytes() + size_t(group.at_once) * cut_tape_bytes(*plan_, field);
    const size_t bytes = std::max(plan_->arena_bytes(), group.backward->arena_bytes()) + plan_->own_bytes() + tapes + maps;
    const bool least = group.at_once * group.seeds == 1;  // which is taken whatever is allowed
    return Trial{least ? 0 : bytes, [&] { group.backward->reserve(); }};
  };
  const auto smaller = [&](bool) {
    if (group.at_once * group.seeds == 1) return false;
    int64_t& fewer = group.at_once > 1 ? group.at_once : group.seeds;
    fewer = std::max<int64_t>(1, fewer * 3 / 4);
    return true;
  };
  fit(limit_, "an etalon", make, smaller);
}

void Etalons::run_fields(const float* x, EtalonInput& input, const Sink& sink) {
  group_units(input.explained.units);
  row_.assign(size_t(image_.item()), 0.f);
  int64_t done = 0;
  for (const std::unique_ptr<Group>& group : groups_) {
    prepare(*group);
    run_group(*group, x, input, sink);
    done += int64_t(group->places.size() * group->places[0].units.size());
    if (options_.progress) options_.progress(done, units_);
  }
}

void Etalons::run_group(Group& group, const float* x, EtalonInput& input, const Sink& sink) {
  const int64_t places = int64_t(group.places.size()), units = int64_t(group.places[0].units.size());
  const FieldBox form = group.places[0].field.boxes[0];
  const int64_t crop = image_.c * form.height * form.width;
  std::vector<float> pixels(static_cast<size_t>(crop));
  for (int64_t done = 0; done < places; done += group.at_once) {
    // All passes of a group have the same size, as convolutions are made ready for one: the last one goes back and does
    // some units again.
    const int64_t first = std::max<int64_t>(0, std::min(done, places - group.at_once));
    std::vector<const Field*> fields;
    for (int64_t k = 0; k < group.at_once; ++k) fields.push_back(&group.places[size_t(first + k)].field);
    cut_tape(ctx_, *plan_, tape_, fields, std::vector<int64_t>(fields.size(), 0), cut_);
    for (int64_t known = 0; known < units; known += group.seeds) {
      const int64_t unit = std::min(known, units - group.seeds);
      run_places(group, first, unit);
      for (int64_t k = done - first; k < group.at_once; ++k) {
        const Group::Place& place = group.places[size_t(first + k)];
        copy_box(x, image_, place.field.boxes[0], pixels.data());
        for (int64_t s = known - unit; s < group.seeds; ++s) {
          const int64_t p = k * group.seeds + s, target = place.units[size_t(unit + s)];
          EtalonCheck& check = input.checks[size_t(target)];
          check.bias = sums_[size_t(p)].sum;
          check.magnitude = sums_[size_t(p)].magnitude;
          add_products(maps_.data() + p * crop, pixels.data(), crop, check);
          paste_box(maps_.data() + p * crop, image_, place.field.boxes[0], row_.data());
          sink(0, target, 1, row_.data());
        }
        clear_box(image_, place.field.boxes[0], row_.data());
      }
    }
  }
}

// One backward pass: units `unit` … of the places `first` …, into maps_ [places·units, C, height, width] and sums_.
void Etalons::run_places(Group& group, int64_t first, int64_t unit) {
  const int64_t n = group.at_once * group.seeds;
  std::vector<SeedUnit> seeds;
  for (int64_t k = 0; k < group.at_once; ++k) {
    const Group::Place& place = group.places[size_t(first + k)];
    const FieldBox& box = place.field.boxes[plan_->holder(node_)];
    for (int64_t s = 0; s < group.seeds; ++s) {
      const Unit& u = grouped_[size_t(place.units[size_t(unit + s)])];
      seeds.push_back({u.channel, u.row - box.top, u.col - box.left});
    }
  }
  one_hot(ctx_, group.backward->seed(n), seeds);
  if (device_sums_.size() < size_t(n) * sizeof(OffsetSum)) device_sums_ = ctx_.allocate(size_t(n) * sizeof(OffsetSum));
  ctx_.zero(device_sums_.data(), device_sums_.size());
  const ConstView g = group.backward->run(cut_, {.seeds_per_item = group.seeds, .offsets = device_sums_.as<OffsetSum>()});
  maps_.resize(size_t(g.shape.count()));
  sums_.resize(size_t(n));
  read_nchw(ctx_, g, maps_.data());
  ctx_.copy_out(sums_.data(), device_sums_.data(), size_t(n) * sizeof(OffsetSum));
}

}  // namespace switchback
