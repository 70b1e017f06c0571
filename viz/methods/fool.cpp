#include "viz/methods/fool.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "engine/files/safetensors.h"
#include "kernels/image/image_step.h"
#include "kernels/image/priors.h"
#include "kernels/parallel.h"
#include "viz/methods/batches.h"
#include "viz/methods/inspect.h"
#include "viz/methods/pixels.h"

namespace switchback {
namespace {

using Encoding = FoolOptions::Encoding;
constexpr double kMutationRate = 0.1, kMutationEta = 15, kCrossoverRate = 0.5, kCrossoverEta = 10;
constexpr double kStep = 0.03;  // of the gradient's way: the most that a probability is to grow in a step
constexpr float kNoCap = 1e30f;
constexpr double kStartNoise = 0.5;  // and its start: the mean colour with noise, in input units

int64_t classes_of(const Model& model, Outputs outputs) {
  const Network& network = model.network;
  const Shape out = network.shapes(network.input)[size_t(logit_node(network))];
  if (out.h * out.w != 1 || out.c < 2 || outputs == Outputs::value)
    throw Error(fmt::format("fooling wants a network that names classes; {} gives {} of shape {}", network.name,
                            name_of(outputs), to_string(Dims{out.c, out.h, out.w})),
                "name another --model, or with --preprocess an \"output\" that is a list of classes", true);
  return out.c;
}

Outputs outputs_of(const Model& model) {
  return switchback::outputs_of(model.network, model.preprocess.output_is_probability);
}

// A pixel of 0 to 1 as the network's input.
void to_input(const PixelUnits& units, Shape image, float* pixels) {
  const int64_t map = image.h * image.w;
  for (int64_t i = 0; i < image.item(); ++i)
    pixels[i] = units.scale[size_t(i / map)] * pixels[i] + units.offset[size_t(i / map)];
}

// [C,H,W] pixels of 0 to 1, in the order of the network's channels.
void draw_pixels(const Model& model, const Cppn& cppn, Shape image, float* pixels) {
  draw_cppn(cppn, image.h, image.w, pixels);
  if (image.c != 3) return;
  const int64_t map = image.h * image.w;
  colours_of_hls(pixels, map);
  if (channel_of(0, model.preprocess.order) == 2) std::swap_ranges(pixels, pixels + map, pixels + 2 * map);
}

// What is random in a child, in the order of the draws.
void make_direct(const Elites& elites, Draws& draws, std::span<float> genes) {
  if (elites.generation == 0) {
    for (float& gene : genes) gene = float(draws.uniform());
    return;
  }
  const int64_t classes = int64_t(elites.images.size());
  const std::vector<float>&a = elites.images[size_t(draws.below(classes))],
        &b = elites.images[size_t(draws.below(classes))];
  const bool crossed = draws.chance(kCrossoverRate);
  for (size_t i = 0; i < genes.size(); ++i) {
    genes[i] = crossed && draws.chance(0.5) ? crossed_gene(draws, a[i], b[i], kCrossoverEta) : a[i];
    if (draws.chance(kMutationRate)) genes[i] = mutated_gene(draws, genes[i], kMutationEta);
  }
}
Cppn make_cppn(const Elites& elites, Draws& draws, int outputs) {
  if (elites.generation == 0) return random_cppn(draws, outputs);
  return mutated(elites.cppns[size_t(draws.below(int64_t(elites.cppns.size())))], draws);
}

void end_generation(Elites& elites) {
  std::vector<float> sorted = elites.confidence;
  std::ranges::sort(sorted);
  const size_t k = sorted.size();
  elites.median.push_back(k % 2 == 1 ? sorted[k / 2] : (sorted[k / 2 - 1] + sorted[k / 2]) / 2);
  double sum = 0;
  for (const float p : elites.confidence) sum += double(p);
  elites.mean.push_back(float(sum / double(k)));
  ++elites.generation;
}

bool is_due(const FoolOptions& o, int64_t generation) {
  return o.save && o.save_every > 0 && generation % o.save_every == 0;
}

void evolve(Context& ctx, const Model& model, Elites& elites, const FoolOptions& o) {
  const Shape image = model.network.input.with_n(1);
  const Outputs outputs = outputs_of(model);
  const PixelUnits units = pixel_units(model, image.c);
  const bool direct = o.encoding == Encoding::direct;
  Forward forward(ctx, model, image, logit_node(model.network), o, o.children);
  Tensor pixels = allocate_maps({o.children, image.c, image.h, image.w});  // of one generation's children
  Tensor inputs = allocate_maps({std::min(forward.batch(), o.children), image.c, image.h, image.w});
  std::vector<Cppn> cppns(size_t(direct ? 0 : o.children));
  const int64_t item = image.item();
  while (elites.generation <= o.generations) {
    const auto make = [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        Draws draws(o.seed, uint32_t(elites.generation), uint32_t(i));
        float* to = pixels.data() + i * item;
        if (direct) {
          make_direct(elites, draws, std::span(to, size_t(item)));
        } else {
          cppns[size_t(i)] = make_cppn(elites, draws, int(image.c));
          draw_pixels(model, cppns[size_t(i)], image, to);
        }
      }
    };
    parallel_ranges(ctx, o.children, 20 * item, make);
    // Every child tries every class's place; of equals the first one stays.
    std::vector<int64_t> winner(elites.confidence.size(), -1);
    for (int64_t first = 0; first < o.children; first += forward.batch()) {
      const int64_t n = std::min(forward.batch(), o.children - first);
      std::copy_n(pixels.data() + first * item, n * item, inputs.data());
      for (int64_t i = 0; i < n; ++i) to_input(units, image, inputs.data() + i * item);
      const Tensor values = forward.run(inputs.data(), n);
      const size_t classes = winner.size();
      for (int64_t i = 0; i < n; ++i) {
        const std::vector<double> p = probabilities(values.values().subspan(size_t(i) * classes, classes), outputs);
        for (size_t k = 0; k < classes; ++k)
          if (float(p[k]) > elites.confidence[k]) elites.confidence[k] = float(p[k]), winner[k] = first + i;
      }
    }
    for (size_t k = 0; k < winner.size(); ++k) {
      if (winner[k] < 0) continue;
      elites.born[k] = elites.generation;
      const float* from = pixels.data() + winner[k] * item;
      if (direct)
        elites.images[k].assign(from, from + item);
      else
        elites.cppns[k] = cppns[size_t(winner[k])];
    }
    end_generation(elites);
    if (o.progress) o.progress(elites.generation, o.generations + 1);
    if (is_due(o, elites.generation)) o.save(elites);
  }
}

// One batch of the gradient's way: images of the classes first … first + n.
struct Climb : ClassPasses {
  Climb(Context& ctx, const Model& model, const FoolOptions& o, int64_t classes)
      : ClassPasses(ctx, model, model.network.input.with_n(1), o, classes),
        factors(ctx.allocate(size_t(batch * classes) * sizeof(float))) {}

  // The probabilities of the images as they are, before each step and after the last one: −log p, [steps + 1, n].
  std::vector<double> run(std::span<std::vector<float>> images, int64_t first, int64_t steps) {
    const int64_t n = int64_t(images.size());
    const Shape shape = plan.shapes()[0].with_n(n);
    std::vector<float> all;
    std::vector<int32_t> classes;
    for (const std::vector<float>& image : images) {
      all.insert(all.end(), image.begin(), image.end());
      classes.push_back(int32_t(first + int64_t(classes.size())));
    }
    const View at = view(x, n);
    write_nchw(ctx, all.data(), at);
    ctx.copy_in(labels.data(), classes.data(), classes.size() * sizeof(int32_t));
    std::vector<double> way;
    for (int64_t k = 0; k <= steps; ++k) {
      read(n);
      const View seed = backward.seed(n);
      way.resize(size_t((k + 1) * n));
      ctx.copy_out(way.data() + k * n, losses.data(), size_t(n) * sizeof(double));
      if (k == steps) break;
      // With g the gradient of −log p the step is −(a/p)·g/‖g‖². The rule `capped` steps by 2·g′/‖g′‖², so g′ is −2p/a
      // times g, which the seeds are multiplied by. Where p is 1 there is no way further up.
      std::vector<float> each;
      for (int64_t i = 0; i < n; ++i) {
        const double loss = way[size_t(k * n + i)], most = std::min(kStep, 0.1 * -std::expm1(-loss));
        each.insert(each.end(), size_t(seed.shape.c),
                    most > 0 ? float(-2 * std::max(1.0, std::exp(-loss) / most)) : 0.f);
      }
      ctx.copy_in(factors.data(), each.data(), each.size() * sizeof(float));
      const View line{seed.data, {1, int64_t(each.size()), 1, 1}, DType::f32};
      scale_by(ctx, factors.as<float>(), line, line);
      const ConstView g = backward.run(tape);
      image_step(ctx, {.rule = ImageStep::Rule::capped, .step = kNoCap}, pixels.range(), nullptr, g, {}, at);
    }
    read_nchw(ctx, at, all.data());
    for (size_t i = 0; i < images.size(); ++i)
      std::copy_n(all.begin() + int64_t(i) * shape.item(), shape.item(), images[i].begin());
    return way;
  }

  Memory factors;
};

void climb(Context& ctx, const Model& model, Elites& elites, const FoolOptions& o) {
  if (outputs_of(model) != Outputs::classes)
    throw Error("--encoding gradient wants a softmax over classes", "--encoding direct or cppn", true);
  const Shape image = model.network.input.with_n(1);
  const int64_t classes = int64_t(elites.confidence.size());
  Climb all(ctx, model, o, classes);
  if (elites.generation == 0) {
    for (int64_t k = 0; k < classes; ++k) {
      std::vector<float>& x = elites.images[size_t(k)];
      x.resize(size_t(image.item()));
      Context host;
      const std::vector<float> mean(x.size(), 0.f);
      write_noisy_input(host, mean.data(), {.sigma = float(kStartNoise), .seed = o.seed, .image = uint32_t(k)},
                        {x.data(), {1, image.item(), 1, 1}, DType::f32});  // as a vector: in NCHW order
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t c = i / size_t(image.h * image.w);
        x[i] = std::clamp(x[i], all.units.lowest(c), all.units.highest(c));
      }
    }
  }
  while (elites.generation <= o.generations) {
    // After `steps` more, generations are complete up to one that is saved, or to the end.
    const int64_t ahead = elites.generation == 0 ? 0 : 1;
    const int64_t until =
        o.save && o.save_every > 0 ? (elites.generation / o.save_every + 1) * o.save_every : o.generations + 1;
    const int64_t steps = std::min(until, o.generations + 1) - elites.generation - 1 + ahead;
    std::vector<std::vector<float>> way(size_t(steps + 1), std::vector<float>(size_t(classes)));
    for (int64_t first = 0; first < classes; first += all.batch) {
      const int64_t n = std::min(all.batch, classes - first);
      const std::vector<double> losses =
          all.run(std::span(elites.images).subspan(size_t(first), size_t(n)), first, steps);
      for (int64_t k = 0; k <= steps; ++k)
        for (int64_t i = 0; i < n; ++i) way[size_t(k)][size_t(first + i)] = float(std::exp(-losses[size_t(k * n + i)]));
    }
    for (int64_t k = ahead; k <= steps; ++k) {
      elites.confidence = way[size_t(k)];
      if (!std::ranges::all_of(elites.confidence, [](float p) { return std::isfinite(p); }))
        throw Error(fmt::format("a probability is not finite after step {}", elites.generation),
                    "the network's weights or preprocessing are not fit for it");
      std::ranges::fill(elites.born, elites.generation);
      end_generation(elites);
    }
    if (o.progress) o.progress(elites.generation, o.generations + 1);
    if (is_due(o, elites.generation)) o.save(elites);
  }
}

}  // namespace

void fool(Context& ctx, const Model& model, Elites& elites, const FoolOptions& o) {
  const size_t classes = size_t(classes_of(model, outputs_of(model)));
  const auto wrong = [](const std::string& what, const std::string& hint = "") { throw Error(what, hint, true); };
  if (o.generations < 1 || o.generations > 10'000'000)
    wrong(fmt::format("--generations {} is not from 1 to 10000000", o.generations));
  if (o.children < 1 || o.children > 100'000) wrong(fmt::format("--children {} is not from 1 to 100000", o.children));
  if (o.precision != Precision::fp32 && o.precision != Precision::tf32)
    wrong("fooling runs in fp32 or tf32", "leave out --precision");
  if (elites.generation > o.generations + 1)
    wrong(fmt::format("{} generations are done already, more than --generations {}", elites.generation - 1,
                      o.generations),
          "ask for as many, or leave out --resume");
  if (elites.generation == 0) {
    elites = {};
    elites.confidence.assign(classes, -1.f);  // any image is better than none
    elites.born.assign(classes, 0);
    if (o.encoding == Encoding::cppn)
      elites.cppns.resize(classes);
    else
      elites.images.resize(classes);
  }
  if (o.encoding == Encoding::gradient)
    climb(ctx, model, elites, o);
  else
    evolve(ctx, model, elites, o);
}

Tensor elite_image(const Model& model, const Elites& elites, Encoding encoding, int64_t k,
                   std::array<int64_t, 2> size) {
  Shape image = model.network.input.with_n(1);
  if (encoding == Encoding::cppn && size[0] > 0) image.h = size[0], image.w = size[1];
  Tensor x = allocate_maps({1, image.c, image.h, image.w});
  if (encoding == Encoding::cppn) {
    draw_pixels(model, elites.cppns[size_t(k)], image, x.data());
  } else {
    const std::vector<float>& from = elites.images[size_t(k)];
    CHECK(int64_t(from.size()) == image.item(), "an elite of {} numbers", from.size());
    std::ranges::copy(from, x.data());
  }
  if (encoding != Encoding::gradient) to_input(pixel_units(model, image.c), image, x.data());
  return x;
}

void save_elites(const std::string& path, const Elites& elites, const std::map<std::string, std::string>& about) {
  const int64_t classes = int64_t(elites.confidence.size()), generations = elites.generation;
  std::vector<float> born(elites.born.begin(), elites.born.end());
  std::vector<std::vector<float>> drawn;
  for (const Cppn& c : elites.cppns) drawn.push_back(numbers_of(c));
  std::vector<NamedTensor> list;
  const auto add = [&](const std::string& name, const std::vector<float>& values, int64_t count) {
    list.emplace_back(name, Dims{count}, std::span<const float>(values));
  };
  add("confidence", elites.confidence, classes);
  add("born", born, classes);
  add("median", elites.median, generations);
  add("mean", elites.mean, generations);
  const std::vector<std::vector<float>>& genes = drawn.empty() ? elites.images : drawn;
  for (size_t k = 0; k < genes.size(); ++k) add(fmt::format("elite.{}", k), genes[k], int64_t(genes[k].size()));
  std::map<std::string, std::string> metadata = about;
  metadata["generation"] = std::to_string(generations);
  write_safetensors(path, list, metadata);
}

Elites load_elites(const std::string& path, const Model& model, Encoding encoding,
                   std::map<std::string, std::string>& about) {
  const Safetensors file(path);
  about = file.metadata();
  Elites elites;
  const auto found = about.find("generation");
  if (found == about.end() ||
      std::from_chars(found->second.data(), found->second.data() + found->second.size(), elites.generation).ec !=
          std::errc() ||
      elites.generation < 1)
    throw Error(path + " is no state of switchback fool", "leave out --resume");
  const int64_t classes = classes_of(model, outputs_of(model));
  const auto load = [&](const std::string& name, int64_t count) {  // count −1: any
    if (!file.has(name) || file.dims(name).size() != 1 || (count >= 0 && file.dims(name)[0] != count))
      throw Error(fmt::format("{} holds no {} of {} numbers: it belongs to another run", path, name, count),
                  "leave out --resume");
    const Tensor values = file.load(name);
    for (const float v : values.values())
      if (!std::isfinite(v)) throw Error(fmt::format("{}: {} is not finite", path, name), "leave out --resume");
    return std::vector<float>(values.values().begin(), values.values().end());
  };
  elites.confidence = load("confidence", classes);
  for (const float v : load("born", classes)) elites.born.push_back(int64_t(v));
  elites.median = load("median", elites.generation);
  elites.mean = load("mean", elites.generation);
  for (int64_t k = 0; k < classes; ++k) {
    const std::string name = fmt::format("elite.{}", k);
    if (encoding == Encoding::cppn)
      elites.cppns.push_back(cppn_from_numbers(load(name, -1), int(model.network.input.c)));
    else
      elites.images.push_back(load(name, model.network.input.item()));
  }
  return elites;
}

}  // namespace switchback
