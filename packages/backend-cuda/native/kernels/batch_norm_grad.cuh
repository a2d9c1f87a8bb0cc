// Purpose: the gradient of BatchNorm's input.
// Equation: with r = 1 / sqrt(variance + epsilon) and n the normalised input,
//   training: gradInput (+)= r (d - mean_t(d) - n mean_t(d n)); evaluation: gradInput (+)= r d.
// Shapes: x, d and gradInput [tokens, features], mean and variance [features], means [2, features]; null in evaluation.
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
    const int64_t feature = tile.feature(q);
    if (feature >= features) continue;
    const float centre = mean[feature], scale = 1.0f / sqrtf(variance[feature] + epsilon);
    const float own_mean = means ? means[feature] : 0.0f, own_product = means ? means[features + feature] : 0.0f;
#pragma unroll
    for (int r = 0; r < FeatureTile::rows; r++) {
      if (!tile.holds(r, q)) continue;
      const int64_t at = tile.at(r, q);
      float d = gradient[at];
      if (means) d = d - own_mean - (to_float(x[at]) - centre) * scale * own_product;
      const float own = scale * d;
      grad_input[at] = accumulate ? grad_input[at] + own : own;
    }
  }
}

}  // namespace flash_moe
