#include "kernels/conv/dnnl.h"

#include <omp.h>

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

}  // namespace

const DnnlConv& dnnl_conv(Context& ctx, const DnnlConvKey& key) {
  DnnlState& state = dnnl_state(ctx);
  std::unique_ptr<DnnlConv>& slot = state.convs[key];
  if (slot) return *slot;
  const Conv2d& c = key.conv;
  const Shape y = output_shape(c, key.x);
  const memory::desc x_desc = activation(key.x, key.dtype), y_desc = activation(y, key.dtype);
  const memory::desc bias = key.bias ? memory::desc({c.out_channels}, memory::data_type::f32, memory::format_tag::a)
                                     : memory::desc();
  const memory::dims strides{c.stride_h, c.stride_w}, dilations{c.dilation_h - 1, c.dilation_w - 1};
  const Padding padding{{c.pad_top, c.pad_left}, {c.pad_bottom, c.pad_right}};
  const auto forward = [&](const memory::desc& source, const memory::desc& destination, bool flipped, const Padding& p) {
    const memory::desc weights(weight_dims(c, flipped), data_type(key.dtype), memory::format_tag::any);
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return dnnl::convolution_forward::primitive_desc(
        {dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, source, weights, bias, destination,
         strides, dilations, p.begin, p.end}, attr, state.engine);
  };
  auto made = std::make_unique<DnnlConv>();
  try {
    // A stride-1 backward-data runs faster as a forward convolution; a handful of output channels is the exception.
    const std::vector<Padding> flipped = flipped_padding(c, key.x, y);
    if (!key.backward || (!flipped.empty() && c.in_channels >= 16)) {
      const auto desc = key.backward ? forward(y_desc, x_desc, true, flipped[0]) : forward(x_desc, y_desc, false, padding);
      *made = {dnnl::convolution_forward(desc), desc.src_desc(), desc.weights_desc(), desc.dst_desc(),
               desc.scratchpad_desc(), true, desc.impl_info_str()};
    } else {
      const memory::desc weights(weight_dims(c, false), data_type(key.dtype), memory::format_tag::any);
      dnnl::primitive_attr attr;
      attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
      const dnnl::convolution_backward_data::primitive_desc desc(
          {dnnl::algorithm::convolution_direct, x_desc, weights, y_desc, strides, dilations, padding.begin, padding.end},
          attr, state.engine, forward(x_desc, y_desc, false, padding));
      *made = {dnnl::convolution_backward_data(desc), desc.diff_dst_desc(), desc.weights_desc(), desc.diff_src_desc(),
               desc.scratchpad_desc(), false, desc.impl_info_str()};
    }
  } catch (const dnnl::error& e) {
    fail("oneDNN cannot do a {} convolution {}->{} kernel {}x{} on {}x{} ({})", name_of(key.dtype), c.in_channels,
         c.out_channels, c.kernel_h, c.kernel_w, key.x.h, key.x.w, e.what());
  }
  slot = std::move(made);
  return *slot;
}

const memory& DnnlWeights::get(DnnlState& state, const ConvWeights& weights, const DnnlConv& conv, bool backward) {
  const Conv2d& c = weights.conv();
  const bool transposed = backward && conv.as_forward;  // channels change places and taps are flipped
  for (const Entry& e : entries)
    if (e.desc == conv.weights && e.transposed == transposed) return e.memory;
  const int64_t o_count = c.out_channels / c.groups, i_count = c.in_channels / c.groups;
  memory::desc plain(weight_dims(c, transposed), memory::data_type::f32,
                     c.groups > 1 ? memory::format_tag::goihw : memory::format_tag::oihw);
  memory source(plain, state.engine);
  float* to = static_cast<float*>(source.get_data_handle());
  for (int64_t g = 0; g < c.groups; ++g)
    for (int64_t a = 0; a < (transposed ? i_count : o_count); ++a)
      for (int64_t b = 0; b < (transposed ? o_count : i_count); ++b)
        for (int64_t r = 0; r < c.kernel_h; ++r)
          for (int64_t s = 0; s < c.kernel_w; ++s)
            *to++ = transposed ? weights.weight(g * o_count + b, a, c.kernel_h - 1 - r, c.kernel_w - 1 - s)
                               : weights.weight(g * o_count + a, b, r, s);
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
