// Purpose: the elementwise part of the shared MLP's backward in f32.
// Equation: with a = x Wg^T, b = x Wu^T and dh = gradOutput Wd:
//   hidden = act(a) b, da = dh b act'(a), db = dh act(a); a becomes da, b becomes db, dh becomes hidden.
// Shapes: a and b the halves of projections [tokens, 2 units], dh [tokens, units], all in f32.
// Parallelisation: one element per thread.
// Why: in place, so that the backward needs three intermediates and not six.
#pragma once

#include "device/activation.h"

namespace flash_moe {

__global__ void __launch_bounds__(256)
    mlp_grad(float* projections, float* gradient, int64_t tokens, int64_t units, Activation activation) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (index >= tokens * units) return;
  const int64_t token = index / units, unit = index % units;
  float* const gates = projections + token * 2 * units + unit;
  const float a = gates[0], b = gates[units], dh = gradient[index];
  const float activated = activate(activation, a);
  gates[0] = dh * b * activation_slope(activation, a);
  gates[units] = dh * activated;
  gradient[index] = activated * b;
}

}  // namespace flash_moe
