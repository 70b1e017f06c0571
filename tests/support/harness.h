// The op test harness: every op x every device x one case table per op.
//
// How to extend it
//   a case    add a row to the table at the top of the op's file (op_conv_test.cpp, op_pool_test.cpp, ...).
//   an op     write its naive double reference (reference.h), a `register_..._tests()` which calls `for_each_device`
//             and `add_test`, and add that function to the list in tests/main.cpp.
//   a device  add a row to `devices()` in harness.cpp: a name, why it cannot run here (or ""), the Gpu that it is and
//             its element types. Every op and case then runs on it; nothing else changes.
//
// What a test body gets is an `OpRun`: a Context on the device, random fills and buffers. When the body is done the
// harness checks what no case has to think of: guard zones before and after each buffer, inputs unchanged.
//
// Each test has its own name, Op/Conv.<case>/<device>/<algorithm>/<dtype>, and each failure prints the line that
// repeats it. Devices are cpu, emulated (kernels/emulator: the .cu files on the CPU), ptx (tests/ptx: nvcc's code on the
// CPU, where SWITCHBACK_PTX names a folder of it) and cuda. SWITCHBACK_TEST_SEED changes all random fills; SWITCHBACK_REQUIRE_CUDA=1 fails where the cuda column would be skipped;
// SWITCHBACK_EMULATOR=quick or thorough says how often emulated launches are repeated in other orders.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/device/context.h"
#include "kernels/types.h"

namespace switchback::test {

// Half a unit in the last place, relative: the largest error of one rounding.
inline constexpr double kEpsF32 = 0x1p-24, kEpsBf16 = 0x1p-8, kEpsF16 = 0x1p-11, kEpsTf32 = 0x1p-11;
constexpr double eps_of(DType t) { return t == DType::f32 ? kEpsF32 : t == DType::bf16 ? kEpsBf16 : kEpsF16; }
constexpr const char* short_name(DType t) { return t == DType::f32 ? "f32" : t == DType::bf16 ? "bf16" : "f16"; }

// A host array in double, NCHW: what references read and give.
struct Nchw {
  Shape shape;
  std::vector<double> v;
  Nchw() = default;
  explicit Nchw(Shape s, double fill = 0) : shape(s), v(size_t(s.count()), fill) {}
  int64_t index(int64_t n, int64_t c, int64_t h, int64_t w) const {
    return ((n * shape.c + c) * shape.h + h) * shape.w + w;
  }
  double& operator()(int64_t n, int64_t c, int64_t h, int64_t w) { return v[size_t(index(n, c, h, w))]; }
  double operator()(int64_t n, int64_t c, int64_t h, int64_t w) const { return v[size_t(index(n, c, h, w))]; }
  Nchw items(int64_t first, int64_t count) const;  // a slice of the batch
};

// A value rounded once to the type (exact sums and a single rounding at the store are what ops promise on integers).
double round_to(DType type, double value);
Nchw round_to(DType type, Nchw a);
// The extreme values that tables write for f32 and bf16 (2^-126, 2^127, 3e38), for f16 those at the ends of its range.
double in_range(DType type, double value);

// --- Devices ---------------------------------------------------------------------------------------------------------

struct DeviceRow {
  const char* name;                             // "cpu", "emulated", "cuda"
  std::function<std::string()> why_not;         // "" where the device can run
  std::function<std::shared_ptr<Gpu>()> open;   // null: the CPU; one Gpu for the whole process
  const char* require_variable;                 // environment variable that turns a skip into a failure, or null
  std::vector<DType> types;                     // of activations
  bool gpu, emulated;
  bool computes_in(DType t) const { return gpu || t == DType::f32 || cpu_features().fast_bf16(); }  // conv and linear
};
const std::vector<DeviceRow>& devices();
const DeviceRow& ptx_device();  // tests/ptx/device.h; for the op tests, which reach all kernels

// --- Buffers ---------------------------------------------------------------------------------------------------------

// Memory on the device between two guard zones full of NaNs (in all element types), so that reading outside shows in
// the result and writing outside shows in `damage`.
class Guarded {
 public:
  Guarded(Context& ctx, size_t bytes);
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  void* data() const { return payload_; }
  size_t size() const { return size_; }
  void fill(uint32_t pattern);  // the whole payload
  void write(const void* host, size_t bytes);
  std::vector<uint8_t> read() const;
  void freeze() { frozen_ = read(); }  // from now on the payload must not change
  std::string damage() const;          // what is wrong with guards or frozen payload; "" when nothing

  template <typename T>
  T* as() const {
    return static_cast<T*>(payload_);
  }
  template <typename T>
  std::vector<T> read_as() const {
    const std::vector<uint8_t> bytes = read();
    const T* p = reinterpret_cast<const T*>(bytes.data());
    return std::vector<T>(p, p + size_ / sizeof(T));
  }

 private:
  Context& ctx_;
  Memory base_;
  void* payload_ = nullptr;
  size_t size_ = 0;
  std::vector<uint8_t> frozen_;
};

inline constexpr uint32_t kPoison = 0x7fc17fc1;      // NaN as one f32 and as two bf16 or f16
inline constexpr uint32_t kPoisonBits = 0xa5a5a5a5;  // for gates and switches, where NaN means nothing

// A guarded NHWC activation.
struct Activation {
  Guarded* memory = nullptr;
  Shape shape;
  DType dtype = DType::f32;
  View view() const { return {memory->data(), shape, dtype}; }
  operator View() const { return view(); }
  operator ConstView() const { return view(); }
  Nchw read() const;
};

// One test's surroundings.
class OpRun {
 public:
  OpRun(const DeviceRow& device, const std::string& name);
  ~OpRun();

  const DeviceRow& device;
  Context ctx;
  std::mt19937_64 rng;

  // Buffers live until the end of the test. Inputs must not change; outputs are full of NaN.
  Activation input(const Nchw& values, DType dtype);
  Activation output(Shape shape, DType dtype);
  Activation in_place(const Nchw& values, DType dtype);  // filled, and may be written
  Guarded& bytes(size_t size, uint32_t pattern);         // output of another kind
  template <typename T>
  Guarded& input_of(const std::vector<T>& values) {
    Guarded& b = bytes(values.size() * sizeof(T), kPoison);
    b.write(values.data(), b.size());
    b.freeze();
    return b;
  }

  // Values that are exact in `dtype`: integers in [-limit, limit], or uniform in [-1, 1).
  Nchw integers(Shape shape, int limit);
  Nchw reals(Shape shape, DType dtype);
  std::vector<float> integers(int64_t count, int limit);
  std::vector<float> reals(int64_t count, DType dtype);

  void poison_scratch();               // call before an op: whatever the scratch memory held is gone
  std::vector<std::string> damages();  // of all buffers

 private:
  std::vector<std::unique_ptr<Guarded>> buffers_;
};

// --- Checking --------------------------------------------------------------------------------------------------------

// Each returns "" when `got` is right, else one line saying what is wrong. NaNs and infinities must stand exactly where
// they are wanted. A case also fails when it can prove nothing: nearly all wanted values are 0, or the tolerance is
// nearly as large as the values; many_allowed leaves that out where a few values or clamped ones are the case's point.
enum class Zeros { few, many_allowed };
std::string compare(const Nchw& got, const Nchw& want, const Nchw& tolerance, Zeros zeros = Zeros::few);
std::string compare_exact(const Nchw& got, const Nchw& want, Zeros zeros = Zeros::few);
std::string compare_bits(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b);

// Gate states of one ReLU's output, NCHW: 0 below, 1 inside, 2 at or above the clip.
using Gates = std::vector<uint8_t>;
std::vector<uint32_t> pack_gates(Shape shape, const Gates& gates, bool clipped);
// Checks the packed words bit by bit, the padding bits (which must be 0) included. Where margin[i] says that s_i is
// nearer to a threshold than its tolerance, either state is right.
std::string compare_gates(Shape shape, const std::vector<uint32_t>& got, const Gates& want, bool clipped,
                          const std::vector<uint8_t>* undecided = nullptr);

// --- Registration ----------------------------------------------------------------------------------------------------

using Body = std::function<void(OpRun&)>;
// Registers the test SUITE.NAME/DEVICE[/VARIANT].
void add_test(const std::string& suite, const std::string& name, const DeviceRow& device, const std::string& variant,
              Body body);
// Registers one skipped test in place of many, with the reason.
void add_skip(const std::string& suite, const std::string& name, std::string reason);
// Calls `add` for each device that can run; each other device counts as one skipped test (or one failure if required).
void for_each_device(const std::string& suite, const std::function<void(const DeviceRow&)>& add);

}  // namespace switchback::test
