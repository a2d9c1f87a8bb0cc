// The k <= 64 best pairs of two ranked axes, by one warp. The pair at ranks (a, b), counted from 1, has a b - 1 pairs
// before it, so only a b <= k can be among them: 280 for k = 64, whatever the axes' lengths are.
#pragma once

#include <cmath>
#include <cstdint>

#include "device/cuda.h"
#include "device/log_sum.h"
#include "device/order.h"
#include "device/warp.h"
#include "device/warp_select.h"

namespace flash_moe {

// All pairs of ranks with a b <= LARGEST in the order in which equal sums come out, (a - 1) << 8 | b - 1, filled up to
// whole warps with pairs that are out for every k.
template <int LARGEST>
struct StaircaseTable {
  static constexpr int count() {
    int sum = 0;
    for (int a = 1; a <= LARGEST; a++) sum += LARGEST / a;
    return sum;
  }
  // Candidates per lane.
  static constexpr int each = (count() + 31) / 32;

  uint16_t pairs[32 * each];

  constexpr StaircaseTable() : pairs() {
    int n = 0;
    for (int a = 1; a <= LARGEST; a++) {
      for (int b = 1; a * b <= LARGEST; b++) pairs[n++] = static_cast<uint16_t>((a - 1) << 8 | (b - 1));
    }
    for (; n < 32 * each; n++) pairs[n] = 0xffff;
  }
};

static __device__ const StaircaseTable<16> staircase_16{};
static __device__ const StaircaseTable<32> staircase_32{};
static __device__ const StaircaseTable<64> staircase_64{};

template <int LARGEST>
FM_DEVICE uint32_t staircase_pair(int n) {
  if constexpr (LARGEST == 16) {
    return staircase_16.pairs[n];
  } else if constexpr (LARGEST == 32) {
    return staircase_32.pairs[n];
  } else {
    return staircase_64.pairs[n];
  }
}

// What a warp keeps of a token in shared memory.
struct alignas(16) StaircaseLists {
  // Of the keys found, in the order of their indices: clamped logits. Later the pairs that belong.
  float values[2][64];
  uint32_t indices[2][64];
  // By rank.
  float distances[2][64];
  uint32_t ranked[2][64];
};

struct StaircaseOutput {
  int32_t* ids;
  float* weights;
  int keys_y, top_k;
  bool normalize;
};

// Makes `distances` and `ranked` of an axis out of the `count` keys found.
template <int LARGEST>
FM_DEVICE void rank_axis(StaircaseLists& lists, int axis, int count, float best, const float* logits) {
  constexpr int EACH = ceil_div(LARGEST, 32);
  int ranks[EACH];
  rank_list<LARGEST>(lists.values[axis], count, ranks);
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int n = lane_id() + 32 * e;
    if (n >= count) continue;
    const float value = lists.values[axis][n];
    uint32_t index = lists.indices[axis][n];
    if (value == -largest_logit) index = marked_index(index, logits[index]);
    lists.distances[axis][ranks[e]] = __fsub_rn(best, value);
    lists.ranked[axis][ranks[e]] = index;
  }
}

// Chooses among the pairs of the ranked axes, and writes ids and weights. All lanes; the lists are visible to all.
template <int LARGEST>
FM_DEVICE void write_best_pairs(StaircaseLists& lists, int rows, int columns, const float (&logs)[2],
                                const StaircaseOutput& output) {
  constexpr int V = StaircaseTable<LARGEST>::each;
  constexpr int EACH = ceil_div(LARGEST, 32);
  const int lane = lane_id();
  float scores[1][V];
  uint32_t pairs[V];
#pragma unroll
  for (int v = 0; v < V; v++) {
    const uint32_t pair = staircase_pair<LARGEST>(32 * v + lane);
    const int a = static_cast<int>(pair >> 8), b = static_cast<int>(pair & 255u);
    const bool inside = a < rows && b < columns && (a + 1) * (b + 1) <= output.top_k;
    pairs[v] = pair;
    scores[0][v] = inside ? -__fadd_rn(lists.distances[0][a], lists.distances[1][b]) : NAN;
  }
  const int wanted[1] = {output.top_k};
  SelectLimit limits[1];
  float best[1];
  find_limits<1, V, EACH>(scores, wanted, limits, best);
  fill_list<LARGEST>(lists.values[0], output.top_k);
  take_largest<V>(scores[0], limits[0], [&](int n, int v) {
    lists.values[0][n] = scores[0][v];
    lists.indices[0][n] = pairs[v];
  });
  __syncwarp();
  int ranks[EACH];
  rank_list<LARGEST>(lists.values[0], output.top_k, ranks);
  float weights[EACH];
  float sum = 0.0f;
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int n = lane + 32 * e;
    weights[e] = 0.0f;
    if (n >= output.top_k) continue;
    const uint32_t pair = lists.indices[0][n];
    const uint32_t i = lists.ranked[0][pair >> 8], j = lists.ranked[1][pair & 255u];
    const float x = weight_distance(lists.distances[0][pair >> 8], i);
    const float y = weight_distance(lists.distances[1][pair & 255u], j);
    output.ids[ranks[e]] = static_cast<int32_t>((i & ~infinite_bit) * output.keys_y + (j & ~infinite_bit));
    // Normalized, relative to the largest, whose distances are 0.
    weights[e] = output.normalize ? expf(-(x + y)) : expf(-((x + logs[0]) + (y + logs[1])));
    sum += weights[e];
  }
  if (output.normalize) {
    sum = warp_sum(sum);
    const bool valid = isfinite(logs[0] + logs[1]);
#pragma unroll
    for (int e = 0; e < EACH; e++) weights[e] = valid ? weights[e] / sum : NAN;
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    if (lane + 32 * e < output.top_k) output.weights[ranks[e]] = weights[e];
  }
}

}  // namespace flash_moe
