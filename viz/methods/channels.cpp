#include "viz/methods/channels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "viz/methods/batches.h"
#include "viz/methods/inspect.h"

namespace switchback {
namespace {

// Images and their occluded copies in one row: item i·(1+B) is image i, the B copies follow it.
class Copies {
 public:
  Copies(const Tensor& x, Shape image, const ChannelOptions& options) : x_(x), image_(image), options_(options) {}
  int64_t each() const { return 1 + int64_t(options_.boxes.size()); }
  int64_t count() const { return x_.dim(0) * each(); }

  void write(int64_t item, float* to) {
    const int64_t i = item / each(), copy = item % each();
    const float* image = x_.data() + i * image_.item();
    std::memcpy(to, image, size_t(image_.item()) * sizeof(float));
    if (copy == 0) return;
    if (of_ != i) baseline_ = baseline(options_.fill, image, image_);
    of_ = i;
    fill_box(options_.boxes[size_t(copy - 1)], baseline_, to, image_);
  }

 private:
  const Tensor& x_;
  Shape image_;
  const ChannelOptions& options_;
  int64_t of_ = -1;  // the image that the baseline is made of
  Tensor baseline_;
};

// Means [n·C] of values [n,C,…].
void write_means(const Tensor& values, const std::string& name, float* means) {
  const int64_t channels = values.dim(0) * values.dim(1), place = values.count() / channels;
  for (int64_t c = 0; c < channels; ++c) {
    const float* map = values.data() + c * place;
    means[c] = float(std::accumulate(map, map + place, 0.0) / double(place));
    CHECK(std::isfinite(means[c]), "the activations of {} are not finite", name);
  }
}

}  // namespace

std::vector<Tensor> channel_means(Context& ctx, const Model& model, const Tensor& x, std::span<const int> nodes,
                                  const ChannelOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  Copies copies(x, image, options);
  const PlanOptions forward_only{
      .precision = options.precision, .observe = {nodes.begin(), nodes.end()}, .tape = false};
  const int64_t batch = batch_size(ctx, model, image, forward_only, options, copies.count());
  Plan plan(ctx, model, image.with_n(batch), forward_only);
  std::vector<Tensor> means;
  for (int node : nodes) means.push_back(allocate_maps({x.dim(0), copies.each(), plan.shapes()[size_t(node)].c}));
  std::vector<float> pixels(size_t(batch * image.item()));
  for (int64_t first = 0; first < copies.count(); first += batch) {
    const int64_t n = std::min(batch, copies.count() - first);
    for (int64_t i = 0; i < n; ++i) copies.write(first + i, pixels.data() + i * image.item());
    plan.write(pixels.data(), n);
    plan.forward();
    for (size_t k = 0; k < nodes.size(); ++k)
      write_means(plan.read(nodes[k]), network.nodes[size_t(nodes[k])].name, means[k].data() + first * means[k].dim(2));
    if (options.progress) options.progress(first + n, copies.count());
  }
  return means;
}

Tensor average_means(const Tensor& means, int64_t first, int64_t count) {
  Tensor average({means.dim(1), means.dim(2)});
  const int64_t item = average.count();
  for (int64_t e = 0; e < item; ++e) {
    double sum = 0;
    for (int64_t i = first; i < first + count; ++i) sum += means[i * item + e];
    average[e] = float(sum / double(count));
  }
  return average;
}

std::vector<int64_t> top_channels(const Tensor& means, int64_t copy, int64_t count) {
  std::vector<int64_t> order = strongest_channels(means, copy);
  order.resize(std::min(order.size(), size_t(count)));
  return order;
}

int64_t shared_channels(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  return std::count_if(a.begin(), a.end(), [&](int64_t c) { return std::find(b.begin(), b.end(), c) != b.end(); });
}

std::vector<int> nodes_to_relu(const Network& network, int node) {
  const auto is_linear = [&](int i) {
    const Layer& layer = network.nodes[size_t(i)].layer;
    return std::holds_alternative<Conv2d>(layer) || std::holds_alternative<Linear>(layer) ||
           std::holds_alternative<BatchNorm2d>(layer) || std::holds_alternative<Add>(layer);
  };
  std::vector<int> path;
  int at = node;
  for (int i = node + 1; i < int(network.nodes.size()) && is_linear(at); ++i) {
    const Node& next = network.nodes[size_t(i)];
    if (std::find(next.inputs.begin(), next.inputs.end(), at) == next.inputs.end()) continue;
    path.push_back(at = i);
    if (std::holds_alternative<ReLU>(next.layer)) return path;
    if (!std::holds_alternative<BatchNorm2d>(next.layer)) return {};
  }
  return {};
}

}  // namespace switchback
