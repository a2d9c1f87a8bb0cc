// Purpose: one pass of a stable counting sort, second half: every entry to its place.
// Equation: place = starts[digit, block] + number of earlier entries of the block with the same digit.
// Shapes: source and sorted [size] of (key, pair), starts [mask + 1, blocks]: the scan of what sort_count wrote.
// Parallelisation: a block of 256 threads takes 4,096 entries, each warp 512 that lie side by side. The warps count
//   their digits, the counts become the places where each warp's entries of a digit begin, and a warp then places 32
//   entries at a time: those with the same digit know each other by __match_any_sync.
// Why: counting the earlier ones instead of claiming places with an atomic keeps the order of equal keys: the sort is
//   stable, so sums over it have one order.
#pragma once

#include "kernels/sort_entries.cuh"

namespace flash_moe {

__global__ void __launch_bounds__(sort_threads)
    sort_place(SortSource source, const uint32_t* starts, uint2* sorted, uint32_t size, uint32_t blocks,
               SortDigit digit_of) {
  FM_SHARED uint32_t places[sort_warps][1 << sort_max_digit_bits];
  const uint32_t thread = threadIdx.x;
  const uint32_t warp = thread / 32, lane = thread % 32;
  for (uint32_t digit = lane; digit <= digit_of.mask; digit += 32) places[warp][digit] = 0;
  __syncwarp();
  const uint32_t first =
      blockIdx.x * static_cast<uint32_t>(sort_block) + warp * static_cast<uint32_t>(sort_warp_entries) + lane;
#pragma unroll 4
  for (uint32_t i = 0; i < sort_warp_entries; i += 32) {
    if (first + i < size) atomicAdd(&places[warp][digit_of(source[first + i])], 1u);
  }
  __syncthreads();
  for (uint32_t digit = thread; digit <= digit_of.mask; digit += sort_threads) {
    uint32_t place = starts[static_cast<int64_t>(digit) * blocks + blockIdx.x];
    for (int w = 0; w < sort_warps; w++) {
      const uint32_t count = places[w][digit];
      places[w][digit] = place;
      place += count;
    }
  }
  __syncthreads();
  for (uint32_t i = 0; i < sort_warp_entries; i += 32) {
    const bool present = first + i < size;
    uint2 entry = make_uint2(0, 0);
    // No digit, so that lanes without an entry meet only each other.
    uint32_t digit = 0xffffffffu;
    if (present) {
      entry = source[first + i];
      digit = digit_of(entry);
    }
    const uint32_t same = __match_any_sync(full_mask, digit);
    const uint32_t earlier = static_cast<uint32_t>(__popc(same & ((1u << lane) - 1u)));
    uint32_t place = 0;
    if (present) place = places[warp][digit];
    __syncwarp();
    if (present) {
      sorted[place + earlier] = entry;
      if (earlier == 0) places[warp][digit] = place + static_cast<uint32_t>(__popc(same));
    }
    __syncwarp();
  }
}

}  // namespace flash_moe
