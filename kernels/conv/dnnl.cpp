#include "kernels/conv/dnnl.h"

#include <omp.h>

#include <string_view>

#include "kernels/check.h"
#include "kernels/sliding.h"

namespace switchback {

using dnnl::memory;

Context::Context(std::shared_ptr<Gpu> gpu) : gpu(gpu), scratch(gpu), arena(std::move(gpu)) {
  if (!cpu_features().avx2)
    throw Error(fmt::format("this processor ({}) has no AVX2 and FMA, which the kernels need", cpu_features().name),
                "processors since 2013 have them; on a virtual machine choose a newer CPU model");
}
Context::~Context() = default;

DnnlState& dnnl_state(Context& ctx) {
  if (!ctx.dnnl) ctx.dnnl = std::make_unique<DnnlState>();
  return *ctx.dnnl;
}

namespace {

memory::data_type data_type(DType t) {
  return t == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}
memory::desc activation(Shape s, DType t) {
  return {{s.n, s.c, s.h, s.w}, data_type(t), memory::format_tag::nhwc};
}

// OIHW, or GOIHW where there are groups; for a flipped backward-data input and output channels change places.
memory::dims weight_dims(const Conv2d& c, bool flipped) {
  const int64_t o = c.out_channels / c.groups, i = c.in_channels / c.groups;
  memory::dims dims{flipped ? i : o, flipped ? o : i, c.kernel_h, c.kernel_w};
  if (c.groups > 1) dims.insert(dims.begin(), c.groups);
  return dims;
}

struct Padding {
  memory::dims begin, end;
};

// Padding of the forward convolution that is this one's backward-data (stride 1 only), or nothing if it is negative.
std::vector<Padding> flipped_padding(const Conv2d& c, Shape x, Shape y) {
  if (c.stride_h != 1 || c.stride_w != 1) return {};
  const int64_t reach_h = sliding_rows(c).extent() - 1, reach_w = sliding_columns(c).extent() - 1;
  const int64_t top = reach_h - c.pad_top, left = reach_w - c.pad_left;
  const int64_t bottom = x.h - y.h + reach_h - top, right = x.w - y.w + reach_w - left;
  if (top < 0 || left < 0 || bottom < 0 || right < 0) return {};
  return {{{top, left}, {bottom, right}}};
}

// Whether windows of a forward convolution lie so far over the map's left or right edge that a kernel's width of padding
// doesn't reach, or a row of outputs is longer than the map.
bool reaches_far(const Conv2d& c, int64_t pad_left, int64_t in_w, int64_t out_w) {
  const int64_t last = (out_w - 1) * c.stride_w, pad_right = last + c.dilation_w * (c.kernel_w - 1) + 1 - in_w - pad_left;
  const auto windows = [&](int64_t padding) { return (padding + c.stride_w - 1) / c.stride_w; };
  return windows(pad_left) >= c.kernel_w || windows(pad_right) >= c.kernel_w || last >= in_w;
}

// Reference loops ("ref:any") are slow. Products over copied windows ("x64:gemm:jit", "ip:…") are, too, where groups or
// channels are few, and split their sums by batch and threads. So does "brgconv" where it must do without virtual padding.
bool is_direct(std::string_view implementation, bool far) {
  const bool blocked = implementation.starts_with("brg") || implementation.starts_with("brdgmm");  // brdgmm: depthwise
  return (implementation.starts_with("jit") || (blocked && !far)) &&
         implementation.find("gemm") == std::string_view::npos;
}

// Shows the direct implementations of a convolution that oneDNN has, as forward and as backward-data convolutions, in its
// order of preference, until take(primitive descriptor, whether as a forward one) says that it is the one.
template <typename Take>
bool each_implementation(DnnlState& state, const DnnlConvKey& key, const Take& take) {
  const Conv2d& c = key.conv;
  const Shape y = output_shape(c, key.x);
  const memory::desc x_desc = activation(key.x, key.dtype), y_desc = activation(y, key.dtype);
  const memory::desc bias = key.bias ? memory::desc({c.out_channels}, memory::data_type::f32, memory::format_tag::a)
                                     : memory::desc();
  const memory::dims strides{c.stride_h, c.stride_w}, dilations{c.dilation_h - 1, c.dilation_w - 1};
  const Padding padding{{c.pad_top, c.pad_left}, {c.pad_bottom, c.pad_right}};
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto forward = [&](const memory::desc& source, const memory::desc& destination, bool flipped, const Padding& p) {
    const memory::desc weights(weight_dims(c, flipped), data_type(key.dtype), memory::format_tag::any);
    return dnnl::convolution_forward::desc(dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, source,
                                           weights, bias, destination, strides, dilations, p.begin, p.end);
  };
  const auto each = [&](auto description, bool as_forward, bool far) {
    if (!description) return false;  // there is none
    do
      if (is_direct(description.impl_info_str(), far) && take(description, as_forward)) return true;
    while (description.next_impl());
    return false;
  };
  // What a primitive descriptor was made from must live as long as it looks for the next implementation.
  using Forward = dnnl::convolution_forward::primitive_desc;
  const auto plain = forward(x_desc, y_desc, false, padding);
  if (!key.backward)
    return each(Forward(plain, attr, state.engine, true), true, reaches_far(c, c.pad_left, key.x.w, y.w));
  // A stride-1 backward-data runs faster as a forward convolution; a handful of output channels is the exception.
  if (const std::vector<Padding> flipped = flipped_padding(c, key.x, y); !flipped.empty() && c.in_channels >= 16) {
    const auto turned = forward(y_desc, x_desc, true, flipped[0]);
    const bool far = reaches_far(c, flipped[0].begin[1], y.w, key.x.w);
    if (each(Forward(turned, attr, state.engine, true), true, far)) return true;
  }
  const Forward hint(plain, attr, state.engine, true);
  if (!hint) return false;
  const memory::desc weights(weight_dims(c, false), data_type(key.dtype), memory::format_tag::any);
  const dnnl::convolution_backward_data::desc backward(dnnl::algorithm::convolution_direct, x_desc, weights, y_desc, strides,
                                                       dilations, padding.begin, padding.end);
  return each(dnnl::convolution_backward_data::primitive_desc(backward, attr, state.engine, hint, true), false, false);
}

// Sets OpenMP's threads, which oneDNN asks for when it chooses.
class Threads {
 public:
  explicit Threads(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~Threads() { omp_set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace

const DnnlChoice& dnnl_choice(Context& ctx, DnnlConvKey key) {
  DnnlState& state = dnnl_state(ctx);
  key.x.n = 1, key.threads = 1;
  const auto [at, fresh] = state.choices.try_emplace(key);
  DnnlChoice& choice = at->second;
  if (!fresh) return choice;
  const Threads one(1);
  each_implementation(state, key, [&](const auto& desc, bool as_forward) {
    choice = {desc.impl_info_str(), as_forward};
    return true;
  });
  return choice;
}

std::shared_ptr<const DnnlConv> dnnl_conv(Context& ctx, const DnnlConvKey& key) {
  DnnlState& state = dnnl_state(ctx);
  std::shared_ptr<const DnnlConv>& slot = state.convs[key];
  if (slot) return slot;
  const DnnlChoice& choice = dnnl_choice(ctx, key);
  const bool found = each_implementation(state, key, [&](const auto& desc, bool as_forward) {
    if (desc.impl_info_str() != choice.implementation || as_forward != choice.as_forward) return false;
    if constexpr (std::is_same_v<decltype(desc), const dnnl::convolution_backward_data::primitive_desc&>)
      slot.reset(new DnnlConv{dnnl::convolution_backward_data(desc), desc.diff_dst_desc(), desc.weights_desc(),
                              desc.diff_src_desc(), desc.scratchpad_desc(), false, choice.implementation, key.x.n});
    else
      slot.reset(new DnnlConv{dnnl::convolution_forward(desc), desc.src_desc(), desc.weights_desc(), desc.dst_desc(),
                              desc.scratchpad_desc(), true, choice.implementation, key.x.n});
    return true;
  });
  if (found) return slot;
  // Some implementations take a layer with wide padding only for small batches, or few threads.
  const Conv2d& c = key.conv;
  CHECK(key.x.n > 1 || key.threads > 1, "oneDNN has no direct {} convolution {}->{} kernel {}x{} on {}x{}", name_of(key.dtype),
        c.in_channels, c.out_channels, c.kernel_h, c.kernel_w, key.x.h, key.x.w);
  DnnlConvKey less = key;
  less.x.n = 1;
  if (key.x.n == 1) less.threads = 1;
  return slot = dnnl_conv(ctx, less);
}

const memory& DnnlWeights::get(DnnlState& state, const ConvWeights& weights, const DnnlConv& conv, bool backward) {
  const Conv2d& c = weights.conv();
  const bool transposed = backward && conv.as_forward;  // channels change places and taps are flipped
  for (const Entry& e : entries)
    if (e.desc == conv.weights && e.transposed == transposed) return e.memory;
  const int64_t o_count = c.out_channels / c.groups, i_count = c.in_channels / c.groups;
  memory::desc plain(weight_dims(c, transposed), memory::data_type::f32,
                     c.groups > 1 ? memory::format_tag::goihw : memory::format_tag::oihw);
  const bool as_given = !transposed && weights.scale().empty();
  memory source = as_given ? memory(plain, state.engine, const_cast<float*>(weights.given())) : memory(plain, state.engine);
  float* to = static_cast<float*>(source.get_data_handle());
  const int64_t rows = transposed ? i_count : o_count, columns = transposed ? o_count : i_count, taps = c.kernel_h * c.kernel_w;
#pragma omp parallel for schedule(static) if (c.groups * rows * columns * taps > 20000)
  for (int64_t row = 0; row < (as_given ? 0 : c.groups * rows); ++row)
    for (int64_t b = 0; b < columns; ++b)
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t at = transposed ? taps - 1 - tap : tap, o = transposed ? row / rows * o_count + b : row;
        to[(row * columns + b) * taps + tap] = weights.weight(o, transposed ? row % rows : b, at / c.kernel_w, at % c.kernel_w);
      }
  memory packed(conv.weights, state.engine);
  dnnl::reorder(source, packed).execute(state.stream, source, packed);
  state.stream.wait();
  entries.push_back({conv.weights, transposed, packed});
  return entries.back().memory;
}

void dnnl_conv_run(Context& ctx, const DnnlConv& conv, const ConvWeights& weights, DnnlWeights& packed, const void* in,
                   void* out, bool backward) {
  DnnlState& state = dnnl_state(ctx);
  memory source(conv.source, state.engine, const_cast<void*>(in)), destination(conv.destination, state.engine, out);
  memory scratchpad(conv.scratchpad, state.engine, ctx.scratch.reserve(conv.scratchpad.get_size()));
  const memory& w = packed.get(state, weights, conv, backward);
  std::unordered_map<int, memory> args{{DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_SCRATCHPAD, scratchpad}};
  args.emplace(conv.as_forward ? DNNL_ARG_SRC : DNNL_ARG_DIFF_DST, source);
  args.emplace(conv.as_forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_SRC, destination);
  if (!backward && weights.bias())
    args.emplace(DNNL_ARG_BIAS, memory({{weights.conv().out_channels}, memory::data_type::f32, memory::format_tag::a},
                                       state.engine, const_cast<float*>(weights.bias())));
  conv.primitive.execute(state.stream, args);
  state.stream.wait();
}

}  // namespace switchback
