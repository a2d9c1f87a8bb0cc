// Purpose: adds up what the shares of the experts gave (expert_dense_sum), and puts right what a mask cannot keep out.
// Equation: output[t] = round(addend[t] + sum_s partials[t, s]); where that sum is not finite,
//   output[t] = round(addend[t] + sum_j c_j up[ids[t, j]]) instead, with c_j = act(states[t] . down[ids[t, j]])
//   weights[t, j], or given[t, j] where these are there.
// Shapes: partials [tokens, shares, hidden] f32, overwritten; states, addend, output [tokens, hidden]; down, up [experts,
//   hidden]; ids, weights, given [tokens, k]. Rows of states and tables are whole in vectors of 16 bytes.
// Parallelisation: a block per token, four columns to a thread. In the second case a warp per expert makes the inner
//   products of 128 experts, then every thread its columns of their sum; the first share keeps it between the batches.
// Why: the products multiply every row of `up` by the gate of every token, and 0 times what is not finite is NaN, which
//   no later sum loses. So a finite sum is right, and of the others only the rows that the token chose are read again.
//   The sums are looked at before the addend and the rounding, which may overflow for reasons of their own.
#pragma once

#include "device/activation.h"
#include "device/block.h"
#include "kernels/expert_row.cuh"

namespace flash_moe {

constexpr int expert_dense_combine_threads = 128;

template <typename T>
__global__ void __launch_bounds__(expert_dense_combine_threads, 8)
    expert_dense_combine(float* partials, const T* states, const T* down, const T* up, const int32_t* ids,
                         const float* weights, const float* given, FloatOr<T> addend, FloatOr<T> output, int hidden,
                         int64_t num_experts, int top_k, int shares, Activation activation) {
  constexpr int threads = expert_dense_combine_threads, vector = full_vector<T>;
  FM_SHARED float coefficients[threads];
  FM_SHARED int32_t chosen[threads];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int64_t token = blockIdx.x;
  float* const sums = partials + token * shares * hidden;
  const T* const state = states + token * hidden;
  const auto finish = [&](int column, float (&values)[4]) {
    const int64_t at = token * hidden + column;
    if (addend.data) {
      float more[4];
      addend.load_four(at, more);
#pragma unroll
      for (int q = 0; q < 4; q++) values[q] += more[q];
    }
    output.store_four(at, values);
  };

  // The addend must not be lost before it is known which sum it belongs to.
  const bool in_place = addend.data == output.data;
  uint32_t largest = 0;
  for (int column = 4 * thread; column < hidden; column += 4 * threads) {
    float values[4];
    load_vector<4>(sums + column, values);
    for (int s = 1; s < shares; s++) {
      float more[4];
      load_vector<4>(sums + static_cast<int64_t>(s) * hidden + column, more);
#pragma unroll
      for (int q = 0; q < 4; q++) values[q] += more[q];
    }
#pragma unroll
    for (int q = 0; q < 4; q++) largest = max(largest, __float_as_uint(values[q]) & 0x7fffffffu);
    if (in_place) {
      store_vector<4>(sums + column, values);
    } else {
      finish(column, values);
    }
  }
  const bool is_finite = block_max<threads>(largest) < 0x7f800000u;
  for (int column = 4 * thread; in_place && is_finite && column < hidden; column += 4 * threads) {
    float values[4];
    load_vector<4>(sums + column, values);
    finish(column, values);
  }
  if (is_finite) return;

  for (int first = 0; first < top_k; first += threads) {
    const int count = min(threads, top_k - first);
    // Others may still be reading the batch before.
    __syncthreads();
    for (int n = warp; n < count; n += threads / 32) {
      const int64_t pair = token * top_k + first + n;
      int32_t id = ids[pair];
      // One that is none was counted by expert_tile_list.
      if (id < 0 || id >= num_experts) id = -1;
      float dot = 0;
      for (int column = lane * vector; !given && id >= 0 && column < hidden; column += 32 * vector) {
        float factors[vector];
        unpack_piece(load_piece<T, vector>(state + column), factors);
        dot = dot_piece(load_piece<T, vector>(down + id * static_cast<int64_t>(hidden) + column), factors, dot);
      }
      dot = warp_sum(dot);
      if (lane == 0) {
        chosen[n] = id;
        coefficients[n] = given ? given[pair] : activate(activation, dot) * weights[pair];
      }
    }
    __syncthreads();
    for (int column = 4 * thread; column < hidden; column += 4 * threads) {
      float values[4] = {};
      if (first > 0) load_vector<4>(sums + column, values);
      for (int n = 0; n < count; n++) {
        if (chosen[n] < 0) continue;
        float row[4];
        load_vector<4>(up + chosen[n] * static_cast<int64_t>(hidden) + column, row);
#pragma unroll
        for (int q = 0; q < 4; q++) values[q] = __fmaf_rn(coefficients[n], row[q], values[q]);
      }
      if (first + threads < top_k) {
        store_vector<4>(sums + column, values);
      } else {
        finish(column, values);
      }
    }
  }
}

}  // namespace flash_moe
