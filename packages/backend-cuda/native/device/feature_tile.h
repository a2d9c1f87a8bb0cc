// How the kernels of BatchNorm share out a matrix [tokens, features]: a block of 256 threads takes 128 features of up
// to 64 tokens; lane l of warp w has features l, l + 32, l + 64 and l + 96 of tokens w, w + 8, ...
#pragma once

#include "device/half.h"
#include "device/warp.h"

namespace flash_moe {

struct FeatureTile {
  static constexpr int threads = 256;
  static constexpr int warps = threads / warp_size;
  static constexpr int each = 4;
  static constexpr int features_per_block = each * warp_size;
  static constexpr int rows = 8;
  static constexpr int tokens_per_block = rows * warps;

  static int64_t blocks(int64_t tokens, int64_t features) {
    return ceil_div(features, features_per_block) * chunks(tokens);
  }
  static __host__ __device__ int64_t chunks(int64_t tokens) { return ceil_div(tokens, tokens_per_block); }

  int64_t tokens, features;
  int64_t chunk;
  int first_feature;
  // Tokens of this block.
  int height;

  FM_DEVICE FeatureTile(int64_t tokens, int64_t features) : tokens(tokens), features(features) {
    const int64_t across = ceil_div(features, features_per_block);
    chunk = blockIdx.x / across;
    first_feature = static_cast<int>(blockIdx.x % across) * features_per_block;
    const int64_t left = tokens - chunk * tokens_per_block;
    height = static_cast<int>(left < tokens_per_block ? left : tokens_per_block);
  }

  // Feature q of this thread.
  FM_DEVICE int64_t feature(int q) const { return first_feature + q * warp_size + lane_id(); }
  FM_DEVICE bool holds(int r, int q) const { return row(r) < height && feature(q) < features; }
  FM_DEVICE int64_t at(int r, int q) const { return (chunk * tokens_per_block + row(r)) * features + feature(q); }

 private:
  FM_DEVICE static int row(int r) { return r * warps + warp_id(); }
};

// The sums over the tokens of the block, in a fixed order; each thread gets those of its features.
FM_DEVICE void sum_over_tokens(float (&values)[FeatureTile::each]) {
  FM_SHARED float parts[FeatureTile::warps][FeatureTile::features_per_block];
  __syncthreads();
#pragma unroll
  for (int q = 0; q < FeatureTile::each; q++) parts[warp_id()][q * warp_size + lane_id()] = values[q];
  __syncthreads();
#pragma unroll
  for (int q = 0; q < FeatureTile::each; q++) {
    values[q] = 0.0f;
#pragma unroll
    for (int warp = 0; warp < FeatureTile::warps; warp++) values[q] += parts[warp][q * warp_size + lane_id()];
  }
}

}  // namespace flash_moe
