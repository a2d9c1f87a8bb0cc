// Purpose: the gradient of BatchNorm's input.
// Equation: with r = 1 / sqrt(variance + epsilon) and n the normalised input,
//   training: gradInput (+)= r (d - means[0] - n means[1]); evaluation: gradInput (+)= r d.
// Shapes: x, d and gradInput [tokens, features], mean and variance [features], means [2, features] of
//   batch_norm_grad_sums; null in evaluation.
// Parallelisation: device/feature_tile.h.
// Why: the means over the batch were made before, so that this pass is a stream.
#pragma once

#include "device/feature_tile.h"

namespace flash_moe {

template <typename X>
__global__ void __launch_bounds__(FeatureTile::threads)
    batch_norm_grad(const X* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ variance,
                    const float* __restrict__ gradient, const float* __restrict__ means,
                    float* __restrict__ grad_input, int64_t tokens, int64_t features, float epsilon,
                    bool accumulate) {
  const FeatureTile tile(tokens, features);
#pragma unroll
  for (int q = 0; q < FeatureTile::each; q++) {
    float values[FeatureTile::rows] = {}, d[FeatureTile::rows], old[FeatureTile::rows] = {};
    tile.load_column(gradient, q, d);
    if (means) tile.load_column(x, q, values);
    if (accumulate) tile.load_column(grad_input, q, old);
    if (!tile.holds(q)) continue;
    const int64_t feature = tile.feature(q);
    const float centre = mean[feature], scale = 1.0f / sqrtf(variance[feature] + epsilon);
    const float own_mean = means ? means[feature] : 0.0f, own_product = means ? means[features + feature] : 0.0f;
#pragma unroll
    for (int r = 0; r < FeatureTile::rows; r++) {
      if (!tile.holds(r, q)) continue;
      const float change = means ? d[r] - own_mean - (values[r] - centre) * scale * own_product : d[r];
      const float own = scale * change;
      grad_input[tile.at(r, q)] = accumulate ? old[r] + own : own;
    }
  }
}

}  // namespace flash_moe
