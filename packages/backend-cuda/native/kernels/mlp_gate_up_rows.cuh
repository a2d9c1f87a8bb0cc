// Purpose: the gated intermediate of the shared MLP for few tokens.
// Equation: hidden[t, i] = act(sum_h x[t, h] gate[i, h]) * sum_h x[t, h] up[i, h].
// Shapes: x [tokens, hidden], gate and up [intermediate, hidden], hidden [tokens, intermediate] in f32.
// Parallelisation: as linear_rows, a unit's two rows of weights taking the place of two columns.
// Why: as linear_rows: the cost is reading the weights, and a tile would leave most of its rows idle.
#pragma once

#include "device/activation.h"
#include "device/tile_rows.h"

namespace flash_moe {

struct MlpGateUpRows {
  FloatMatrix x;
  const void* gate;
  const void* up;
  float* hidden;
  int64_t units;
  Activation activation;
  // Warps to a unit: 1 or 4.
  int warps;
};

template <typename T, int ROWS>
__global__ void __launch_bounds__(128, 4) mlp_gate_up_rows(MlpGateUpRows p) {
  const int groups = 4 / p.warps;
  const int64_t slices = ceil_div(p.units, groups);
  const int64_t first_token = blockIdx.x / slices * ROWS;
  const int group = p.warps == 1 ? static_cast<int>(threadIdx.x) / 32 : 0;
  const int64_t unit = blockIdx.x % slices * groups + group;
  const bool present = unit < p.units;
  const T* const weights[2] = {present ? static_cast<const T*>(p.gate) + unit * p.x.width : nullptr,
                               present ? static_cast<const T*>(p.up) + unit * p.x.width : nullptr};
  const float2 sums = row_products<ROWS, T>(p.x, first_token, weights, p.warps);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t token = first_token + lane;
  if (lane < ROWS && present && token < p.x.rows && (p.warps == 1 || threadIdx.x < 32)) {
    p.hidden[token * p.units + unit] = activate(p.activation, sums.x) * sums.y;
  }
}

}  // namespace flash_moe
