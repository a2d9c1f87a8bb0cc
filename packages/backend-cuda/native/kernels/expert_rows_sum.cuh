// Purpose: the weighted sum of the rows of each token's experts: their output, or the gradient of the hidden states.
// Equation: output[t] = round(addend[t] + sum_j c_j table[ids[t, j]]), with c_j = act(dots[t, j]) weights[t, j] where
//   there are weights, else c_j = dots[t, j].
// Shapes: table [experts, hidden]; ids, dots and weights [tokens, k]; addend and output [tokens, hidden]. The addend
//   may be the output itself: a sum that is accumulated.
// Parallelisation: a block of 128 threads makes LANES * VECTOR columns of one token: LANES lanes to a row, so
//   128 / LANES rows at once and eight loads of each lane under way. The groups' sums are added in order. Blocks of
//   one slice of columns come first for all tokens, then those of the next.
// Why: rows are summed in f32 registers, so an output is rounded once. Blocks start in the order of their numbers, so
//   at any time one slice of the table is in use: it stays in the L2 cache where the whole table does not fit.
#pragma once

#include "device/activation.h"
#include "kernels/expert_row.cuh"

namespace flash_moe {

constexpr int expert_rows_sum_threads = 128;

template <typename T, int VECTOR, int LANES>
__global__ void __launch_bounds__(expert_rows_sum_threads, 7)
    expert_rows_sum(const T* table, const int32_t* ids, const float* dots, const float* weights, Activation activation,
                    FloatOr<T> addend, FloatOr<T> output, int64_t tokens, int hidden, int64_t num_experts, int top_k) {
  constexpr int threads = expert_rows_sum_threads;
  constexpr int groups = threads / LANES;
  constexpr int batch = 8;
  constexpr int columns = LANES * VECTOR;
  struct Term {
    int32_t row;
    float coefficient;
  };
  // What lies beyond the last is read by the groups' last batch, and is no row.
  constexpr int beyond = (batch - 1) * groups;
  FM_SHARED Term terms[threads + beyond];
  FM_SHARED float sums[groups][columns];

  const int thread = static_cast<int>(threadIdx.x);
  const int group = thread / LANES;
  const int64_t token = blockIdx.x % static_cast<unsigned>(tokens);
  const int slice = static_cast<int>(blockIdx.x / static_cast<unsigned>(tokens));
  const int column = slice * columns + (thread % LANES) * VECTOR;
  const bool inside = column < hidden;
  if (thread < beyond) terms[threads + thread] = {-1, 0.0f};
  float sum[VECTOR] = {};
  for (int first = 0; first < top_k; first += threads) {
    const int count = min(threads, top_k - first);
    int32_t id = -1;
    float coefficient = 0;
    if (thread < count) {
      const int64_t pair = token * top_k + first + thread;
      id = ids[pair];
      if (id < 0 || id >= num_experts) {
        id = -1;
      } else {
        coefficient = weights ? activate(activation, dots[pair]) * weights[pair] : dots[pair];
      }
    }
    terms[thread] = {id, coefficient};
    __syncthreads();
    for (int start = group; start < count; start += groups * batch) {
      RowPiece<T, VECTOR> pieces[batch];
      float factors[batch];
#pragma unroll
      for (int u = 0; u < batch; u++) {
        const Term term = terms[start + u * groups];
        factors[u] = term.coefficient;
        pieces[u] = zero_piece<T, VECTOR>();
        if (inside && term.row >= 0)
          pieces[u] = load_piece<T, VECTOR>(table + static_cast<int64_t>(term.row) * hidden + column);
      }
#pragma unroll
      for (int u = 0; u < batch; u++) add_piece(pieces[u], factors[u], sum);
    }
    __syncthreads();
  }

#pragma unroll
  for (int q = 0; q < VECTOR; q++) sums[group][(thread % LANES) * VECTOR + q] = sum[q];
  __syncthreads();
  for (int n = thread; n < columns; n += threads) {
    if (slice * columns + n >= hidden) break;
    float total = sums[0][n];
#pragma unroll
    for (int other = 1; other < groups; other++) total += sums[other][n];
    const int64_t at = token * hidden + slice * columns + n;
    if (addend.data) total += addend.load(at);
    output.store(at, total);
  }
}

}  // namespace flash_moe
