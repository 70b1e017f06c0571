// Sums over a data set in which it leaves no trace how its images were divided among runs.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/check.h"

namespace switchback {

// The exact sum of doubles, rounded once (Shewchuk 1997; Python's fsum).
class ExactSum {
 public:
  void add(double x) {
    size_t kept = 0;
    for (double y : parts_) {
      if (std::abs(x) < std::abs(y)) std::swap(x, y);
      const double high = x + y, low = y - (high - x);
      if (low != 0) parts_[kept++] = low;
      x = high;
    }
    parts_.resize(kept);
    parts_.push_back(x);
  }
  void add(const ExactSum& other) {
    for (const double part : other.parts_) add(part);
  }
  double value() const {
    if (parts_.empty()) return 0;
    size_t i = parts_.size() - 1;
    double high = parts_[i], low = 0;
    while (i > 0 && low == 0) {
      const double x = high, y = parts_[--i];
      high = x + y, low = y - (high - x);
    }
    // Halfway between two doubles: what lies below decides.
    if (i > 0 && ((low < 0 && parts_[i - 1] < 0) || (low > 0 && parts_[i - 1] > 0))) {
      const double twice = 2 * low, up = high + twice;
      if (twice == up - high) high = up;
    }
    return high;
  }
  template <typename A>
  void fields(A& a) {
    a(parts_);
  }

 private:
  std::vector<double> parts_;  // ascending, of which none overlaps another
};

// Values of the items 0, 1, 2, …, put together pair by pair as a binary tree over the items' numbers has them: runs over
// parts of the items, appended one to the other, give the bits of one run over all. Items may be missing. T has
// `void merge(const T& next)`, which need not be associative.
template <typename T>
class OrderedTree {
 public:
  explicit OrderedTree(int64_t begin = 0) : begin_(begin), end_(begin) {}
  void add(int64_t item, T value) {
    CHECK(item >= end_, "item {} after {}", item, end_ - 1);
    push({0, item, std::move(value)});
  }
  // No item below `end` is to come.
  void close(int64_t end) {
    end_ = std::max(end_, end);
    settle();
  }
  // What a run over the items behind these has kept.
  void merge(OrderedTree&& next) {
    CHECK(next.begin_ == end_, "items from {} on behind {}", next.begin_, end_ - 1);
    for (Node& n : next.nodes_) push(std::move(n));
    close(next.end_);
  }
  // Of items 0 to the last one closed; T() where there are none.
  T total() const {
    T all{};
    for (const Node& n : nodes_) all.merge(n.value);
    return all;
  }
  template <typename A>
  void fields(A& a) {
    a(begin_, end_, nodes_);
  }

 private:
  struct Node {  // of items [index << level, (index + 1) << level)
    int level = 0;
    int64_t index = 0;
    T value{};
    template <typename A>
    void fields(A& a) {
      a(level, index, value);
    }
  };
  void push(Node node) {
    close(node.index << node.level);
    end_ = (node.index + 1) << node.level;
    nodes_.push_back(std::move(node));
    settle();
  }
  // The last node rises as long as all its parent's items are behind us: with its sibling, or alone where that is empty.
  void settle() {
    while (!nodes_.empty()) {
      Node& last = nodes_.back();
      const int64_t parent = last.index >> 1;
      if (last.level > 60 || parent << (last.level + 1) < begin_ || (parent + 1) << (last.level + 1) > end_) return;
      if (nodes_.size() > 1) {
        Node& before = nodes_[nodes_.size() - 2];
        if (before.level == last.level && before.index >> 1 == parent) {
          before.value.merge(last.value);
          nodes_.pop_back();
        }
      }
      ++nodes_.back().level, nodes_.back().index = parent;
    }
  }
  int64_t begin_, end_;
  std::vector<Node> nodes_;
};

}  // namespace switchback
