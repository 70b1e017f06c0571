// Learning rates over a run, as PyTorch's schedulers have them, and a linear warm-up before any of them.
//
//   constant            lr
//   step:E,E…:F         ·F at the beginning of each epoch E                          MultiStepLR
//   exponential:F       ·F each epoch                                               ExponentialLR
//   cosine[:MIN]        MIN + (lr − MIN)·(1 + cos(π·epoch/epochs))/2                CosineAnnealingLR
//   one-cycle           up to lr over 30 % of the steps, from lr/25, down to lr/250000, by cosines; changes every step
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchback {

struct Schedule {
  enum class Kind { constant, step, exponential, cosine, one_cycle } kind = Kind::constant;
  std::vector<int64_t> epochs = {};  // step
  double factor = 1;                 // step, exponential
  double least = 0;                  // cosine: MIN
  int64_t warm_up = 0;               // the first steps rise from lr/(warm_up + 1) to lr

  // step: the run's, from 0.
  double rate(double lr, int64_t step, int64_t steps_per_epoch, int64_t all_epochs) const;
  bool looks_ahead() const { return kind == Kind::cosine || kind == Kind::one_cycle; }  // at the number of all epochs
};
Schedule parse_schedule(const std::string& text);  // throws (usage) naming what it takes

}  // namespace switchback
