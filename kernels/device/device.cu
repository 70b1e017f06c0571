// A GPU's services (memory, copies, events, recorded graphs) and its table of ops. Compiled by nvcc as cuda_ops() and
// for the emulated device as emulated_ops().
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/device/ops.cuh"

namespace switchback::SB_DEVICE {

#define SB_CUDA(call) check_cuda(call, #call)

void check_cuda(cudaError_t code, const char* call, const char* op, Shape s) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // whoever catches this goes on: the next launch must not be blamed for it
  const std::string name = std::string(call).substr(0, std::string(call).find('('));
  const std::string where = *op ? fmt::format(" in {} [{},{},{},{}]", op, s.n, s.c, s.h, s.w) : "";
  const std::string what = fmt::format("{}{}: {} ({})", name, where, cudaGetErrorString(code), cudaGetErrorName(code));
  if (code == cudaErrorMemoryAllocation) throw OutOfMemory("out of GPU memory: " + what, "use a smaller --batch or --memory");
  throw Error(what, "SWITCHBACK_CUDA_SYNC=1 makes errors name the kernel that caused them");
}

void make_current(const Gpu& gpu) { SB_CUDA(cudaSetDevice(gpu.index)); }

bool synchronous_launches() {
  static const bool on = [] {
    const char* v = std::getenv("SWITCHBACK_CUDA_SYNC");
    return v && std::strcmp(v, "0") != 0;
  }();
  return on;
}

namespace {

constexpr size_t kStaging = size_t(8) << 20;

// Errors of clean-up cannot be thrown; they are said.
void log_failure(cudaError_t code, const char* call) noexcept {
  if (code == cudaSuccess) return;
  cudaGetLastError();
  std::fprintf(stderr, "switchback: warning: %s: %s\n", call, cudaGetErrorString(code));
}

cudaStream_t stream_of(const Gpu& gpu) { return static_cast<cudaStream_t>(gpu.stream); }

std::string version_text(int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); }

int count(std::string& why_none) {
  int driver = 0, runtime = 0, devices = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t code = cudaGetDeviceCount(&devices);
  cudaGetLastError();  // clears what is remembered of a failure
  if (code == cudaSuccess && devices > 0) {
    cudaDeviceProp p = {};
    for (int i = 0; i < devices; ++i) {
      if (cudaGetDeviceProperties(&p, i) == cudaSuccess && p.major >= 8) return devices;
      cudaGetLastError();
    }
    why_none = fmt::format("the GPU ({}) has compute capability {}.{}; 8.0 (A100, RTX 30) or later is needed", p.name,
                           p.major, p.minor);
  } else if (driver == 0) {
    why_none = "no NVIDIA driver was found on this machine";
  } else if (code == cudaErrorInsufficientDriver) {
    why_none = fmt::format("the NVIDIA driver is for CUDA {}, this build needs one for {} or later", version_text(driver),
                           version_text(runtime));
  } else {
    why_none = fmt::format("no usable GPU: {} (driver for CUDA {})",
                           code == cudaSuccess ? "the driver lists none" : cudaGetErrorString(code), version_text(driver));
  }
  return 0;
}

std::shared_ptr<Gpu> open(int index) {
  cudaDeviceProp p;
  SB_CUDA(cudaGetDeviceProperties(&p, index));
  if (p.major < 8)
    throw Error(fmt::format("GPU {} ({}) has compute capability {}.{}; 8.0 or later is needed", index, p.name, p.major, p.minor),
                "choose another with --device cuda:N, or use --device cpu");
  SB_CUDA(cudaSetDevice(index));
  auto gpu = std::make_shared<Gpu>();
  gpu->index = index;
  gpu->name = p.name;
  gpu->major = p.major;
  gpu->minor = p.minor;
  gpu->multiprocessors = p.multiProcessorCount;
  int kilohertz = 0;
  SB_CUDA(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, index));
  gpu->clock_hz = 1e3 * kilohertz;
  gpu->memory = p.totalGlobalMem;
  gpu->shared_per_block = p.sharedMemPerBlockOptin;
  SB_CUDA(cudaDriverGetVersion(&gpu->driver));
  SB_CUDA(cudaRuntimeGetVersion(&gpu->runtime));
  cudaStream_t stream;
  SB_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  gpu->stream = stream;
  gpu->ops = ops();  // from here on ~Gpu closes what is open
  SB_CUDA(cudaMallocHost(&gpu->staging, kStaging));
  gpu->staging_bytes = kStaging;
  return gpu;
}

void close(Gpu& gpu) noexcept {
  log_failure(cudaSetDevice(gpu.index), "cudaSetDevice");
  log_failure(cudaStreamSynchronize(stream_of(gpu)), "cudaStreamSynchronize");  // copies may use the staging memory
  gpu.vendor.reset();
  if (gpu.staging) log_failure(cudaFreeHost(gpu.staging), "cudaFreeHost");
  if (gpu.stream) log_failure(cudaStreamDestroy(stream_of(gpu)), "cudaStreamDestroy");
}

void* allocate(Gpu& gpu, size_t bytes) {
  CHECK(!gpu.capturing, "memory ({} bytes) asked for while kernels are being recorded", bytes);
  make_current(gpu);
  void* p = nullptr;
  const cudaError_t code = cudaMalloc(&p, bytes);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfMemory(fmt::format("out of GPU memory: {} MiB asked for, {} of {} MiB are free", (bytes >> 20) + 1,
                                  gpu.ops->free_memory(gpu) >> 20, gpu.memory >> 20),
                      "use a smaller --batch or --memory");
  }
  SB_CUDA(code);
  return p;
}

void release(Gpu& gpu, void* p) noexcept {
  log_failure(cudaSetDevice(gpu.index), "cudaSetDevice");
  // Work on this memory may still be running.
  log_failure(cudaStreamSynchronize(stream_of(gpu)), "cudaStreamSynchronize");
  log_failure(cudaFree(p), "cudaFree");
}

size_t free_memory(Gpu& gpu) {
  make_current(gpu);
  size_t free = 0, total = 0;
  SB_CUDA(cudaMemGetInfo(&free, &total));
  return free;
}

void synchronize(Gpu& gpu) { SB_CUDA(cudaStreamSynchronize(stream_of(gpu))); }

// Through pinned memory: the caller's may go away at once, and a pageable copy is half as fast.
void copy_in(Gpu& gpu, void* device, const void* host, size_t bytes) {
  CHECK(!gpu.capturing, "{} bytes copied from the host while kernels are being recorded", bytes);
  make_current(gpu);
  for (size_t done = 0; done < bytes; done += gpu.staging_bytes) {
    const size_t part = std::min(gpu.staging_bytes, bytes - done);
    synchronize(gpu);  // the staging memory is in use until then
    std::memcpy(gpu.staging, static_cast<const char*>(host) + done, part);
    SB_CUDA(cudaMemcpyAsync(static_cast<char*>(device) + done, gpu.staging, part, cudaMemcpyHostToDevice, stream_of(gpu)));
  }
}

void copy_out(Gpu& gpu, void* host, const void* device, size_t bytes) {
  CHECK(!gpu.capturing, "{} bytes copied to the host while kernels are being recorded", bytes);
  make_current(gpu);
  for (size_t done = 0; done < bytes; done += gpu.staging_bytes) {
    const size_t part = std::min(gpu.staging_bytes, bytes - done);
    SB_CUDA(cudaMemcpyAsync(gpu.staging, static_cast<const char*>(device) + done, part, cudaMemcpyDeviceToHost, stream_of(gpu)));
    synchronize(gpu);
    std::memcpy(static_cast<char*>(host) + done, gpu.staging, part);
  }
}

void copy(Gpu& gpu, void* to, const void* from, size_t bytes) {
  make_current(gpu);
  SB_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(gpu)));
}

void zero(Gpu& gpu, void* device, size_t bytes) {
  make_current(gpu);
  SB_CUDA(cudaMemsetAsync(device, 0, bytes, stream_of(gpu)));
}

struct Event {
  cudaEvent_t event;
  Event() { SB_CUDA(cudaEventCreate(&event)); }
  ~Event() { log_failure(cudaEventDestroy(event), "cudaEventDestroy"); }
};

double milliseconds(Gpu& gpu, const std::function<void()>& work) {
  make_current(gpu);  // events belong to it
  Event begin, end;
  SB_CUDA(cudaEventRecord(begin.event, stream_of(gpu)));
  work();
  SB_CUDA(cudaEventRecord(end.event, stream_of(gpu)));
  SB_CUDA(cudaEventSynchronize(end.event));
  float ms = 0;
  SB_CUDA(cudaEventElapsedTime(&ms, begin.event, end.event));
  return double(ms);
}

void begin_capture(Gpu& gpu) {
  CHECK(!gpu.capturing, "a recording is already under way");
  SB_CUDA(cudaStreamBeginCapture(stream_of(gpu), cudaStreamCaptureModeThreadLocal));
  gpu.capturing = true;
}

void count_nodes(cudaGraph_t graph, Graph& out) {
  size_t nodes = 0;
  SB_CUDA(cudaGraphGetNodes(graph, nullptr, &nodes));
  std::vector<cudaGraphNode_t> list(nodes);
  if (nodes > 0) SB_CUDA(cudaGraphGetNodes(graph, list.data(), &nodes));
  for (cudaGraphNode_t node : list) {
    cudaGraphNodeType type;
    SB_CUDA(cudaGraphNodeGetType(node, &type));
    ++(type == cudaGraphNodeTypeKernel ? out.kernels : out.copies);
  }
}

std::unique_ptr<Graph> end_capture(Gpu& gpu) {
  CHECK(gpu.capturing, "no recording is under way");
  gpu.capturing = false;
  cudaGraph_t graph = nullptr;
  SB_CUDA(cudaStreamEndCapture(stream_of(gpu), &graph));
  auto out = std::make_unique<Graph>();
  cudaGraphExec_t exec = nullptr;
  cudaError_t code = cudaSuccess;
  try {
    count_nodes(graph, *out);
    code = cudaGraphInstantiate(&exec, graph, 0);
  } catch (...) {
    log_failure(cudaGraphDestroy(graph), "cudaGraphDestroy");
    throw;
  }
  log_failure(cudaGraphDestroy(graph), "cudaGraphDestroy");
  check_cuda(code, "cudaGraphInstantiate");
  out->exec = exec;
  return out;  // the caller adds the shared Gpu
}

void launch_graph(const Graph& graph) {
  make_current(*graph.gpu);
  SB_CUDA(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.exec), stream_of(*graph.gpu)));
}

void destroy_graph(Graph& graph) noexcept {
  log_failure(cudaStreamSynchronize(stream_of(*graph.gpu)), "cudaStreamSynchronize");
  log_failure(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph.exec)), "cudaGraphExecDestroy");
}

}  // namespace

const DeviceOps* ops() {
  static const DeviceOps table = {
#ifdef SB_EMULATED
      .name = "emulated",
#else
      .name = "cuda",
#endif
      .fuses = {.pools = true, .concatenations = true, .flattens = true},
      .count = count,
      .open = open,
      .close = close,
      .allocate = allocate,
      .release = release,
      .free_memory = free_memory,
      .copy_in = copy_in,
      .copy_out = copy_out,
      .copy = copy,
      .zero = zero,
      .synchronize = synchronize,
      .milliseconds = milliseconds,
      .begin_capture = begin_capture,
      .end_capture = end_capture,
      .launch_graph = launch_graph,
      .destroy_graph = destroy_graph,
      .vendor_libraries = vendor_libraries,
      .gemm_variants = gemm_variants,
      .conv2d_gemm = conv2d_gemm,
      .linear_gemm = linear_gemm,
      .count_differences = count_differences,
#define SB_ENTRY(op) .op = SB_DEVICE::op,
      SB_DEVICE_OPS(SB_ENTRY)
#undef SB_ENTRY
  };
  return &table;
}

}  // namespace switchback::SB_DEVICE

namespace switchback {
#ifdef SB_EMULATED
const DeviceOps* emulated_ops() { return emulated::ops(); }
#else
const DeviceOps* cuda_ops() { return cuda::ops(); }
#endif
}  // namespace switchback
