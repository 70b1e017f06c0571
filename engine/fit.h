// A built-in architecture and the state dict of somebody's training, fitted to each other.
#pragma once

#include <string>
#include <vector>

#include "engine/files/state_dict.h"
#include "engine/network.h"

namespace switchback {

// Names that training scripts put something before (Lightning's "model.", "backbone.") lose it, and what else the file
// holds (a criterion, a copy of averaged weights) is left out: the prefix under which most of the network's parameters
// lie is taken; of equals one that no copy is called (ema, teacher, …), then the shortest. Sizes that fine-tuning changes are the file's: the outputs of the last layer that
// has weights, and the channels that the first one reads. Names of an older torchvision, as its published files have them,
// become today's. Returns what was done, for the user.
std::vector<std::string> fit(Network& network, StateDict& file);

}  // namespace switchback
