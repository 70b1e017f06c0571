#include "engine/run/recording.h"

#include "kernels/check.h"
#include "kernels/device/device_ops.h"

namespace switchback {

void Recording::run(Context& ctx, const std::function<void()>& work) {
  if (!ctx.gpu || !ctx.graphs) return work();
  const bool warm = arena_ && arena_ == ctx.arena.data() && scratch_ == ctx.scratch.data() &&
                    counters_ == ctx.counters();
  if (!warm) {
    graph_.reset();
    work();
    arena_ = ctx.arena.data();
    scratch_ = ctx.scratch.data();
    counters_ = ctx.counters();
    return;
  }
  if (!graph_) {
    const DeviceOps& ops = *ctx.gpu->ops;
    ops.begin_capture(*ctx.gpu);
    try {
      work();
    } catch (...) {
      try {
        ops.end_capture(*ctx.gpu)->gpu = ctx.gpu;  // the stream must not stay in capture; what was recorded is dropped
      } catch (const Error&) {
      }
      throw;
    }
    graph_ = ops.end_capture(*ctx.gpu);
    graph_->gpu = ctx.gpu;
  }
  graph_->launch();
}

}  // namespace switchback
