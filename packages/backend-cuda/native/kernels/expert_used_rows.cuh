// Purpose: where each expert's pairs lie in the sorted list, and which experts are in use.
// Equation: segments[row] = (n of its first pair, n of its last pair + 1); where there are `places`, row is the place
//   of the expert among those in use, ids[row] = the expert and count = their number; else row is the expert itself.
// Shapes: sorted [pairs] of (expert, pair), places [pairs]: the scan of the marks of expert_first_pairs;
//   segments [rows], zero before, so that an expert without pairs has an empty one; ids [rows], count [1].
// Parallelisation: one pair per thread.
// Why: the number stays on the device, so nothing waits for it.
#pragma once

#include "kernels/expert_segments.cuh"

namespace flash_moe {

__global__ void __launch_bounds__(256)
    expert_used_rows(const uint2* sorted, const uint32_t* places, uint2* segments, int32_t* ids, int32_t* count,
                     uint32_t pairs, uint32_t num_experts) {
  const uint32_t n = blockIdx.x * 256u + threadIdx.x;
  if (n >= pairs) return;
  const uint32_t expert = sorted[n].x;
  if (expert >= num_experts) {
    if (n == 0 && count) *count = 0;
    return;
  }
  const bool first = is_first_pair(sorted, n, num_experts);
  const uint32_t next = n + 1 < pairs ? sorted[n + 1].x : num_experts;
  // The scan counts the firsts before n: one more than the place of n's expert where n is not its first.
  const uint32_t row = places ? places[n] - (first ? 0u : 1u) : expert;
  if (first) {
    segments[row].x = n;
    if (ids) ids[row] = static_cast<int32_t>(expert);
  }
  if (next != expert) segments[row].y = n + 1;
  if (next >= num_experts && count) *count = static_cast<int32_t>(row + 1);
}

}  // namespace flash_moe
