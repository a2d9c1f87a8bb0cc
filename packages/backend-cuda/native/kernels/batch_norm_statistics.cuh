// Purpose: the statistics of a batch out of those of its chunks, and the update of the running ones.
// Equation: with m_c = centre_c + rest_c / T_c: mean = sum_c T_c m_c / T; variance =
//   sum_c (squares_c - rest_c^2 / T_c + T_c (m_c - mean)^2) / T, never E[x^2] - E[x]^2; rest is what mean, rounded,
//   leaves; running mean and (unbiased) running variance r become (1 - momentum) r + momentum s.
// Shapes: partials [chunks, 3, features] of batch_norm_partials, all statistics and rest [features].
// Parallelisation: a block of 256 takes 32 features; eight warps share their chunks, each every eighth, and are then
//   added in order.
// Why: in double precision, for a few numbers per feature: chunks whose means are alike must not cancel.
#pragma once

#include "device/feature_tile.h"

namespace flash_moe {

struct BatchNormTraining {
  double unbiased, momentum;
  float* mean;
  float* variance;
  float* running_mean;
  float* running_variance;
  float* rest;
};

constexpr int batch_norm_finish_threads = 256;

// Of one value per thread, over the warps, for each lane.
FM_DEVICE double sum_of_warps(double value) {
  constexpr int warps = batch_norm_finish_threads / warp_size;
  FM_SHARED double parts[warps][warp_size];
  __syncthreads();
  parts[warp_id()][lane_id()] = value;
  __syncthreads();
  double sum = 0.0;
  for (int warp = 0; warp < warps; warp++) sum += parts[warp][lane_id()];
  return sum;
}

__device__ inline int64_t tokens_of_chunk(int64_t chunk, int64_t tokens) {
  const int64_t left = tokens - chunk * FeatureTile::tokens_per_block;
  return left < FeatureTile::tokens_per_block ? left : FeatureTile::tokens_per_block;
}

static __global__ void __launch_bounds__(batch_norm_finish_threads)
    batch_norm_statistics(const float* partials, int64_t tokens, int64_t features, BatchNormTraining training) {
  constexpr int warps = batch_norm_finish_threads / warp_size;
  const int64_t feature = static_cast<int64_t>(blockIdx.x) * warp_size + lane_id();
  const int64_t chunks = FeatureTile::chunks(tokens);
  const bool present = feature < features;
  const float* const own = partials + feature;
  const double count = static_cast<double>(tokens);
  double sum = 0.0;
  for (int64_t chunk = warp_id(); present && chunk < chunks; chunk += warps) {
    const float* const part = own + chunk * 3 * features;
    sum += static_cast<double>(tokens_of_chunk(chunk, tokens)) * part[0] + part[features];
  }
  const double mean = sum_of_warps(sum) / count;
  double squares = 0.0;
  for (int64_t chunk = warp_id(); present && chunk < chunks; chunk += warps) {
    const float* const part = own + chunk * 3 * features;
    const double size = static_cast<double>(tokens_of_chunk(chunk, tokens));
    const double rest = static_cast<double>(part[features]) / size;
    const double difference = part[0] + rest - mean;
    squares += part[2 * features] + size * (difference * difference - rest * rest);
  }
  const double variance = sum_of_warps(squares) / count;
  if (!present || warp_id() > 0) return;
  // Rounding may leave less than nothing; NaN stays.
  const double positive = variance < 0.0 ? 0.0 : variance;
  const double keep = 1.0 - training.momentum;
  const float rounded = static_cast<float>(mean);
  training.mean[feature] = rounded;
  training.rest[feature] = static_cast<float>(mean - rounded);
  training.variance[feature] = static_cast<float>(positive);
  training.running_mean[feature] =
      static_cast<float>(keep * training.running_mean[feature] + training.momentum * mean);
  training.running_variance[feature] = static_cast<float>(keep * training.running_variance[feature] +
                                                          training.momentum * positive * training.unbiased);
}

}  // namespace flash_moe
