// A merge sort of different 64-bit numbers, ascending, by all threads of a block.
#pragma once

#include <cstdint>

#include "device/cuda.h"

namespace flash_moe {

// Threads take neighbouring runs of eight numbers; a gap after every sixteenth puts the runs into different banks.
__host__ __device__ constexpr int64_t gapped(int64_t n) { return n + (n >> 4); }
FM_DEVICE int gapped(int n) { return n + (n >> 4); }

constexpr int sort_run = 8;

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

// Sorts list[gapped(n)], n < count; `spare` is of the same size. Returns the one of the two that holds the result.
// Each thread finds by binary search where its eight results begin in the two runs, and merges them: the path of a
// merge can be entered anywhere. Begins and ends with a barrier.
template <int THREADS>
FM_DEVICE uint64_t* sort_block(uint64_t* list, uint64_t* spare, int count) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  for (int start = thread * sort_run; start < count; start += THREADS * sort_run) {
    uint64_t own[sort_run];
#pragma unroll
    for (int n = 0; n < sort_run; n++) own[n] = start + n < count ? list[gapped(start + n)] : ~uint64_t{0};
    sort_eight(own);
#pragma unroll
    for (int n = 0; n < sort_run; n++) {
      if (start + n < count) list[gapped(start + n)] = own[n];
    }
  }
  __syncthreads();
  for (int64_t run = sort_run; run < count; run *= 2) {
    for (int start = thread * sort_run; start < count; start += THREADS * sort_run) {
      const int first = static_cast<int>(start / (2 * run) * (2 * run));
      const int middle = static_cast<int>(first + run < count ? first + run : count);
      const int end = static_cast<int>(middle + run < count ? middle + run : count);
      const int skipped = start - first;
      // Of the results before `start`, `low` come from the first run.
      int low = max(0, skipped - (end - middle)), high = min(skipped, middle - first);
      while (low < high) {
        const int half = (low + high) / 2;
        if (list[gapped(first + half)] < list[gapped(middle + skipped - 1 - half)]) {
          low = half + 1;
        } else {
          high = half;
        }
      }
      int a = first + low, b = middle + skipped - low;
      uint64_t next_a = a < middle ? list[gapped(a)] : ~uint64_t{0};
      uint64_t next_b = b < end ? list[gapped(b)] : ~uint64_t{0};
#pragma unroll
      for (int n = 0; n < sort_run; n++) {
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
