// Purpose: the two projections of the shared MLP on the tensor cores, and the gated intermediate.
// Equation: hidden[t, i] = act(sum_h x[t, h] gate[i, h]) * sum_h x[t, h] up[i, h], rounded to the storage dtype.
// Shapes: x [tokens, hidden], gate and up [intermediate, hidden], hidden [tokens, intermediate]; `projections`
//   [tokens, 2 intermediate] takes the two products instead where it is present (the backward). All in one dtype.
// Parallelisation: as linear_mma, a tile of Product::rows tokens by Product::columns / 2 units of both products at once:
//   rows of gate and up alternate by eights.
// Why: x is staged once for the two, and in the forward neither product is written to memory.
#pragma once

#include "device/activation.h"
#include "device/tile_order.h"
#include "device/tile_output.h"
#include "device/tile_product.h"

namespace flash_moe {

template <typename T>
struct MlpGateUpMma {
  Matrix<T> x;
  Interleaved<T> weights;
  T* hidden;
  T* projections;
  Activation activation;
};

template <typename Product, typename T = typename Product::Element>
__global__ void __launch_bounds__(Product::threads, Product::blocks_at_once) mlp_gate_up_mma(MlpGateUpMma<T> p) {
  FM_DYNAMIC_SHARED(unsigned char, memory);
  const int64_t tokens = p.x.rows, units = p.weights.rows;
  const TilePlace tile =
      tile_place(blockIdx.x, ceil_div(tokens, Product::rows), ceil_div(units, Product::columns / 2));
  Product product;
  product.run(memory, p.x, tile.row * Product::rows, p.weights, tile.column * Product::columns, 0, p.x.width);
  const bool aligned = units % 4 == 0;
  product.each_interleaved(memory, [&](int row, int column, const float(&gate)[4], const float(&up)[4]) {
    const int64_t token = tile.row * Product::rows + row, unit = tile.column * (Product::columns / 2) + column;
    const int64_t left = units - unit;
    if (token >= tokens || left <= 0) return;
    if (p.projections != nullptr) {
      T* const to = p.projections + token * 2 * units + unit;
      store_few<4>(to, gate, left, aligned);
      store_few<4>(to + units, up, left, aligned);
      return;
    }
    float hidden[4];
#pragma unroll
    for (int q = 0; q < 4; q++) hidden[q] = activate(p.activation, gate[q]) * up[q];
    store_few<4>(p.hidden + token * units + unit, hidden, left, aligned);
  });
}

}  // namespace flash_moe
