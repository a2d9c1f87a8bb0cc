// Purpose: the k best of X * Y pairs of keys and their routing weights, for any k, in one launch.
// Equation: as router_staircase.
// Shapes: logits [tokens, keys_x + keys_y], x keys first; ids and weights [tokens, top_k]; up to 65,536 keys per axis,
//   whose ranks have 16 bits (maxKeysPerAxis of the backend).
// Parallelisation: a block of THREADS per token, or one after the other where the lists lie in scratch memory. Both axes
//   are sorted at once; the k-th best sum is found by bisection, each thread counting in its rows by binary search; the
//   pairs within it are collected, one per thread, and sorted.
// Why: along a row of ranks the sums never rise, rounding being monotone, so that a binary search counts exactly, and
//   what earlier steps counted bounds the next. The first steps halve distances, which lie more evenly than their bits,
//   and the bisection ends as soon as a count is k. Nothing of size X * Y is looked at.
#pragma once

#include <cmath>
#include <cstdint>

#include "device/block.h"
#include "device/block_sort.h"
#include "device/log_sum.h"
#include "device/order.h"

namespace flash_moe {

// Where the lists of a token lie in its piece of memory.
struct BisectLayout {
  int keys_x, keys_y, top_k;
  // Ranks that can be among the best.
  int rows, columns;
  // A rectangle of ranks with at least k pairs: none of the k best is further than its corner.
  int corner_row, corner_column;
  // Numbers in each of the two lists that are sorted.
  int64_t list;
  int64_t bytes;
};

inline BisectLayout bisect_layout(int64_t keys_x, int64_t keys_y, int64_t top_k) {
  BisectLayout layout;
  layout.keys_x = static_cast<int>(keys_x);
  layout.keys_y = static_cast<int>(keys_y);
  layout.top_k = static_cast<int>(top_k);
  const int64_t rows = keys_x < top_k ? keys_x : top_k, columns = keys_y < top_k ? keys_y : top_k;
  layout.rows = static_cast<int>(rows);
  layout.columns = static_cast<int>(columns);
  int64_t row = static_cast<int64_t>(std::sqrt(static_cast<double>(top_k))) + 1;
  if (row > rows) row = rows;
  int64_t column = ceil_div(top_k, row);
  if (column > columns) {
    column = columns;
    row = ceil_div(top_k, column);
  }
  layout.corner_row = static_cast<int>(row - 1);
  layout.corner_column = static_cast<int>(column - 1);
  layout.list = gapped((keys_x + keys_y > top_k ? keys_x + keys_y : top_k) - 1) + 1;
  layout.bytes = round_up(2 * 8 * layout.list + 2 * 4 * (rows + columns) + 3 * 4 * rows, 256);
  return layout;
}

struct BisectLists {
  uint64_t* list;
  uint64_t* spare;
  // By rank: the x keys, then the y keys.
  float* distances;
  uint32_t* indices;
  // Per row: how many pairs are within the failed and the sufficient limits, and within the limit that is tried.
  uint32_t* lows;
  uint32_t* highs;
  uint32_t* counts;

  FM_DEVICE BisectLists(unsigned char* memory, const BisectLayout& layout) {
    list = reinterpret_cast<uint64_t*>(memory);
    spare = list + layout.list;
    distances = reinterpret_cast<float*>(spare + layout.list);
    indices = reinterpret_cast<uint32_t*>(distances + layout.rows + layout.columns);
    lows = indices + layout.rows + layout.columns;
    highs = lows + layout.rows;
    counts = highs + layout.rows;
  }
};

// The bits of a sum of distances.
FM_DEVICE uint32_t pair_bits(float x, float y) { return __float_as_uint(__fadd_rn(x, y)); }

// Makes distances and indices by rank. Returns the best logits, clamped.
template <int THREADS>
FM_DEVICE void sort_axes(const BisectLayout& layout, const BisectLists& lists, const float* logits, float& best_x,
                         float& best_y) {
  const uint32_t keys_x = layout.keys_x, keys = keys_x + layout.keys_y;
  // The axis, the key from best to worst, the index.
  for (uint32_t n = threadIdx.x; n < keys; n += THREADS) {
    const bool is_y = n >= keys_x;
    const uint32_t index = is_y ? n - keys_x : n;
    lists.list[gapped(n)] = static_cast<uint64_t>(is_y) << 63 |
                            static_cast<uint64_t>(~order_key(logits[n])) << 31 | index;
  }
  const uint64_t* const sorted = sort_block<THREADS>(lists.list, lists.spare, keys);
  best_x = key_value(~static_cast<uint32_t>(sorted[0] >> 31));
  best_y = key_value(~static_cast<uint32_t>(sorted[gapped(keys_x)] >> 31));
  const uint32_t rows = layout.rows, ranks = rows + layout.columns;
  for (uint32_t n = threadIdx.x; n < ranks; n += THREADS) {
    const bool is_y = n >= rows;
    const uint64_t entry = sorted[gapped(is_y ? n - rows + keys_x : n)];
    const float value = key_value(~static_cast<uint32_t>(entry >> 31));
    uint32_t index = static_cast<uint32_t>(entry & 0x7fffffffu);
    lists.distances[n] = __fsub_rn(is_y ? best_y : best_x, value);
    if (value == -largest_logit) index = marked_index(index, logits[(is_y ? keys_x : 0) + index]);
    lists.indices[n] = index;
  }
  __syncthreads();
}

// How many pairs of a row are within a limit, known to be at least `low` and at most `high`.
FM_DEVICE uint32_t count_in_row(float x, const float* distances_y, uint32_t low, uint32_t high, uint32_t limit) {
  while (low < high) {
    const uint32_t half = (low + high) / 2;
    if (pair_bits(x, distances_y[half]) <= limit) {
      low = half + 1;
    } else {
      high = half;
    }
  }
  return low;
}

// Finds the smallest limit within which there are k pairs. After it, `lows` counts a row's pairs below the limit, of
// which there are `below` in all, and `highs` those within it; `below` is k where any pair within belongs.
template <int THREADS>
FM_DEVICE void bisect(const BisectLayout& layout, const BisectLists& lists, uint64_t& below) {
  const int thread = static_cast<int>(threadIdx.x);
  const float* const distances_y = lists.distances + layout.rows;
  for (int a = thread; a < layout.rows; a += THREADS) {
    lists.lows[a] = 0;
    lists.highs[a] = min(layout.columns, layout.top_k / (a + 1));
  }
  const uint64_t wanted = static_cast<uint64_t>(layout.top_k);
  uint32_t low = 0, high = pair_bits(lists.distances[layout.corner_row], distances_y[layout.corner_column]);
  below = 0;
  // The first step counts within the corner's sum, which suffices.
  uint32_t limit = high;
  for (int step = 0;; step++) {
    uint64_t own = 0;
    for (int a = thread; a < layout.rows; a += THREADS) {
      const uint32_t count =
          count_in_row(lists.distances[a], distances_y, lists.lows[a], lists.highs[a], limit);
      lists.counts[a] = count;
      own += count;
    }
    const uint64_t total = block_sum<THREADS>(own);
    const bool fits = total == wanted;
    for (int a = thread; a < layout.rows; a += THREADS) {
      if (fits || total < wanted) lists.lows[a] = lists.counts[a];
      if (fits || total > wanted) lists.highs[a] = lists.counts[a];
    }
    if (total < wanted) {
      low = limit + 1;
      below = total;
    } else {
      high = limit;
    }
    if (fits) below = wanted;
    if (fits || low >= high) break;
    limit = low + (high - low) / 2;
    if (step < 12) {
      const float between = 0.5f * __uint_as_float(low) + 0.5f * __uint_as_float(high);
      limit = min(max(__float_as_uint(between), low), high - 1);
    }
  }
  __syncthreads();
}

// Makes of counts the sums of those before, which are of no use, and cut, beyond `most`.
template <int THREADS, typename Count>
FM_DEVICE void sum_before(uint32_t* offsets, int rows, uint64_t most, Count count) {
  uint64_t before = 0;
  for (int start = 0; start < rows; start += THREADS) {
    const int a = start + static_cast<int>(threadIdx.x);
    uint64_t total;
    const uint64_t own = before + block_exclusive_scan<THREADS>(a < rows ? count(a) : uint64_t{0}, total);
    if (a < rows) offsets[a] = static_cast<uint32_t>(own < most ? own : most);
    before += total;
  }
  __syncthreads();
}

// The last row whose offset is not above `n`.
FM_DEVICE int row_of(const uint32_t* offsets, int rows, uint32_t n) {
  int low = 0, high = rows;
  while (low + 1 < high) {
    const int half = (low + high) / 2;
    if (offsets[half] <= n) {
      low = half;
    } else {
      high = half;
    }
  }
  return low;
}

// Collects the k best pairs in the list, each its sum's bits and its ranks.
template <int THREADS>
FM_DEVICE void collect_pairs(const BisectLayout& layout, const BisectLists& lists, uint64_t below) {
  const int thread = static_cast<int>(threadIdx.x);
  const float* const distances_y = lists.distances + layout.rows;
  const auto put = [&](uint32_t n, uint32_t a, uint32_t b) {
    lists.list[gapped(n)] =
        static_cast<uint64_t>(pair_bits(lists.distances[a], distances_y[b])) << 32 | a << 16 | b;
  };
  const uint32_t certain = static_cast<uint32_t>(below);
  const uint32_t missing = static_cast<uint32_t>(layout.top_k) - certain;
  sum_before<THREADS>(lists.counts, layout.rows, below, [&](int a) { return uint64_t{lists.lows[a]}; });
  for (uint32_t n = thread; n < certain; n += THREADS) {
    const int a = row_of(lists.counts, layout.rows, n);
    put(n, a, n - lists.counts[a]);
  }
  if (missing == 0) return;
  // At the limit the first by ranks.
  __syncthreads();
  sum_before<THREADS>(lists.counts, layout.rows, missing,
                      [&](int a) { return uint64_t{lists.highs[a]} - lists.lows[a]; });
  for (uint32_t n = thread; n < missing; n += THREADS) {
    const int a = row_of(lists.counts, layout.rows, n);
    put(certain + n, a, lists.lows[a] + n - lists.counts[a]);
  }
}

// IN_SHARED: the lists are in shared memory, and `scratch` is not used; else block b has piece b of it.
template <int THREADS, bool IN_SHARED>
__global__ void __launch_bounds__(THREADS, THREADS == 512 ? 1 : 1024 / THREADS)
    router_bisect(const float* logits, int32_t* ids, float* weights, int64_t tokens, BisectLayout layout,
                  bool normalize, unsigned char* scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  unsigned char* memory;
  if constexpr (IN_SHARED) {
    FM_DYNAMIC_SHARED(unsigned char, shared);
    memory = shared;
  } else {
    memory = scratch + blockIdx.x * layout.bytes;
  }
  const BisectLists lists(memory, layout);
  for (int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    const float* const own = logits + token * (layout.keys_x + layout.keys_y);
    float best_x, best_y;
    sort_axes<THREADS>(layout, lists, own, best_x, best_y);
    uint64_t below;
    bisect<THREADS>(layout, lists, below);
    collect_pairs<THREADS>(layout, lists, below);
    const uint64_t* const pairs = sort_block<THREADS>(lists.list, lists.spare, layout.top_k);

    float sum_x = 0.0f, sum_y = 0.0f;
    for (int n = thread; n < layout.keys_x; n += THREADS) sum_x += softmax_term(own[n], best_x);
    for (int n = thread; n < layout.keys_y; n += THREADS) sum_y += softmax_term(own[layout.keys_x + n], best_y);
    const float log_x = log_of_sum(block_sum<THREADS>(sum_x));
    const float log_y = log_of_sum(block_sum<THREADS>(sum_y));
    const bool valid = isfinite(log_x + log_y);

    const auto pair_of = [&](uint32_t n, uint32_t& i, uint32_t& j, float& x, float& y) {
      const uint32_t ranks = static_cast<uint32_t>(pairs[gapped(n)]);
      const uint32_t a = ranks >> 16, b = layout.rows + (ranks & 0xffffu);
      i = lists.indices[a];
      j = lists.indices[b];
      x = weight_distance(lists.distances[a], i);
      y = weight_distance(lists.distances[b], j);
    };
    const uint32_t top_k = layout.top_k;
    uint32_t i, j;
    float x, y;
    float sum = 0.0f;
    if (normalize) {
      for (uint32_t n = thread; n < top_k; n += THREADS) {
        pair_of(n, i, j, x, y);
        sum += expf(-(x + y));
      }
      sum = valid ? block_sum<THREADS>(sum) : NAN;
    }
    for (uint32_t n = thread; n < top_k; n += THREADS) {
      pair_of(n, i, j, x, y);
      ids[token * top_k + n] =
          static_cast<int32_t>((i & ~infinite_bit) * layout.keys_y + (j & ~infinite_bit));
      // Normalized, relative to the largest, whose distances are 0.
      weights[token * top_k + n] =
          normalize ? expf(-(x + y)) / sum : expf(-((x + log_x) + (y + log_y)));
    }
    // Before the lists are those of the next token.
    __syncthreads();
  }
}

}  // namespace flash_moe
