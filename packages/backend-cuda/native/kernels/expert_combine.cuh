// Purpose: adds up what the splits of a token's experts gave (expert_forward).
// Equation: output[t] = round(addend[t] + sum_s partials[t, s]).
// Shapes: partials [tokens, splits, hidden] f32; addend and output [tokens, hidden].
// Parallelisation: one output element per thread, splits in order.
// Why: a launch instead of the last block to arrive, which would need a counter that somebody sets to zero.
#pragma once

#include "kernels/expert_row.cuh"

namespace flash_moe {

template <typename T>
__global__ void __launch_bounds__(128) expert_combine(const float* partials, FloatOr<T> addend, FloatOr<T> output,
                                                      int64_t tokens, int hidden, int splits) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * 128 + threadIdx.x;
  if (at >= tokens * hidden) return;
  const int64_t token = at / hidden;
  const int64_t column = at - token * hidden;
  const float* first = partials + token * splits * hidden + column;
  float sum = 0;
#pragma unroll 8
  for (int s = 0; s < splits; s++) sum += first[static_cast<int64_t>(s) * hidden];
  if (addend.data) sum += addend.load(at);
  output.store(at, sum);
}

}  // namespace flash_moe
