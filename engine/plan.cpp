#include "engine/plan.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "engine/step.h"
#include "kernels/pointwise.h"

namespace switchback {
namespace {

template <typename L>
bool is(const Network& network, int node) {
  return std::holds_alternative<L>(network.nodes[size_t(node)].layer);
}

bool takes_relu(const Network& network, const Step& step) {
  return step.relu < 0 && (is<Conv2d>(network, step.node) || is<Linear>(network, step.node) ||
                           is<MaxPool2d>(network, step.node) || is<Add>(network, step.node) ||
                           is<BatchNorm2d>(network, step.node));
}

// Groups nodes into steps, in the order in which they can run. A node joins the step that makes its input where that
// input has no other reader and nobody wants to see it.
std::vector<Step> fuse(const Network& network, const std::vector<Shape>& shapes, const std::vector<bool>& observed) {
  const int count = int(network.nodes.size());
  std::vector<int> readers(size_t(count), 0), maker(size_t(count), -1);
  for (const Node& node : network.nodes)
    for (int i : node.inputs) ++readers[size_t(holder(network, shapes, i))];
  for (int i = 0; i < count; ++i)  // a dropout reads its input without being a step
    if (holder(network, shapes, i) != i) --readers[size_t(holder(network, shapes, network.nodes[size_t(i)].inputs[0]))];
  std::vector<Step> steps;
  const auto joinable = [&](int value) -> Step* {
    const int step = maker[size_t(value)];
    return step >= 0 && readers[size_t(value)] == 1 && !observed[size_t(value)] ? &steps[size_t(step)] : nullptr;
  };
  const auto extend = [&](Step& step, int node) {
    step.output = node;
    maker[size_t(node)] = int(&step - steps.data());
  };
  for (int i = 1; i < count; ++i) {
    if (holder(network, shapes, i) != i) continue;
    const Node& node = network.nodes[size_t(i)];
    std::vector<int> inputs;
    for (int input : node.inputs) inputs.push_back(holder(network, shapes, input));
    if (is<BatchNorm2d>(network, i)) {
      Step* step = joinable(inputs[0]);
      if (step && step->node == inputs[0] && is<Conv2d>(network, step->node)) {
        step->batch_norm = i;
        extend(*step, i);
        continue;
      }
    } else if (is<Add>(network, i) && inputs[0] != inputs[1]) {
      bool joined = false;
      for (int side = 0; side < 2 && !joined; ++side) {
        Step* step = joinable(inputs[size_t(side)]);
        if (!step || !is<Conv2d>(network, step->node) || step->relu >= 0 || step->residual >= 0) continue;
        step->residual = inputs[size_t(1 - side)];
        extend(*step, i);
        joined = true;
      }
      if (joined) continue;
    } else if (const auto* relu = std::get_if<ReLU>(&node.layer)) {
      Step* step = joinable(inputs[0]);
      if (step && takes_relu(network, *step)) {
        step->relu = i;
        step->clip = relu->clip;
        extend(*step, i);
        continue;
      }
    }
    Step step{.node = i, .output = i, .inputs = std::move(inputs)};
    if (const auto* relu = std::get_if<ReLU>(&node.layer)) step.relu = i, step.clip = relu->clip;
    steps.push_back(std::move(step));
    maker[size_t(i)] = int(steps.size()) - 1;
  }
  // A step runs where its last node stood: its residual may have been made after its convolution's place.
  std::stable_sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.output < b.output; });
  return steps;
}

size_t value_bytes(Shape s, Precision p) { return size_t(s.count()) * size_of(activation_type(p)); }

// What a step leaves on the tape.
void add_slots(const Network& network, const std::vector<Shape>& shapes, const Step& step, Precision precision,
               std::vector<Tape::Slot>& slots, size_t& bytes) {
  const auto add = [&](Tape::Kind kind, int node, Shape shape, size_t size, int element, float clip) {
    slots.push_back({kind, node, shape, bytes, size, element, clip});
    bytes += (size + 63) / 64 * 64;
  };
  const Shape y = shapes[size_t(step.node)];
  if (const auto* pool = std::get_if<MaxPool2d>(&network.nodes[size_t(step.node)].layer))
    add(Tape::Kind::switches, step.node, y, size_t(y.count()) * pool->switch_bytes(), int(pool->switch_bytes()), kNoClip);
  if (is<LocalResponseNorm>(network, step.node) || is<Softmax>(network, step.node))
    add(Tape::Kind::value, step.node, y, value_bytes(y, precision), int(size_of(activation_type(precision))), kNoClip);
  if (step.relu >= 0) {
    const Shape s = shapes[size_t(step.relu)];
    add(Tape::Kind::gate, step.relu, s, size_t(gate_words(s)) * 4 * (step.clip == kNoClip ? 1 : 2), 0, step.clip);
  }
}

}  // namespace

const Tape::Slot& Tape::slot(int node) const {
  for (const Slot& s : slots)
    if (s.node == node) return s;
  fail("the tape holds nothing for node {}", node);
}

Plan::Plan(Context& ctx, const Network& network, Shape input, const PlanOptions& options)
    : ctx_(&ctx), network_(&network), options_(options), shapes_(network.shapes(input)) {
  CHECK(input.n > 0, "a plan for a batch of {}", input.n);
  CHECK(options.precision == Precision::fp32 || cpu_features().fast_bf16(),
        "bf16 needs a processor with AVX512-BF16 or AMX; this one ({}) has neither", cpu_features().name);
  std::vector<bool> seen(network.nodes.size(), false);
  options_.observe.push_back(0);
  options_.observe.push_back(network.output());
  for (int node : options_.observe) seen[size_t(holder(network, shapes_, node))] = true;
  steps_ = fuse(network, shapes_, seen);

  std::vector<Lifetime> lives(network.nodes.size());
  const int end = int(steps_.size());
  lives[0] = {value_bytes(shapes_[0], options.precision), -1, seen[0] ? end : -1};
  for (int i = 0; i < end; ++i) {
    const Step& step = steps_[size_t(i)];
    lives[size_t(step.output)] = {value_bytes(shapes_[size_t(step.output)], options.precision), i,
                                  seen[size_t(step.output)] ? end : i};
    for (int value : step.inputs) lives[size_t(value)].last = std::max(lives[size_t(value)].last, i);
    if (step.residual >= 0) lives[size_t(step.residual)].last = std::max(lives[size_t(step.residual)].last, i);
    if (options.tape) add_slots(network, shapes_, step, options.precision, slots_, tape_bytes_);
  }
  arena_bytes_ = place(lives, offsets_);
}

Plan::~Plan() = default;
Plan::Plan(Plan&&) noexcept = default;
const std::vector<Step>& Plan::steps() const { return steps_; }

bool Plan::observed(int node) const {
  const int h = holder(*network_, shapes_, node);
  return std::any_of(options_.observe.begin(), options_.observe.end(),
                     [&](int o) { return holder(*network_, shapes_, o) == h; });
}

View Plan::input(int64_t n) {
  CHECK(n > 0 && n <= capacity(), "{} items for a plan of {}", n, capacity());
  n_ = n;
  char* base = static_cast<char*>(ctx_->arena.reserve(arena_bytes_));
  return {base + offsets_[0], shapes_[0].with_n(n), activation_type(options_.precision)};
}

ConstView Plan::value(int node) const {
  CHECK(observed(node), "{} was not observed by this plan", network_->nodes[size_t(node)].name);
  const int h = holder(*network_, shapes_, node);
  const char* base = static_cast<const char*>(ctx_->arena.reserve(arena_bytes_));
  return {base + offsets_[size_t(h)], shapes_[size_t(node)].with_n(n_), activation_type(options_.precision)};
}

namespace {

// Features rather than maps: what comes out of flatten or a linear layer, and what keeps its shape behind that.
bool is_vector(const Network& network, int node) {
  for (;;) {
    const Node& n = network.nodes[size_t(node)];
    if (std::holds_alternative<Linear>(n.layer) || std::holds_alternative<Flatten>(n.layer)) return true;
    const bool keeps = std::holds_alternative<ReLU>(n.layer) || std::holds_alternative<Dropout>(n.layer) ||
                       std::holds_alternative<Softmax>(n.layer) || std::holds_alternative<Add>(n.layer) ||
                       std::holds_alternative<BatchNorm2d>(n.layer);
    if (!keeps) return false;
    node = n.inputs[0];
  }
}

}  // namespace

Tensor Plan::read(int node) const {
  const ConstView v = value(node);
  Tensor out(is_vector(*network_, node) ? Dims{v.shape.n, v.shape.c} : Dims{v.shape.n, v.shape.c, v.shape.h, v.shape.w});
  nhwc_to_nchw(*ctx_, v, out.data());
  return out;
}

void Plan::forward(Tape* tape) {
  CHECK(n_ > 0, "forward() before input()");
  CHECK(!tape || options_.tape, "this plan was made without a tape");
  if (tape) {
    tape->slots = slots_;
    tape->n = n_;
    if (tape->memory.size() < tape_bytes_) tape->memory = Buffer(tape_bytes_);
  }
  char* base = static_cast<char*>(ctx_->arena.reserve(arena_bytes_));
  const DType type = activation_type(options_.precision);
  const auto view = [&](int node) {
    return View{base + offsets_[size_t(node)], shapes_[size_t(node)].with_n(n_), type};
  };
  for (const Step& step : steps_) {
    const View y = view(step.output);
    const ConstView x = view(step.inputs[0]);
    const Epilogue epilogue{
        .residual = step.residual >= 0 ? view(step.residual).data : nullptr,
        .relu = step.relu >= 0,
        .clip = step.clip,
        .gates = step.relu >= 0 && tape ? static_cast<uint32_t*>(tape->data(step.relu)) : nullptr};
    const auto keep = [&](ConstView v) {
      if (tape) std::memcpy(tape->data(step.node), v.data, size_t(v.shape.count()) * size_of(type));
    };
    std::visit(overloaded{
                   [&](const Input&) {},
                   [&](const Dropout&) {},
                   [&](const Conv2d&) { conv2d_forward(*ctx_, packed_conv(*network_, step), x, y, epilogue); },
                   [&](const Linear&) { linear_forward(*ctx_, packed_linear(*network_, step.node), x, y, epilogue); },
                   [&](const MaxPool2d& l) {
                     max_pool2d_forward(*ctx_, l, x, y, tape ? tape->data(step.node) : nullptr, epilogue);
                   },
                   [&](const AvgPool2d& l) { avg_pool2d_forward(*ctx_, l, x, y); },
                   [&](const AdaptiveAvgPool2d& l) { adaptive_avg_pool2d_forward(*ctx_, l, x, y); },
                   [&](const ReLU&) { relu_forward(*ctx_, x, y, epilogue); },
                   [&](const BatchNorm2d&) {
                     const auto& [scale, shift] = packed_affine(*network_, step.node);
                     channel_affine_forward(*ctx_, x, scale.data(), shift.data(), y, epilogue);
                   },
                   [&](const LocalResponseNorm& l) {
                     keep(x);
                     lrn_forward(*ctx_, l, x, y);
                   },
                   [&](const Softmax&) {
                     softmax_forward(*ctx_, x, y);
                     keep(y);
                   },
                   [&](const Flatten&) { flatten_forward(*ctx_, x, y); },
                   [&](const Add&) { add_forward(*ctx_, x, view(step.inputs[1]), y, epilogue); },
               },
               network_->nodes[size_t(step.node)].layer);
  }
}

std::string Plan::describe() const {
  std::string text;
  const auto name = [&](int node) { return network_->nodes[size_t(node)].name; };
  for (const Step& step : steps_) {
    text += fmt::format("{:<28} {}", name(step.output), switchback::describe(network_->nodes[size_t(step.node)].layer));
    if (step.batch_norm >= 0) text += " + batch norm";
    if (step.residual >= 0) text += " + " + name(step.residual);
    if (step.relu >= 0 && step.relu != step.node) text += " + ReLU";
    text += "\n";
  }
  return text;
}

void one_hot(View seed, const std::vector<SeedUnit>& units) {
  const Shape s = seed.shape;
  CHECK(int64_t(units.size()) == s.n, "{} units for {} seeds", units.size(), s.n);
  std::memset(seed.data, 0, size_t(s.count()) * size_of(seed.dtype));
  const auto set = [&](int64_t i) {
    if (seed.dtype == DType::f32) seed.as<float>()[i] = 1.f;
    else seed.as<bf16>()[i] = bf16(1.f);
  };
  for (int64_t n = 0; n < s.n; ++n) {
    const SeedUnit& u = units[size_t(n)];
    CHECK(u.channel >= 0 && u.channel < s.c && u.row < s.h && u.col < s.w, "unit {}:{},{} is outside {}x{}x{}", u.channel,
          u.row, u.col, s.c, s.h, s.w);
    if (u.row >= 0) {
      set(((n * s.h + u.row) * s.w + u.col) * s.c + u.channel);
    } else {
      for (int64_t p = 0; p < s.h * s.w; ++p) set((n * s.h * s.w + p) * s.c + u.channel);
    }
  }
}

size_t run_bytes(Context& ctx, const Network& network, Shape item, const PlanOptions& options, int64_t n,
                 int64_t seeds_per_item) {
  const Plan plan(ctx, network, item.with_n(n), options);
  size_t arena = plan.arena_bytes();
  if (options.tape && seeds_per_item > 0)
    arena = std::max(arena, Backward(plan, network.output(), 0, n * seeds_per_item).arena_bytes());
  return arena + plan.tape_bytes();
}

size_t free_memory() {
  std::ifstream info("/proc/meminfo");
  std::string word;
  size_t available = size_t(2) << 30;
  while (info >> word)
    if (word == "MemAvailable:" && info >> available) available *= 1024;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max"), used_file("/sys/fs/cgroup/memory.current");
  size_t limit = 0, used = 0;
  if (limit_file >> limit && used_file >> used) available = std::min(available, limit > used ? limit - used : 0);
  return available;
}

int64_t choose_batch(Context& ctx, const Network& network, Shape item, const PlanOptions& options, size_t limit,
                     int64_t seeds_per_item, int64_t most) {
  if (limit == 0) limit = free_memory() / 2;
  const size_t one = run_bytes(ctx, network, item, options, 1, seeds_per_item);
  if (one > limit)
    throw Error(fmt::format("{} on {}x{}x{} needs {} MiB for one image, {} MiB are allowed", network.name, item.c, item.h,
                            item.w, (one >> 20) + 1, limit >> 20),
                "allow more with --memory, or use a smaller input");
  // Bytes grow in proportion to the batch, up to alignment.
  int64_t n = std::clamp<int64_t>(int64_t(limit / one), 1, std::max<int64_t>(1, most));
  while (n > 1 && run_bytes(ctx, network, item, options, n, seeds_per_item) > limit) n = n * 7 / 8;
  return n;
}

}  // namespace switchback
