#include "tools/bench/bench_ops.h"

#include "kernels/conv/conv.h"
#include "kernels/linear/linear.h"
#include "kernels/pool/pool.h"
#include "tools/bench/bench_values.h"

namespace switchback {
namespace {

std::vector<int64_t> shape_numbers(const BenchOptions& o, const char* form, size_t least, size_t most) {
  std::vector<int64_t> numbers;
  std::string part;
  for (char c : o.shape + ",") {
    if (c != ',') {
      part += c;
      continue;
    }
    numbers.push_back(parse_whole("--shape", part, 0, int64_t(1) << 32));
    part.clear();
  }
  if (numbers.size() < least || numbers.size() > most)
    throw Error(fmt::format("--op {} --shape '{}' has {} numbers", o.op, o.shape, numbers.size()), form, true);
  return numbers;
}

double bytes_of(const Activation& a) { return double(a.view.shape.count()) * double(size_of(a.view.dtype)); }

Work conv_work(Context& ctx, const BenchOptions& o, DType dtype) {
  const bool tf32 = o.precision == Precision::tf32;
  const auto v = shape_numbers(o, "N,C,H,W,K,kernel[,stride[,padding[,dilation[,groups]]]]", 6, 10);
  const int64_t kernel = v[5], stride = v.size() > 6 ? v[6] : 1, padding = v.size() > 7 ? v[7] : kernel / 2;
  const int64_t dilation = v.size() > 8 ? v[8] : 1, groups = v.size() > 9 ? v[9] : 1;
  const Conv2d conv = conv2d(v[1], v[4], kernel, stride, padding, dilation, groups, false);
  const Shape in{v[0], v[1], v[2], v[3]}, out = output_shape(conv, in);
  struct State {
    std::vector<float> weight;
    std::unique_ptr<ConvWeights> packed;
  };
  auto state = std::make_shared<State>();
  state->weight = random_values(v[4] * (v[1] / groups) * kernel * kernel, 1);
  state->packed = std::make_unique<ConvWeights>(conv, state->weight.data());
  auto x = activation(ctx, in, dtype, 2), y = activation(ctx, out, dtype, 3);
  Work work{.once = {},
            .items = double(v[0]),
            .item = "image",
            .flops = 2.0 * double(out.count()) * double(v[1] / groups * kernel * kernel),
            .bytes = bytes_of(*x) + bytes_of(*y) + double(state->weight.size() * size_of(dtype))};
  work.details["algorithm"] = conv2d_algorithm(ctx, *state->packed, in, dtype, o.backward, tf32);
  if (o.backward)
    work.once = [&ctx, state, x, y, tf32] { conv2d_backward_data(ctx, *state->packed, y->view, x->view, {.tf32 = tf32}); };
  else
    work.once = [&ctx, state, x, y, tf32] { conv2d_forward(ctx, *state->packed, x->view, y->view, {.tf32 = tf32}); };
  return work;
}

Work linear_work(Context& ctx, const BenchOptions& o, DType dtype) {
  const bool tf32 = o.precision == Precision::tf32;
  const auto v = shape_numbers(o, "N,in,out", 3, 3);
  struct State {
    std::vector<float> weight;
    LinearWeights weights;
  };
  auto state = std::make_shared<State>();
  state->weight = random_values(v[1] * v[2], 1);
  state->weights.linear = {v[1], v[2], false};
  state->weights.weight = state->weight.data();
  auto x = activation(ctx, {v[0], v[1]}, dtype, 2), y = activation(ctx, {v[0], v[2]}, dtype, 3);
  Work work{.once = {},
            .items = double(v[0]),
            .item = "image",
            .flops = 2.0 * double(v[0] * v[1] * v[2]),
            .bytes = bytes_of(*x) + bytes_of(*y) + double(state->weight.size() * size_of(dtype))};
  if (o.backward)
    work.once = [&ctx, state, x, y, tf32] { linear_backward_data(ctx, state->weights, y->view, x->view, {.tf32 = tf32}); };
  else
    work.once = [&ctx, state, x, y, tf32] { linear_forward(ctx, state->weights, x->view, y->view, {.tf32 = tf32}); };
  return work;
}

Work pool_work(Context& ctx, const BenchOptions& o, DType dtype) {
  const auto v = shape_numbers(o, "N,C,H,W,kernel[,stride[,padding]]", 5, 7);
  const MaxPool2d pool = max_pool2d(v[4], v.size() > 5 ? v[5] : v[4], v.size() > 6 ? v[6] : 0);
  const Shape in{v[0], v[1], v[2], v[3]}, out = output_shape(pool, in);
  auto x = activation(ctx, in, dtype, 2), y = activation(ctx, out, dtype, 3);
  auto switches = std::make_shared<Memory>(ctx.allocate(size_t(out.count()) * pool.switch_bytes()));
  max_pool2d_forward(ctx, pool, x->view, y->view, switches->data());
  Work work{.once = {},
            .items = double(v[0]),
            .item = "image",
            .flops = double(out.count() * pool.window()),
            .bytes = bytes_of(*x) + bytes_of(*y) + double(switches->size())};
  if (o.backward)
    work.once = [&ctx, pool, x, y, switches] { max_pool2d_backward(ctx, pool, y->view, switches->data(), x->view); };
  else
    work.once = [&ctx, pool, x, y, switches] { max_pool2d_forward(ctx, pool, x->view, y->view, switches->data()); };
  return work;
}

}  // namespace

Work op_work(Context& ctx, const BenchOptions& o) {
  check_choice("--op", o.op, {"conv", "linear", "maxpool"});
  if (o.shape.empty())
    throw Error(
        fmt::format("--op {} needs --shape", o.op),
        "conv: N,C,H,W,K,kernel[,stride[,padding[,dilation[,groups]]]]; linear: N,in,out; "
        "maxpool: N,C,H,W,kernel[,stride[,padding]]",
        true);
  const DType dtype = activation_type(o.precision);
  Work work = o.op == "conv"     ? conv_work(ctx, o, dtype)
              : o.op == "linear" ? linear_work(ctx, o, dtype)
                                 : pool_work(ctx, o, dtype);
  work.details["op"] = o.op;
  work.details["shape"] = o.shape;
  work.details["backward"] = o.backward;
  return work;
}

}  // namespace switchback
