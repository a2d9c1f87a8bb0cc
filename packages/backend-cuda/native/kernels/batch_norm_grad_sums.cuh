// Purpose: the two means over the batch that the backward of a training BatchNorm subtracts.
// Equation: means[0, f] = mean_t(d), means[1, f] = mean_t(d n).
// Shapes: partials [chunks, 2, features] of batch_norm_grad_partials, means [2, features].
// Parallelisation: as batch_norm_statistics.
// Why: as batch_norm_statistics.
#pragma once

#include "kernels/batch_norm_statistics.cuh"

namespace flash_moe {

static __global__ void __launch_bounds__(batch_norm_finish_threads)
    batch_norm_grad_sums(const float* partials, float* means, int64_t tokens, int64_t features) {
  constexpr int warps = batch_norm_finish_threads / warp_size;
  const int64_t feature = static_cast<int64_t>(blockIdx.x) * warp_size + lane_id();
  const int64_t chunks = FeatureTile::chunks(tokens);
  const bool present = feature < features;
  double sum = 0.0, product = 0.0;
  for (int64_t chunk = warp_id(); present && chunk < chunks; chunk += warps) {
    const float* const part = partials + chunk * 2 * features + feature;
    sum += part[0];
    product += part[features];
  }
  sum = sum_of_warps(sum);
  product = sum_of_warps(product);
  if (!present || warp_id() > 0) return;
  means[feature] = static_cast<float>(sum / static_cast<double>(tokens));
  means[features + feature] = static_cast<float>(product / static_cast<double>(tokens));
}

}  // namespace flash_moe
