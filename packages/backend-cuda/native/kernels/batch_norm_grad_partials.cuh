// Purpose: of 64 tokens, the three sums over the batch that the backward of a training BatchNorm needs.
// Equation: with d the incoming gradient and n the input normalised with the mean as it was rounded:
//   partials[c, 0, f] = sum_t d, partials[c, 1, f] = sum_t d n, partials[c, 2, f] = sum_t n.
// Shapes: x and d [tokens, features], mean and variance [features], partials [chunks, 3, features].
// Parallelisation: device/feature_tile.h.
// Why: chunks are cut at fixed places, so that the order of the sums depends on T alone.
#pragma once

#include "device/feature_tile.h"

namespace flash_moe {

template <typename X>
__global__ void __launch_bounds__(FeatureTile::threads)
    batch_norm_grad_partials(const X* __restrict__ x, const float* __restrict__ mean,
                             const float* __restrict__ variance, const float* __restrict__ gradient,
                             float* __restrict__ partials, int64_t tokens, int64_t features, float epsilon) {
  const FeatureTile tile(tokens, features);
  float sums[FeatureTile::each] = {}, products[FeatureTile::each] = {}, shifts[FeatureTile::each] = {};
#pragma unroll
  for (int q = 0; q < FeatureTile::each; q++) {
    float values[FeatureTile::rows], d[FeatureTile::rows];
    tile.load_column(gradient, q, d);
    tile.load_column(x, q, values);
    if (!tile.holds(q)) continue;
    const int64_t feature = tile.feature(q);
    const float centre = mean[feature], scale = 1.0f / sqrtf(variance[feature] + epsilon);
#pragma unroll
    for (int r = 0; r < FeatureTile::rows; r++) {
      if (!tile.holds(r, q)) continue;
      sums[q] += d[r];
      const float normalized = (values[r] - centre) * scale;
      products[q] += d[r] * normalized;
      shifts[q] += normalized;
    }
  }
  sum_over_tokens(sums);
  sum_over_tokens(products);
  sum_over_tokens(shifts);
  if (warp_id() > 0) return;
#pragma unroll
  for (int q = 0; q < FeatureTile::each; q++) {
    if (!tile.holds(q)) continue;
    float* const own = partials + tile.chunk * 3 * features + tile.feature(q);
    own[0] = sums[q];
    own[features] = products[q];
    own[2 * features] = shifts[q];
  }
}

}  // namespace flash_moe
