// The best of the keys that a warp holds in registers: key v of lane l has place 32 v + l, and of equal keys the one
// with the lower place is better. Larger is better; `no_key` is none.
#pragma once

#include <cstdint>

#include "device/cuda.h"
#include "device/order.h"
#include "device/warp.h"

namespace flash_moe {

// What belongs to the best: keys above the limit, and the first `equals` of those at the limit.
struct SelectLimit {
  uint32_t limit;
  int equals;
  // Whether there are more at the limit than belong.
  bool tied;
};

// How the limit is approached: on the keys' bits alone, or, where keys are ~bits of distances, first on the distances,
// which lie more evenly than their logarithms.
enum class Approach { bits, distances };

// The limits of the `wanted` best of each axis, 1 <= wanted <= 32 * EACH and no more than there are keys; all axes at
// once, so that one waits for the other's instructions. At least 32 * EACH keys are no worse than the worst lane's
// EACH-th best, where the search begins; counts of all lanes are one reduction.
template <int AXES, int V, int EACH, Approach APPROACH = Approach::bits>
FM_DEVICE void find_limits(const uint32_t (&keys)[AXES][V], const int (&wanted)[AXES], SelectLimit (&limits)[AXES],
                           uint32_t (&best)[AXES]) {
  static_assert(EACH == 1 || EACH == 2);
  static_assert(AXES <= 2 && 32 * V < 65536, "two counts share a word");
  // At least `wanted` keys reach `low`; `above` < wanted keys are above `high`.
  uint32_t low[AXES], high[AXES];
  int above[AXES];
#pragma unroll
  for (int axis = 0; axis < AXES; axis++) {
    uint32_t first = 0, second = 0;
#pragma unroll
    for (int v = 0; v < V; v++) {
      const uint32_t key = keys[axis][v];
      if (EACH == 2) second = max(second, min(first, key));
      first = max(first, key);
    }
    low[axis] = __reduce_min_sync(full_mask, EACH == 2 ? second : first);
    high[axis] = best[axis] = __reduce_max_sync(full_mask, first);
    above[axis] = 0;
    limits[axis].tied = true;
  }
  for (int step = 0;; step++) {
    uint32_t middle[AXES];
    uint32_t counts = 0;
    bool open = false;
#pragma unroll
    for (int axis = 0; axis < AXES; axis++) {
      open |= low[axis] < high[axis];
      middle[axis] = low[axis] + (high[axis] - low[axis] + 1) / 2;
      if (APPROACH == Approach::distances && step < 8) {
        const float far = __uint_as_float(~low[axis]), near = __uint_as_float(~high[axis]);
        const uint32_t between = ~__float_as_uint(0.5f * far + 0.5f * near);
        middle[axis] = min(max(between, low[axis] + 1), high[axis]);
      }
    }
    if (!open) break;
#pragma unroll
    for (int axis = 0; axis < AXES; axis++) {
#pragma unroll
      for (int v = 0; v < V; v++) counts += keys[axis][v] >= middle[axis] ? 1u << (16 * axis) : 0u;
    }
    counts = __reduce_add_sync(full_mask, counts);
#pragma unroll
    for (int axis = 0; axis < AXES; axis++) {
      if (low[axis] >= high[axis]) continue;
      const int count = static_cast<int>(counts >> (16 * axis) & 0xffffu);
      if (count < wanted[axis]) {
        high[axis] = middle[axis] - 1;
        above[axis] = count;
      } else {
        low[axis] = middle[axis];
        if (count == wanted[axis]) {
          high[axis] = low[axis];
          limits[axis].tied = false;
        }
      }
    }
  }
#pragma unroll
  for (int axis = 0; axis < AXES; axis++) {
    limits[axis].limit = low[axis];
    limits[axis].equals = wanted[axis] - above[axis];
  }
}

// Calls emit(n, v) in the lane of the n-th that belongs, in the order of places.
template <int V, typename Emit>
FM_DEVICE void take_best(const uint32_t (&keys)[V], const SelectLimit& limit, Emit emit) {
  const unsigned before = (1u << lane_id()) - 1;
  int taken = 0;
  if (!limit.tied) {
#pragma unroll
    for (int v = 0; v < V; v++) {
      const bool mine = keys[v] >= limit.limit;
      const unsigned all = __ballot_sync(full_mask, mine);
      if (mine) emit(taken + __popc(all & before), v);
      taken += __popc(all);
    }
    return;
  }
  int equals = 0;
#pragma unroll
  for (int v = 0; v < V; v++) {
    const bool equal = keys[v] == limit.limit;
    const unsigned all_equal = __ballot_sync(full_mask, equal);
    const bool mine = keys[v] > limit.limit || (equal && equals + __popc(all_equal & before) < limit.equals);
    const unsigned all = __ballot_sync(full_mask, mine);
    if (mine) emit(taken + __popc(all & before), v);
    taken += __popc(all);
    equals += __popc(all_equal);
  }
}

// The ranks, from 0, of the keys at places `lane` and, for EACH = 2, `lane` + 32 of a list of `count` keys in shared
// memory, 16-byte aligned and filled up with `no_key` to 32 * EACH. A place from `count` on has no rank.
template <int EACH>
FM_DEVICE void rank_list(const uint32_t* list, int count, int (&ranks)[EACH]) {
  const int lane = lane_id();
  uint32_t own[EACH];
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    own[e] = list[lane + 32 * e];
    ranks[e] = 0;
  }
#pragma unroll 4
  for (int n = 0; n < count; n += 4) {
    const uint4 four = *reinterpret_cast<const uint4*>(list + n);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      ranks[e] += (four.x > own[e]) + (four.y > own[e]) + (four.z > own[e]) + (four.w > own[e]);
    }
  }
  // Equal keys have now one rank; they are rare, and seen by the ranks that are missing.
  int different = 0;
#pragma unroll
  for (int word = 0; word < EACH; word++) {
    uint32_t mine = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      if (lane + 32 * e < count && ranks[e] / 32 == word) mine |= 1u << (ranks[e] % 32);
    }
    different += __popc(__reduce_or_sync(full_mask, mine));
  }
  if (different == count) return;
  for (int n = 0; n < count; n++) {
    const uint32_t key = list[n];
#pragma unroll
    for (int e = 0; e < EACH; e++) ranks[e] += key == own[e] && n < lane + 32 * e;
  }
}

}  // namespace flash_moe
