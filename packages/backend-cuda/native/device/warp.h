// Reductions and scans of the lanes of a warp, in a fixed order. All lanes of the warp must come.
#pragma once

#include "device/cuda.h"

namespace flash_moe {

FM_DEVICE int lane_id() { return static_cast<int>(threadIdx.x) & (warp_size - 1); }
FM_DEVICE int warp_id() { return static_cast<int>(threadIdx.x) / warp_size; }

// Of each group of `Width` neighbouring lanes (a power of two); every lane gets the result.
template <int Width = warp_size, typename T>
FM_DEVICE T warp_sum(T value) {
#pragma unroll
  for (int step = Width / 2; step > 0; step /= 2) value += __shfl_xor_sync(full_mask, value, step);
  return value;
}

template <int Width = warp_size, typename T>
FM_DEVICE T warp_max(T value) {
#pragma unroll
  for (int step = Width / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(full_mask, value, step);
    value = value < other ? other : value;
  }
  return value;
}

template <int Width = warp_size, typename T>
FM_DEVICE T warp_min(T value) {
#pragma unroll
  for (int step = Width / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(full_mask, value, step);
    value = other < value ? other : value;
  }
  return value;
}

// The sum of the lanes up to and with this one.
template <int Width = warp_size, typename T>
FM_DEVICE T warp_inclusive_scan(T value) {
#pragma unroll
  for (int step = 1; step < Width; step *= 2) {
    const T before = __shfl_up_sync(full_mask, value, step, Width);
    if (lane_id() % Width >= step) value += before;
  }
  return value;
}

}  // namespace flash_moe
