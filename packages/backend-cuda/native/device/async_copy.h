// Copies from device to shared memory that do not pass through registers (cp.async), 16 bytes each.
#pragma once

#include <cstdint>
#include <cstring>

#include "device/cuda.h"

#ifdef FLASH_MOE_SHIM
#include <deque>
#include <mutex>
#include <unordered_map>
#include <vector>
#endif

namespace flash_moe {

#ifdef FLASH_MOE_SHIM

namespace shim {

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

// The groups of copies that a thread has not waited for; the last one is still open.
using Pending = std::deque<std::vector<Copy>>;

// By thread of a block. Not thread_local: that is shared memory here, and overwritten before each block.
inline Pending& pending_copies() {
  static std::mutex mutex;
  static std::unordered_map<const Place*, Pending> threads;
  const std::lock_guard<std::mutex> lock(mutex);
  Pending& groups = threads[place];
  if (groups.empty()) groups.emplace_back();
  return groups;
}

}  // namespace shim

// The bytes arrive as late as they may; until then there is NaN.
inline void copy_16_async(void* to, const void* from, int bytes) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || (bytes > 0 && reinterpret_cast<uintptr_t>(from) % 16 != 0)) {
    std::abort();
  }
  std::memset(to, 0xff, 16);
  shim::pending_copies().back().push_back({to, from, bytes});
}
inline void commit_copies() { shim::pending_copies().emplace_back(); }
template <int PENDING>
inline void wait_copies() {
  auto& groups = shim::pending_copies();
  while (groups.size() > PENDING + 1) {
    for (const auto& copy : groups.front()) {
      std::memset(copy.to, 0, 16);
      if (copy.bytes > 0) std::memcpy(copy.to, copy.from, copy.bytes);
    }
    groups.pop_front();
  }
}

#else

// The first `bytes` (0 to 16) come from `from`, the rest is zero. Both addresses are multiples of 16; with 0 bytes
// nothing is read.
__device__ __forceinline__ void copy_16_async(void* to, const void* from, int bytes) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}

// Closes a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Returns when all but the last PENDING groups of this thread have arrived; other threads need a barrier to see them.
template <int PENDING>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#endif

}  // namespace flash_moe
