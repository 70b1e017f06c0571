#include "tests/support/harness.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>

#include "kernels/emulator/emulated.h"
#include "tests/ptx/device.h"

namespace switchback::test {
namespace {

constexpr size_t kGuard = 4096;  // bytes on each side: more than a row of any test map

uint64_t seed_of(const std::string& name) {
  const char* variable = std::getenv("SWITCHBACK_TEST_SEED");
  uint64_t h = 1469598103934665603ull ^ (variable ? std::strtoull(variable, nullptr, 10) : 0);
  for (const char c : name) h = (h ^ uint8_t(c)) * 1099511628211ull;  // FNV-1a: the same on every machine
  return h;
}

std::vector<uint32_t> pattern_words(size_t bytes, uint32_t pattern) {
  return std::vector<uint32_t>((bytes + 3) / 4, pattern);
}

std::string place(const Shape& s, int64_t i) {
  const int64_t w = i % s.w, h = i / s.w % s.h, c = i / (s.w * s.h) % s.c, n = i / s.item();
  return fmt::format("[{},{},{},{}]", n, c, h, w);
}

}  // namespace

Nchw Nchw::items(int64_t first, int64_t count) const {
  Nchw out(shape.with_n(count));
  std::copy_n(v.begin() + first * shape.item(), out.v.size(), out.v.begin());
  return out;
}

double round_to(DType type, double value) {
  const float f = float(value);
  return type == DType::bf16 ? float(bf16(f)) : type == DType::f16 ? float(f16(f)) : f;
}

double in_range(DType type, double value) {
  if (type != DType::f16 || value == 0 || !std::isfinite(value)) return value;
  return std::copysign(std::clamp(std::abs(value), 0x1p-14, 0x1p+15), value);
}

Nchw round_to(DType type, Nchw a) {
  for (double& x : a.v) x = round_to(type, x);
  return a;
}

namespace {

double element(const uint8_t* raw, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::f32: return reinterpret_cast<const float*>(raw)[i];
    case DType::bf16: return float(reinterpret_cast<const bf16*>(raw)[i]);
    case DType::f16: return float(reinterpret_cast<const f16*>(raw)[i]);
  }
  return 0;
}

void set_element(uint8_t* raw, DType dtype, int64_t i, double value) {
  switch (dtype) {
    case DType::f32: reinterpret_cast<float*>(raw)[i] = float(value); break;
    case DType::bf16: reinterpret_cast<bf16*>(raw)[i] = bf16(float(value)); break;
    case DType::f16: reinterpret_cast<f16*>(raw)[i] = f16(float(value)); break;
  }
}

}  // namespace

// --- Devices ---------------------------------------------------------------------------------------------------------

namespace {

std::shared_ptr<Gpu> opened(std::shared_ptr<Gpu> (*open)()) {
  // Never destroyed: at the program's end the CUDA runtime may be gone before them.
  static auto& gpus = *new std::map<std::shared_ptr<Gpu> (*)(), std::shared_ptr<Gpu>>;
  std::shared_ptr<Gpu>& gpu = gpus[open];
  if (!gpu) gpu = open();
  return gpu;
}

std::string why_no_cuda() {
  std::string why;
  return gpu_count(why) > 0 ? "" : why;
}

}  // namespace

const std::vector<DeviceRow>& devices() {
  static const std::vector<DeviceRow> rows = {
      {"cpu", [] { return std::string(); }, [] { return std::shared_ptr<Gpu>(); }, nullptr, {DType::f32, DType::bf16}, false, false},
      {"emulated", [] { return std::string(); }, [] { return opened([] { return emulated_ops()->open(0); }); }, nullptr,
       {DType::f32, DType::bf16, DType::f16}, true, true},
      {"cuda", why_no_cuda, [] { return opened([] { return open_gpu(0); }); }, "SWITCHBACK_REQUIRE_CUDA",
       {DType::f32, DType::bf16, DType::f16}, true, false},
  };
  return rows;
}

const DeviceRow& ptx_device() {
  static const DeviceRow row = {"ptx", ptx::why_not, [] { return opened(ptx::open); }, nullptr, {DType::f32, DType::bf16, DType::f16},
                                true, true};
  return row;
}

// --- Buffers ---------------------------------------------------------------------------------------------------------

Guarded::Guarded(Context& ctx, size_t bytes)
    : ctx_(ctx), base_(ctx.allocate((bytes + 2 * kGuard + 63) / 64 * 64)), payload_(base_.as<uint8_t>() + kGuard), size_(bytes) {
  const std::vector<uint32_t> all = pattern_words(size_ + 2 * kGuard, kPoison);
  ctx.copy_in(base_.data(), all.data(), size_ + 2 * kGuard);
}

void Guarded::fill(uint32_t pattern) { write(pattern_words(size_, pattern).data(), size_); }

void Guarded::write(const void* host, size_t bytes) { ctx_.copy_in(payload_, host, bytes); }

std::vector<uint8_t> Guarded::read() const {
  std::vector<uint8_t> out(size_);
  ctx_.copy_out(out.data(), payload_, size_);
  return out;
}

std::string Guarded::damage() const {
  std::vector<uint8_t> all(size_ + 2 * kGuard);
  ctx_.copy_out(all.data(), base_.data(), all.size());
  const std::vector<uint32_t> words = pattern_words(all.size(), kPoison);
  const uint8_t* want = reinterpret_cast<const uint8_t*>(words.data());
  for (size_t i = 0; i < all.size(); ++i) {
    if (i == kGuard) i += size_;
    if (i < all.size() && all[i] != want[i])
      return fmt::format("wrote outside a buffer of {} bytes, at offset {}", size_, int64_t(i) - int64_t(kGuard));
  }
  if (!frozen_.empty() && !std::equal(frozen_.begin(), frozen_.end(), all.begin() + kGuard))
    return fmt::format("an input of {} bytes was changed", size_);
  return "";
}

Nchw Activation::read() const {
  Nchw out(shape);
  const std::vector<uint8_t> raw = memory->read();
  int64_t i = 0;
  for (int64_t n = 0; n < shape.n; ++n)
    for (int64_t h = 0; h < shape.h; ++h)
      for (int64_t w = 0; w < shape.w; ++w)
        for (int64_t c = 0; c < shape.c; ++c, ++i) out(n, c, h, w) = element(raw.data(), dtype, i);
  return out;
}

OpRun::OpRun(const DeviceRow& device, const std::string& name)
    : device(device), ctx(device.open()), rng(seed_of(name)) {}
OpRun::~OpRun() = default;

Guarded& OpRun::bytes(size_t size, uint32_t pattern) {
  buffers_.push_back(std::make_unique<Guarded>(ctx, size));
  if (pattern != kPoison) buffers_.back()->fill(pattern);
  return *buffers_.back();
}

Activation OpRun::output(Shape shape, DType dtype) {
  return {&bytes(size_t(shape.count()) * size_of(dtype), kPoison), shape, dtype};
}

Activation OpRun::in_place(const Nchw& values, DType dtype) {
  const Activation a = output(values.shape, dtype);
  std::vector<uint8_t> raw(a.memory->size());
  const Shape& s = values.shape;
  int64_t i = 0;
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t h = 0; h < s.h; ++h)
      for (int64_t w = 0; w < s.w; ++w)
        for (int64_t c = 0; c < s.c; ++c, ++i) set_element(raw.data(), dtype, i, values(n, c, h, w));
  a.memory->write(raw.data(), raw.size());
  return a;
}

Activation OpRun::input(const Nchw& values, DType dtype) {
  const Activation a = in_place(values, dtype);
  a.memory->freeze();
  return a;
}

Nchw OpRun::integers(Shape shape, int limit) {
  Nchw out(shape);
  std::uniform_int_distribution<int> value(-limit, limit);
  for (double& x : out.v) x = value(rng);
  return out;
}

Nchw OpRun::reals(Shape shape, DType dtype) {
  Nchw out(shape);
  for (double& x : out.v) x = round_to(dtype, double(rng() >> 11) * 0x1p-52 - 1);
  return out;
}

std::vector<float> OpRun::integers(int64_t count, int limit) {
  const Nchw a = integers(Shape{1, count, 1, 1}, limit);
  return {a.v.begin(), a.v.end()};
}

std::vector<float> OpRun::reals(int64_t count, DType dtype) {
  const Nchw a = reals(Shape{1, count, 1, 1}, dtype);
  return {a.v.begin(), a.v.end()};
}

void OpRun::poison_scratch() {
  const size_t bytes = std::max<size_t>(ctx.scratch.capacity() / 4 * 4, 64 << 10);
  void* memory = ctx.scratch.reserve(bytes);
  ctx.copy_in(memory, pattern_words(bytes, kPoison).data(), bytes);
}

std::vector<std::string> OpRun::damages() {
  std::vector<std::string> out;
  for (const auto& b : buffers_)
    if (std::string d = b->damage(); !d.empty()) out.push_back(d);
  return out;
}

// --- Checking --------------------------------------------------------------------------------------------------------

namespace {

// What makes a comparison worthless whatever the op computed.
std::string worthless(const Nchw& got, const Nchw& want, const Nchw& tolerance, Zeros zeros) {
  int64_t want_zeros = 0, got_zeros = 0, finite = 0;
  double values = 0, errors = 0;
  for (size_t i = 0; i < want.v.size(); ++i) {
    want_zeros += want.v[i] == 0;
    got_zeros += got.v[i] == 0;
    if (!std::isfinite(want.v[i])) continue;
    ++finite;
    values += want.v[i] * want.v[i];
    errors += tolerance.v[i] * tolerance.v[i];
  }
  const int64_t count = int64_t(want.v.size());
  if (count == 0) return "nothing to compare";
  if (zeros == Zeros::many_allowed) return "";
  if (want_zeros > 0.9 * double(count))
    return fmt::format("mostly zeros: {} of {} wanted values are 0, this proves nothing", want_zeros, count);
  if (got_zeros > 0.9 * double(count)) return fmt::format("mostly zeros: {} of {} values are 0", got_zeros, count);
  if (finite > 0 && errors > 0.04 * values)
    return fmt::format("the tolerance (rms {:.3g}) is no smaller than a fifth of the values (rms {:.3g})",
                       std::sqrt(errors / double(finite)), std::sqrt(values / double(finite)));
  return "";
}

}  // namespace

std::string compare(const Nchw& got, const Nchw& want, const Nchw& tolerance, Zeros zeros) {
  const auto text = [](const Shape& s) { return fmt::format("[{},{},{},{}]", s.n, s.c, s.h, s.w); };
  if (got.shape != want.shape || tolerance.shape != want.shape)
    return fmt::format("shape {} where {} is wanted", text(got.shape), text(want.shape));
  int64_t wrong = 0, worst = -1, nans = 0;
  double worst_ratio = 0;
  for (size_t i = 0; i < want.v.size(); ++i) {
    const double g = got.v[i], w = want.v[i];
    if (std::isnan(g) && std::isnan(w)) continue;
    if (g == w) continue;  // the infinities too
    double ratio = std::abs(g - w) / tolerance.v[i];
    if (std::isnan(g) != std::isnan(w) || !std::isfinite(g) || !std::isfinite(w)) ratio = HUGE_VAL;
    nans += std::isnan(g) && !std::isnan(w);
    if (ratio <= 1) continue;
    ++wrong;
    if (worst < 0 || !(ratio <= worst_ratio)) worst = int64_t(i), worst_ratio = ratio;
  }
  if (wrong > 0) {
    const size_t i = size_t(worst);
    return fmt::format(
        "{} of {} elements wrong ({} NaN left over), worst at nchw {}: {:.9g} where {:.9g} is wanted, "
        "difference {:.3g}, tolerance {:.3g}",
        wrong, want.v.size(), nans, place(want.shape, worst), got.v[i], want.v[i], got.v[i] - want.v[i],
        tolerance.v[i]);
  }
  return worthless(got, want, tolerance, zeros);
}

std::string compare_exact(const Nchw& got, const Nchw& want, Zeros zeros) {
  return compare(got, want, Nchw(want.shape), zeros);
}

std::string compare_bits(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  if (a.size() != b.size()) return fmt::format("{} bytes where {} are wanted", a.size(), b.size());
  if (a.empty()) return "nothing to compare";
  const auto [p, q] = std::mismatch(a.begin(), a.end(), b.begin());
  if (p == a.end()) return "";
  return fmt::format("not bit-equal: byte {} of {} is {:#04x} and {:#04x}", p - a.begin(), a.size(), *p, *q);
}

std::vector<uint32_t> pack_gates(Shape shape, const Gates& gates, bool clipped) {
  const int64_t words = gate_words(shape), per_pixel = gate_words_per_pixel(shape.c);
  std::vector<uint32_t> out(size_t(words * (clipped ? 2 : 1)), 0);
  size_t i = 0;
  for (int64_t n = 0; n < shape.n; ++n)
    for (int64_t c = 0; c < shape.c; ++c)
      for (int64_t h = 0; h < shape.h; ++h)
        for (int64_t w = 0; w < shape.w; ++w, ++i) {
          const int64_t word = ((n * shape.h + h) * shape.w + w) * per_pixel + c / 32;
          const uint32_t bit = 1u << (c % 32);
          if (gates[i] == 1) out[size_t(word)] |= bit;
          if (gates[i] == 2 && clipped) out[size_t(words + word)] |= bit;
        }
  return out;
}

std::string compare_gates(Shape shape, const std::vector<uint32_t>& got, const Gates& want, bool clipped,
                          const std::vector<uint8_t>* undecided) {
  std::vector<uint32_t> expected = pack_gates(shape, want, clipped);
  if (got.size() != expected.size())
    return fmt::format("{} gate words where {} are wanted", got.size(), expected.size());
  std::vector<uint32_t> ignored(expected.size(), 0);
  if (undecided) {
    ignored = pack_gates(shape, *undecided, false);
    ignored.resize(expected.size());
    if (clipped) std::copy_n(ignored.begin(), ignored.size() / 2, ignored.begin() + int64_t(ignored.size() / 2));
  }
  const int64_t words = gate_words(shape), per_pixel = gate_words_per_pixel(shape.c);
  for (size_t i = 0; i < got.size(); ++i) {
    const uint32_t wrong = (got[i] ^ expected[i]) & ~ignored[i];
    if (wrong == 0) continue;
    const int64_t word = int64_t(i) % words, channel = word % per_pixel * 32 + std::countr_zero(wrong);
    return fmt::format("gate bits of pixel {} (plane {}), word {}: {:#010x} where {:#010x} is wanted, channel {}{}",
                       word / per_pixel, int64_t(i) / words, word % per_pixel, got[i], expected[i], channel,
                       channel >= shape.c ? " is padding" : "");
  }
  return "";
}

// --- Registration ----------------------------------------------------------------------------------------------------

namespace {

class OpTest : public testing::Test {
 public:
  OpTest(const DeviceRow& device, std::string full_name, Body body)
      : device_(device), full_name_(std::move(full_name)), body_(std::move(body)) {}

  void TestBody() override {
    OpRun run(device_, full_name_);
    body_(run);
    for (const std::string& damage : run.damages()) ADD_FAILURE() << damage;
  }

  void TearDown() override {
    if (!HasFailure()) return;
    const char* seed = std::getenv("SWITCHBACK_TEST_SEED");
    fmt::print(stderr, "repeat with: SWITCHBACK_TEST_SEED={} switchback_tests --gtest_filter='{}'\n", seed ? seed : "0",
               full_name_);
  }

 private:
  const DeviceRow& device_;
  std::string full_name_;
  Body body_;
};

class SkippedTest : public testing::Test {
 public:
  SkippedTest(std::string reason, bool required) : reason_(std::move(reason)), required_(required) {}
  void TestBody() override {
    if (required_) FAIL() << "required, but cannot run: " << reason_;
    GTEST_SKIP() << reason_;
  }

 private:
  std::string reason_;
  bool required_;
};

void register_skip(const std::string& suite, const std::string& name, std::string reason, bool required) {
  testing::RegisterTest((suite + "/skipped").c_str(), name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                        [=]() -> SkippedTest* { return new SkippedTest(reason, required); });
}

}  // namespace

void add_test(const std::string& suite, const std::string& name, const DeviceRow& device, const std::string& variant,
              Body body) {
  const std::string test = name + "/" + device.name + (variant.empty() ? "" : "/" + variant);
  testing::RegisterTest(suite.c_str(), test.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                        [=, &device]() -> OpTest* { return new OpTest(device, suite + "." + test, body); });
}

void add_skip(const std::string& suite, const std::string& name, std::string reason) {
  register_skip(suite, name, std::move(reason), false);
}

void for_each_device(const std::string& suite, const std::function<void(const DeviceRow&)>& add) {
  const auto add_one = [&](const DeviceRow& device) {
    const std::string reason = device.why_not();
    if (reason.empty()) return add(device);
    const char* required = device.require_variable ? std::getenv(device.require_variable) : nullptr;
    register_skip(suite, std::string("all_cases/") + device.name, reason, required && std::string(required) == "1");
  };
  for (const DeviceRow& device : devices()) add_one(device);
  add_one(ptx_device());
}

}  // namespace switchback::test
