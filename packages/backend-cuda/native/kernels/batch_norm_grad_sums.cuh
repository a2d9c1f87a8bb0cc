// Purpose: the means over the batch that the backward of a training BatchNorm subtracts.
// Equation: with d the incoming gradient and n the input normalised with the mean as it was rounded:
//   means[1, f] = mean_t(d (n - mean_t(n))), means[0, f] = mean_t(d) - mean_t(n) means[1, f].
// Shapes: partials [chunks, 3, features] of batch_norm_grad_partials, means [2, features].
// Parallelisation: as batch_norm_statistics.
// Why: in double precision as there. mean_t(n) is what rounding left of the mean: without it the gradients of a batch
//   would not sum to 0, which shows where hidden states far from 0 multiply them. Taken off here, for all tokens at
//   once, it costs the stream over the elements nothing.
#pragma once

#include "kernels/batch_norm_statistics.cuh"

namespace flash_moe {

static __global__ void __launch_bounds__(batch_norm_finish_threads)
    batch_norm_grad_sums(const float* partials, float* means, int64_t tokens, int64_t features) {
  constexpr int warps = batch_norm_finish_threads / warp_size;
  const int64_t feature = static_cast<int64_t>(blockIdx.x) * warp_size + lane_id();
  const int64_t chunks = FeatureTile::chunks(tokens);
  const bool present = feature < features;
  double sum = 0.0, product = 0.0, shift = 0.0;
  for (int64_t chunk = warp_id(); present && chunk < chunks; chunk += warps) {
    const float* const part = partials + chunk * 3 * features + feature;
    sum += part[0];
    product += part[features];
    shift += part[2 * features];
  }
  const double count = static_cast<double>(tokens);
  sum = sum_of_warps(sum) / count;
  product = sum_of_warps(product) / count;
  shift = sum_of_warps(shift) / count;
  if (!present || warp_id() > 0) return;
  const double centred = product - sum * shift;
  means[feature] = static_cast<float>(sum - shift * centred);
  means[features + feature] = static_cast<float>(centred);
}

}  // namespace flash_moe
