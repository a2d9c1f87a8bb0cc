// Purpose: the matrix product of few rows by a transposed matrix: what decoding one token consists of.
// Equation: output[m, n] (+)= sum_k norm(a[m, k]) b[n, k], then norm, then + addend[m, n].
// Shapes: a [rows, inner], b [columns, inner], addend and output [rows, columns], statistics [inner], [columns].
// Parallelisation: a warp, or the four of a block where there are few columns, makes two columns of ROWS rows: a lane
//   every 32nd (128th) group of eight of the inner sum, then a tree over the lanes, then the warps in order.
// Why: a tile would leave all but `rows` of its rows idle. The cost is reading b once, which this does, 16 bytes a lane.
#pragma once

#include "device/tile_rows.h"

namespace flash_moe {

struct LinearRows {
  FloatMatrix a;
  const void* b;
  TileOutput output;
  // Warps to a pair of columns: 1 or 4.
  int warps;
};

template <typename T, int ROWS>
__global__ void __launch_bounds__(128, 4) linear_rows(LinearRows p) {
  const int groups = 4 / p.warps;
  const int64_t slices = ceil_div(ceil_div(p.output.columns, 2), groups);
  const int64_t first_row = blockIdx.x / slices * ROWS;
  const int group = p.warps == 1 ? static_cast<int>(threadIdx.x) / 32 : 0;
  const int64_t column = (blockIdx.x % slices * groups + group) * 2;
  const T* const b = static_cast<const T*>(p.b);
  const T* const left = column < p.output.columns ? b + column * p.a.width : nullptr;
  // A last column without a neighbour is made twice and written once.
  const T* const right = column + 1 < p.output.columns ? left + p.a.width : left;
  const T* const weights[2] = {left, right};
  const float2 sums = row_products<ROWS, T>(p.a, first_row, weights, p.warps);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane < ROWS && (p.warps == 1 || threadIdx.x < 32)) {
    const float two[2] = {sums.x, sums.y};
    float extra[2];
    p.output.prepare(first_row + lane, column, extra);
    p.output.store(first_row + lane, column, two, extra);
  }
}

}  // namespace flash_moe
