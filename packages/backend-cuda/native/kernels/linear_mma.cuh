// Purpose: matrix product of two f16 or two bf16 operands on the tensor cores.
// Equation: output[m, n] (+)= sum_k a[m, k] b[k, n], then norm, then + addend[m, n].
// Shapes: a [rows, inner] or [inner, rows] (along outer), b [columns, inner] (along inner) or [inner, columns], addend and
//   output [rows, columns], statistics [columns].
// Parallelisation: a block makes a tile of Product::rows x Product::columns of one of several pieces of the inner sum,
//   by TileProduct (mma.sync) or TileProductWgmma.
// Why: products of 16-bit numbers are exact in f32, so nothing is lost, at many times the rate of plain arithmetic. What
//   is done to the product on its way out costs no further pass over memory.
#pragma once

#include "device/tile_order.h"
#include "device/tile_output.h"
#include "device/tile_product.h"

namespace flash_moe {

template <typename T>
struct LinearMma {
  Matrix<T> a;
  // In two parts, so that a sum over two products is one product.
  Stacked<T> b;
  TileOutput output;
  int64_t inner;
  // Each of the pieces but the last has so much of `inner`, a multiple of 8.
  int64_t piece;
};

template <typename Product>
__global__ void __launch_bounds__(Product::threads, Product::blocks_at_once)
    linear_mma(LinearMma<typename Product::Element> p) {
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
