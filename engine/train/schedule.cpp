#include "engine/train/schedule.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "engine/text.h"
#include "kernels/check.h"

namespace switchback {
namespace {

template <typename T>
T number(const std::string& text, const std::string& whole) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0))
    throw Error(fmt::format("schedule {}: \"{}\" is no number from 0 on", whole, text), "as in step:100,150:0.1", true);
  return value;
}

double cosine(double from, double to, double share) { return to + (from - to) * (1 + std::cos(std::numbers::pi * share)) / 2; }

double one_cycle(double lr, double step, double steps) {
  const double top = 0.3 * steps - 1, end = steps - 1;
  if (step <= top) return cosine(lr / 25, lr, step / top);
  return cosine(lr, lr / 25 / 1e4, (step - top) / (end - top));
}

}  // namespace

double Schedule::rate(double lr, int64_t step, int64_t steps_per_epoch, int64_t all_epochs) const {
  const int64_t epoch = step / steps_per_epoch;
  double rate = lr;
  switch (kind) {
    case Kind::constant: break;
    case Kind::step:
      rate *= std::pow(factor, double(std::ranges::count_if(epochs, [&](int64_t e) { return epoch >= e; })));
      break;
    case Kind::exponential: rate *= std::pow(factor, double(epoch)); break;
    case Kind::cosine: rate = cosine(lr, least, double(epoch) / double(all_epochs)); break;
    case Kind::one_cycle: rate = one_cycle(lr, double(step), double(steps_per_epoch * all_epochs)); break;
  }
  return step < warm_up ? rate * double(step + 1) / double(warm_up + 1) : rate;
}

Schedule parse_schedule(const std::string& text) {
  const std::vector<std::string> parts = split(text, ':');
  Schedule s;
  if (text == "constant") return s;
  if (text == "one-cycle") return s.kind = Schedule::Kind::one_cycle, s;
  if (parts[0] == "cosine" && parts.size() <= 2) {
    s.kind = Schedule::Kind::cosine;
    if (parts.size() == 2) s.least = number<double>(parts[1], text);
    return s;
  }
  if (parts[0] == "exponential" && parts.size() == 2) {
    s.kind = Schedule::Kind::exponential;
    s.factor = number<double>(parts[1], text);
    return s;
  }
  if (parts[0] == "step" && parts.size() == 3) {
    s.kind = Schedule::Kind::step;
    for (const std::string& epoch : split(parts[1], ',')) s.epochs.push_back(number<int64_t>(epoch, text));
    s.factor = number<double>(parts[2], text);
    return s;
  }
  throw Error(fmt::format("there is no schedule \"{}\"", text),
              "constant, step:EPOCH,EPOCH…:FACTOR, exponential:FACTOR, cosine[:MIN] or one-cycle", true);
}

}  // namespace switchback
