// `switchback perturb`: how class, confidence and map change when an image loses its colours or its edges, or gains noise.
#include "viz/methods/perturb.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>

#include "tools/cli/labelled.h"
#include "tools/cli/shares.h"
#include "tools/commands/commands.h"
#include "tools/commands/evaluate.h"
#include "viz/methods/batches.h"
#include "viz/methods/inspect.h"
#include "viz/methods/occlusion.h"
#include "viz/pictures/render.h"

namespace switchback {
namespace {

using Kind = Perturbation::Kind;

constexpr const char *kNoMaps = "none", *kOfColours = "grey,channels:bgr,channels:brg,",
                     *kOfAll = "blur:3,blur:5,salt-pepper:0.005,salt-pepper:0.0005";  // Zhang's, section 5.3
constexpr size_t kConfidenceBins = 20, kMostPerturbed = 20;
constexpr int64_t kMapsAtOnce = 64;
constexpr Rgb kRightColor{49, 104, 142}, kWrongColor{222, 110, 30};

struct PerturbFlags : Options {
  std::string kinds, method = "gradient", limit;
  int64_t cases = 8, maps = 64;
  MapFlags flags;
};

// One image, as it is (first) or changed.
struct ReadAs {
  int64_t read = 0;                         // the class
  double probability = 0, of_original = 0;  // of that, and of the class that the image was read as unchanged
  double correlation = std::nan("");        // of its map with the unchanged image's, by ranks
};

struct Changed {
  std::vector<ReadAs> as;  // unchanged, then kind by kind
  std::vector<Panel> pictures, maps;
};

// Over all images, of one kind.
struct KindTotals {
  int64_t images = 0, same = 0, right = 0;
  double confidence = 0, of_right = 0, of_wrong = 0;  // sums
  int64_t right_bins[kConfidenceBins] = {}, wrong_bins[kConfidenceBins] = {};
  std::vector<double> correlations;
};

double mean_of(double sum, int64_t count) { return count > 0 ? sum / double(count) : std::nan(""); }

// ---- --kind

std::array<int, 3> parse_order(const std::string& text) {
  std::string sorted = text;
  std::ranges::sort(sorted);
  if (sorted != "bgr")
    throw Error(fmt::format("--kind channels:{} is no order of r, g and b", printable(text)), "as channels:bgr or channels:brg", true);
  std::array<int, 3> order{};
  for (size_t i = 0; i < 3; ++i) order[i] = text[i] == 'r' ? 0 : text[i] == 'g' ? 1 : 2;
  return order;
}

double parse_between(const std::string& option, const std::string& text, double least, double most) {
  const double v = parse_number(option, text);
  if (!(v >= least && v <= most))
    throw Error(fmt::format("{} {} is out of range", option, text), fmt::format("{} to {}", least, most), true);
  return v;
}

// One word of the list; severities that are not told are all five.
std::vector<Perturbation> parse_kind(const std::string& text) {
  const size_t colon = text.find(':');
  const std::string name = text.substr(0, colon), value = colon == std::string::npos ? "" : text.substr(colon + 1);
  check_choice("--kind", name, {"grey", "blur", "channels", "salt-pepper", "gaussian", "occlude", "rotate", "impulse", "gaussian-blur"});
  const std::string option = "--kind " + name + ":";
  const bool severities = name == "impulse" || name == "gaussian-blur";
  if (name == "grey" && colon != std::string::npos) throw Error("--kind grey takes no value", "", true);
  if (name != "grey" && !severities && value.empty())
    throw Error(fmt::format("--kind {} wants a value", name),
                "as blur:3, channels:bgr, salt-pepper:0.005, gaussian:0.1, occlude:x,y,w,h or rotate:15", true);
  if (severities) {
    std::vector<Perturbation> all;
    const int64_t first = value.empty() ? 1 : parse_whole(option, value, 1, 5), last = value.empty() ? 5 : first;
    for (int64_t s = first; s <= last; ++s) {
      Perturbation& p = all.emplace_back();
      p.kind = name == "impulse" ? Kind::salt_pepper : Kind::blur;
      p.severity = int(s);
      p.name = fmt::format("{}:{}", name, s);
    }
    return all;
  }
  Perturbation p;
  if (name == "blur") {
    const int64_t side = parse_whole(option, value, 3, 63);
    if (side % 2 == 0) throw Error(fmt::format("{} {} has no middle", option, side), "an odd number of pixels, as blur:5", true);
    p = window_blur(side);
  } else if (name == "channels") {
    p.kind = Kind::channels, p.order = parse_order(value);
  } else if (name == "salt-pepper") {
    p.kind = Kind::salt_pepper, p.amount = parse_between(option, value, 0, 1);
  } else if (name == "gaussian") {
    p.kind = Kind::gaussian, p.amount = parse_between(option, value, 0, 100);
  } else if (name == "occlude") {
    p.kind = Kind::occlude, p.box = parse_box(value);
  } else if (name == "rotate") {
    p.kind = Kind::rotate, p.amount = parse_between(option, value, -360, 360);
  }
  p.name = text;
  return {p};
}

std::vector<Perturbation> parse_kinds(const std::string& text, int64_t channels) {
  std::vector<std::string> words = split_list(!text.empty() ? text : channels == 3 ? std::string(kOfColours) + kOfAll : kOfAll);
  std::vector<Perturbation> kinds;
  for (size_t i = 0; i < words.size(); ++i) {
    std::string word = words[i];
    for (int more = 0; word.starts_with("occlude:") && more < 3 && i + 1 < words.size(); ++more) word += "," + words[++i];
    for (Perturbation& p : parse_kind(word)) {
      for (const Perturbation& other : kinds)
        if (other.name == p.name) throw Error(fmt::format("--kind {} is given twice", p.name), "", true);
      kinds.push_back(std::move(p));
    }
  }
  return kinds;
}

// ---- images

struct PerturbRun {
  Job& job;
  const PerturbFlags& flags;
  std::vector<Perturbation> kinds;
  std::unique_ptr<NamedMethod> method;  // null: no maps
  std::vector<KindTotals> totals;       // unchanged, then kind by kind
  Context host = Context();
  std::unique_ptr<Forward> forward = nullptr;  // of `image`
  Shape image = {};
  int64_t mapped = 0;
};

std::string kind_name(const PerturbRun& run, size_t version) { return version == 0 ? "original" : run.kinds[version - 1].name; }

// What a map's ranks are taken of: |v| summed over channels; maps of places as they are.
std::vector<float> ranked(const float* map, const Dims& dims) {
  const int h = int(dims[dims.size() - 2]), w = int(dims.back());
  return dims.size() == 3 ? absolute_sum(map, int(dims[0]), h, w) : std::vector<float>(map, map + int64_t(h) * w);
}

// The maps of the first `count` items of y, each of the class that its unchanged image was read as (--target: of that one).
Tensor maps_of(PerturbRun& run, const Tensor& y, const std::vector<uint32_t>& index, const std::vector<Changed>& items, int64_t count) {
  const bool by_class = run.job.target.target == "max";
  std::vector<int64_t> classes;
  for (int64_t i = 0; i < count; ++i) classes.push_back(by_class ? items[size_t(i)].as[0].read : -1);
  return maps_of_classes(run.job, run.method->method, y, index, classes);
}

void read_all(PerturbRun& run, const Tensor& y, size_t version, std::vector<Changed>& items) {
  const int64_t n = y.dim(0), batch = run.forward->batch();
  for (int64_t first = 0; first < n; first += batch) {
    const int64_t count = std::min(batch, n - first);
    const Tensor values = run.forward->run(y.data() + first * run.image.item(), count);
    if (values.dims().size() != 2)
      throw Error(fmt::format("{} gives maps of shape {}, not classes", run.job.options.model, to_string(values.dims())));
    const size_t outputs = size_t(values.dim(1));
    for (int64_t i = 0; i < count; ++i) {
      const std::span<const float> logits = values.values().subspan(size_t(i) * outputs, outputs);
      for (const float v : logits)
        CHECK(std::isfinite(v), "the logits of {} are not finite for {}", run.job.options.model, kind_name(run, version));
      const std::vector<double> p = probabilities(logits, run.job.outputs);
      std::vector<ReadAs>& as = items[size_t(first + i)].as;
      ReadAs& now = as.emplace_back();
      now.read = std::max_element(logits.begin(), logits.end()) - logits.begin();
      now.probability = p[size_t(now.read)];
      now.of_original = p[size_t(as[0].read)];
    }
  }
}

// "285 Egyptian cat, 93.2 %", and what the class before has left where it is another.
std::string read_caption(const Job& job, const ReadAs& now, const ReadAs& before) {
  std::string text = fmt::format("{}, {:.1f} %", shown_class(job, now.read), 100 * now.probability);
  if (now.read != before.read) text += fmt::format("\n{}: {:.1f} %", shown_class(job, before.read), 100 * now.of_original);
  return text;
}

// Of x [N,C,H,W] all versions are read; the first `with_maps` items get maps, the first `drawn` panels as well. index: of
// each item within its file, for the noise of methods; numbers: for the noise of the changes.
std::vector<Changed> change(PerturbRun& run, const Tensor& x, const std::vector<uint32_t>& index,
                            const std::vector<uint32_t>& numbers, int64_t with_maps, int64_t drawn, const std::function<Image(const Tensor& y, int64_t i)>& photo) {
  const int64_t n = x.dim(0);
  const Shape image{1, x.dim(1), x.dim(2), x.dim(3)};
  if (!run.forward || !(run.image == image)) {
    check_image_shape(run.job.model.network, image);
    for (const Perturbation& p : run.kinds) check_perturbation(p, run.job.model, image);
    run.image = image;
    run.forward = std::make_unique<Forward>(run.job.ctx, run.job.model, image, logit_node(run.job.model.network),
                                            run.job.run, std::min<int64_t>(256, n));
  }
  if (!run.method) with_maps = 0;
  const uint64_t seed = parse_seed(run.flags.seed);
  std::vector<Changed> items(static_cast<size_t>(n));
  Tensor y(x.dims());
  std::copy_n(x.data(), x.count(), y.data());
  std::vector<std::vector<float>> first_maps;  // of the unchanged images, by whose ranks the others are compared
  for (size_t version = 0; version <= run.kinds.size(); ++version) {
    if (version > 0)
      for (int64_t i = 0; i < n; ++i)
        perturb(run.host, run.kinds[version - 1], run.job.model, image, x.data() + i * image.item(), seed, numbers[size_t(i)],
                y.data() + i * image.item());
    read_all(run, y, version, items);
    Tensor maps;
    if (with_maps > 0) maps = maps_of(run, y, index, items, with_maps);
    const Dims dims(maps.empty() ? Dims() : Dims(maps.dims().begin() + 1, maps.dims().end()));
    for (int64_t i = 0; i < std::max(drawn, with_maps); ++i) {
      Changed& item = items[size_t(i)];
      ReadAs& now = item.as.back();
      Image picture = i < drawn ? photo(y, i) : Image();
      if (i < drawn)
        item.pictures.push_back({thumbnail(picture, 112, 168), read_caption(run.job, now, item.as[0])});
      if (i >= with_maps) continue;
      const int64_t size = maps.count() / with_maps;
      std::vector<float> map = ranked(maps.data() + i * size, dims);
      if (version > 0)
        now.correlation = rank_correlation(first_maps[size_t(i)], map);
      else
        first_maps.push_back(std::move(map));
      if (i >= drawn) continue;
      const MapPanel panel = std::move(run.method->method.panels({maps.data() + i * size, dims, picture}).back());
      item.maps.push_back({thumbnail(panel.image(), 112, 168),
                           version == 0                  ? ""
                           : std::isnan(now.correlation) ? "no ranks"
                                                         : fmt::format("rank corr. {:.2f}", now.correlation),
                           {}});
    }
  }
  return items;
}

// label: of the item's class, -1 where there is none.
void add_totals(PerturbRun& run, const Changed& item, int64_t label) {
  for (size_t version = 0; version < item.as.size(); ++version) {
    const ReadAs& as = item.as[version];
    KindTotals& t = run.totals[version];
    const bool right = as.read == label;
    ++t.images, t.same += as.read == item.as[0].read, t.right += right;
    t.confidence += as.probability;
    (right ? t.of_right : t.of_wrong) += as.probability;
    const size_t bin = std::min(kConfidenceBins - 1, size_t(as.probability * double(kConfidenceBins)));
    ++(right ? t.right_bins : t.wrong_bins)[bin];
    if (std::isfinite(as.correlation)) t.correlations.push_back(as.correlation);
  }
}

void add_rows(const PerturbRun& run, Changed& item, const std::string& label, std::vector<SheetRow>& rows) {
  rows.push_back({label, std::move(item.pictures)});
  if (run.method) rows.push_back({run.method->method.title, std::move(item.maps)});
}

Json versions_json(const PerturbRun& run, const Changed& item) {
  Json list = Json::array();
  for (size_t version = 0; version < item.as.size(); ++version) {
    const ReadAs& as = item.as[version];
    list.push_back({{"kind", kind_name(run, version)},
                    {"target", as.read},
                    {"class", run.job.class_json(as.read)},
                    {"probability", as.probability},
                    {"original_probability", as.of_original},
                    {"spearman", version == 0 ? std::nan("") : as.correlation}});
  }
  return list;
}

// ---- results

std::pair<double, double> mean_and_deviation(const std::vector<double>& values) {
  double sum = 0, square = 0;
  for (const double v : values) sum += v;
  const double mean = mean_of(sum, int64_t(values.size()));
  for (const double v : values) square += (v - mean) * (v - mean);
  return {mean, std::sqrt(mean_of(square, int64_t(values.size())))};
}

Json kinds_json(const PerturbRun& run, bool labelled) {
  Json list = Json::array();
  for (size_t version = 0; version < run.totals.size(); ++version) {
    const KindTotals& t = run.totals[version];
    const int severity = version == 0 ? 0 : run.kinds[version - 1].severity;
    Json entry = {{"kind", kind_name(run, version)},
                  {"severity", severity == 0 ? Json(nullptr) : Json(severity)},
                  {"images", t.images},
                  {"same", mean_of(double(t.same), t.images)},
                  {"confidence", mean_of(t.confidence, t.images)}};
    if (labelled) {
      entry["accuracy"] = mean_of(double(t.right), t.images);
      entry["confidence_right"] = mean_of(t.of_right, t.right);
      entry["confidence_wrong"] = mean_of(t.of_wrong, t.images - t.right);
      entry["histogram"] = {{"right", t.right_bins}, {"wrong", t.wrong_bins}};
    }
    const auto [mean, deviation] = mean_and_deviation(t.correlations);
    if (version > 0) entry["spearman"] = {{"mean", mean}, {"std", deviation}, {"n", t.correlations.size()}};
    list.push_back(std::move(entry));
  }
  return list;
}

// Right answers upwards, wrong ones downwards, by confidence.
Canvas confidence_chart(const KindTotals& t, int64_t highest) {
  constexpr double kStep = 9, kHalf = 44, kMargin = 8;
  const double width = kStep * double(kConfidenceBins), middle = kMargin + kHalf;
  Canvas canvas(width + 2 * kMargin, 2 * (kHalf + kMargin) + text_height(""));
  for (size_t b = 0; b < kConfidenceBins; ++b) {
    const double x = kMargin + double(b) * kStep, unit = kHalf / double(std::max<int64_t>(1, highest));
    const double up = double(t.right_bins[b]) * unit, down = double(t.wrong_bins[b]) * unit;
    if (up > 0) canvas.rectangle(x, middle - up, kStep - 1, up, kRightColor);
    if (down > 0) canvas.rectangle(x, middle, kStep - 1, down, kWrongColor);
  }
  canvas.line({kMargin, middle}, {kMargin + width, middle}, 1, kFaintInk, 0.6);
  canvas.text(kMargin, middle + kHalf + 2, "0 %", kFaintInk, kSmallSize);
  canvas.text(kMargin + width, middle + kHalf + 2, "100 %", kFaintInk, kSmallSize, 1);
  return canvas;
}

Canvas charts(const PerturbRun& run) {
  std::vector<std::string> places;
  Series accuracy{"accuracy", {}, {32, 32, 32}, true}, right{"confidence, right", {}, kRightColor},
      wrong{"confidence, wrong", {}, kWrongColor}, maps{"rank correlation of maps", {}, {53, 183, 121}};
  std::vector<Panel> panels;
  int64_t highest = 0;
  for (const KindTotals& t : run.totals)
    for (size_t b = 0; b < kConfidenceBins; ++b) highest = std::max({highest, t.right_bins[b], t.wrong_bins[b]});
  for (size_t version = 0; version < run.totals.size(); ++version) {
    const KindTotals& t = run.totals[version];
    places.push_back(kind_name(run, version));
    accuracy.values.push_back(mean_of(double(t.right), t.images));
    right.values.push_back(mean_of(t.of_right, t.right));
    wrong.values.push_back(mean_of(t.of_wrong, t.images - t.right));
    maps.values.push_back(mean_and_deviation(t.correlations).first);
    panels.push_back({confidence_chart(t, highest), fmt::format("{}: {:.1f} % right", places.back(), 100 * accuracy.values.back())});
  }
  std::vector<Series> series{accuracy, right, wrong};
  if (run.method) series.push_back(maps);
  const Canvas parts[] = {
      line_chart(places, series, {.title = figure_title(run.job, "Changed images"), .width = 900, .most = 1}),
      grid(panels, {.frames = false, .subtitle = "confidence of right answers (upwards) and of wrong ones (downwards)"})};
  return one_below_other(parts);
}

void print_kinds(const PerturbRun& run, bool labelled, const Output& output, int64_t images) {
  print_line(run.job.summary_title("perturb"));
  for (size_t version = 0; version < run.totals.size(); ++version) {
    const KindTotals& t = run.totals[version];
    std::string line = fmt::format("  {:<22}", kind_name(run, version));
    if (labelled) line += fmt::format(" accuracy {:6.2f} %,", 100 * mean_of(double(t.right), t.images));
    line += fmt::format(" confidence {:5.1f} %", 100 * mean_of(t.confidence, t.images));
    if (labelled && t.right < t.images)
      line += fmt::format(" (wrong answers {:.1f} %)", 100 * mean_of(t.of_wrong, t.images - t.right));
    if (version > 0) line += fmt::format(", class kept {:.1f} %", 100 * mean_of(double(t.same), t.images));
    if (version > 0 && !t.correlations.empty()) line += fmt::format(", maps {:.3f}", mean_and_deviation(t.correlations).first);
    print_line(line);
  }
  print_written(run.job, output.paths());
  print_line(run.job.summary_times(images, "image"));
}

void add_figure(PerturbRun& run, Output& output, Json& files, const std::string& stem, const std::vector<SheetRow>& rows, int64_t all) {
  std::vector<std::string> headings;
  for (size_t version = 0; version <= run.kinds.size(); ++version) headings.push_back(kind_name(run, version));
  const int64_t shown = int64_t(rows.size()) / (run.method ? 2 : 1);
  GridOptions words{.panel_side = 140,
                    .title = figure_title(run.job, "Changed images",
                                          run.method && run.method->method.where ? run.method->method.where() : ""),
                    .subtitle = fmt::format("class that is read and its confidence{}; {}",
                                            run.method ? "; maps of the class of the original image" : "", weights_text(run.job))};
  if (shown < all) {
    words.note = fmt::format("the first {} of {} images", shown, all);
    output.note("the picture shows " + words.note);
  }
  output.add_picture(files, stem, contact_sheet(rows, headings, words));
}

void run_over_dataset(PerturbRun& run, Output& output, Report& report) {
  Job& job = run.job;
  const std::string& path = run.flags.inputs[0];
  const Dataset data = open_dataset(path, run.flags.exif);
  const int64_t images = limited(data, run.flags.limit);
  const Shape image = image_of(job.model);
  check_image_shape(job.model.network, image);
  const std::vector<int64_t> classes =
      class_map(data, job.model, job.model.network.shapes(image)[size_t(logit_node(job.model.network))].c, path);
  std::vector<SheetRow> rows;
  int64_t drawn = 0;
  const int64_t read = for_batches(job, data, numbers_of(0, images), std::min<int64_t>(256, images), [&](const float* pixels, std::span<const int64_t> numbers) {
    const int64_t n = int64_t(numbers.size());
    Tensor x({n, image.c, image.h, image.w});
    std::copy_n(pixels, x.count(), x.data());
    std::vector<uint32_t> index;
    for (const int64_t i : numbers) index.push_back(uint32_t(data.number(i)));
    const int64_t with_maps = std::min({n, run.flags.maps - run.mapped, kMapsAtOnce});
    const int64_t draw = output.pictures() ? std::min(n, run.flags.cases - drawn) : 0;
    std::vector<Changed> items = change(run, x, index, index, with_maps, draw,
                                        [&](const Tensor& y, int64_t i) { return input_picture(y, i, job.model, false); });
    run.mapped += with_maps, drawn += draw;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t label = classes[size_t(data.label(numbers[size_t(i)]))];
      add_totals(run, items[size_t(i)], label);
      if (i < draw)
        add_rows(run, items[size_t(i)], fmt::format("#{}: {}", data.number(numbers[size_t(i)]), shown_class(job, label)), rows);
    }
  });
  require_read(read, images, path);
  Json files = Json::array();
  if (output.pictures()) {
    if (!rows.empty()) add_figure(run, output, files, dataset_stem(path), rows, read);
    output.add_picture(files, {dataset_stem(path), "kinds"}, charts(run));
  }
  report.inputs.push_back({{"path", path}, {"index", 0}, {"files", files}});
  report.summary = [&run, &output, read] { print_kinds(run, true, output, read); };
}

void run_over_images(PerturbRun& run, Output& output, Report& report) {
  Job& job = run.job;
  Inputs inputs(job, output);
  std::vector<SheetRow> rows;
  int64_t count = 0, drawn = 0;
  std::string stem;
  inputs.for_each_chunk(
      [&](Shape image) { return run.method ? chunk_items(job, run.method->method, image) : kMapsAtOnce; },
      [&](const Chunk& chunk) {
        std::vector<const Chunk::Part*> part_of;
        std::vector<int64_t> within;
        const std::vector<uint32_t> index = item_numbers(chunk);
        std::vector<uint32_t> numbers;  // single images count in the run: each has number 0 in its file
        for (const Chunk::Part& part : chunk.parts)
          for (int64_t i = 0; i < part.count; ++i) {
            part_of.push_back(&part), within.push_back(i);
            numbers.push_back(part.file->many() ? index[numbers.size()] : uint32_t(count + int64_t(numbers.size())));
          }
        const int64_t n = int64_t(index.size());
        const int64_t draw = output.pictures() ? std::min(n, int64_t(kMostPerturbed) - drawn) : 0;
        std::vector<Changed> items = change(run, chunk.x, index, numbers, n, draw, [&](const Tensor& y, int64_t i) {
          return input_picture(y, i, job.model, part_of[size_t(i)]->file->array);
        });
        drawn += draw;
        for (int64_t i = 0; i < n; ++i, ++count) {
          const InputFile& file = *part_of[size_t(i)]->file;
          stem = stem.empty() || stem == file.stem ? file.stem : kContactSheet;
          Json entry = item_json(file, within[size_t(i)]);
          const ReadAs& as = items[size_t(i)].as[0];
          entry["target"] = as.read, entry["class"] = job.class_json(as.read), entry["probability"] = as.probability;
          entry["versions"] = versions_json(run, items[size_t(i)]);
          report.inputs.push_back(std::move(entry));
          add_totals(run, items[size_t(i)], -1);
          if (i < draw) add_rows(run, items[size_t(i)], item_name(file, within[size_t(i)]), rows);
        }
        job.bar.update(count, inputs.count(), "images");
      });
  Json files = Json::array();
  if (output.pictures()) add_figure(run, output, files, stem, rows, count);
  for (Json& entry : report.inputs) entry["files"] = files;
  report.summary = [&run, &output, count] { print_kinds(run, false, output, count); };
}

void run_perturb(const PerturbFlags& o) {
  std::vector<std::string> methods = map_method_names();
  methods.emplace_back(kNoMaps);
  check_choice("--method", o.method, methods);
  if (o.saves("npy")) throw Error("perturb saves no arrays", "each method's own command does: --save npy", true);
  if (o.target == "all" || o.target.find(',') != std::string::npos)
    throw Error("perturb explains one target of each input", "--target max, a class or a label", true);
  if (o.cases < 0 || o.cases > int64_t(kMostPerturbed))
    throw Error(fmt::format("--cases {} is out of range", o.cases), fmt::format("0 to {}", kMostPerturbed), true);
  if (o.maps < o.cases || o.maps > 1'000'000)
    throw Error(fmt::format("--maps {} is out of range", o.maps), "from --cases to 1000000", true);
  check_maps(o.flags.maps);
  parse_kinds(o.kinds, 1);  // before the model is read
  Job job("perturb", o);
  if (job.outputs == Outputs::value)
    throw Error(fmt::format("perturb is about classes, but {} gives one value", job.model_name()), "`switchback compare` shows its maps");
  PerturbRun run{.job = job, .flags = o, .kinds = parse_kinds(o.kinds, job.model.network.input.c), .method = {}, .totals = {}};
  run.totals.resize(run.kinds.size() + 1);
  if (o.method != kNoMaps) run.method = named_method(job, o.method, o.flags);
  Output output(job);
  Report report;
  const bool labelled = o.inputs.size() == 1 && is_dataset(o.inputs[0]);
  labelled ? run_over_dataset(run, output, report) : run_over_images(run, output, report);
  report.details = {{"method", o.method}, {"kinds", kinds_json(run, labelled)}};
  finish_run(job, output, std::move(report));
}

}  // namespace

std::function<void()> setup_perturb(CLI::App& app) {
  auto o = std::make_shared<PerturbFlags>();
  add_inputs(app, *o, kInputs);
  add_setting(app, *o, "--limit", o->limit, Changes::values, "only the first N images of a data set", "N");
  add_setting(app, *o, "--kind", o->kinds, Changes::values,
              fmt::format("what is done to the images: grey, blur:SIDE, channels:ORDER, salt-pepper:SHARE, gaussian:SIGMA, "
                          "occlude:x,y,w,h, rotate:DEGREES, impulse[:1-5], gaussian-blur[:1-5] (default {}; of three "
                          "channels also {})", kOfAll, std::string_view(kOfColours).substr(0, std::string_view(kOfColours).size() - 1)),
              "LIST");
  add_setting(app, *o, "--method", o->method, Changes::values,
              fmt::format("which maps: {}, or none (default {})", fmt::join(map_method_names(), ", "), o->method), "METHOD");
  add_setting(app, *o, "--maps", o->maps, Changes::values, "images of a data set whose maps are compared (default 64)", "N");
  add_setting(app, *o, "--cases", o->cases, Changes::pictures, "images of a data set that are drawn (default 8)", "N");
  add_map_settings(app, *o, o->flags);
  add_target(app, *o, false);
  add_model(app, *o);
  add_output(app, *o);
  add_drawing(app, *o, Drawing::colormap | Drawing::clip | Drawing::alpha);
  add_run(app, *o, true);
  add_report(app, *o);
  return [o] { run_perturb(*o); };
}

}  // namespace switchback
