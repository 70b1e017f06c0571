#include "viz/methods/cam.h"

#include <algorithm>

#include "viz/methods/batches.h"
#include "viz/methods/cam_parts.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

template <typename L>
const L* layer_as(const Network& network, int node) {
  return std::get_if<L>(&network.nodes[size_t(node)].layer);
}

int64_t place_count(Shape s) { return s.h * s.w; }

// Whether the node makes one value of each whole map: their mean or sum, or with `or_maximum` their largest value.
bool pools_globally(const Network& network, const List<Shape>& shapes, int node, bool or_maximum) {
  if (place_count(shapes[size_t(node)]) != 1) return false;
  if (layer_as<AdaptiveAvgPool2d>(network, node)) return true;
  if (const auto* reduce = layer_as<Reduce>(network, node)) return !reduce->c && reduce->h && reduce->w;
  if (layer_as<GlobalMaxPool>(network, node)) return or_maximum;
  const auto covers = [&](const auto& pool) {
    const Shape in = shapes[size_t(network.nodes[size_t(node)].inputs[0])];
    return pool.kernel_h == in.h && pool.kernel_w == in.w && pool.pad_top + pool.pad_bottom == 0 &&
           pool.pad_left + pool.pad_right == 0;
  };
  if (const auto* pool = layer_as<AvgPool2d>(network, node)) return covers(*pool);
  const auto* pool = layer_as<MaxPool2d>(network, node);
  return or_maximum && pool && covers(*pool) && pool->dilation_h == 1 && pool->dilation_w == 1;
}

bool flattens(const Network& network, const List<Shape>& shapes, int node) {
  return layer_as<Flatten>(network, node) ||
         (layer_as<Reshape>(network, node) && place_count(shapes[size_t(node)]) == 1);
}

// Past dropouts, and flattens of vectors.
int unwrapped(const Network& network, const List<Shape>& shapes, int node) {
  for (;;) {
    const int input = node ? network.nodes[size_t(node)].inputs[0] : 0;
    const bool flat = flattens(network, shapes, node) && place_count(shapes[size_t(input)]) == 1;
    if (!flat && !layer_as<Dropout>(network, node)) return node;
    node = input;
  }
}

// A linear layer, or what is one: a 1x1 convolution of 1x1 maps. Both have weights of [K,C].
bool is_linear(const Network& network, const List<Shape>& shapes, int node) {
  if (layer_as<Linear>(network, node)) return true;
  const auto* conv = layer_as<Conv2d>(network, node);
  return conv && conv->kernel_h == 1 && conv->kernel_w == 1 && conv->groups == 1 &&
         place_count(shapes[size_t(network.nodes[size_t(node)].inputs[0])]) == 1;
}

// Which nodes are maps with places: not what comes out of global pools, flatten and linear layers, nor what is made of
// these alone. Nodes that the logits do not depend on are none either.
std::vector<bool> map_nodes(const Network& network, Shape input) {
  const List<Shape> shapes = network.shapes(input);
  const int logits = logit_node(network);
  std::vector<bool> maps(shapes.size(), true), needed(shapes.size(), false);
  needed[size_t(logits)] = true;
  for (int i = logits; i >= 0; --i)
    for (int from : network.nodes[size_t(i)].inputs)
      if (needed[size_t(i)]) needed[size_t(from)] = true;
  for (int i = 1; i < int(shapes.size()); ++i) {
    const std::vector<int>& inputs = network.nodes[size_t(i)].inputs;
    const bool of_maps = std::any_of(inputs.begin(), inputs.end(), [&](int from) { return maps[size_t(from)]; });
    maps[size_t(i)] = of_maps && !flattens(network, shapes, i) && !layer_as<Linear>(network, i) &&
                      !pools_globally(network, shapes, i, true);
  }
  for (size_t i = 0; i < maps.size(); ++i) maps[i] = maps[i] && needed[i];
  return maps;
}

CamHead exact_head(const Network& network, Shape input, const TargetSpec& target, const std::vector<int>& layers) {
  const std::optional<CamHead> head = find_cam_head(network, input);
  if (!head)
    throw Error(fmt::format("{} has no exact class activation maps: its logits do not come from global average pooling "
                            "and one linear layer, nor from pooled maps of the classes",
                            network.name),
                "use --method gradcam", true);
  if (target.score != Score::logit)
    throw Error("exact class activation maps are about logits", "use --score logit, or --method gradcam", true);
  if (!layers.empty() && layers != std::vector{head->maps})
    throw Error(fmt::format("exact class activation maps are those of {}, which are pooled",
                            network.nodes[size_t(head->maps)].name),
                "for other layers use --method gradcam", true);
  return *head;
}

// For each target of the images from `first` on: the maps weighed by the class's row of the linear layer, or the one
// map of the class. activations: [n,C,h,w].
void exact_maps(const Weights& weights, const CamHead& head, const Tensor& activations, int64_t first, Cams& cams) {
  const int64_t channels = activations.dim(1), places = activations.dim(2) * activations.dim(3);
  const int64_t targets = cams.maps[0].dim(1);
  for (int64_t p = 0; p < activations.dim(0) * targets; ++p) {
    const float* maps = activations.data() + p / targets * channels * places;
    const int64_t c = cams.explained[size_t(first + p / targets)].units[size_t(p % targets)].channel;
    float* out = cams.maps[0].data() + (first * targets + p) * places;
    if (head.linear < 0) {
      std::copy_n(maps + c * places, places, out);
      continue;
    }
    const float* row = weights.values(head.linear, "weight").data() + c * channels;
    const std::vector<double> sum = weighted_sum({row, row + channels}, maps, places);
    std::copy(sum.begin(), sum.end(), out);
  }
}

double gradcam_weight(const float* g, int64_t places) {
  double sum = 0;
  for (int64_t i = 0; i < places; ++i) sum += g[i];
  return sum / double(places);
}

// Σ α ReLU(g) with g² / (2 g² + ΣA g³) = 1 / (2 + g ΣA). Behind a ReLU ΣA is never negative and the denominator at
// least 2; elsewhere it may vanish, and such a place is left out.
double gradcam_plus_plus_weight(const float* a, const float* g, int64_t places) {
  double total = 0, weight = 0;
  for (int64_t i = 0; i < places; ++i) total += a[i];
  for (int64_t i = 0; i < places; ++i) {
    const double denominator = 2 + double(g[i]) * total;
    if (!(g[i] <= 0) && denominator != 0) weight += double(g[i]) / denominator;
  }
  return weight;
}

double xgradcam_weight(const float* a, const float* g, int64_t places) {
  double total = 0, sum = 0;
  for (int64_t i = 0; i < places; ++i) {
    total += double(a[i]);
    sum += double(a[i]) * double(g[i]);
  }
  return total == 0 ? 0 : sum / total;
}

// Σ_k g_k ⊙ A_k, with layercam of what is above 0 in g alone.
std::vector<double> products(const float* maps, const float* g, Shape s, bool positive) {
  const int64_t places = s.h * s.w;
  std::vector<double> sum(size_t(places), 0);
  for (int64_t e = 0; e < s.c * places; ++e)
    if (!(positive && g[e] <= 0)) sum[size_t(e % places)] += double(g[e]) * double(maps[e]);
  return sum;
}

// maps, g: [C,h,w] of one image and target.
void gradient_map(CamMethod method, const float* maps, const float* g, Shape s, float* out) {
  if (method == CamMethod::hirescam || method == CamMethod::layercam)
    return write_positive(products(maps, g, s, method == CamMethod::layercam), out);
  const int64_t places = s.h * s.w;
  std::vector<double> weights;
  for (int64_t k = 0; k < s.c; ++k) {
    const float *a = maps + k * places, *of_k = g + k * places;
    weights.push_back(method == CamMethod::gradcam_plus_plus ? gradcam_plus_plus_weight(a, of_k, places)
                      : method == CamMethod::xgradcam        ? xgradcam_weight(a, of_k, places)
                                                             : gradcam_weight(of_k, places));
  }
  write_positive(weighted_sum(weights, maps, places), out);
}

// Images and targets of one backward pass: `images` images from `first` on (the batch's first), for each the targets t
// … t + targets.
struct Cut {
  int64_t first, images, t, targets;
};

// The backward half of the methods that need gradients.
struct GradientMaps {
  GradientMaps(const Plan& plan, int node, const CamOptions& options, const Grids& grids, Cams& cams, int64_t capacity)
      : plan(plan), options(options), grids(grids), cams(cams), backward(plan, node, {.nodes = cams.layers}, capacity) {
    if (options.method == CamMethod::guided_gradcam) guided.emplace(plan, node, Wanted{.nodes = {0}}, capacity);
  }
  const Plan& plan;
  const CamOptions& options;
  const Grids& grids;
  Cams& cams;
  Backward backward;               // to all layers
  std::optional<Backward> guided;  // to the input

  // Takes the gradient of the score back, [images · targets] seeds. values: of the logits.
  void take_back(Backward& backward, const Tape& tape, ReluRule rule, Scoring scoring, const Tensor& values,
                 const Cut& cut) const {
    std::vector<Unit> units;
    for (int64_t i = cut.first; i < cut.first + cut.images; ++i)
      for (int64_t t = cut.t; t < cut.t + cut.targets; ++t) units.push_back(cams.explained[size_t(i)].units[size_t(t)]);
    Context& ctx = plan.context();
    write_seeds(ctx, units, scoring, values, cut.targets, backward.seed(cut.images * cut.targets));
    backward.run(tape, {.rule = rule, .seeds_per_item = cut.targets});
  }
  // d score / d value of a node, [images · targets, C, h, w].
  Tensor read(const Backward& backward, int node) const {
    const ConstView g = backward.gradient(node);
    Tensor host({g.shape.n, g.shape.c, g.shape.h, g.shape.w});
    read_nchw(plan.context(), g, host.data());
    return host;
  }

  // activations: of each layer, [images,C,h,w].
  void run(const Tape& tape, Scoring scoring, const Tensor& values, const std::vector<Tensor>& activations,
           const Cut& cut) {
    take_back(backward, tape, kGradient, scoring, values, cut);
    for (size_t l = 0; l < cams.layers.size(); ++l) {
      const Tensor g = on_its_grid(grids[l], read(backward, cams.layers[l]));
      const Shape s{1, g.dim(1), g.dim(2), g.dim(3)};
      Tensor& maps = cams.maps[l];
      for (int64_t i = 0; i < cut.images; ++i)
        for (int64_t k = 0; k < cut.targets; ++k)
          gradient_map(options.method, activations[l].data() + i * s.item(),
                       g.data() + (i * cut.targets + k) * s.item(), s,
                       maps.data() + ((cut.first + i) * maps.dim(1) + cut.t + k) * s.h * s.w);
    }
    if (!guided) return;
    take_back(*guided, tape, kGuided, scoring, values, cut);
    multiply_guided(read(*guided, 0), cut);
  }

  void multiply_guided(const Tensor& g, const Cut& cut) {
    const Shape image = plan.shapes()[0].with_n(1);
    const Tensor& maps = cams.maps[0];
    const int64_t places = image.h * image.w;
    for (int64_t p = 0; p < cut.images * cut.targets; ++p) {
      const int64_t at = (cut.first + p / cut.targets) * maps.dim(1) + cut.t + p % cut.targets;
      const std::vector<float> large = bilinear_map(maps.data() + at * maps.dim(2) * maps.dim(3), int(maps.dim(2)),
                                                    int(maps.dim(3)), int(image.h), int(image.w));
      float* out = cams.guided.data() + at * image.item();
      for (int64_t e = 0; e < image.item(); ++e) out[e] = g[p * image.item() + e] * large[size_t(e % places)];
    }
  }
};

void allocate(Cams& cams, CamMethod method, const List<Shape>& shapes, const Grids& grids, int64_t images, int64_t targets) {
  for (size_t l = 0; l < cams.layers.size(); ++l) {
    const Shape s = shapes[size_t(cams.layers[l])];
    cams.maps.push_back(allocate_maps({images, targets, grids[l] ? grids[l]->h : s.h, grids[l] ? grids[l]->w : s.w}));
  }
  if (method == CamMethod::guided_gradcam)
    cams.guided = allocate_maps({images, targets, shapes[0].c, shapes[0].h, shapes[0].w});
}

}  // namespace

std::vector<int> chosen_layers(const Network& network, Shape input, const CamOptions& options) {
  if (options.layers.empty()) return {last_map_node(network, input)};
  const std::vector<bool> maps = map_nodes(network, input);
  const List<Shape> shapes = network.shapes(input);
  std::vector<int> layers;
  for (int layer : options.layers) {
    layers.push_back(unwrapped(network, shapes, layer));  // the maps of a dropout are those of its input
    if (!maps[size_t(layer)])
      throw Error(fmt::format("{} has no maps that the classes depend on", network.nodes[size_t(layer)].name),
                  fmt::format("choose a layer before the global pooling or flatten, for example {}",
                              network.nodes[size_t(last_map_node(network, input))].name),
                  true);
  }
  if (options.method == CamMethod::guided_gradcam && options.layers.size() > 1)
    throw Error(fmt::format("guided Grad-CAM takes one layer, not {}", options.layers.size()),
                "for several layers use --method gradcam", true);
  return layers;
}

std::vector<double> weighted_sum(const std::vector<double>& weights, const float* maps, int64_t places) {
  std::vector<double> sum(size_t(places), 0);
  for (size_t k = 0; k < weights.size(); ++k)
    for (int64_t i = 0; i < places; ++i) sum[size_t(i)] += weights[k] * double(maps[int64_t(k) * places + i]);
  return sum;
}

void write_positive(const std::vector<double>& sum, float* out) {
  for (size_t i = 0; i < sum.size(); ++i) out[i] = sum[i] < 0 ? 0.f : float(sum[i]);
}

Tensor on_its_grid(const std::optional<TokenGrid>& grid, Tensor values) { return grid ? on_grid(values, *grid) : std::move(values); }

std::optional<CamHead> find_cam_head(const Network& network, Shape input) {
  const List<Shape> shapes = network.shapes(input);
  CamHead head;
  int node = unwrapped(network, shapes, logit_node(network));
  if (is_linear(network, shapes, node)) {
    head.linear = node;
    node = unwrapped(network, shapes, network.nodes[size_t(node)].inputs[0]);
  }
  if (!pools_globally(network, shapes, node, head.linear < 0)) return std::nullopt;
  head.maps = unwrapped(network, shapes, network.nodes[size_t(node)].inputs[0]);
  return head;
}

int last_map_node(const Network& network, Shape input) {
  const std::vector<bool> maps = map_nodes(network, input);
  const int logits = logit_node(network);
  if (maps[size_t(logits)])
    throw Error(fmt::format("the output of {} is made of maps, so no layer is the last before them", network.name),
                "choose one with --layer", true);
  if (const int tokens = last_patch_tokens(network, input); tokens >= 0) return tokens;
  for (int i = logits; i > 0; --i)
    if (maps[size_t(i)] && !layer_as<Dropout>(network, i) && !layer_as<MaxPool2d>(network, i) &&
        !layer_as<AvgPool2d>(network, i) && !layer_as<AdaptiveAvgPool2d>(network, i))
      return i;
  throw Error(fmt::format("{} has no maps", network.name), "class activation maps need a convolutional network", true);
}

Cams class_activation_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                           const std::vector<std::string>& labels, const CamOptions& options) {
  if (options.method == CamMethod::rollout || options.method == CamMethod::attention_gradient)
    return attention_maps(ctx, model, x, target, labels, options);
  if (options.method == CamMethod::fullgrad) return fullgrad_maps(ctx, model, x, target, labels, options);
  if (options.method == CamMethod::rise) return rise_maps(ctx, model, x, target, labels, options);
  if (options.method == CamMethod::eigencam || options.method == CamMethod::scorecam || options.method == CamMethod::ablationcam)
    return forward_maps(ctx, model, x, target, labels, options);
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0), targets = check_target(network, image, target, labels);
  const int node = logit_node(network);
  const bool exact = options.method == CamMethod::cam;
  const CamHead head = exact ? exact_head(network, image, target, options.layers) : CamHead{};
  Cams cams;
  cams.from_zero = head.linear < 0;
  cams.layers = exact ? std::vector{head.maps} : chosen_layers(network, image, options);

  PlanOptions plan_options{.precision = options.precision, .observe = cams.layers, .tape = !exact};
  plan_options.observe.push_back(node);
  const int64_t passes =
      batch_size(ctx, model, image, plan_options, options, exact ? images : std::max(images, targets));
  const int64_t seeds = exact ? 1 : std::min(targets, passes);
  cams.batch = std::min(images, std::max<int64_t>(1, passes / seeds));
  Plan plan(ctx, model, image.with_n(cams.batch), plan_options);
  Grids grids;
  for (int layer : cams.layers) grids.push_back(token_grid(network, image, layer));
  allocate(cams, options.method, plan.shapes(), grids, images, targets);
  std::optional<GradientMaps> gradients;
  if (!exact) gradients.emplace(plan, node, options, grids, cams, cams.batch * seeds);
  Tape tape;
  for (int64_t first = 0; first < images; first += cams.batch) {
    const int64_t n = std::min(cams.batch, images - first);
    plan.write(x.data() + first * image.item(), n);
    plan.forward(exact ? nullptr : &tape);
    const Tensor values = plan.read(node);
    std::vector<Tensor> activations;
    for (size_t l = 0; l < cams.layers.size(); ++l) activations.push_back(on_its_grid(grids[l], plan.read(cams.layers[l])));
    for (int64_t i = 0; i < n; ++i) cams.explained.push_back(explain(network, target, batch_item(values, i), labels));
    if (exact) exact_maps(model.weights, head, activations[0], first, cams);
    for (int64_t t = 0; t < targets && !exact; t += seeds)
      gradients->run(tape, scoring_of(network, target), values, activations, {first, n, t, std::min(seeds, targets - t)});
    if (options.progress) options.progress(first + n, images);
  }
  return cams;
}

Tensor enlarged_maps(const Cams& cams, int64_t h, int64_t w) {
  const int64_t layers = int64_t(cams.maps.size()), count = cams.maps[0].dim(0) * cams.maps[0].dim(1);
  Tensor out = allocate_maps({cams.maps[0].dim(0), cams.maps[0].dim(1), layers, h, w});
  for (int64_t l = 0; l < layers; ++l) {
    const Tensor& maps = cams.maps[size_t(l)];
    for (int64_t m = 0; m < count; ++m) {
      const std::vector<float> large =
          bilinear_map(maps.data() + m * maps.dim(2) * maps.dim(3), int(maps.dim(2)), int(maps.dim(3)), int(h), int(w));
      std::copy(large.begin(), large.end(), out.data() + (m * layers + l) * h * w);
    }
  }
  return out;
}

std::vector<float> combined_map(const float* maps, int64_t layers, int64_t places) {
  std::vector<float> mean(size_t(places), 0.f);
  for (int64_t l = 0; l < layers; ++l) {
    const std::span<const float> map(maps + l * places, size_t(places));
    const Range range{0, std::max(value_range(map).hi, 0.f)};
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += unit_position(map[i], range) / float(layers);
  }
  return mean;
}

}  // namespace switchback
