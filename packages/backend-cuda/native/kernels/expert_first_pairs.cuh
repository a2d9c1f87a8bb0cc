// Purpose: marks where a new expert begins among the sorted pairs.
// Equation: marks[n] = 1 where the key of n is an expert and differs from the one before; scanned, the place of n's
//   expert among those in use, plus one where n is not its first.
// Shapes: sorted [pairs] of (expert, pair), marks [pairs].
// Parallelisation: one pair per thread.
// Why: with this the compact gradients need nothing of the size N.
#pragma once

#include "kernels/expert_segments.cuh"

namespace flash_moe {

__global__ void __launch_bounds__(256)
    expert_first_pairs(const uint2* sorted, uint32_t* marks, uint32_t pairs, uint32_t num_experts) {
  const uint32_t n = blockIdx.x * 256u + threadIdx.x;
  if (n < pairs) marks[n] = is_first_pair(sorted, n, num_experts) ? 1 : 0;
}

}  // namespace flash_moe
