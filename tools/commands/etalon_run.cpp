#include "tools/commands/etalon_run.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iterator>

#include "engine/files/files.h"
#include "engine/files/npy.h"
#include "engine/version.h"
#include "tools/cli/labelled.h"
#include "tools/cli/maps.h"
#include "tools/cli/shares.h"
#include "viz/methods/batches.h"
#include "viz/methods/subgraph.h"

namespace switchback {

struct EtalonRun::Source {
  InputFile file;
  const Dataset* dataset;  // the file's
  int64_t count = 1;
  Tensor x;  // [N,C,H,W], of files, from start() to finish()
  int64_t done = 0;
  std::unique_ptr<ResumableArray> resumable;
  OutputFile* array = nullptr;  // otherwise
  int64_t array_begin = 0;
  Json files = Json::array();
  std::vector<size_t> entries;  // in the JSON document's inputs
  Tensor biases;                // [N,P]
  std::optional<EtalonFigure> figure;
  std::vector<int> labels_shown;

  std::string name(int64_t i) const { return item_name(file, i); }
};

namespace {

uint32_t checksum(uint32_t before, const void* data, size_t bytes) {
  return uint32_t(crc32_z(before, static_cast<const Bytef*>(data), bytes));
}

Json note_of(const EtalonInput& input) {
  Json units = Json::array(), checks = Json::array();
  for (const Unit& u : input.explained.units) units.push_back({u.channel, u.row, u.col});
  for (const EtalonCheck& c : input.checks)
    checks.push_back({c.dot, c.bias, c.score, c.votes_for, c.votes_against, c.magnitude});
  return {{"units", units}, {"checks", checks}, {"probabilities", input.explained.probabilities}};
}

EtalonInput from_note(const Json& note, int node) {
  EtalonInput out;
  for (const Json& u : note.at("units")) out.explained.units.push_back({node, u.at(0), u.at(1), u.at(2)});
  for (const Json& c : note.at("checks")) {
    out.checks.push_back({.dot = c.at(0), .bias = c.at(1), .score = c.at(2), .votes_for = c.at(3),
                          .votes_against = c.at(4), .magnitude = c.at(5)});
    out.explained.scores.push_back(out.checks.back().score);
  }
  for (const Json& p : note.at("probabilities"))
    out.explained.probabilities.push_back(p.is_null() ? std::nan("") : p.get<double>());
  return out;
}

// One number, or a list where there are several units.
template <typename F>
Json of_units(const EtalonInput& input, const F& value) {
  Json list = Json::array();
  for (const EtalonCheck& check : input.checks) list.push_back(value(check));
  return list.size() == 1 ? list[0] : list;
}

size_t strongest(const EtalonInput& input) {
  const std::vector<double>& s = input.explained.scores;
  return size_t(std::max_element(s.begin(), s.end()) - s.begin());
}

EtalonOptions options_of(const Job& job, const EtalonFlags& flags) {
  EtalonOptions options;
  static_cast<RunOptions&>(options) = job.run;
  options.algorithm = flags.algorithm;
  options.fields = !flags.full_maps;
  options.load_tape = flags.load_tape;
  return options;
}

}  // namespace

EtalonRun::EtalonRun(Job& job, const EtalonFlags& flags)
    : job_(job), flags_(flags), options_(options_of(job, flags)), output_(job), inputs_(job, output_),
      name_(flags.product ? "etalon-product" : "etalon") {
  check_piecewise_affine(job.model.network, target_node(job.model.network, job.target));
  if (flags.resume && !output_.npy())
    throw Error("--resume goes on with an array, but none is saved", "add --save npy or --save png,npy", true);
  if (flags.resume && shares().divided() && !shares().ranks())
    throw Error("--resume with --shard", "run the shares again whose parts are missing", true);
  if (shares().divided() && !flags.load_tape.empty())
    throw Error("a tape file holds one batch, which is not divided", "leave out ranks and --shard", true);
  add_sources();
  options_.progress = [this](int64_t done, int64_t total) {
    const int64_t units = etalons_->units();
    job_.bar.update(items_done_ * units + done * units / std::max<int64_t>(1, total), items_ * units, "etalons");
  };
}

EtalonRun::~EtalonRun() = default;

void EtalonRun::add_sources() {
  const int64_t limit = flags_.limit.empty() ? std::numeric_limits<int64_t>::max()
                                             : parse_whole("--limit", flags_.limit, 1, int64_t(1) << 40);
  for (const InputFile& file : inputs_.files()) {
    auto source = std::make_shared<Source>();
    source->file = file;
    source->dataset = file.dataset.get();
    source->count = std::min(limit, Inputs::count_of(file));
    items_ += source->count;
    sources_.push_back(std::move(source));
  }
}

void EtalonRun::run() {
  const std::string stem = sources_[0]->file.stem;
  Made none;
  if (shares().all_given()) gather(job_, output_, stem, inputs_.about(), made_);
  for (const std::shared_ptr<Source>& source : sources_) {
    start(source);
    if (!source->dataset) {
      for (int64_t i = source->done; i < source->count; ++i) push(source, i, source->x.data() + i * image_.item());
      continue;
    }
    const std::vector<int64_t> images = numbers_of(std::min(source->done, source->count), source->count);
    read_batches(*source->dataset, images, job_.model, etalons_->batch(), job_.ctx.thread_count(),
                 kLeaveNoneOut, [&](const ReadAhead::Batch& batch) {
                   for (size_t i = 0; i < batch.images.size(); ++i)
                     push(source, batch.images[i], batch.pixels.data() + int64_t(i) * image_.item());
                 });
  }
  flush();
  if (shares().shard() && !gather(job_, output_, stem, inputs_.about(), made_)) return;
  if (shares().ranks() && !gather(job_, output_, stem, inputs_.about(), none)) return;  // after the rounds
  if (sheet_ && !sheet_->empty() && output_.pictures()) report_.sheet = add_figure({kContactSheet}, *sheet_)[0]["path"];
  finish_all();
}

Json EtalonRun::add_figure(const ResultOf& of, const EtalonFigure& figure) {
  GridOptions words{.title = figure_title(job_, flags_.product ? "Etalons times input" : "Etalons"),
                    .subtitle = weights_text(job_)};
  if (figure.columns() < etalons_->units())
    words.note = fmt::format("the first {} of {} units; --target chooses others", figure.columns(), etalons_->units());
  if (!words.note.empty()) output_.note(fmt::format("the picture shows {}", words.note));
  Json files = Json::array();
  output_.add_picture(files, of, figure.draw(words, headings_), {{"units", headings_}, {"colors", figure.colors()}});
  return files;
}

// Loads the source, and takes over what an earlier run left of it.
void EtalonRun::start(const std::shared_ptr<Source>& pointer) {
  Source& s = *pointer;
  const Preprocess& how = job_.model.preprocess;
  if (!s.dataset) {
    std::optional<Tensor> x = inputs_.load(s.file);
    if (!x) {
      items_ -= s.count;
      s.count = 0;
      return;
    }
    s.x = std::move(*x);
  }
  plan_for(s.dataset ? Shape{1, how.channels(), how.size[0], how.size[1]} : Shape{1, s.x.dim(1), s.x.dim(2), s.x.dim(3)});
  s.biases = allocate_maps({s.count, etalons_->units()});
  s.figure.emplace(flags_, image_, job_.model.preprocess.order, etalons_->units(), flags_.product);
  if (output_.npy() && !shares().later_rank() && !shares().shard()) open_files(s);
  take_journal(s);
  s.done = shares().agreed(s.done);
}

// What an interrupted run has done.
void EtalonRun::take_journal(Source& s) {
  if (!s.resumable) return;
  const std::vector<Json> notes = s.resumable->notes();
  const int node = target_node(job_.model.network, job_.target);
  for (const Json& note : notes) {
    EtalonInput result;
    try {
      result = from_note(note, node);
    } catch (const Json::exception&) {
      throw Error(fmt::format("{}.journal is damaged", printable(s.resumable->path())), "leave out --resume to begin anew");
    }
    item_done(s, s.done, result, true);
  }
}

void EtalonRun::plan_for(Shape image) {
  if (etalons_ && image == image_) return;
  flush();
  check_image_shape(job_.model.network, image);
  image_ = image;
  etalons_.emplace(job_.ctx, job_.model, image, job_.target, job_.model.labels, options_, items_);
  batch_ = std::max(batch_, etalons_->batch());
  round_ = shares().agreed(etalons_->batch() * (shares().ranks() ? shares().count() : 1));
  seeds_ = std::max(seeds_, etalons_->seeds());
  x_.resize(size_t(round_ * image.item()));
  if (sources_.size() > 1 && !sheet_)
    sheet_.emplace(flags_, image, job_.model.preprocess.order, etalons_->units(), flags_.product);
}

void EtalonRun::open_files(Source& s) {
  Dims dims{s.count, etalons_->units(), image_.c, image_.h, image_.w};
  std::vector<std::string> axes = {"N", "P", "C", "H", "W"};
  const bool rows = s.file.many() && s.count > 1;
  if (!rows) dims.erase(dims.begin()), axes.erase(axes.begin());
  const ResultOf of(s.file);
  const Json job = job_of(s), more = {{"job", job}};
  if (flags_.resume && take_finished(s, output_.path(of, "npy"), job)) return;
  if (!rows) {
    s.files.push_back(output_.add_npy(of, dims, axes, more, s.array, s.array_begin));
    return;
  }
  s.files.push_back(output_.add_own_npy(of, dims, axes, more, [&s] { s.resumable->finish(); }));
  s.resumable = std::make_unique<ResumableArray>(s.files.back()["path"], dims, job, flags_.resume);
  can_be_resumed();
}

// Whether an earlier run has completed the array: then nothing of it is changed, and what FILE.json says of its inputs is
// taken over. Throws where it was another run.
bool EtalonRun::take_finished(Source& s, const std::string& path, const Json& job) {
  namespace fs = std::filesystem;
  if (!fs::exists(path) || fs::exists(path + ".partial")) return false;
  const std::string beside = Output::description_path(path);
  constexpr int64_t kMostBytes = int64_t(1) << 31;
  Json about = fs::exists(beside) ? Json::parse(read_file(beside, kMostBytes), nullptr, false) : Json();
  Json before;
  if (about.is_object() && about.contains("files") && about.contains("inputs"))
    for (const Json& file : about["files"])
      if (file.contains("job")) before = file["job"];
  const char* hint = "leave out --resume to replace it, or choose another folder with --output DIR";
  if (before.is_null())
    throw Error(fmt::format("{} is there, and nothing beside it says which run made it", printable(path)), hint);
  if (before != job)
    throw Error(fmt::format("{} was made by another run: it differs in {}", printable(path), differences(before, job)),
                hint);
  s.done = s.count;
  items_done_ += s.count, items_resumed_ += s.count, items_finished_ += s.count;
  for (Json& input : about["inputs"]) {
    input["files"] = about["files"];
    report_.inputs.push_back(std::move(input));
  }
  lines_.add(fmt::format("  {} is finished; nothing was changed", path));
  return true;
}

// What an array that is continued must agree in.
Json EtalonRun::job_of(const Source& s) const {
  uint32_t inputs = 0;
  const int64_t step = std::max<int64_t>(1, s.count / 256);
  std::vector<float> x(static_cast<size_t>(image_.item()));
  for (int64_t i = 0; i < s.count && s.dataset; ++i) {
    const std::string path = std::filesystem::path(s.dataset->path(i)).filename().string();
    inputs = checksum(inputs, path.data(), path.size());
    if (i % step != 0) continue;
    load_item(*s.dataset, i, job_.model, x.data());
    inputs = checksum(inputs, x.data(), x.size() * sizeof(float));
  }
  if (!s.dataset) inputs = checksum(inputs, s.x.data(), size_t(s.x.count()) * sizeof(float));
  return {{"version", kVersion},
          {"model", job_.options.model},
          {"weights", weights_checksum(job_.model.weights)},
          {"inputs", inputs},
          {"count", s.count},
          {"image", {image_.c, image_.h, image_.w}},
          {"target", job_.target.target},
          {"layer", job_.target.layer},
          {"algorithm", word_of(kEtalonAlgorithms, flags_.algorithm)},
          {"full_maps", flags_.full_maps},
          {"product", flags_.product},
          {"precision", job_.precision},
          {"conv", job_.options.conv},
          {"device", job_.ctx.device_name()}};
}

void EtalonRun::push(const std::shared_ptr<Source>& source, int64_t index, const float* pixels) {
  const auto [first, last] = shares().of(items_);
  const int64_t number = pushed_++;
  if (shares().shard() && (number < first || number >= last)) return;
  float* to = x_.data() + int64_t(queue_.size()) * image_.item();
  std::copy_n(pixels, image_.item(), to);
  if (source->dataset && job_.input_recorder) job_.input_recorder->add(output_, to, 1, image_);
  queue_.push_back({source, index});
  if (int64_t(queue_.size()) == round_) flush();
}

void EtalonRun::Made::merge(Made&& next) {
  std::ranges::move(next.results, std::back_inserter(results));
  maps.insert(maps.end(), next.maps.begin(), next.maps.end());
}

// Items first … last − 1 of the queue, a batch at a time.
void EtalonRun::make(int64_t first, int64_t last, const Etalons::Sink& sink, std::vector<EtalonInput>& results) {
  for (int64_t at = first; at < last; at += etalons_->batch()) {
    const int64_t n = std::min(etalons_->batch(), last - at);
    std::vector<EtalonInput> of_batch =
        etalons_->run(x_.data() + at * image_.item(), n, [&](int64_t i, int64_t unit, int64_t count, const float* maps) {
          sink(at + i, unit, count, maps);
        });
    std::ranges::move(of_batch, std::back_inserter(results));
  }
}

EtalonRun::Made EtalonRun::make_share(int64_t first, int64_t last) {
  Made made;
  const int64_t item = image_.item(), of_input = etalons_->units() * item;
  made.maps.resize(size_t((last - first) * of_input));
  make(first, last,
       [&](int64_t i, int64_t unit, int64_t count, const float* maps) {
         std::copy_n(maps, count * item, made.maps.data() + (i - first) * of_input + unit * item);
       },
       made.results);
  return made;
}

void EtalonRun::take_maps(int64_t i, int64_t unit, int64_t count, const float* maps) {
  const int64_t item = image_.item();
  if (flags_.product) {
    product_.resize(size_t(count * item));
    for (int64_t e = 0; e < count * item; ++e) product_[size_t(e)] = maps[e] * x_[size_t(i * item + e % item)];
    maps = product_.data();
  }
  Source& s = *queue_[size_t(i)].source;
  write(s, queue_[size_t(i)].index, unit, count, maps);
  auto& shown = shown_[size_t(i)];
  shown.resize(size_t(s.figure->columns()));
  for (int64_t p = unit; p < std::min(unit + count, s.figure->columns()) && output_.pictures(); ++p)
    shown[size_t(p)] = s.figure->kept(maps + (p - unit) * item);
}

// A share of the queue's items is made here, the others arrive; or all of them are made, or there already.
void EtalonRun::flush() {
  if (queue_.empty()) return;
  const int64_t n = int64_t(queue_.size()), of_input = etalons_->units() * image_.item();
  if (shares().shard()) {
    made_.merge(make_share(0, n));
    return queue_.clear();
  }
  const auto [first, last] = shares().of(n);
  if (shares().later_rank()) {
    Made made = make_share(first, last);
    shares().round(state_bytes(made), {});
    return queue_.clear();
  }
  shown_.assign(queue_.size(), {});
  std::vector<EtalonInput> results;
  const auto take = [&](const Made& made, size_t begin, size_t count) {
    CHECK(int64_t(made.maps.size()) == int64_t(made.results.size()) * of_input && begin + count <= made.results.size(),
          "shares have {} values of {} inputs", made.maps.size(), made.results.size());
    for (size_t i = begin; i < begin + count; ++i) {
      take_maps(int64_t(results.size()), 0, etalons_->units(), made.maps.data() + int64_t(i) * of_input);
      results.push_back(made.results[i]);
    }
  };
  make(first, last, [&](int64_t i, int64_t unit, int64_t count, const float* maps) { take_maps(i, unit, count, maps); }, results);
  if (shares().ranks())
    shares().round("", [&](std::string_view bytes) {
      Made made;
      StateReader read(bytes);
      read(made);
      read.end();
      take(made, 0, made.results.size());
    });
  if (shares().all_given()) take(made_, std::exchange(taken_, taken_ + size_t(n)), size_t(n));
  for (size_t i = 0; i < queue_.size(); ++i) item_done(*queue_[i].source, queue_[i].index, results.at(i), false);
  queue_.clear();
}

void EtalonRun::write(Source& s, int64_t index, int64_t unit, int64_t count, const float* maps) {
  const std::span<const float> values(maps, size_t(count * image_.item()));
  const int64_t row = s.resumable || !s.array ? 0 : index * etalons_->units();
  if (s.resumable) s.resumable->write(index, unit * image_.item(), values);
  if (s.array)
    s.array->write_at(s.array_begin + (row + unit) * image_.item() * int64_t(sizeof(float)), std::as_bytes(values));
}

void EtalonRun::item_done(Source& s, int64_t index, const EtalonInput& result, bool resumed) {
  const std::string name = s.name(index);
  for (size_t p = 0; p < result.checks.size(); ++p) {
    const EtalonCheck& check = result.checks[p];
    s.biases[index * etalons_->units() + int64_t(p)] = float(check.bias);
    worst_.above += check.relative() > EtalonCheck::kTolerance;
    if (check.relative() >= worst_.relative)
      worst_ = {check.relative(), std::max(worst_.residual, check.residual()),
                fmt::format("{}, {}", name, unit_name(job_, result.explained.units[p])), worst_.above};
    worst_.residual = std::max(worst_.residual, check.residual());
  }
  if (s.resumable && !resumed) s.resumable->row_done(note_of(result));
  if (output_.pictures()) keep_row(s, index, result);
  if (flags_.subgraph && index == 0) draw_subgraph(s, index, result);
  add_entry(s, index, result);
  ++s.done, ++items_done_, items_resumed_ += resumed;
  job_.bar.update(items_done_ * etalons_->units(), items_ * etalons_->units(), "etalons");
  if (s.done == s.count) finish(s);
}

// Rows of the figure: the first inputs, or of a data set the first of each class.
void EtalonRun::keep_row(Source& s, int64_t index, const EtalonInput& result) {
  const bool sheet = sheet_ && !sheet_->full() && index == 0;
  if (s.figure->full() && !sheet) return;
  if (s.dataset && s.dataset->labelled()) {
    const int label = s.dataset->label(index);
    if (std::count(s.labels_shown.begin(), s.labels_shown.end(), label)) return;
    s.labels_shown.push_back(label);
  }
  EtalonFigure::Row row;
  Tensor one({1, image_.c, image_.h, image_.w});
  if (s.dataset)
    load_item(*s.dataset, index, job_.model, one.data());
  else
    std::memcpy(one.data(), s.x.data() + index * image_.item(), size_t(image_.item()) * sizeof(float));
  row.input = input_picture(one, 0, job_.model, s.file.array);
  const bool labelled = s.dataset && s.dataset->labelled();
  row.order = labelled ? s.dataset->label(index) : 0;
  row.label = labelled ? s.dataset->classes[size_t(s.dataset->label(index))] : s.name(index);
  std::vector<float> whole;
  const auto queued = std::find_if(queue_.begin(), queue_.end(),
                                   [&](const Item& i) { return i.source.get() == &s && i.index == index; });
  if (queued != queue_.end()) {
    row.maps = shown_[size_t(queued - queue_.begin())];
  } else {  // of an earlier run
    whole.resize(size_t(etalons_->units() * image_.item()));
    s.resumable->read(index, whole);
    for (int64_t p = 0; p < s.figure->columns(); ++p) row.maps.push_back(s.figure->kept(whole.data() + p * image_.item()));
  }
  for (int64_t p = 0; p < s.figure->columns(); ++p)
    row.captions.push_back(fmt::format("{:.4g}", result.explained.scores[size_t(p)]));
  if (headings_.empty())
    for (const Unit& unit : result.explained.units) headings_.push_back(unit_name(job_, unit));
  if (sheet) sheet_->add(row);
  if (!s.figure->full()) s.figure->add(std::move(row));
}

void add_checks(Json& entry, const EtalonInput& result) {
  entry["bias"] = of_units(result, [](const EtalonCheck& c) { return c.bias; });
  entry["votes_for"] = of_units(result, [](const EtalonCheck& c) { return c.votes_for; });
  entry["votes_against"] = of_units(result, [](const EtalonCheck& c) { return c.votes_against; });
  entry["residual"] = of_units(result, [](const EtalonCheck& c) { return c.residual(); });
  entry["residual_relative"] = of_units(result, [](const EtalonCheck& c) { return c.relative(); });
}

void EtalonRun::add_entry(Source& s, int64_t index, const EtalonInput& result) {
  Json entry = item_json(s.file, index);
  add_explained(entry, job_, result.explained);
  add_checks(entry, result);
  s.entries.push_back(report_.inputs.size());
  if (job_.options.json || output_.npy()) report_.inputs.push_back(std::move(entry));
  const size_t p = strongest(result);
  const EtalonCheck& c = result.checks[p];
  lines_.add(fmt::format("  {:<24} {:<18} {:.5g} = {:.5g} for {:+.5g} against {:+.5g} bias, residual {:.1e}",
                               s.name(index), unit_name(job_, result.explained.units[p]), c.score, c.votes_for,
                               c.votes_against, c.bias, c.residual()));
}

void EtalonRun::finish(Source& s) {
  if (s.array) s.array->finish();
  if (output_.npy()) {
    const bool rows = s.file.many() && s.count > 1;
    std::vector<std::string> axes = {"N", "P"};
    if (!rows) axes.erase(axes.begin());
    Tensor biases = std::move(s.biases);
    if (!rows) biases = std::move(biases).reshaped({etalons_->units()});
    s.files.push_back(output_.add_npy({s.file, "bias"}, biases, axes));
  }
  if (output_.pictures() && !s.figure->empty())
    for (Json& file : add_figure({s.file}, *s.figure)) s.files.push_back(std::move(file));
  for (size_t entry : s.entries)
    if (entry < report_.inputs.size()) report_.inputs[entry]["files"] = s.files;
  s.figure.reset();
  s.x = Tensor();
}

// The subgraph of the strongest unit.
void EtalonRun::draw_subgraph(Source& s, int64_t index, const EtalonInput& result) {
  if (!output_.pictures()) return;
  std::vector<float> x(static_cast<size_t>(image_.item()));
  if (s.dataset)
    load_item(*s.dataset, index, job_.model, x.data());
  else
    std::memcpy(x.data(), s.x.data() + index * image_.item(), x.size() * sizeof(float));
  const Unit unit = result.explained.units[strongest(result)];
  const Subgraph graph = active_subgraph(job_.ctx, job_.model, image_, x.data(), unit);
  output_.add_picture(s.files, {s.file, "subgraph"},
                      subgraph_picture(graph, fmt::format("{}: the active subgraph that makes up the {:.4g} of {}",
                                                          s.name(index), graph.value, unit_name(job_, unit))));
}

void EtalonRun::finish_all() {
  job_.bar.clear();
  if (worst_.above > 0)
    warn(fmt::format("{} of {} etalons miss <W, x> + b = score by more than {:.0e} of their terms: at worst {:.1e} ({}){}",
                     worst_.above, items_ * etalons_->units(), EtalonCheck::kTolerance, worst_.relative, worst_.where,
                     !flags_.load_tape.empty()            ? "; the tape that was loaded is not this input's"
                     : job_.options.precision != Precision::fp32 ? "; --precision fp32 rounds less"
                                                          : ""));
  Json& details = report_.details;
  details["algorithm"] = word_of(kEtalonAlgorithms, flags_.algorithm);
  details["product"] = flags_.product;
  details["units"] = etalons_->units();
  details["residual"] = worst_.residual;
  details["residual_relative"] = worst_.relative;
  details["residual_tolerance"] = EtalonCheck::kTolerance;
  details["resumed_inputs"] = items_resumed_;
  report_.times = {{"batch", batch_}, {"units_per_pass", seeds_}};  // what memory allowed: not in files
  report_.summary = [this] { print_summary(); };
  finish_run(job_, output_, std::move(report_));
}

void EtalonRun::print_summary() const {
  const int64_t etalons = (items_ - items_finished_) * etalons_->units();
  print_line(job_.summary_title(name_));
  if (items_resumed_ > 0) print_line(fmt::format("  {} of {} inputs were done before", items_resumed_, items_));
  lines_.print();
  if (etalons > 0)
    print_line(fmt::format("{}: <W, x> + b = score up to {:.1e} ({:.1e} of the terms' sizes)", counted(etalons, "etalon"),
                           worst_.residual, worst_.relative));
  std::vector<std::string> paths = output_.paths();
  for (const auto& source : sources_)
    if (source->resumable) paths.push_back(source->resumable->path());
  print_written(job_, paths);
  print_line(job_.summary_times(items_, "input"));
}

}  // namespace switchback
