// A merge sort of different 64-bit numbers, ascending, by all threads of a block.
#pragma once

#include <cstdint>

#include "device/cuda.h"

namespace flash_moe {

// Threads take neighbouring runs of eight numbers; a gap after every sixteenth puts the runs into different banks.
__host__ __device__ constexpr int64_t gapped(int64_t n) { return n + (n >> 4); }
// Below 2^31; the result may be above.
FM_DEVICE uint32_t gapped(uint32_t n) { return n + (n >> 4); }

constexpr uint32_t sort_run = 8;

FM_DEVICE void order_pair(uint64_t& a, uint64_t& b) {
  const uint64_t low = a < b ? a : b;
  b = a < b ? b : a;
  a = low;
}

// A network of 19 exchanges.
FM_DEVICE void sort_eight(uint64_t (&v)[sort_run]) {
  order_pair(v[0], v[2]), order_pair(v[1], v[3]), order_pair(v[4], v[6]), order_pair(v[5], v[7]);
  order_pair(v[0], v[4]), order_pair(v[1], v[5]), order_pair(v[2], v[6]), order_pair(v[3], v[7]);
  order_pair(v[0], v[1]), order_pair(v[2], v[3]), order_pair(v[4], v[5]), order_pair(v[6], v[7]);
  order_pair(v[2], v[4]), order_pair(v[3], v[5]);
  order_pair(v[1], v[4]), order_pair(v[3], v[6]);
  order_pair(v[1], v[2]), order_pair(v[3], v[4]), order_pair(v[5], v[6]);
}

// Sorts list[gapped(n)], n < count < 2^31; `spare` is of the same size. Returns the one of the two that holds the result.
// Each thread finds by binary search where its eight results begin in the two runs, and merges them: the path of a
// merge can be entered anywhere. Begins and ends with a barrier.
template <int THREADS>
FM_DEVICE uint64_t* sort_block(uint64_t* list, uint64_t* spare, uint32_t count) {
  __syncthreads();
  for (uint32_t start = threadIdx.x * sort_run; start < count; start += THREADS * sort_run) {
    uint64_t own[sort_run];
#pragma unroll
    for (uint32_t n = 0; n < sort_run; n++) own[n] = start + n < count ? list[gapped(start + n)] : ~uint64_t{0};
    sort_eight(own);
#pragma unroll
    for (uint32_t n = 0; n < sort_run; n++) {
      if (start + n < count) list[gapped(start + n)] = own[n];
    }
  }
  __syncthreads();
  for (uint32_t run = sort_run; run < count; run *= 2) {
    for (uint32_t start = threadIdx.x * sort_run; start < count; start += THREADS * sort_run) {
      // Runs are powers of two.
      const uint32_t first = start & ~(2 * run - 1);
      const uint32_t middle = min(first + run, count), end = min(middle + run, count);
      const uint32_t skipped = start - first, second = end - middle;
      // Of the results before `start`, `low` come from the first run.
      uint32_t low = skipped > second ? skipped - second : 0, high = min(skipped, middle - first);
      while (low < high) {
        const uint32_t half = (low + high) / 2;
        if (list[gapped(first + half)] < list[gapped(middle + skipped - 1 - half)]) {
          low = half + 1;
        } else {
          high = half;
        }
      }
      uint32_t a = first + low, b = middle + skipped - low;
      uint64_t next_a = a < middle ? list[gapped(a)] : ~uint64_t{0};
      uint64_t next_b = b < end ? list[gapped(b)] : ~uint64_t{0};
#pragma unroll
      for (uint32_t n = 0; n < sort_run; n++) {
        if (start + n >= count) break;
        if (next_a < next_b) {
          spare[gapped(start + n)] = next_a;
          a++;
          next_a = a < middle ? list[gapped(a)] : ~uint64_t{0};
        } else {
          spare[gapped(start + n)] = next_b;
          b++;
          next_b = b < end ? list[gapped(b)] : ~uint64_t{0};
        }
      }
    }
    __syncthreads();
    uint64_t* const sorted = spare;
    spare = list;
    list = sorted;
  }
  return list;
}

}  // namespace flash_moe
