// Purpose: exclusive prefix sums, first half: within blocks of 4,096.
// Equation: values[n] = sum of the values before n in its block; totals[block] = sum of the block.
// Shapes: values [size], totals [blocks].
// Parallelisation: a block of 256 threads, sixteen values to a thread; warps scan by shuffles, then the warps' totals.
// Why: levels (the totals are scanned in the same way, then added by scan_add) instead of looking back at a neighbour
//   that is still at work: three launches at most for 2^31 values, and nothing to set to zero first.
#pragma once

#include "device/cuda.h"

namespace flash_moe {

constexpr int scan_threads = 256;
constexpr int scan_values = 16;
constexpr int scan_block = scan_threads * scan_values;

__global__ void __launch_bounds__(scan_threads) scan_blocks(uint32_t* values, uint32_t* totals, int64_t size) {
  FM_SHARED uint32_t warp_sums[scan_threads / 32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * scan_block + threadIdx.x * scan_values;
  uint32_t own[scan_values];
  uint32_t sum = 0;
#pragma unroll
  for (int q = 0; q < scan_values; q++) {
    own[q] = first + q < size ? values[first + q] : 0;
    sum += own[q];
  }
  uint32_t up_to = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t before = __shfl_up_sync(full_mask, up_to, step);
    if (lane >= step) up_to += before;
  }
  if (lane == 31) warp_sums[warp] = up_to;
  __syncthreads();
  uint32_t before = up_to - sum;
  for (int other = 0; other < warp; other++) before += warp_sums[other];
#pragma unroll
  for (int q = 0; q < scan_values; q++) {
    if (first + q < size) values[first + q] = before;
    before += own[q];
  }
  if (threadIdx.x == scan_threads - 1) totals[blockIdx.x] = before;
}

}  // namespace flash_moe
