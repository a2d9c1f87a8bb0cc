// Purpose: what a chunk of experts gives to the output of all tokens.
// Equation: partials[t, s] (+)= factors[t] * sum_e gated[t, e] up[e], over the s-th share of the chunk's experts. For
//   the gradient of the hidden states: of coefficients and `down`.
// Shapes: gated [tokens, shares, parts, share_experts] (expert_dense_parts), up [experts, hidden], partials [tokens,
//   shares, hidden] f32.
// Parallelisation: a block per share and tile of Tile::size tokens by so many columns.
// Why: the parts go one after the other through the same sums, so a tile has no more of them than any other product.
//   Shares keep a device busy that has more multiprocessors than the output has tiles. Chunks follow each other in
//   launches and add in f32; expert_combine adds the shares in order and rounds once.
#pragma once

#include "kernels/expert_dense_parts.cuh"
#include "kernels/expert_dense_tile.cuh"

namespace flash_moe {

template <typename Tile>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks_at_once)
    expert_dense_sum(typename Tile::Operand gated, typename Tile::Operand up, const float* factors, float* partials,
                     int64_t shares, int64_t share_experts, bool accumulate) {
  using T = typename Tile::Element;
  constexpr int size = Tile::size, parts = coefficient_parts<T>;
  FM_DYNAMIC_SHARED(unsigned char, memory);
  const int64_t tokens = gated.rows, hidden = up.width, experts = up.rows;
  const int64_t row_tiles = ceil_div(tokens, size), column_tiles = ceil_div(hidden, size);
  const int64_t share = blockIdx.x / static_cast<unsigned>(row_tiles * column_tiles);
  const TilePlace place = tile_place(blockIdx.x - share * row_tiles * column_tiles, row_tiles, column_tiles);
  const int64_t first_row = place.row * size, first_column = place.column * size;
  // The last chunk may have nothing for the last shares: they add nothing.
  const int64_t begin = min(share * share_experts, experts);
  const int64_t end = min(begin + share_experts, experts);
  Tile tile;
  if constexpr (parts == 1) {
    tile.make(memory, gated, first_row, up, first_column, begin, end);
  } else {
    tile.clear();
#pragma unroll 1
    for (int part = 0; part < parts; part++) {
      // Zeros at first too: a test for that has ptxas serialise wgmma (C7515).
      if (coefficient_part_scale<T> != 1.0f) {
        tile.change([](int, int, float& sum) { sum *= coefficient_part_scale<T>; });
      }
      // So that the part's first of this share is at `begin` of a row, as its expert is.
      typename Tile::Operand own = gated;
      own.data += (share * (parts - 1) + part) * share_experts;
      tile.add(memory, own, first_row, up, first_column, begin, end);
    }
  }
  tile.each_four(memory, [&](int row, int column, const float(&four)[4]) {
    const int64_t token = first_row + row;
    // hidden is a multiple of four: rows are whole in 16 bytes.
    if (token >= tokens || first_column + column >= hidden) return;
    const float factor = factors[token];
    float* const to = partials + (token * shares + share) * hidden + first_column + column;
    float values[4] = {};
    if (accumulate) load_vector<4>(to, values);
#pragma unroll
    for (int q = 0; q < 4; q++) values[q] = __fmaf_rn(four[q], factor, values[q]);
    store_vector<4>(to, values);
  });
}

}  // namespace flash_moe
