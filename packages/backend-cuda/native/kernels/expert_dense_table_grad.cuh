// Purpose: the gradients of the tables for all experts of a chunk, as one product each.
// Equation: gradient[e] (+)= sum_t matrix[t, e] states[t].
// Shapes: matrix [tokens, shares, 3, share_experts] of bf16 (expert_dense_parts.cuh), states [tokens, hidden], gradient
//   [experts, hidden] f32; spoiled [tiles, Tile::size].
// Parallelisation: a block per tile of Tile::size experts by so many columns, over three times the tokens.
// Why: the dense twin of expert_table_grad, without a sort. An expert that a token did not choose has the coefficient 0
//   there, which makes NaN of states that are not finite. So a row of a tile with a sum that is not finite is not written:
//   it is `spoiled`, and made again from the tokens that chose the expert, and no other (expert_dense_table_again: this
//   kernel has no register left for it).
#pragma once

#include "kernels/expert_dense_parts.cuh"
#include "kernels/expert_dense_tile.cuh"
#include "kernels/expert_table_grad.cuh"

namespace flash_moe {

// The rows of a matrix, all of them three times over, as an operand of tile_product.h along outer: row k is row
// k % period, `step` elements further on each time.
template <typename T>
struct RepeatedRows {
  const T* data;
  int64_t period, width, stride, step;
  bool aligned;

  FM_DEVICE const T* row(int64_t k) const {
    const int64_t turn = (k >= period ? 1 : 0) + (k >= 2 * period ? 1 : 0);
    return data + (k - turn * period) * stride + turn * step;
  }
};

struct ExpertDenseTable {
  const bf16* matrix;
  const bf16* states;
  float* gradient;
  uint32_t* spoiled;
  int64_t tokens, experts, hidden, share_experts, stride;
  bool accumulate;
};

template <typename Tile>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks_at_once) expert_dense_table_grad(ExpertDenseTable p) {
  constexpr int size = Tile::size, parts = coefficient_parts<bf16>;
  FM_DYNAMIC_SHARED(unsigned char, memory);
  const TilePlace place = tile_place(blockIdx.x, ceil_div(p.experts, size), ceil_div(p.hidden, size));
  const int64_t first_row = place.row * size, first_column = place.column * size;
  // Shares are whole in tiles.
  const int64_t share = first_row / p.share_experts;
  const RepeatedRows<bf16> coefficients{p.matrix + share * parts * p.share_experts, p.tokens, p.share_experts,
                                        p.stride, p.share_experts, true};
  const RepeatedRows<bf16> states{p.states, p.tokens, p.hidden, p.hidden, 0, true};
  Tile tile;
  tile.run(memory, coefficients, first_row - share * p.share_experts, states, first_column, 0,
           parts * p.tokens);
  tile.each_four(memory, [&](int row, int column, const float(&four)[4]) {
    uint32_t largest = 0;
#pragma unroll
    for (int q = 0; q < 4; q++) largest = max(largest, __float_as_uint(four[q]) & 0x7fffffffu);
    // A warp has one row, or two.
    const bool is_spoiled = __any_sync(full_mask, largest >= 0x7f800000u);
    if (column == 0) p.spoiled[static_cast<int64_t>(blockIdx.x) * size + row] = is_spoiled ? 1 : 0;
    // hidden is a multiple of four: rows are whole in 16 bytes.
    if (is_spoiled || first_row + row >= p.experts || first_column + column >= p.hidden) return;
    write_gradient(p.gradient + (first_row + row) * p.hidden + first_column + column, four,
                   p.accumulate);
  });
}

}  // namespace flash_moe
