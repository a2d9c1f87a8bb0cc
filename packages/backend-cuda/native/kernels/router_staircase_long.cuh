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

// All by one warp: the best `kept` of the keys [begin, end) of an axis, clamped, in `found`, filled up with NaN; the
// sum of the part's terms, relative to its best, in `sum`.
template <int EACH>
FM_DEVICE void cut_part(const float* axis, int begin, int end, int kept, float* found, uint32_t* indices, float& best,
                        float& sum) {
  constexpr int fresh = 16;
  const int lane = lane_id();
  fill_list<64>(found, 0);
  best = -largest_logit;
  sum = 0.0f;
  for (int start = begin; start < end; start += 32 * fresh) {
    __syncwarp();
    // First what was kept, whose indices are lower.
    float values[1][fresh + 2];
    uint32_t kept_indices[2];
    float raw[fresh];
#pragma unroll
    for (int e = 0; e < 2; e++) {
      values[0][e] = found[lane + 32 * e];
      kept_indices[e] = start == begin ? 0u : indices[lane + 32 * e];
    }
#pragma unroll
    for (int v = 0; v < fresh; v++) raw[v] = 32 * v < end - start - lane ? axis[start + 32 * v + lane] : -INFINITY;
#pragma unroll
    for (int v = 0; v < fresh; v++) {
      // Here a place without a key must not count, for all keys together may be fewer than are kept.
      values[0][v + 2] = 32 * v < end - start - lane ? clamped_logit(raw[v]) : NAN;
    }
    const int wanted[1] = {min(kept, min(start + 32 * fresh, end) - begin)};
    SelectLimit limits[1];
    float new_best[1];
    find_limits<1, fresh + 2, EACH>(values, wanted, limits, new_best);
    __syncwarp();
    take_largest<fresh + 2>(values[0], limits[0], [&](int n, int v) {
      found[n] = values[0][v];
      indices[n] = v < 2 ? kept_indices[v & 1] : static_cast<uint32_t>(start + 32 * (v - 2) + lane);
    });
    float own = 0.0f;
#pragma unroll
    for (int v = 0; v < fresh; v++) own += softmax_term(raw[v], new_best[0]);
    sum = (start == begin ? 0.0f : sum * expf(__fsub_rn(best, new_best[0]))) + warp_sum(own);
    best = new_best[0];
  }
}

template <int LARGEST>
__global__ void __launch_bounds__(router_long_threads, 1)
    router_staircase_long(const float* logits, int32_t* ids, float* weights, int keys_x, int keys_y, int top_k,
                          bool normalize) {
  constexpr int EACH = ceil_div(LARGEST, 32);
  constexpr int parts = router_long_parts;
  FM_SHARED float found[2][parts * 64];
  FM_SHARED uint32_t indices[2][parts * 64];
  FM_SHARED float part_best[2][parts];
  FM_SHARED float part_sums[2][parts];
  FM_SHARED StaircaseLists lists;
  FM_SHARED float shared_logs[2];
  const int warp = warp_id(), lane = lane_id();
  const int64_t token = blockIdx.x;
  const float* const own = logits + token * (keys_x + keys_y);
  const int rows = min(keys_x, top_k), columns = min(keys_y, top_k);
  {
    const int axis = warp / parts, part = warp % parts;
    const int size = axis == 0 ? keys_x : keys_y;
    const int share = static_cast<int>(ceil_div(size, parts));
    const int begin = min(part * share, size), end = min(begin + share, size);
    float best, sum;
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
    float values[1][2 * parts];
#pragma unroll
    for (int v = 0; v < 2 * parts; v++) values[0][v] = found[axis][32 * v + lane];
    const int wanted[1] = {axis == 0 ? rows : columns};
    SelectLimit limits[1];
    float best[1];
    find_limits<1, 2 * parts, EACH>(values, wanted, limits, best);
    fill_list<LARGEST>(lists.values[axis], wanted[0]);
    take_largest<2 * parts>(values[0], limits[0], [&](int n, int v) {
      lists.values[axis][n] = values[0][v];
      lists.indices[axis][n] = indices[axis][32 * v + lane];
    });
    __syncwarp();
    rank_axis<LARGEST>(lists, axis, wanted[0], best[0], own + axis * keys_x);
    float sum = 0.0f;
    for (int part = 0; part < parts; part++) {
      sum += part_sums[axis][part] * expf(__fsub_rn(part_best[axis][part], best[0]));
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
