// Purpose: the second half of a product whose inner sum was cut into pieces.
// Equation: output[m, n] (+)= sum_s partial[s, m, n], then norm, then + addend[m, n].
// Shapes: partial [splits, rows, columns] in f32, output and addend [rows, columns], statistics [columns].
// Parallelisation: a thread per four columns of a row.
// Why: a few tiles with a long sum would leave most of the chip idle. Pieces are added in their order: same bits each run.
#pragma once

#include "device/tile_output.h"

namespace flash_moe {

__global__ void __launch_bounds__(256) linear_combine(const float* partial, int splits, TileOutput output) {
  const int64_t fours = ceil_div(output.columns, 4);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  const int64_t row = index / fours, column = index % fours * 4;
  if (row >= output.rows) return;
  const int64_t size = output.rows * output.columns, left = output.columns - column;
  const float* from = partial + row * output.columns + column;
  float sums[4] = {}, extra[4], piece[4];
  output.prepare(row, column, extra);
  for (int s = 0; s < splits; s++, from += size) {
    load_few<4>(from, piece, left, output.partial_aligned);
#pragma unroll
    for (int q = 0; q < 4; q++) sums[q] += piece[q];
  }
  output.store(row, column, sums, extra);
}

}  // namespace flash_moe
