// Receptive fields: the box of every map that a unit depends on, and tapes cut down to such boxes, so that a backward
// pass is run on them alone. Exact: outside of the boxes the gradient is zero.
#pragma once

#include <span>
#include <vector>

#include "engine/lists.h"
#include "engine/run/plan.h"

namespace switchback {

// Rows [top, top + height) and columns [left, left + width) of a map.
struct FieldBox {
  int64_t top = 0, left = 0, height = 0, width = 0;
  bool operator==(const FieldBox&) const = default;
};

struct Field {
  List<FieldBox> boxes;  // of every node's value; height 0 where the unit does not depend on it
  List<Layer> layers;    // of every node, with the padding that the boxes leave
  // Equal for two fields where a backward pass made for the one serves the other: boxes of the same sizes, and the same
  // padding between them.
  std::vector<int64_t> form() const;
};

// The field of the unit at (row, column) of node `node`. Where branches join, boxes grow until they agree; layers that
// mix all positions (linear, global pools) take whole maps.
Field receptive_field(const Plan& plan, int node, int64_t row, int64_t column);

// The parts of a tape that fields of one form need: item p of `out` is the cut-out of item items[p] at fields[p].
// `out`'s memory is reused.
void cut_tape(Context& ctx, const Plan& plan, const Tape& tape, std::span<const Field* const> fields,
              std::span<const int64_t> items, Tape& out);
size_t cut_tape_bytes(const Plan& plan, const Field& field);  // for each item of `out`

}  // namespace switchback
