// Repeated work of fixed shape as a recorded graph (CUDA graphs): hundreds of launches become one.
#pragma once

#include <functional>
#include <memory>

#include "kernels/device/context.h"

namespace switchback {

// `work` launches kernels and device copies only, the same ones on the same memory in every call; what changes from call
// to call stands in device memory. The first run is an ordinary one (weights are packed, scratch memory grows), the
// second is recorded, later ones are replayed; when the context's arenas have moved since, it starts again. On the CPU,
// and where ctx.graphs is off, every run is an ordinary one.
class Recording {
 public:
  void run(Context& ctx, const std::function<void()>& work);
  const Graph* graph() const { return graph_.get(); }  // null before the second run

 private:
  std::unique_ptr<Graph> graph_;
  const void *arena_ = nullptr, *scratch_ = nullptr, *counters_ = nullptr;  // where they were after the first run
};

}  // namespace switchback
