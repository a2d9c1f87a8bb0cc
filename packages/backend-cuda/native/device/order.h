// Logits as unsigned integers that grow with the logit, and what selection compares: the distance of a key from the
// best of its axis, an f32 >= 0 whose bits are ordered as it is.
#pragma once

#include <cmath>
#include <cstdint>

#include "device/cuda.h"

namespace flash_moe {

// Below the key of any logit: the key of a place that holds none.
constexpr uint32_t no_key = 0;
// Of the lowest finite number, for which -infinity and NaN count too.
constexpr uint32_t lowest_key = 0x00800000u;

FM_DEVICE uint32_t order_key(float logit) {
  constexpr float largest = 3.402823466e38f;
  // The comparison is false for NaN. Adding 0 makes 0 of -0, which is its equal.
  const float above = logit > -largest ? logit : -largest;
  const uint32_t bits = __float_as_uint(__fadd_rn(fminf(above, largest), 0.0f));
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}

// The logit, clamped, that a key stands for.
FM_DEVICE float key_value(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// Indices carry this bit where the logit is -infinity: its distance is finite for the selection, not for the weight.
constexpr uint32_t infinite_bit = 0x80000000u;

FM_DEVICE uint32_t marked_index(uint32_t index, float logit) {
  return logit == -INFINITY ? index | infinite_bit : index;
}

FM_DEVICE float weight_distance(float distance, uint32_t index) {
  return index & infinite_bit ? INFINITY : distance;
}

}  // namespace flash_moe
