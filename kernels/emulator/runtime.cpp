#include "kernels/emulator/runtime.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/emulator/emulated.h"
#include "kernels/emulator/machine.h"
#include "kernels/emulator/memory.h"

namespace switchback::emulated {

using emulator::device_memory;

struct EmulatedGraphNode {
  cudaGraphNodeType type;
  std::function<void()> work;
};
struct EmulatedGraph {
  std::vector<EmulatedGraphNode> nodes;
};
struct EmulatedGraphExec {
  std::vector<EmulatedGraphNode> nodes;
};
struct EmulatedStream {
  std::unique_ptr<EmulatedGraph> capture;  // null: work runs at once
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool invalidated = false;  // by a call that a capture cannot have
  KernelExecutor executor;
};
struct EmulatedEvent {
  std::chrono::steady_clock::time_point time;
  bool recorded = false;
};

namespace {

constexpr int kVersion = 13000;
EmulatedMachine machine;
cudaError_t last_error = cudaSuccess;
std::vector<cudaStream_t> capturing;

cudaError_t result(cudaError_t code) {
  if (code != cudaSuccess) last_error = code;
  return code;
}

// Calls that wait or allocate cannot be part of a capture: they fail, and so does the capture's end.
cudaError_t uncapturable() {
  bool refused = false;
  for (cudaStream_t stream : capturing)
    if (stream->mode != cudaStreamCaptureModeRelaxed) refused = stream->invalidated = true;
  return refused ? result(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

bool on_device(const void* p, size_t bytes) { return device_memory().contains(p, bytes); }
bool on_host(const void* p) { return p && !device_memory().touches(p); }

bool fits(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost: return on_host(to) && on_host(from);
    case cudaMemcpyHostToDevice: return on_device(to, bytes) && on_host(from);
    case cudaMemcpyDeviceToHost: return on_host(to) && on_device(from, bytes);
    case cudaMemcpyDeviceToDevice: return on_device(to, bytes) && on_device(from, bytes);
    case cudaMemcpyDefault: return (on_host(to) || on_device(to, bytes)) && (on_host(from) || on_device(from, bytes));
  }
  return false;
}

}  // namespace

void enqueue(cudaStream_t stream, cudaGraphNodeType type, std::function<void()> work) {
  if (stream && stream->capture) stream->capture->nodes.push_back({type, std::move(work)});
  else work();
}

void set_kernel_executor(cudaStream_t stream, KernelExecutor executor) { stream->executor = std::move(executor); }
KernelExecutor kernel_executor(cudaStream_t stream) { return stream ? stream->executor : nullptr; }

// ---- errors and devices ----

#define SB_ERRORS(X)                                                                    \
  X(cudaSuccess, "no error")                                                            \
  X(cudaErrorInvalidValue, "invalid argument")                                          \
  X(cudaErrorMemoryAllocation, "out of memory")                                         \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")                    \
  X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version") \
  X(cudaErrorNoDevice, "no CUDA-capable device is detected")                            \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                                   \
  X(cudaErrorInvalidResourceHandle, "invalid resource handle")                          \
  X(cudaErrorNotReady, "device not ready")                                              \
  X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing") \
  X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")

const char* cudaGetErrorName(cudaError_t code) {
  switch (code) {
#define X(name, text) case name: return #name;
    SB_ERRORS(X)
#undef X
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t code) {
  switch (code) {
#define X(name, text) case name: return text;
    SB_ERRORS(X)
#undef X
  }
  return "unrecognized error code";
}
#undef SB_ERRORS

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = machine.devices;
  if (machine.driver < kVersion) return result(cudaErrorInsufficientDriver);
  return result(machine.devices > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) { return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "emulated GPU");
  properties->major = machine.major;
  properties->minor = machine.minor;
  properties->multiProcessorCount = 4;
  properties->warpSize = emulator::kWarpSize;
  properties->totalGlobalMem = device_memory().capacity;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin = emulator::kMaxShared;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  *value = 1'000'000;
  return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine.driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

// ---- memory ----

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (const cudaError_t code = uncapturable()) return code;
  *memory = bytes ? device_memory().allocate(bytes) : nullptr;
  return result(bytes && !*memory ? cudaErrorMemoryAllocation : cudaSuccess);
}

cudaError_t cudaFree(void* memory) {
  if (const cudaError_t code = uncapturable()) return code;
  if (!memory) return cudaSuccess;
  if (!device_memory().knows(memory)) return result(cudaErrorInvalidValue);
  return result(device_memory().release(memory) ? cudaSuccess : cudaErrorIllegalAddress);
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  if (const cudaError_t code = uncapturable()) return code;
  *memory = std::malloc(bytes);
  return result(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void* memory) {
  if (const cudaError_t code = uncapturable()) return code;
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const auto& memory = device_memory();
  *total = memory.capacity;
  *free = memory.capacity - std::min(memory.used(), memory.capacity);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!fits(to, from, bytes, kind)) return result(cudaErrorInvalidValue);
  enqueue(stream, cudaGraphNodeTypeMemcpy, [=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!on_device(memory, bytes)) return result(cudaErrorInvalidValue);
  enqueue(stream, cudaGraphNodeTypeMemset, [=] { std::memset(memory, value, bytes); });
  return cudaSuccess;
}

// ---- streams and events ----

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new EmulatedStream;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream) return result(cudaErrorInvalidResourceHandle);
  std::erase(capturing, stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!stream || !stream->capture) return cudaSuccess;
  stream->invalidated = true;
  return result(cudaErrorStreamCaptureUnsupported);
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->time = std::chrono::steady_clock::now();
  event->recorded = true;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t) { return uncapturable(); }

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  if (!start->recorded || !end->recorded) return result(cudaErrorInvalidResourceHandle);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

// ---- graphs ----

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (!stream || stream->capture) return result(cudaErrorStreamCaptureUnsupported);
  stream->capture = std::make_unique<EmulatedGraph>();
  stream->mode = mode;
  stream->invalidated = false;
  capturing.push_back(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream || !stream->capture) return result(cudaErrorInvalidValue);
  std::erase(capturing, stream);
  const std::unique_ptr<EmulatedGraph> capture = std::move(stream->capture);
  if (stream->invalidated) return result(cudaErrorStreamCaptureInvalidated);
  *graph = new EmulatedGraph(*capture);
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  if (!nodes) {
    *count = graph->nodes.size();
    return cudaSuccess;
  }
  *count = std::min(*count, graph->nodes.size());
  for (size_t i = 0; i < *count; ++i) nodes[i] = &graph->nodes[i];
  return cudaSuccess;
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  *type = node->type;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new EmulatedGraphExec{graph->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (const EmulatedGraphNode& node : exec->nodes) enqueue(stream, node.type, node.work);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

}  // namespace switchback::emulated

namespace switchback {
void set_emulated_machine(const EmulatedMachine& description) { emulated::machine = description; }
}  // namespace switchback
