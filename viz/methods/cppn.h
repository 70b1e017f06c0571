// Compositional pattern-producing networks (Stanley 2007): small networks that draw a picture, pixel by pixel, from
// where the pixel lies. The same network draws at any size.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "viz/methods/genes.h"

namespace switchback {

// Nodes count from the inputs x, y, the distance from the middle, and 1; then hidden ones, then an output a channel. A
// connection leads from a lower number to a higher one, and never from an output: nothing goes round in circles.
struct Cppn {
  enum class Function : uint8_t { sine, sigmoid, gaussian, linear };  // all of them give −1 … 1
  static constexpr int kInputs = 4, kFunctions = 4, kMostHidden = 128;
  static constexpr float kMostWeight = 10;  // weights are −10 … 10
  struct Connection {
    int from = 0, to = 0;
    float weight = 0;
  };
  int outputs = 1;
  std::vector<Function> functions;      // of hidden nodes and outputs
  std::vector<Connection> connections;  // by `to`, then by `from`

  int hidden() const { return int(functions.size()) - outputs; }
  int nodes() const { return kInputs + int(functions.size()); }
};

// Every input leads to every output, with weights and functions at random.
Cppn random_cppn(Draws& draws, int outputs);
// A connection is added (.5), removed (.3) and led elsewhere (.5), a neuron is added into a connection (.5) and removed
// (.2); each weight and function changes with .1, weights by polynomial mutation of η 15 (Nguyen et al. 2015).
Cppn mutated(const Cppn& parent, Draws& draws);

// [outputs,h,w], 0 … 1. x and y go from −1 to 1 along the longer side.
void draw_cppn(const Cppn& cppn, int64_t h, int64_t w, float* values);

// As numbers, for files; from_numbers throws on what is no network.
std::vector<float> numbers_of(const Cppn& cppn);
Cppn cppn_from_numbers(std::span<const float> numbers, int outputs);

// Hue (turns), lightness and saturation, each 0 … 1 -> red, green and blue (Joblove and Greenberg 1978), in place:
// planes of `count` values.
void colours_of_hls(float* planes, int64_t count);

}  // namespace switchback
