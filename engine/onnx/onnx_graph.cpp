#include "engine/onnx/onnx_graph.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/files/files.h"

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
  CHECK(dims.empty() || dims[0] == 1, "a tensor of dimensions {} for each image, whose first axis is not the batch's alone: it "
        "mixes the images of a batch", to_string(dims));
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

Dims padded(const Dims& dims, size_t rank) {
  Dims out(rank - std::min(rank, dims.size()), 1);
  out.insert(out.end(), dims.begin(), dims.end());
  return out;
}

std::string OnnxGraph::text(const Dims& dims) const {
  std::string text = to_string(dims);
  return batch == 1 || dims.empty() ? text : "[N" + text.substr(2);
}

OnnxConstant OnnxGraph::beside(const Dims& dims, const OnnxConstant& constant) const {
  CHECK(constant.dims.size() <= dims.size(), "a constant of {} with an input of {}", to_string(constant.dims), text(dims));
  OnnxConstant c = constant;
  c.dims = padded(c.dims, dims.size());
  if (c.dims[0] == batch && batch > 1) {
    const int64_t item = c.count() / batch;
    const auto repeats = [&](const auto& values) {
      return std::equal(values.begin() + std::min<int64_t>(item, int64_t(values.size())), values.end(), values.begin());
    };
    CHECK(repeats(c.floats) && repeats(c.ints), "a constant of {} with an input of {}: it differs with the place in the "
          "batch; only what is the same for all images is supported", to_string(constant.dims), text(dims));
    (c.whole ? c.ints.resize(item) : c.floats.resize(item));
    c.dims[0] = 1;
  }
  for (size_t i = 0; i < dims.size(); ++i)
    CHECK(c.dims[i] == 1 || c.dims[i] == dims[i], "a constant of {} with an input of {}", to_string(constant.dims),
          text(dims));
  return c;
}

int OnnxGraph::node(const OnnxNode& n, int input) {
  CHECK(!is_constant(n, input), "its input {} is constant", input);
  OnnxValue& v = values_.at(n.input(input));
  const int made = node_shaped(n, v, v.dims);
  if (!in_memory_order(v)) v.node = made, v.order = OnnxValue::Order::maps;
  return made;
}

int OnnxGraph::node_shaped(const OnnxNode& n, const OnnxValue& value, const Dims& dims) {
  CHECK(value.batch.axis == 0 || batch == 1, "an input of {} with the batch along axis {}: it mixes the images of a batch",
        to_string(value.dims), value.batch.axis);
  const Shape wanted = shape_of(dims), has = shape(value.node);
  if (in_memory_order(value)) {
    const Shape channels_last{1, has.h, has.w, has.c};
    if (wanted.h * wanted.w == 1) return memory_shaped(n, value, wanted);
    if (wanted == channels_last) return add(n, Permute{{2, 3, 1}}, {value.node}, n.name() + ".input");
    return transposed(n, value.node, {{wanted.c, wanted.h * wanted.w}, {1, 0}, wanted.c, wanted.h, wanted.w});
  }
  if (has == wanted) return value.node;
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
  set(n, OnnxValue{nullptr, made, dims_of(shape(made), rank), OnnxValue::Order::maps, {}});
  return made;
}

void OnnxGraph::regroup(const OnnxNode& n, const OnnxValue& value, Dims dims, OnnxValue::Batch batch) {
  CHECK(!dims.empty(), "a reshape of {} to {}: it mixes the images of a batch", to_string(value.dims), to_string(dims));
  OnnxValue out{nullptr, value.node, std::move(dims), value.order, batch};
  const bool features = out.dims.size() == 2 && out.dims[0] == 1 && batch == OnnxValue::Batch{};
  if (features && value.dims.size() != 2) {
    if (in_memory_order(value))
      out.node = memory_shaped(n, value, {1, out.dims[1], 1, 1});
    else
      out.node = add(n, Flatten{}, {value.node});
    out.order = OnnxValue::Order::maps;
  }
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

// ---- the end of reading

std::vector<int> OnnxGraph::count_readers(int output) const {
  std::vector<int> readers(network_.nodes.size(), 0);
  readers[output] = 1;
  for (int i = output; i >= 0; --i)
    if (readers[i] > 0)
      for (int input : network_.nodes[i].inputs) ++readers[input];
  return readers;
}

namespace {

bool groups(const Layer& layer) {
  if (const auto* t = std::get_if<Transpose>(&layer)) return t->sizes.size() <= 1;
  return std::holds_alternative<Flatten>(layer) || std::holds_alternative<Reshape>(layer);
}

}  // namespace

void OnnxGraph::check_log_softmaxes(int output, const std::vector<int>& readers) {
  int last = output;
  while (groups(network_.nodes[last].layer)) last = network_.nodes[last].inputs[0];
  for (const auto& [node, name] : log_softmaxes_) {
    CHECK(node == last || readers[node] == 0, "node '{}' (LogSoftmax): inside a network it is not supported",
          printable(name));
    if (node == last)
      warnings.push_back(fmt::format("the final LogSoftmax '{}' is left out: the outputs are its inputs, the logits",
                                     printable(name)));
  }
}

// The node that takes over what `node` computes; `node` itself where it stays.
int OnnxGraph::folded(int node, const std::vector<int>& readers) {
  const Node& n = network_.nodes[node];
  if (log_softmaxes_.contains(node)) return n.inputs[0];
  if (const auto* constant = std::get_if<BinaryConstant>(&n.layer); constant && constant->function == BinaryFunction::add) {
    const int x = n.inputs[0];
    const Shape s = constant->shape;
    if (readers[x] != 1 || s.h != 1 || s.w != 1 || s.c != shape(x).c) return node;
    Node& from = layer(x);
    auto* conv = std::get_if<Conv2d>(&from.layer);
    auto* full = std::get_if<Linear>(&from.layer);
    bool* has_bias = conv ? &conv->has_bias : full ? &full->has_bias : nullptr;
    if (!has_bias || *has_bias) return node;
    *has_bias = true;
    parameter(x, "bias", constant->values, {s.c});
    return x;
  }
  if (const auto* second = std::get_if<Permute>(&n.layer)) {  // there and back
    const Node& from = layer(n.inputs[0]);
    const auto* first = std::get_if<Permute>(&from.layer);
    for (size_t i = 0; first && i < 3; ++i)
      if (first->axes[size_t(second->axes[i]) - 1] != int64_t(i) + 1) first = nullptr;
    return first ? from.inputs[0] : node;
  }
  if (const auto* product = std::get_if<Binary>(&n.layer); product && product->function == BinaryFunction::mul)
    for (size_t side : {0, 1}) {  // x·sigmoid(x) and x·hardsigmoid(x)
      const int gate = n.inputs[side], x = n.inputs[1 - side];
      Node& from = layer(gate);
      if (readers[gate] != 1 || from.inputs != std::vector<int>{x}) continue;
      const auto* smooth = std::get_if<Smooth>(&from.layer);
      const auto* hard = std::get_if<Hardsigmoid>(&from.layer);
      if (smooth && smooth->function == SmoothFunction::sigmoid) return from.layer = Smooth{SmoothFunction::silu}, gate;
      if (hard && std::abs(hard->alpha - 1.f / 6) < 1e-6f && hard->beta == 0.5f)
        return from.layer = Smooth{SmoothFunction::hardswish}, gate;
    }
  return node;
}

void OnnxGraph::keep_needed(int output) {
  const std::vector<int> readers = count_readers(output);
  List<int> place(readers.size(), -1);
  Network kept(network_.name, network_.input);
  std::vector<Shape> shapes{shapes_[0]};
  place[0] = 0;
  for (size_t i = 1; i < readers.size(); ++i) {
    if (readers[i] == 0) continue;
    Node node = network_.nodes[int64_t(i)];
    for (int& input : node.inputs) input = place[input];
    place[int64_t(i)] = int(shapes.size());
    kept.nodes.push_back(std::move(node));
    shapes.push_back(shapes_[i]);
  }
  std::map<std::pair<int, std::string>, std::vector<float>> parameters;
  for (auto& [of, values] : parameters_)
    if (place[of.first] >= 0) parameters[{place[of.first], of.second}] = std::move(values);
  network_ = std::move(kept);
  shapes_ = std::move(shapes);
  parameters_ = std::move(parameters);
}

// In the order and the shape that users see.
int OnnxGraph::maps(const OnnxNode& n, const OnnxValue& value) {
  CHECK(value.batch.axis == 0 && value.dims[0] == 1, "node '{}' ({}): the output has {} for each image along axis {}: it mixes "
        "the images of a batch", printable(n.name()), n.op(), to_string(value.dims), value.batch.axis);
  const bool memory = in_memory_order(value);
  if (value.dims.size() > 4) return memory ? add(n, Permute{{2, 3, 1}}, {value.node}, n.name() + ".output") : value.node;
  if (value.dims.size() < 2 || (!memory && shape(value.node) == shape_of(value.dims))) return value.node;
  const Layer last = at(value.node).layer;
  const auto* smooth = std::get_if<Smooth>(&last);
  const bool sigmoid = smooth && smooth->function == SmoothFunction::sigmoid;  // stays the end, so that its logits are seen
  OnnxValue turned = value;
  if (sigmoid) turned.node = at(value.node).inputs[0];
  const int made = node_shaped(n, turned, value.dims);
  if (sigmoid) return add(n, last, {made});
  layer(made).name = unique(n.name() + ".output");
  return made;
}

Network OnnxGraph::finish(const OnnxNode& maker, const OnnxValue& value) {
  const int output = maps(maker, value);
  std::vector<int> readers = count_readers(output);
  check_log_softmaxes(output, readers);
  std::vector<int> now(readers.size());  // of each node the one that holds its value
  std::iota(now.begin(), now.end(), 0);
  for (int i = 0; i <= output; ++i) {
    if (readers[i] == 0) continue;
    for (int& input : layer(i).inputs) input = now[input];
    const int holder = now[i] = folded(i, readers);
    if (holder == i) continue;
    readers[holder] += readers[i] - 1;
  }
  keep_needed(now[output]);
  return network_;
}

}  // namespace switchback
