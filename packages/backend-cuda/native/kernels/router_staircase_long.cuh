// Purpose: as router_staircase, k <= 64, for axes of any length.
// Equation: as router_staircase.
// Shapes: logits [tokens, keys_x + keys_y], x keys first; ids and weights [tokens, top_k].
// Parallelisation: a block of 16 warps per token, eight to an axis, each with a contiguous part of it. A warp goes
//   over its part in pieces of 512 keys and keeps the best min(keys, k) so far; a warp per axis then chooses among
//   the eight lists, and the first one among the pairs.
// Why: up to 4,096 keys per axis every logit is read once and stays in registers. The lists keep the order of the
//   keys, so that of equals the first is kept.
#pragma once

#include "device/staircase.h"

namespace flash_moe {

constexpr int router_long_parts = 8;
constexpr int router_long_threads = 2 * 32 * router_long_parts;

// All by one warp: the best `kept` of the keys [begin, end) of an axis, in `found`; the sum of its terms, relative to
// the best, in `sum`.
template <int EACH>
FM_DEVICE void cut_part(const float* axis, int begin, int end, int kept, uint32_t* found, uint32_t* indices,
                        uint32_t& best_key, float& sum) {
  constexpr int fresh = 16;
  const int lane = lane_id();
#pragma unroll
  for (int e = 0; e < 2; e++) found[lane + 32 * e] = no_key;
  best_key = lowest_key;
  sum = 0.0f;
  for (int start = begin; start < end; start += 32 * fresh) {
    __syncwarp();
    // First what was kept, whose indices are lower.
    uint32_t keys[1][fresh + 2];
    uint32_t kept_indices[2];
    float values[fresh];
#pragma unroll
    for (int e = 0; e < 2; e++) {
      keys[0][e] = found[lane + 32 * e];
      kept_indices[e] = keys[0][e] == no_key ? 0u : indices[lane + 32 * e];
    }
#pragma unroll
    for (int v = 0; v < fresh; v++) {
      const int key = start + 32 * v + lane;
      values[v] = key < end ? axis[key] : -INFINITY;
    }
#pragma unroll
    for (int v = 0; v < fresh; v++) {
      keys[0][v + 2] = start + 32 * v + lane < end ? order_key(values[v]) : no_key;
    }
    const int wanted[1] = {min(kept, min(start + 32 * fresh, end) - begin)};
    SelectLimit limits[1];
    uint32_t best[1];
    find_limits<1, fresh + 2, EACH>(keys, wanted, limits, best);
    __syncwarp();
    take_best<fresh + 2>(keys[0], limits[0], [&](int n, int v) {
      found[n] = keys[0][v];
      indices[n] = v < 2 ? kept_indices[v & 1] : marked_index(start + 32 * (v - 2) + lane, values[max(v - 2, 0)]);
    });
    const float new_best = key_value(best[0]);
    float own = 0.0f;
#pragma unroll
    for (int v = 0; v < fresh; v++) own += softmax_term(values[v], new_best);
    sum = (start == begin ? 0.0f : sum * expf(__fsub_rn(key_value(best_key), new_best))) + warp_sum(own);
    best_key = best[0];
  }
}

template <int LARGEST>
__global__ void __launch_bounds__(router_long_threads)
    router_staircase_long(const float* logits, int32_t* ids, float* weights, int keys_x, int keys_y, int top_k,
                          bool normalize) {
  constexpr int EACH = LARGEST > 32 ? 2 : 1;
  constexpr int parts = router_long_parts;
  FM_SHARED uint32_t found[2][parts * 64];
  FM_SHARED uint32_t indices[2][parts * 64];
  FM_SHARED uint32_t part_best[2][parts];
  FM_SHARED float part_sums[2][parts];
  FM_SHARED StaircaseLists lists;
  FM_SHARED float shared_logs[2];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = lane_id();
  const int64_t token = blockIdx.x;
  const float* const own = logits + token * (keys_x + keys_y);
  const int rows = min(keys_x, top_k), columns = min(keys_y, top_k);
  {
    const int axis = warp / parts, part = warp % parts;
    const int size = axis == 0 ? keys_x : keys_y;
    const int share = static_cast<int>(ceil_div(size, parts));
    const int begin = min(part * share, size), end = min(begin + share, size);
    uint32_t best;
    float sum;
    cut_part<EACH>(own + axis * keys_x, begin, end, axis == 0 ? rows : columns, found[axis] + 64 * part,
                   indices[axis] + 64 * part, best, sum);
    if (lane == 0) {
      part_best[axis][part] = best;
      part_sums[axis][part] = sum;
    }
  }
  __syncthreads();
  if (warp < 2) {
    const int axis = warp;
    uint32_t keys[1][2 * parts];
#pragma unroll
    for (int v = 0; v < 2 * parts; v++) keys[0][v] = found[axis][32 * v + lane];
    const int wanted[1] = {axis == 0 ? rows : columns};
    SelectLimit limits[1];
    uint32_t best[1];
    find_limits<1, 2 * parts, EACH>(keys, wanted, limits, best);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      if (lane + 32 * e >= wanted[0]) lists.keys[axis][lane + 32 * e] = no_key;
    }
    take_best<2 * parts>(keys[0], limits[0], [&](int n, int v) {
      lists.keys[axis][n] = keys[0][v];
      lists.indices[axis][n] = indices[axis][32 * v + lane];
    });
    __syncwarp();
    rank_axis<EACH>(lists, axis, wanted[0], best[0]);
    float sum = 0.0f;
    for (int part = 0; part < parts; part++) {
      sum += part_sums[axis][part] * expf(__fsub_rn(key_value(part_best[axis][part]), key_value(best[0])));
    }
    if (lane == 0) shared_logs[axis] = log_of_sum(sum);
  }
  __syncthreads();
  if (warp > 0) return;
  const float logs[2] = {shared_logs[0], shared_logs[1]};
  const int64_t first = token * top_k;
  write_best_pairs<LARGEST>(lists, rows, columns, logs, {ids + first, weights + first, keys_y, top_k, normalize});
}

}  // namespace flash_moe
