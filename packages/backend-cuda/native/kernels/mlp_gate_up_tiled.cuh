// Purpose: the two projections of the shared MLP in f32 arithmetic, and the gated intermediate.
// Equation: hidden[t, i] = act(sum_h x[t, h] gate[i, h]) * sum_h x[t, h] up[i, h].
// Shapes: x [tokens, hidden], gate and up [intermediate, hidden], hidden [tokens, intermediate] in f32; `projections`
//   [tokens, 2 intermediate] takes the two products instead where it is present (the backward).
// Parallelisation: as linear_tiled, a tile of 128 x 64 of both products at once (64 x 32 with SIZE 64).
// Why: x is staged once for the two. In the forward neither product is written to memory.
#pragma once

#include "device/activation.h"
#include "device/tile_order.h"
#include "device/tile_output.h"
#include "device/tile_product_f32.h"

namespace flash_moe {

struct MlpGateUpTiled {
  FloatMatrix x;
  FloatInterleaved weights;
  float* hidden;
  float* projections;
  Activation activation;
};

template <int SIZE>
__global__ void __launch_bounds__(TileProductF32<SIZE>::threads, TileProductF32<SIZE>::blocks_at_once)
    mlp_gate_up_tiled(MlpGateUpTiled p) {
  using Product = TileProductF32<SIZE>;
  FM_SHARED float4 memory[Product::shared_floats / 4];
  const int64_t tokens = p.x.rows, units = p.weights.rows;
  const TilePlace tile = tile_place(blockIdx.x, ceil_div(tokens, SIZE), ceil_div(units, SIZE / 2));
  Product product;
  product.run(memory, p.x, Along::inner, tile.row * SIZE, p.weights, Along::inner, tile.column * SIZE, 0, p.x.width);
  const bool aligned = units % 2 == 0;
  product.each_interleaved([&](int row, int column, const float(&gate)[2], const float(&up)[2]) {
    const int64_t token = tile.row * SIZE + row, unit = tile.column * (SIZE / 2) + column, left = units - unit;
    if (token >= tokens || left <= 0) return;
    if (p.projections != nullptr) {
      float* const to = p.projections + token * 2 * units + unit;
      store_few<2>(to, gate, left, aligned);
      store_few<2>(to + units, up, left, aligned);
      return;
    }
    float hidden[2];
#pragma unroll
    for (int q = 0; q < 2; q++) hidden[q] = activate(p.activation, gate[q]) * up[q];
    store_few<2>(p.hidden + token * units + unit, hidden, left, aligned);
  });
}

}  // namespace flash_moe
