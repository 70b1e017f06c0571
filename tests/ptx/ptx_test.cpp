// The machine that runs PTX: faults planted in a kernel's text, which it must find; instructions against their values;
// and a folder of PTX as a device. Without nvcc: product.ptx and what stands here is all they need.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

#include "kernels/emulator/memory.h"
#include "tests/kernels/emulator_fixture.h"
#include "tests/ptx/device.h"
#include "tests/ptx/machine.h"
#include "tests/support/temp_folder.h"

namespace switchback::ptx {
namespace {

using emulated::expect_says;

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : bytes_(values.size() * sizeof(T)) {
    memory_ = static_cast<char*>(emulator::device_memory().allocate(bytes_));
    std::memcpy(memory_, values.data(), bytes_);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { emulator::device_memory().release(memory_); }
  uint64_t address() const { return reinterpret_cast<uint64_t>(memory_); }
  std::vector<T> read() const {
    std::vector<T> out(bytes_ / sizeof(T));
    std::memcpy(out.data(), memory_, bytes_);
    return out;
  }

 private:
  char* memory_;
  size_t bytes_;
};

std::unique_ptr<Kernel> first_kernel(const std::string& text) {
  auto kernels = read_kernels("test.ptx", text);
  return std::move(kernels.at(0));
}

// ---- planted faults ----

std::string product_text() {
  std::ifstream in(std::string(SWITCHBACK_SOURCE_DIR) + "/tests/ptx/product.ptx");
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Runs product.ptx with some pieces of its text replaced. Says what is wrong: the fault, or that the values are.
std::string run_product(const std::vector<std::pair<std::string, std::string>>& replacements = {}) {
  std::string text = product_text();
  for (const auto& [from, to] : replacements) {
    const size_t at = text.find(from);
    if (at == text.npos || text.find(from, at + 1) != text.npos) return "not once in the text: " + from;
    text.replace(at, from.size(), to);
  }
  std::vector<uint16_t> a(256), b(128);
  std::vector<float> bias(9), c(128, 0.f);
  std::vector<double> wanted(128);
  const auto value = [](uint32_t i) { return float(int(i * 37 % 19) - 9); };
  const auto bf16_bits = [](float v) { return uint16_t(std::bit_cast<uint32_t>(v) >> 16); };
  for (uint32_t i = 0; i < 256; ++i) a[i] = bf16_bits(value(i));
  for (uint32_t i = 0; i < 128; ++i) b[i] = bf16_bits(value(i + 1000));
  for (uint32_t i = 0; i < 9; ++i) bias[i] = value(i + 2000);
  for (uint32_t m = 0; m < 16; ++m)
    for (uint32_t n = 0; n < 8; ++n) {
      double sum = bias[n + 1];
      for (uint32_t k = 0; k < 16; ++k) sum += double(value(16 * m + k)) * value(8 * k + n + 1000);
      wanted[8 * m + n] = 0.5 * sum;
    }
  const DeviceArray<uint16_t> device_a(a), device_b(b);
  const DeviceArray<float> device_bias(bias), device_c(c);
  try {
    const auto kernel = first_kernel(text);
    decode(*kernel);
    Launch launch{
        .kernel = kernel.get(), .block = {64, 1, 1}, .shared_bytes = 768, .parameters = {}, .name = "product"};
    const uint64_t pointers[] = {device_a.address(), device_b.address(), device_bias.address() + 4, device_c.address()};
    const float scale = 0.5f;
    launch.parameters.resize(kernel->parameter_bytes);
    std::memcpy(launch.parameters.data(), pointers, 32);
    std::memcpy(launch.parameters.data() + kernel->parameters.at(2).offset, &scale, 4);
    run(launch);
  } catch (const Error& e) {
    return e.what();
  }
  c = device_c.read();
  for (size_t i = 0; i < c.size(); ++i)
    if (double(c[i]) != wanted[i]) return fmt::format("value {} is {} where {} is wanted", i, c[i], wanted[i]);
  return "";
}

TEST(Ptx, ProductIsRight) { EXPECT_EQ(run_product(), ""); }

TEST(Ptx, SwappedFragmentsOfMma) {
  expect_says(run_product({{"{%r13,%r14,%r15,%r16}, {%r19", "{%r13,%r15,%r14,%r16}, {%r19"}}), "is wanted");
  expect_says(run_product({{"{%r19,%r20}, {%f2", "{%r20,%r19}, {%f2"}}), "is wanted");
  expect_says(run_product({{"{%f2,%f3,%f2,%f3}", "{%f3,%f2,%f3,%f2}"}}), "is wanted");
}
TEST(Ptx, DroppedTransposition) { expect_says(run_product({{".x2.trans", ".x2"}}), "is wanted"); }
TEST(Ptx, WrongWaitCount) {
  const std::pair<std::string, std::string> late{"wait_group 0", "wait_group 1"};
  expect_says(run_product({late}), "never waited for");
  expect_says(run_product({late, {"\tret;", "\tcp.async.wait_all;\n\tret;"}}), "shared-memory race");
  expect_says(run_product({late, {"\tret;", "\tbar.sync 0;\n\tcp.async.wait_all;\n\tret;"}}), "is nan where");
}
TEST(Ptx, ParameterOffByTwo) {
  expect_says(run_product({{"[product_param_1+8]", "[product_param_1+10]"}}), "misaligned: 8 bytes at");
  expect_says(run_product({{"[product_param_2]", "[product_param_2+2]"}}), "misaligned: 4 bytes at");
  expect_says(run_product({{"[product_param_2]", "[product_param_2+4]"}}), "parameters out of bounds");
}
TEST(Ptx, MissingBarrier) { expect_says(run_product({{"bar.sync \t0;", ""}}), "shared-memory race"); }
TEST(Ptx, WideLoadFromANarrowPlace) {
  const std::string said = run_product({{"ld.global.f32 \t%f2, [%rd8];", "ld.global.v2.f32 \t{%f2, %f12}, [%rd8];"}});
  expect_says(said, "misaligned: 8 bytes at");
  expect_says(said, "`ld.global.v2.f32 \t{%f2, %f12}, [%rd8];`, test.ptx:66, kernel product");
}
TEST(Ptx, OutOfBounds) {
  expect_says(run_product({{"[%rd10+256]", "[%rd10+512]"}}), "global memory out of bounds");
  expect_says(run_product({{"[%r18+512]", "[%r18+528]"}}), "shared memory out of bounds: 16 bytes at byte 768 of 768");
}
TEST(Ptx, RegisterThatNobodyWrote) {
  expect_says(run_product({{"mul.f32 \t%f8, %f4, %f1;", "mul.f32 \t%f8, %f13, %f1;"}}),
              "reads a register that nobody has written: `st.global");
}
TEST(Ptx, WhatIsNotChosenDoesNotMatter) {
  const auto choosing = [](const std::string& condition) {
    return run_product(
        {{"mul.f32 \t%f8, %f4, %f1;", "mul.f32 %f8, %f4, %f1; add.f32 %f14, %f13, %f1; setp." + condition +
                                          ".u32 %p3, %r3, 32; selp.f32 %f8, %f8, %f14, %p3;"}});
  };
  EXPECT_EQ(choosing("lt"), "");
  expect_says(choosing("gt"), "reads a register that nobody has written: `st.global.v2.f32");
}
TEST(Ptx, SharedMemoryThatNobodyWrote) {
  expect_says(run_product({{"cp.async.ca.shared.global [%r5], [%rd6+-512], 16;", ""}}), "is nan where");
}
TEST(Ptx, SourceOfACopyIgnored) {  // %p2: of none that copies here; %p1: of all
  EXPECT_EQ(run_product({{"[%rd6+-512], 16;", "[%rd6+-512], 16, %p2;"}}), "");
  expect_says(run_product({{"[%rd6+-512], 16;", "[%rd6+-512], 16, %p1;"}}), "is wanted");
}
TEST(Ptx, DivergentBarrier) { expect_says(run_product({{"@%p2 bra \t$COPIED;", "@%p2 bra \t$DONE;"}}), "divergent"); }
TEST(Ptx, UnknownInstructionIsNamed) {
  const std::string said = run_product({{"mul.f32 \t%f8, %f4, %f1;", "mul.rz.f32 \t%f8, %f4, %f1;"}});
  expect_says(said, "PTX that the interpreter does not know: `mul.rz.f32 \t%f8, %f4, %f1;`");
  expect_says(said, "test.ptx:69, kernel product");
}

// ---- instructions ----

// What a warp computes: lane l reads element l of three arrays of 64-bit words into %A, %B and %C (of the type's
// width), `body` leaves its result in %D.
std::vector<uint64_t> compute(const std::string& type, const std::string& body, const std::vector<uint64_t>& a,
                              const std::vector<uint64_t>& b = {}, const std::vector<uint64_t>& c = {}) {
  const std::string bits = type.substr(1);
  std::string text = R"(.version 9.0
.target sm_90a
.address_size 64
.entry compute(
	.param .u64 compute_param_0,
	.param .u64 compute_param_1,
	.param .u64 compute_param_2,
	.param .u64 compute_param_3
)
{
	.reg .pred 	%p<8>, %P;
	.reg .b16 	%rs<8>;
	.reg .f32 	%f<8>;
	.reg .b32 	%r<8>;
	.reg .b64 	%rd<8>;
	.reg .b@	%A, %B, %C, %D;
	mov.u32 	%r1, %laneid;
	mul.wide.u32 	%rd1, %r1, 8;
	ld.param.u64 	%rd2, [compute_param_0];
	ld.param.u64 	%rd3, [compute_param_1];
	ld.param.u64 	%rd4, [compute_param_2];
	ld.param.u64 	%rd5, [compute_param_3];
	add.s64 	%rd2, %rd2, %rd1;
	add.s64 	%rd3, %rd3, %rd1;
	add.s64 	%rd4, %rd4, %rd1;
	add.s64 	%rd5, %rd5, %rd1;
	ld.global.b@ 	%A, [%rd2];
	ld.global.b@ 	%B, [%rd3];
	ld.global.b@ 	%C, [%rd4];
	)";
  text += body + "\n\tst.global.b@ 	[%rd5], %D;\n\tret;\n}\n";
  for (size_t i; (i = text.find('@')) != text.npos;)
    if (text.compare(i, 2, "@%") == 0 || text.compare(i, 2, "@!") == 0)
      text[i] = '\1';
    else
      text.replace(i, 1, bits);
  std::replace(text.begin(), text.end(), '\1', '@');
  const auto padded = [](std::vector<uint64_t> v) {
    v.resize(kLanes);
    return v;
  };
  const DeviceArray<uint64_t> da(padded(a)), db(padded(b)), dc(padded(c)), dd(padded({}));
  const auto kernel = first_kernel(text);
  decode(*kernel);
  Launch launch{.kernel = kernel.get(), .block = {32, 1, 1}, .parameters = {}, .name = "compute"};
  launch.parameters.resize(32);
  const uint64_t pointers[] = {da.address(), db.address(), dc.address(), dd.address()};
  std::memcpy(launch.parameters.data(), pointers, 32);
  run(launch);
  return dd.read();
}

std::vector<uint64_t> bits_of(const std::vector<float>& values) {
  std::vector<uint64_t> out;
  for (const float v : values) out.push_back(std::bit_cast<uint32_t>(v));
  return out;
}
float as_float(uint64_t bits) { return std::bit_cast<float>(uint32_t(bits)); }

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

TEST(Ptx, FloatsRoundAsTheyShould) {
  const float third = 1.f / 3;
  const auto one = [](const std::string& body, float a, float b = 0, float c = 0) {
    return as_float(compute("b32", body, bits_of({a}), bits_of({b}), bits_of({c}))[0]);
  };
  EXPECT_EQ(one("fma.rn.f32 %D, %A, %B, %C;", third, 3, -1), std::fma(third, 3.f, -1.f));
  EXPECT_EQ(one("mul.f32 %D, %A, %B; add.f32 %D, %D, %C;", third, 3, -1), 0.f) << "two roundings";
  EXPECT_EQ(one("fma.rm.f32 %D, %A, %B, %C;", 1, 0x1p-30f, 1), 1.f);
  EXPECT_EQ(one("fma.rm.f32 %D, %A, %B, %C;", 1, -0x1p-30f, 1), 1.f - 0x1p-24f);
  EXPECT_EQ(one("fma.rm.f32 %D, %A, %B, %C;", 1, -0x1p-80f, 1), 1.f - 0x1p-24f) << "beyond double's bits, too";
  EXPECT_EQ(one("min.f32 %D, %A, %B;", kNan, 2), 2.f);
  EXPECT_EQ(one("max.f32 %D, %A, %B;", 2, kNan), 2.f);
  EXPECT_TRUE(std::signbit(one("min.f32 %D, %A, %B;", 0.f, -0.f)));
  EXPECT_FALSE(std::signbit(one("max.f32 %D, %A, %B;", -0.f, 0.f)));
  EXPECT_EQ(one("copysign.f32 %D, %A, %B;", -1, 5), -5.f) << "the first operand's sign";
  EXPECT_EQ(one("ex2.approx.ftz.f32 %D, %A;", -3), 0.125f);
  EXPECT_EQ(one("ex2.approx.ftz.f32 %D, %A;", -130), 0.f) << "subnormals are flushed";
  EXPECT_EQ(one("rcp.rn.f32 %D, %A;", 3), third);
  EXPECT_EQ(one("sqrt.rn.f32 %D, %A;", 2), std::sqrt(2.f));
  EXPECT_EQ(one("cvt.sat.f32.f32 %D, %A;", kNan), 0.f);
  EXPECT_EQ(one("cvt.sat.f32.f32 %D, %A;", 1.5), 1.f);
  EXPECT_EQ(one("cvt.rni.f32.f32 %D, %A;", 2.5), 2.f);
  EXPECT_EQ(one("cvt.rmi.f32.f32 %D, %A;", -2.5), -3.f);
  EXPECT_EQ(one("cvt.rzi.f32.f32 %D, %A;", -2.5), -2.f);
  EXPECT_EQ(one("cvt.rn.f16.f32 %rs1, %A; cvt.f32.f16 %D, %rs1;", 1 + 0x1p-11f), 1.f) << "ties to even";
  EXPECT_EQ(one("cvt.rn.f16.f32 %rs1, %A; cvt.f32.f16 %D, %rs1;", 65520), kInf);
  EXPECT_EQ(one("cvt.rn.bf16.f32 %rs1, %A; cvt.f32.bf16 %D, %rs1;", 1 + 3 * 0x1p-8f), 1 + 0x1p-6f);
  EXPECT_EQ(one("cvt.rna.tf32.f32 %D, %A;", 1 + 0x1p-11f), 1 + 0x1p-10f) << "ties away from zero";
  EXPECT_EQ(one("cvt.f64.f32 %rd7, %A; mul.f64 %rd7, %rd7, %rd7; cvt.rn.f32.f64 %D, %rd7;", third),
            float(double(third) * third));
  EXPECT_EQ(one("cvt.f64.f32 %rd7, %A; rcp.approx.ftz.f64 %rd7, %rd7; cvt.rn.f32.f64 %D, %rd7;", 4), 0.25f);
  EXPECT_NEAR(one("cvt.f64.f32 %rd7, %A; rcp.approx.ftz.f64 %rd7, %rd7; cvt.rn.f32.f64 %D, %rd7;", 3), third, 0x1p-21f);
}

TEST(Ptx, IntegersAndBits) {
  const auto one = [](const std::string& body, uint64_t a, uint64_t b = 0, uint64_t c = 0) {
    return uint32_t(compute("b32", body, {a}, {b}, {c})[0]);
  };
  EXPECT_EQ(one("mul.hi.u32 %D, %A, %B;", 0x80000000u, 6), 3u);
  EXPECT_EQ(one("mul.wide.s32 %rd7, %A, %B; shr.s64 %rd7, %rd7, 32; cvt.u32.u64 %D, %rd7;", uint32_t(-1), 5),
            uint32_t(-1));
  EXPECT_EQ(one("mad.lo.s32 %D, %A, %B, %C;", uint32_t(-3), 5, 7), uint32_t(-8));
  EXPECT_EQ(one("div.s32 %D, %A, %B;", uint32_t(-7), 2), uint32_t(-3));
  EXPECT_EQ(one("rem.s32 %D, %A, %B;", uint32_t(-7), 2), uint32_t(-1));
  EXPECT_EQ(one("shl.b32 %D, %A, %B;", 1, 32), 0u) << "shifts do not wrap";
  EXPECT_EQ(one("shr.s32 %D, %A, %B;", 0x80000000u, 40), ~0u);
  EXPECT_EQ(one("shr.u32 %D, %A, %B;", 0x80000000u, 31), 1u);
  EXPECT_EQ(one("bfi.b32 %D, %A, %B, 4, 8;", 0xab, 0xffffffff), 0xfffffabfu);
  EXPECT_EQ(one("bfe.s32 %D, %A, 4, 4;", 0x80), uint32_t(-8));
  EXPECT_EQ(one("prmt.b32 %D, %A, %B, 0x7531;", 0x33221100, 0x77665544), 0x77553311u);
  EXPECT_EQ(one("prmt.b32 %D, %A, %B, 0x000b;", 0x80000000, 0), 0x000000ffu)
      << "8: the sign of byte 3; the others are byte 0";
  EXPECT_EQ(one("cvt.u16.u32 %rs1, %A; cvt.s32.s8 %D, %rs1;", 0x1ff), ~0u);
  EXPECT_EQ(one("cvt.rzi.s32.f32 %D, %A;", bits_of({kNan})[0]), 0u);
  EXPECT_EQ(one("cvt.rzi.s32.f32 %D, %A;", bits_of({3e9f})[0]), 0x7fffffffu);
  EXPECT_EQ(one("cvt.rzi.s32.f32 %D, %A;", bits_of({-2.9f})[0]), uint32_t(-2));
  EXPECT_EQ(one("mov.b32 {%rs1, %rs2}, %A; mov.b32 %D, {%rs2, %rs1};", 0x12345678), 0x56781234u);
  EXPECT_EQ(one("setp.ltu.f32 %P, %A, %B; selp.b32 %D, 1, 2, %P;", bits_of({kNan})[0], 0), 1u) << "unordered";
  EXPECT_EQ(one("setp.ne.f32 %P, %A, %B; selp.b32 %D, 1, 2, %P;", bits_of({kNan})[0], 0), 2u) << "ordered";
}

TEST(Ptx, WarpsShuffleAndVote) {
  std::vector<uint64_t> lanes(kLanes);
  for (uint32_t l = 0; l < kLanes; ++l) lanes[l] = l;
  const auto all = [&](const std::string& body) { return compute("b32", body, lanes); };
  for (uint32_t l = 0; l < kLanes; ++l) {
    EXPECT_EQ(all("shfl.sync.bfly.b32 %D|%p1, %A, 5, 31, -1;")[l], l ^ 5);
    EXPECT_EQ(all("shfl.sync.up.b32 %D, %A, 3, 0, -1;")[l], l < 3 ? l : l - 3);
    EXPECT_EQ(all("shfl.sync.down.b32 %D, %A, 3, 31, -1;")[l], l + 3 > 31 ? l : l + 3);
    EXPECT_EQ(all("shfl.sync.down.b32 %D, %A, 3, 0x181f, -1;")[l], l % 8 + 3 > 7 ? l : l + 3) << "segments of 8 lanes";
    EXPECT_EQ(all("shfl.sync.idx.b32 %D, %A, 2, 0x181f, -1;")[l], l / 8 * 8 + 2);
  }
  EXPECT_EQ(all("setp.gt.u32 %p1, %A, 27; vote.sync.ballot.b32 %D, %p1, -1;")[0], 0xf0000000u);
  EXPECT_THROW(all("setp.gt.u32 %p1, %A, 27; @%p1 vote.sync.ballot.b32 %D, %p1, -1; mov.b32 %D, 0;"), Error)
      << "28 lanes do not come";
}

// Lanes that loop for different times meet again behind the loop.
TEST(Ptx, BranchesJoin) {
  std::vector<uint64_t> lanes(kLanes);
  for (uint32_t l = 0; l < kLanes; ++l) lanes[l] = l;
  const auto got = compute("b32", R"(mov.u32 %D, 0;
	mov.u32 %r2, 0;
$LOOP:
	setp.ge.u32 %p1, %r2, %A;
	@%p1 bra $END;
	add.s32 %D, %D, %r2;
	and.b32 %r3, %r2, 1;
	setp.eq.s32 %p2, %r3, 0;
	@!%p2 add.s32 %D, %D, 100;
	add.s32 %r2, %r2, 1;
	bra $LOOP;
$END:
	shfl.sync.idx.b32 %r4, %A, 0, 31, -1;
	add.s32 %D, %D, %r4;)",
                           lanes);
  for (uint32_t l = 0; l < kLanes; ++l) EXPECT_EQ(got[l], l * (l - (l > 0)) / 2 + l / 2 * 100) << l;
}

// ---- a folder of PTX as a device ----

class PtxDevice : public emulated::EmulatorTest {
 protected:
  // add_one(float*, int) as nvcc would write it.
  static std::string add_one_text(const std::string& count_type = ".u32", const std::string& one = "0f3F800000") {
    std::string text = R"(.version 9.0
.target sm_90a
.address_size 64
.visible .entry _ZN10switchback4cuda7add_oneEPfi(
	.param .u64 .ptr .align 1 _ZN10switchback4cuda7add_oneEPfi_param_0,
	.param COUNT _ZN10switchback4cuda7add_oneEPfi_param_1
)
{
	.reg .pred 	%p<2>;
	.reg .b32 	%r<6>;
	.reg .f32 	%f<3>;
	.reg .b64 	%rd<5>;
	ld.param.u64 	%rd1, [_ZN10switchback4cuda7add_oneEPfi_param_0];
	ld.param.u32 	%r2, [_ZN10switchback4cuda7add_oneEPfi_param_1];
	mov.u32 	%r3, %ctaid.x;
	mov.u32 	%r4, %ntid.x;
	mov.u32 	%r5, %tid.x;
	mad.lo.s32 	%r1, %r3, %r4, %r5;
	setp.ge.s32 	%p1, %r1, %r2;
	@%p1 bra 	$L__BB0_2;
	cvta.to.global.u64 	%rd2, %rd1;
	mul.wide.s32 	%rd3, %r1, 4;
	add.s64 	%rd4, %rd2, %rd3;
	ld.global.f32 	%f1, [%rd4];
	add.f32 	%f2, %f1, ONE;
	st.global.f32 	[%rd4], %f2;
$L__BB0_2:
	ret;
}
)";
    text.replace(text.find("COUNT"), 5, count_type);
    text.replace(text.find("ONE"), 3, one);
    return text;
  }
  // Adds 1 to 100 numbers on a stream whose kernels come from a folder with this text.
  std::string add_one(const std::string& text) {
    const test::TempFolder folder;
    folder.put("emulator_fixture.ptx", text);
    Library library(folder.path());
    emulated::set_kernel_executor(stream(), [&](const emulated::KernelCall& call) { library.execute(call); });
    numbers = upload(emulated::counting(100));
    const std::string said = run_blocks(2, 64, emulated::add_one, 0, numbers, 100);
    emulated::set_kernel_executor(stream(), nullptr);
    different = library.different();
    report = library.report();
    return said;
  }
  float* numbers = nullptr;
  int64_t different = 0;
  std::string report;
};

TEST_F(PtxDevice, RunsAndIsCompared) {
  EXPECT_EQ(add_one(add_one_text()), "");
  EXPECT_EQ(download(numbers, 100)[99], 100.f);
  EXPECT_EQ(different, 0);
  EXPECT_TRUE(report.starts_with("emulator_fixture.ptx\tadd_one(float*, int)\t1\t1\t0\t")) << report;
}
TEST_F(PtxDevice, OtherBitsAreCounted) {
  EXPECT_EQ(add_one(add_one_text(".u32", "0f40000000")), "");
  EXPECT_EQ(download(numbers, 100)[99], 101.f) << "what the PTX says stays";
  EXPECT_EQ(different, 1);
  expect_says(report, "byte ");
}
TEST_F(PtxDevice, ParametersMustBeTheHosts) {
  expect_says(add_one(add_one_text(".u16")), "in PTX 2 to 2");
  expect_says(add_one(add_one_text(".u64")),
              "parameter 1 of _ZN10switchback4cuda7add_oneEPfi has 4 bytes aligned to 4, in PTX 8 to 8");
}
TEST_F(PtxDevice, MissingKernelIsNamed) {
  std::string text = add_one_text();
  for (size_t i; (i = text.find("add_one")) != text.npos;) text.replace(i, 7, "add_two");
  expect_says(add_one(text), "holds no kernel `add_one(float*, int)`");
}

}  // namespace
}  // namespace switchback::ptx
