// Purpose: the gated activations of all tokens with all experts of a chunk, zero where a token did not choose one.
// Equation: gated[t, e] = act(states[t] . down[e]) * sum of the gates of e in the list of t, in parts.
// Shapes: states [tokens, hidden], down [experts, hidden], list and offsets as in expert_tile_list; gated [tokens,
//   shares, parts, share_experts] (expert_dense_parts), of the experts first_expert + [0, experts), zero up to the next
//   tile.
// Parallelisation: a block per tile of Tile::size tokens by so many experts. When the product is done its shared memory
//   becomes a table of gates: one thread per token adds what the token's list has for these experts, in order. Gates
//   and inner products then change places, and the thread of a token activates those of its list; the rest is left.
// Why: above about two experts in a hundred, tensor cores that compute everything are faster than reading rows one by
//   one. Only what was chosen goes through the activation. An expert that was not has the gate -0, which no sum of gates
//   can be, so that a gate of 0 still makes NaN of an inner product that is not finite, and one not chosen does not.
#pragma once

#include "device/activation.h"
#include "kernels/expert_dense_parts.cuh"
#include "kernels/expert_dense_tile.cuh"
#include "kernels/expert_row.cuh"
#include "kernels/expert_tile_list.cuh"

namespace flash_moe {

// 0 for the gate of an expert that was not chosen.
FM_DEVICE float gated_or_zero(float activated, float gate) {
  return __float_as_uint(gate) == 0x80000000u ? 0.0f : activated * gate;
}

// `down` begins with first_expert; `tiles` tiles of experts in all.
template <typename Tile>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks_at_once)
    expert_dense_gates(typename Tile::Operand states, typename Tile::Operand down, const uint2* list,
                       const uint32_t* offsets, typename Tile::Element* gated, int64_t first_expert,
                       int64_t share_experts, int64_t stride, int64_t tiles, int64_t top_k, Activation activation) {
  constexpr int size = Tile::size;
  FM_DYNAMIC_SHARED(unsigned char, memory);
  const int64_t tokens = states.rows;
  const TilePlace place = tile_place(blockIdx.x, ceil_div(tokens, size), ceil_div(down.rows, size));
  const int64_t first_row = place.row * size, first_column = place.column * size;
  Tile tile;
  tile.make(memory, states, first_row, down, first_column, 0, states.width);

  // [size, cell_stride]: first the gates, then the inner products.
  float* const cells = reinterpret_cast<float*>(memory);
  constexpr int width = cell_stride<size>;
  const int thread = static_cast<int>(threadIdx.x);
  // Others may still be reading the operands.
  __syncthreads();
  for (int n = 4 * thread; n < size * width; n += 4 * Tile::threads)
    *reinterpret_cast<float4*>(cells + n) = make_float4(-0.0f, -0.0f, -0.0f, -0.0f);
  __syncthreads();

  const uint2* entries = nullptr;
  uint32_t count = 0;
  const uint32_t base = static_cast<uint32_t>(first_expert + first_column);
  if (thread < size && first_row + thread < tokens) {
    const TileEntries own(list, offsets, first_row + thread, base / size, tiles, top_k);
    entries = own.first;
    count = own.count;
  }
  float* const row_cells = cells + thread * width;
#pragma unroll 1
  for (uint32_t n = 0; n < count; n++) {
    const uint2 entry = entries[n];
    // Plus 0: -0 becomes 0.
    row_cells[entry.x - base] += __fadd_rn(__uint_as_float(entry.y), 0.0f);
  }
  __syncthreads();
  tile.each([&](int row, int column, float& left, float& right) {
    float2* const cell = reinterpret_cast<float2*>(cells + row * width + column);
    const float2 gate = *cell;
    *cell = make_float2(left, right);
    left = gate.x;
    right = gate.y;
  });
  __syncthreads();
  // Which cells are activated already: an expert may be in the list twice.
  uint32_t done[size / 32] = {};
#pragma unroll 1
  for (uint32_t n = 0; n < count; n++) {
    const uint32_t column = entries[n].x - base;
    const uint32_t bit = 1u << column % 32;
    bool first = false;
#pragma unroll
    for (uint32_t w = 0; w < size / 32; w++) {
      const uint32_t own = column / 32 == w ? bit : 0u;
      first = first || (own & ~done[w]) != 0;
      done[w] |= own;
    }
    if (first) row_cells[column] = activate(activation, row_cells[column]);
  }
  __syncthreads();
  tile.each([&](int row, int column, float& left, float& right) {
    float2* const cell = reinterpret_cast<float2*>(cells + row * width + column);
    const float2 activated = *cell;
    *cell = make_float2(gated_or_zero(activated.x, left), gated_or_zero(activated.y, right));
  });
  __syncthreads();
  // Shares are whole in tiles.
  const int64_t share = first_column / share_experts;
  typename Tile::Element* const to = gated + first_row * stride + first_column +
                                     share * (coefficient_parts<typename Tile::Element> - 1) * share_experts;
  // Whole rows, four cells to a thread: with eight, two threads would meet in a bank.
  for (int n = 4 * thread; n < size * size; n += 4 * Tile::threads) {
    const int row = n / size, column = n % size;
    if (first_row + row >= tokens) break;
    float values[4];
    load_vector<4>(cells + row * width + column, values);
    store_parts(to + row * stride + column, share_experts, values);
  }
}

}  // namespace flash_moe
