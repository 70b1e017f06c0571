// A built-in architecture and the state dict of somebody's training, fitted to each other.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/files/state_dict.h"
#include "engine/network.h"

namespace switchback {

// Names that training scripts put something before (Lightning's "model.", "backbone.") lose it, and what else the file
// holds (a criterion, a copy of averaged weights) is left out: the prefix under which most of the network's parameters
// lie is taken; of equals one that no copy is called (ema, teacher, …), then the shortest. Names of an older torchvision, as
// its published files have them, become today's. What fine-tuning changes is the file's: the outputs of the last layers that
// have weights, the channels that the first one reads, whether these have biases, the tokens of a ViT, and a head of other
// linear layers in the last one's place ("fc.1" for "fc"). Between several of them stands `between` (a Dropout: nothing), which
// no file says: without it they are refused. Returns what was done, for the user.
std::vector<std::string> fit(Network& network, StateDict& file, const std::optional<Layer>& between = std::nullopt);

}  // namespace switchback
