// Purpose: the inner products of each token with the rows of its experts.
// Equation: dots[t, j] (+)= states[t] . table[ids[t, j]], over the columns [low, high).
// Shapes: states [tokens, hidden], table [experts, hidden], ids and dots [tokens, k].
// Parallelisation: a warp takes 32 experts of one token, LANES lanes to a row and 16 bytes to a lane, so 32 / LANES
//   rows at once and LANES rows per lane; eight loads are under way at a time. Then a transposing butterfly: after
//   log2(LANES) exchanges every lane has the whole sum of one row, with LANES - 1 shuffles instead of
//   LANES * log2(LANES), and 32 dots are stored side by side.
// Why: the launches of a table larger than the L2 cache go over it slice by slice of columns (low, high), all tokens
//   each, so that a slice is read from memory once; the sums of a pair are kept in f32, in one order of the slices.
//   An id that is none is counted, where id_errors is given, and its dot is 0.
#pragma once

#include "kernels/expert_row.cuh"

namespace flash_moe {

constexpr int expert_dots_threads = 256;

// sums[0] of lane l becomes the sum of sums[l % LANES] over the LANES lanes that l belongs to: at each step a lane
// keeps one half of its sums and gives away the other.
template <int HALF, int LANES>
FM_DEVICE void transpose_sums(float (&sums)[LANES], int lane) {
  if constexpr (HALF > 0) {
    const bool upper = (lane & HALF) != 0;
#pragma unroll
    for (int u = 0; u < HALF; u++) {
      const float given = upper ? sums[u] : sums[u + HALF];
      const float kept = upper ? sums[u + HALF] : sums[u];
      sums[u] = kept + __shfl_xor_sync(full_mask, given, HALF);
    }
    transpose_sums<HALF / 2>(sums, lane);
  }
}

template <typename T, int VECTOR, int LANES>
__global__ void __launch_bounds__(expert_dots_threads, 3)
    expert_dots(const T* states, const T* table, const int32_t* ids, float* dots, int64_t tokens, int hidden,
                int64_t num_experts, int top_k, int low, int high, bool accumulate, uint32_t* id_errors) {
  constexpr int rows_at_once = 32 / LANES;
  constexpr int batch = LANES < 8 ? LANES : 8;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  // There are no more warps than pairs, which fit 32 bits.
  const unsigned warp = blockIdx.x * (expert_dots_threads / 32u) + threadIdx.x / 32u;
  const unsigned warps_per_token = (static_cast<unsigned>(top_k) + 31u) / 32u;
  const int64_t token = warp / warps_per_token;
  if (token >= tokens) return;
  const int first = static_cast<int>(warp % warps_per_token) * 32;
  const int count = min(32, top_k - first);

  // Lane l holds the id of expert `first + l`; -1 is none.
  int32_t own = -1;
  if (lane < count) {
    own = ids[token * top_k + first + lane];
    if (own < 0 || own >= num_experts) {
      own = -1;
      if (id_errors) atomicAdd(id_errors, 1u);
    }
  }

  // Sum u belongs to expert u * rows_at_once + lane / LANES, over this lane's columns.
  float sums[LANES] = {};
  for (int chunk = low; chunk < high; chunk += LANES * VECTOR) {
    const int column = chunk + (lane % LANES) * VECTOR;
    const bool inside = column < high;
    float factors[VECTOR] = {};
    if (inside) unpack_piece(load_piece<T, VECTOR>(states + token * hidden + column), factors);
#pragma unroll
    for (int start = 0; start < LANES; start += batch) {
      if (start * rows_at_once >= count) break;
      RowPiece<T, VECTOR> rows[batch];
#pragma unroll
      for (int u = 0; u < batch; u++) {
        const int64_t id = __shfl_sync(full_mask, own, (start + u) * rows_at_once + lane / LANES);
        rows[u] = zero_piece<T, VECTOR>();
        if (inside && id >= 0) rows[u] = load_piece<T, VECTOR>(table + id * hidden + column);
      }
#pragma unroll
      for (int u = 0; u < batch; u++) sums[start + u] = dot_piece(rows[u], factors, sums[start + u]);
    }
  }

  transpose_sums<LANES / 2>(sums, lane);
  const int expert = (lane % LANES) * rows_at_once + lane / LANES;
  if (expert < count) {
    float* dot = dots + token * top_k + first + expert;
    *dot = accumulate ? *dot + sums[0] : sums[0];
  }
}

}  // namespace flash_moe
