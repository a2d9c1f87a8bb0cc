// Purpose: the rows of tiles of a table's gradient that are not finite as a product (expert_dense_table_grad).
// Equation: gradient[e] (+)= sum of coefficients[t, j] states[t] over the pairs (t, j) of e, in their order.
// Shapes: as expert_dense_table_grad; coefficients [tokens, k]; list and offsets as in expert_tile_list, with slots.
// Parallelisation: a warp per row of a tile of SIZE by SIZE, SIZE / 32 columns to a lane. Lanes look for the expert in the
//   lists of 32 tokens at a time; those that have it are gone through in order by all.
// Why: what is not finite reaches the experts of the tokens that have it, and no other, pair by pair as when rows are
//   gathered: of a sum of coefficients, infinities of both signs would be lost. Warps of other rows end at once.
#pragma once

#include "kernels/expert_dense_table_grad.cuh"
#include "kernels/expert_tile_list.cuh"

namespace flash_moe {

constexpr int expert_dense_table_again_threads = 128;

// The chunk begins with the experts of `first_tile`.
template <int SIZE>
__global__ void __launch_bounds__(expert_dense_table_again_threads, 8)
    expert_dense_table_again(ExpertDenseTable p, const float* coefficients, const uint2* list, const uint32_t* offsets,
                             int64_t first_tile, int64_t tiles, int64_t top_k) {
  constexpr int own = SIZE / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * (expert_dense_table_again_threads / 32) + threadIdx.x / 32;
  if (p.spoiled[warp] == 0) return;
  const TilePlace place = tile_place(warp / SIZE, ceil_div(p.experts, SIZE), ceil_div(p.hidden, SIZE));
  const int64_t tile = first_tile + place.row, row = warp % SIZE, column = place.column * SIZE + lane * own;
  const uint32_t expert = static_cast<uint32_t>(tile * SIZE + row);
  float sums[own] = {};
  for (int64_t start = 0; start < p.tokens; start += 32) {
    bool has = false;
    if (start + lane < p.tokens) {
      const TileEntries entries(list, offsets, start + lane, tile, tiles, top_k);
      for (uint32_t n = 0; n < entries.count; n++) has = has || entries.first[n].x == expert;
    }
    for (uint32_t having = __ballot_sync(full_mask, has); having != 0; having &= having - 1) {
      const int64_t token = start + __ffs(static_cast<int>(having)) - 1;
      const TileEntries entries(list, offsets, token, tile, tiles, top_k);
      for (uint32_t n = 0; n < entries.count; n++) {
        const uint2 entry = entries.first[n];
        if (entry.x != expert) continue;
        const float coefficient = coefficients[token * top_k + entry.y];
#pragma unroll
        for (int q = 0; q < own; q++) {
          if (column + q < p.hidden)
            sums[q] = __fmaf_rn(coefficient, to_float(p.states[token * p.hidden + column + q]), sums[q]);
        }
      }
    }
  }
  const int64_t at = (place.row * SIZE + row) * p.hidden + column;
#pragma unroll
  for (int q = 0; q < own; q++) {
    if (place.row * SIZE + row >= p.experts || column + q >= p.hidden) continue;
    p.gradient[at + q] = p.accumulate ? p.gradient[at + q] + sums[q] : sums[q];
  }
}

}  // namespace flash_moe
