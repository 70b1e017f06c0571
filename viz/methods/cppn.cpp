#include "viz/methods/cppn.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"

namespace switchback {
namespace {

constexpr double kWeightEta = 15;

float random_weight(Draws& draws) { return float((2 * draws.uniform() - 1) * double(Cppn::kMostWeight)); }
Cppn::Function random_function(Draws& draws) { return Cppn::Function(draws.below(Cppn::kFunctions)); }

bool before(const Cppn::Connection& a, const Cppn::Connection& b) {
  return std::pair(a.to, a.from) < std::pair(b.to, b.from);
}
bool connected(const Cppn& c, int from, int to) {
  return std::ranges::any_of(c.connections, [&](const Cppn::Connection& k) { return k.from == from && k.to == to; });
}

// A pair that may be connected, and is not; from −1 where none was found in a few draws.
Cppn::Connection free_pair(const Cppn& c, Draws& draws) {
  const int senders = Cppn::kInputs + c.hidden();
  for (int tries = 0; tries < 8; ++tries) {
    const int from = int(draws.below(senders));
    const int first = std::max(from + 1, Cppn::kInputs), to = first + int(draws.below(c.nodes() - first));
    if (!connected(c, from, to)) return {from, to, 0};
  }
  return {-1, -1, 0};
}

// A neuron in the middle of a connection: its number lies between the two ends.
void add_neuron(Cppn& c, Draws& draws) {
  if (c.connections.empty() || c.hidden() >= Cppn::kMostHidden) return;
  const size_t chosen = size_t(draws.below(int64_t(c.connections.size())));
  const Cppn::Connection split = c.connections[chosen];
  const int first_output = Cppn::kInputs + c.hidden();
  const int place = std::min(split.to, first_output);
  const auto moved = [&](int node) { return node >= place ? node + 1 : node; };
  c.connections.erase(c.connections.begin() + int64_t(chosen));
  for (Cppn::Connection& k : c.connections) k.from = moved(k.from), k.to = moved(k.to);
  c.functions.insert(c.functions.begin() + (place - Cppn::kInputs), random_function(draws));
  c.connections.push_back({split.from, place, random_weight(draws)});
  c.connections.push_back({place, moved(split.to), split.weight});
}

void remove_neuron(Cppn& c, Draws& draws) {
  if (c.hidden() == 0) return;
  const int node = Cppn::kInputs + int(draws.below(c.hidden()));
  std::erase_if(c.connections, [&](const Cppn::Connection& k) { return k.from == node || k.to == node; });
  for (Cppn::Connection& k : c.connections) k.from -= k.from > node, k.to -= k.to > node;
  c.functions.erase(c.functions.begin() + (node - Cppn::kInputs));
}

float activated(Cppn::Function f, float v) {
  switch (f) {
    case Cppn::Function::sine:
      return std::sin(v);
    case Cppn::Function::sigmoid:
      return 2 / (1 + std::exp(-v)) - 1;
    case Cppn::Function::gaussian:
      return 2 * std::exp(-v * v) - 1;
    case Cppn::Function::linear:
      return std::clamp(v, -1.f, 1.f);
  }
  return 0;
}

}  // namespace

Cppn random_cppn(Draws& draws, int outputs) {
  Cppn c{.outputs = outputs, .functions = {}, .connections = {}};
  for (int o = 0; o < outputs; ++o) {
    c.functions.push_back(random_function(draws));
    for (int i = 0; i < Cppn::kInputs; ++i) c.connections.push_back({i, Cppn::kInputs + o, random_weight(draws)});
  }
  return c;
}

Cppn mutated(const Cppn& parent, Draws& draws) {
  Cppn c = parent;
  if (draws.chance(0.5)) add_neuron(c, draws);
  if (draws.chance(0.2)) remove_neuron(c, draws);
  if (draws.chance(0.5)) {
    Cppn::Connection more = free_pair(c, draws);
    more.weight = random_weight(draws);
    if (more.from >= 0) c.connections.push_back(more);
  }
  if (draws.chance(0.3) && !c.connections.empty())
    c.connections.erase(c.connections.begin() + draws.below(int64_t(c.connections.size())));
  if (draws.chance(0.5) && !c.connections.empty()) {
    const Cppn::Connection elsewhere = free_pair(c, draws);
    Cppn::Connection& k = c.connections[size_t(draws.below(int64_t(c.connections.size())))];
    if (elsewhere.from >= 0) k = {elsewhere.from, elsewhere.to, k.weight};
  }
  for (Cppn::Connection& k : c.connections)
    if (draws.chance(0.1))
      k.weight = (2 * mutated_gene(draws, (k.weight / Cppn::kMostWeight + 1) / 2, kWeightEta) - 1) * Cppn::kMostWeight;
  for (Cppn::Function& f : c.functions)
    if (draws.chance(0.1)) f = random_function(draws);
  std::ranges::sort(c.connections, before);
  return c;
}

void draw_cppn(const Cppn& c, int64_t h, int64_t w, float* values) {
  std::vector<float> rows(size_t(c.nodes() * w));
  const auto row_of = [&](int node) { return rows.data() + node * w; };
  const double half = double(std::max(h, w)) / 2;
  for (int64_t j = 0; j < w; ++j) row_of(0)[j] = float((double(j) + 0.5 - double(w) / 2) / half), row_of(3)[j] = 1;
  for (int64_t i = 0; i < h; ++i) {
    const float y = float((double(i) + 0.5 - double(h) / 2) / half);
    for (int64_t j = 0; j < w; ++j) {
      row_of(1)[j] = y;
      row_of(2)[j] = std::sqrt(row_of(0)[j] * row_of(0)[j] + y * y);
    }
    auto next = c.connections.begin();
    for (int node = Cppn::kInputs; node < c.nodes(); ++node) {
      float* to = row_of(node);
      std::fill_n(to, w, 0.f);
      for (; next != c.connections.end() && next->to == node; ++next) {
        const float* from = row_of(next->from);
        for (int64_t j = 0; j < w; ++j) to[j] += next->weight * from[j];
      }
      const Cppn::Function f = c.functions[size_t(node - Cppn::kInputs)];
      for (int64_t j = 0; j < w; ++j) to[j] = activated(f, to[j]);
    }
    for (int o = 0; o < c.outputs; ++o) {
      const float* from = row_of(c.nodes() - c.outputs + o);
      for (int64_t j = 0; j < w; ++j) values[(o * h + i) * w + j] = (from[j] + 1) / 2;
    }
  }
}

std::vector<float> numbers_of(const Cppn& c) {
  std::vector<float> all{float(c.hidden())};
  for (const Cppn::Function f : c.functions) all.push_back(float(f));
  for (const Cppn::Connection& k : c.connections) all.insert(all.end(), {float(k.from), float(k.to), k.weight});
  return all;
}

Cppn cppn_from_numbers(std::span<const float> numbers, int outputs) {
  const auto whole = [&](size_t i, int most) {
    if (i >= numbers.size() || !(numbers[i] >= 0 && numbers[i] <= float(most)) || numbers[i] != std::floor(numbers[i]))
      throw Error(fmt::format("number {} of a pattern-producing network is wrong", i), "begin anew, without --resume");
    return int(numbers[i]);
  };
  Cppn c{.outputs = outputs, .functions = {}, .connections = {}};
  const int hidden = whole(0, Cppn::kMostHidden);
  size_t at = 1;
  for (int k = 0; k < hidden + outputs; ++k) c.functions.push_back(Cppn::Function(whole(at++, Cppn::kFunctions - 1)));
  for (; at < numbers.size(); at += 3) {
    const int from = whole(at, Cppn::kInputs + hidden - 1), to = whole(at + 1, c.nodes() - 1);
    if (at + 2 >= numbers.size() || !(std::abs(numbers[at + 2]) <= Cppn::kMostWeight) || to <= from ||
        to < Cppn::kInputs)
      throw Error(fmt::format("number {} of a pattern-producing network is wrong", at + 2),
                  "begin anew, without --resume");
    c.connections.push_back({from, to, numbers[at + 2]});
  }
  std::ranges::sort(c.connections, before);
  return c;
}

void colours_of_hls(float* planes, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float hue = 6 * planes[i], light = planes[count + i], saturation = planes[2 * count + i];
    const float chroma = (1 - std::abs(2 * light - 1)) * saturation, least = light - chroma / 2;
    for (int k = 0; k < 3; ++k) {  // each colour is strong within a third of the circle: red 0, green 2, blue 4
      float away = std::abs(hue - float(2 * k));
      away = std::min(away, 6 - away);
      planes[k * count + i] = least + chroma * std::clamp(2 - away, 0.f, 1.f);
    }
  }
}

}  // namespace switchback
