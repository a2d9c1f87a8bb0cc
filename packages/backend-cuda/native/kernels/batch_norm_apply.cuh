// Purpose: BatchNorm1d (affine = False) with given statistics.
// Equation: output = (x - mean - rest) / sqrt(variance + epsilon).
// Shapes: x and output [tokens, features], mean, variance and rest [features]; rest is null in evaluation.
// Parallelisation: device/feature_tile.h.
// Why: a thread needs the statistics of four features for its 32 elements. The difference is formed first, and what
//   rounding left of the batch's mean subtracted then, so that a mean far larger than the deviations costs nothing.
#pragma once

#include "device/feature_tile.h"

namespace flash_moe {

template <typename X>
__global__ void __launch_bounds__(FeatureTile::threads)
    batch_norm_apply(const X* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ variance,
                     const float* __restrict__ rest, float* __restrict__ output, int64_t tokens, int64_t features,
                     float epsilon) {
  const FeatureTile tile(tokens, features);
#pragma unroll
  for (int q = 0; q < FeatureTile::each; q++) {
    float values[FeatureTile::rows];
    tile.load_column(x, q, values);
    if (!tile.holds(q)) continue;
    const int64_t feature = tile.feature(q);
    const float centre = mean[feature], left = rest ? rest[feature] : 0.0f;
    const float scale = 1.0f / sqrtf(variance[feature] + epsilon);
#pragma unroll
    for (int r = 0; r < FeatureTile::rows; r++) {
      if (tile.holds(r, q)) output[tile.at(r, q)] = (values[r] - centre - left) * scale;
    }
  }
}

}  // namespace flash_moe
