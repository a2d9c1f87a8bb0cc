// Purpose: the gradients of experts with more than 256 pairs.
// Equation: gradient[row of e] += the sums of the second and all later cuts of e, in order.
// Shapes: as expert_table_grad.
// Parallelisation: a warp per window of 256 sorted pairs and slice of 128 columns; only the window in which the second
//   cut of an expert begins works.
// Why: the sums of a row are added by one thread in the order of the list, so the bits are the same on every run.
//   A segment of 256 * m pairs costs m steps.
#pragma once

#include "kernels/expert_segments.cuh"

namespace flash_moe {

constexpr int expert_table_combine_threads = 128;
constexpr int expert_table_combine_columns = 4 * 32;

__global__ void __launch_bounds__(expert_table_combine_threads)
    expert_table_combine(ExpertSegments order, const float* partials, float* gradient, uint32_t windows, int hidden) {
  constexpr int per_lane = expert_table_combine_columns / 32;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * (expert_table_combine_threads / 32) + threadIdx.x / 32;
  const int64_t slice = warp / windows;
  const uint32_t window = static_cast<uint32_t>(warp - slice * windows);
  const int64_t column = slice * expert_table_combine_columns + threadIdx.x % 32;
  if (column >= hidden) return;
  ExpertCut cut;
  if (!find_cut(order, window, cut) || cut.begin - cut.segment.x != expert_cut) return;
  const uint32_t cuts = (cut.segment.y - cut.begin + expert_cut - 1) / expert_cut;
  float* const row = gradient + order.gradient_row(cut.row) * hidden;
  float sums[per_lane];
#pragma unroll
  for (int q = 0; q < per_lane; q++) sums[q] = column + 32 * q < hidden ? row[column + 32 * q] : 0.0f;
#pragma unroll 4
  for (uint32_t n = 0; n < cuts; n++) {
    const float* const partial = partials + static_cast<int64_t>(window + n) * hidden;
#pragma unroll
    for (int q = 0; q < per_lane; q++) {
      if (column + 32 * q < hidden) sums[q] += partial[column + 32 * q];
    }
  }
#pragma unroll
  for (int q = 0; q < per_lane; q++) {
    if (column + 32 * q < hidden) row[column + 32 * q] = sums[q];
  }
}

}  // namespace flash_moe
