// Purpose: the inner products of each token with the rows of its experts, out of those with all rows.
// Equation: dots[t, j] = states[t] . table[ids[t, j]], for two pairs of states and table at once.
// Shapes: states [tokens, hidden], table [experts, hidden], dots [tokens, k]; list and offsets as in expert_tile_list,
//   with slots.
// Parallelisation: a block per tile of Tile::size tokens by so many experts; one thread per token picks those of its
//   list from shared memory.
// Why: the dense twin of expert_dots. Every inner product is a sum of its own, so a row that is not finite reaches the
//   pairs that name it alone.
#pragma once

#include "kernels/expert_dense_tile.cuh"
#include "kernels/expert_tile_list.cuh"

namespace flash_moe {

template <typename T>
struct ExpertDenseDots {
  Matrix<T> states, table;
  float* dots;
};

template <typename Tile, typename T = typename Tile::Element>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks_at_once)
    expert_dense_dots(ExpertDenseDots<T> first, ExpertDenseDots<T> second, const uint2* list, const uint32_t* offsets,
                      int64_t tiles, int64_t top_k) {
  constexpr int size = Tile::size, width = cell_stride<size>;
  FM_DYNAMIC_SHARED(unsigned char, memory);
  const int64_t tokens = first.states.rows;
  const int64_t row_tiles = ceil_div(tokens, size), blocks = row_tiles * tiles;
  const bool is_second = blockIdx.x >= blocks;
  const ExpertDenseDots<T> own = is_second ? second : first;
  const TilePlace place = tile_place(blockIdx.x - (is_second ? blocks : 0), row_tiles, tiles);
  const int64_t first_row = place.row * size, first_column = place.column * size;
  Tile tile;
  tile.make(memory, own.states, first_row, own.table, first_column, 0, own.states.width);

  float* const cells = reinterpret_cast<float*>(memory);
  // Others may still be reading the operands.
  __syncthreads();
  tile.each([&](int row, int column, float& left, float& right) {
    *reinterpret_cast<float2*>(cells + row * width + column) = make_float2(left, right);
  });
  __syncthreads();
  const int64_t row = threadIdx.x, token = first_row + row;
  if (row >= size || token >= tokens) return;
  const TileEntries entries(list, offsets, token, place.column, tiles, top_k);
  const float* const row_cells = cells + row * width;
  float* const to = own.dots + token * top_k;
  // Several loads are under way at a time.
  constexpr uint32_t batch = 4;
#pragma unroll 1
  for (uint32_t n = 0; n < entries.count; n += batch) {
    uint2 some[batch];
#pragma unroll
    for (uint32_t q = 0; q < batch; q++) some[q] = entries.first[min(n + q, entries.count - 1)];
#pragma unroll
    for (uint32_t q = 0; q < batch; q++) to[some[q].y] = row_cells[some[q].x - static_cast<uint32_t>(first_column)];
  }
}

}  // namespace flash_moe
