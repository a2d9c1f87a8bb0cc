// What the dense products multiply rows of a table by, of each token and expert of a chunk: gated activations, or
// coefficients of gradients. All of them are f32; tensor cores take parts of them in the dtype of the rows.
//
// bf16: three of 8 bits each, exactly (tile_product_split.h). f16: two, rounded to the nearest, of which the second is
// kept 2^11 times as large, where f16 has exponents for it; from 2^-12 to 65504 that is wrong by the last bit of the
// f32 at most, and what is larger becomes infinite, or NaN. f32: itself.
// A part times an element of a row is exact in f32. The parts of a token lie as [shares, parts, share_experts], the
// smallest first, and are multiplied in this order: small products are added up before large ones, in the same sums.
#pragma once

#include "device/half.h"
#include "device/tile_product_split.h"

namespace flash_moe {

template <typename T>
constexpr int coefficient_parts = 1;
template <>
constexpr int coefficient_parts<f16> = 2;
template <>
constexpr int coefficient_parts<bf16> = 3;

// What sums of a part are multiplied by before the next larger part comes on top.
template <typename T>
constexpr float coefficient_part_scale = 1;
template <>
constexpr float coefficient_part_scale<f16> = 0x1p-11f;

// The largest first.
template <typename T>
FM_DEVICE void split_coefficient(float x, uint16_t (&parts)[coefficient_parts<T>]) {
  if constexpr (coefficient_parts<T> == 2) {
    const f16 large = from_float<f16>(x);
    parts[0] = large.bits;
    parts[1] = from_float<f16>((x - to_float(large)) / coefficient_part_scale<f16>).bits;
  } else {
    split_in_three(x, parts);
  }
}

// N neighbours of a token, from where the smallest part of the first of them lies; parts are share_experts apart.
template <typename T, int N>
FM_DEVICE void store_parts(T* to, int64_t share_experts, const float (&values)[N]) {
  constexpr int parts = coefficient_parts<T>;
  if constexpr (parts == 1) {
    store_vector<N>(to, values);
  } else {
    uint16_t split[N][parts];
#pragma unroll
    for (int q = 0; q < N; q++) split_coefficient<T>(values[q], split[q]);
#pragma unroll
    for (int part = 0; part < parts; part++) {
      const auto pair = [&](int q) { return split[q][part] | static_cast<uint32_t>(split[q + 1][part]) << 16; };
      T* const at = to + (parts - 1 - part) * share_experts;
      if constexpr (N == 4) {
        *reinterpret_cast<uint2*>(at) = make_uint2(pair(0), pair(2));
      } else {
        static_assert(N == 2);
        *reinterpret_cast<uint32_t*>(at) = pair(0);
      }
    }
  }
}

}  // namespace flash_moe
