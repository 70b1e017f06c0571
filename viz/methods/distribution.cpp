#include "viz/methods/distribution.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/check.h"
#include "viz/methods/batches.h"

namespace switchback {
namespace {

constexpr int kMantissa = 23;       // bits of a float's
constexpr int kLeastExponent = 127 - 24;  // biased, of values that have a bin of their own
constexpr int kClassBits = 3;       // of the classes' sketches

// Of the values of one image; false where one is not finite.
bool add_values(ChannelStatistics& to, Moments& moments, const float* values, int64_t n, int label) {
  double sum = 0, positive = 0, m2 = 0, m3 = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) return false;
    sum += values[i];
    positive += std::max(values[i], 0.f);
  }
  const double mean = sum / double(n);
  for (int64_t i = 0; i < n; ++i) {
    const float v = values[i];
    const double d = v - mean;
    m2 += d * d, m3 += d * d * d;
    to.zeros += v == 0, to.open += v > 0;
    to.least = std::min(to.least, v), to.most = std::max(to.most, v);
    to.values.add(v);
  }
  moments = {n, mean, m2, m3};
  if (label < 0) return true;
  for (int64_t i = 0; i < n; ++i) to.of_class[size_t(label)].add(values[i]);
  to.counts[size_t(label)] += n;
  to.positive_sums[size_t(label)].add(positive);
  return true;
}

}  // namespace

ValueSketch::ValueSketch(int bits) : bits_(bits) {}

double ValueSketch::error() const { return std::ldexp(1, -bits_ - 1); }

// 0 around zero; from 1 on the bins of positive values, from -1 down those of negative ones.
int ValueSketch::bin_of(float value) const {
  const uint32_t magnitude = std::bit_cast<uint32_t>(std::abs(value));
  const int bin = int(magnitude >> (kMantissa - bits_)) - (kLeastExponent << bits_) + 1;
  return bin <= 0 ? 0 : value < 0 ? -bin : bin;
}

ValueSketch::Edges ValueSketch::edges(int bin) const {
  const auto edge = [&](int i) {
    return double(std::bit_cast<float>(uint32_t(i - 1 + (kLeastExponent << bits_)) << (kMantissa - bits_)));
  };
  if (bin == 0) return {-edge(1), 0, edge(1)};
  const double low = edge(std::abs(bin)), high = edge(std::abs(bin) + 1);
  return bin > 0 ? Edges{low, (low + high) / 2, high} : Edges{-high, -(low + high) / 2, -low};
}

void ValueSketch::add(float value) {
  const int bin = bin_of(value);
  if (counts_.empty()) first_ = bin;
  if (bin < first_) {
    counts_.insert(counts_.begin(), size_t(first_ - bin), 0);
    first_ = bin;
  }
  if (bin - first_ >= int(counts_.size())) counts_.resize(size_t(bin - first_) + 1);
  ++counts_[size_t(bin - first_)];
  ++count_;
}

void ValueSketch::merge(const ValueSketch& other) {
  CHECK(bits_ == other.bits_, "sketches of {} and {} bits cannot be merged", bits_, other.bits_);
  if (other.counts_.empty()) return;
  const int last = other.first_ + int(other.counts_.size());
  if (counts_.empty()) first_ = other.first_;
  if (other.first_ < first_) {
    counts_.insert(counts_.begin(), size_t(first_ - other.first_), 0);
    first_ = other.first_;
  }
  if (last - first_ > int(counts_.size())) counts_.resize(size_t(last - first_));
  for (size_t i = 0; i < other.counts_.size(); ++i) counts_[size_t(other.first_ - first_) + i] += other.counts_[i];
  count_ += other.count_;
}

double ValueSketch::quantile(double share) const {
  int64_t below = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    if (counts_[i] > 0 && double(below) >= share * double(count_)) return edges(first_ + int(i)).middle;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

std::vector<double> ValueSketch::histogram(double least, double most, int bins, int64_t without) const {
  std::vector<double> sums(size_t(bins), 0);
  const double width = (most - least) / bins;
  for (size_t i = 0; i < counts_.size(); ++i) {
    const Edges e = edges(first_ + int(i));
    const double count = double(counts_[i] - (first_ + int(i) == 0 ? without : 0));
    if (count <= 0 || e.high < least || e.low > most) continue;
    const double begin = std::max(e.low, least), end = std::min(e.high, most);  // of its part inside, which holds all
    const int from = std::clamp(int((begin - least) / width), 0, bins - 1);
    const int to = std::clamp(int((end - least) / width), 0, bins - 1);
    for (int b = from; b <= to; ++b) {
      const double low = std::max(begin, least + b * width), high = std::min(end, least + (b + 1) * width);
      sums[size_t(b)] += from == to ? count : count * std::max(0., high - low) / (end - begin);
    }
  }
  return sums;
}

double wasserstein1(const ValueSketch& a, const ValueSketch& b) {
  CHECK(a.bits_ == b.bits_, "sketches of {} and {} bits cannot be compared", a.bits_, b.bits_);
  if (a.count_ == 0 || b.count_ == 0) return std::numeric_limits<double>::quiet_NaN();
  const int first = std::min(a.first_, b.first_);
  const int last = std::max(a.first_ + int(a.counts_.size()), b.first_ + int(b.counts_.size()));
  const auto in = [](const ValueSketch& s, int bin) {
    const int i = bin - s.first_;
    return i < 0 || i >= int(s.counts_.size()) ? 0 : double(s.counts_[size_t(i)]) / double(s.count_);
  };
  double difference = 0, area = 0;
  for (int bin = first; bin + 1 < last; ++bin) {
    difference += in(a, bin) - in(b, bin);
    area += std::abs(difference) * (a.edges(bin + 1).middle - a.edges(bin).middle);
  }
  return area;
}

double ChannelStatistics::deviation() const { return std::sqrt(m2 / double(count)); }

double ChannelStatistics::skew() const {
  const double s = deviation();
  return s > 0 ? m3 / double(count) / (s * s * s) : std::numeric_limits<double>::quiet_NaN();
}

int ChannelStatistics::selective_class() const {
  return int(std::max_element(positive.begin(), positive.end()) - positive.begin());
}

double ChannelStatistics::selectivity() const {
  int64_t seen = 0;
  double sum = 0;
  for (size_t c = 0; c < positive.size(); ++c) seen += counts[c] > 0, sum += positive[c];
  if (seen < 2 || sum <= 0) return std::numeric_limits<double>::quiet_NaN();
  const double highest = positive[size_t(selective_class())], others = (sum - highest) / double(seen - 1);
  return (highest - others) / (highest + others);
}

// Pébay 2008.
void Moments::merge(const Moments& next) {
  if (count == 0 || next.count == 0) {
    if (count == 0) *this = next;
    return;
  }
  const double a = double(count), b = double(next.count), all = a + b, delta = next.mean - mean;
  m3 += next.m3 + delta * delta * delta * a * b * (a - b) / (all * all) + 3 * delta * (a * next.m2 - b * m2) / all;
  m2 += next.m2 + delta * delta * a * b / all;
  mean += delta * b / all;
  count += next.count;
}

void ChannelMoments::merge(const ChannelMoments& next) {
  if (of.empty()) of.resize(next.of.size());
  for (size_t c = 0; c < next.of.size(); ++c) of[c].merge(next.of[c]);
}

void ChannelStatistics::merge(const ChannelStatistics& next) {
  CHECK(of_class.size() == next.of_class.size(), "statistics of {} and {} classes cannot be merged", of_class.size(),
        next.of_class.size());
  zeros += next.zeros, open += next.open;
  least = std::min(least, next.least), most = std::max(most, next.most);
  values.merge(next.values);
  for (size_t k = 0; k < of_class.size(); ++k) {
    of_class[k].merge(next.of_class[k]);
    positive_sums[k].add(next.positive_sums[k]);
    counts[k] += next.counts[k];
  }
}

void DistributionLayer::merge(DistributionLayer&& next) {
  CHECK(channels.size() == next.channels.size(), "layers of {} and {} channels cannot be merged", channels.size(),
        next.channels.size());
  for (size_t c = 0; c < channels.size(); ++c) channels[c].merge(next.channels[c]);
  moments.merge(std::move(next.moments));
}

std::vector<ChannelStatistics> DistributionLayer::finished() const {
  std::vector<ChannelStatistics> all = channels;
  const ChannelMoments total = moments.total();
  for (size_t c = 0; c < all.size(); ++c) {
    if (!total.of.empty()) static_cast<Moments&>(all[c]) = total.of[c];
    all[c].positive.assign(all[c].counts.size(), 0);
    for (size_t k = 0; k < all[c].counts.size(); ++k)
      if (all[c].counts[k] > 0) all[c].positive[k] = all[c].positive_sums[k].value() / double(all[c].counts[k]);
  }
  return all;
}

Distribution::Distribution(Context& ctx, const Model& model, Shape image, std::vector<int> nodes, int64_t classes,
                           const RunOptions& options, int64_t most, int64_t first)
    : ctx_(ctx),
      nodes_(std::move(nodes)),
      classes_(classes),
      plan_(ctx, model,
            image.with_n(batch_size(ctx, model, image, {.precision = options.precision, .observe = nodes_, .tape = false},
                                    options, most)),
            {.precision = options.precision, .observe = nodes_, .tape = false}) {
  for (const int node : nodes_) {
    ChannelStatistics empty;
    empty.of_class.assign(size_t(classes), ValueSketch(kClassBits));
    empty.positive_sums.resize(size_t(classes)), empty.counts.assign(size_t(classes), 0);
    layers_.push_back({std::vector<ChannelStatistics>(size_t(plan_.shapes()[node].c), empty), OrderedTree<ChannelMoments>(first)});
  }
}

void Distribution::add(const float* images, std::span<const int64_t> numbers, std::span<const int> labels) {
  const int64_t n = int64_t(numbers.size());
  plan_.write(images, n);
  plan_.forward();
  for (size_t k = 0; k < nodes_.size(); ++k) {
    const Tensor values = plan_.read(nodes_[k]);
    std::vector<ChannelStatistics>& of = layers_[k].channels;
    const int64_t channels = int64_t(of.size()), places = values.count() / n / channels;
    std::vector<int64_t> wrong(of.size(), -1);
    std::vector<ChannelMoments> moments(size_t(n), ChannelMoments{std::vector<Moments>(of.size())});  // of each image
#pragma omp parallel for schedule(static) num_threads(ctx_.thread_count())
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < n && wrong[size_t(c)] < 0; ++i)
        if (!add_values(of[size_t(c)], moments[size_t(i)].of[size_t(c)], values.data() + (i * channels + c) * places, places,
                        classes_ > 0 ? labels[size_t(i)] : -1))
          wrong[size_t(c)] = i;
    for (int64_t c = 0; c < channels; ++c)
      CHECK(wrong[size_t(c)] < 0, "channel {} of {} is not finite in image {}", c,
            plan_.network().nodes[nodes_[k]].name, numbers[size_t(wrong[size_t(c)])]);
    for (size_t i = 0; i < size_t(n); ++i) layers_[k].moments.add(numbers[i], std::move(moments[i]));
  }
}

std::vector<DistributionLayer> Distribution::take_layers(int64_t last) && {
  for (DistributionLayer& layer : layers_) layer.moments.close(last);
  return std::move(layers_);
}

}  // namespace switchback
