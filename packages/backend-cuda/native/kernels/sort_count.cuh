// Purpose: one pass of a stable counting sort, first half: how often each digit occurs in each block.
// Equation: counts[digit, block] = number of entries of the block with this digit, (key >> shift) & mask.
// Shapes: source [size] of (key, pair), counts [mask + 1, blocks], blocks of 4,096 entries.
// Parallelisation: a block of 256 threads, sixteen entries to a thread.
// Why: integer atomics in shared memory, whose sums do not depend on their order. Digits come first in `counts`, so
//   that one scan over it gives every entry's place.
#pragma once

#include "kernels/sort_entries.cuh"

namespace flash_moe {

__global__ void __launch_bounds__(sort_threads)
    sort_count(SortSource source, uint32_t* counts, uint32_t size, uint32_t blocks, SortDigit digit_of) {
  FM_SHARED uint32_t bins[1 << sort_max_digit_bits];
  for (uint32_t digit = threadIdx.x; digit <= digit_of.mask; digit += sort_threads) bins[digit] = 0;
  __syncthreads();
  const uint32_t first = blockIdx.x * static_cast<uint32_t>(sort_block) + threadIdx.x;
#pragma unroll 4
  for (int i = 0; i < sort_block / sort_threads; i++) {
    const uint32_t n = first + static_cast<uint32_t>(i * sort_threads);
    if (n < size) atomicAdd(&bins[digit_of(source[n])], 1u);
  }
  __syncthreads();
  for (uint32_t digit = threadIdx.x; digit <= digit_of.mask; digit += sort_threads)
    counts[static_cast<int64_t>(digit) * blocks + blockIdx.x] = bins[digit];
}

}  // namespace flash_moe
