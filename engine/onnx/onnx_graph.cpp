#include "engine/onnx/onnx_graph.h"

#include <cmath>

namespace switchback {
namespace {

Dims dims_of(Shape s, size_t rank) {
  const Dims all{1, s.c, s.h, s.w};
  for (size_t i = rank; i < all.size(); ++i)
    CHECK(all[i] == 1, "a result of {} that should have {} dimensions", to_string(all), rank);
  return {all.begin(), all.begin() + int64_t(std::min<size_t>(rank, 4))};
}

void check_shape(Shape s) {
  const double elements = double(s.c) * double(s.h) * double(s.w);
  CHECK(s.c > 0 && s.h > 0 && s.w > 0 && elements <= 0x1p36, "a result of [{},{},{}]", s.c, s.h, s.w);
}

}  // namespace

Shape shape_of(const Dims& dims) {
  CHECK(dims.size() >= 2 && dims.size() <= 4 && dims[0] == 1,
        "a tensor of dimensions {} where [N,C,H,W] or [N,C] is wanted (N counts as 1 here)", to_string(dims));
  return {1, dims[1], dims.size() > 2 ? dims[2] : 1, dims.size() > 3 ? dims[3] : 1};
}

void check_sizes(const std::vector<int64_t>& values, const std::string& what, int64_t least) {
  for (int64_t v : values)
    CHECK(v >= least && v <= kMostOnnxSize, "{} of {} (wanted: {} to {})", what, v, least, kMostOnnxSize);
}

std::vector<int64_t> sizes(const OnnxNode& n, std::string_view attribute, std::vector<int64_t> otherwise,
                           int64_t least) {
  const size_t wanted = otherwise.size();
  std::vector<int64_t> values = n.integers(attribute, std::move(otherwise));
  CHECK(values.size() == wanted, "{} has {} numbers, not {}: only two-dimensional maps are supported", attribute,
        values.size(), wanted);
  check_sizes(values, std::string(attribute), least);
  return values;
}

void OnnxGraph::set(const std::string& tensor, OnnxConstant constant) {
  Dims dims = constant.dims;
  set(tensor, OnnxValue{std::make_shared<OnnxConstant>(std::move(constant)), -1, std::move(dims)});
}

const OnnxValue& OnnxGraph::value(const OnnxNode& n, int input) const {
  CHECK(n.has_input(input), "its input {} is missing", input);
  return values_.at(n.input(input));
}

bool OnnxGraph::all_constant(const OnnxNode& n) const {
  for (int i = 0; i < n.inputs(); ++i)
    if (n.has_input(i) && !is_constant(n, i)) return false;
  return n.inputs() > 0;
}

const OnnxConstant& OnnxGraph::constant(const OnnxNode& n, int input, const std::string& what) const {
  const OnnxValue& v = value(n, input);
  CHECK(v.constant != nullptr, "its {} depend on the network's input; only constant ones are supported", what);
  return *v.constant;
}

std::vector<int64_t> OnnxGraph::ints(const OnnxNode& n, int input, const std::string& what) const {
  return constant(n, input, what).as_ints("its " + what);
}

float OnnxGraph::scalar(const OnnxNode& n, int input, const std::string& what) const {
  const OnnxConstant& c = constant(n, input, what);
  CHECK(c.count() == 1, "its {} has {} values", what, c.count());
  return c.as_floats()[0];
}

bool OnnxGraph::only_reader(const std::string& tensor) const {
  const auto found = readers_.find(tensor);
  return found != readers_.end() && found->second == 1;
}

int OnnxGraph::node(const OnnxNode& n, int input) {
  CHECK(!is_constant(n, input), "its input {} is constant", input);
  OnnxValue& v = values_.at(n.input(input));
  return v.node = node_shaped(n, v, v.dims);
}

int OnnxGraph::node_shaped(const OnnxNode& n, const OnnxValue& value, const Dims& dims) {
  const Shape wanted = shape_of(dims);
  if (shape(value.node) == wanted) return value.node;
  const std::string name = n.name() + ".input";
  if (wanted.h == 1 && wanted.w == 1) return add(n, Flatten{}, {value.node}, name);
  return add(n, Reshape{wanted.c, wanted.h, wanted.w}, {value.node}, name);
}

Dims OnnxGraph::map_dims(const OnnxNode& n, int input) const {
  const Dims& dims = value(n, input).dims;
  CHECK(dims.size() == 4, "an input of dimensions {} where a map [N,C,H,W] is wanted", to_string(dims));
  return dims;
}

std::string OnnxGraph::unique(const std::string& name) {
  std::string found = name.empty() ? "node" : name;
  for (int i = 2; !names_.insert(found).second; ++i) found = fmt::format("{}_{}", name, i);
  return found;
}

int OnnxGraph::add(const OnnxNode& n, Layer layer, std::vector<int> inputs, const std::string& name) {
  std::vector<Shape> from;
  for (int i : inputs) from.push_back(shape(i));
  const Shape s = output_shape(layer, from);
  check_shape(s);
  shapes_.push_back(s);
  return network_.add(unique(name.empty() ? n.name() : name), std::move(layer), std::move(inputs));
}

int OnnxGraph::make(const OnnxNode& n, Layer layer, std::vector<int> inputs) {
  const size_t rank = value(n, 0).dims.size();
  return make(n, std::move(layer), std::move(inputs), rank);
}

int OnnxGraph::make(const OnnxNode& n, Layer layer, std::vector<int> inputs, size_t rank) {
  const int made = add(n, std::move(layer), std::move(inputs));
  set(n, OnnxValue{nullptr, made, dims_of(shape(made), rank)});
  return made;
}

void OnnxGraph::regroup(const OnnxNode& n, const OnnxValue& value, Dims dims) {
  CHECK(!dims.empty() && dims[0] == 1, "a reshape of {} to {}: it mixes the images of a batch", to_string(value.dims),
        to_string(dims));
  OnnxValue out{nullptr, value.node, std::move(dims)};
  if (out.dims.size() == 2 && value.dims.size() != 2) out.node = add(n, Flatten{}, {value.node});
  set(n, std::move(out));
}

void OnnxGraph::parameter(int node, const std::string& which, std::vector<float> values, const Dims& dims) {
  CHECK(int64_t(values.size()) == count(dims), "{} with {} values, {} are needed", which, values.size(), to_string(dims));
  parameters_[{node, which}] = std::move(values);
}

Weights OnnxGraph::weights() const {
  Weights all(network_);
  for (const Parameter& p : all.list()) {
    const auto found = parameters_.find({p.node, p.name});
    CHECK(found != parameters_.end() && int64_t(found->second.size()) == p.count(), "{}.{} has no values",
          network_.nodes[p.node].name, p.name);
    std::ranges::copy(found->second, all.edit(p).begin());
  }
  return all;
}

}  // namespace switchback
