// The counter-based generator and what is made of it: noisy inputs, interpolated inputs and the moments of maps.
#include <fmt/format.h>

#include <cmath>

#include "kernels/check.h"
#include "kernels/noise/noise.h"
#include "tests/support/epilogue_check.h"

namespace switchback::test {
namespace {

TEST(Philox, KnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

struct Case {
  const char* name;
  Shape y;  // n samples
  Noise noise;
};
const std::vector<Case>& cases() {
  static const std::vector<Case> rows = {
      {"rgb", {4, 3, 9, 7}, {0.25f, 42, 0, 0}},
      {"grey_odd", {5, 1, 5, 5}, {1.f, 7, 3, 0}},
      {"channels_33", {2, 33, 3, 5}, {0.5f, 1, 1, 10}},
      {"seed_above_32_bits", {4, 3, 8, 8}, {0.125f, 0x123456789abcdef0ull, 2, 1000}},
      {"last_image_and_sample", {3, 3, 6, 5}, {2.f, ~0ull, 0x7fffffffu, 0xfffffff0u}},
      {"one_element", {6, 1, 1, 1}, {1.f, 3, 0, 0}},
      {"larger_than_one_chunk", {2, 3, 61, 67}, {0.15f, 11, 0, 5}},
  };
  return rows;
}

// The noise is r·cos(2πu) in float: log, sqrt, cos and the products of their roundings, all relative to r ≤ 5.8, and
// the angle 2πu, rounded to 2^-24 of itself, moves cos by up to 2π·2^-24·r.
constexpr double kNoiseError = 16 * kEpsF32;

void check_noise(OpRun& run, const Case& c, DType dtype) {
  const Shape image{1, c.y.c, c.y.h, c.y.w};
  const Nchw x = run.reals(image, DType::f32);
  const Guarded& in = run.input_of(std::vector<float>(x.v.begin(), x.v.end()));
  const Activation y = run.output(c.y, dtype);
  write_noisy_input(run.ctx, in.as<float>(), c.noise, y);
  Ref want(c.y);
  Nchw allowed(c.y);
  for (int64_t n = 0; n < c.y.n; ++n)
    for (int64_t e = 0; e < image.count(); ++e) {
      const size_t i = size_t(n * image.count() + e);
      const double noise = normal_noise(c.noise.seed, c.noise.image, c.noise.first_sample + uint32_t(n), uint64_t(e));
      want.value.v[i] = x.v[size_t(e)] + double(c.noise.sigma) * noise;
      allowed.v[i] = kNoiseError * double(c.noise.sigma) * 5.8 + 2 * kEpsF32 * std::abs(want.value.v[i]);
      if (dtype != DType::f32) allowed.v[i] += 1.01 * eps_of(dtype) * std::abs(want.value.v[i]);
    }
  EXPECT_EQ(compare(y.read(), want.value, allowed), "");

  // Any split gives the same numbers, and so does a second run.
  EXPECT_EQ(check_splits(c.y.n,
                         [&](int64_t first, int64_t count) {
                           const Activation part = run.output(c.y.with_n(count), dtype);
                           Noise noise = c.noise;
                           noise.first_sample += uint32_t(first);
                           run.ctx.threads = int(count % 3) + 1;  // nor may the number of threads matter
                           write_noisy_input(run.ctx, in.as<float>(), noise, part);
                           return part.memory->read();
                         }),
            "");

  const Activation plain = run.output(c.y, dtype);
  Noise none = c.noise;
  none.sigma = 0;
  write_noisy_input(run.ctx, in.as<float>(), none, plain);
  for (int64_t n = 0; n < c.y.n; ++n)
    EXPECT_EQ(compare_exact(plain.read().items(n, 1), round_to(dtype, x)), "") << "sigma 0 copies";
}

// Mean, variance, skewness and kurtosis of a normal; no correlation between neighbours, samples, images and seeds.
void check_statistics(OpRun& run) {
  const Shape shape{8, 3, 64, 64};
  const std::vector<float> zero(size_t(shape.item()), 0.f);
  const Guarded& in = run.input_of(zero);
  const auto draw = [&](uint64_t seed, uint32_t image) {
    const Activation y = run.output(shape, DType::f32);
    write_noisy_input(run.ctx, in.as<float>(), {1.f, seed, image, 0}, y);
    return y.read();
  };
  const Nchw a = draw(1, 0);
  const double count = double(a.v.size());
  double moment[5] = {};
  for (const double v : a.v)
    for (int k = 1; k < 5; ++k) moment[k] += std::pow(v, k) / count;
  // Standard errors 1, sqrt(2), sqrt(15), sqrt(96) over sqrt(count); five of them.
  const double error = 5 / std::sqrt(count);
  EXPECT_NEAR(moment[1], 0, error);
  EXPECT_NEAR(moment[2], 1, error * std::sqrt(2));
  EXPECT_NEAR(moment[3], 0, error * std::sqrt(15));
  EXPECT_NEAR(moment[4], 3, error * std::sqrt(96));
  const auto correlation = [&](const Nchw& p, const Nchw& q, size_t shift) {
    double sum = 0;
    for (size_t i = 0; i + shift < p.v.size(); ++i) sum += p.v[i] * q.v[i + shift] / count;
    return sum;
  };
  for (const size_t shift : {1, 2, 3, 4, 64, 4096, 3 * 4096}) EXPECT_NEAR(correlation(a, a, shift), 0, error) << shift;
  EXPECT_NEAR(correlation(a, draw(2, 0), 0), 0, error) << "other seed";
  EXPECT_NEAR(correlation(a, draw(1ull << 32, 0), 0), 0, error) << "other high half of the seed";
  EXPECT_NEAR(correlation(a, draw(1, 1), 0), 0, error) << "other image";
}

void check_interpolation(OpRun& run, const Case& c, DType dtype) {
  const Shape image{1, c.y.c, c.y.h, c.y.w};
  const Nchw x = run.reals(image, DType::f32), baseline = run.reals(image, DType::f32);
  const Guarded& x_in = run.input_of(std::vector<float>(x.v.begin(), x.v.end()));
  const Guarded& baseline_in = run.input_of(std::vector<float>(baseline.v.begin(), baseline.v.end()));
  std::vector<float> alpha;
  for (int64_t n = 0; n < c.y.n; ++n) alpha.push_back(c.y.n == 1 ? 1.f : float(n) / float(c.y.n - 1));
  const Guarded& alpha_in = run.input_of(alpha);
  for (const bool with_baseline : {true, false}) {
    const Activation y = run.output(c.y, dtype);
    write_interpolated_input(run.ctx, x_in.as<float>(), with_baseline ? baseline_in.as<float>() : nullptr,
                             alpha_in.as<float>(), y);
    Ref want(c.y);
    for (int64_t i = 0; i < c.y.count(); ++i) {
      const size_t e = size_t(i % image.count());
      const double b = with_baseline ? baseline.v[e] : 0, a = alpha[size_t(i / image.count())];
      want.value.v[size_t(i)] = b + a * (x.v[e] - b);
      want.terms.v[size_t(i)] = std::abs(b) + a * (std::abs(x.v[e]) + std::abs(b));
    }
    EXPECT_EQ(compare(y.read(), want.value, tolerance(want, 4, dtype), Zeros::many_allowed), "")
        << "with baseline " << with_baseline;
  }
}

// f64 sums in sample order: not one bit depends on how the samples were batched.
void check_moments(OpRun& run, const Case& c, DType dtype) {
  const Nchw g = run.reals(c.y, dtype);
  const Activation in = run.input(g, dtype);
  const size_t item = size_t(c.y.item());
  std::vector<double> sum(item, 0.5), square(item, 0.25);  // it adds to what is there
  for (int64_t n = 0; n < c.y.n; ++n)
    for (size_t i = 0; i < item; ++i) {
      const double v = g.v[size_t(n) * item + i];
      sum[i] += v, square[i] += v * v;
    }
  const auto accumulate = [&](const std::vector<int64_t>& split, bool with_square) {
    Guarded& sum_out = run.bytes(item * 8, kPoison);
    Guarded& square_out = run.bytes(item * 8, kPoison);
    sum_out.write(std::vector<double>(item, 0.5).data(), item * 8);
    square_out.write(std::vector<double>(item, 0.25).data(), item * 8);
    int64_t first = 0;
    for (const int64_t count : split) {
      accumulate_moments(run.ctx, slice(in, first, count), sum_out.as<double>(),
                         with_square ? square_out.as<double>() : nullptr);
      first += count;
    }
    EXPECT_EQ(sum_out.read_as<double>(), sum) << "split in " << split.size();
    if (with_square) {
      EXPECT_EQ(square_out.read_as<double>(), square) << "split in " << split.size();
    }
  };
  accumulate({c.y.n}, true);
  accumulate({c.y.n}, false);
  accumulate(std::vector<int64_t>(size_t(c.y.n), 1), true);
  accumulate({1, c.y.n - 1}, true);
}

}  // namespace

void register_noise_tests() {
  struct Op {
    const char* suite;
    void (*check)(OpRun&, const Case&, DType);
  };
  constexpr Op kOps[] = {
      {"Op/Noise", check_noise}, {"Op/Interpolation", check_interpolation}, {"Op/Moments", check_moments}};
  for (const Op& op : kOps)
    for_each_device(op.suite, [&](const DeviceRow& device) {
      for (const Case& c : cases())
        for (const DType dtype : device.types)
          add_test(op.suite, c.name, device, short_name(dtype),
                   [&c, dtype, check = op.check](OpRun& run) { check(run, c, dtype); });
      if (op.check == check_noise) add_test(op.suite, "statistics", device, "f32", check_statistics);
    });
}

}  // namespace switchback::test
