// Images that a network is sure of and a person sees nothing in (Nguyen, Yosinski and Clune, CVPR 2015): evolved by
// MAP-Elites for all classes at once, or climbed to along the gradient of the class's probability.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/model.h"
#include "viz/methods/cppn.h"
#include "viz/methods/gradient.h"

namespace switchback {

struct FoolOptions : RunOptions {
  // direct    genes are pixels: polynomial mutation (rate .1, η 15), simulated binary crossover (.5, η 10)
  // cppn      a network draws the image; three channels are hue, lightness and saturation
  // gradient  x += a·∂p/∂x / ‖∂p/∂x‖², a = min(.03, .1(1 − p), p): p grows by about a
  enum class Encoding { direct, cppn, gradient } encoding = Encoding::cppn;
  int64_t generations = 200;  // in all, those of a run that is gone on with included; gradient: steps
  int64_t children = 200;     // of a generation
  uint64_t seed = 0;
  int64_t save_every = 0;  // calls `save` after so many generations; 0: never
  std::function<void(const struct Elites&)> save;
};

// The archive: one elite a class, the image that the network is surest of so far. All that a run needs to go on.
struct Elites {
  int64_t generation = 0;         // how many are done; 0: nothing is there. The first one, number 0, is drawn at random
  std::vector<float> confidence;  // [K], the probability of the class
  std::vector<int64_t> born;      // [K], the generation that the elite is from
  std::vector<std::vector<float>> images;  // direct: pixels [C,H,W], 0 to 1; gradient: input units
  std::vector<Cppn> cppns;                 // of cppn
  std::vector<float> median, mean;         // of the confidences after each generation
};

// Goes on from `elites` to options.generations. Same seed, same bits, for any batch and number of threads, and whether
// a run was interrupted or not. Throws (usage) where the network does not name classes.
void fool(Context& ctx, const Model& model, Elites& elites, const FoolOptions& options);

// Of one class, [1,C,H,W] in input units. size: of an image that a pattern-producing network draws; {0,0}: the model's
// own.
Tensor elite_image(const Model& model, const Elites& elites, FoolOptions::Encoding encoding, int64_t k,
                   std::array<int64_t, 2> size = {0, 0});

// The archive as a safetensors file, with `about` in its metadata. load_elites throws on files that are none of this
// model's and this encoding's; `about` is filled.
void save_elites(const std::string& path, const Elites& elites, const std::map<std::string, std::string>& about);
Elites load_elites(const std::string& path, const Model& model, FoolOptions::Encoding encoding,
                   std::map<std::string, std::string>& about);

}  // namespace switchback
