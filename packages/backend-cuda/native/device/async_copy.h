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

struct Copies {
  // What a thread has not waited for, by groups; the last one is still open.
  std::deque<std::vector<Copy>> groups{1};
  // Whether copies have arrived that wgmma may not read yet (publish_shared_memory).
  bool unpublished = false;
};

// By thread of a block. Not thread_local: that is shared memory here, and overwritten before each block.
inline Copies& copies_of_thread() {
  static std::mutex mutex;
  static std::unordered_map<const Place*, Copies> threads;
  const std::lock_guard<std::mutex> lock(mutex);
  return threads[place];
}

}  // namespace shim

// The bytes arrive as late as they may; until then there is NaN.
inline void copy_16_async(void* to, const void* from, int bytes) {
  // The low four bits of both addresses must be free, also where nothing is read: the source's become 16 - bytes.
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0 || bytes < 0 ||
      bytes > 16) {
    std::abort();
  }
  std::memset(to, 0xff, 16);
  shim::copies_of_thread().groups.back().push_back({to, from, bytes});
}
inline void commit_copies() { shim::copies_of_thread().groups.emplace_back(); }
template <int PENDING>
inline void wait_copies() {
  auto& [groups, unpublished] = shim::copies_of_thread();
  while (groups.size() > PENDING + 1) {
    unpublished |= !groups.front().empty();
    for (const auto& copy : groups.front()) {
      std::memset(copy.to, 0, 16);
      if (copy.bytes > 0) std::memcpy(copy.to, copy.from, copy.bytes);
    }
    groups.pop_front();
  }
}

#else

// The first `bytes` (0 to 16) come from `from`, the rest is zero. Both addresses are multiples of 16. With 0 bytes nothing
// is read, and `from` may be null: the instruction (LDGSTS.ZFILL) takes `bytes != 0` as the predicate of its load.
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
