#include "engine/layers/calls.h"

#include "engine/layers/homes.h"

namespace switchback {

void forward(const Layer& layer, const ForwardCall& call) {
  std::visit([&]<typename L>(const L& l) { Home<L>::forward(l, call); }, layer);
}
void backward(const Layer& layer, const BackwardCall& call) {
  std::visit([&]<typename L>(const L& l) { Home<L>::backward(l, call); }, layer);
}
void learn(const Layer& layer, const LearnCall& call) {
  std::visit([&]<typename L>(const L& l) { Home<L>::learn(l, call); }, layer);
}
void frozen(const Layer& layer, const FrozenCall& call) {
  std::visit([&]<typename L>(const L& l) { Home<L>::frozen(l, call); }, layer);
}
std::vector<PatchScratch> scratch(const Layer& layer, Shapes inputs, PatchSize x, PatchSize y) {
  return std::visit([&]<typename L>(const L& l) { return Home<L>::scratch(l, inputs, x, y); }, layer);
}
void change(const Layer& layer, const ChangeCall& call) {
  std::visit([&]<typename L>(const L& l) { Home<L>::change(l, call); }, layer);
}

const StepShift* step_shift(const Layer& layer, const StepWeights& weights, Shapes inputs) {
  const StepShift& shift = weights.packed<StepShift>(
      [&] {
        StepShift made;
        std::visit([&]<typename L>(const L& l) { Home<L>::shift(l, weights, inputs, made); }, layer);
        return made;
      },
      {inputs[0].c, inputs[0].h, inputs[0].w});
  return shift.array.values.empty() ? nullptr : &shift;
}

std::optional<GateConstants> gate_constants(const Layer& layer) {
  return std::visit([]<typename L>(const L& l) { return Home<L>::constants(l); }, layer);
}

}  // namespace switchback
