// The network as it grows while an ONNX graph is read node by node (onnx.cpp); the operators' functions work on it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/network.h"
#include "engine/weights.h"
#include "engine/onnx/onnx_file.h"

namespace onnx {
class ValueInfoProto;
}

namespace switchback {

// What a tensor of the graph is. Of an input-dependent one, `dims` are ONNX's, with a batch of 1, and `node` holds its
// elements in this order, though its own Shape may group them otherwise: reshapes cost nothing until somebody asks for a
// shape. There are two orders: that of channels, rows, columns, in which maps stand in a file, and that of memory (rows,
// columns, channels), in which tokens do. So the transpose of a map to tokens, or to NHWC, costs nothing either.
struct OnnxValue {
  enum class Order { maps, memory };
  std::shared_ptr<const OnnxConstant> constant;  // null: `node` makes it
  int node = -1;
  Dims dims;
  Order order = Order::maps;
  // Where the images of a batch are: along this axis, whose size here counts the places of one image (windows, heads); the
  // first `before` of its factors lie outside the batch (in [T·N,C] it is T).
  struct Batch {
    int64_t axis = 0, before = 1;
    bool operator==(const Batch&) const = default;
  } batch = {};
};

// What an open batch counts in computations of sizes. Known by its value: no product or sum of sizes gives this prime.
inline constexpr int64_t kOpenBatch = 1'000'003;
// A range over an open batch counts so many images, from which a rule for all of them can be seen.
inline constexpr int64_t kImagesTried = 7;

class OnnxGraph {
 public:
  // batch: that the file fixes, or kOpenBatch.
  OnnxGraph(const std::string& name, Shape input, int64_t batch) : batch(batch), network_(name, input), shapes_{input} {}

  // ---- tensors
  void set(const std::string& tensor, OnnxValue value) { values_[tensor] = std::move(value); }
  void set(const OnnxNode& n, OnnxValue value, int output = 0) { set(n.output(output), std::move(value)); }
  void set(const std::string& tensor, OnnxConstant constant);
  void set(const OnnxNode& n, OnnxConstant constant, int output = 0) { set(n.output(output), std::move(constant)); }
  // Of an input that is not explained. What is computed of it is followed, so that layers can work on it.
  void set_given(const std::string& tensor, const OnnxConstant& constant) { set(tensor, constant), given_.insert(tensor); }
  void pass_given(const OnnxNode& n);
  // Where all that n reads is constant, and n's operator wants data: what comes from given inputs becomes a value.
  void materialise_given(const OnnxNode& n);
  // A constant [1,…] where data are wanted: a node that has it for every image, 0·x₀ + constant, in the order of memory.
  OnnxValue constant_value(const OnnxNode& n, const OnnxConstant& c, const std::string& name);
  void forget(const std::string& tensor) { values_.erase(tensor); }
  bool knows(const std::string& tensor) const { return values_.contains(tensor); }
  const OnnxValue& value(const std::string& tensor) const { return values_.at(tensor); }
  const OnnxValue& value(const OnnxNode& n, int input) const;
  bool is_constant(const OnnxNode& n, int input) const { return value(n, input).constant != nullptr; }
  bool all_constant(const OnnxNode& n) const;  // of the inputs that are there
  // Throws where an input decides about it.
  const OnnxConstant& constant(const OnnxNode& n, int input, const std::string& what) const;
  std::vector<int64_t> ints(const OnnxNode& n, int input, const std::string& what) const;
  float scalar(const OnnxNode& n, int input, const std::string& what) const;
  // A constant that meets data of `dims`, broadcast by ONNX's rules: what every item of a batch sees of it, padded to
  // [1,…]. Throws where items would see different parts, or it does not fit.
  OnnxConstant beside(const Dims& dims, const OnnxConstant& constant) const;
  std::string text(const Dims& dims) const;  // of data: with an N where the batch is more than one image

  // ---- layers
  // The node that holds input `input` of n in the grouping that its dims say (see shape_of), made where there is none.
  int node(const OnnxNode& n, int input);
  int node_shaped(const OnnxNode& n, const OnnxValue& value, const Dims& dims);
  // The node that holds a value in the order of memory, as a map of this shape; `rows`: with the last axis as its channels.
  int memory_shaped(const OnnxNode& n, const OnnxValue& value, Shape shape);
  int rows(const OnnxNode& n, const OnnxValue& value);
  // An item's axes, as memory has them, in another order; where the node is a transpose itself, both become one.
  int transposed(const OnnxNode& n, int node, const Transpose& transpose);
  // Where `node` is a transpose of channels [places, …] of what lies before it, the part of these places is cut out there,
  // and only that is transposed: queries, keys and values of one product. node: in memory [before, places, behind]; -1 else.
  int cut_before_transpose(const OnnxNode& n, int node, const Dims& memory, const SliceRange& part, const std::string& name);
  // Both orders are the same: one channel, or one place.
  bool alike(int node) const { return shape(node).c == 1 || shape(node).h * shape(node).w == 1; }
  bool in_memory_order(const OnnxValue& v) const { return v.order == OnnxValue::Order::memory && !alike(v.node); }
  // A result in the order of memory, with other dims than x.
  void set_rows(const OnnxNode& n, const OnnxValue& x, int node, Dims dims);
  Dims map_dims(const OnnxNode& n, int input) const;  // those of [1,c,h,w]; throws where it is something else
  int add(const OnnxNode& n, Layer layer, std::vector<int> inputs, const std::string& name = "");
  int make(const OnnxNode& n, Layer layer, std::vector<int> inputs);  // add, as output 0, with the rank of input 0
  int make(const OnnxNode& n, Layer layer, std::vector<int> inputs, size_t rank);
  // The same elements under other dims. Features get a Flatten at once, since that is what users see.
  void regroup(const OnnxNode& n, const OnnxValue& value, Dims dims, OnnxValue::Batch batch = {});
  Node& layer(int node) { return network_.nodes.edit(node); }
  const Node& at(int node) const { return network_.nodes[node]; }
  Shape shape(int node) const { return shapes_[node]; }
  void parameter(int node, const std::string& which, std::vector<float> values, const Dims& dims);

  // A LogSoftmax can only be the end, where it is left out.
  void set_log_softmax(const OnnxNode& n, int node) { log_softmaxes_[node] = n.name(); }

  // The end of reading: the network's output is `output`. Nodes that it does not depend on go. Only now it is known who
  // reads a node, under all names that it has in the file, and pairs of nodes become one: a layer and its bias, a value
  // and its sigmoid.
  Network finish(const OnnxNode& maker, const OnnxValue& output);
  Weights weights() const;  // of the network that finish gave

  std::vector<std::string> warnings;
  const int64_t batch;
  // Of scores whose masks take away whole rows: by the node that has these rows without a mask, 1 for each of them, else 0.
  std::map<int, std::vector<float>> empty_rows;

 private:
  std::string unique(const std::string& name);
  std::vector<int> count_readers(int output) const;  // of every node; 0 where the output does not depend on it
  void check_log_softmaxes(int output, const std::vector<int>& readers);
  int folded(int node, const std::vector<int>& readers);
  int maps(const OnnxNode& n, const OnnxValue& value);
  void keep_needed(int output);
  Network network_;
  std::vector<Shape> shapes_;  // of every node
  std::map<std::pair<int, std::string>, std::vector<float>> parameters_;
  std::set<std::string> names_ = {"x"};
  std::map<std::string, OnnxValue> values_;
  std::map<int, std::string> log_softmaxes_;
  std::set<std::string> given_;  // tensors that are constants because an input was given
};

// A value that a user gives to an input of the graph, checked against what the file says of that.
OnnxConstant given_input(const onnx::ValueInfoProto& input, const OnnxConstant& value);
// [1,c,h,w], [1,c,h] and [1,c] as shapes; throws for others.
Shape shape_of(const Dims& dims);
// A node that computes from constants alone, element by element or by small loops; false: the operator is not known here.
bool compute_constants(OnnxGraph& g, const OnnxNode& n);
// Ones in front, as ONNX broadcasts.
Dims padded(const Dims& dims, size_t rank);

// Attributes and inputs that are sizes: inside [least, most], so that sums of them cannot overflow.
inline constexpr int64_t kMostOnnxSize = 1 << 20;
std::vector<int64_t> sizes(const OnnxNode& n, std::string_view attribute, std::vector<int64_t> otherwise, int64_t least);
void check_sizes(const std::vector<int64_t>& values, const std::string& what, int64_t least);

using OnnxOperator = void (*)(OnnxGraph&, const OnnxNode&);
using OnnxOperators = std::map<std::string_view, OnnxOperator>;
const OnnxOperators& onnx_activations();  // onnx_activations.cpp: one element at a time, and softmax
const OnnxOperators& onnx_arithmetic();   // onnx_arithmetic.cpp: two values and more, element by element
const OnnxOperators& onnx_choices();      // onnx_choices.cpp: comparisons, and what is chosen by them
const OnnxOperators& onnx_constants();    // onnx_compute.cpp: what only constants are asked for
const OnnxOperators& onnx_layers();       // onnx_layers.cpp: convolutions, linear layers, pools
const OnnxOperators& onnx_matrices();     // onnx_matrices.cpp: what a matrix does along some axes
const OnnxOperators& onnx_movements();    // onnx_movements.cpp: what cuts, joins, pads and takes by number
const OnnxOperators& onnx_norms();        // onnx_norms.cpp
const OnnxOperators& onnx_quantized();    // onnx_quantized.cpp: weights as whole numbers
const OnnxOperators& onnx_reductions();   // onnx_reductions.cpp
const OnnxOperators& onnx_reshapes();     // onnx_reshapes.cpp: the same elements in other dims or another order
const OnnxOperators& onnx_sizes();        // onnx_sizes.cpp: other sizes of maps; sizes and types
const OnnxOperators& onnx_tokens();       // onnx_tokens.cpp: products of matrices, attention

}  // namespace switchback
