// What each instruction does, by the PTX ISA 9.0, chapter 9.7. Arithmetic is the host's, one operation at a time (this
// file is compiled without contraction); where the ISA allows an error (ex2.approx, rcp.approx), the nearest value.
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/types.h"
#include "tests/ptx/decoder.h"
#include "tests/ptx/machine.h"
#include "tests/ptx/tensor.h"

namespace switchback::ptx {
namespace {

using Run = Instruction::Run;
using Words = std::vector<std::string_view>;

bool has(const Words& words, std::string_view w) { return std::find(words.begin(), words.end(), w) != words.end(); }

// ---- lanes ----

// to = f(lane) for the lanes that are on.
template <typename T, typename F>
inline void each(T* to, uint32_t lanes, const F& f) {
  if (lanes == ~0u) {
    for (uint32_t l = 0; l < kLanes; ++l) to[l] = f(l);
  } else {
    for (uint32_t m = lanes; m; m &= m - 1) {
      const uint32_t l = uint32_t(std::countr_zero(m));
      to[l] = f(l);
    }
  }
}

// The bits of lanes where f holds.
template <typename T, typename F>
inline uint32_t bits_where(const F& f) {
  if constexpr (sizeof(T) == 8) {
    int64_t t[kLanes];
    for (uint32_t l = 0; l < kLanes; ++l) t[l] = -int64_t(f(l));
    uint32_t bits = 0;
    for (uint32_t q = 0; q < 8; ++q)
      bits |= uint32_t(_mm256_movemask_pd(
                  _mm256_castsi256_pd(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(t + 4 * q)))))
              << 4 * q;
    return bits;
  } else {
    int32_t t[kLanes];
    for (uint32_t l = 0; l < kLanes; ++l) t[l] = -int32_t(f(l));
    uint32_t bits = 0;
    for (uint32_t q = 0; q < 4; ++q)
      bits |= uint32_t(_mm256_movemask_ps(
                  _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(t + 8 * q)))))
              << 8 * q;
    return bits;
  }
}

void set_predicate(Warp& w, const Register& r, uint32_t lanes, uint32_t bits) {
  uint32_t& p = w.predicate(r);
  p = (p & ~lanes) | (bits & lanes);
}

template <typename T, typename U, auto F>
void unary(Warp& w, const Instruction& i, uint32_t lanes) {
  const U* a = w.lanes<U>(i.a);
  each(w.lanes<T>(i.to), lanes, [=](uint32_t l) { return F(a[l]); });
}
template <typename T, typename U, auto F>
void binary(Warp& w, const Instruction& i, uint32_t lanes) {
  const U *a = w.lanes<U>(i.a), *b = w.lanes<U>(i.b);
  each(w.lanes<T>(i.to), lanes, [=](uint32_t l) { return F(a[l], b[l]); });
}
template <typename T, typename U, auto F>
void ternary(Warp& w, const Instruction& i, uint32_t lanes) {
  const U *a = w.lanes<U>(i.a), *b = w.lanes<U>(i.b);
  const T* c = w.lanes<T>(i.c);
  each(w.lanes<T>(i.to), lanes, [=](uint32_t l) { return F(a[l], b[l], c[l]); });
}
template <typename T, auto F>
void shifted(Warp& w, const Instruction& i, uint32_t lanes) {
  const T* a = w.lanes<T>(i.a);
  const uint32_t* b = w.lanes<uint32_t>(i.b);
  each(w.lanes<T>(i.to), lanes, [=](uint32_t l) { return F(a[l], b[l]); });
}
template <typename T, auto F>
void compared(Warp& w, const Instruction& i, uint32_t lanes) {
  const T *a = w.lanes<T>(i.a), *b = w.lanes<T>(i.b);
  set_predicate(w, i.to, lanes, bits_where<T>([=](uint32_t l) { return F(a[l], b[l]); }));
}
template <typename T>
void selected(Warp& w, const Instruction& i, uint32_t lanes) {
  const T *a = w.lanes<T>(i.a), *b = w.lanes<T>(i.b);
  const uint32_t p = w.predicate(i.c);
  each(w.lanes<T>(i.to), lanes, [=](uint32_t l) { return p >> l & 1 ? a[l] : b[l]; });
}
template <auto F>
void predicates(Warp& w, const Instruction& i, uint32_t lanes) {
  set_predicate(w, i.to, lanes, F(w.predicate(i.a), w.predicate(i.b)));
}
void inverted(Warp& w, const Instruction& i, uint32_t lanes) { set_predicate(w, i.to, lanes, ~w.predicate(i.a)); }

// ---- arithmetic ----

// Integers wrap; a division by zero gives all ones, as GPUs do.
template <typename T>
using Bits = std::make_unsigned_t<T>;
template <typename T>
T same(T a) {
  return a;
}
template <typename T>
T add_i(T a, T b) {
  return T(Bits<T>(Bits<T>(a) + Bits<T>(b)));
}
template <typename T>
T sub_i(T a, T b) {
  return T(Bits<T>(Bits<T>(a) - Bits<T>(b)));
}
template <typename T>
T mul_i(T a, T b) {
  return T(uint64_t(a) * uint64_t(b));
}
template <typename T>
T mad_i(T a, T b, T c) {
  return T(uint64_t(a) * uint64_t(b) + uint64_t(c));
}
template <typename T>
T div_i(T a, T b) {
  if (b == 0) return T(~T(0));
  if (std::is_signed_v<T> && b == T(-1)) return T(Bits<T>(0) - Bits<T>(a));
  return T(a / b);
}
template <typename T>
T rem_i(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == T(-1)) return 0;
  return T(a % b);
}
template <typename T>
T min_i(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max_i(T a, T b) {
  return a < b ? b : a;
}
template <typename T>
T neg_i(T a) {
  return T(Bits<T>(0) - Bits<T>(a));
}
template <typename T>
T abs_i(T a) {
  return a < 0 ? neg_i(a) : a;
}
template <typename T>
T and_b(T a, T b) {
  return T(a & b);
}
template <typename T>
T or_b(T a, T b) {
  return T(a | b);
}
template <typename T>
T xor_b(T a, T b) {
  return T(a ^ b);
}
template <typename T>
T not_b(T a) {
  return T(~a);
}
template <typename W, typename T>
W mul_wide(T a, T b) {
  return W(W(a) * W(b));
}
template <typename W, typename T>
W mad_wide(T a, T b, W c) {
  return add_i(W(W(a) * W(b)), c);
}
template <typename T>
T mul_high(T a, T b) {
  using W = std::conditional_t<sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
                               std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;
  return T(W(a) * W(b) >> 8 * sizeof(T));
}
// Shifts by more than the width shift everything out.
template <typename T>
T shl_b(T a, uint32_t n) {
  return n < 8 * sizeof(T) ? T(Bits<T>(a) << n) : T(0);
}
template <typename T>
T shr_b(T a, uint32_t n) {
  constexpr uint32_t kWidth = 8 * sizeof(T);
  if (n >= kWidth) return std::is_signed_v<T> && a < 0 ? T(-1) : T(0);
  return T(a >> n);
}

template <typename T>
T add_f(T a, T b) {
  return a + b;
}
template <typename T>
T sub_f(T a, T b) {
  return a - b;
}
template <typename T>
T mul_f(T a, T b) {
  return a * b;
}
template <typename T>
T div_f(T a, T b) {
  return a / b;
}
template <typename T>
T fma_f(T a, T b, T c) {
  return std::fma(a, b, c);
}
template <typename T>
T neg_f(T a) {
  return -a;
}
template <typename T>
T abs_f(T a) {
  return std::abs(a);
}
template <typename T>
T sqrt_f(T a) {
  return std::sqrt(a);
}
template <typename T>
T rcp_f(T a) {
  return T(1) / a;
}
template <typename T>
T copysign_f(T sign, T value) {
  return std::copysign(value, sign);
}
// A number wins against NaN; -0 is less than +0.
template <typename T>
T min_f(T a, T b) {
  if (a == b) return std::signbit(a) ? a : b;
  return a < b || b != b ? a : b;
}
template <typename T>
T max_f(T a, T b) {
  if (a == b) return std::signbit(a) ? b : a;
  return a > b || b != b ? a : b;
}

float flushed(float v) { return std::abs(v) < 0x1p-126f ? std::copysign(0.f, v) : v; }
float ex2_ftz(float a) { return flushed(float(std::exp2(double(flushed(a))))); }
float ex2(float a) { return float(std::exp2(double(a))); }
float lg2_ftz(float a) { return flushed(float(std::log2(double(flushed(a))))); }
float lg2(float a) { return float(std::log2(double(a))); }
float rcp_ftz(float a) { return flushed(float(1.0 / double(flushed(a)))); }
// rcp.approx.ftz.f64: of the upper half of `a`, into the upper half; 20 bits of mantissa.
double rcp_coarse(double a) {
  const auto upper = [](double v) { return std::bit_cast<double>(std::bit_cast<uint64_t>(v) & ~uint64_t(0xffffffff)); };
  const auto flush = [](double v) { return std::abs(v) < 0x1p-1022 ? std::copysign(0.0, v) : v; };
  return flush(upper(1 / flush(upper(a))));
}
float rsqrt_ftz(float a) { return flushed(float(1.0 / std::sqrt(double(flushed(a))))); }
float rsqrt_f(float a) { return float(1.0 / std::sqrt(double(a))); }
float fma_ftz(float a, float b, float c) { return flushed(std::fma(flushed(a), flushed(b), flushed(c))); }
float mul_ftz(float a, float b) { return flushed(flushed(a) * flushed(b)); }

// a·b + c rounded down: the product is exact in double, and TwoSum says on which side of the sum the truth lies.
float fma_down(float a, float b, float c) {
  const double p = double(a) * double(b), s = p + double(c);
  float r = float(s);
  if (!std::isfinite(s) || !std::isfinite(r)) return r;
  const double back = s - p, error = (p - (s - back)) + (double(c) - back);
  if (double(r) > s || (double(r) == s && error < 0)) r = std::nextafter(r, -std::numeric_limits<float>::infinity());
  return r;
}

// ---- comparisons ----

template <typename T>
bool eq(T a, T b) {
  return a == b;
}
template <typename T>
bool ne(T a, T b) {
  return a < b || a > b;
}  // ordered; of integers the same as !=
template <typename T>
bool lt(T a, T b) {
  return a < b;
}
template <typename T>
bool le(T a, T b) {
  return a <= b;
}
template <typename T>
bool gt(T a, T b) {
  return a > b;
}
template <typename T>
bool ge(T a, T b) {
  return a >= b;
}
template <typename T>
bool equ(T a, T b) {
  return !(a < b || a > b);
}
template <typename T>
bool neu(T a, T b) {
  return a != b;
}
template <typename T>
bool ltu(T a, T b) {
  return !(a >= b);
}
template <typename T>
bool leu(T a, T b) {
  return !(a > b);
}
template <typename T>
bool gtu(T a, T b) {
  return !(a <= b);
}
template <typename T>
bool geu(T a, T b) {
  return !(a < b);
}
template <typename T>
bool num(T a, T b) {
  return a == a && b == b;
}
template <typename T>
bool nan(T a, T b) {
  return a != a || b != b;
}

template <typename T>
Run comparison(std::string_view name) {
  struct Entry {
    const char* name;
    Run run;
  };
  static constexpr Entry kAll[] = {{"eq", compared<T, eq<T>>}, {"ne", compared<T, ne<T>>}, {"lt", compared<T, lt<T>>},
                                   {"le", compared<T, le<T>>}, {"gt", compared<T, gt<T>>}, {"ge", compared<T, ge<T>>},
                                   {"lo", compared<T, lt<T>>}, {"ls", compared<T, le<T>>}, {"hi", compared<T, gt<T>>},
                                   {"hs", compared<T, ge<T>>}};
  for (const auto& [n, run] : kAll)
    if (name == n) return run;
  if constexpr (std::is_floating_point_v<T>) {
    static constexpr Entry kFloat[] = {{"equ", compared<T, equ<T>>}, {"neu", compared<T, neu<T>>},
                                       {"ltu", compared<T, ltu<T>>}, {"leu", compared<T, leu<T>>},
                                       {"gtu", compared<T, gtu<T>>}, {"geu", compared<T, geu<T>>},
                                       {"num", compared<T, num<T>>}, {"nan", compared<T, nan<T>>}};
    for (const auto& [n, run] : kFloat)
      if (name == n) return run;
  }
  return nullptr;
}

// ---- types ----

// Calls f(T()) for the type that the name says; f gives a Run.
template <typename F>
Run by_integer(std::string_view t, const F& f) {
  if (t == "u16" || t == "b16") return f(uint16_t());
  if (t == "s16") return f(int16_t());
  if (t == "u32" || t == "b32") return f(uint32_t());
  if (t == "s32") return f(int32_t());
  if (t == "u64" || t == "b64") return f(uint64_t());
  if (t == "s64") return f(int64_t());
  return nullptr;
}
template <typename F>
Run by_float(std::string_view t, const F& f) {
  if (t == "f32") return f(float());
  if (t == "f64") return f(double());
  return nullptr;
}
template <typename F>
Run by_bits(std::string_view t, const F& f) {  // where a value is moved only
  if (t == "u16" || t == "b16" || t == "s16") return f(uint16_t());
  if (t == "u32" || t == "b32" || t == "s32" || t == "f32") return f(uint32_t());
  if (t == "u64" || t == "b64" || t == "s64" || t == "f64") return f(uint64_t());
  return nullptr;
}
uint32_t size_of(std::string_view t) {
  if (t == "pred") return 0;
  const std::string_view digits = t.substr(std::min<size_t>(1, t.size()));
  return digits == "8" ? 1 : digits == "16" ? 2 : digits == "32" ? 4 : digits == "64" ? 8 : 0;
}

// ---- memory ----

// Registers may be wider than what is loaded into or stored from them.
template <typename E, typename R>
void load(Warp& w, const Instruction& i, uint32_t lanes) {
  char* at[kLanes];
  locate(w, i, lanes, false, at);
  const Register* list = w.launch->kernel->lists.data() + i.list;
  for (uint32_t n = 0; n < i.count; ++n)
    each(w.lanes<R>(list[n]), lanes, [&](uint32_t l) {
      E v;
      std::memcpy(&v, at[l] + n * sizeof(E), sizeof(E));
      return R(v);
    });
}
template <typename E, typename R>
void store(Warp& w, const Instruction& i, uint32_t lanes) {
  char* at[kLanes];
  locate(w, i, lanes, true, at);
  const Register* list = w.launch->kernel->lists.data() + i.list;
  for (uint32_t n = 0; n < i.count; ++n) {
    const R* from = w.lanes<R>(list[n]);
    for_lanes(lanes, [&](uint32_t l) {
      const E v = E(from[l]);
      std::memcpy(at[l] + n * sizeof(E), &v, sizeof(E));
    });
  }
}

template <typename E>
Run access(bool loads, uint32_t register_bytes) {
  using Wide = std::conditional_t<std::is_signed_v<E>, int64_t, uint64_t>;
  using Word = std::conditional_t<std::is_signed_v<E>, int32_t, uint32_t>;
  using Half = std::conditional_t<std::is_signed_v<E>, int16_t, uint16_t>;
  if (register_bytes == 8) return loads ? load<E, Wide> : store<E, Wide>;
  if (register_bytes == 4) return loads ? load<E, Word> : store<E, Word>;
  return loads ? load<E, Half> : store<E, Half>;
}

bool decode_access(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  const bool loads = op[0] == "ld";
  i.space = has(op, "global")   ? global
            : has(op, "shared") ? shared
            : has(op, "param")  ? param
            : has(op, "local")  ? local
                                : generic;
  if (has(op, "const")) return false;
  const uint32_t count = has(op, "v2") ? 2 : has(op, "v4") ? 4 : 1;
  i.bytes = uint8_t(size_of(op.back()));
  i.strict = true;
  d.address(loads ? 1 : 0);
  d.elements(loads ? 0 : 1, loads);
  if (i.count != count || i.bytes == 0) return false;
  const uint32_t width = d.kernel.lists[i.list].bytes;
  for (uint32_t n = 0; n < count; ++n)
    if (d.kernel.lists[i.list + n].bytes != width || width < i.bytes) return false;
  const bool is_signed = op.back()[0] == 's';
  switch (i.bytes) {
    case 1:
      i.run = is_signed ? access<int8_t>(loads, width) : access<uint8_t>(loads, width);
      break;
    case 2:
      i.run = is_signed ? access<int16_t>(loads, width) : access<uint16_t>(loads, width);
      break;
    case 4:
      i.run = is_signed ? access<int32_t>(loads, width) : access<uint32_t>(loads, width);
      break;
    default:
      i.run = access<uint64_t>(loads, width);
  }
  return true;
}

template <typename T, auto F>
void atomic(Warp& w, const Instruction& i, uint32_t lanes) {
  char* at[kLanes];
  locate(w, i, lanes, true, at);
  const T* b = w.lanes<T>(i.b);
  for_lanes(lanes, [&](uint32_t l) {
    T old;
    std::memcpy(&old, at[l], sizeof(T));
    const T next = F(old, b[l]);
    std::memcpy(at[l], &next, sizeof(T));
    if (i.to.bytes) w.lanes<T>(i.to)[l] = old;
  });
}

bool decode_atomic(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  const bool returns = op[0] == "atom";
  i.space = has(op, "global") ? global : has(op, "shared") ? shared : generic;
  const std::string_view type = op.back();
  i.bytes = uint8_t(size_of(type));
  if (i.bytes < 4) return false;
  i.strict = true;
  if (returns) i.to = d.write(0, i.bytes);
  d.address(returns ? 1 : 0);
  i.b = d.read(returns ? 2 : 1, i.bytes);
  i.run = by_integer(type, [&]<typename T>(T) -> Run {
    if (has(op, "add")) return atomic<T, add_i<T>>;
    if (has(op, "and")) return atomic<T, and_b<T>>;
    if (has(op, "or")) return atomic<T, or_b<T>>;
    if (has(op, "min")) return atomic<T, min_i<T>>;
    if (has(op, "max")) return atomic<T, max_i<T>>;
    return nullptr;
  });
  return i.run != nullptr;
}

// ---- moves and conversions ----

void move_predicate(Warp& w, const Instruction& i, uint32_t lanes) {
  set_predicate(w, i.to, lanes, i.a.bytes ? (w.lanes<uint32_t>(i.a)[0] ? ~0u : 0u) : w.predicate(i.a));
}

// {a, b, …} as one register, and back; the first is the lowest.
template <typename P, typename W>
void pack(Warp& w, const Instruction& i, uint32_t lanes) {
  const Register* list = w.launch->kernel->lists.data() + i.list;
  each(w.lanes<W>(i.to), lanes, [&](uint32_t l) {
    W v = 0;
    for (uint32_t n = 0; n < i.count; ++n) v |= W(W(w.lanes<P>(list[n])[l]) << (8 * sizeof(P) * n));
    return v;
  });
}
template <typename P, typename W>
void unpack(Warp& w, const Instruction& i, uint32_t lanes) {
  const Register* list = w.launch->kernel->lists.data() + i.list;
  W from[kLanes];
  std::memcpy(from, w.lanes<W>(i.a), sizeof from);
  for (uint32_t n = 0; n < i.count; ++n)
    each(w.lanes<P>(list[n]), lanes, [&](uint32_t l) { return P(from[l] >> (8 * sizeof(P) * n)); });
}

bool decode_move(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  const std::string_view type = op.back();
  if (type == "pred") {
    i.to = d.write(0, 0);
    i.a = d.is_register(d.operands[1]) ? d.read(1, 0) : d.read(1, 4);
    i.run = move_predicate;
    return true;
  }
  const uint32_t bytes = size_of(type);
  const bool packs = d.operands[1][0] == '{', unpacks = d.operands[0][0] == '{';
  if (packs || unpacks) {
    d.elements(packs ? 1 : 0, unpacks);
    (packs ? i.to : i.a) = packs ? d.write(0, bytes) : d.read(1, bytes);
    for (uint32_t n = 0; n < i.count; ++n)
      if (d.kernel.lists[i.list + n].bytes * i.count != bytes) return false;
    const uint32_t part = bytes / i.count;
    if (bytes == 4 && part == 2) i.run = packs ? pack<uint16_t, uint32_t> : unpack<uint16_t, uint32_t>;
    if (bytes == 8 && part == 4) i.run = packs ? pack<uint32_t, uint64_t> : unpack<uint32_t, uint64_t>;
    if (bytes == 8 && part == 2) i.run = packs ? pack<uint16_t, uint64_t> : unpack<uint16_t, uint64_t>;
    return i.run != nullptr;
  }
  i.to = d.write(0, bytes);
  i.a = d.read(1, bytes);
  i.run = by_bits(type, []<typename T>(T) -> Run { return unary<T, T, same<T>>; });
  return i.run != nullptr;
}

// Between generic addresses and those of a space.
template <int64_t Window>
uint64_t shift_window(uint64_t a) {
  return a + uint64_t(Window);
}

bool decode_cvta(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  if (op.back() != "u64") return false;
  i.to = d.write(0, 8);
  i.a = d.read(1, 8);
  const bool to = has(op, "to");
  if (has(op, "global") || has(op, "param")) i.run = unary<uint64_t, uint64_t, shift_window<0>>;
  if (has(op, "shared"))
    i.run = to ? unary<uint64_t, uint64_t, shift_window<-int64_t(kSharedWindow)>>
               : unary<uint64_t, uint64_t, shift_window<int64_t(kSharedWindow)>>;
  if (has(op, "local"))
    i.run = to ? unary<uint64_t, uint64_t, shift_window<-int64_t(kLocalWindow)>>
               : unary<uint64_t, uint64_t, shift_window<int64_t(kLocalWindow)>>;
  return i.run != nullptr;
}

// From a register that may be wider than the type that is read, into one that may be wider than what is written.
template <typename To, typename From, typename ToRegister, typename FromRegister>
void convert_integer(Warp& w, const Instruction& i, uint32_t lanes) {
  const FromRegister* a = w.lanes<FromRegister>(i.a);
  each(w.lanes<ToRegister>(i.to), lanes, [=](uint32_t l) { return ToRegister(To(From(a[l]))); });
}
template <typename To, typename From, typename ToRegister>
Run integer_from(uint32_t bytes) {
  if (bytes == 2) return convert_integer<To, From, ToRegister, uint16_t>;
  if (bytes == 4) return convert_integer<To, From, ToRegister, uint32_t>;
  return convert_integer<To, From, ToRegister, uint64_t>;
}
template <typename To, typename From>
Run integer_conversion(uint32_t to, uint32_t from) {
  constexpr bool kSigned = std::is_signed_v<To>;
  if (to == 2) return integer_from<To, From, std::conditional_t<kSigned, int16_t, uint16_t>>(from);
  if (to == 4) return integer_from<To, From, std::conditional_t<kSigned, int32_t, uint32_t>>(from);
  return integer_from<To, From, std::conditional_t<kSigned, int64_t, uint64_t>>(from);
}
template <typename F>
Run by_any_integer(std::string_view t, const F& f) {
  if (t == "u8" || t == "b8") return f(uint8_t());
  if (t == "s8") return f(int8_t());
  return by_integer(t, f);
}

// To integers: NaN is 0, what is too large is the largest.
template <typename T, typename F>
T saturated(F v) {
  if (v != v) return 0;
  constexpr F kLeast = F(std::numeric_limits<T>::min()), kBeyond = F(std::numeric_limits<T>::max() / 2 + 1) * 2;
  if (v < kLeast) return std::numeric_limits<T>::min();
  if (v >= kBeyond) return std::numeric_limits<T>::max();
  return T(v);
}
template <typename T, typename F>
T to_zero(F v) {
  return saturated<T, F>(std::trunc(v));
}
template <typename T, typename F>
T to_nearest(F v) {
  return saturated<T, F>(std::nearbyint(v));
}
template <typename T, typename F>
T to_floor(F v) {
  return saturated<T, F>(std::floor(v));
}
template <typename T, typename F>
T to_ceil(F v) {
  return saturated<T, F>(std::ceil(v));
}
template <typename T>
T floor_f(T v) {
  return std::floor(v);
}
template <typename T>
T ceil_f(T v) {
  return std::ceil(v);
}
template <typename T>
T trunc_f(T v) {
  return std::trunc(v);
}
template <typename T>
T nearest_f(T v) {
  return std::nearbyint(v);
}
float saturate_f(float v) { return v != v || v < 0 ? 0.f : v > 1 ? 1.f : v; }
template <typename T, typename F>
T plainly(F v) {
  return T(v);
}

float from_half(uint16_t bits) { return _cvtsh_ss(bits); }
uint16_t to_half(float v) { return v != v ? uint16_t(0x7fff) : uint16_t(_cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT)); }
float from_bf16(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }
uint16_t to_bf16(float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v);
  return v != v ? uint16_t(0x7fff) : uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
uint32_t to_tf32(float v) {  // rna: nearest, ties away from zero
  const uint32_t u = std::bit_cast<uint32_t>(v);
  return v != v ? 0x7fffffffu : (u + 0x1000u) & ~0x1fffu;
}

bool decode_conversion(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  const std::string_view to = op[op.size() - 2], from = op.back();
  const auto operands = [&](uint32_t to_bytes, uint32_t from_bytes) {
    i.to = d.write(0, to_bytes);
    i.a = d.read(1, from_bytes);
  };
  const bool to_float = to[0] == 'f' || to == "bf16" || to == "tf32", from_float = from[0] == 'f' || from == "bf16";
  if (!to_float && !from_float) {
    if (op.size() != 3) return false;
    i.to = d.write_any(d.operands[0]);
    if (!d.is_register(d.operands[1])) return false;
    i.a = d.read_any(d.operands[1]);
    if (i.to.bytes < size_of(to) || i.a.bytes < size_of(from)) return false;
    i.run = by_any_integer(to, [&]<typename T>(T) {
      return by_any_integer(from, [&]<typename F>(F) { return integer_conversion<T, F>(i.to.bytes, i.a.bytes); });
    });
    return i.run != nullptr;
  }
  if (!to_float) {
    operands(size_of(to), size_of(from));
    i.run = by_integer(to, [&]<typename T>(T) {
      return by_float(from, [&]<typename F>(F) -> Run {
        if (has(op, "rzi")) return unary<T, F, to_zero<T, F>>;
        if (has(op, "rni")) return unary<T, F, to_nearest<T, F>>;
        if (has(op, "rmi")) return unary<T, F, to_floor<T, F>>;
        if (has(op, "rpi")) return unary<T, F, to_ceil<T, F>>;
        return nullptr;
      });
    });
    return i.run != nullptr && !has(op, "ftz");
  }
  const std::string_view mode = op.size() > 3 ? op[1] : "";
  if (op.size() > 4) return false;
  if (to == "f32" && from == "f16" && mode.empty())
    return operands(4, 2), i.run = unary<float, uint16_t, from_half>, true;
  if (to == "f32" && from == "bf16" && mode.empty())
    return operands(4, 2), i.run = unary<float, uint16_t, from_bf16>, true;
  if (to == "f16" && from == "f32" && mode == "rn")
    return operands(2, 4), i.run = unary<uint16_t, float, to_half>, true;
  if (to == "bf16" && from == "f32" && mode == "rn")
    return operands(2, 4), i.run = unary<uint16_t, float, to_bf16>, true;
  if (to == "tf32" && from == "f32" && mode == "rna")
    return operands(4, 4), i.run = unary<uint32_t, float, to_tf32>, true;
  if (to == "f32" && from == "f32") {
    operands(4, 4);
    if (mode == "sat") i.run = unary<float, float, saturate_f>;
    if (mode == "rni") i.run = unary<float, float, nearest_f<float>>;
    if (mode == "rmi") i.run = unary<float, float, floor_f<float>>;
    if (mode == "rpi") i.run = unary<float, float, ceil_f<float>>;
    if (mode == "rzi") i.run = unary<float, float, trunc_f<float>>;
    return i.run != nullptr;
  }
  if (to == "f64" && from == "f32" && mode.empty())
    return operands(8, 4), i.run = unary<double, float, plainly<double, float>>, true;
  if (to == "f32" && from == "f64" && mode == "rn")
    return operands(4, 8), i.run = unary<float, double, plainly<float, double>>, true;
  if (!from_float && mode == "rn") {
    operands(size_of(to), size_of(from));
    i.run = by_float(to, [&]<typename T>(T) {
      return by_integer(from, []<typename F>(F) -> Run { return unary<T, F, plainly<T, F>>; });
    });
    return i.run != nullptr;
  }
  return false;
}

// ---- bits ----

// bfi: the lowest `d` bits of a, put into b from bit c on.
template <typename T>
void insert_bits(Warp& w, const Instruction& i, uint32_t lanes) {
  constexpr uint32_t kWidth = 8 * sizeof(T);
  const T *a = w.lanes<T>(i.a), *b = w.lanes<T>(i.b);
  const uint32_t *at = w.lanes<uint32_t>(i.c), *length = w.lanes<uint32_t>(i.d);
  each(w.lanes<T>(i.to), lanes, [=](uint32_t l) {
    const uint32_t p = at[l] & 0xff, n = length[l] & 0xff;
    const T ones = n >= kWidth ? T(~T(0)) : T((T(1) << n) - 1), mask = shl_b(ones, p);
    return T((b[l] & ~mask) | (shl_b(a[l], p) & mask));
  });
}
// bfe: `c` bits of a from bit b on, with their sign where the type has one.
template <typename T>
void extract_bits(Warp& w, const Instruction& i, uint32_t lanes) {
  constexpr uint32_t kWidth = 8 * sizeof(T);
  const T* a = w.lanes<T>(i.a);
  const uint32_t *at = w.lanes<uint32_t>(i.b), *length = w.lanes<uint32_t>(i.c);
  each(w.lanes<T>(i.to), lanes, [=](uint32_t l) {
    const uint32_t p = at[l] & 0xff, n = length[l] & 0xff;
    if (n == 0) return T(0);
    const T sign = std::is_signed_v<T> ? shr_b(a[l], std::min(p + n - 1, kWidth - 1)) & 1 : 0;
    const Bits<T> ones = n >= kWidth ? Bits<T>(~Bits<T>(0)) : Bits<T>((Bits<T>(1) << n) - 1);
    const Bits<T> v = shr_b(Bits<T>(a[l]), p) & ones;
    return T(sign ? v | Bits<T>(~ones) : v);
  });
}
void permute_bytes(Warp& w, const Instruction& i, uint32_t lanes) {  // prmt in its default mode
  const uint32_t *a = w.lanes<uint32_t>(i.a), *b = w.lanes<uint32_t>(i.b), *c = w.lanes<uint32_t>(i.c);
  each(w.lanes<uint32_t>(i.to), lanes, [=](uint32_t l) {
    const uint64_t both = uint64_t(b[l]) << 32 | a[l];
    uint32_t r = 0;
    for (uint32_t n = 0; n < 4; ++n) {
      const uint32_t choice = c[l] >> 4 * n & 0xf;
      uint32_t byte = uint32_t(both >> 8 * (choice & 7)) & 0xff;
      if (choice & 8) byte = byte & 0x80 ? 0xff : 0;
      r |= byte << 8 * n;
    }
    return r;
  });
}
template <bool Left, bool Wrap>
void funnel_shift(Warp& w, const Instruction& i, uint32_t lanes) {  // shf: of b:a
  const uint32_t *a = w.lanes<uint32_t>(i.a), *b = w.lanes<uint32_t>(i.b), *c = w.lanes<uint32_t>(i.c);
  each(w.lanes<uint32_t>(i.to), lanes, [=](uint32_t l) {
    const uint32_t n = Wrap ? c[l] & 31 : std::min(c[l], 32u);
    const uint64_t both = uint64_t(b[l]) << 32 | a[l];
    return Left ? uint32_t(both << n >> 32) : uint32_t(both >> n);
  });
}
template <typename T>
uint32_t population(T a) {
  return uint32_t(std::popcount(a));
}
template <typename T>
uint32_t leading_zeros(T a) {
  return uint32_t(std::countl_zero(a));
}
uint32_t reversed(uint32_t a) {
  uint32_t r = 0;
  for (uint32_t n = 0; n < 32; ++n) r |= (a >> n & 1) << (31 - n);
  return r;
}

// ---- operations of a warp ----

// shfl: the source lane by the ISA's pseudo code; `c` holds the clamp (bits 0-4) and the segments' mask (bits 8-12).
enum ShuffleKind : uint8_t { up, down, bfly, idx };
void shuffle(Warp& w, const Instruction& i, uint32_t lanes) {
  const uint32_t *a = w.lanes<uint32_t>(i.a), *b = w.lanes<uint32_t>(i.b), *c = w.lanes<uint32_t>(i.c);
  uint32_t result[kLanes], in_range = 0;
  for_lanes(lanes, [&](uint32_t lane) {
    const uint32_t operand = b[lane] & 31, clamp = c[lane] & 31, segment = c[lane] >> 8 & 31;
    const uint32_t most = (lane & segment) | (clamp & ~segment), least = lane & segment;
    int source = 0;
    bool valid = false;
    switch (ShuffleKind(i.variant)) {
      case up:
        source = int(lane) - int(operand), valid = source >= int(most);
        break;
      case down:
        source = int(lane + operand), valid = source <= int(most);
        break;
      case bfly:
        source = int(lane ^ operand), valid = source <= int(most);
        break;
      case idx:
        source = int(least | (operand & ~segment)), valid = source <= int(most);
        break;
    }
    if (!valid) source = int(lane);
    if (!(lanes >> source & 1)) fault(fmt::format("lane {} reads lane {}, which is not in the mask", lane, source));
    result[lane] = a[source];
    in_range |= uint32_t(valid) << lane;
  });
  each(w.lanes<uint32_t>(i.to), lanes, [&](uint32_t l) { return result[l]; });
  if (i.list) set_predicate(w, w.launch->kernel->lists[i.list - 1], lanes, in_range);
}

bool decode_shuffle(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  if (op.size() != 4 || op[1] != "sync" || op[3] != "b32") return false;
  i.variant = op[2] == "up" ? up : op[2] == "down" ? down : op[2] == "bfly" ? bfly : op[2] == "idx" ? idx : 0xff;
  if (i.variant == 0xff) return false;
  const size_t bar = d.operands[0].find('|');
  if (bar != std::string_view::npos) {
    const Register p = d.write_any(d.operands[0].substr(bar + 1));
    d.kernel.lists.push_back(p);
    i.list = uint32_t(d.kernel.lists.size());  // one behind it: 0 is none
    d.operands[0] = d.operands[0].substr(0, bar);
  }
  i.to = d.write(0, 4);
  i.a = d.read(1, 4);
  i.b = d.read(2, 4);
  i.c = d.read(3, 4);
  i.d = d.read(4, 4);
  i.kind = Instruction::Kind::warp_operation;
  i.run = shuffle;
  return true;
}

template <bool All>
void vote(Warp& w, const Instruction& i, uint32_t lanes) {
  const uint32_t p = w.predicate(i.a) & lanes;
  set_predicate(w, i.to, lanes, (All ? p == lanes : p != 0) ? ~0u : 0u);
}
void ballot(Warp& w, const Instruction& i, uint32_t lanes) {
  const uint32_t p = w.predicate(i.a) & lanes;
  each(w.lanes<uint32_t>(i.to), lanes, [=](uint32_t) { return p; });
}

bool decode_vote(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  if (op.size() != 4 || op[1] != "sync") return false;
  i.to = d.write(0, op[2] == "ballot" ? 4 : 0);
  i.a = d.read(1, 0);
  i.d = d.read(2, 4);
  i.kind = Instruction::Kind::warp_operation;
  i.run = op[2] == "ballot" ? ballot : op[2] == "any" ? vote<false> : op[2] == "all" ? vote<true> : Run();
  return i.run != nullptr;
}

void sync_warp(Warp& w, const Instruction&, uint32_t lanes) { emulator::note_sync(w.record, lanes); }

bool decode_barrier(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  if (has(op, "warp")) {
    i.d = d.read(0, 4);
    i.kind = Instruction::Kind::warp_operation;
    i.run = sync_warp;
    return true;
  }
  if (!has(op, "sync") || d.operands.size() != 1 || d.operands[0] != "0") return false;  // barrier 0 of the whole block
  i.kind = Instruction::Kind::barrier;
  return true;
}

// ---- asynchronous copies ----

void commit(Warp& w, const Instruction&, uint32_t lanes) { commit_copies(w, lanes); }
void wait_group(Warp& w, const Instruction& i, uint32_t lanes) { wait_for_copies(w, lanes, i.target); }
void wait_all(Warp& w, const Instruction&, uint32_t lanes) {
  commit_copies(w, lanes);
  wait_for_copies(w, lanes, 0);
}

bool decode_copy(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  if (op.size() < 3 || op[1] != "async") return false;
  if (op[2] == "commit_group") return i.run = commit, true;
  if (op[2] == "wait_all") return i.run = wait_all, true;
  if (op[2] == "wait_group") {
    const auto in_flight = d.number(d.operands.at(0));
    if (!in_flight || *in_flight < 0) return false;
    i.target = uint32_t(*in_flight);
    return i.run = wait_group, true;
  }
  if (!(op[2] == "ca" || op[2] == "cg") || !has(op, "shared") || op.back() != "global" || d.operands.size() < 3)
    return false;
  d.address(1);
  i.b = i.a;
  i.target = uint32_t(i.offset);  // of the source
  i.offset = 0;
  d.address(0);
  const auto bytes = d.number(d.operands[2]);
  if (!bytes || !(*bytes == 16 || (op[2] == "ca" && (*bytes == 4 || *bytes == 8))) || i.b.bytes != 8) return false;
  i.bytes = uint8_t(*bytes);
  if (d.operands.size() > 3) {  // the bytes to read, or a predicate: to read nothing
    i.c = d.number(d.operands[3]) ? d.read(3, 4) : d.read_any(d.operands[3]);
    i.variant = i.c.bytes == 0;
    if (!i.variant && i.c.bytes != 4) return false;
  }
  i.strict = true;
  i.run = ptx::copy_async;
  return true;
}

void nothing(Warp&, const Instruction&, uint32_t) {}

// ---- the table ----

bool decode_arithmetic(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  const std::string_view name = op[0], type = op.back();
  const uint32_t bytes = size_of(type);
  const bool is_float = type[0] == 'f';
  const auto operands = [&](size_t n, uint32_t to, uint32_t third) {
    i.to = d.write(0, to);
    i.a = d.read(1, bytes);
    if (n > 1) i.b = d.read(2, bytes);
    if (n > 2) i.c = d.read(3, third);
    return d.operands.size() == n + 1;
  };
  if (is_float) {
    const std::string_view mode = op.size() > 2 ? op[1] : "";
    const bool exact = mode.empty() || (op.size() == 3 && mode == "rn"),
               approx_ftz = op.size() == 4 && mode == "approx" && op[2] == "ftz";
    const bool approx = op.size() == 3 && mode == "approx",
               rn_ftz = type == "f32" && has(op, "ftz") && !has(op, "approx");
    const bool unary_op = name == "neg" || name == "abs" || name == "sqrt" || name == "rcp" || name == "ex2" ||
                          name == "lg2" || name == "rsqrt";
    if (!operands(name == "fma" ? 3 : unary_op ? 1 : 2, bytes, bytes)) return false;
    if (type == "f32" && name == "fma" && op.size() == 3 && mode == "rm")
      return i.run = ternary<float, float, fma_down>, true;
    if (rn_ftz && name == "fma") return i.run = ternary<float, float, fma_ftz>, true;
    if (rn_ftz && name == "mul") return i.run = binary<float, float, mul_ftz>, true;
    if (type == "f32" && approx_ftz && name == "ex2") return i.run = unary<float, float, ex2_ftz>, true;
    if (type == "f32" && approx && name == "ex2") return i.run = unary<float, float, ex2>, true;
    if (type == "f32" && approx_ftz && name == "lg2") return i.run = unary<float, float, lg2_ftz>, true;
    if (type == "f32" && approx && name == "lg2") return i.run = unary<float, float, lg2>, true;
    if (type == "f32" && approx_ftz && name == "rcp") return i.run = unary<float, float, rcp_ftz>, true;
    if (type == "f64" && approx_ftz && name == "rcp") return i.run = unary<double, double, rcp_coarse>, true;
    if (type == "f32" && approx_ftz && name == "rsqrt") return i.run = unary<float, float, rsqrt_ftz>, true;
    if (type == "f32" && approx && name == "rsqrt") return i.run = unary<float, float, rsqrt_f>, true;
    if (!exact) return false;
    i.run = by_float(type, [&]<typename T>(T) -> Run {
      if (name == "add") return binary<T, T, add_f<T>>;
      if (name == "sub") return binary<T, T, sub_f<T>>;
      if (name == "mul") return binary<T, T, mul_f<T>>;
      if (name == "min") return binary<T, T, min_f<T>>;
      if (name == "max") return binary<T, T, max_f<T>>;
      if (name == "copysign") return binary<T, T, copysign_f<T>>;
      if (name == "neg") return unary<T, T, neg_f<T>>;
      if (name == "abs") return unary<T, T, abs_f<T>>;
      if (mode != "rn") return nullptr;  // these must say how they round
      if (name == "div") return binary<T, T, div_f<T>>;
      if (name == "sqrt") return unary<T, T, sqrt_f<T>>;
      if (name == "rcp") return unary<T, T, rcp_f<T>>;
      if (name == "fma") return ternary<T, T, fma_f<T>>;
      return nullptr;
    });
    return i.run != nullptr;
  }
  const bool mad = name == "mad", product = mad || name == "mul";
  if (product && op.size() == 3 && op[1] == "wide") {
    if (!operands(mad ? 3 : 2, 2 * bytes, 2 * bytes)) return false;
    if (type == "u16")
      i.run = mad ? ternary<uint32_t, uint16_t, mad_wide<uint32_t, uint16_t>>
                  : binary<uint32_t, uint16_t, mul_wide<uint32_t, uint16_t>>;
    if (type == "s16")
      i.run = mad ? ternary<int32_t, int16_t, mad_wide<int32_t, int16_t>>
                  : binary<int32_t, int16_t, mul_wide<int32_t, int16_t>>;
    if (type == "u32")
      i.run = mad ? ternary<uint64_t, uint32_t, mad_wide<uint64_t, uint32_t>>
                  : binary<uint64_t, uint32_t, mul_wide<uint64_t, uint32_t>>;
    if (type == "s32")
      i.run = mad ? ternary<int64_t, int32_t, mad_wide<int64_t, int32_t>>
                  : binary<int64_t, int32_t, mul_wide<int64_t, int32_t>>;
    return i.run != nullptr;
  }
  if (product && op.size() == 3 && (op[1] == "lo" || op[1] == "hi")) {
    if (!operands(mad ? 3 : 2, bytes, bytes)) return false;
    i.run = by_integer(type, [&]<typename T>(T) -> Run {
      if (op[1] == "hi") return mad ? Run() : binary<T, T, mul_high<T>>;
      return mad ? Run(ternary<T, T, mad_i<T>>) : Run(binary<T, T, mul_i<T>>);
    });
    return i.run != nullptr;
  }
  if (op.size() != 2) return false;
  if (!operands(name == "neg" || name == "abs" ? 1 : 2, bytes, bytes)) return false;
  i.run = by_integer(type, [&]<typename T>(T) -> Run {
    if (name == "add") return binary<T, T, add_i<T>>;
    if (name == "sub") return binary<T, T, sub_i<T>>;
    if (name == "div") return binary<T, T, div_i<T>>;
    if (name == "rem") return binary<T, T, rem_i<T>>;
    if (name == "min") return binary<T, T, min_i<T>>;
    if (name == "max") return binary<T, T, max_i<T>>;
    if (name == "neg") return unary<T, T, neg_i<T>>;
    if (name == "abs") return unary<T, T, abs_i<T>>;
    return nullptr;
  });
  return i.run != nullptr;
}

bool decode_logic(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  const std::string_view name = op[0], type = op.back();
  const uint32_t bytes = size_of(type);
  if (op.size() != 2) return false;
  i.to = d.write(0, bytes);
  i.a = d.read(1, bytes);
  if (name != "not") i.b = d.read(2, bytes);
  if (type == "pred") {
    if (name == "and") i.run = predicates<and_b<uint32_t>>;
    if (name == "or") i.run = predicates<or_b<uint32_t>>;
    if (name == "xor") i.run = predicates<xor_b<uint32_t>>;
    if (name == "not") i.run = inverted;
    return i.run != nullptr;
  }
  i.run = by_bits(type, [&]<typename T>(T) -> Run {
    if (name == "and") return binary<T, T, and_b<T>>;
    if (name == "or") return binary<T, T, or_b<T>>;
    if (name == "xor") return binary<T, T, xor_b<T>>;
    if (name == "not") return unary<T, T, not_b<T>>;
    return nullptr;
  });
  return i.run != nullptr;
}

bool decode_bits(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  const std::string_view name = op[0], type = op.back();
  const uint32_t bytes = size_of(type);
  if (name == "shl" || name == "shr") {
    if (op.size() != 2) return false;
    i.to = d.write(0, bytes);
    i.a = d.read(1, bytes);
    i.b = d.read(2, 4);
    i.run = by_integer(
        type, [&]<typename T>(T) -> Run { return name == "shl" ? shifted<T, shl_b<T>> : shifted<T, shr_b<T>>; });
    return i.run != nullptr;
  }
  if (name == "popc" || name == "clz" || name == "brev") {
    i.to = d.write(0, 4);
    i.a = d.read(1, bytes);
    if (name == "popc" && bytes == 4) i.run = unary<uint32_t, uint32_t, population<uint32_t>>;
    if (name == "popc" && bytes == 8) i.run = unary<uint32_t, uint64_t, population<uint64_t>>;
    if (name == "clz" && bytes == 4) i.run = unary<uint32_t, uint32_t, leading_zeros<uint32_t>>;
    if (name == "clz" && bytes == 8) i.run = unary<uint32_t, uint64_t, leading_zeros<uint64_t>>;
    if (name == "brev" && bytes == 4) i.run = unary<uint32_t, uint32_t, reversed>;
    return i.run != nullptr && op.size() == 2;
  }
  if (name == "prmt" || name == "shf") {
    if (type != "b32" || d.operands.size() != 4) return false;
    i.to = d.write(0, 4);
    i.a = d.read(1, 4);
    i.b = d.read(2, 4);
    i.c = d.read(3, 4);
    if (name == "prmt") return op.size() == 2 && (i.run = permute_bytes, true);
    if (op.size() != 4) return false;
    const bool left = op[1] == "l", wrap = op[2] == "wrap";
    i.run = left ? (wrap ? funnel_shift<true, true> : funnel_shift<true, false>)
                 : (wrap ? funnel_shift<false, true> : funnel_shift<false, false>);
    return true;
  }
  if (name == "bfi") {
    i.to = d.write(0, bytes);
    i.a = d.read(1, bytes);
    i.b = d.read(2, bytes);
    i.c = d.read(3, 4);
    i.d = d.read(4, 4);
    i.run = type == "b32" ? insert_bits<uint32_t> : type == "b64" ? insert_bits<uint64_t> : Run();
    return i.run != nullptr;
  }
  i.to = d.write(0, bytes);  // bfe
  i.a = d.read(1, bytes);
  i.b = d.read(2, 4);
  i.c = d.read(3, 4);
  i.run = type == "u32"   ? extract_bits<uint32_t>
          : type == "s32" ? extract_bits<int32_t>
          : type == "u64" ? extract_bits<uint64_t>
          : type == "s64" ? extract_bits<int64_t>
                          : Run();
  return i.run != nullptr;
}

bool decode_choice(Decoder& d, const Words& op) {
  Instruction& i = *d.now;
  const std::string_view type = op.back();
  const uint32_t bytes = size_of(type);
  if (op[0] == "setp") {
    if (op.size() != 3) return false;
    i.to = d.write(0, 0);
    i.a = d.read(1, bytes);
    i.b = d.read(2, bytes);
    i.run = by_float(type, [&]<typename T>(T) { return comparison<T>(op[1]); });
    if (!i.run) i.run = by_integer(type, [&]<typename T>(T) { return comparison<T>(op[1]); });
    return i.run != nullptr;
  }
  if (op.size() != 2) return false;
  i.to = d.write(0, bytes);
  i.a = d.read(1, bytes);
  i.b = d.read(2, bytes);
  i.c = d.read(3, 0);
  i.chooses = true;
  i.run = by_bits(type, []<typename T>(T) -> Run { return selected<T>; });
  return i.run != nullptr;
}

}  // namespace

bool decode_operation(Decoder& d, const Words& op) {
  const std::string_view name = op[0];
  using Decode = bool (*)(Decoder&, const Words&);
  static const std::unordered_map<std::string_view, Decode> kTable = {
      {"ld", decode_access},        {"st", decode_access},        {"atom", decode_atomic},
      {"red", decode_atomic},       {"mov", decode_move},         {"cvta", decode_cvta},
      {"cvt", decode_conversion},   {"setp", decode_choice},      {"selp", decode_choice},
      {"and", decode_logic},        {"or", decode_logic},         {"xor", decode_logic},
      {"not", decode_logic},        {"shl", decode_bits},         {"shr", decode_bits},
      {"bfi", decode_bits},         {"bfe", decode_bits},         {"prmt", decode_bits},
      {"shf", decode_bits},         {"popc", decode_bits},        {"clz", decode_bits},
      {"brev", decode_bits},        {"add", decode_arithmetic},   {"sub", decode_arithmetic},
      {"mul", decode_arithmetic},   {"mad", decode_arithmetic},   {"fma", decode_arithmetic},
      {"div", decode_arithmetic},   {"rem", decode_arithmetic},   {"min", decode_arithmetic},
      {"max", decode_arithmetic},   {"neg", decode_arithmetic},   {"abs", decode_arithmetic},
      {"sqrt", decode_arithmetic},  {"rcp", decode_arithmetic},   {"ex2", decode_arithmetic},
      {"lg2", decode_arithmetic},   {"rsqrt", decode_arithmetic}, {"copysign", decode_arithmetic},
      {"shfl", decode_shuffle},     {"vote", decode_vote},        {"bar", decode_barrier},
      {"barrier", decode_barrier},  {"cp", decode_copy},          {"mma", decode_mma},
      {"ldmatrix", decode_ldmatrix}};
  if (name == "membar" || name == "fence") {  // blocks run one after the other: memory has one order
    d.now->run = nothing;
    return true;
  }
  const auto found = kTable.find(name);
  return found != kTable.end() && found->second(d, op);
}

}  // namespace switchback::ptx
