// ONNX's Einsum: of one value sums and other orders of its axes, of two products of matrices, written with letters.
#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "engine/files/files.h"
#include "engine/onnx/onnx_constants.h"
#include "engine/onnx/onnx_layers.h"

namespace switchback {
namespace {

struct Equation {
  std::string text, inputs[2], out;  // inputs[1] is empty where there is one input
};

bool has(const std::string& letters, char letter) { return letters.find(letter) != std::string::npos; }
std::vector<int64_t> axes_of(const std::string& letters, const std::string& in) {
  std::vector<int64_t> axes;
  for (char letter : letters) axes.push_back(int64_t(in.find(letter)));
  return axes;
}

// An ellipsis stands for the axes that are not named, lined up from behind; they get letters of their own. Where no result
// is written, it is the letters that occur once, in their order.
Equation equation_of(const OnnxGraph& g, const OnnxNode& n) {
  Equation e;
  e.text = printable(n.text("equation", ""));
  std::string text = n.text("equation", "");
  std::erase(text, ' ');
  const size_t arrow = std::min(text.find("->"), text.size()), comma = text.find(',');
  const std::string left = text.substr(0, arrow);
  CHECK(n.inputs() <= 2 && std::ranges::count(left, ',') == n.inputs() - 1, "the equation {} of {} inputs; one or two are supported",
        e.text, n.inputs());
  e.inputs[0] = left.substr(0, comma);
  if (n.inputs() == 2) e.inputs[1] = left.substr(comma + 1);
  constexpr std::string_view kSpare = "01234567";
  size_t most = 0;
  for (int i = 0; i < n.inputs(); ++i) {
    const size_t dots = e.inputs[i].find("..."), rank = g.value(n, i).dims.size();
    const size_t named = e.inputs[i].size() - (dots == std::string::npos ? 0 : 3);
    CHECK(dots == std::string::npos ? named == rank : named <= rank && rank - named <= kSpare.size(),
          "the equation {} for an input of {}", e.text, g.text(g.value(n, i).dims));
    if (dots == std::string::npos) continue;
    e.inputs[i].replace(dots, 3, kSpare.substr(kSpare.size() - (rank - named)));
    most = std::max(most, rank - named);
  }
  const std::string unnamed(kSpare.substr(kSpare.size() - most)), all = e.inputs[0] + e.inputs[1];
  if (arrow < text.size()) {
    e.out = text.substr(arrow + 2);
    if (const size_t dots = e.out.find("..."); dots != std::string::npos) e.out.replace(dots, 3, unnamed);
  } else {
    e.out = unnamed;
    std::set<char> once;
    for (char letter : all)
      if (std::ranges::count(all, letter) == 1 && !has(unnamed, letter)) once.insert(letter);
    e.out.append(once.begin(), once.end());
  }
  for (const std::string& letters : {e.inputs[0], e.inputs[1], e.out})
    for (char letter : letters)
      CHECK(std::ranges::count(letters, letter) == 1 && has(all, letter) && (std::isalnum(static_cast<unsigned char>(letter)) != 0),
            "the equation {}: each letter may stand once in an input and in the result", e.text);
  return e;
}

// x without the axes of these letters, which are summed over.
OnnxValue summed_over(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::string& gone, std::string& letters) {
  if (gone.empty()) return x;
  std::set<int64_t> axes;
  for (int64_t axis : axes_of(gone, letters)) axes.insert(axis);
  CHECK(!axes.contains(x.batch.axis), "a sum over the images of a batch");
  OnnxValue y = reduced(g, n, x, axes, false);
  for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {
    y.dims.erase(y.dims.begin() + *axis);
    y.batch.axis -= *axis < y.batch.axis;
    letters.erase(size_t(*axis), 1);
  }
  return y;
}

// x with its axes, called `letters`, as `out` has them, as n's output.
void set_turned(OnnxGraph& g, const OnnxNode& n, const OnnxValue& x, const std::string& letters, const std::string& out) {
  CHECK(letters.size() == out.size(), "a result of {} axes from {}", out.size(), letters.size());
  const OnnxValue y = with_axes(g, n, x, axes_of(out, letters));
  g.regroup(n, y, y.dims, y.batch);
}

int64_t places_of(const std::map<char, int64_t>& size, const std::string& letters) {
  double all = 1;
  for (char letter : letters) all *= double(size.at(letter));
  CHECK(all < 0x1p40, "{} places", all);
  return int64_t(all);
}

// Of data x and a constant: a linear layer over what is summed; or, where both have an axis of the result, the product of
// all that meet, summed up.
void einsum_with_constant(OnnxGraph& g, const OnnxNode& n, const Equation& e, OnnxValue x, std::string left, const OnnxConstant& given,
                   const std::string& right, const std::map<char, int64_t>& size) {
  std::string alone, both, summed, rows, columns;
  for (char letter : left)
    (!has(right, letter) ? has(e.out, letter) ? rows : alone : has(e.out, letter) ? both : summed) += letter;
  for (char letter : right)
    if (!has(left, letter)) columns += letter;
  for (char letter : columns) CHECK(has(e.out, letter), "the equation {}: a sum over {} of a constant", e.text, letter);
  x = summed_over(g, n, x, alone, left);
  const OnnxConstant c = converted(given, false);
  if (both.empty()) {
    OnnxConstant weight = transposed(c, axes_of(columns + summed, right));
    const int64_t in = places_of(size, summed);
    weight.dims = {weight.count() / in, in};
    x = with_axes(g, n, x, axes_of(rows + summed, left));
    x.dims.resize(rows.size());
    x.dims.push_back(in);
    CHECK(x.batch.axis < int64_t(rows.size()), "the equation {}: a sum over the images of a batch", e.text);
    linear_over_last(g, n, x, weight, false);
    OnnxValue y = g.value(n.output(0));
    y.dims.pop_back();
    for (char letter : columns) y.dims.push_back(size.at(letter));
    return set_turned(g, n, y, rows + columns, e.out);
  }
  std::string letters = rows + both + summed;
  x = with_axes(g, n, x, axes_of(letters, left));
  x.dims.insert(x.dims.end(), columns.size(), 1);
  letters += columns;
  OnnxConstant factors = transposed(c, axes_of(both + summed + columns, right));
  x = binary_value(g, n, BinaryFunction::mul, x, {std::make_shared<OnnxConstant>(factors), -1, factors.dims});
  x = summed_over(g, n, x, summed, letters);
  set_turned(g, n, x, letters, e.out);
}

// Of two values of data: letters that both have and the result too are batches, those that only both have are summed over.
void einsum_of_data(OnnxGraph& g, const OnnxNode& n, const Equation& e, OnnxValue a, std::string left, OnnxValue b, std::string right,
             const std::map<char, int64_t>& size) {
  const auto alone = [&](const std::string& own, const std::string& other) {
    std::string gone;
    for (char letter : own)
      if (!has(other, letter) && !has(e.out, letter)) gone += letter;
    return gone;
  };
  a = summed_over(g, n, a, alone(left, right), left);
  b = summed_over(g, n, b, alone(right, left), right);
  std::string batch, summed, rows, columns;
  for (char letter : left) (has(right, letter) ? has(e.out, letter) ? batch : summed : rows) += letter;
  for (char letter : right)
    if (!has(left, letter)) columns += letter;
  // One axis each for the rows, the columns and what is summed over.
  const auto joined = [&](OnnxValue v, const std::string& first, const std::string& second) {
    v.dims.resize(batch.size());
    v.dims.push_back(places_of(size, first)), v.dims.push_back(places_of(size, second));
    return v;
  };
  const OnnxValue x = joined(with_axes(g, n, a, axes_of(batch + rows + summed, left)), rows, summed);
  const OnnxValue w = joined(with_axes(g, n, b, axes_of(batch + summed + columns, right)), summed, columns);
  OnnxValue y = matrix_product(g, n, x, w);
  const std::string made = batch + rows + columns;
  y.dims.clear();
  for (char letter : made) y.dims.push_back(size.at(letter));
  set_turned(g, n, y, made, e.out);
}

}  // namespace

void einsum(OnnxGraph& g, const OnnxNode& n) {
  const Equation e = equation_of(g, n);
  std::map<char, int64_t> size;
  for (int i = 0; i < n.inputs(); ++i)
    for (size_t k = 0; k < e.inputs[i].size(); ++k) {
      const int64_t d = g.value(n, i).dims[k];
      const auto [found, made] = size.emplace(e.inputs[i][k], d);
      CHECK(found->second == d, "the equation {}: {} is {} and {}", e.text, e.inputs[i][k], found->second, d);
    }
  const OnnxValue a = g.value(n, 0);
  if (n.inputs() == 1) {
    CHECK(!a.constant, "its input is constant");
    std::string letters = e.inputs[0], gone;
    for (char letter : letters)
      if (!has(e.out, letter)) gone += letter;
    const OnnxValue y = summed_over(g, n, a, gone, letters);
    return set_turned(g, n, y, letters, e.out);
  }
  const OnnxValue b = g.value(n, 1);
  CHECK(!a.constant || !b.constant, "its inputs are constant");
  if (b.constant) return einsum_with_constant(g, n, e, a, e.inputs[0], *b.constant, e.inputs[1], size);
  if (a.constant) return einsum_with_constant(g, n, e, b, e.inputs[1], *a.constant, e.inputs[0], size);
  einsum_of_data(g, n, e, a, e.inputs[0], b, e.inputs[1], size);
}

}  // namespace switchback
