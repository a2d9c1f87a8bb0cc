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

  int64_t chunk;
  // Tokens of this block.
  int height;

  FM_DEVICE FeatureTile(int64_t tokens, int64_t features) {
    const int64_t across = ceil_div(features, features_per_block);
    chunk = blockIdx.x / across;
    first_ = (blockIdx.x % across) * features_per_block + lane_id();
    left_ = static_cast<int>(min(features - first_, static_cast<int64_t>(features_per_block)));
    const int64_t below = tokens - chunk * tokens_per_block;
    height = static_cast<int>(below < tokens_per_block ? below : tokens_per_block);
    start_ = (chunk * tokens_per_block + warp_id()) * features + first_;
    stride_ = warps * features;
  }

  // Feature q of this thread, and whether there is one.
  FM_DEVICE int64_t feature(int q) const { return first_ + q * warp_size; }
  FM_DEVICE bool holds(int q) const { return q * warp_size < left_; }
  FM_DEVICE bool holds(int r, int q) const { return holds(q) && r * warps + warp_id() < height; }
  // The place of row r, feature q in the matrix.
  FM_DEVICE int64_t at(int r, int q) const { return start_ + r * stride_ + q * warp_size; }

  // Feature q of all rows at once, so that as many loads are under way; 0 where there is none.
  template <typename T>
  FM_DEVICE void load_column(const T* from, int q, float (&values)[rows]) const {
#pragma unroll
    for (int r = 0; r < rows; r++) values[r] = holds(r, q) ? to_float(from[at(r, q)]) : 0.0f;
  }

 private:
  int64_t first_, start_, stride_;
  int left_;
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
