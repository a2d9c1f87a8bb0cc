// Reductions and scans of the threads of a block, in a fixed order. All threads of the block must come; the block has
// `Threads` of them, a multiple of 32. Each begins with a barrier, so that they can follow one another and shared
// memory written before is visible after.
#pragma once

#include "device/warp.h"

namespace flash_moe {

struct SumOf {
  template <typename T>
  static FM_DEVICE T combine(T a, T b) {
    return a + b;
  }
};
struct MaxOf {
  template <typename T>
  static FM_DEVICE T combine(T a, T b) {
    return a < b ? b : a;
  }
};
struct MinOf {
  template <typename T>
  static FM_DEVICE T combine(T a, T b) {
    return b < a ? b : a;
  }
};

// Every thread gets the result: first the lanes of each warp, then the warps in ascending order.
template <int Threads, typename Operation, typename T>
FM_DEVICE T block_reduce(T value) {
  static_assert(Threads % warp_size == 0 && Threads <= 1024);
  FM_SHARED T by_warp[Threads / warp_size];
#pragma unroll
  for (int step = warp_size / 2; step > 0; step /= 2) {
    value = Operation::combine(value, __shfl_xor_sync(full_mask, value, step));
  }
  __syncthreads();
  if (lane_id() == 0) by_warp[warp_id()] = value;
  __syncthreads();
  T total = by_warp[0];
#pragma unroll
  for (int warp = 1; warp < Threads / warp_size; warp++) total = Operation::combine(total, by_warp[warp]);
  return total;
}

template <int Threads, typename T>
FM_DEVICE T block_sum(T value) {
  return block_reduce<Threads, SumOf>(value);
}
template <int Threads, typename T>
FM_DEVICE T block_max(T value) {
  return block_reduce<Threads, MaxOf>(value);
}
template <int Threads, typename T>
FM_DEVICE T block_min(T value) {
  return block_reduce<Threads, MinOf>(value);
}

// The sum of the threads before this one; `total` gets the sum of all.
template <int Threads, typename T>
FM_DEVICE T block_exclusive_scan(T value, T& total) {
  static_assert(Threads % warp_size == 0 && Threads <= 1024);
  FM_SHARED T by_warp[Threads / warp_size];
  const T inclusive = warp_inclusive_scan(value);
  __syncthreads();
  if (lane_id() == warp_size - 1) by_warp[warp_id()] = inclusive;
  __syncthreads();
  T before = 0;
  total = 0;
#pragma unroll
  for (int warp = 0; warp < Threads / warp_size; warp++) {
    if (warp == warp_id()) before = total;
    total += by_warp[warp];
  }
  return before + inclusive - value;
}

}  // namespace flash_moe
