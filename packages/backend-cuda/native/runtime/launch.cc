#include "runtime/launch.h"

#include <mutex>
#include <string>
#include <unordered_map>

namespace flash_moe {

namespace {

// What a block can have without asking, on any device.
constexpr size_t default_shared_bytes = 48 << 10;

struct AllowedBytes {
  std::mutex mutex;
  // By kernel and device.
  std::unordered_map<uintptr_t, size_t> bytes;
};

// Never destroyed: worker threads may launch while the process ends.
AllowedBytes& allowed_bytes() {
  static AllowedBytes* const one = new AllowedBytes;
  return *one;
}

}  // namespace

void allow_shared_memory(const void* kernel, size_t bytes) {
  int device = 0;
  check(cudaGetDevice(&device), "cannot ask for the current device");
  AllowedBytes& allowed = allowed_bytes();
  const std::lock_guard<std::mutex> lock(allowed.mutex);
  // Functions are aligned: the low bits are free for the device, and a collision would only ask once more.
  size_t& before = allowed.bytes[reinterpret_cast<uintptr_t>(kernel) * 64 + static_cast<uintptr_t>(device)];
  if (bytes <= before) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "cannot give a kernel its shared memory");
  // The driver makes room for several blocks by itself where what already runs lets it; this says that it matters.
  if (bytes > default_shared_bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
          "cannot make room for several blocks of a kernel");
  }
  before = bytes;
}

void launch_failed(cudaError_t error, const char* name, int64_t blocks, int threads, size_t shared_bytes) {
  fail(error, std::string("cannot launch ") + name + " (" + std::to_string(blocks) + " blocks of " +
                  std::to_string(threads) + " threads, " + std::to_string(shared_bytes) +
                  " bytes of shared memory)");
}

void clear(Context& context, void* data, size_t bytes, const char* doing) {
  if (!context.rehearses()) check(cudaMemsetAsync(data, 0, bytes, context.stream()), doing);
}

}  // namespace flash_moe
