// The largest of the values that a warp holds in registers: value v of lane l has place 32 v + l, and of equal values
// the one with the lower place comes first. NaN is no value.
#pragma once

#include <cmath>
#include <cstdint>

#include "device/cuda.h"
#include "device/order.h"
#include "device/warp.h"

namespace flash_moe {

// count += 1 where the value reaches the limit, or is above it, as one comparison and one addition.
#ifdef FLASH_MOE_SHIM

inline void count_reaching(uint32_t& count, float value, float limit) { count += value >= limit; }
inline void count_above(uint32_t& count, float value, float limit) { count += value > limit; }

#else

FM_DEVICE void count_reaching(uint32_t& count, float value, float limit) {
  asm("{ .reg .pred p; setp.ge.f32 p, %1, %2; @p add.u32 %0, %0, 1; }" : "+r"(count) : "f"(value), "f"(limit));
}
FM_DEVICE void count_above(uint32_t& count, float value, float limit) {
  asm("{ .reg .pred p; setp.gt.f32 p, %1, %2; @p add.u32 %0, %0, 1; }" : "+r"(count) : "f"(value), "f"(limit));
}

#endif

// What belongs to the largest: values above the limit, and the first `equals` of those at the limit.
struct SelectLimit {
  float limit;
  int equals;
  // Whether there are more at the limit than belong.
  bool tied;
};

// The limits of the `wanted` largest of each axis, 1 <= wanted <= 32 * EACH and no more than there are values; all
// axes at once, so that one waits for the other's instructions. At least 32 * EACH values are no less than the worst
// lane's EACH-th largest, where the search begins; counts of all lanes are one reduction. The first steps halve the
// values, which lie more evenly than their bits, the others their bits, so that 40 steps suffice; some 8 are usual.
template <int AXES, int V, int EACH>
FM_DEVICE void find_limits(const float (&values)[AXES][V], const int (&wanted)[AXES], SelectLimit (&limits)[AXES],
                           float (&largest)[AXES]) {
  static_assert(EACH == 1 || EACH == 2);
  static_assert(AXES <= 2 && 32 * V < 65536, "two counts share a word");
  // As order keys: at least `wanted` values reach `low`; `above` < wanted values are above `high`.
  uint32_t low[AXES], high[AXES];
  int above[AXES];
#pragma unroll
  for (int axis = 0; axis < AXES; axis++) {
    float first = -INFINITY, second = -INFINITY;
#pragma unroll
    for (int v = 0; v < V; v++) {
      const float value = values[axis][v];
      // The smaller of the two, or NaN, which fmaxf passes over.
      if (EACH == 2) second = fmaxf(second, first < value ? first : value);
      first = fmaxf(first, value);
    }
    low[axis] = __reduce_min_sync(full_mask, value_key(EACH == 2 ? second : first));
    high[axis] = __reduce_max_sync(full_mask, value_key(first));
    largest[axis] = key_value(high[axis]);
    above[axis] = 0;
    limits[axis].tied = true;
  }
  for (int step = 0;; step++) {
    uint32_t middle[AXES];
    bool open = false;
#pragma unroll
    for (int axis = 0; axis < AXES; axis++) {
      open |= low[axis] < high[axis];
      middle[axis] = low[axis] + (high[axis] - low[axis] + 1) / 2;
    }
    if (!open) break;
    if (step < 8) {
#pragma unroll
      for (int axis = 0; axis < AXES; axis++) {
        const float between = 0.5f * key_value(low[axis]) + 0.5f * key_value(high[axis]);
        middle[axis] = min(max(value_key(between), low[axis] + 1), high[axis]);
      }
    }
    // Two chains of additions, whichever the number of axes is.
    uint32_t counts[2] = {};
#pragma unroll
    for (int v = 0; v < V; v++) {
#pragma unroll
      for (int axis = 0; axis < AXES; axis++) {
        count_reaching(counts[AXES == 2 ? axis : v % 2], values[axis][v], key_value(middle[axis]));
      }
    }
    const uint32_t all = __reduce_add_sync(full_mask, counts[0] + (AXES == 2 ? counts[1] << 16 : counts[1]));
#pragma unroll
    for (int axis = 0; axis < AXES; axis++) {
      const int count = static_cast<int>(axis == 0 ? all & 0xffffu : all >> 16);
      const bool enough = count >= wanted[axis], fits = count == wanted[axis];
      // Once an axis is found, its middle is `low` and nothing changes.
      above[axis] = enough ? above[axis] : count;
      high[axis] = fits ? middle[axis] : enough ? high[axis] : middle[axis] - 1;
      low[axis] = enough ? middle[axis] : low[axis];
      limits[axis].tied &= !fits;
    }
  }
#pragma unroll
  for (int axis = 0; axis < AXES; axis++) {
    limits[axis].limit = key_value(low[axis]);
    limits[axis].equals = wanted[axis] - above[axis];
  }
}

// Calls emit(n, v) in the lane of the n-th that belongs, in the order of places.
template <int V, typename Emit>
FM_DEVICE void take_largest(const float (&values)[V], const SelectLimit& limit, Emit emit) {
  const unsigned before = (1u << lane_id()) - 1;
  int taken = 0;
  if (!limit.tied) {
#pragma unroll
    for (int v = 0; v < V; v++) {
      const bool mine = values[v] >= limit.limit;
      const unsigned all = __ballot_sync(full_mask, mine);
      if (mine) emit(taken + __popc(all & before), v);
      taken += __popc(all);
    }
    return;
  }
  int equals = 0;
#pragma unroll
  for (int v = 0; v < V; v++) {
    const bool equal = values[v] == limit.limit;
    const unsigned all_equal = __ballot_sync(full_mask, equal);
    const bool mine = values[v] > limit.limit || (equal && equals + __popc(all_equal & before) < limit.equals);
    const unsigned all = __ballot_sync(full_mask, mine);
    if (mine) emit(taken + __popc(all & before), v);
    taken += __popc(all);
    equals += __popc(all_equal);
  }
}

// Fills the places that a list of `count` values leaves of COUNT.
template <int COUNT>
FM_DEVICE void fill_list(float* list, int count) {
#pragma unroll
  for (int n = 0; n < COUNT; n += 32) {
    if (n + lane_id() >= count && n + lane_id() < COUNT) list[n + lane_id()] = NAN;
  }
}

// The ranks, from 0, of the values at places `lane` and, for COUNT = 64, `lane` + 32 of a list of `count` values in
// shared memory, 16-byte aligned and filled up to COUNT. A place from `count` on has no rank.
template <int COUNT>
FM_DEVICE void rank_list(const float* list, int count, int (&ranks)[ceil_div(COUNT, 32)]) {
  constexpr int EACH = ceil_div(COUNT, 32);
  const int lane = lane_id();
  float own[EACH];
  uint32_t larger[EACH];
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    own[e] = lane + 32 * e < count ? list[lane + 32 * e] : NAN;
    larger[e] = 0;
  }
#pragma unroll
  for (int n = 0; n < COUNT; n += 4) {
    const float4 four = *reinterpret_cast<const float4*>(list + n);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      count_above(larger[e], four.x, own[e]);
      count_above(larger[e], four.y, own[e]);
      count_above(larger[e], four.z, own[e]);
      count_above(larger[e], four.w, own[e]);
    }
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) ranks[e] = static_cast<int>(larger[e]);
  // Equal values have now one rank; they are rare, and seen by the ranks that are missing.
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
    const float value = list[n];
#pragma unroll
    for (int e = 0; e < EACH; e++) ranks[e] += value == own[e] && n < lane + 32 * e;
  }
}

}  // namespace flash_moe
