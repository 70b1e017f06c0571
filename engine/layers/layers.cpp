#include "engine/layers/layers.h"

#include "engine/layers/homes.h"

namespace switchback {

Layer clip_layer(float min, float max) {
  if (min == 0.f) return ReLU{max};
  return Clip{min, max};
}

BinaryConstant by_scalar(BinaryFunction function, float value, bool reversed) {
  return {.function = function, .values = {value}, .reversed = reversed};
}

MaxPool2d whole_map_pool(Shape x) {
  return {.kernel_h = x.h, .kernel_w = x.w, .stride_h = x.h, .stride_w = x.w};
}

std::string_view type_name(const Layer& layer) {
  return std::visit([]<typename L>(const L& l) { return Home<L>::name(l); }, layer);
}
std::string describe(const Layer& layer) {
  return std::visit([]<typename L>(const L& l) { return fmt::format("{}({})", Home<L>::name(l), Home<L>::arguments(l)); },
                    layer);
}
Shape output_shape(const Layer& layer, Shapes inputs) {
  return std::visit([&]<typename L>(const L& l) { return Home<L>::shape(l, inputs); }, layer);
}
std::vector<ParameterSpec> parameters(const Layer& layer) {
  return std::visit([]<typename L>(const L& l) { return Home<L>::parameters(l); }, layer);
}
int64_t flops(const Layer& layer, Shapes inputs) {
  output_shape(layer, inputs);  // throws where it does not fit
  return std::visit([&]<typename L>(const L& l) { return Home<L>::flops(l, inputs); }, layer);
}
Facts facts(const Layer& layer) {
  return std::visit([]<typename L>(const L& l) { return Home<L>::facts(l); }, layer);
}
Keeps keeps(const Layer& layer, Shapes inputs) {
  return std::visit([&]<typename L>(const L& l) { return Home<L>::keeps(l, inputs); }, layer);
}
Learns learns(const Layer& layer) {
  return std::visit([]<typename L>(const L& l) { return Home<L>::learns(l); }, layer);
}
Reach reach(const Layer& layer, Shapes inputs, bool vertical) {
  return std::visit([&]<typename L>(const L& l) { return Home<L>::reach(l, inputs, vertical); }, layer);
}
Padding padding(const Layer& layer) {
  return std::visit([]<typename L>(const L& l) { return Home<L>::padding(l); }, layer);
}
Layer repadded(const Layer& layer, const Padding& padding) {
  return std::visit([&]<typename L>(const L& l) -> Layer { return Home<L>::repadded(l, padding); }, layer);
}

}  // namespace switchback
