#include "runtime/memory_pool.h"

#include <algorithm>
#include <cstdint>

#include "runtime/cuda_error.h"

#ifdef FLASH_MOE_SHIM
#include "shim/shared_memory.h"
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace flash_moe {

namespace {

// A call of the driver for each small block would cost more than the op that uses it. So they are kept here, in
// classes of 4 sizes for each power of two; larger ones go to CUDA's own pool, which can split and join them.
constexpr size_t smallest_block = 256;
constexpr size_t largest_kept_block = size_t{1} << 20;

struct SizeClass {
  int index;
  size_t bytes;
};

SizeClass size_class(size_t bytes) {
  if (bytes <= smallest_block) return {0, smallest_block};
  // The power of two below, and how many quarters of it come on top.
  size_t power = smallest_block;
  int index = 0;
  while (power * 2 < bytes) power *= 2, index += 4;
  const size_t quarter = power / 4, quarters = (bytes - power + quarter - 1) / quarter;
  return {index + static_cast<int>(quarters), power + quarters * quarter};
}

// In a sanitized build a kept block is as closed as a freed one, and an allocation ends at its last byte.
void open_block([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(data, bytes);
#endif
#ifdef FLASH_MOE_SHIM
  shim::fill_with_nan(data, bytes);
#endif
}
void close_block([[maybe_unused]] void* data, [[maybe_unused]] size_t from, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(static_cast<char*>(data) + from, bytes - from);
#endif
}

}  // namespace

MemoryPool::MemoryPool(int device, cudaStream_t stream, size_t limit)
    : stream_(stream), limit_(limit), free_blocks_(size_class(largest_kept_block).index + 1) {
  int supported = 0;
  check(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device), "cannot describe the device");
  if (!supported) return;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.handleTypes = cudaMemHandleTypeNone;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  check(cudaMemPoolCreate(&pool_, &properties), "cannot make a memory pool");
  // By default a pool gives everything back to the system whenever the stream is waited for.
  uint64_t threshold = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &threshold), "cannot set up a memory pool");
}

MemoryPool::~MemoryPool() {
  drop_cached();
  while (!owned_.empty()) {
    open_block(*owned_.begin(), smallest_block);
    release(*owned_.begin());
  }
  if (pool_) {
    cudaStreamSynchronize(stream_);
    cudaMemPoolDestroy(pool_);
  }
  cudaGetLastError();
}

void* MemoryPool::take(size_t bytes, MemoryUseKind kind, const std::string& label) {
  if (bytes == 0) return nullptr;
  if (reclaim_ && bytes > left()) reclaim_();
  if (bytes > left()) {
    throw Failure("OUT_OF_MEMORY", label + " needs " + std::to_string(bytes) + " bytes; " + std::to_string(left()) +
                                       " bytes are left of the budget of " + std::to_string(limit_));
  }
  void* data = nullptr;
  if (bytes <= largest_kept_block) {
    const SizeClass size = size_class(bytes);
    auto& blocks = free_blocks_[size.index];
    if (!blocks.empty()) {
      data = blocks.back();
      blocks.pop_back();
      cached_ -= size.bytes;
    }
  }
  if (!data) {
    const size_t rounded = bytes <= largest_kept_block ? size_class(bytes).bytes : bytes;
    cudaError_t error = allocate(&data, rounded);
    if (error == cudaErrorMemoryAllocation) {
      // Other processes may hold the rest; what lies around here is ours to give.
      cudaGetLastError();
      if (reclaim_) reclaim_();
      drop_cached();
      if (pool_ && cudaStreamSynchronize(stream_) == cudaSuccess) cudaMemPoolTrimTo(pool_, 0);
      error = allocate(&data, rounded);
    }
    if (error == cudaErrorMemoryAllocation) {
      size_t free_bytes = 0, total_bytes = 0;
      const bool known = cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess;
      cudaGetLastError();
      throw Failure("OUT_OF_MEMORY", label + " needs " + std::to_string(bytes) + " bytes; the device has " +
                                         (known ? std::to_string(free_bytes) + " of " + std::to_string(total_bytes) +
                                                      " bytes free"
                                                : "no room") +
                                         ", and this backend holds " + std::to_string(live_ + scratch_) + " (" +
                                         describe(error) + ")");
    }
    if (error != cudaSuccess) fail(error, "cannot allocate " + label);
  }
  open_block(data, bytes);
  if (bytes <= largest_kept_block) close_block(data, bytes, size_class(bytes).bytes);
  (kind == MemoryUseKind::live ? live_ : scratch_) += bytes;
  peak_ = std::max(peak_, live_ + scratch_);
  return data;
}

void MemoryPool::give(void* data, size_t bytes, MemoryUseKind kind) noexcept {
  if (!data) return;
  (kind == MemoryUseKind::live ? live_ : scratch_) -= bytes;
  if (bytes > largest_kept_block) {
    release(data);
    return;
  }
  const SizeClass size = size_class(bytes);
  close_block(data, 0, size.bytes);
  try {
    free_blocks_[size.index].push_back(data);
    cached_ += size.bytes;
  } catch (...) {
    open_block(data, size.bytes);
    release(data);
  }
}

cudaError_t MemoryPool::allocate(void** data, size_t bytes) {
  const cudaError_t error =
      pool_ ? cudaMallocFromPoolAsync(data, bytes, pool_, stream_) : cudaMalloc(data, bytes);
  if (error == cudaSuccess) owned_.insert(*data);
  return error;
}

void MemoryPool::release(void* data) noexcept {
  owned_.erase(data);
  if (pool_) {
    cudaFreeAsync(data, stream_);
  } else {
    cudaFree(data);
  }
}

void MemoryPool::drop_cached() noexcept {
  for (size_t index = 0; index < free_blocks_.size(); index++) {
    for (void* data : free_blocks_[index]) {
      open_block(data, smallest_block);
      release(data);
    }
    free_blocks_[index].clear();
  }
  cached_ = 0;
}

}  // namespace flash_moe
