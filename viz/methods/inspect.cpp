#include "viz/methods/inspect.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/pointwise/pointwise.h"
#include "viz/methods/batches.h"

namespace switchback {
namespace {

PlanOptions forward_only(int node, const RunOptions& options) {
  return {.precision = options.precision, .observe = {node}, .tape = false};
}

}  // namespace

Forward::Forward(Context& ctx, const Model& model, Shape image, int node, const RunOptions& options, int64_t most)
    : ctx_(ctx),
      node_(node),
      batch_(batch_size(ctx, model, image, forward_only(node, options), options, most)),
      plan_(ctx, model, image.with_n(batch_), forward_only(node, options)) {}

Tensor Forward::run(const float* images, int64_t n) {
  plan_.write(images, n);
  plan_.forward();
  return plan_.read(node_);
}

Tensor activations(Context& ctx, const Model& model, const Tensor& x, int node, const RunOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0);
  Forward forward(ctx, model, image, node, options, images);
  Tensor all;
  for (int64_t first = 0; first < images; first += forward.batch()) {
    const int64_t n = std::min(forward.batch(), images - first);
    const Tensor values = forward.run(x.data() + first * image.item(), n);
    if (all.empty()) {
      Dims dims = values.dims();
      dims[0] = images;
      all = allocate_maps(std::move(dims));
    }
    const int64_t item = values.count() / n;
    std::memcpy(all.data() + first * item, values.data(), size_t(values.count()) * sizeof(float));
    if (options.progress) options.progress(first + n, images);
  }
  return all;
}

Tensor logits(Context& ctx, const Model& model, const Tensor& x, const RunOptions& options) {
  const Network& network = model.network;
  return activations(ctx, model, x, logit_node(network), options);
}

std::vector<int64_t> strongest_channels(const Tensor& activations, int64_t image) {
  const int64_t channels = activations.dim(1), place = activations.count() / activations.dim(0) / channels;
  const float* values = activations.data() + image * channels * place;
  std::vector<double> mean(size_t(channels), 0);
  for (int64_t c = 0; c < channels; ++c)
    mean[size_t(c)] = std::accumulate(values + c * place, values + (c + 1) * place, 0.0) / double(place);
  std::vector<int64_t> order(size_t(channels), 0);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return mean[size_t(a)] > mean[size_t(b)]; });
  return order;
}

StrideEnergy stride_energy(const float* map, int h, int w, int stride) {
  CHECK(stride >= 1 && h >= stride && w >= stride, "a map of {}x{} has no period of {}", h, w, stride);
  const int rows = h / stride * stride, columns = w / stride * stride;
  const double places = double(rows) * columns, phases = double(stride) * stride;
  std::vector<double> of_phase(size_t(stride * stride), 0);
  double sum = 0, square = 0;
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x) sum += map[y * w + x];
  const double mean = sum / places;
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x) {
      const double d = map[y * w + x] - mean;
      of_phase[size_t(y % stride * stride + x % stride)] += d;
      square += d * d;
    }
  StrideEnergy energy{.periodic = 0, .total = square / places, .chance = places > 1 ? (phases - 1) / (places - 1) : 1};
  for (double d : of_phase) energy.periodic += d * phases / places * (d * phases / places) / phases;
  return energy;
}

Tensor filters(const Model& model, int node) {
  const Network& network = model.network;
  if (std::holds_alternative<Conv2d>(network.nodes[node].layer)) return model.weights.tensor(node, "weight");
  std::vector<std::string> convs;
  for (const Node& n : network.nodes)
    if (std::holds_alternative<Conv2d>(n.layer)) convs.push_back(n.name);
  const Node& asked = network.nodes[size_t(node)];
  throw Error(fmt::format("{} is a {} and has no filters", asked.name, type_name(asked.layer)),
              fmt::format("convolutions of {}: {}", network.name, fmt::join(convs, ", ")), true);
}

int first_conv(const Network& network) {
  for (size_t i = 0; i < network.nodes.size(); ++i)
    if (std::holds_alternative<Conv2d>(network.nodes[i].layer)) return int(i);
  throw Error(fmt::format("{} has no convolution", network.name));
}

}  // namespace switchback
