// Class activation maps without gradients: eigencam, scorecam, ablationcam, rise (cam.h).
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "engine/run/backward.h"
#include "kernels/noise/noise.h"
#include "kernels/parallel.h"
#include "kernels/sliding.h"
#include "viz/methods/batches.h"
#include "viz/methods/cam_parts.h"
#include "viz/methods/pixels.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

// The direction of the largest variance, from the sums of products [m,m] of what is centred; its sign is arbitrary. By powers:
// where the two largest are alike, any direction between them is as good.
std::vector<double> first_direction(const std::vector<double>& products, int64_t m) {
  int64_t widest = 0;
  for (int64_t a = 1; a < m; ++a)
    if (products[size_t(a * m + a)] > products[size_t(widest * m + widest)]) widest = a;
  std::vector<double> v(products.begin() + widest * m, products.begin() + (widest + 1) * m), next(v.size());
  for (int round = 0; round < 10000; ++round) {
    const double norm = std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0));
    if (!(norm > 0)) return v;
    for (double& e : v) e /= norm;
    for (int64_t a = 0; a < m; ++a) next[size_t(a)] = std::inner_product(v.begin(), v.end(), products.begin() + a * m, 0.0);
    const double along = std::inner_product(v.begin(), v.end(), next.begin(), 0.0);
    double off = 0;
    for (size_t a = 0; a < v.size(); ++a) off += std::pow(next[a] - along * v[a], 2);
    if (std::sqrt(off) <= 1e-10 * along) break;
    v.swap(next);
  }
  return v;
}

// maps: [C,h,w]. Of places and channels, whichever are fewer make the products.
std::vector<double> first_projection(const float* maps, Shape s) {
  const int64_t places = s.h * s.w;
  std::vector<double> centred(maps, maps + s.c * places), sums(size_t(places), 0), projection(size_t(places), 0);
  for (int64_t k = 0; k < s.c; ++k) {
    double* of_k = centred.data() + k * places;
    for (int64_t i = 0; i < places; ++i) sums[size_t(i)] += of_k[i];
    const double mean = std::accumulate(of_k, of_k + places, 0.0) / double(places);
    for (int64_t i = 0; i < places; ++i) of_k[i] -= mean;
  }
  const bool by_place = places < s.c;
  const int64_t m = std::min(places, s.c), others = std::max(places, s.c), step = by_place ? 1 : places, other = by_place ? places : 1;
  std::vector<double> products(size_t(m * m), 0);
  for (int64_t a = 0; a < m; ++a)
    for (int64_t b = 0; b <= a; ++b) {
      double sum = 0;
      for (int64_t o = 0; o < others; ++o) sum += centred[size_t(a * step + o * other)] * centred[size_t(b * step + o * other)];
      products[size_t(a * m + b)] = products[size_t(b * m + a)] = sum;
    }
  std::vector<double> v = first_direction(products, m);
  if (by_place) {  // the direction of the channels is that of Aᵀ v
    std::vector<double> channels;
    for (int64_t k = 0; k < s.c; ++k) channels.push_back(std::inner_product(v.begin(), v.end(), centred.begin() + k * places, 0.0));
    const double norm = std::sqrt(std::inner_product(channels.begin(), channels.end(), channels.begin(), 0.0));
    for (double& c : channels) c = norm > 0 ? c / norm : 0;
    v = std::move(channels);
  }
  for (int64_t k = 0; k < s.c; ++k)
    for (int64_t i = 0; i < places; ++i) projection[size_t(i)] += v[size_t(k)] * centred[size_t(k * places + i)];
  if (std::inner_product(projection.begin(), projection.end(), sums.begin(), 0.0) < 0)
    for (double& p : projection) p = -p;
  return projection;
}

// From 0 at the least to 1 at the largest value; a constant map is 0.
std::vector<float> mask_of(const float* map, Shape s, Shape image) {
  std::vector<float> mask = bilinear_map(map, int(s.h), int(s.w), int(image.h), int(image.w));
  const auto [least, most] = std::ranges::minmax(mask);
  for (float& v : mask) v = most > least ? (v - least) / (most - least) : v - least;  // NaN passes
  return mask;
}

// The score of each of the units in each item of the values.
void add_scores(const std::vector<Unit>& units, Scoring scoring, const Tensor& values, std::vector<std::vector<double>>& scores) {
  for (int64_t i = 0; i < values.dim(0); ++i) {
    const Tensor item = batch_item(values, i);
    for (size_t t = 0; t < units.size(); ++t) scores[t].push_back(score_of(units[t], scoring, item));
  }
}

// write(first, n, view): n inputs of `at`, from the given one on; the scores of all of them, by unit.
struct ManyPasses {
  ManyPasses(Context& ctx, const Model& model, Shape image, int node, const CamOptions& options, int64_t most, std::vector<int> given = {})
      : node(node),
        plan_options{.precision = options.precision, .observe = {node}, .tape = false, .given = std::move(given)},
        batch(batch_size(ctx, model, image, plan_options, options, most)),
        plan(ctx, model, image.with_n(batch), plan_options) {}
  template <typename Write>
  std::vector<std::vector<double>> scores(const std::vector<Unit>& units, Scoring scoring, int64_t count, const Write& write) {
    std::vector<std::vector<double>> all(units.size());
    for (int64_t first = 0; first < count; first += batch) {
      write(first, std::min(batch, count - first));
      plan.forward();
      add_scores(units, scoring, plan.read(node), all);
    }
    return all;
  }
  int node;
  PlanOptions plan_options;
  int64_t batch;
  Plan plan;
};

// What must be given beside the layer for the logits to be computed: values that do not depend on it.
std::vector<int> beside(const Network& network, const Plan& plan, int layer, int logits) {
  std::vector<int> found;
  for (int i = 1; i <= logits; ++i) {
    if (i == layer || !depends(network, i, layer) || !depends(network, logits, i)) continue;
    for (const int from : network.nodes[size_t(i)].inputs) {
      const int holder = plan.holder(from);
      if (from != layer && !depends(network, from, layer) && std::ranges::find(found, holder) == found.end()) found.push_back(holder);
    }
  }
  return found;
}

// Repeats a value [1,c,h,w], NCHW, for n items.
std::vector<float> repeated(const Tensor& value, int64_t n) {
  std::vector<float> all;
  all.reserve(size_t(n * value.count()));
  for (int64_t i = 0; i < n; ++i) all.insert(all.end(), value.values().begin(), value.values().end());
  return all;
}

std::vector<double> softmax_of(const std::vector<double>& scores) {
  const double most = *std::ranges::max_element(scores);
  std::vector<double> p;
  for (const double s : scores) p.push_back(std::exp(s - most));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

}  // namespace

Cams forward_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target, const std::vector<std::string>& labels,
                  const CamOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0), targets = check_target(network, image, target, labels);
  const int logits = logit_node(network);
  const Scoring scoring = scoring_of(network, target);
  Cams cams;
  cams.layers = chosen_layers(network, image, options);
  const bool ablation = options.method == CamMethod::ablationcam;
  PlanOptions clean_options{.precision = options.precision, .observe = cams.layers, .tape = false};
  clean_options.observe.push_back(logits);
  const Plan first_plan(ctx, model, image, clean_options);
  std::vector<std::vector<int>> besides;  // of each layer
  for (const int layer : cams.layers) {
    besides.push_back(ablation ? beside(network, first_plan, layer, logits) : std::vector<int>());
    clean_options.observe.insert(clean_options.observe.end(), besides.back().begin(), besides.back().end());
  }
  Plan clean(ctx, model, image, clean_options);
  Grids grids;
  for (const int layer : cams.layers) {
    const Shape s = clean.shapes()[size_t(layer)];
    grids.push_back(token_grid(network, image, layer));
    cams.maps.push_back(allocate_maps({images, targets, grids.back() ? grids.back()->h : s.h, grids.back() ? grids.back()->w : s.w}));
  }
  cams.batch = 1;
  const int64_t steps = images * int64_t(cams.layers.size());
  for (size_t l = 0; l < cams.layers.size(); ++l) {
    const int layer = cams.layers[l];
    const Shape own = clean.shapes()[size_t(layer)];
    std::unique_ptr<ManyPasses> many;
    if (options.method != CamMethod::eigencam) {
      std::vector<int> given = besides[l];
      if (ablation) given.insert(given.begin(), clean.holder(layer));
      many = std::make_unique<ManyPasses>(ctx, model, image, logits, options, own.c, std::move(given));
      cams.batch = std::max(cams.batch, many->batch);
    }
    for (int64_t i = 0; i < images; ++i) {
      const float* pixels = x.data() + i * image.item();
      clean.write(pixels, 1);
      clean.forward();
      if (l == 0) cams.explained.push_back(explain(network, target, clean.read(logits), labels));
      const Explained& explained = cams.explained[size_t(i)];
      const Tensor value = clean.read(layer), maps = on_its_grid(grids[l], clean.read(layer));
      const Shape s{1, maps.dim(1), maps.dim(2), maps.dim(3)};
      float* out = cams.maps[l].data() + i * targets * s.h * s.w;
      if (options.method == CamMethod::eigencam) {
        const std::vector<double> projection = first_projection(maps.data(), s);
        for (int64_t t = 0; t < targets; ++t) write_positive(projection, out + t * s.h * s.w);
      } else {
        std::vector<Tensor> besides_values;
        for (const int node : besides[l]) besides_values.push_back(clean.read(node));
        const std::vector<std::vector<double>> scores = many->scores(explained.units, scoring, own.c, [&](int64_t first, int64_t n) {
          if (ablation) {
            std::vector<float> all = repeated(value, n);
            for (int64_t k = 0; k < n; ++k) std::fill_n(all.begin() + k * own.item() + (first + k) * own.h * own.w, own.h * own.w, 0.f);
            write_nchw(ctx, all.data(), many->plan.given(clean.holder(layer), n));
            for (size_t b = 0; b < besides[l].size(); ++b)
              write_nchw(ctx, repeated(besides_values[b], n).data(), many->plan.given(besides[l][b], n));
          } else {
            std::vector<float> all(size_t(n * image.item()));
            parallel_ranges(ctx, n, image.item(), [&](int64_t from, int64_t to) {
              for (int64_t k = from; k < to; ++k) {
                const std::vector<float> mask = mask_of(maps.data() + (first + k) * s.h * s.w, s, image);
                for (int64_t e = 0; e < image.item(); ++e) all[size_t(k * image.item() + e)] = pixels[e] * mask[size_t(e) % mask.size()];
              }
            });
            many->plan.write(all.data(), n);
          }
        });
        for (int64_t t = 0; t < targets; ++t) {
          std::vector<double> weights = scores[size_t(t)];
          const double score = explained.scores[size_t(t)];
          if (ablation && score == 0) throw Error("the score is 0, of which no channel has a share", "--target chooses another class", false);
          if (ablation) for (double& w : weights) w = (score - w) / score;
          else weights = softmax_of(weights);
          write_positive(weighted_sum(weights, maps.data(), s.h * s.w), out + t * s.h * s.w);
        }
      }
      if (options.progress) options.progress((int64_t(l) * images + i + 1) * images / std::max<int64_t>(1, steps), images);
    }
  }
  return cams;
}

Cams rise_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target, const std::vector<std::string>& labels,
               const CamOptions& options) {
  const Network& network = model.network;
  const Shape image = image_shape(network, x);
  const int64_t images = x.dim(0), targets = check_target(network, image, target, labels), places = image.h * image.w;
  const int logits = logit_node(network);
  if (!options.layers.empty()) throw Error("rise looks at no layer", "leave out --layer", true);
  if (options.masks < 1) throw Error(fmt::format("--masks {} is less than 1", options.masks), "4000 is usual", true);
  if (options.grid < 1 || options.grid > std::min(image.h, image.w))
    throw Error(fmt::format("--grid {} is not from 1 to {}, the image's shorter side", options.grid, std::min(image.h, image.w)), "7 is usual", true);
  if (!(options.keep > 0 && options.keep < 1)) throw Error(fmt::format("--keep {} is not between 0 and 1", options.keep), "0.5 is usual", true);
  const Scoring scoring = scoring_of(network, target);
  ManyPasses many(ctx, model, image, logits, options, options.masks);
  Plan clean(ctx, model, image, {.precision = options.precision, .observe = {logits}, .tape = false});
  Cams cams;
  cams.batch = many.batch;
  cams.from_zero = false;
  cams.maps.push_back(allocate_maps({images, targets, image.h, image.w}));
  const std::array<uint32_t, 2> key{uint32_t(options.seed), uint32_t(options.seed >> 32)};
  const int64_t cell_h = ceil_div(image.h, options.grid), cell_w = ceil_div(image.w, options.grid);
  const int64_t high = (options.grid + 1) * cell_h, wide = (options.grid + 1) * cell_w;
  const auto mask = [&](int64_t m, float* to) {
    const auto uniform = [&](int64_t e) {
      return unit_uniform(philox4x32({uint32_t(e / 4), 3, uint32_t(m), 0}, key)[size_t(e % 4)]);
    };
    std::vector<float> cells;
    for (int64_t e = 0; e < options.grid * options.grid; ++e) cells.push_back(uniform(e + 2) < options.keep ? 1.f : 0.f);
    const std::vector<float> large = bilinear_map(cells.data(), int(options.grid), int(options.grid), int(high), int(wide));
    const int64_t down = int64_t(uniform(0) * double(cell_h)), right = int64_t(uniform(1) * double(cell_w));
    for (int64_t h = 0; h < image.h; ++h) std::copy_n(large.begin() + (down + h) * wide + right, image.w, to + h * image.w);
  };
  std::vector<float> masks(size_t(many.batch * places)), seen(size_t(many.batch * image.item()));
  for (int64_t i = 0; i < images; ++i) {
    const float* pixels = x.data() + i * image.item();
    clean.write(pixels, 1);
    clean.forward();
    cams.explained.push_back(explain(network, target, clean.read(logits), labels));
    const std::vector<Unit>& units = cams.explained.back().units;
    std::vector<double> sums(size_t(targets * places), 0);
    for (int64_t first = 0; first < options.masks; first += many.batch) {
      const int64_t n = std::min(many.batch, options.masks - first);
      const auto made = many.scores(units, scoring, n, [&](int64_t, int64_t) {
        parallel_ranges(ctx, n, image.item(), [&](int64_t from, int64_t to) {
          for (int64_t m = from; m < to; ++m) {
            float* of_m = masks.data() + m * places;
            mask(first + m, of_m);
            for (int64_t e = 0; e < image.item(); ++e) seen[size_t(m * image.item() + e)] = pixels[e] * of_m[e % places];
          }
        });
        many.plan.write(seen.data(), n);
      });
      parallel_ranges(ctx, places, n * targets, [&](int64_t from, int64_t to) {  // in the order of the masks, whatever the batch
        for (int64_t t = 0; t < targets; ++t)
          for (int64_t m = 0; m < n; ++m)
            for (int64_t p = from; p < to; ++p)
              sums[size_t(t * places + p)] += made[size_t(t)][size_t(m)] * double(masks[size_t(m * places + p)]);
      });
      if (options.progress) options.progress(i * options.masks + first + n, images * options.masks);
    }
    float* out = cams.maps[0].data() + i * targets * places;
    for (size_t e = 0; e < sums.size(); ++e) out[e] = float(sums[e] / (double(options.masks) * options.keep));
  }
  return cams;
}

}  // namespace switchback
