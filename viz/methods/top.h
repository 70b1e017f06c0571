// Where in a data set units answer most (Zeiler and Fergus, "Visualizing and understanding convolutional networks",
// ECCV 2014, Figure 2): of each channel the images with the highest activations, one place an image; then the patches
// that the channel saw there, and what of them it answered to. Images stream by; only running lists are kept.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "engine/run/backward.h"
#include "engine/run/fields.h"
#include "viz/methods/gradient.h"

namespace switchback {

// By which value places are ranked. Relevance: activation × gradient of a class's score, what the place adds to that
// class (as zennit-crp ranks by relevance beside activation, Achtibat et al. 2023).
enum class TopBy { activation, relevance };
enum class TopOrder { highest, lowest };
// What is sent back from a place to draw its map: 1, or its activation (a negative one then comes back negative).
enum class TopSignal { one, activation };

struct TopOptions : RunOptions {
  int64_t keep = 9;         // images of each channel
  ReluRule rule = kDeconv;  // of the maps
  TopBy by = TopBy::activation;
  TopOrder order = TopOrder::highest;
  TopSignal signal = TopSignal::one;
};

// The place of one image where a channel's value (an activation, or its relevance) is highest (or lowest); row and col are
// 0 in a vector. The first of equal places counts.
struct TopPlace {
  int64_t image = 0;
  float value = 0;
  int64_t row = 0, col = 0;
  template <typename A>
  void fields(A& a) {
    a(image, value, row, col);
  }
};
// Highest (or lowest) value first; of equal ones the image that came first.
using TopList = std::vector<TopPlace>;
void merge_top(TopList& list, const TopList& later, const TopOptions& options);  // later: of images behind the list's

class TopSearch {
 public:
  // nodes: whose channels are followed, all in one forward pass, for relevance also one back. most: images of one call of
  // add(). Throws where relevance is asked of a node that no output depends on.
  TopSearch(Context& ctx, const Model& model, Shape image, std::vector<int> nodes, const TopOptions& options,
            int64_t most);
  int64_t batch() const { return plan_.capacity(); }
  // images: [n,C,H,W], n = numbers.size() <= batch(); numbers: theirs, ascending from call to call. classes, for relevance:
  // of each image the class whose score is meant; none: the one with the highest score. Throws where a value is not a
  // number, with the layer and the image.
  void add(const float* images, std::span<const int64_t> numbers, std::span<const int> classes = {});
  double forward_seconds() const { return forward_seconds_; }  // of add() so far; on the CPU, a GPU runs behind
  int64_t channels(size_t node) const { return followed_[node].shape.c; }
  const std::vector<TopList>& lists(size_t node) const { return followed_[node].lists; }  // [channels]
  const TopList& top(size_t node, int64_t channel) const { return lists(node)[size_t(channel)]; }
  // Height and width of what a unit of the node sees away from all borders, at most the image's: patches of one layer
  // share it.
  std::pair<int64_t, int64_t> field(size_t node) const;

 private:
  struct Followed {
    int node;
    Shape shape;      // of its value
    MaxPool2d whole;  // its windows are as many whole rows of the map as a switch can number
    Shape winners;    // of the windows
    Memory values, switches;
    Memory ranked;               // what places are ranked by, where that is not the activation itself
    std::vector<TopList> lists;  // [channels]
  };
  PlanOptions plan_options(std::vector<int> nodes) const;
  void derive(std::span<const int64_t> numbers, std::span<const int> classes);
  ConstView ranked(const Followed& f);
  void find_winners(Followed& f, std::span<const int64_t> numbers);

  Context& ctx_;
  TopOptions options_;
  int score_;  // the node whose channels are classes
  Plan plan_;
  std::optional<Backward> backward_;
  Tape tape_;
  double forward_seconds_ = 0;
  Memory minus_one_;
  std::vector<Followed> followed_;
};

// What is drawn of one channel.
struct TopUnit {
  int node = 0;
  int64_t channel = 0;
  TopList top;
};

// For each place of each unit: the box of the image that the unit sees there, cut off at the borders, and the map of
// that box [C,height,width]: what options.signal at the unit comes back as under options.rule (`kDeconv`: Zeiler and
// Fergus's projection). `image` is what `load` wrote, [C,H,W]. Only receptive fields are computed, many places at a
// time.
using TopSink =
    std::function<void(size_t unit, size_t rank, const FieldBox& box, const float* image, const float* map)>;
void top_maps(Context& ctx, const Model& model, Shape image, std::span<const TopUnit> units,
              const std::function<void(int64_t number, float* image)>& load, const TopOptions& options,
              const TopSink& sink);

// Where a box lies in a patch of TopSearch::field's size: what the border cuts off is blank.
std::pair<int64_t, int64_t> place_in_field(const FieldBox& box, std::pair<int64_t, int64_t> whole);

}  // namespace switchback
