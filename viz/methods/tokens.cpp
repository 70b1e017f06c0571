#include "viz/methods/tokens.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "viz/methods/batches.h"

namespace switchback {
namespace {

// More tokens than these before the patches are none of a known kind (a class token, a distilled one, four or eight
// registers).
constexpr int64_t kMostOthers = 16;

template <typename... Ls>
bool is_any(const Layer& layer) {
  return (std::holds_alternative<Ls>(layer) || ...);
}

std::vector<bool> ancestors(const Network& network, int node) {
  std::vector<bool> found(network.nodes.size(), false);
  found[size_t(node)] = true;
  for (int i = node; i >= 0; --i)
    for (int from : network.nodes[size_t(i)].inputs)
      if (found[size_t(i)]) found[size_t(from)] = true;
  return found;
}

// Nodes whose places are those of a map of the image: before them lie only layers that keep or scale it.
std::vector<bool> maps_of_image(const Network& network) {
  std::vector<bool> maps(network.nodes.size(), false);
  maps[0] = true;
  for (size_t i = 1; i < maps.size(); ++i) {
    const Node& node = network.nodes[i];
    maps[i] = !is_any<Transpose, Permute, Reshape, Flatten, Linear, MatMul, Attention>(node.layer) &&
              std::ranges::any_of(node.inputs, [&](int from) { return bool(maps[size_t(from)]); });
  }
  return maps;
}

bool holds_tokens(Shape s) { return (s.h == 1) != (s.w == 1); }

// The sides of a grid of `patches` that are in the image's proportion; 0 where there are none.
int64_t rows_like(Shape image, int64_t patches) {
  const auto rows = int64_t(std::lround(std::sqrt(double(patches) * double(image.h) / double(image.w))));
  return rows > 0 && patches % rows == 0 && rows * image.w == patches / rows * image.h ? rows : 0;
}

struct TokenRows {
  int64_t first, last;  // of tokens
};
// Which tokens the classes are read from behind the attention layer: those that are cut out, or all.
std::vector<TokenRows> read_rows(const Network& network, const List<Shape>& shapes, int attention, int64_t tokens) {
  const std::vector<bool> needed = ancestors(network, logit_node(network));
  std::vector<TokenRows> rows;
  for (size_t i = size_t(attention) + 1; i < needed.size(); ++i) {
    const auto* slice = std::get_if<Slice>(&network.nodes[i].layer);
    if (!slice || !needed[i]) continue;
    const Shape in = shapes[size_t(network.nodes[i].inputs[0])], out = shapes[i];
    if (in.h * in.w != tokens || !holds_tokens(in) || out.h * out.w == tokens) continue;
    const SliceRange& cut = in.w == 1 ? slice->h : slice->w;
    if (cut.step == 1) rows.push_back({cut.begin, cut.begin + out.h * out.w});
  }
  if (rows.empty()) rows.push_back({0, tokens});
  return rows;
}

// The tokens that an attention layer's values are made of: behind projections and cuts into heads. (Keys may be turned
// or normalised on the way.)
int tokens_before(const Network& network, int attention) {
  int node = network.nodes[size_t(attention)].inputs[2];
  for (;;) {
    const Layer& layer = network.nodes[size_t(node)].layer;
    const auto* conv = std::get_if<Conv2d>(&layer);
    if (!is_any<Transpose, Permute, Reshape, Slice, BinaryConstant, Linear>(layer) &&
        !(conv && conv->kernel_h * conv->kernel_w == 1))
      return node;
    node = network.nodes[size_t(node)].inputs[0];
  }
}

// Channels of what reads an attention layer's heads together; 0 where nothing does.
int64_t width_behind(const Network& network, const List<Shape>& shapes, int node) {
  for (size_t i = size_t(node) + 1; i < network.nodes.size(); ++i) {
    if (!std::ranges::count(network.nodes[i].inputs, node)) continue;
    if (!is_any<Transpose, Slice>(network.nodes[i].layer)) return shapes[size_t(node)].c;
    node = int(i);
  }
  return shapes[size_t(node)].c;
}

[[noreturn]] void cannot_follow(const std::string& what) {
  throw Error("attention cannot be followed through the network: " + what, "use --method gradcam", true);
}

// One image's attention layer: queries and keys [d,heads,T], values and the gradient at its result [e,heads,T].
struct Block {
  const Attention* layer;
  Shape q, v;
  const float *queries, *keys, *values = nullptr, *gradient = nullptr;
};

// r ← ½ r + ½ r·A, where A is the mean over heads (Abnar and Zuidema 2020, section 3, their rows sum up to 1 already);
// with a gradient r ← r + r·mean over heads of ReLU(∂S/∂A ⊙ A) (Chefer et al. 2021, eq. 5 and 6). From the last layer
// to the first a row of the product of all layers is so made without any matrix.
void pass_back(const Block& b, std::vector<double>& r) {
  const int64_t heads = b.q.h, tokens = b.q.w, group = tokens * tokens;
  std::vector<double> parts(size_t(heads * tokens), 0);  // of each head, so that threads change no bit
#pragma omp parallel for schedule(static)
  for (int64_t head = 0; head < heads; ++head) {
    std::vector<double> a(static_cast<size_t>(tokens)), g(static_cast<size_t>(tokens));
    double* part = parts.data() + head * tokens;
    const float* bias = b.layer->bias.empty() ? nullptr : b.layer->bias.data() + head % b.layer->bias_groups * group;
    // Σ over channels of one token's x and all tokens' y.
    const auto products = [&](const float* x, const float* y, Shape s, int64_t token, std::vector<double>& out) {
      std::ranges::fill(out, 0);
      for (int64_t e = 0; e < s.c; ++e) {
        const float *row = y + (e * heads + head) * tokens, by = x[(e * heads + head) * tokens + token];
        for (int64_t i = 0; i < tokens; ++i) out[size_t(i)] += double(by) * double(row[i]);
      }
    };
    for (int64_t t = 0; t < tokens; ++t) {
      if (r[size_t(t)] == 0) continue;
      products(b.queries, b.keys, b.q, t, a);
      double most = -INFINITY, sum = 0;
      for (int64_t i = 0; i < tokens; ++i) {
        a[size_t(i)] = double(b.layer->scale) * a[size_t(i)] + (bias ? double(bias[t * tokens + i]) : 0);
        most = std::max(most, a[size_t(i)]);
      }
      for (double& v : a) sum += v = std::exp(v - most);
      if (b.gradient) products(b.gradient, b.values, b.v, t, g);
      const double by = r[size_t(t)] / (sum * double(heads));
      for (int64_t i = 0; i < tokens; ++i)
        part[i] += by * a[size_t(i)] * (b.gradient ? std::max(g[size_t(i)], 0.0) : 0.5);
    }
  }
  for (double& v : r) v *= b.gradient ? 1 : 0.5;
  for (int64_t i = 0; i < heads * tokens; ++i) r[size_t(i % tokens)] += parts[size_t(i)];
}

// Follows the attention of one batch back from the tokens that are read to the patches.
class Follower {
 public:
  Follower(const Plan& plan, const std::vector<int>& layers, const List<Shape>& shapes)
      : plan_(plan), layers_(layers), shapes_(shapes) {
    const int64_t tokens = shapes[size_t(plan.network().nodes[size_t(layers.back())].inputs[1])].w;
    start_.assign(size_t(tokens), 0);
    int64_t count = 0;
    for (const TokenRows& rows : read_rows(plan.network(), shapes, layers.back(), tokens))
      for (int64_t t = rows.first; t < rows.last; ++t) start_[size_t(t)] += 1, ++count;
    for (double& v : start_) v /= double(count);
  }

  static std::vector<int> observed(const Network& network, const std::vector<int>& layers) {
    std::vector<int> nodes = layers;
    for (int layer : layers)
      for (int input : network.nodes[size_t(layer)].inputs)
        if (!std::ranges::count(nodes, input)) nodes.push_back(input);
    return nodes;
  }

  void read() {
    operands_.clear();
    for (int layer : layers_)
      for (int input : plan_.network().nodes[size_t(layer)].inputs) operands_.push_back(plan_.read(input));
  }

  // gradients: at each layer's result of `seeds` seeds an image, or none. seed: which of all.
  std::vector<double> row(int64_t image, const std::vector<Tensor>& gradients, int64_t seed) const {
    std::vector<double> r = start_;
    for (size_t l = layers_.size(); l-- > 0;) {
      const Node& node = plan_.network().nodes[size_t(layers_[l])];
      const Shape q = shapes_[size_t(node.inputs[0])], v = shapes_[size_t(node.inputs[2])];
      Block block{&std::get<Attention>(node.layer), q, v, operands_[3 * l].data() + image * q.item(),
                  operands_[3 * l + 1].data() + image * q.item()};
      if (!gradients.empty()) {
        block.values = operands_[3 * l + 2].data() + image * v.item();
        block.gradient = gradients[l].data() + seed * v.item();
      }
      pass_back(block, r);
    }
    return r;
  }

 private:
  const Plan& plan_;
  const std::vector<int>& layers_;
  List<Shape> shapes_;
  std::vector<double> start_;     // which tokens the classes are read from
  std::vector<Tensor> operands_;  // of each layer its queries, keys and values, [n,d,heads,T]
};

}  // namespace

std::optional<TokenGrid> token_grid(const Network& network, Shape input, int node) {
  const List<Shape> shapes = network.shapes(input);
  const int64_t tokens = shapes[size_t(node)].h * shapes[size_t(node)].w;
  if (!holds_tokens(shapes[size_t(node)]) || input.h == 1 || input.w == 1) return std::nullopt;
  const std::vector<bool> maps = maps_of_image(network), before = ancestors(network, node);
  if (maps[size_t(node)]) return std::nullopt;
  int64_t in_front = -1;  // tokens that were put before others
  for (int i = node; i > 0; --i) {
    if (!before[size_t(i)]) continue;
    const Shape s = shapes[size_t(i)];
    if (const auto* pad = std::get_if<Pad>(&network.nodes[size_t(i)].layer);
        pad && holds_tokens(s) && s.h * s.w == tokens)
      in_front = s.w == 1 ? pad->top : pad->left;
    const int64_t others = tokens - s.h * s.w;
    if (!maps[size_t(i)] || s.h == 1 || s.w == 1 || others < 0 || others > kMostOthers) continue;
    return TokenGrid{in_front >= 0 ? in_front : others, s.h, s.w};
  }
  const bool attends = std::ranges::any_of(network.nodes, [](const Node& n) { return is_any<Attention>(n.layer); });
  for (int64_t others = 0; attends && others <= 2 && others < tokens; ++others)
    if (const int64_t rows = rows_like(input, tokens - others))
      return TokenGrid{others, rows, (tokens - others) / rows};
  return std::nullopt;
}

Tensor on_grid(const Tensor& values, const TokenGrid& grid) {
  const int64_t tokens = values.dim(2) * values.dim(3), patches = grid.h * grid.w;
  Tensor out({values.dim(0), values.dim(1), grid.h, grid.w});
  for (int64_t row = 0; row < values.dim(0) * values.dim(1); ++row)
    std::copy_n(values.data() + row * tokens + grid.first, patches, out.data() + row * patches);
  return out;
}

int last_patch_tokens(const Network& network, Shape input) {
  const std::vector<bool> needed = ancestors(network, logit_node(network));
  int last = logit_node(network);
  while (last > 0 && !(needed[size_t(last)] && is_any<Attention>(network.nodes[size_t(last)].layer))) --last;
  if (last == 0) return -1;
  const int tokens = tokens_before(network, last);
  const std::optional<TokenGrid> grid = token_grid(network, input, tokens);
  if (!grid || grid->first == 0) return -1;
  const List<Shape> shapes = network.shapes(input);
  const Shape s = shapes[size_t(tokens)];
  for (const TokenRows& rows : read_rows(network, shapes, last, s.h * s.w))
    if (rows.last > grid->first) return -1;
  return tokens;
}

std::vector<int> followed_attention(const Network& network, Shape input) {
  const List<Shape> shapes = network.shapes(input);
  const std::vector<bool> needed = ancestors(network, logit_node(network));
  std::vector<int> layers;
  for (size_t i = 1; i < needed.size(); ++i) {
    const Node& node = network.nodes[i];
    if (!needed[i] || !is_any<Attention>(node.layer)) continue;
    const Shape q = shapes[size_t(node.inputs[0])], k = shapes[size_t(node.inputs[1])],
                v = shapes[size_t(node.inputs[2])];
    if (q.w != k.w) cannot_follow(fmt::format("{} has {} queries for {} keys", node.name, q.w, k.w));
    if (width_behind(network, shapes, int(i)) != v.c * v.h)
      cannot_follow(fmt::format("{} attends within windows", node.name));
    const int first = layers.empty() ? int(i) : layers[0];
    if (shapes[size_t(first)].w != q.w)
      cannot_follow(fmt::format("{} has {} tokens, {} has {}", network.nodes[size_t(first)].name,
                                shapes[size_t(first)].w, node.name, q.w));
    layers.push_back(int(i));
  }
  if (layers.empty()) cannot_follow(fmt::format("{} has no attention layers", network.name));
  return layers;
}

Cams attention_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                    const std::vector<std::string>& labels, const CamOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0), targets = check_target(network, image, target, labels);
  const int node = logit_node(network);
  const bool by_gradient = options.method == CamMethod::attention_gradient;
  if (!options.layers.empty())
    throw Error("attention is followed through all layers, so that none can be chosen", "leave out --layer", true);
  Cams cams;
  cams.attention = followed_attention(network, image);
  cams.layers = {tokens_before(network, cams.attention[0])};
  const std::optional<TokenGrid> grid = token_grid(network, image, cams.layers[0]);
  if (!grid)
    cannot_follow(
        fmt::format("which tokens of {} are which patches is not known", network.nodes[size_t(cams.layers[0])].name));

  PlanOptions plan_options{
      .precision = options.precision, .observe = Follower::observed(network, cams.attention), .tape = by_gradient};
  plan_options.observe.push_back(node);
  const int64_t passes =
      batch_size(ctx, model, image, plan_options, options, by_gradient ? std::max(images, targets) : images);
  const int64_t seeds = by_gradient ? std::min(targets, passes) : 1;
  cams.batch = std::min(images, std::max<int64_t>(1, passes / seeds));
  Plan plan(ctx, model, image.with_n(cams.batch), plan_options);
  cams.maps.push_back(allocate_maps({images, targets, grid->h, grid->w}));
  std::optional<Backward> backward;
  if (by_gradient) backward.emplace(plan, node, Wanted{.nodes = cams.attention}, cams.batch * seeds);
  const List<Shape> shapes = network.shapes(image);
  Follower follower(plan, cams.attention, shapes);
  const auto put = [&](int64_t at, const std::vector<double>& row) {
    float* out = cams.maps[0].data() + at * grid->h * grid->w;
    for (int64_t i = 0; i < grid->h * grid->w; ++i) out[i] = float(row[size_t(grid->first + i)]);
  };
  Tape tape;
  for (int64_t first = 0; first < images; first += cams.batch) {
    const int64_t n = std::min(cams.batch, images - first);
    plan.write(x.data() + first * image.item(), n);
    plan.forward(by_gradient ? &tape : nullptr);
    const Tensor values = plan.read(node);
    for (int64_t i = 0; i < n; ++i) cams.explained.push_back(explain(network, target, batch_item(values, i), labels));
    follower.read();
    for (int64_t i = 0; i < n && !by_gradient; ++i) {
      const std::vector<double> row = follower.row(i, {}, 0);
      for (int64_t t = 0; t < targets; ++t) put((first + i) * targets + t, row);
    }
    for (int64_t t = 0; by_gradient && t < targets; t += seeds) {
      const int64_t count = std::min(seeds, targets - t);
      std::vector<Unit> units;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t k = 0; k < count; ++k) units.push_back(cams.explained[size_t(first + i)].units[size_t(t + k)]);
      write_seeds(ctx, units, scoring_of(network, target), values, count, backward->seed(n * count));
      backward->run(tape, {.seeds_per_item = count});
      std::vector<Tensor> gradients;
      for (int layer : cams.attention) {
        const ConstView g = backward->gradient(layer);
        gradients.emplace_back(Dims{g.shape.n, g.shape.c, g.shape.h, g.shape.w});
        read_nchw(ctx, g, gradients.back().data());
      }
      for (int64_t p = 0; p < n * count; ++p)
        put((first + p / count) * targets + t + p % count, follower.row(p / count, gradients, p));
    }
    if (options.progress) options.progress(first + n, images);
  }
  return cams;
}

}  // namespace switchback
