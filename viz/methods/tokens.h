// Tokens, the places of transformers: which of them is which patch of the image, and maps made of attention.
#pragma once

#include <optional>
#include <vector>

#include "viz/methods/cam.h"

namespace switchback {

// A sequence of tokens as the image has it: behind `first` others (a class token, registers) h × w patches, row by row.
struct TokenGrid {
  int64_t first = 0, h = 0, w = 0;
  bool operator==(const TokenGrid&) const = default;
};

// Of a node that holds tokens, [C,T,1] or [C,1,T]: the grid of the map that they were made of; where none was left as a
// map, the one whose sides are as the image's. Nothing where the node holds a map, or something else.
std::optional<TokenGrid> token_grid(const Network& network, Shape input, int node);
// values: [n,C,T,1] or [n,C,1,T] → [n,C,h,w], without the other tokens.
Tensor on_grid(const Tensor& values, const TokenGrid& grid);

// Where the classes are read from a class token alone: the tokens that the last attention layer reads, whose patches
// still speak for the class (behind that layer their gradient is 0); -1 elsewhere.
int last_patch_tokens(const Network& network, Shape input);

// The attention layers that the logits depend on, first to last. Throws (usage) where there are none, and where one
// sees windows, or other tokens than the others, so that attention cannot be followed through them.
std::vector<int> followed_attention(const Network& network, Shape input);

// rollout and attention-gradient (cam.h): [N,T,h,w].
Cams attention_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                    const std::vector<std::string>& labels, const CamOptions& options);

}  // namespace switchback
