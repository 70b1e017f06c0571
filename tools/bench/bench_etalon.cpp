// Etalons for `switchback bench`: rows W_p and biases b_p of some units for some images.
#include "tools/bench/bench_ops.h"
#include "viz/methods/etalon.h"

namespace switchback {
namespace {

// "0,1,…,P-1": the first outputs, or all.
std::string first_outputs(const BenchOptions& o) {
  if (o.outputs == "all") return "all";
  std::string list;
  for (int64_t p = 0; p < parse_whole("--outputs", o.outputs, 1, 1 << 20); ++p)
    list += fmt::format("{}{}", p > 0 ? "," : "", p);
  return list;
}

// FLOPs of one image from the input to `node`.
double flops_to(const Network& network, Shape image, int node) {
  const List<Shape> shapes = network.shapes(image);
  std::vector<bool> needed(network.nodes.size());
  needed[size_t(node)] = true;
  double sum = 0;
  for (size_t i = size_t(node); i > 0; --i) {
    if (!needed[i]) continue;
    std::vector<Shape> inputs;
    for (int input : network.nodes[i].inputs) {
      needed[size_t(input)] = true;
      inputs.push_back(shapes[size_t(input)]);
    }
    sum += double(flops(network.nodes[i].layer, inputs));
  }
  return sum;
}

struct EtalonWork {
  EtalonWork(Job& job, const BenchOptions& o, const TargetSpec& target, const EtalonOptions& options)
      : images(o.images),
        pixels(bench_images(job, image = job.model.network.input, images)),
        etalons(job.ctx, job.model, image, target, job.model.labels, options, images) {}

  void run() {
    for (int64_t first = 0; first < images; first += etalons.batch())
      etalons.run(pixels.data() + first * image.item(), std::min(etalons.batch(), images - first),
                  [](int64_t, int64_t, int64_t, const float*) {});
  }

  int64_t images;
  Shape image;
  std::vector<float> pixels;
  Etalons etalons;
};

}  // namespace

Work etalon_work(Job& job, const BenchOptions& o) {
  const std::string algorithm = o.algorithm.empty() ? "single-pass" : o.algorithm;
  check_choice("--algorithm", algorithm, {"single-pass", "coordinate"});
  if (o.images < 1) throw Error("--images must be at least 1", "", true);
  if (!o.layer.empty() && o.outputs != "all") throw Error("--outputs and --layer exclude each other", "", true);
  EtalonOptions options;
  static_cast<RunOptions&>(options) = job.run;
  if (algorithm == "coordinate") options.algorithm = EtalonAlgorithm::coordinate;
  options.fields = !o.full_maps;
  const TargetSpec target{.target = o.layer.empty() ? first_outputs(o) : "max", .layer = o.layer};
  auto state = std::make_shared<EtalonWork>(job, o, target, options);
  const int64_t units = state->etalons.units();
  const double forward = flops_to(job.model.network, state->image, target_node(job.model.network, target));
  const int64_t passes = algorithm == "coordinate" ? state->image.item() + 1 : units;  // each is worth a forward pass
  const bool fields = options.fields && targets_places(job.model.network, target);     // what they cost is not counted
  Work work;
  work.once = [state] { state->run(); };
  work.items = double(o.images * units);
  work.item = "etalon";
  work.flops = fields ? 0 : double(o.images) * forward * double(1 + passes);
  work.details = {
      {"algorithm", algorithm},          {"images", o.images}, {"units", units}, {"batch", state->etalons.batch()},
      {"seeds", state->etalons.seeds()}, {"fields", fields}};
  return work;
}

}  // namespace switchback
