// Purpose: the coefficients of all tokens with all experts of a chunk, in parts (expert_dense_parts).
// Equation: matrix[t, e] = sum of coefficients[t, j] over the slots j of t with ids[t, j] = e, in their order.
// Shapes: of_up and of_down, and their matrices: coefficients [tokens, k], matrices [tokens, shares, 3, share_experts] of
//   bf16, either pair null where it is not wanted; list and offsets as in expert_tile_list, with slots. The chunk
//   begins with the experts of `first_tile` and has chunk_tiles tiles; what its shares have beyond is not written.
// Parallelisation: a warp per token and tile of SIZE experts. A lane has SIZE / 32 neighbouring experts in registers and
//   takes what is theirs of the tile's list, which goes by lane after lane.
// Why: what is added up in the order of the slots by one lane has one order, and needs no shared memory. The matrices
//   stay in the L2 cache until the products that read them.
#pragma once

#include "kernels/expert_dense_parts.cuh"
#include "kernels/expert_tile_list.cuh"

namespace flash_moe {

constexpr int expert_dense_coefficients_threads = 128;

template <int SIZE>
__global__ void __launch_bounds__(expert_dense_coefficients_threads)
    expert_dense_coefficients(const uint2* list, const uint32_t* offsets, const float* of_up, const float* of_down,
                              bf16* up_matrix, bf16* down_matrix, int64_t tokens, int64_t first_tile,
                              int64_t chunk_tiles, int64_t tiles, int64_t share_experts, int64_t stride, int64_t top_k) {
  constexpr int own = SIZE / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t warp =
      static_cast<int64_t>(blockIdx.x) * (expert_dense_coefficients_threads / 32) + threadIdx.x / 32;
  const int64_t token = warp / chunk_tiles, within = warp - token * chunk_tiles;
  if (token >= tokens) return;
  float up[own] = {}, down[own] = {};
  const TileEntries entries(list, offsets, token, first_tile + within, tiles, top_k);
  const uint32_t base = static_cast<uint32_t>((first_tile + within) * SIZE);
  for (uint32_t start = 0; start < entries.count; start += 32) {
    const int count = static_cast<int>(min(32u, entries.count - start));
    int column = 0;
    float for_up = 0, for_down = 0;
    if (lane < count) {
      const uint2 entry = entries.first[start + static_cast<uint32_t>(lane)];
      column = static_cast<int>(entry.x - base);
      const int64_t pair = token * top_k + entry.y;
      if (up_matrix) for_up = of_up[pair];
      if (down_matrix) for_down = of_down[pair];
    }
    for (int n = 0; n < count; n++) {
      const int place = __shfl_sync(full_mask, column, n) - own * lane;
      const float more_up = __shfl_sync(full_mask, for_up, n), more_down = __shfl_sync(full_mask, for_down, n);
#pragma unroll
      for (int q = 0; q < own; q++) {
        if (place != q) continue;
        up[q] += more_up;
        down[q] += more_down;
      }
    }
  }

  const int64_t share = within * SIZE / share_experts;
  const int64_t before = share * (coefficient_parts<bf16> - 1) * share_experts;
  const int64_t at = token * stride + before + within * SIZE + own * lane;
  if (up_matrix) store_parts(up_matrix + at, share_experts, up);
  if (down_matrix) store_parts(down_matrix + at, share_experts, down);
}

}  // namespace flash_moe
