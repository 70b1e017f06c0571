// Sums in which it leaves no trace how items were divided, and what a run keeps as bytes.
#include "viz/methods/ordered_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/support/temp_folder.h"
#include "viz/methods/state_bytes.h"

namespace switchback::test {
namespace {

TEST(ExactSum, IsRoundedOnceInAnyOrder) {
  std::vector<double> values = {1e16, 1, -1e16, 1e-20, 3, -1e300, 1e300, 0.1, 0.2, 0.3, 1e-320};
  std::mt19937 random(3);
  ExactSum first;
  for (const double v : values) first.add(v);
  EXPECT_EQ(first.value(), 4.6);
  for (int i = 0; i < 50; ++i) {
    std::shuffle(values.begin(), values.end(), random);
    ExactSum a, b;
    for (size_t k = 0; k < values.size(); ++k) (k < 4 ? a : b).add(values[k]);
    b.add(a);
    ASSERT_EQ(b.value(), 4.6) << i;
  }
  ExactSum half;  // 2^53 + 1 lies halfway; what lies below decides
  for (const double v : {9007199254740992., 1., 1e-20}) half.add(v);
  EXPECT_EQ(half.value(), 9007199254740994.);
  EXPECT_EQ(ExactSum().value(), 0);
}

struct Words {
  std::string text;
  void merge(const Words& next) {
    if (text.empty() || next.text.empty()) text += next.text;
    else text = "(" + text + next.text + ")";
  }
  template <typename A>
  void fields(A& a) {
    a(text);
  }
};

// How the items 0 to n - 1 that are there are put together, cut at `cuts`, each part as bytes and back.
std::string put_together(const std::vector<bool>& there, std::vector<int64_t> cuts) {
  const auto n = int64_t(there.size());
  cuts.push_back(n);
  OrderedTree<Words> all;
  int64_t begin = 0;
  for (const int64_t end : cuts) {
    OrderedTree<Words> part(begin);
    for (int64_t i = begin; i < end; ++i)
      if (there[size_t(i)]) part.add(i, {std::string(1, char('a' + i))});
    part.close(end);
    OrderedTree<Words> read;
    const std::string bytes = state_bytes(part);
    StateReader reader(bytes);
    reader(read);
    reader.end();
    all.merge(std::move(read));
    begin = end;
  }
  return all.total().text;
}

TEST(OrderedTree, PutsTogetherTheSameHoweverItemsAreDivided) {
  EXPECT_EQ(put_together(std::vector<bool>(7, true), {}), "((((ab)(cd))(ef))g)");
  std::mt19937 random(5);
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t n = 1 + int64_t(random() % 25);
    std::vector<bool> there;
    for (int64_t i = 0; i < n; ++i) there.push_back(random() % 4 != 0);
    const std::string whole = put_together(there, {});
    std::vector<int64_t> cuts;
    for (uint32_t i = random() % 5; i > 0; --i) cuts.push_back(int64_t(random() % uint32_t(n + 1)));
    std::sort(cuts.begin(), cuts.end());
    ASSERT_EQ(put_together(there, cuts), whole) << n << " cut at " << fmt::format("{}", fmt::join(cuts, ","));
  }
  OrderedTree<Words> one(4);
  one.add(5, {"f"});
  EXPECT_THROW(one.add(5, {"f"}), Error) << "twice";
  EXPECT_THROW(OrderedTree<Words>().merge(std::move(one)), Error) << "items 0 to 3 are missing";
}

TEST(StateBytes, WhatIsDamagedIsSaid) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> list = {{"one", {1, 2}}, {"", {}}}, read;
  const std::string bytes = state_bytes(list);
  StateReader{bytes}(read);
  EXPECT_EQ(read, list);
  for (size_t cut = 0; cut < bytes.size(); ++cut)
    expect_error("is damaged", [&] {
      StateReader reader(std::string_view(bytes).substr(0, cut));
      reader(read);
    });
  const std::string more = bytes + "x";
  expect_error("is damaged", [&] {
    StateReader reader(more);
    reader(read);
    reader.end();
  });
  std::string huge = bytes;
  std::fill_n(huge.begin(), 8, char(0x7f));  // entries
  expect_error("is damaged", [&] { StateReader{huge}(read); });
}

}  // namespace
}  // namespace switchback::test
