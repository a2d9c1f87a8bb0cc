// Products of a few rows with rows of weights, bound by reading the weights: what decoding one token consists of.
#pragma once

#include <cstdint>

#include "device/cuda.h"
#include "device/half.h"
#include "device/tile_output.h"
#include "device/tile_product_f32.h"

namespace flash_moe {

// values[q] = data[index + q]; index a multiple of eight, data aligned to eight elements.
__device__ __forceinline__ void load_eight(const void* data, DType dtype, int64_t index, float (&values)[8]) {
  if (dtype == DType::f32) return load_vector<8>(static_cast<const float*>(data) + index, values);
  if (dtype == DType::f16) return load_vector<8>(static_cast<const f16*>(data) + index, values);
  load_vector<8>(static_cast<const bf16*>(data) + index, values);
}

// sums[r][c] += rows first_row + r of x times weights[c], over eights of the inner dimension begin, begin + step, ...;
// absent rows give copies of the last. `x.aligned` says that x and the weights can be read by eights.
template <int ROWS, typename T>
__device__ __forceinline__ void add_products(const FloatMatrix& x, int64_t first_row, const T* const (&weights)[2],
                                             int64_t begin, int64_t step, float (&sums)[ROWS][2]) {
  const int64_t last = x.rows - 1;
  const auto row_start = [&](int r) { return (first_row + r < last ? first_row + r : last) * x.stride; };
  if (x.aligned) {
#pragma unroll(ROWS == 1 ? 4 : 1)
    for (int64_t k = begin; k < x.width; k += step) {
      float w[2][8], mean[8], scale[8];
      load_vector<8>(weights[0] + k, w[0]);
      load_vector<8>(weights[1] + k, w[1]);
      if (x.mean != nullptr) {
        load_vector<8>(x.mean + k, mean);
        load_vector<8>(x.variance + k, scale);
#pragma unroll
        for (int q = 0; q < 8; q++) scale[q] = rsqrtf(scale[q] + x.epsilon);
      }
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float values[8];
        load_eight(x.data, x.dtype, row_start(r) + k, values);
        if (x.mean != nullptr) {
#pragma unroll
          for (int q = 0; q < 8; q++) values[q] = (values[q] - mean[q]) * scale[q];
        }
#pragma unroll
        for (int q = 0; q < 8; q++) {
          sums[r][0] = fmaf(values[q], w[0][q], sums[r][0]);
          sums[r][1] = fmaf(values[q], w[1][q], sums[r][1]);
        }
      }
    }
    return;
  }
#pragma unroll 1
  for (int64_t k = begin; k < x.width; k += step) {
    const int64_t stop = k + 8 < x.width ? k + 8 : x.width;
#pragma unroll 1
    for (int64_t at = k; at < stop; at++) {
      const float left = to_float(weights[0][at]), right = to_float(weights[1][at]);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float value = load_float(x.data, x.dtype, row_start(r) + at);
        if (x.mean != nullptr) value = (value - x.mean[at]) * rsqrtf(x.variance[at] + x.epsilon);
        sums[r][0] = fmaf(value, left, sums[r][0]);
        sums[r][1] = fmaf(value, right, sums[r][1]);
      }
    }
  }
}

// Two dot products per row by `warps` of the block's warps (1 or 4, of 4), each over its share of the inner dimension;
// lane r of the first of these warps returns with the sums of row r. All threads of the block come here.
template <int ROWS, typename T>
__device__ __forceinline__ float2 row_products(const FloatMatrix& x, int64_t first_row, const T* const (&weights)[2],
                                               int warps) {
  FM_SHARED float2 partial[4][ROWS];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  float sums[ROWS][2];
#pragma unroll
  for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = 0.0f;
  const int first = warps == 1 ? lane : warp * 32 + lane;
  if (weights[0] != nullptr) add_products<ROWS, T>(x, first_row, weights, 8 * first, 256 * warps, sums);
  float2 own = make_float2(0.0f, 0.0f);
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      sums[r][0] += __shfl_xor_sync(full_mask, sums[r][0], offset);
      sums[r][1] += __shfl_xor_sync(full_mask, sums[r][1], offset);
    }
    if (lane == r) own = make_float2(sums[r][0], sums[r][1]);
  }
  if (warps == 1) return own;
  if (lane < ROWS) partial[warp][lane] = own;
  __syncthreads();
  if (warp == 0 && lane < ROWS) {
    for (int other = 1; other < warps; other++) {
      own.x += partial[other][lane].x;
      own.y += partial[other][lane].y;
    }
  }
  return own;
}

}  // namespace flash_moe
