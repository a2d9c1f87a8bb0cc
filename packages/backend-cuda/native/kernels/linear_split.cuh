// Purpose: matrix product of f32 numbers (or normalised 16-bit ones) by bf16 on the tensor cores, as accurate as in f32.
// Equation: output[m, n] (+)= sum_k norm(a[m, k]) b[k, n], then norm, then + addend[m, n].
// Shapes: a [rows, inner] or [inner, rows] (along outer), b bf16 [columns, inner] (along inner) or [inner, columns], addend
//   and output [rows, columns], statistics [inner] and [columns].
// Parallelisation: as linear_mma, tiles of 64 x 64.
// Why: the router multiplies normalised hidden states, and gradients in f32, by bf16 weights; three tensor-core products
//   cost less than one of plain arithmetic.
#pragma once

#include "device/tile_order.h"
#include "device/tile_output.h"
#include "device/tile_product_split.h"

namespace flash_moe {

struct LinearSplit {
  FloatMatrix a;
  Matrix<bf16> b;
  TileOutput output;
  int64_t inner;
  // Each of the pieces but the last has so much of `inner`, a multiple of 8.
  int64_t piece;
};

template <typename Product>
__global__ void __launch_bounds__(Product::threads, Product::blocks_at_once) linear_split(LinearSplit p) {
  FM_DYNAMIC_SHARED(unsigned char, memory);
  const int64_t row_tiles = ceil_div(p.output.rows, Product::rows);
  const int64_t column_tiles = ceil_div(p.output.columns, Product::columns);
  const int64_t split = blockIdx.x / (row_tiles * column_tiles);
  const TilePlace tile = tile_place(blockIdx.x % (row_tiles * column_tiles), row_tiles, column_tiles);
  const int64_t begin = split * p.piece, end = begin + p.piece < p.inner ? begin + p.piece : p.inner;
  const int64_t first_row = tile.row * Product::rows, first_column = tile.column * Product::columns;
  TileOutput output = p.output;
  if (output.partial != nullptr) output.partial += split * output.rows * output.columns;
  Product product;
  product.run(memory, p.a, first_row, p.b, first_column, begin, end);
  product.template each<4>(
      memory,
      [&](int row, int column, float(&extra)[4]) { output.prepare(first_row + row, first_column + column, extra); },
      [&](int row, int column, const float(&sums)[4], const float(&extra)[4]) {
        output.store(first_row + row, first_column + column, sums, extra);
      });
}

}  // namespace flash_moe
