// Purpose: exclusive prefix sums, second half: what comes before each block is added to it.
// Equation: values[n] += offsets[n / 4096].
// Shapes: values [size], offsets [blocks]: the scan of the blocks' totals.
// Parallelisation: one value per thread.
// Why: see scan_blocks.
#pragma once

#include "kernels/scan_blocks.cuh"

namespace flash_moe {

__global__ void __launch_bounds__(256) scan_add(uint32_t* values, const uint32_t* offsets, int64_t size) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (n < size) values[n] += offsets[n / scan_block];
}

}  // namespace flash_moe
