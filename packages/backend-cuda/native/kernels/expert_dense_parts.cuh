// The coefficients of a chunk of experts, as what the tensor cores of bf16 multiply with f32's accuracy.
//
// A coefficient is three bf16 of 8 bits each, exactly (tile_product_split.h). Those of a token lie as [shares, 3,
// share_experts], the smallest parts first: so one product over three times the inner dimension adds small parts before
// large ones, along the experts of a share as well as along the tokens, and needs no accumulators but its own.
#pragma once

#include "device/half.h"
#include "device/tile_product_split.h"

namespace flash_moe {

constexpr int coefficient_parts = 3;

// The rows of a matrix, all of them three times over, as an operand of tile_product.h along outer: row k is row
// k % period, `step` elements further on each time. Of rows that do not exist the last one takes the place: what it is
// multiplied by is 0 there. (A test instead would cost the 128 by 128 tile a register that it does not have.)
template <typename T>
struct RepeatedRows {
  const T* data;
  int64_t period;
  // Of the period, those that exist.
  int64_t rows;
  int64_t width, stride, step;
  bool aligned;

  FM_DEVICE const T* row(int64_t k) const {
    const int64_t turn = (k >= period ? 1 : 0) + (k >= 2 * period ? 1 : 0);
    const int64_t r = min(k - turn * period, rows - 1);
    return data + r * stride + turn * step;
  }
};

}  // namespace flash_moe
