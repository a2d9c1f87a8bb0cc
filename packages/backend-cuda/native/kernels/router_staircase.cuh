// Purpose: the k best of X * Y pairs of keys and their routing weights, k <= 64, axes of up to 512 keys.
// Equation: s_ij = (lx[i] - max lx) + (ly[j] - max ly), each operation one f32 operation; the k best by (s descending,
//   rank of i, rank of j). Weight = exp(log_softmax(lx)[i] + log_softmax(ly)[j]), or exp(s) / sum exp(s) (normalize).
// Shapes: logits [tokens, keys_x + keys_y], x keys first; ids and weights [tokens, top_k].
// Parallelisation: a warp per token, V logits of each axis per lane; no barrier of the block. Each axis is cut to its
//   best min(keys, k) by bisection on the logits, both axes in the same steps, and ranked by counting; then the same
//   for the pairs that can be among the best (device/staircase.h), of which LARGEST >= k decides the number.
// Why: the logits are read once and stay in registers; a step of a bisection costs two instructions per key and one
//   reduction. It begins at the worst lane's best key, which at least 32 keys reach, and ends as soon as a count
//   fits, usually after some eight steps.
#pragma once

#include "device/staircase.h"

namespace flash_moe {

constexpr int router_staircase_threads = 128;

template <int V, int LARGEST>
__global__ void __launch_bounds__(router_staircase_threads)
    router_staircase(const float* logits, int32_t* ids, float* weights, int64_t tokens, int keys_x, int keys_y,
                     int top_k, bool normalize) {
  constexpr int EACH = ceil_div(LARGEST, 32);
  FM_SHARED StaircaseLists all_lists[router_staircase_threads / 32];
  const int lane = lane_id();
  const int64_t token = (static_cast<int64_t>(blockIdx.x) * router_staircase_threads + threadIdx.x) / 32;
  if (token >= tokens) return;
  StaircaseLists& lists = all_lists[threadIdx.x / 32];
  const float* const own = logits + token * (keys_x + keys_y);
  const int wanted[2] = {min(keys_x, top_k), min(keys_y, top_k)};

  float raw[2][V];
#pragma unroll
  for (int axis = 0; axis < 2; axis++) {
    // A place without a key is after all that have one, and thus the last of the lowest.
    const int left = (axis == 0 ? keys_x : keys_y) - lane;
    const float* const from = own + axis * keys_x + lane;
#pragma unroll
    for (int v = 0; v < V; v++) raw[axis][v] = 32 * v < left ? from[32 * v] : -INFINITY;
  }
  float values[2][V];
#pragma unroll
  for (int axis = 0; axis < 2; axis++) {
#pragma unroll
    for (int v = 0; v < V; v++) values[axis][v] = clamped_logit(raw[axis][v]);
  }
  SelectLimit limits[2];
  float best[2];
  find_limits<2, V, EACH>(values, wanted, limits, best);
  float sums[2] = {};
#pragma unroll
  for (int axis = 0; axis < 2; axis++) {
    fill_list<LARGEST>(lists.values[axis], wanted[axis]);
    take_largest<V>(values[axis], limits[axis], [&](int n, int v) {
      lists.values[axis][n] = values[axis][v];
      lists.indices[axis][n] = 32 * v + lane;
    });
#pragma unroll
    for (int v = 0; v < V; v++) sums[axis] += softmax_term(raw[axis][v], best[axis]);
  }
  const float logs[2] = {log_of_sum(warp_sum(sums[0])), log_of_sum(warp_sum(sums[1]))};
  __syncwarp();
  rank_axis<LARGEST>(lists, 0, wanted[0], best[0], own);
  rank_axis<LARGEST>(lists, 1, wanted[1], best[1], own + keys_x);
  __syncwarp();
  const int64_t first = token * top_k;
  write_best_pairs<LARGEST>(lists, wanted[0], wanted[1], logs,
                            {ids + first, weights + first, keys_y, top_k, normalize});
}

}  // namespace flash_moe
