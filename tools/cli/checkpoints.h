// Several weights of one model in one run: the checkpoints of a training run beside each other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace switchback {

// What --weights means, given once or several times: files and random:SEED as they are; A,B,C; patterns
// ("run/epoch-*"); and folders, of which the files epoch-*.safetensors are taken, as `train` writes them, or else all
// weights. Patterns and folders give their files in the order of their names, with numbers by their value. Throws
// (usage) where there are none.
std::vector<std::string> expand_weights(const std::vector<std::string>& given);

// Whether expand_weights takes the folder's files.
bool holds_weights(const std::string& folder);

// What they are called in pictures and tables: names of files without folder and ending, or paths where those are
// equal.
std::vector<std::string> weights_names(const std::vector<std::string>& weights);
// Items first … first + count − 1 of each checkpoint's array [N,…], as [count,E,…].
Tensor over_checkpoints(const std::vector<const Tensor*>& arrays, int64_t first, int64_t count);
Tensor stacked(const std::vector<const Tensor*>& arrays);               // whole arrays of one shape, as [E,…]
std::string checkpoints_text(const std::vector<std::string>& weights);  // "7, epoch-000 to epoch-006"

}  // namespace switchback
