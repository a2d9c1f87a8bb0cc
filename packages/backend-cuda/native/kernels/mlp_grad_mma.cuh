// Purpose: the gradients of the shared MLP's projections on the tensor cores, and the intermediate.
// Equation: with a = x Wg^T and b = x Wu^T from before and dh = gradOutput Wd:
//   hidden = act(a) b, da = dh b act'(a), db = dh act(a); a becomes da, b becomes db.
// Shapes: gradOutput [tokens, hidden], Wd [hidden, intermediate], a and b the halves of projections [tokens,
//   2 intermediate], hidden [tokens, intermediate]. All in one dtype.
// Parallelisation: as linear_mma, a tile of Product::rows x Product::columns of dh.
// Why: dh never exists in memory, nor is it rounded; in place, so that the backward needs three intermediates, not six.
#pragma once

#include "device/activation.h"
#include "device/tile_order.h"
#include "device/tile_output.h"
#include "device/tile_product.h"

namespace flash_moe {

template <typename T>
struct MlpGradMma {
  Matrix<T> grad_output, down;
  T* projections;
  T* hidden;
  Activation activation;
};

template <typename Product, typename T = typename Product::Element>
__global__ void __launch_bounds__(Product::threads, Product::blocks_at_once) mlp_grad_mma(MlpGradMma<T> p) {
  FM_DYNAMIC_SHARED(unsigned char, memory);
  const int64_t tokens = p.grad_output.rows, units = p.down.width;
  const TilePlace tile = tile_place(blockIdx.x, ceil_div(tokens, Product::rows), ceil_div(units, Product::columns));
  const int64_t first_token = tile.row * Product::rows, first_unit = tile.column * Product::columns;
  Product product;
  product.run(memory, p.grad_output, first_token, p.down, first_unit, 0, p.grad_output.width);
  const bool aligned = units % 4 == 0;
  // The projections of four units: gates, then ups.
  product.template each<8>(
      memory,
      [&](int row, int column, float(&extra)[8]) {
        const int64_t token = first_token + row, left = units - first_unit - column;
        const T* const from = p.projections + token * 2 * units + first_unit + column;
        float gate[4] = {}, up[4] = {};
        if (token < tokens && left > 0) {
          load_few<4>(from, gate, left, aligned);
          load_few<4>(from + units, up, left, aligned);
        }
#pragma unroll
        for (int q = 0; q < 4; q++) extra[q] = gate[q], extra[q + 4] = up[q];
      },
      [&](int row, int column, const float(&dh)[4], const float(&extra)[8]) {
        const int64_t token = first_token + row, unit = first_unit + column, left = units - unit;
        if (token >= tokens || left <= 0) return;
        float hidden[4], da[4], db[4];
#pragma unroll
        for (int q = 0; q < 4; q++) {
          const float a = extra[q], b = extra[q + 4];
          const float activated = activate(p.activation, a);
          hidden[q] = activated * b;
          da[q] = dh[q] * b * activation_slope(p.activation, a);
          db[q] = dh[q] * activated;
        }
        T* const to = p.projections + token * 2 * units + unit;
        store_few<4>(p.hidden + token * units + unit, hidden, left, aligned);
        store_few<4>(to, da, left, aligned);
        store_few<4>(to + units, db, left, aligned);
      });
}

}  // namespace flash_moe
