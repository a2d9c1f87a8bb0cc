// Purpose: what a chunk of experts gives to the output of all tokens.
// Equation: partials[t, s] (+)= factors[t] * sum_e gated[t, e] up[e], over the s-th share of the chunk's experts.
// Shapes: gated [tokens, stride], up [experts, hidden], partials [tokens, shares, hidden] f32.
// Parallelisation: a block per share and tile of TILE tokens by TILE columns.
// Why: shares keep a device busy that has more multiprocessors than the output has tiles. Chunks follow each other in
//   launches and add in f32; expert_combine adds the shares in order and rounds once.
#pragma once

#include "kernels/expert_dense_tile.cuh"

namespace flash_moe {

template <typename T, int TILE>
__global__ void __launch_bounds__(ExpertTile<T, TILE, Along::outer>::threads, 2)
    expert_dense_sum(const T* gated, const T* up, const float* factors, float* partials, int64_t tokens,
                     int64_t hidden, int64_t experts, int64_t stride, int64_t shares, int64_t share_experts,
                     bool accumulate) {
  using Tile = ExpertTile<T, TILE, Along::outer>;
  FM_DYNAMIC_SHARED(unsigned char, memory);
  const int64_t row_tiles = ceil_div(tokens, TILE), column_tiles = ceil_div(hidden, TILE);
  const int64_t share = blockIdx.x / static_cast<unsigned>(row_tiles * column_tiles);
  const TilePlace place = tile_place(blockIdx.x - share * row_tiles * column_tiles, row_tiles, column_tiles);
  const int64_t first_row = place.row * TILE, first_column = place.column * TILE;
  // The last chunk may have nothing for the last shares: they add nothing.
  const int64_t begin = share * share_experts < experts ? share * share_experts : experts;
  const int64_t end = begin + share_experts < experts ? begin + share_experts : experts;
  Tile tile;
  tile.run(memory, gated, tokens, stride, first_row, up, experts, hidden, first_column, begin, end);
  tile.each([&](int row, int column, float left, float right) {
    const int64_t token = first_row + row;
    // hidden is even: rows are whole in 16 bytes.
    if (token >= tokens || first_column + column >= hidden) return;
    const float factor = factors[token];
    float2* const to = reinterpret_cast<float2*>(partials + (token * shares + share) * hidden + first_column + column);
    const float2 old = accumulate ? *to : make_float2(0, 0);
    *to = make_float2(__fmaf_rn(left, factor, old.x), __fmaf_rn(right, factor, old.y));
  });
}

}  // namespace flash_moe
