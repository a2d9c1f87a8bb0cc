// Purpose: the elementwise part of the experts' backward.
// Equation: with a = x . down[id] and q = d . up[id]: gradWeights (+)= act(a) q; a becomes act(a) w, q becomes
//   w act'(a) q: what the rows of d and x are multiplied by in the gradients of the tables.
// Shapes: all [tokens, k]; `pairs` elements.
// Parallelisation: one pair per thread.
// Why: in place: two numbers per pair is all that the backward keeps.
#pragma once

#include "device/activation.h"

namespace flash_moe {

__global__ void __launch_bounds__(256)
    expert_pair_grad(float* a, float* q, const float* weights, const int32_t* ids, float* grad_weights, int64_t pairs,
                     int64_t num_experts, Activation activation, bool accumulate) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (pair >= pairs) return;
  const bool present = ids[pair] >= 0 && ids[pair] < num_experts;
  // What is no expert may have no inner products.
  const float dot = present ? a[pair] : 0.0f;
  const float gradient = present ? q[pair] : 0.0f;
  const float weight = weights[pair];
  const float activated = activate(activation, dot);
  a[pair] = activated * weight;
  q[pair] = weight * activation_slope(activation, dot) * gradient;
  if (grad_weights) {
    const float own = present ? activated * gradient : 0.0f;
    grad_weights[pair] = accumulate ? grad_weights[pair] + own : own;
  }
}

}  // namespace flash_moe
