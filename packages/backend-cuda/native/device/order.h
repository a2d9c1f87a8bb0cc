// How logits are ordered: as the finite f32 that they are clamped to, or as unsigned integers that grow with it.
#pragma once

#include <cmath>
#include <cstdint>

#include "device/cuda.h"

namespace flash_moe {

constexpr float largest_logit = 3.402823466e38f;

// A logit as the selection sees it: within the finite numbers, NaN as their lowest.
FM_DEVICE float clamped_logit(float logit) {
  // The comparison is false for NaN.
  return fminf(logit > -largest_logit ? logit : -largest_logit, largest_logit);
}

// Grows with the value, infinities included; -0 is below 0. Not for NaN.
FM_DEVICE uint32_t value_key(float value) {
  const uint32_t bits = __float_as_uint(value);
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}

FM_DEVICE float key_value(uint32_t key) {
  return __uint_as_float(key ^ (static_cast<uint32_t>(static_cast<int32_t>(~key) >> 31) | 0x80000000u));
}

// The key of a logit. Adding 0 makes 0 of -0, which is its equal.
FM_DEVICE uint32_t order_key(float logit) { return value_key(__fadd_rn(clamped_logit(logit), 0.0f)); }

// Indices carry this bit where the logit is -infinity: its distance is finite for the selection, not for the weight.
constexpr uint32_t infinite_bit = 0x80000000u;

FM_DEVICE uint32_t marked_index(uint32_t index, float logit) {
  return logit == -INFINITY ? index | infinite_bit : index;
}

FM_DEVICE float weight_distance(float distance, uint32_t index) {
  return index & infinite_bit ? INFINITY : distance;
}

}  // namespace flash_moe
