// Purpose: matrix product of any float operands in f32 arithmetic.
// Equation: output[m, n] (+)= sum_k norm(a[m, k]) b[k, n], then norm, then + addend[m, n].
// Shapes: a [rows, inner] or [inner, rows] (along outer), b [columns, inner] (along inner) or [inner, columns], addend and
//   output [rows, columns], statistics [inner] and [columns].
// Parallelisation: a block of 256 makes a tile of SIZE x SIZE of one of `splits` pieces of the inner sum, a thread 8 x 8
//   or 4 x 4 of it.
// Why: f32 means f32 here, which no tensor core gives; each element that is loaded serves SIZE products.
#pragma once

#include "device/tile_order.h"
#include "device/tile_output.h"
#include "device/tile_product_f32.h"

namespace flash_moe {

struct LinearTiled {
  FloatMatrix a, b;
  Along along_a, along_b;
  TileOutput output;
  int64_t inner;
  // Each of the pieces but the last has so much of `inner`.
  int64_t piece;
};

template <int SIZE>
__global__ void __launch_bounds__(TileProductF32<SIZE>::threads, TileProductF32<SIZE>::blocks_at_once)
    linear_tiled(LinearTiled p) {
  using Product = TileProductF32<SIZE>;
  FM_SHARED float4 memory[Product::shared_floats / 4];
  const int64_t row_tiles = ceil_div(p.output.rows, SIZE), column_tiles = ceil_div(p.output.columns, SIZE);
  const int64_t split = blockIdx.x / (row_tiles * column_tiles);
  const TilePlace tile = tile_place(blockIdx.x % (row_tiles * column_tiles), row_tiles, column_tiles);
  const int64_t begin = split * p.piece, end = begin + p.piece < p.inner ? begin + p.piece : p.inner;
  TileOutput output = p.output;
  if (output.partial != nullptr) output.partial += split * output.rows * output.columns;
  Product product;
  product.run(memory, p.a, p.along_a, tile.row * SIZE, p.b, p.along_b, tile.column * SIZE, begin, end);
  const int64_t first_row = tile.row * SIZE, first_column = tile.column * SIZE;
  product.template each<4>(
      [&](int row, int column, float(&extra)[4]) { output.prepare(first_row + row, first_column + column, extra); },
      [&](int row, int column, const float(&sums)[4], const float(&extra)[4]) {
        output.store(first_row + row, first_column + column, sums, extra);
      });
}

}  // namespace flash_moe
