// Purpose: each token's experts by tiles of experts, so that a tile of a dense product finds its gates.
// Equation: list[t, offsets[t, i] .. offsets[t, i + 1]) = (id, gate) of the slots j of t with ids[t, j] / tile = i, in
//   the order of j; gate = weights[t, j] * scale, factors[t] = 1 / scale with scale a power of two. Without weights:
//   (id, j), and factors of 1.
// Shapes: ids, weights and list [tokens, k], offsets [tokens, tiles + 1], factors [tokens].
// Parallelisation: a block of 128 threads per token; a stable counting sort in shared memory, as in sort_place: every
//   warp counts its quarter of the slots, the counts become places, 32 slots are placed at a time.
// Why: products of f16 hold act(a) * gate in two f16 (expert_dense_parts), where a weight of a softmax over many
//   experts would vanish. So gates are scaled for the largest of a token to lie in [8, 16) (SCALED), exactly, and the
//   sums are scaled back. That has room for activations from 2^-15 to 2^12; tokens with larger ones are gathered
//   (expert_dense_combine).
//   Ids that are none are counted and left out.
#pragma once

#include "device/cuda.h"

namespace flash_moe {

constexpr int expert_tile_list_threads = 128;
constexpr int expert_tile_list_warps = expert_tile_list_threads / 32;

// What the list of a token has for one tile of experts.
struct TileEntries {
  const uint2* first;
  uint32_t count;

  FM_DEVICE TileEntries(const uint2* list, const uint32_t* offsets, int64_t token, int64_t tile, int64_t tiles,
                        int64_t top_k) {
    const uint32_t* const range = offsets + token * (tiles + 1) + tile;
    first = list + token * top_k + range[0];
    count = range[1] - range[0];
  }
};

template <bool SCALED>
__global__ void __launch_bounds__(expert_tile_list_threads)
    expert_tile_list(const int32_t* ids, const float* weights, uint2* list, uint32_t* offsets, float* factors,
                     int64_t num_experts, int top_k, int tiles, int tile, uint32_t* id_errors) {
  // [warps, tiles]
  FM_DYNAMIC_SHARED(uint32_t, places);
  FM_SHARED uint32_t warp_values[expert_tile_list_warps];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32, lane = thread % 32;
  const int64_t token = blockIdx.x;
  const int32_t* const own_ids = ids + token * top_k;
  const float* const own_weights = weights ? weights + token * top_k : nullptr;
  uint32_t* const own_places = places + static_cast<int64_t>(warp) * tiles;
  for (int i = lane; i < tiles; i += 32) own_places[i] = 0;
  __syncwarp();

  const int share = (top_k + expert_tile_list_threads - 1) / expert_tile_list_threads * 32;
  const int begin = warp * share;
  const int end = min(begin + share, top_k);
  uint32_t largest = 0;
  for (int j = begin + lane; j < end; j += 32) {
    const int32_t id = own_ids[j];
    if (id < 0 || id >= num_experts) {
      atomicAdd(id_errors, 1u);
      continue;
    }
    atomicAdd(&own_places[id / tile], 1u);
    if (SCALED) {
      // Not the sign; what is not finite does not decide the scale.
      const uint32_t magnitude = __float_as_uint(own_weights[j]) & 0x7fffffffu;
      if (magnitude < 0x7f800000u) largest = max(largest, magnitude);
    }
  }
  float scale = 1, factor = 1;
  if (SCALED) {
    __syncwarp();
    largest = __reduce_max_sync(full_mask, largest);
    if (lane == 0) warp_values[warp] = largest;
    __syncthreads();
    for (int w = 0; w < expert_tile_list_warps; w++) largest = max(largest, warp_values[w]);
    const uint32_t exponent = max(largest >> 23, 4u);
    if (largest > 0) {
      scale = __uint_as_float((257u - exponent) << 23);
      factor = __uint_as_float((exponent - 3u) << 23);
    }
  }
  if (thread == 0) factors[token] = factor;
  __syncthreads();

  // Every thread turns the counts of neighbouring tiles into places.
  const int per_thread = (tiles + expert_tile_list_threads - 1) / expert_tile_list_threads;
  const int first_tile = min(thread * per_thread, tiles);
  const int last_tile = min(first_tile + per_thread, tiles);
  uint32_t sum = 0;
  for (int i = first_tile; i < last_tile; i++) {
    for (int w = 0; w < expert_tile_list_warps; w++) sum += places[static_cast<int64_t>(w) * tiles + i];
  }
  uint32_t up_to = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t before = __shfl_up_sync(full_mask, up_to, step);
    if (lane >= step) up_to += before;
  }
  if (lane == 31) warp_values[warp] = up_to;
  __syncthreads();
  uint32_t place = up_to - sum;
  for (int w = 0; w < warp; w++) place += warp_values[w];
  uint32_t* const own_offsets = offsets + token * (tiles + 1);
  for (int i = first_tile; i < last_tile; i++) {
    own_offsets[i] = place;
    for (int w = 0; w < expert_tile_list_warps; w++) {
      uint32_t& slot = places[static_cast<int64_t>(w) * tiles + i];
      const uint32_t count = slot;
      slot = place;
      place += count;
    }
  }
  if (thread == expert_tile_list_threads - 1) own_offsets[tiles] = place;
  __syncthreads();

  uint2* const own_list = list + token * top_k;
  for (int start = begin; start < end; start += 32) {
    const int j = start + lane;
    int32_t id = -1;
    if (j < end) id = own_ids[j];
    const bool present = id >= 0 && id < num_experts;
    const int tile_of_id = present ? id / tile : -1;
    const uint32_t same = __match_any_sync(full_mask, tile_of_id);
    const uint32_t earlier = static_cast<uint32_t>(__popc(same & ((1u << lane) - 1u)));
    uint32_t at = 0;
    if (present) at = own_places[tile_of_id];
    __syncwarp();
    if (present) {
      const uint32_t second = own_weights ? __float_as_uint(own_weights[j] * scale) : static_cast<uint32_t>(j);
      own_list[at + earlier] = make_uint2(static_cast<uint32_t>(id), second);
      if (earlier == 0) own_places[tile_of_id] = at + static_cast<uint32_t>(__popc(same));
    }
    __syncwarp();
  }
}

}  // namespace flash_moe
