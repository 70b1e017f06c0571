#include "engine/run/plan.h"

#include <algorithm>
#include <utility>

#include "engine/run/backward.h"

namespace switchback {

void check_precision(const Context& ctx, Precision precision) {
  if (ctx.gpu || precision == Precision::fp32) return;
  if (precision != Precision::bf16)
    throw Error(fmt::format("{} runs on GPUs only", precision == Precision::tf32 ? "tf32" : "fp16"),
                "use --device cuda, or fp32 or bf16 on the CPU");
  if (!cpu_features().fast_bf16())
    throw Error(fmt::format("bf16 on the CPU needs AVX512-BF16 or AMX; this processor ({}) has neither", cpu_features().name),
                "use fp32");
}

Plan::Plan(Context& ctx, const Model& model, Shape input, const PlanOptions& options)
    : ctx_(&ctx), network_(model.network), weights_(model.weights), options_(options), shapes_(network_.shapes(input)) {
  CHECK(input.n > 0, "a plan for a batch of {}", input.n);
  check_precision(ctx, options.precision);
  if (options.given.empty()) {
    options_.observe.push_back(0);
    options_.observe.push_back(network_.output());
  }
  const Fuses able = fuses(ctx);
  CHECK(!options.training || (options.tape && options.precision == Precision::fp32), "training needs a tape, and fp32");
  const Wishes wishes{options_.observe, options_.given, options_.training};
  holders_ = holders(network_, shapes_, wishes, able.flattens);
  observed_.assign(shapes_.size(), false);
  for (int node : wishes.observed) observed_[holder(node)] = true;
  List<bool> wanted = observed_;
  for (int node : wishes.given) wanted[holder(node)] = true;

  steps_ = fuse(network_, holders_, wishes);
  if (able.pools && !options_.training) fuse_pools(ctx, network_, shapes_, wanted, type(), steps_);
  places_.resize(shapes_.size());
  if (able.concatenations) {
    const List<Part> parts = parts_in_place(network_, shapes_, wanted, steps_);
    for (int node = 0; node < parts.count(); ++node) places_[node].part = parts[node];
  }
  if (options_.tape)
    for (const Step& step : steps_) add_slots(step);
  place_values(wanted);
}

namespace {

std::vector<Shape> shapes_of(const List<Shape>& all, const std::vector<int>& nodes) {
  std::vector<Shape> shapes;
  for (int node : nodes) shapes.push_back(all[node]);
  return shapes;
}

}  // namespace

// --- what the tape holds

// What a step leaves on the tape.
void Plan::add_slots(const Step& step) {
  const auto add = [&](Tape::Kind kind, int node, size_t bytes, size_t element, float clip) {
    slots_.push_back({kind, node, shapes_[node], tape_bytes_, bytes, int(element), clip});
    tape_bytes_ += aligned(bytes);
  };
  const auto add_gates = [&](int node, float clip) {
    add(Tape::Kind::gate, node, size_t(gate_words(shapes_[node])) * 4 * (clip == kNoClip ? 1 : 2), 0, clip);
  };
  const auto add_value = [&](int node) {
    if (places_[node].slot >= 0) return;  // another layer keeps it, too
    places_[node].slot = int(slots_.size());
    add(Tape::Kind::value, node, size_t(shapes_[node].count()) * size_of(type()), size_of(type()), kNoClip);
  };
  const Keeps& kept = keeps_.emplace_back(keeps(layer(step), shapes_of(shapes_, step.inputs)));
  if (kept.switch_bytes > 0)
    add(Tape::Kind::switches, step.node, size_t(shapes_[step.node].count()) * kept.switch_bytes, kept.switch_bytes, kNoClip);
  if (kept.gates) add_gates(step.node, *kept.gates);
  const Learns learned = options_.training ? learns(layer(step)) : Learns{};
  whole_batches_ |= learned.moments;
  if (learned.moments)
    add(Tape::Kind::moments, step.node, 3 * size_t(shapes_[step.node].c) * sizeof(float), sizeof(float), kNoClip);
  if (kept.inputs || learned.inputs)
    for (int value : step.inputs) add_value(value);
  if (kept.output) add_value(step.output);
  if (step.relu >= 0) add_gates(step.relu, step.clip);
}

// --- where values lie

// Observed values have memory of their own, kept ones lie on the tape, others share the arena. Values that the caller
// writes are there before a tape is known: where they, or observed ones, are kept as well, they are copied to the tape.
void Plan::place_values(const List<bool>& wanted) {
  using Where = Place::Where;
  const int end = int(steps_.size());
  const auto bytes = [&](int node) { return size_t(shapes_[node].count()) * size_of(type()); };
  List<Lifetime> lives(shapes_.size());  // of values in the arena
  List<int> made(shapes_.size(), -2);    // the step that makes each value; -1: the caller
  const auto choose = [&](int node, int step) {
    Place& p = places_[node];
    made[node] = step;
    lives[node] = {0, step, step};
    if (p.part.whole >= 0) return;
    if (observed_[node]) {
      p.where = Where::own, p.offset = own_bytes_;
      own_bytes_ += aligned(bytes(node));
    } else if (p.slot >= 0 && step >= 0) {
      p.where = Where::tape;
    } else {
      p.where = Where::arena;
      lives[node].bytes = bytes(node);
    }
  };
  if (options_.given.empty()) choose(0, -1);
  for (int node : options_.given) choose(node, -1);
  for (int i = 0; i < end; ++i) {
    const Step& step = steps_[i];
    // Where the next step's pool is done with this one, only the pooled map is ever written, and already here.
    if (!step.with_next_pool) choose(step.output, i - (step.done_with_previous ? 1 : 0));
    for (int value : step.sources()) lives[value].last = std::max(lives[value].last, i);
  }
  for (int node = 0; node < shapes_.count(); ++node)  // parts written in place are there earlier
    if (const int whole = places_[node].part.whole; whole >= 0)
      lives[whole].first = std::min(lives[whole].first, lives[node].first);

  segments_ = {{0, end - 1, capacity()}};
  if (fuses(*ctx_).pieces && capacity() > 1 && !options_.training) {
    List<bool> whole_batches(steps_.size(), false), elsewhere = wanted;
    for (int i = 0; i < end; ++i) {  // the second plane of their gates lies behind all items' first ones
      const std::optional<float> gates = options_.tape ? keeps_[i].gates : std::nullopt;
      whole_batches[i] = gates && *gates != kNoClip;
    }
    for (int node = 0; node < shapes_.count(); ++node)
      if (places_[node].where != Where::arena) elsewhere[node] = true;
    segments_ = cache_segments(network_, steps_, shapes_, type(), whole_batches);
    const List<bool> local = confine(segments_, steps_, elsewhere, capacity(), lives);
    for (const Segment& segment : segments_)
      for (int i = segment.first; i <= segment.last; ++i) {
        const int value = steps_[i].output;
        places_[value].local = local[value];
        if (local[value]) lives[value].bytes = lives[value].bytes / size_t(capacity()) * size_t(segment.items);
      }
  }
  List<size_t> offsets;
  arena_bytes_ = place(lives, offsets);
  for (int node = 0; node < shapes_.count(); ++node)
    if (places_[node].where == Where::arena) places_[node].offset = offsets[node];
}

char* Plan::base(int node, const Tape* tape) const {
  const Place& p = places_[node];
  switch (p.where) {
    case Place::Where::arena: return static_cast<char*>(ctx_->arena.reserve(arena_bytes_)) + p.offset;
    case Place::Where::own: return own_.as<char>() + p.offset;
    case Place::Where::tape: return tape->data(slots_[p.slot]);
    case Place::Where::nowhere: break;
  }
  fail("the value of {} was fused away", network_.nodes[node].name);
}

View Plan::whole(int node, const Tape* tape, int64_t n) const { return {base(node, tape), shapes_[node].with_n(n), type()}; }

View Plan::view(int node, const Tape* tape) const {
  const Place& p = places_[node];
  const size_t element = size_of(type());
  char* at = p.part.whole < 0 ? base(node, tape) : base(p.part.whole, tape) + size_t(p.part.channel) * element;
  if (!p.local) at += size_t(first_ * shapes_[node].item()) * element;
  return {at, shapes_[node].with_n(count_), type()};
}

char* Plan::on_tape(const Tape* tape, Tape::Kind kind, int node) const {
  const Tape::Slot& slot = tape->slot(kind, node);
  return tape->data(slot) + size_t(first_) * slot.item_bytes();
}

// Whether the weights are a network's, by the list of its parameters.
static bool belong(const Weights& weights, const Network& network) {
  size_t i = 0;
  const std::vector<Parameter>& list = weights.list();
  for (int node = 0; node < network.nodes.count(); ++node)
    for (const ParameterSpec& spec : parameters(network.nodes[node].layer)) {
      if (i == list.size() || list[i].node != node || list[i].name != spec.name || list[i].dims != spec.dims) return false;
      ++i;
    }
  return i == list.size();
}

void Plan::set_weights(const Weights& weights) {
  CHECK(belong(weights, network_), "weights of another network than {}", network_.name);
  weights_ = weights;
}

Weights Plan::take_weights() { return std::exchange(weights_, Weights()); }

void Plan::reserve(Tape* tape) {
  ctx_->arena.reserve(arena_bytes_);
  if (own_.size() < own_bytes_) own_ = ctx_->allocate(own_bytes_);
  if (!tape || (tape->memory.size() >= tape_bytes_ && tape->memory.gpu() == ctx_->gpu)) return;
  tape->memory = Memory();  // first give back
  tape->memory = ctx_->allocate(tape_bytes_);
}

// --- values in and out

View Plan::write_to(int node, int64_t n) {
  CHECK(n > 0 && n <= capacity(), "{} items for a plan of {}", n, capacity());
  n_ = count_ = n;
  reserve(nullptr);
  return whole(node, nullptr, n);
}

View Plan::input(int64_t n) { return write_to(0, n); }

View Plan::given(int node, int64_t n) {
  const std::vector<int>& all = options_.given;
  CHECK(std::find(all.begin(), all.end(), node) != all.end(), "{} is not given to this plan", network_.nodes[node].name);
  return write_to(node, n);
}

void Plan::write(const float* x, int64_t n) { write_nchw(*ctx_, x, input(n)); }

ConstView Plan::value(int node) const {
  CHECK(observed(node), "{} was not observed by this plan", network_.nodes[node].name);
  CHECK(own_.size() >= own_bytes_ && n_ > 0, "{} has no value before a forward pass", network_.nodes[node].name);
  ConstView v = whole(holder(node), nullptr, n_);
  v.shape = shapes_[node].with_n(n_);
  return v;
}

namespace {

// Features rather than maps: what comes out of flatten or a linear layer, and what is no more than one place behind that (a
// constant may spread features over places).
bool is_vector(const Network& network, int node) {
  List<bool> vector(size_t(node) + 1, false);
  for (int i = 0; i <= node; ++i) {
    const Node& n = network.nodes[i];
    const Facts::Output output = facts(n.layer).output;
    const auto is_vector = [&](int input) { return vector[input]; };  // a map with a vector is a map
    vector[i] = output == Facts::Output::vector ||
                (output == Facts::Output::as_inputs && std::all_of(n.inputs.begin(), n.inputs.end(), is_vector));
  }
  return vector[node];
}

}  // namespace

Dims Plan::dims(int node) const {
  const Shape s = shapes_[node].with_n(n_);
  return s.h * s.w == 1 && is_vector(network_, node) ? Dims{s.n, s.c} : Dims{s.n, s.c, s.h, s.w};
}

Tensor Plan::read(int node) const {
  Tensor out(dims(node));
  read_nchw(*ctx_, value(node), out.data());
  return out;
}

// --- running

void Plan::forward(Tape* tape) {
  CHECK(n_ > 0, "forward() before input()");
  CHECK(!tape || options_.tape, "this plan was made without a tape");
  const auto is_value = [](const Tape::Slot& slot) { return slot.kind == Tape::Kind::value; };
  if (!tape && std::any_of(slots_.begin(), slots_.end(), is_value)) tape = &spare_;
  reserve(tape);
  if (tape) {
    tape->slots = slots_;
    tape->n = n_;
    for (int node = 0; node < places_.count(); ++node) {
      const bool written = options_.given.empty() ? node == 0 : std::ranges::find(options_.given, node) != options_.given.end();
      if (places_[node].slot >= 0 && written)
        ctx_->copy(tape->data(slots_[places_[node].slot]), base(node, tape), size_t(n_) * slots_[places_[node].slot].item_bytes());
    }
  }
  for (const Segment& segment : segments_) {
    const int64_t rounds = (n_ + segment.items - 1) / segment.items, items = (n_ + rounds - 1) / rounds;
    for (first_ = 0; first_ < n_; first_ += items) {
      count_ = std::min(items, n_ - first_);
      for (int i = segment.first; i <= segment.last; ++i)
        if (const Step& step = steps_[i]; !step.done_with_previous) run(step, tape);
    }
  }
  first_ = 0, count_ = n_;
}

// What is fused behind a step: its ReLU, a sum, and a max pool that is the next step.
Epilogue Plan::epilogue(const Step& step, Tape* tape) const {
  const Step* pool = step.with_next_pool ? &step + 1 : nullptr;
  const Step& with_relu = pool && pool->relu >= 0 ? *pool : step;
  const bool gated = with_relu.relu >= 0 && tape;
  Epilogue e{.residual = step.sum >= 0 ? view(step.sum, tape).data : nullptr,
             .relu = with_relu.relu >= 0,
             .clip = with_relu.clip,
             .gates = gated ? reinterpret_cast<uint32_t*>(on_tape(tape, Tape::Kind::gate, with_relu.relu)) : nullptr,
             .gate_items = n_,
             .tf32 = tf32()};
  if (const Part& part = places_[pool ? pool->output : step.output].part; part.whole >= 0) e.pitch = shapes_[part.whole].c;
  if (pool) {
    e.pool = &std::get<MaxPool2d>(layer(*pool));
    e.switches = tape ? on_tape(tape, Tape::Kind::switches, pool->node) : nullptr;
    e.pool_before_relu = pool->relu >= 0;
  }
  return e;
}

void Plan::run(const Step& step, Tape* tape) {
  std::vector<ConstView> x;
  for (int value : step.inputs) {
    x.push_back(view(value, tape));
    if (places_[value].part.whole == step.output) x.back().data = nullptr;  // it is there already
  }
  const Epilogue end = epilogue(step, tape);
  const Step& last = step.with_next_pool ? *(&step + 1) : step;
  const View y = view(last.output, tape);
  ForwardCall call{.ctx = *ctx_, .x = x, .y = y, .end = end, .weights = weights(step), .training = training()};
  if (tape) {
    const Keeps& kept = keeps_[&step - steps_.data()];
    if (kept.gates) call.gates = reinterpret_cast<uint32_t*>(on_tape(tape, Tape::Kind::gate, step.node));
    if (kept.switch_bytes > 0) call.switches = on_tape(tape, Tape::Kind::switches, step.node);
    if (const Tape::Slot* moments = tape->find(Tape::Kind::moments, step.node))
      call.moments = reinterpret_cast<float*>(tape->data(*moments));
  }
  switchback::forward(layer(step), call);
  if (const Place& p = places_[last.output]; tape && p.slot >= 0 && p.where != Place::Where::tape)
    ctx_->copy(on_tape(tape, Tape::Kind::value, last.output), y.data, size_t(count_) * slots_[p.slot].item_bytes());
}

std::string Plan::describe() const {
  std::string text;
  const auto name = [&](int node) { return network_.nodes[node].name; };
  for (const Step& step : steps_) {
    text += fmt::format("{:<28} {}", name(step.output), switchback::describe(layer(step)));
    if (step.batch_norm >= 0) text += " + batch norm";
    if (step.sum >= 0) text += " + " + name(step.sum);
    if (step.relu >= 0 && step.relu != step.node) text += " + ReLU";
    if (step.with_next_pool) text += " + the pool that follows";
    text += "\n";
  }
  return text;
}

void read_nchw(Context& ctx, ConstView x, float* host) {
  if (!ctx.gpu) return nhwc_to_nchw(ctx, x, host);
  const size_t bytes = size_t(x.shape.count()) * sizeof(float);
  float* on_device = static_cast<float*>(ctx.scratch.reserve(bytes));
  nhwc_to_nchw(ctx, x, on_device);
  ctx.copy_out(host, on_device, bytes);
}

void write_nchw(Context& ctx, const float* host, View y) {
  if (!ctx.gpu) return nchw_to_nhwc(ctx, host, y);
  const size_t bytes = size_t(y.shape.count()) * sizeof(float);
  float* on_device = static_cast<float*>(ctx.scratch.reserve(bytes));
  ctx.copy_in(on_device, host, bytes);
  nchw_to_nhwc(ctx, on_device, y);
}

// --- how large a run may be

size_t run_bytes(Context& ctx, const Model& model, Shape item, const PlanOptions& options, int64_t n) {
  const Plan plan(ctx, model, item.with_n(n), options);
  size_t arena = plan.arena_bytes();
  if (options.tape) arena = std::max(arena, Backward(plan, model.network.output(), {.nodes = {0}}, n).arena_bytes());
  return arena + plan.own_bytes() + plan.tape_bytes();
}

namespace {

// Weights that a GPU may have to take up besides a run, in both directions' layouts.
size_t weight_bytes(const Context& ctx, const Model& model, Precision precision) {
  return ctx.gpu ? 2 * size_t(model.network.parameter_count()) * size_of(activation_type(precision)) : 0;
}

std::string one_image(const Model& model, Shape item) {
  return fmt::format("one image of {}x{}x{} on {}", item.c, item.h, item.w, model.network.name);
}

}  // namespace

int64_t batch_within(Context& ctx, const Model& model, Shape item, const PlanOptions& options, size_t limit, int64_t n) {
  if (limit == 0) {
    const size_t free = free_memory(ctx), weights = weight_bytes(ctx, model, options.precision);
    limit = free > weights ? (free - weights) / 2 : 0;
  }
  // Bytes grow in proportion to the batch, up to alignment.
  const size_t one = run_bytes(ctx, model, item, options, 1);
  n = std::clamp<int64_t>(int64_t(limit / one), 1, std::max<int64_t>(1, n));
  fit(
      limit, one_image(model, item), [&] { return Trial{n == 1 ? one : run_bytes(ctx, model, item, options, n), [] {}}; },
      [&](bool) { return n > 1 && (n = n * 7 / 8, true); });
  return n;
}

int64_t batch_to_be_had(Context& ctx, const Model& model, Shape item, const PlanOptions& options, int64_t n) {
  const auto reserve = [&] {
    Plan plan(ctx, model, item.with_n(n), options);
    Tape tape;
    plan.reserve(options.tape ? &tape : nullptr);
    if (options.tape) Backward(plan, model.network.output(), {.nodes = {0}}, n).reserve();
  };
  fit(
      SIZE_MAX, one_image(model, item), [&] { return Trial{0, reserve}; }, [&](bool) { return n > 1 && (n /= 2, true); });
  return n;
}

}  // namespace switchback
