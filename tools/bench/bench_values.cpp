#include "tools/bench/bench_values.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "kernels/noise/noise.h"

namespace switchback {

std::vector<float> random_values(int64_t count, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = float(int64_t(rng() >> 40) - (1 << 23)) / float(1 << 23);
  return values;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  const size_t half = v.size() / 2;
  return v.size() % 2 ? v[half] : 0.5 * (v[half - 1] + v[half]);
}

double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::shared_ptr<Activation> activation(Context& ctx, Shape shape, DType dtype, uint64_t seed) {
  auto a = std::make_shared<Activation>();
  a->memory = ctx.allocate((size_t(shape.count()) * size_of(dtype) + 15) / 16 * 16);
  a->view = {a->memory.data(), shape, dtype};
  const std::vector<float> zeros(size_t(shape.item()));
  const Memory item = ctx.allocate(zeros.size() * sizeof(float));
  ctx.copy_in(item.data(), zeros.data(), item.size());
  write_noisy_input(ctx, item.as<float>(), {.sigma = 0.5f, .seed = seed}, a->view);
  return a;
}

}  // namespace switchback
