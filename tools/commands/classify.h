// `switchback classify`: what its two forms share, with one network (classify.cpp) and several checkpoints
// (classify_strip.cpp).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/cli/inputs.h"
#include "tools/cli/job.h"

namespace switchback {

// One image's results.
struct Answer {
  Json entry;
  std::string line;
  std::function<Canvas()> picture;  // drawn only where pictures are wanted
};
// Of item i of the part; `all`: the outputs of the chunk.
Answer answer_for(const Job& job, const Chunk& chunk, const Chunk::Part& part, int64_t i, const Tensor& all);
Tensor outputs_of_chunk(Job& job, const Chunk& chunk, const RunOptions& options);  // [N,K], or [N,K,H,W]
// What `--save npy` writes of one file's items: of a sigmoid the network's own outputs.
Tensor saved_scores(const Job& job, const Chunk::Part& part, const Tensor& all);
int64_t most_images(const Network& network,
                    Shape image);  // whose outputs are held at once: classes are few, maps may be large
std::string classify_title(const Job& job);
std::string shown_name(const Job& job, int64_t c);  // "285 Egyptian cat"

void run_classify_strips(Job& job);

}  // namespace switchback
