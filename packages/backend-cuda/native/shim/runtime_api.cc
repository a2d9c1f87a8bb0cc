#include "shim/runtime_api.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "shim/device_profile.h"
#include "shim/faults.h"
#include "shim/grid.h"
#include "shim/shared_memory.h"

namespace flash_moe::shim {

struct Stream {
  Graph* capture = nullptr;
  // By a call that a capture forbids: it ends without a graph.
  bool capture_broken = false;
  std::thread::id capturing_thread;
};
struct Event {
  std::chrono::steady_clock::time_point time;
  // It is a place in a graph, which no one can wait for.
  bool captured = false;
};
struct Pool {};
struct Graph {
  std::vector<std::function<cudaError_t()>> work;
};
struct Executable {
  std::vector<std::function<cudaError_t()>> work;
};

namespace {

// Never destroyed: the process may end while other threads are in here.
struct Machine {
  std::mutex mutex;
  std::unordered_map<void*, size_t> allocations;
  size_t allocated = 0;
  std::map<std::thread::id, cudaError_t> last_errors;
  std::map<std::thread::id, int> devices;
  std::map<std::thread::id, Stream*> captures;
  std::unordered_map<const void*, size_t> shared_limits;
  cudaError_t sticky = cudaSuccess;
  struct Fault {
    int successes = -1;
    cudaError_t error = cudaSuccess;
  } faults[static_cast<int>(FaultPoint::count)];

  Machine() {
    static const char* const points[] = {"allocation", "pinned_allocation", "launch", "copy", "device"};
    const char* text = std::getenv("FLASH_MOE_SHIM_FAULT");
    if (!text || !*text) return;
    for (int i = 0; i < static_cast<int>(FaultPoint::count); i++) {
      const size_t length = std::strlen(points[i]);
      if (std::strncmp(text, points[i], length) != 0 || text[length] != ':') continue;
      int successes = 0, error = 0;
      if (std::sscanf(text + length, ":%d:%d", &successes, &error) == 2) {
        faults[i] = {successes, static_cast<cudaError_t>(error)};
        return;
      }
    }
    std::fprintf(stderr, "shim: FLASH_MOE_SHIM_FAULT is %s, expected point:successes:error\n", text);
    std::abort();
  }
};

Machine& machine() {
  static Machine* const one = new Machine;
  return *one;
}

bool loses_device(cudaError_t error) {
  switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
      return true;
    default:
      return false;
  }
}

// What every call returns goes through here: the last error of the thread is kept.
cudaError_t done(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) {
    Machine& m = machine();
    const std::lock_guard<std::mutex> lock(m.mutex);
    m.last_errors[std::this_thread::get_id()] = error;
  }
  return error;
}

// What a call at this point returns before it does anything.
cudaError_t before(FaultPoint point) {
  const DeviceProfile& profile = device_profile();
  if (profile.count < 0) return cudaErrorInsufficientDriver;
  if (profile.count == 0) return cudaErrorNoDevice;
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  if (m.sticky != cudaSuccess) return m.sticky;
  auto& fault = m.faults[static_cast<int>(point)];
  if (fault.successes < 0 || fault.successes-- > 0) return cudaSuccess;
  if (!loses_device(fault.error)) return fault.error;
  m.sticky = fault.error;
  return cudaSuccess;
}

cudaError_t alive() {
  const DeviceProfile& profile = device_profile();
  if (profile.count < 0) return cudaErrorInsufficientDriver;
  if (profile.count == 0) return cudaErrorNoDevice;
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  return m.sticky;
}

// For the calls that CUDA forbids a thread that captures a stream of its own (cudaStreamCaptureModeThreadLocal), since they
// may wait for the device or for all of its streams: they fail, and so does the capture.
cudaError_t alive_outside_capture() {
  Machine& m = machine();
  {
    const std::lock_guard<std::mutex> lock(m.mutex);
    const auto found = m.captures.find(std::this_thread::get_id());
    if (found != m.captures.end()) {
      found->second->capture_broken = true;
      return cudaErrorStreamCaptureUnsupported;
    }
  }
  return alive();
}

// For calls that may not be made with a stream while it is captured.
cudaError_t alive_outside_capture(Stream* stream) {
  if (stream && stream->capture) {
    stream->capture_broken = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  return alive();
}

cudaError_t enqueue(Stream* stream, std::function<cudaError_t()> work) {
  if (stream && stream->capture) {
    stream->capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  return work();
}

cudaError_t allocate(void** data, size_t bytes) {
  *data = nullptr;
  if (const cudaError_t error = before(FaultPoint::allocation)) return error;
  if (bytes == 0) return cudaSuccess;
  Machine& m = machine();
  {
    const std::lock_guard<std::mutex> lock(m.mutex);
    if (bytes > device_profile().memory - m.allocated) return cudaErrorMemoryAllocation;
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes) != 0) return cudaErrorMemoryAllocation;
  fill_with_nan(memory, bytes);
  const std::lock_guard<std::mutex> lock(m.mutex);
  m.allocations[memory] = bytes;
  m.allocated += bytes;
  *data = memory;
  return cudaSuccess;
}

cudaError_t release(void* data) {
  if (const cudaError_t error = alive()) return error;
  if (!data) return cudaSuccess;
  Machine& m = machine();
  {
    const std::lock_guard<std::mutex> lock(m.mutex);
    const auto found = m.allocations.find(data);
    if (found == m.allocations.end()) return cudaErrorInvalidValue;
    m.allocated -= found->second;
    m.allocations.erase(found);
  }
  std::free(data);
  return cudaSuccess;
}

constexpr size_t default_shared_limit = 48 << 10;

}  // namespace

void fail_later(FaultPoint point, int successes, cudaError_t error) {
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  m.faults[static_cast<int>(point)] = {successes, error};
}

void clear_faults() {
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  for (auto& fault : m.faults) fault = {};
  m.sticky = cudaSuccess;
}

size_t allocated_bytes() {
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  return m.allocated;
}

cudaError_t launch(const Kernel& kernel, int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream,
                   const void* argument) {
  if (const cudaError_t error = before(FaultPoint::launch)) return done(error);
  if (alive() != cudaSuccess) return cudaSuccess;
  if (blocks < 1 || blocks > INT32_MAX || threads < 1 || threads > 1024) return done(cudaErrorInvalidConfiguration);
  size_t limit = default_shared_limit;
  {
    Machine& m = machine();
    const std::lock_guard<std::mutex> lock(m.mutex);
    const auto found = m.shared_limits.find(kernel.function);
    if (found != m.shared_limits.end() && found->second > limit) limit = found->second;
  }
  if (shared_bytes > limit) return done(cudaErrorInvalidValue);
  const std::shared_ptr<void> copy(kernel.clone(argument), kernel.drop);
  return done(enqueue(stream, [kernel, blocks, threads, shared_bytes, copy] {
    run_grid({kernel.name, blocks, threads, shared_bytes, kernel.run, copy.get()});
    return cudaSuccess;
  }));
}

}  // namespace flash_moe::shim

using namespace flash_moe::shim;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define FM_SHIM_NAME(name) \
  case name:               \
    return #name;
    FM_SHIM_NAME(cudaSuccess)
    FM_SHIM_NAME(cudaErrorInvalidValue)
    FM_SHIM_NAME(cudaErrorMemoryAllocation)
    FM_SHIM_NAME(cudaErrorCudartUnloading)
    FM_SHIM_NAME(cudaErrorInvalidConfiguration)
    FM_SHIM_NAME(cudaErrorInsufficientDriver)
    FM_SHIM_NAME(cudaErrorDevicesUnavailable)
    FM_SHIM_NAME(cudaErrorNoDevice)
    FM_SHIM_NAME(cudaErrorInvalidDevice)
    FM_SHIM_NAME(cudaErrorNoKernelImageForDevice)
    FM_SHIM_NAME(cudaErrorECCUncorrectable)
    FM_SHIM_NAME(cudaErrorInvalidResourceHandle)
    FM_SHIM_NAME(cudaErrorNotReady)
    FM_SHIM_NAME(cudaErrorIllegalAddress)
    FM_SHIM_NAME(cudaErrorLaunchTimeout)
    FM_SHIM_NAME(cudaErrorMisalignedAddress)
    FM_SHIM_NAME(cudaErrorLaunchFailure)
    FM_SHIM_NAME(cudaErrorStreamCaptureUnsupported)
    FM_SHIM_NAME(cudaErrorStreamCaptureInvalidated)
    FM_SHIM_NAME(cudaErrorCapturedEvent)
    FM_SHIM_NAME(cudaErrorStreamCaptureWrongThread)
    FM_SHIM_NAME(cudaErrorUnknown)
#undef FM_SHIM_NAME
    default:
      return "cudaErrorOfTheShim";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "as the test asked for";
}

cudaError_t cudaPeekAtLastError() {
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  const auto found = m.last_errors.find(std::this_thread::get_id());
  return found == m.last_errors.end() ? cudaSuccess : found->second;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  m.last_errors.erase(std::this_thread::get_id());
  return error;
}

cudaError_t cudaDriverGetVersion(int* version) {
  const DeviceProfile& profile = device_profile();
  *version = profile.count < 0 ? 0 : profile.driver;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  const DeviceProfile& profile = device_profile();
  if (profile.count < 0 || profile.driver < 12000) return done(cudaErrorInsufficientDriver);
  if (profile.count == 0) return done(cudaErrorNoDevice);
  if (const cudaError_t error = before(FaultPoint::device)) return done(error);
  *count = profile.count;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  const auto found = m.devices.find(std::this_thread::get_id());
  *device = found == m.devices.end() ? 0 : found->second;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (const cudaError_t error = alive()) return done(error);
  if (device < 0 || device >= device_profile().count) return done(cudaErrorInvalidDevice);
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  m.devices[std::this_thread::get_id()] = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const DeviceProfile& profile = device_profile();
  if (device < 0 || device >= profile.count) return done(cudaErrorInvalidDevice);
  std::memset(properties, 0, sizeof *properties);
  std::snprintf(properties->name, sizeof properties->name, "CPU shim of a CUDA device (not a GPU)");
  properties->uuid.bytes[0] = static_cast<char>(device + 1);
  properties->totalGlobalMem = profile.memory;
  properties->major = profile.sm / 10;
  properties->minor = profile.sm % 10;
  properties->multiProcessorCount = profile.multiprocessors;
  properties->l2CacheSize = static_cast<int>(profile.l2);
  properties->sharedMemPerBlockOptin = profile.shared;
  properties->pciBusID = device + 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const DeviceProfile& profile = device_profile();
  if (device < 0 || device >= profile.count) return done(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = default_shared_limit;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = profile.multiprocessors;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = static_cast<int>(profile.l2);
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = profile.sm / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = profile.sm % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(profile.shared) + 1024;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(profile.shared);
      return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      return cudaSuccess;
  }
  return done(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceSynchronize() { return done(alive_outside_capture()); }

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  if (const cudaError_t error = alive()) return done(error);
  *total_bytes = device_profile().memory;
  *free_bytes = device_profile().memory - allocated_bytes();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  if (const cudaError_t error = alive_outside_capture()) return done(error);
  return done(allocate(data, bytes));
}
cudaError_t cudaFree(void* data) {
  if (const cudaError_t error = alive_outside_capture()) return done(error);
  return done(release(data));
}

cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  *data = nullptr;
  if (const cudaError_t error = alive_outside_capture()) return done(error);
  if (const cudaError_t error = before(FaultPoint::pinned_allocation)) return done(error);
  *data = std::malloc(bytes);
  return done(*data ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void* data) {
  const cudaError_t error = alive_outside_capture();
  // A device that is lost does not keep memory of the host.
  if (error != cudaErrorStreamCaptureUnsupported) std::free(data);
  return done(error);
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  if (const cudaError_t error = alive()) return done(error);
  *pool = new Pool;
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete pool;
  return done(alive());
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return done(alive()); }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  *static_cast<uint64_t*>(value) = allocated_bytes();
  return done(alive());
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return done(alive()); }
cudaError_t cudaMallocAsync(void** data, size_t bytes, cudaStream_t stream) {
  return cudaMallocFromPoolAsync(data, bytes, nullptr, stream);
}
// Memory nodes of graphs are not part of the shim.
cudaError_t cudaMallocFromPoolAsync(void** data, size_t bytes, cudaMemPool_t, cudaStream_t stream) {
  if (const cudaError_t error = alive_outside_capture(stream)) return done(error);
  return done(allocate(data, bytes));
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  if (const cudaError_t error = alive_outside_capture(stream)) return done(error);
  return done(release(data));
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t error = alive_outside_capture()) return done(error);
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (const cudaError_t error = before(FaultPoint::copy)) return done(error);
  return done(enqueue(stream, [=] {
    if (bytes) std::memcpy(to, from, bytes);
    return cudaSuccess;
  }));
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (const cudaError_t error = alive_outside_capture()) return done(error);
  return cudaMemsetAsync(to, value, bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (const cudaError_t error = before(FaultPoint::copy)) return done(error);
  return done(enqueue(stream, [=] {
    if (bytes) std::memset(to, value, bytes);
    return cudaSuccess;
  }));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (const cudaError_t error = alive()) return done(error);
  *stream = new Stream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return done(alive());
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return done(alive_outside_capture(stream));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return done(alive_outside_capture(stream)); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return done(alive()); }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  if (const cudaError_t error = alive()) return done(error);
  return done(enqueue(stream, [=] {
    function(argument);
    return cudaSuccess;
  }));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (const cudaError_t error = alive()) return done(error);
  *event = new Event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return done(alive());
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->time = std::chrono::steady_clock::now();
  event->captured = stream && stream->capture;
  return done(alive());
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->captured) return done(cudaErrorCapturedEvent);
  return done(alive_outside_capture());
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  if (start->captured || end->captured) return done(cudaErrorCapturedEvent);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return done(alive());
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (const cudaError_t error = alive()) return done(error);
  if (stream->capture) return done(cudaErrorStreamCaptureUnsupported);
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  stream->capture = new Graph;
  stream->capture_broken = false;
  stream->capturing_thread = std::this_thread::get_id();
  m.captures[stream->capturing_thread] = stream;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream->capture) return done(cudaErrorInvalidValue);
  if (stream->capturing_thread != std::this_thread::get_id()) return done(cudaErrorStreamCaptureWrongThread);
  {
    Machine& m = machine();
    const std::lock_guard<std::mutex> lock(m.mutex);
    m.captures.erase(stream->capturing_thread);
  }
  std::unique_ptr<Graph> captured(stream->capture);
  stream->capture = nullptr;
  if (stream->capture_broken) return done(cudaErrorStreamCaptureInvalidated);
  *graph = captured.release();
  return done(alive());
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void*, size_t* count) {
  *count = graph->work.size();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  if (const cudaError_t error = alive()) return done(error);
  *executable = new Executable{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (const cudaError_t error = before(FaultPoint::launch)) return done(error);
  if (stream->capture) return done(cudaErrorStreamCaptureUnsupported);
  for (const auto& work : executable->work) {
    if (const cudaError_t error = work()) return done(error);
  }
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return done(alive());
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return done(alive());
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (const cudaError_t error = alive()) return done(error);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) {
    return done(value < -1 || value > 100 ? cudaErrorInvalidValue : cudaSuccess);
  }
  if (value < 0 || static_cast<size_t>(value) > device_profile().shared) return done(cudaErrorInvalidValue);
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.mutex);
  m.shared_limits[function] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  const DeviceProfile& profile = device_profile();
  if (profile.sm < 80) return done(cudaErrorNoKernelImageForDevice);
  attributes->binaryVersion = profile.sm;
  attributes->ptxVersion = profile.ptx;
  return done(alive());
}
