#include "engine/run/packed.h"

namespace switchback {

const float* DeviceArray::on(Context& ctx) const {
  if (!ctx.gpu) return values.data();
  return static_cast<const float*>(device->get(ctx, 0, [&] {
    const char* p = reinterpret_cast<const char*>(values.data());
    return std::vector<char>(p, p + values.size() * sizeof(float));
  }));
}

std::span<const float> StepWeights::of(int other, std::string_view name) const {
  const Node& n = network->nodes[other];
  CHECK(!weights->empty(), "{} has no weights; load them first", n.name);
  return weights->values(other, name);
}

const float* StepWeights::on(Context& ctx, std::string_view name) const {
  const Parameter* p = weights->find(node, name);
  return p ? weights->on(ctx) + p->offset : nullptr;
}

}  // namespace switchback
