#include "kernels/gemm/gemm_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <memory>
#include <optional>

#include "kernels/check.h"
#include "kernels/device/context.h"
#include "kernels/device/device_ops.h"

namespace switchback {
namespace {

constexpr std::string_view kTitle = "switchback gemm table 1", kDevice = "device ";
constexpr size_t kWords = 10;
constexpr int64_t kMost = int64_t(1) << 40;  // of any number in a table

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  line = line.substr(0, line.find('#'));
  for (size_t at = 0; (at = line.find_first_not_of(" \t\r", at)) != line.npos;) {
    const size_t end = std::min(line.find_first_of(" \t\r", at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > kMost) return {};
  return value;
}

// What name_of gives.
std::optional<GemmVariant> variant_of(std::string_view name) {
  GemmVariant v;
  const auto number = [&](size_t end) -> int {
    const auto value = whole_number(name.substr(0, end));
    name.remove_prefix(std::min(end, name.size()));
    return value && *value < 1 << 16 ? int(*value) : 0;
  };
  v.rows = number(name.find('x'));
  if (!name.starts_with('x')) return {};
  name.remove_prefix(1);
  v.columns = number(name.find('_'));
  if (name.starts_with("_ring")) {
    name.remove_prefix(5);
    v.ring = number(name.find('_'));
    if (v.ring == 0) return {};
  }
  v.split = name == "_split";
  if (v.rows == 0 || v.columns == 0 || (!v.split && !name.empty())) return {};
  return v;
}

struct Line {
  GemmKey key;
  GemmVariant variant;
};

// Throws Error saying what is wrong; the caller says where.
Line parse_line(const std::vector<std::string_view>& words) {
  if (words.size() != kWords)
    throw Error(fmt::format("{} words where {} are wanted", words.size(), kWords),
                "arithmetic direction n rows columns depth taps phases groups kernel");
  Line line;
  const auto* arithmetic = std::find(std::begin(kArithmetics), std::end(kArithmetics), words[0]);
  if (arithmetic == std::end(kArithmetics)) throw Error("the first word is no arithmetic", "fp32, tf32, bf16 or fp16");
  line.key.arithmetic = Arithmetic(arithmetic - std::begin(kArithmetics));
  line.key.backward = words[1] == "backward";
  if (!line.key.backward && words[1] != "forward")
    throw Error("the second word is no direction", "forward or backward");
  GemmKey& k = line.key;
  int64_t* const numbers[] = {&k.n, &k.rows, &k.columns, &k.depth, &k.taps, &k.phases, &k.groups};
  for (size_t i = 0; i < std::size(numbers); ++i) {
    const auto value = whole_number(words[2 + i]);
    if (!value) throw Error(fmt::format("word {} is no whole number", 3 + i), "1 to 2^40");
    *numbers[i] = *value;
  }
  const auto variant = variant_of(words[9]);
  if (!variant) throw Error("the last word is no kernel", "for example 128x64, 64x64_split or 64x64_ring2_split");
  line.variant = *variant;
  return line;
}

std::string line_of(GemmKey key, const GemmTable::Entry& e) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {}\n", kArithmetics[int(key.arithmetic)],
                     key.backward ? "backward" : "forward", e.n, key.rows, key.columns, key.depth, key.taps, key.phases,
                     key.groups, name_of(e.variant));
}

GemmKey of_any_batch(GemmKey key) {
  key.n = 0;
  return key;
}

}  // namespace

std::string name_of(const GemmVariant& v) {
  return fmt::format("{}x{}{}{}", v.rows, v.columns, v.ring > 0 ? fmt::format("_ring{}", v.ring) : "",
                     v.split ? "_split" : "");
}

GemmTable GemmTable::parse(std::string_view text, const std::string& source) {
  std::optional<GemmTable> table;
  bool titled = false;
  int64_t number = 0;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    ++number;
    const auto words = words_of(line);
    if (words.empty()) continue;
    try {
      if (!titled) {
        if (fmt::format("{}", fmt::join(words, " ")) != kTitle)
          throw Error("this is no table of GEMM kernels", fmt::format("its first line is '{}'", kTitle));
        titled = true;
      } else if (!table) {
        if (words[0] != "device" || words.size() < 2) throw Error("no device", "the second line is 'device NAME'");
        table.emplace(fmt::format("{}", fmt::join(words.begin() + 1, words.end(), " ")));
      } else {
        const Line entry = parse_line(words);
        const auto& batches = table->entries_[of_any_batch(entry.key)];
        for (const Entry& e : batches)
          if (e.n == entry.key.n) throw Error("this product has a kernel already", "one line for each product");
        table->set(entry.key, entry.variant);
      }
    } catch (const Error& why) {
      throw Error(fmt::format("{}, line {}: {}", source, number, why.what()), why.hint);
    }
  }
  if (!table)
    throw Error(fmt::format("{} is no table of GEMM kernels: it ends before its 'device' line", source),
                "`switchback bench --sweep` writes such tables");
  return std::move(*table);
}

std::string GemmTable::text() const {
  std::string text = fmt::format("{}\n{}{}\n", kTitle, kDevice, device_);
  text += "# arithmetic direction n rows columns depth taps phases groups kernel\n";
  for (const auto& [key, batches] : entries_)
    for (const Entry& e : batches) text += line_of(key, e);
  return text;
}

void GemmTable::set(const GemmKey& key, const GemmVariant& variant) {
  std::vector<Entry>& batches = entries_[of_any_batch(key)];
  const auto at =
      std::lower_bound(batches.begin(), batches.end(), key.n, [](const Entry& e, int64_t n) { return e.n < n; });
  if (at != batches.end() && at->n == key.n)
    at->variant = variant;
  else
    batches.insert(at, {key.n, variant});
}

const GemmTable::Entry* GemmTable::find(const GemmKey& key) const {
  const auto found = entries_.find(of_any_batch(key));
  if (found == entries_.end() || key.n < 1) return nullptr;
  const auto ratio = [&](const Entry& e) { return double(std::max(e.n, key.n)) / double(std::min(e.n, key.n)); };
  const auto nearest = std::min_element(found->second.begin(), found->second.end(),
                                        [&](const Entry& a, const Entry& b) { return ratio(a) < ratio(b); });
  return ratio(*nearest) < 2 ? &*nearest : nullptr;
}

void GemmTable::check_variants(const std::vector<GemmVariant>& known, const std::string& source) const {
  for (const auto& [key, batches] : entries_)
    for (const Entry& e : batches) {
      if (std::find(known.begin(), known.end(), e.variant) != known.end()) continue;
      std::string line = line_of(key, e);
      line.pop_back();
      throw Error(fmt::format("{}: this build has no kernel {} (line '{}')", source, name_of(e.variant), line),
                  e.variant.ring > 0 ? "kernels with rings of their own are in builds with -DSWITCHBACK_LAB=ON"
                                     : "measure a table with this build: `switchback bench --sweep`");
    }
}

void use_gemm_table(Context& ctx, std::string_view text, const std::string& source) {
  CHECK(ctx.gpu, "a table of GEMM kernels for the CPU");
  auto table = std::make_shared<GemmTable>(GemmTable::parse(text, source));
  if (table->device() != ctx.gpu->name)
    throw Error(fmt::format("{} was measured on '{}', and this is '{}'", source, table->device(), ctx.gpu->name),
                "measure one here: `switchback bench --sweep`");
  table->check_variants(ctx.gpu->ops->gemm_variants(), source);
  ctx.gemm_table = std::move(table);
}

}  // namespace switchback
