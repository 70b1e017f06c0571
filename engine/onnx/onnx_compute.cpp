// What ONNX graphs compute from constants alone: masks, positions, tables of biases. Loops, each by the operator's text; and
// of the operators that are supported on constants only, the names.
#include <algorithm>
#include <cmath>

#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_graph.h"

namespace switchback {
namespace {

const OnnxConstant& of(const OnnxGraph& g, const OnnxNode& n, int input) { return *g.value(n, input).constant; }

OnnxConstant made(Dims dims, bool whole) {
  double elements = 1;
  for (int64_t d : dims) elements *= double(d);
  check_size(elements, kMostComputed);
  OnnxConstant y{.dims = std::move(dims), .whole = whole, .floats = {}, .ints = {}};
  (whole ? y.ints.resize(size_t(elements)) : y.floats.resize(size_t(elements)));
  return y;
}
double value(const OnnxConstant& c, int64_t i) { return c.whole ? double(c.ints[i]) : double(c.floats[i]); }

// ---- element by element

struct Function {
  std::string_view name;
  double (*of)(double);
};
constexpr Function kFunctions[] = {
    {"Abs", [](double x) { return std::abs(x); }},
    {"Ceil", [](double x) { return std::ceil(x); }},
    {"Cos", [](double x) { return std::cos(x); }},
    {"Erf", [](double x) { return std::erf(x); }},
    {"Exp", [](double x) { return std::exp(x); }},
    {"Floor", [](double x) { return std::floor(x); }},
    {"IsNaN", [](double x) { return double(std::isnan(x)); }},
    {"Log", [](double x) { return std::log(x); }},
    {"Neg", [](double x) { return -x; }},
    {"Not", [](double x) { return double(x == 0); }},
    {"Reciprocal", [](double x) { return 1 / x; }},
    {"Relu", [](double x) { return x < 0 ? 0 : x; }},
    {"Round", [](double x) { return std::nearbyint(x); }},
    {"Sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }},
    {"Sign", [](double x) { return double(x > 0) - double(x < 0); }},
    {"Sin", [](double x) { return std::sin(x); }},
    {"Sqrt", [](double x) { return std::sqrt(x); }},
    {"Tanh", [](double x) { return std::tanh(x); }},
};

// y of a's and b's elements, broadcast.
OnnxConstant broadcast(const std::vector<const OnnxConstant*>& inputs, bool whole, double (*of)(const double*)) {
  size_t rank = 0;
  for (const OnnxConstant* c : inputs) rank = std::max(rank, c->dims.size());
  Dims dims(rank, 1);
  std::vector<Dims> sizes;
  for (const OnnxConstant* c : inputs) {
    sizes.push_back(padded(c->dims, rank));
    for (size_t i = 0; i < rank; ++i) {
      CHECK(sizes.back()[i] == dims[i] || sizes.back()[i] == 1 || dims[i] == 1, "constants of {} and {} combined",
            to_string(inputs[0]->dims), to_string(c->dims));
      if (dims[i] == 1) dims[i] = sizes.back()[i];
    }
  }
  OnnxConstant y = made(dims, whole);
  for (int64_t i = 0; i < y.count(); ++i) {
    double values[3] = {};
    for (size_t k = 0; k < inputs.size(); ++k) {
      int64_t from = 0, stride = 1, rest = i;
      for (size_t axis = rank; axis-- > 0; rest /= dims[axis]) {
        if (sizes[k][axis] > 1) from += rest % dims[axis] * stride;
        stride *= sizes[k][axis];
      }
      values[k] = value(*inputs[k], from);
    }
    if (whole) {
      const double v = of(values);
      CHECK(std::abs(v) < 0x1p62, "{} as a whole number", v);
      y.ints[i] = int64_t(v);
    } else {
      y.floats[i] = float(of(values));
    }
  }
  return y;
}

struct Combination {
  std::string_view name;
  bool yes_or_no;  // else of the first input's kind
  double (*of)(const double*);
};
constexpr Combination kCombinations[] = {
    {"And", true, [](const double* v) { return double(v[0] != 0 && v[1] != 0); }},
    {"Equal", true, [](const double* v) { return double(v[0] == v[1]); }},
    {"Greater", true, [](const double* v) { return double(v[0] > v[1]); }},
    {"GreaterOrEqual", true, [](const double* v) { return double(v[0] >= v[1]); }},
    {"Less", true, [](const double* v) { return double(v[0] < v[1]); }},
    {"LessOrEqual", true, [](const double* v) { return double(v[0] <= v[1]); }},
    {"Max", false, [](const double* v) { return v[0] != v[0] || v[0] > v[1] ? v[0] : v[1]; }},
    {"Min", false, [](const double* v) { return v[0] != v[0] || v[0] < v[1] ? v[0] : v[1]; }},
    {"Or", true, [](const double* v) { return double(v[0] != 0 || v[1] != 0); }},
    {"Pow", false, [](const double* v) { return std::pow(v[0], v[1]); }},
};

// ---- others

OnnxConstant mod(const OnnxGraph& g, const OnnxNode& n) {
  const bool as_c = n.integer("fmod", 0) != 0;  // the sign of the dividend, else of the divisor
  const OnnxConstant &a = of(g, n, 0), &b = of(g, n, 1);
  for (int64_t i = 0; i < b.count(); ++i) CHECK(!b.whole || value(b, i) != 0, "a division by zero");
  return broadcast({&a, &b}, a.whole, as_c ? [](const double* v) { return std::fmod(v[0], v[1]); } : [](const double* v) {
    const double r = std::fmod(v[0], v[1]);
    return r != 0 && (r < 0) != (v[1] < 0) ? r + v[1] : r;
  });
}

OnnxConstant where(const OnnxGraph& g, const OnnxNode& n) {
  return broadcast({&of(g, n, 0), &of(g, n, 1), &of(g, n, 2)}, of(g, n, 1).whole,
                   [](const double* v) { return v[0] != 0 ? v[1] : v[2]; });
}

OnnxConstant range(const OnnxGraph& g, const OnnxNode& n) {
  double v[3];
  for (int i = 0; i < 3; ++i) {
    CHECK(of(g, n, i).count() == 1, "a range of {} beginnings, ends or steps", of(g, n, i).count());
    v[i] = value(of(g, n, i), 0);
  }
  CHECK(v[2] != 0, "a range with step 0");
  if (g.batch == kOpenBatch && v[0] == 0 && v[1] == double(kOpenBatch) && v[2] == 1) v[1] = double(kImagesTried);
  const double count = std::max(0.0, std::ceil((v[1] - v[0]) / v[2]));
  CHECK(count < kMostComputed, "a range of {}", count);
  OnnxConstant y = made({int64_t(count)}, of(g, n, 0).whole);
  for (int64_t i = 0; i < y.count(); ++i) {
    if (y.whole) y.ints[i] = int64_t(v[0] + double(i) * v[2]);
    else y.floats[i] = float(v[0] + double(i) * v[2]);
  }
  return y;
}

// The first element that each row of indices [.., k] names in x, and how many lie behind it.
std::vector<int64_t> places(const OnnxConstant& x, const OnnxConstant& indices, int64_t& behind) {
  CHECK(!indices.dims.empty() && indices.whole, "indices of {}", to_string(indices.dims));
  const size_t depth = size_t(indices.dims.back());
  CHECK(depth >= 1 && depth <= x.dims.size(), "indices of {} into {}", to_string(indices.dims), to_string(x.dims));
  behind = product(x.dims, depth, x.dims.size());
  std::vector<int64_t> found;
  for (size_t row = 0; row < indices.ints.size() / depth; ++row) {
    int64_t at = 0;
    for (size_t k = 0; k < depth; ++k) {
      const int64_t size = x.dims[k];
      int64_t i = indices.ints[row * depth + k];
      CHECK(i >= -size && i < size, "index {} of {}", i, size);
      at = at * size + (i < 0 ? i + size : i);
    }
    found.push_back(at * behind);
  }
  return found;
}

OnnxConstant scatter_nd(const OnnxGraph& g, const OnnxNode& n) {
  CHECK(n.text("reduction", "none") == "none", "a reduction while scattering is not supported");
  OnnxConstant y = of(g, n, 0);
  const OnnxConstant updates = of(g, n, 2);
  int64_t behind = 0;
  const std::vector<int64_t> at = places(y, of(g, n, 1), behind);
  CHECK(updates.whole == y.whole && updates.count() == int64_t(at.size()) * behind, "{} updates for {} places of {}", updates.count(),
        at.size(), behind);
  for (size_t row = 0; row < at.size(); ++row)
    for (int64_t i = 0; i < behind; ++i) {
      const size_t to = size_t(at[row] + i), from = row * size_t(behind) + size_t(i);
      (y.whole ? void(y.ints[to] = updates.ints[from]) : void(y.floats[to] = updates.floats[from]));
    }
  return y;
}

OnnxConstant gather_nd(const OnnxGraph& g, const OnnxNode& n) {
  CHECK(n.integer("batch_dims", 0) == 0, "batch_dims is not supported");
  const OnnxConstant &x = of(g, n, 0), &indices = of(g, n, 1);
  int64_t behind = 0;
  const std::vector<int64_t> at = places(x, indices, behind);
  Dims dims(indices.dims.begin(), indices.dims.end() - 1);
  dims.insert(dims.end(), x.dims.begin() + indices.dims.back(), x.dims.end());
  OnnxConstant y = made(std::move(dims), x.whole);
  for (size_t row = 0; row < at.size(); ++row)
    for (int64_t i = 0; i < behind; ++i) {
      const size_t from = size_t(at[row] + i), to = row * size_t(behind) + size_t(i);
      (y.whole ? void(y.ints[to] = x.ints[from]) : void(y.floats[to] = x.floats[from]));
    }
  return y;
}

OnnxConstant gather(const OnnxGraph& g, const OnnxNode& n) {
  const OnnxConstant &x = of(g, n, 0), &which = of(g, n, 1);
  const int64_t axis = onnx_axis(n.integer("axis", 0), x.dims.size());
  OnnxConstant y = take(x, axis, which.as_ints("its indices"));
  y.dims.erase(y.dims.begin() + axis);
  y.dims.insert(y.dims.begin() + axis, which.dims.begin(), which.dims.end());
  return y;
}

// [.., M, K] · [K, N]; a vector is a row on the left, a column on the right.
OnnxConstant matmul(const OnnxGraph& g, const OnnxNode& n) {
  OnnxConstant a = of(g, n, 0), b = of(g, n, 1);
  const bool column = b.dims.size() == 1;
  if (column) b.dims.push_back(1);
  CHECK(!a.dims.empty() && b.dims.size() == 2 && a.dims.back() == b.dims[0], "a product of constants {} and {}", to_string(a.dims),
        to_string(b.dims));
  Dims dims = a.dims;
  dims.back() = b.dims[1];
  OnnxConstant y = made(dims, a.whole);
  const int64_t k = b.dims[0], columns = b.dims[1];
  CHECK(double(y.count()) * double(k) < 0x1p32, "a product of constants {} and {}", to_string(a.dims), to_string(b.dims));
  for (int64_t i = 0; i < y.count(); ++i) {
    double sum = 0;
    for (int64_t j = 0; j < k; ++j) sum += value(a, i / columns * k + j) * value(b, j * columns + i % columns);
    (y.whole ? void(y.ints[i] = int64_t(sum)) : void(y.floats[i] = float(sum)));
  }
  if (column) y.dims.pop_back();
  return y;
}

OnnxConstant clip(const OnnxGraph& g, const OnnxNode& n) {
  OnnxConstant y = converted(of(g, n, 0), false);
  const float low = n.has_input(1) ? float(value(of(g, n, 1), 0)) : n.real("min", -INFINITY);
  const float high = n.has_input(2) ? float(value(of(g, n, 2), 0)) : n.real("max", INFINITY);
  for (float& v : y.floats) v = std::min(std::max(v, low), high);
  return converted(std::move(y), of(g, n, 0).whole);
}

OnnxConstant expand(const OnnxGraph& g, const OnnxNode& n) {
  const OnnxConstant& x = of(g, n, 0);
  Dims dims = of(g, n, 1).as_ints("its dimensions");
  if (!dims.empty() && dims[0] == kOpenBatch) dims[0] = 1;  // the same for every image
  for (int64_t d : dims) CHECK(d >= 0, "dimensions {}", to_string(dims));
  const OnnxConstant shape = made(dims, x.whole);
  return broadcast({&x, &shape}, x.whole, [](const double* v) { return v[0]; });
}

// Over the axes that an attribute or, since opset 13 or 18, an input names; over all where there are none.
OnnxConstant reduction(const OnnxGraph& g, const OnnxNode& n, double start, double (*of_two)(double, double), bool mean) {
  const OnnxConstant& x = of(g, n, 0);
  std::vector<int64_t> axes = n.has_input(1) ? of(g, n, 1).as_ints("its axes") : n.integers("axes", {});
  const bool keep = n.integer("keepdims", 1) != 0;
  if (n.integer("noop_with_empty_axes", 0) != 0 && axes.empty()) return x;
  std::vector<bool> gone(x.dims.size(), axes.empty());
  for (int64_t axis : axes) gone[onnx_axis(axis, x.dims.size())] = true;
  Dims all = x.dims, left;
  for (size_t i = 0; i < all.size(); ++i) {
    if (gone[i]) all[i] = 1;
    if (keep || !gone[i]) left.push_back(all[i]);
  }
  OnnxConstant y = made(all, x.whole);
  std::vector<double> values(y.count(), start);
  for (int64_t i = 0; i < x.count(); ++i) {
    int64_t to = 0, stride = 1, rest = i;
    for (size_t axis = all.size(); axis-- > 0; rest /= x.dims[axis]) {
      if (!gone[axis]) to += rest % x.dims[axis] * stride;
      stride *= all[axis];
    }
    values[to] = of_two(values[to], value(x, i));
  }
  CHECK(y.count() > 0 && x.count() > 0, "a reduction of {}", to_string(x.dims));
  for (int64_t i = 0; i < y.count(); ++i) {
    const double v = mean ? values[i] / double(x.count() / y.count()) : values[i];
    CHECK(!y.whole || std::abs(v) < 0x1p62, "{} as a whole number", v);
    (y.whole ? void(y.ints[i] = int64_t(v)) : void(y.floats[i] = float(v)));
  }
  y.dims = std::move(left);
  return y;
}
double sum_of(double a, double b) { return a + b; }
double product_of(double a, double b) { return a * b; }
OnnxConstant reduce_max(const OnnxGraph& g, const OnnxNode& n) {
  return reduction(g, n, -INFINITY, [](double a, double b) { return std::max(a, b); }, false);
}
OnnxConstant reduce_min(const OnnxGraph& g, const OnnxNode& n) {
  return reduction(g, n, INFINITY, [](double a, double b) { return std::min(a, b); }, false);
}
OnnxConstant reduce_prod(const OnnxGraph& g, const OnnxNode& n) { return reduction(g, n, 1, product_of, false); }
OnnxConstant reduce_sum(const OnnxGraph& g, const OnnxNode& n) { return reduction(g, n, 0, sum_of, false); }
OnnxConstant reduce_mean(const OnnxGraph& g, const OnnxNode& n) { return reduction(g, n, 0, sum_of, true); }

OnnxConstant is_infinite(const OnnxGraph& g, const OnnxNode& n) {
  const bool below = n.integer("detect_negative", 1) != 0, above = n.integer("detect_positive", 1) != 0;
  const OnnxConstant& x = of(g, n, 0);
  OnnxConstant y = made(x.dims, true);
  for (int64_t i = 0; i < x.count(); ++i) y.ints[i] = std::isinf(value(x, i)) && (value(x, i) < 0 ? below : above);
  return y;
}

OnnxConstant pad(const OnnxGraph& g, const OnnxNode& n) {  // only where nothing is added
  for (int64_t amount : of(g, n, 1).as_ints("its amounts")) CHECK(amount == 0, "a constant is padded");
  n.ignore({"mode"});
  return of(g, n, 0);
}

struct Other {
  std::string_view name;
  OnnxConstant (*of)(const OnnxGraph&, const OnnxNode&);
};
constexpr Other kOthers[] = {{"Clip", clip}, {"Expand", expand}, {"Gather", gather}, {"GatherND", gather_nd},
                             {"IsInf", is_infinite}, {"MatMul", matmul}, {"Mod", mod}, {"Pad", pad}, {"Range", range},
                             {"ReduceMax", reduce_max}, {"ReduceMean", reduce_mean}, {"ReduceMin", reduce_min}, {"ReduceProd", reduce_prod},
                             {"ReduceSum", reduce_sum}, {"ScatterND", scatter_nd}, {"Where", where}};

void only_constants(OnnxGraph&, const OnnxNode& n) {
  fail("{} on what depends on the network's input is not supported, only on constants", n.op());
}

}  // namespace

bool compute_constants(OnnxGraph& g, const OnnxNode& n) {
  for (const Function& f : kFunctions) {
    if (n.op() != f.name) continue;
    OnnxConstant y = of(g, n, 0);
    for (float& v : y.floats) v = float(f.of(double(v)));
    for (int64_t& v : y.ints) v = int64_t(f.of(double(v)));
    g.set(n, std::move(y));
    return true;
  }
  for (const Combination& c : kCombinations) {
    if (n.op() != c.name || n.inputs() != 2) continue;
    g.set(n, broadcast({&of(g, n, 0), &of(g, n, 1)}, c.yes_or_no || of(g, n, 0).whole, c.of));
    return true;
  }
  for (const Other& o : kOthers) {
    if (n.op() != o.name) continue;
    g.set(n, o.of(g, n));
    return true;
  }
  return false;
}

const OnnxOperators& onnx_constants() {
  static const OnnxOperators operators = {
      {"Mod", only_constants},
      {"Range", only_constants}, {"ReduceProd", only_constants}, {"ScatterND", only_constants}};
  return operators;
}

}  // namespace switchback
