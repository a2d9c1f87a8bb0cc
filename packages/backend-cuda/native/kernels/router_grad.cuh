// Purpose: the gradient of the routing weights with respect to the router logits.
// Equation: d_p = g_p w_p, or d_p = w_p (g_p - sum_q g_q w_q) (normalize); gradLogits of x key a (+)= sum of d_p over
//   the pairs p whose i is a, - softmax(lx)[a] sum_p d_p; the y keys likewise.
// Shapes: logits and grad_logits [tokens, keys_x + keys_y], ids and grad_weights [tokens, top_k].
// Parallelisation: WARPS warps per token. Each warp takes a contiguous part of the pairs, 32 at a time: the lanes whose
//   pairs share a key find each other, and the first of them adds all in the order of the slots to the warp's own
//   sums; the sums of `copies` warps are then added in order.
// Why: no atomics, so the same bits on every run, and no key looks at pairs of others. Where not even one copy of the
//   sums fits shared memory (copies = 0), one warp keeps them in grad_logits itself.
#pragma once

#include <cmath>
#include <cstdint>

#include "device/log_sum.h"
#include "device/order.h"
#include "device/token_group.h"

namespace flash_moe {

struct RouterGradParams {
  int64_t tokens;
  int keys_x, keys_y, top_k;
  bool normalize, accumulate;
  // Warps that add pairs, each with a copy of the sums in shared memory; 0: one warp, in grad_logits.
  int copies;
};

template <int WARPS>
constexpr int router_grad_threads = WARPS == 1 ? 128 : 32 * WARPS;

// A quarter of a pair's distance from the best pair, which no finite logits overflow; infinite for -infinity.
struct PairDistances {
  const float* logits;
  const int32_t* ids;
  int keys_x, keys_y;
  float best_x, best_y;

  // Whether the id is one; with its keys.
  FM_DEVICE bool keys_of(int p, int& i, int& j) const {
    const int32_t id = ids[p];
    if (id < 0 || static_cast<int64_t>(id) >= static_cast<int64_t>(keys_x) * keys_y) return false;
    i = id / keys_y;
    j = id - i * keys_y;
    return true;
  }

  FM_DEVICE float quarter(int i, int j) const {
    return (0.25f * best_x - 0.25f * logits[i]) + (0.25f * best_y - 0.25f * logits[keys_x + j]);
  }
};

// Adds the values of a warp's lanes to sums[key] in the order of the lanes; a negative key is none.
FM_DEVICE void add_by_key(float* sums, const float* values, int key) {
  const unsigned same = __match_any_sync(full_mask, key);
  if (key >= 0 && __ffs(static_cast<int>(same)) - 1 == lane_id()) {
    float sum = sums[key];
    for (unsigned rest = same; rest != 0; rest &= rest - 1) sum += values[__ffs(static_cast<int>(rest)) - 1];
    sums[key] = sum;
  }
}

template <int WARPS>
__global__ void __launch_bounds__(router_grad_threads<WARPS>, 1024 / router_grad_threads<WARPS>)
    router_grad(const float* logits, const int32_t* ids, const float* grad_weights, float* grad_logits,
                RouterGradParams params, uint32_t* id_errors) {
  using Group = TokenGroup<WARPS>;
  constexpr int groups = router_grad_threads<WARPS> / Group::size;
  FM_SHARED float pair_values[groups * WARPS][32];
  FM_DYNAMIC_SHARED(float, all_sums);
  const int thread = Group::thread();
  const int group = static_cast<int>(threadIdx.x) / Group::size, warp = thread / 32, lane = lane_id();
  const int64_t token = static_cast<int64_t>(blockIdx.x) * groups + group;
  // With several groups, each is a warp of its own.
  if (token >= params.tokens) return;
  const int keys_x = params.keys_x, keys = params.keys_x + params.keys_y, top_k = params.top_k;
  const float* const own = logits + token * keys;
  const float* const gradients = grad_weights + token * top_k;
  float* const result = grad_logits + token * keys;

  uint32_t best_key_x = 0, best_key_y = 0;
  for (int key = thread; key < keys; key += Group::size) {
    const uint32_t order = order_key(own[key]);
    if (key < keys_x) {
      best_key_x = max(best_key_x, order);
    } else {
      best_key_y = max(best_key_y, order);
    }
  }
  const float best_x = key_value(Group::max(best_key_x)), best_y = key_value(Group::max(best_key_y));
  float sum_x = 0.0f, sum_y = 0.0f;
  for (int key = thread; key < keys; key += Group::size) {
    const float term = softmax_term(own[key], key < keys_x ? best_x : best_y);
    sum_x += key < keys_x ? term : 0.0f;
    sum_y += key < keys_x ? 0.0f : term;
  }
  const float log_x = log_of_sum(Group::sum(sum_x)), log_y = log_of_sum(Group::sum(sum_y));
  const PairDistances pairs{own, ids + token * top_k, keys_x, params.keys_y, best_x, best_y};

  // weight = exp(-(4 quarter + shift)), or factor * exp(-4 (quarter - shift)) relative to the largest.
  float shift = log_x + log_y, factor = 1.0f, mean = 0.0f;
  if (params.normalize) {
    uint32_t smallest = 0xffffffffu;
    int i, j;
    for (int p = thread; p < top_k; p += Group::size) {
      if (pairs.keys_of(p, i, j)) smallest = min(smallest, __float_as_uint(fmaxf(pairs.quarter(i, j), 0.0f)));
    }
    const float nearest = __uint_as_float(Group::min(smallest));
    // Without a log-softmax no weight is a number.
    shift = isfinite(shift) ? nearest : NAN;
    float sum = 0.0f, weighted = 0.0f;
    for (int p = thread; p < top_k; p += Group::size) {
      if (!pairs.keys_of(p, i, j)) continue;
      const float weight = expf(-4.0f * (pairs.quarter(i, j) - shift));
      sum += weight;
      weighted += weight * gradients[p];
    }
    sum = Group::sum(sum);
    weighted = Group::sum(weighted);
    factor = 1.0f / sum;
    mean = weighted / sum;
  }

  const int adders = params.copies > 0 ? params.copies : 1;
  float* const group_sums = all_sums + static_cast<int64_t>(group) * params.copies * keys;
  if (params.copies > 0) {
    for (int n = thread; n < params.copies * keys; n += Group::size) group_sums[n] = 0.0f;
  } else if (!params.accumulate) {
    for (int key = thread; key < keys; key += Group::size) result[key] = 0.0f;
  }
  Group::sync();
  float total = 0.0f;
  if (warp < adders) {
    float* const sums = params.copies > 0 ? group_sums + static_cast<int64_t>(warp) * keys : result;
    float* const values = pair_values[group * WARPS + warp];
    const int share = static_cast<int>(round_up(ceil_div(top_k, adders), 32));
    const int end = static_cast<int>(min(static_cast<int64_t>(top_k), static_cast<int64_t>(warp + 1) * share));
    for (int64_t start = static_cast<int64_t>(warp) * share; start < end; start += 32) {
      const int p = static_cast<int>(start) + lane;
      int i = -1, j = -1;
      float value = 0.0f;
      if (p < end) {
        if (pairs.keys_of(p, i, j)) {
          const float quarter = pairs.quarter(i, j);
          const float weight =
              params.normalize ? factor * expf(-4.0f * (quarter - shift)) : expf(-(4.0f * quarter + shift));
          value = weight * (gradients[p] - mean);
        } else {
          atomicAdd(id_errors, 1u);
        }
      }
      total += value;
      values[lane] = value;
      __syncwarp();
      add_by_key(sums, values, i);
      add_by_key(sums, values, j < 0 ? -1 : keys_x + j);
      __syncwarp();
    }
  }
  total = Group::sum(total);
  Group::sync();
  for (int key = thread; key < keys; key += Group::size) {
    float sum = params.accumulate || params.copies == 0 ? result[key] : 0.0f;
    for (int copy = 0; copy < params.copies; copy++) sum += group_sums[static_cast<int64_t>(copy) * keys + key];
    const bool is_y = key >= keys_x;
    const float probability = expf(__fsub_rn(own[key], is_y ? best_y : best_x) - (is_y ? log_y : log_x));
    result[key] = sum - probability * total;
  }
}

}  // namespace flash_moe
