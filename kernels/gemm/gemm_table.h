// Measured choices of the kernels of a matrix product (kernels/gemm/gemm.cuh), in place of the model that chooses otherwise.
//
// All of them add the same products in the same order, so a table changes speed and no bit of a result. `switchback
// bench --sweep` measures one on a GPU, --gemm-table gives it to any command. Its text:
//
//   switchback gemm table 1
//   device NVIDIA H200
//   # arithmetic direction n rows columns depth taps phases groups kernel; what follows '#' is ignored
//   bf16 forward 16 3136 256 128 9 1 1 128x64_ring3
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/types.h"

namespace switchback {

struct Context;

enum class Arithmetic : uint8_t { fp32, tf32, bf16, fp16 };
constexpr const char* kArithmetics[] = {"fp32", "tf32", "bf16", "fp16"};
constexpr Arithmetic arithmetic_of(DType t, bool tf32) {
  return t == DType::bf16  ? Arithmetic::bf16
         : t == DType::f16 ? Arithmetic::fp16
         : tf32            ? Arithmetic::tf32
                           : Arithmetic::fp32;
}

// What the speed of a product hangs on. A backward-data with stride S is S·S phases; rows and taps are those of the
// phase that has most.
struct GemmKey {
  Arithmetic arithmetic = Arithmetic::fp32;
  bool backward = false;
  int64_t n = 0;        // images
  int64_t rows = 0;     // output pixels of one image
  int64_t columns = 0;  // output channels of a group
  int64_t depth = 0;    // input channels of a group
  int64_t taps = 1;
  int64_t phases = 1, groups = 1;
  auto operator<=>(const GemmKey&) const = default;
};

// One way to compute a product.
struct GemmVariant {
  int rows = 0, columns = 0;  // of a block's tile
  int ring = 0;               // steps of K that shared memory holds; 0: as many as the kernel has in every build
  bool split = false;         // the product's segments in blocks of their own
  bool operator==(const GemmVariant&) const = default;
};
std::string name_of(const GemmVariant&);  // "128x64", "64x64_ring2_split"

// A product and the ways to compute it on one GPU.
struct GemmOffer {
  GemmKey key;
  GemmVariant chosen;                // by the context: its table or the model
  std::vector<GemmVariant> fitting;  // all that can run, `chosen` among them
};

class GemmTable {
 public:
  explicit GemmTable(std::string device) : device_(std::move(device)) {}
  // Throws Error that names `source` and the line. Which kernels there are is not known here.
  static GemmTable parse(std::string_view text, const std::string& source);
  std::string text() const;  // what `parse` reads

  struct Entry {
    int64_t n;
    GemmVariant variant;
  };
  void set(const GemmKey& key, const GemmVariant& variant);  // the last one counts
  // The entry of this product at the batch nearest in ratio (of two as near the smaller one), less than twice away;
  // null where there is none.
  const Entry* find(const GemmKey& key) const;

  const std::string& device() const { return device_; }
  bool empty() const { return entries_.empty(); }
  // Throws, naming `source`, where an entry's kernel is none of `known`.
  void check_variants(const std::vector<GemmVariant>& known, const std::string& source) const;

 private:
  std::string device_;
  std::map<GemmKey, std::vector<Entry>> entries_;  // key with n = 0; by n
};

// ctx.gemm_table becomes the table in `text`. Throws Error naming `source` where the text is malformed, was measured on
// another kind of GPU than the context's, or names kernels that this build has not.
void use_gemm_table(Context& ctx, std::string_view text, const std::string& source);

}  // namespace switchback
