// The threads that share a token: one warp of the block, or all of its WARPS warps. Sums are made in a fixed order.
#pragma once

#include "device/block.h"

namespace flash_moe {

template <int WARPS>
struct TokenGroup {
  static constexpr int size = warp_size * WARPS;

  FM_DEVICE static int thread() { return static_cast<int>(threadIdx.x) % size; }

  FM_DEVICE static void sync() {
    if constexpr (WARPS == 1) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  template <typename T>
  FM_DEVICE static T sum(T value) {
    if constexpr (WARPS == 1) {
      return warp_sum(value);
    } else {
      return block_sum<size>(value);
    }
  }

  FM_DEVICE static uint32_t max(uint32_t value) {
    value = __reduce_max_sync(full_mask, value);
    if constexpr (WARPS > 1) value = block_max<size>(value);
    return value;
  }

  FM_DEVICE static uint32_t min(uint32_t value) {
    value = __reduce_min_sync(full_mask, value);
    if constexpr (WARPS > 1) value = block_min<size>(value);
    return value;
  }
};

}  // namespace flash_moe
