// `switchback evaluate`: how well a model reads a labelled data set.
#include "tools/commands/evaluate.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "engine/files/dataset.h"
#include "tools/cli/figure.h"
#include "tools/cli/inputs.h"
#include "tools/cli/job.h"
#include "tools/cli/labelled.h"
#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "viz/methods/batches.h"
#include "viz/methods/inspect.h"
#include "viz/methods/ordered_sum.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

constexpr size_t kMostClassesInTable = 20;

struct Evaluation {
  int64_t images = 0, top1 = 0, top5 = 0;
  ExactSum losses;
  std::vector<int64_t> confusion;  // [K,K], row = true class; empty for many classes
  std::vector<Case> worst;         // the largest losses first
  // Where maps are wanted: the first images of each output that are read rightly, and those with the largest losses
  // that are not.
  std::vector<std::vector<Case>> right;
  std::vector<Case> wrong;

  double loss() const { return losses.value() / double(images); }
  void merge(Evaluation&& next);  // of the images behind these; lists are cut later (finish)
  template <typename A>
  void fields(A& a) {
    a(images, top1, top5, losses, confusion, worst, right, wrong);
  }
};

void Evaluation::merge(Evaluation&& next) {
  images += next.images, top1 += next.top1, top5 += next.top5;
  losses.add(next.losses);
  CHECK(confusion.size() == next.confusion.size(), "confusion tables of {} and {} entries", confusion.size(), next.confusion.size());
  for (size_t i = 0; i < confusion.size(); ++i) confusion[i] += next.confusion[i];
  const auto append = [](std::vector<Case>& to, const std::vector<Case>& from) { to.insert(to.end(), from.begin(), from.end()); };
  append(worst, next.worst), append(wrong, next.wrong);
  right.resize(std::max(right.size(), next.right.size()));
  for (size_t k = 0; k < next.right.size(); ++k) append(right[k], next.right[k]);
}

bool worse(const Case& a, const Case& b) { return a.loss > b.loss; }

// Adds a case to a list of which the worst `keep` are wanted in the end.
void add_worst(std::vector<Case>& list, const Case& c, size_t keep) {
  list.push_back(c);
  if (list.size() < 2 * keep + 64) return;
  std::stable_sort(list.begin(), list.end(), worse);
  list.resize(keep);
}

void sort_worst(std::vector<Case>& list, size_t keep) {
  std::stable_sort(list.begin(), list.end(), worse);
  list.resize(std::min(list.size(), keep));
}

size_t most_right(const EvaluateOptions& o) { return size_t(std::max(o.cases, o.per_class)); }

void judge(std::span<const float> logits, Outputs outputs, int64_t index, int64_t label, const EvaluateOptions& o,
           Evaluation& sum) {
  Tensor values({1, int64_t(logits.size())});
  std::copy(logits.begin(), logits.end(), values.data());
  Case c;
  c.label = label;
  c.predicted = std::max_element(logits.begin(), logits.end()) - logits.begin();
  c.probability = probabilities(logits, outputs)[size_t(c.predicted)];
  c.loss = score_of({0, label}, {Score::nll, outputs}, values);
  c.index = index;
  ++sum.images;
  // Rank of the true class: those above it, ties counted as the first maximum would fall.
  int64_t above = 0;
  for (int64_t k = 0; k < int64_t(logits.size()); ++k)
    above += logits[size_t(k)] > logits[size_t(label)] || (logits[size_t(k)] == logits[size_t(label)] && k < label);
  sum.top1 += above == 0;
  sum.top5 += above < 5;
  sum.losses.add(c.loss);
  if (!sum.confusion.empty()) ++sum.confusion[size_t(label) * logits.size() + size_t(c.predicted)];
  add_worst(sum.worst, c, size_t(o.top));
  if (!o.maps()) return;
  sum.right.resize(logits.size());
  if (c.predicted != label)
    add_worst(sum.wrong, c, size_t(o.cases));
  else if (std::vector<Case>& of = sum.right[size_t(label)]; of.size() < most_right(o))
    of.push_back(c);
}

void finish(Evaluation& sum, const EvaluateOptions& o) {
  sort_worst(sum.worst, size_t(o.top));
  sort_worst(sum.wrong, size_t(o.cases));
  for (std::vector<Case>& of : sum.right) of.resize(std::min(of.size(), most_right(o)));
}

Evaluation evaluate(Job& job, const EvaluateOptions& o, Output& output, const Dataset& data,
                    const std::vector<int64_t>& classes, std::span<const int64_t> images) {
  const Network& network = job.model.network;
  const Shape image = image_of(job.model);
  check_image_shape(network, image);
  RunOptions options = job.run;
  const int64_t most = std::clamp<int64_t>(int64_t(images.size()), 1, 256);
  Forward forward(job.ctx, job.model, image, logit_node(network), options, most);
  const int64_t outputs = network.shapes(image)[size_t(logit_node(network))].c;
  Evaluation sum;
  if (outputs <= int64_t(kMostClassesInTable)) sum.confusion.assign(size_t(outputs * outputs), 0);
  for_batches(job, data, images, forward.batch(), [&](const float* pixels, std::span<const int64_t> numbers) {
    const int64_t n = int64_t(numbers.size());
    if (job.input_recorder) job.input_recorder->add(output, pixels, n, image);
    const Tensor values = forward.run(pixels, n);
    CHECK(values.count() == n * outputs, "{} gives maps of shape {}, not classes", job.options.model,
          to_string(values.dims()));
    for (float v : values.values()) CHECK(std::isfinite(v), "the logits of {} are not finite", job.options.model);
    for (int64_t i = 0; i < n; ++i)
      judge(values.values().subspan(size_t(i * outputs), size_t(outputs)), job.outputs, numbers[size_t(i)],
            classes[size_t(data.label(numbers[size_t(i)]))], o, sum);
  });
  finish(sum, o);
  return sum;
}

Json worst_json(const Job& job, const Dataset& data, const Evaluation& e) {
  Json list = Json::array();
  for (const Case& c : e.worst) list.push_back(case_json(job, data, c));
  return list;
}

Canvas worst_picture(const Job& job, const Dataset& data, const Evaluation& e) {
  std::vector<Panel> panels;
  for (const Case& c : e.worst)
    panels.push_back({enlarge_to_at_least(to_rgb(preprocessed_picture(data.image(c.index), job.model.preprocess)), 112),
                      fmt::format("#{}: {}\nread as {}, {:.0f} %", data.number(c.index), shown_class(job, c.label),
                                  shown_class(job, c.predicted), 100 * c.probability)});
  return grid(panels, {.columns = job.options.columns,
                       .title = figure_title(job, "Worst cases"),
                       .subtitle = fmt::format("top-1 {:.2f} % of {}; {}", 100 * double(e.top1) / double(e.images),
                                               counted(e.images, "image"), weights_text(job))});
}

void print_confusion(const Job& job, const Evaluation& e) {
  if (e.confusion.empty()) return;
  const size_t k = size_t(std::lround(std::sqrt(double(e.confusion.size()))));
  std::string head = fmt::format("{:>12} ", "true \\ read");
  for (size_t c = 0; c < k; ++c) head += fmt::format(" {:>6.6}", shown_class(job, int64_t(c)));
  print_line(head);
  for (size_t r = 0; r < k; ++r) {
    std::string line = fmt::format("{:>12.12} ", shown_class(job, int64_t(r)));
    for (size_t c = 0; c < k; ++c) line += fmt::format(" {:>6}", e.confusion[r * k + c]);
    print_line(line);
  }
}

Json confusion_json(const Evaluation& e) {
  if (e.confusion.empty()) return nullptr;
  const size_t k = size_t(std::lround(std::sqrt(double(e.confusion.size()))));
  Json rows = Json::array();
  for (size_t r = 0; r < k; ++r)
    rows.push_back(std::vector<int64_t>(e.confusion.begin() + long(r * k), e.confusion.begin() + long((r + 1) * k)));
  return rows;
}

void print_summary(const Job& job, const Dataset& data, const Evaluation& e, const std::vector<std::string>& said,
                   const Output& output) {
  const double n = double(e.images);
  print_line(job.summary_title("evaluate"));
  print_line(fmt::format("  top-1 {:.2f} %, top-5 {:.2f} %, loss {:.4f} over {}", 100 * double(e.top1) / n,
                         100 * double(e.top5) / n, e.loss(), counted(e.images, "image")));
  print_confusion(job, e);
  print_line("worst cases:");
  for (const Case& c : e.worst)
    print_line(fmt::format("  {}: {} read as {} ({:.1f} %), loss {:.2f}", data.path(c.index), shown_class(job, c.label),
                           shown_class(job, c.predicted), 100 * c.probability, c.loss));
  for (const std::string& line : said) print_line(line);
  print_written(job, output.paths());
  print_line(job.summary_times(e.images, "image"));
}

void run_evaluate(EvaluateOptions& o) {
  check_evaluate_maps(o);
  if (o.maps() && o.save == "none") o.save = "png";
  if (o.inputs.size() != 1)
    throw Error(fmt::format("evaluate takes one data set, but {} are given", o.inputs.size()),
                kDatasets, true);
  if (o.saves("npy")) throw Error("evaluate saves no arrays", "--save png draws the worst cases", true);
  Job job("evaluate", o);
  if (job.outputs == Outputs::value)
    throw Error(fmt::format("evaluate is about classes, but {} gives one value", job.model_name()),
                "`switchback classify` shows it");
  const std::string& path = o.inputs[0];
  const Dataset data = open_dataset(path, o.exif);
  const int64_t images = limited(data, o.limit);
  const Network& network = job.model.network;
  const std::vector<int64_t> classes =
      class_map(data, job.model, network.shapes(network.input)[size_t(logit_node(network))].c, path);
  Output output(job);
  const std::string stem = dataset_stem(path);
  const auto [first, last] = shares().of(images);
  Evaluation e = evaluate(job, o, output, data, classes, numbers_of(first, last));
  if (!gather(job, output, stem, dataset_json(data, images), e)) return;
  finish(e, o);
  require_read(e.images, images, path);
  Json files = Json::array();
  Json of_maps = Json::object();
  std::vector<std::string> said;
  if (o.maps()) said = evaluate_maps(job, o, output, data, e.right, e.wrong, stem, files, of_maps);
  if (output.pictures() && !e.worst.empty() && !o.maps()) output.add_picture(files, stem, worst_picture(job, data, e));
  Report report;
  report.inputs.push_back({{"path", path}, {"index", 0}, {"files", files}});
  report.details = {{"images", e.images},
                    {"top1", double(e.top1) / double(e.images)},
                    {"top5", double(e.top5) / double(e.images)},
                    {"loss", e.loss()},
                    {"correct", e.top1},
                    {"confusion", confusion_json(e)},
                    {"worst", worst_json(job, data, e)}};
  report.details.update(of_maps);
  report.summary = [&] { print_summary(job, data, e, said, output); };
  finish_run(job, output, std::move(report));
}

}  // namespace

Json case_json(const Job& job, const Dataset& data, const Case& c) {
  return {{"path", data.path(c.index)},
          {"index", data.number(c.index)},
          {"true", c.label},
          {"true_class", job.class_json(c.label)},
          {"target", c.predicted},
          {"class", job.class_json(c.predicted)},
          {"probability", c.probability},
          {"loss", c.loss}};
}

std::string shown_class(const Job& job, int64_t c) {
  const std::string name = job.class_name(c);
  return name.empty() ? std::to_string(c) : name;
}

std::function<void()> setup_evaluate(CLI::App& app) {
  auto o = std::make_shared<EvaluateOptions>();
  o->top = 10;
  add_inputs(app, *o,
             fmt::format("{}; or a part of one, DATASET[FIRST:LAST]", kDatasets).c_str());
  add_setting(app, *o, "--limit", o->limit, Changes::values, "only the first N images", "N");
  add_setting(app, *o, "--grid", o->grid, Changes::pictures,
              "draw images that are read rightly, or wrongly, with their maps, labels and confidences", "right,wrong");
  add_switch(app, *o, "--similarity", o->similarity, Changes::nothing,
             "compare the maps of images of one class with those of two: a number and a matrix");
  add_setting(app, *o, "--map", o->method, Changes::pictures,
              fmt::format("which maps: {} (default {})", fmt::join(map_method_names(), ", "), o->method), "METHOD");
  add_setting(app, *o, "--cases", o->cases, Changes::pictures, "images of each grid (default 24)", "N");
  add_setting(app, *o, "--per-class", o->per_class, Changes::pictures,
              "images of each class that are compared (default 20)", "N");
  add_setting(app, *o, "--cam-layer", o->flags.cam.layers, Changes::pictures,
              "whose maps class activation maps take (default: the last convolutional one)", "NAME");
  add_model(app, *o);
  add_output(app, *o, false);
  add_drawing(app, *o, Drawing::colormap | Drawing::alpha | Drawing::columns);
  add_run(app, *o);
  add_shard(app, *o);
  add_report(app, *o);
  add_top(app, *o, Changes::pictures, "worst cases to list (default 10)");
  return [o] { run_evaluate(*o); };
}

}  // namespace switchback
