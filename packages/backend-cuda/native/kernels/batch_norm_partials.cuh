// Purpose: the statistics of 64 tokens of a batch, of which batch_norm_statistics makes those of the whole.
// Equation: with T' tokens in the chunk: centre = sum_t x / T'; rest = sum_t (x - centre); squares =
//   sum_t (x - centre)^2.
// Shapes: x [tokens, features]; partials [chunks, 3, features]: centre, rest, squares.
// Parallelisation: device/feature_tile.h.
// Why: two passes, of which the second finds the values in registers. What rounding left of the mean is `rest`, so
//   that a mean far larger than the deviations costs nothing.
#pragma once

#include <cmath>

#include "device/feature_tile.h"

namespace flash_moe {

template <typename X>
__global__ void __launch_bounds__(FeatureTile::threads)
    batch_norm_partials(const X* __restrict__ x, float* __restrict__ partials, int64_t tokens, int64_t features) {
  const FeatureTile tile(tokens, features);
  float values[FeatureTile::each][FeatureTile::rows];
#pragma unroll
  for (int q = 0; q < FeatureTile::each; q++) tile.load_column(x, q, values[q]);
  float centres[FeatureTile::each] = {};
#pragma unroll
  for (int r = 0; r < FeatureTile::rows; r++) {
#pragma unroll
    for (int q = 0; q < FeatureTile::each; q++) centres[q] += values[q][r];
  }
  sum_over_tokens(centres);
  float rests[FeatureTile::each] = {}, squares[FeatureTile::each] = {};
#pragma unroll
  for (int q = 0; q < FeatureTile::each; q++) {
    centres[q] /= static_cast<float>(tile.height);
#pragma unroll
    for (int r = 0; r < FeatureTile::rows; r++) {
      const float difference = tile.holds(r, q) ? values[q][r] - centres[q] : 0.0f;
      rests[q] += difference;
      squares[q] += difference * difference;
    }
  }
  sum_over_tokens(rests);
  sum_over_tokens(squares);
  if (warp_id() > 0) return;
#pragma unroll
  for (int q = 0; q < FeatureTile::each; q++) {
    if (!tile.holds(q)) continue;
    float* const own = partials + tile.chunk * 3 * features + tile.feature(q);
    own[0] = centres[q];
    // An infinite value has an infinite mean, not a NaN.
    own[features] = isfinite(centres[q]) ? rests[q] : 0.0f;
    own[2 * features] = squares[q];
  }
}

}  // namespace flash_moe
