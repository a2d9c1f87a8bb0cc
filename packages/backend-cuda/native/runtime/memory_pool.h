// The memory of a device, in the order of one stream: what is given back may be handed out again at once, since all
// work is enqueued on that stream.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <unordered_set>
#include <vector>

#include "device/cuda.h"

namespace flash_moe {

enum class MemoryUseKind { live, scratch };

class MemoryPool {
 public:
  // `limit`: what live and scratch may come to together.
  MemoryPool(int device, cudaStream_t stream, size_t limit);
  // Frees everything, also what was not given back.
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // 256-byte aligned. OUT_OF_MEMORY, with nothing changed, where it does not fit the limit or the device.
  void* take(size_t bytes, MemoryUseKind kind, const std::string& label);
  void give(void* data, size_t bytes, MemoryUseKind kind) noexcept;

  // Called where there is no room, before the second try.
  void set_reclaim(std::function<void()> reclaim) { reclaim_ = std::move(reclaim); }

  size_t live() const { return live_; }
  size_t scratch() const { return scratch_; }
  size_t peak() const { return peak_; }
  size_t limit() const { return limit_; }
  size_t cached() const { return cached_; }

 private:
  size_t left() const { return limit_ > live_ + scratch_ ? limit_ - live_ - scratch_ : 0; }
  cudaError_t allocate(void** data, size_t bytes);
  void release(void* data) noexcept;
  void drop_cached() noexcept;

  cudaStream_t stream_;
  // Null where the device has no pools of its own.
  cudaMemPool_t pool_ = nullptr;
  size_t limit_, live_ = 0, scratch_ = 0, peak_ = 0, cached_ = 0;
  // Small blocks by size class, see memory_pool.cc.
  std::vector<std::vector<void*>> free_blocks_;
  // All that the driver gave: in use, or kept.
  std::unordered_set<void*> owned_;
  std::function<void()> reclaim_;
};

}  // namespace flash_moe
