// Lists indexed by node, step or buffer numbers, which are ints.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

namespace switchback {

// A std::vector whose index is signed.
template <typename T>
class List : public std::vector<T> {
 public:
  using std::vector<T>::vector;
  List(std::vector<T> v) : std::vector<T>(std::move(v)) {}  // NOLINT: converts on purpose
  decltype(auto) operator[](int64_t i) { return std::vector<T>::operator[](static_cast<size_t>(i)); }
  decltype(auto) operator[](int64_t i) const { return std::vector<T>::operator[](static_cast<size_t>(i)); }
  int64_t count() const { return int64_t(this->size()); }
};

// A list that copies share until one of them is changed: copying it costs nothing.
template <typename T>
class SharedList {
 public:
  const T& operator[](int64_t i) const { return (*all_)[i]; }
  const T& back() const { return all_->back(); }
  auto begin() const { return all_->begin(); }
  auto end() const { return all_->end(); }
  size_t size() const { return all_->size(); }
  bool empty() const { return all_->empty(); }
  int64_t count() const { return all_->count(); }
  void push_back(T value) { own().push_back(std::move(value)); }
  T& edit(int64_t i) { return own()[i]; }
  bool operator==(const SharedList& other) const { return all_ == other.all_ || *all_ == *other.all_; }

 private:
  List<T>& own() {
    if (all_.use_count() > 1) all_ = std::make_shared<List<T>>(*all_);
    return *all_;
  }
  std::shared_ptr<List<T>> all_ = std::make_shared<List<T>>();
};

}  // namespace switchback
