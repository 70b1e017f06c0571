#include "viz/methods/top.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "kernels/pointwise/binary.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/pool/pool.h"
#include "kernels/sliding.h"
#include "viz/methods/batches.h"
#include "viz/methods/target.h"

namespace switchback {
namespace {

constexpr int64_t kNumbered = 65536;  // places that a switch of two bytes tells apart
constexpr int64_t kCached = 64;       // images whose maps a CPU's caches still have when winners are looked for

int64_t most_at_once(const Context& ctx, const RunOptions& options, int64_t most) {
  return ctx.gpu || options.batch > 0 ? most : std::min(most, kCached);
}

PlanOptions observing(std::vector<int> nodes, const RunOptions& options, bool tape) {
  return {.precision = options.precision, .observe = std::move(nodes), .tape = tape};
}

void insert(TopList& list, const TopPlace& place, const TopOptions& options) {
  const int64_t keep = options.keep;
  const auto behind = std::upper_bound(list.begin(), list.end(), place.value, [&](float value, const TopPlace& other) {
    return options.order == TopOrder::highest ? value > other.value : value < other.value;
  });
  if (behind - list.begin() >= keep) return;
  list.insert(behind, place);
  if (int64_t(list.size()) > keep) list.pop_back();
}

}  // namespace

void merge_top(TopList& list, const TopList& later, const TopOptions& options) {
  for (const TopPlace& place : later) insert(list, place, options);
}

// One pass forward; for relevance its tape is kept, and the scores are read to know the classes.
PlanOptions TopSearch::plan_options(std::vector<int> nodes) const {
  const bool relevance = options_.by == TopBy::relevance;
  if (relevance && std::find(nodes.begin(), nodes.end(), score_) == nodes.end()) nodes.push_back(score_);
  return observing(std::move(nodes), options_, relevance);
}

TopSearch::TopSearch(Context& ctx, const Model& model, Shape image, std::vector<int> nodes, const TopOptions& options,
                     int64_t most)
    : ctx_(ctx),
      options_(options),
      score_(logit_node(model.network)),
      plan_(ctx, model, image.with_n(batch_size(ctx, model, image, plan_options(nodes), options, most_at_once(ctx, options, most))),
            plan_options(nodes)) {
  CHECK(options.keep >= 1, "top keeps {} images of a channel", options.keep);
  for (const int node : nodes) {
    Followed f{.node = node,
               .shape = plan_.shapes()[node],
               .whole = {},
               .winners = {},
               .values = {},
               .switches = {},
               .ranked = {},
               .lists = {}};
    CHECK(f.shape.w <= kNumbered, "rows of {} values are too long for top", f.shape.w);
    const int64_t rows = std::min(f.shape.h, kNumbered / f.shape.w);
    f.whole = {.kernel_h = rows, .kernel_w = f.shape.w, .stride_h = rows, .stride_w = f.shape.w, .ceil_mode = true};
    f.winners = output_shape(f.whole, f.shape);
    f.values = ctx.allocate(size_t(f.winners.count()) * size_of(plan_.type()));
    f.switches = ctx.allocate(size_t(f.winners.count()) * f.whole.switch_bytes());
    if (options.by == TopBy::relevance || options.order == TopOrder::lowest)
      f.ranked = ctx.allocate(size_t(f.shape.count()) * size_of(plan_.type()));
    f.lists.resize(size_t(f.shape.c));
    followed_.push_back(std::move(f));
  }
  if (options.order == TopOrder::lowest) minus_one_ = floats_on_device(ctx, {-1});
  if (options.by == TopBy::relevance) backward_.emplace(plan_, score_, Wanted{.nodes = nodes}, plan_.capacity());
}

void TopSearch::add(const float* images, std::span<const int64_t> numbers, std::span<const int> classes) {
  const auto start = std::chrono::steady_clock::now();
  plan_.write(images, int64_t(numbers.size()));
  plan_.forward(backward_ ? &tape_ : nullptr);
  forward_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (backward_) derive(numbers, classes);
  for (Followed& f : followed_) find_winners(f, numbers);
}

// The gradients of each image's class at all followed nodes.
void TopSearch::derive(std::span<const int64_t> numbers, std::span<const int> classes) {
  const int64_t n = int64_t(numbers.size());
  const Shape score = plan_.shapes()[score_];
  CHECK(score.h * score.w == 1, "relevance is of a class's score, but {} is a map", plan_.network().nodes[score_].name);
  const int64_t outputs = score.c;
  const Tensor scores = classes.empty() ? plan_.read(score_) : Tensor();
  std::vector<SeedUnit> units;
  for (int64_t i = 0; i < n; ++i) {
    int64_t c = 0;
    if (classes.empty()) {
      const float* of_image = scores.data() + i * outputs;
      c = std::max_element(of_image, of_image + outputs) - of_image;
    } else {
      c = classes[size_t(i)];
    }
    CHECK(c >= 0 && c < outputs, "image {} is of class {}, but the network has {}", numbers[size_t(i)], c, outputs);
    units.push_back({c, -1, -1});
  }
  one_hot(ctx_, backward_->seed(n), units);
  backward_->run(tape_);
}

// [n,c,h,w]: that of which the highest is looked for.
ConstView TopSearch::ranked(const Followed& f) {
  ConstView view = plan_.value(f.node);
  const View to{f.ranked.data(), view.shape, plan_.type()};
  if (backward_) binary_forward(ctx_, {BinaryFunction::mul}, view, backward_->gradient(f.node), to), view = to;
  if (options_.order == TopOrder::lowest) {
    const ConstView minus{minus_one_.data(), {1, 1, 1, 1}, DType::f32};
    binary_forward(ctx_, {BinaryFunction::mul}, view, minus, to), view = to;
  }
  return view;
}

// The highest of each channel is found where the map lies; what comes to the host are the winners alone.
void TopSearch::find_winners(Followed& f, std::span<const int64_t> numbers) {
  const int64_t n = int64_t(numbers.size()), c = f.shape.c, strips = f.winners.h;
  const float sign = options_.order == TopOrder::highest ? 1 : -1;
  const View values{f.values.data(), f.winners.with_n(n), plan_.type()};
  max_pool2d_forward(ctx_, f.whole, ranked(f), values, f.switches.data());
  std::vector<float> best(size_t(values.shape.count()));  // [n,c,strips]
  read_nchw(ctx_, values, best.data());
  std::vector<unsigned char> switches(best.size() * f.whole.switch_bytes());  // [n,strips,c]
  ctx_.copy_out(switches.data(), f.switches.data(), switches.size());
  const auto place_of = [&](int64_t i) {
    return f.whole.switch_bytes() == 1 ? int64_t(switches[size_t(i)])
                                       : int64_t(reinterpret_cast<const uint16_t*>(switches.data())[i]);
  };
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < c; ++k) {
      const float* of_strips = best.data() + (i * c + k) * strips;
      int64_t strip = 0;
      for (int64_t s = 0; s < strips; ++s) {
        CHECK(!std::isnan(of_strips[s]), "channel {} of {} is not a number in image {}", k,
              plan_.network().nodes[f.node].name, numbers[size_t(i)]);
        if (of_strips[s] > of_strips[strip]) strip = s;
      }
      const int64_t place = place_of((i * strips + strip) * c + k);
      insert(f.lists[size_t(k)],
             {numbers[size_t(i)], sign * of_strips[strip], strip * f.whole.kernel_h + place / f.shape.w,
              place % f.shape.w},
             options_);
    }
}

std::pair<int64_t, int64_t> TopSearch::field(size_t node) const {
  const Shape s = followed_[node].shape;
  std::pair<int64_t, int64_t> whole{0, 0};
  // Fields differ by a little from place to place where strides don't divide; most are as large as the middle's.
  for (int64_t y = s.h / 2; y < std::min(s.h, s.h / 2 + 4); ++y)
    for (int64_t x = s.w / 2; x < std::min(s.w, s.w / 2 + 4); ++x) {
      const Field field = receptive_field(plan_, followed_[node].node, y, x);
      whole = {std::max(whole.first, field.boxes[0].height), std::max(whole.second, field.boxes[0].width)};
    }
  return whole;
}

std::pair<int64_t, int64_t> place_in_field(const FieldBox& box, std::pair<int64_t, int64_t> whole) {
  return {box.top == 0 ? std::max<int64_t>(0, whole.first - box.height) : 0,
          box.left == 0 ? std::max<int64_t>(0, whole.second - box.width) : 0};
}

namespace {

// One place to draw, of an image of the batch that runs.
struct Wish {
  size_t unit, rank;
  int64_t item;
  const Field* field;
};

// Backward passes from one node through fields of one form.
struct FieldPass {
  std::vector<Wish> wishes;
  std::optional<Backward> backward;
  int64_t at_once = 1;
};

struct TopMaps {
  TopMaps(Context& ctx, const Model& model, Shape image, std::span<const TopUnit> units, const TopOptions& options,
          int64_t images)
      : ctx(ctx),
        units(units),
        options(options),
        image(image),
        plan(ctx, model, image.with_n(batch_size(ctx, model, image, plan_options(), options, images)), plan_options()) {
  }

  PlanOptions plan_options() const {
    std::vector<int> nodes;
    for (const TopUnit& u : units)
      if (std::find(nodes.begin(), nodes.end(), u.node) == nodes.end()) nodes.push_back(u.node);
    return observing(std::move(nodes), options, true);
  }

  void wish(size_t unit, size_t rank, int64_t item) {
    const TopPlace& place = units[unit].top[rank];
    const auto [at, is_new] = fields.try_emplace({units[unit].node, place.row, place.col});
    if (is_new) at->second = receptive_field(plan, units[unit].node, place.row, place.col);
    std::vector<int64_t> form = at->second.form();
    form.push_back(units[unit].node);
    passes[form].wishes.push_back({unit, rank, item, &at->second});
  }

  void prepare(FieldPass& pass) {
    if (pass.backward) return;
    const Wish& first = pass.wishes[0];
    const FieldBox& box = first.field->boxes[0];
    const auto make = [&] {
      pass.backward.emplace(plan, units[first.unit].node, Wanted{.nodes = {0}}, pass.at_once,
                            BackwardOptions{.field = first.field});
    };
    make();
    const size_t each = std::max<size_t>(1, pass.backward->arena_bytes() + cut_tape_bytes(plan, *first.field));
    const size_t limit = options.memory ? options.memory : free_memory() / 4;
    pass.at_once =
        std::clamp<int64_t>(int64_t(limit / each), 1, useful_batch(ctx, {1, image.c, box.height, box.width}));
    make();
  }

  // All that was wished for of this batch.
  void run(const float* images, const TopSink& sink) {
    for (auto& [form, pass] : passes) {
      if (pass.wishes.empty()) continue;
      prepare(pass);
      for (size_t done = 0; done < pass.wishes.size(); done += size_t(pass.at_once))
        run_some(pass, {pass.wishes.begin() + long(done), std::min(size_t(pass.at_once), pass.wishes.size() - done)},
                 images, sink);
      pass.wishes.clear();
    }
  }

  void run_some(FieldPass& pass, std::span<const Wish> some, const float* images, const TopSink& sink) {
    std::vector<const Field*> of;
    std::vector<int64_t> items;
    std::vector<SeedUnit> seeds;
    for (const Wish& w : some) {
      const TopUnit& u = units[w.unit];
      const FieldBox& box = w.field->boxes[plan.holder(u.node)];
      of.push_back(w.field), items.push_back(w.item);
      seeds.push_back({u.channel, u.top[w.rank].row - box.top, u.top[w.rank].col - box.left});
    }
    cut_tape(ctx, plan, tape, of, items, cut);
    const View seed = pass.backward->seed(int64_t(some.size()));
    one_hot(ctx, seed, seeds);
    if (options.signal == TopSignal::activation) scale_by_activations(some, seed);
    const ConstView g = pass.backward->run(cut, {.rule = options.rule});
    maps.resize(size_t(g.shape.count()));
    read_nchw(ctx, g, maps.data());
    for (size_t k = 0; k < some.size(); ++k)
      sink(some[k].unit, some[k].rank, some[k].field->boxes[0], images + some[k].item * image.item(),
           maps.data() + int64_t(k) * g.shape.item());
  }

  // Seeds of 1 become what their units answered.
  void scale_by_activations(std::span<const Wish> some, View seed) {
    std::vector<float> answers;
    for (const Wish& w : some) {
      const TopUnit& u = units[w.unit];
      const TopPlace& place = u.top[w.rank];
      const ConstView map = plan.value(u.node);
      const int64_t pixel = (w.item * map.shape.h + place.row) * map.shape.w + place.col;
      const ConstView there{static_cast<const char*>(map.data) + size_t(pixel * map.shape.c) * size_of(map.dtype),
                            {1, map.shape.c, 1, 1},
                            map.dtype};
      std::vector<float> channels(size_t(map.shape.c));
      read_nchw(ctx, there, channels.data());
      answers.push_back(channels[size_t(u.channel)]);
    }
    const Memory factors = floats_on_device(ctx, answers);
    const ConstView by{factors.data(), {int64_t(answers.size()), 1, 1, 1}, DType::f32};
    binary_forward(ctx, {BinaryFunction::mul}, seed, by, seed);
  }

  Context& ctx;
  std::span<const TopUnit> units;
  TopOptions options;
  Shape image;
  Plan plan;
  Tape tape, cut;
  std::map<std::tuple<int, int64_t, int64_t>, Field> fields;
  std::map<std::vector<int64_t>, FieldPass> passes;
  std::vector<float> maps;
};

}  // namespace

void top_maps(Context& ctx, const Model& model, Shape image, std::span<const TopUnit> units,
              const std::function<void(int64_t number, float* image)>& load, const TopOptions& options,
              const TopSink& sink) {
  std::map<int64_t, std::vector<std::pair<size_t, size_t>>> by_image;
  for (size_t u = 0; u < units.size(); ++u)
    for (size_t k = 0; k < units[u].top.size(); ++k) by_image[units[u].top[k].image].emplace_back(u, k);
  if (by_image.empty()) return;
  const int64_t all = int64_t(by_image.size());
  TopMaps run(ctx, model, image, units, options, all);
  std::vector<float> images(size_t(run.plan.capacity() * image.item()));
  int64_t done = 0;
  for (auto next = by_image.begin(); next != by_image.end();) {
    int64_t n = 0;
    for (; n < run.plan.capacity() && next != by_image.end(); ++n, ++next) {
      load(next->first, images.data() + n * image.item());
      for (const auto& [unit, rank] : next->second) run.wish(unit, rank, n);
    }
    run.plan.write(images.data(), n);
    run.plan.forward(&run.tape);
    run.run(images.data(), sink);
    if (options.progress) options.progress(done += n, all);
  }
}

}  // namespace switchback
