// Purpose: the experts of a token in one pass over their rows.
// Equation: output[t] = round(addend[t] + sum_j act(states[t] . down[ids[t, j]]) weights[t, j] up[ids[t, j]]); with
//   several splits of the k experts, partials[t, split] is the sum over the split's experts alone (expert_combine).
// Shapes: states, addend, output [tokens, hidden]; down, up [experts, hidden]; ids, weights [tokens, k];
//   partials [tokens, splits, hidden] f32. hidden is at most 32 * COLUMNS and whole in vectors of 16 bytes.
// Parallelisation: a block per (token, split). A warp takes one expert at a time, every lane COLUMNS of its columns:
//   both rows are asked for together, so that the wait for memory is paid once; the dot is summed by a butterfly,
//   and the row of `up` goes from registers into registers. The warps' sums are added in order.
// Why: rows are read once, whole, and nothing per pair is ever stored. An id that is none is counted and adds nothing.
#pragma once

#include "device/activation.h"
#include "kernels/expert_row.cuh"

namespace flash_moe {

template <typename T, int COLUMNS>
__global__ void __launch_bounds__(256, COLUMNS * sizeof(T) <= 64 ? 2 : 1)
    expert_forward(const T* states, const T* down, const T* up, const int32_t* ids, const float* weights,
                   FloatOr<T> addend, FloatOr<T> output, float* partials, int hidden, int64_t num_experts, int top_k,
                   int splits, Activation activation, uint32_t* id_errors) {
  constexpr int vector = full_vector<T>;
  constexpr int chunks = COLUMNS / vector;
  constexpr int chunk_columns = 32 * vector;
  constexpr int max_warps = 8;
  FM_SHARED float sums[max_warps][chunk_columns];

  const int warps = static_cast<int>(blockDim.x) / 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t token = blockIdx.x / static_cast<unsigned>(splits);
  const int split = static_cast<int>(blockIdx.x % static_cast<unsigned>(splits));
  const int begin = static_cast<int>(static_cast<int64_t>(top_k) * split / splits);
  const int end = static_cast<int>(static_cast<int64_t>(top_k) * (split + 1) / splits);

  RowPiece<T, vector> state[chunks];
#pragma unroll
  for (int c = 0; c < chunks; c++) {
    const int column = (c * 32 + lane) * vector;
    state[c] = column < hidden ? load_piece<T, vector>(states + token * hidden + column) : zero_piece<T, vector>();
  }
  float accumulated[chunks][vector] = {};
  // The warp's experts are begin + warp + warps * n; 32 of them at a time are known in advance, one to a lane.
  for (int first = begin + warp; first < end; first += 32 * warps) {
    const int own = first + lane * warps;
    int32_t own_id = -1;
    float own_weight = 0;
    if (own < end) {
      own_id = ids[token * top_k + own];
      own_weight = weights[token * top_k + own];
      if (own_id < 0 || own_id >= num_experts) {
        own_id = -1;
        atomicAdd(id_errors, 1u);
      }
    }
    const int count = min(32, (end - first + warps - 1) / warps);
#pragma unroll 1
    for (int n = 0; n < count; n++) {
      const int64_t id = __shfl_sync(full_mask, own_id, n);
      const float weight = __shfl_sync(full_mask, own_weight, n);
      if (id < 0) continue;
      RowPiece<T, vector> down_row[chunks], up_row[chunks];
#pragma unroll
      for (int c = 0; c < chunks; c++) {
        const int column = (c * 32 + lane) * vector;
        down_row[c] = zero_piece<T, vector>();
        if (column < hidden) down_row[c] = load_piece<T, vector>(down + id * hidden + column);
      }
#pragma unroll
      for (int c = 0; c < chunks; c++) {
        const int column = (c * 32 + lane) * vector;
        up_row[c] = zero_piece<T, vector>();
        if (column < hidden) up_row[c] = load_piece<T, vector>(up + id * hidden + column);
      }
      float dot = 0;
#pragma unroll
      for (int c = 0; c < chunks; c++) {
        float factors[vector];
        unpack_piece(state[c], factors);
        dot = dot_piece(down_row[c], factors, dot);
      }
#pragma unroll
      for (int step = 16; step > 0; step /= 2) dot += __shfl_xor_sync(full_mask, dot, step);
      const float coefficient = activate(activation, dot) * weight;
#pragma unroll
      for (int c = 0; c < chunks; c++) add_piece(up_row[c], coefficient, accumulated[c]);
    }
  }

#pragma unroll
  for (int c = 0; c < chunks; c++) {
    if (c * chunk_columns >= hidden) break;
#pragma unroll
    for (int q = 0; q < vector; q++) sums[warp][lane * vector + q] = accumulated[c][q];
    __syncthreads();
    for (int n = static_cast<int>(threadIdx.x); n < chunk_columns; n += static_cast<int>(blockDim.x)) {
      const int column = c * chunk_columns + n;
      if (column >= hidden) break;
      float sum = sums[0][n];
      for (int other = 1; other < warps; other++) sum += sums[other][n];
      if (splits > 1) {
        partials[(token * splits + split) * hidden + column] = sum;
      } else {
        const int64_t at = token * hidden + column;
        if (addend.data) sum += addend.load(at);
        output.store(at, sum);
      }
    }
    __syncthreads();
  }
}

}  // namespace flash_moe
