#include "kernels/device/gpu.h"

#include <cstdlib>

#include "kernels/check.h"
#include "kernels/device/context.h"
#include "kernels/device/device_ops.h"

namespace switchback {

Gpu::~Gpu() {
  if (ops) ops->close(*this);
}

Graph::~Graph() {
  if (gpu && exec) gpu->ops->destroy_graph(*this);
}

void Graph::launch() const { gpu->ops->launch_graph(*this); }

Memory::Memory(std::shared_ptr<Gpu> gpu, size_t bytes) : gpu_(std::move(gpu)), size_(bytes) {
  if (bytes == 0) return;
  if (gpu_) {
    data_ = gpu_->ops->allocate(*gpu_, bytes);
    return;
  }
  data_ = allocate_host(bytes);
  if (!data_) throw OutOfMemory(fmt::format("out of memory: {} MiB asked for", bytes >> 20), "use a smaller --batch or --memory");
}

Memory::~Memory() {
  if (!data_) return;
  if (gpu_) gpu_->ops->release(*gpu_, data_);
  else std::free(data_);
}

const void* DeviceCache::find(Context& ctx, int what) const {
  for (const Entry& e : entries_)
    if (e.what == what && e.memory.gpu() == ctx.gpu) return e.memory.data();
  return nullptr;
}

const void* DeviceCache::get(Context& ctx, int what, const std::function<std::vector<char>()>& make) {
  if (const void* found = find(ctx, what)) return found;
  const std::vector<char> bytes = make();
  return get(ctx, what, bytes.size(), [&](void* to) { ctx.copy_in(to, bytes.data(), bytes.size()); });
}

const void* DeviceCache::get(Context& ctx, int what, size_t bytes, const std::function<void(void*)>& write) {
  if (const void* found = find(ctx, what)) return found;
  Memory memory(ctx.gpu, bytes);
  write(memory.data());
  entries_.push_back({what, std::move(memory)});
  return entries_.back().memory.data();
}

#if !SWITCHBACK_WITH_CUDA
const DeviceOps* cuda_ops() { return nullptr; }
#endif

}  // namespace switchback
