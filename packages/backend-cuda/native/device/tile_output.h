// Where a product goes: normalised, with an addend, added to what is there, rounded once.
#pragma once

#include <cstdint>

#include "device/cuda.h"
#include "device/half.h"
#include "ops/calls.h"

namespace flash_moe {

// A float of any dtype, as f32. The branch is one that all threads take alike.
__device__ __forceinline__ float load_float(const void* data, DType dtype, int64_t index) {
  if (dtype == DType::f32) return static_cast<const float*>(data)[index];
  if (dtype == DType::f16) return to_float(static_cast<const f16*>(data)[index]);
  return to_float(static_cast<const bf16*>(data)[index]);
}

// COUNT neighbours, of which the first `left` exist; `aligned`: they begin on a multiple of COUNT elements.
template <int COUNT, typename T>
__device__ __forceinline__ void store_few(T* to, const float (&values)[COUNT], int64_t left, bool aligned) {
  if (aligned && left >= COUNT) {
    struct alignas(COUNT * sizeof(T)) Few {
      T values[COUNT];
    } few;
#pragma unroll
    for (int q = 0; q < COUNT; q++) few.values[q] = from_float<T>(values[q]);
    *reinterpret_cast<Few*>(to) = few;
    return;
  }
#pragma unroll
  for (int q = 0; q < COUNT; q++)
    if (q < left) to[q] = from_float<T>(values[q]);
}

// Zero for those that do not exist.
template <int COUNT, typename T>
__device__ __forceinline__ void load_few(const T* from, float (&values)[COUNT], int64_t left, bool aligned) {
  if (aligned && left >= COUNT) {
    struct alignas(COUNT * sizeof(T)) Few {
      T values[COUNT];
    };
    const Few few = *reinterpret_cast<const Few*>(from);
#pragma unroll
    for (int q = 0; q < COUNT; q++) values[q] = to_float(few.values[q]);
    return;
  }
#pragma unroll
  for (int q = 0; q < COUNT; q++) values[q] = q < left ? to_float(from[q]) : 0.0f;
}

struct TileOutput {
  void* data;
  // Rows `stride` apart like those of `data`; null: none.
  const void* addend;
  // Statistics of a normalisation along the columns; null: none.
  const float* mean;
  const float* variance;
  // Not null: the sums themselves go here in f32, [rows, columns], and linear_combine finishes them.
  float* partial;
  int64_t rows, columns, stride;
  float epsilon;
  DType dtype, addend_dtype;
  bool accumulate;
  // Rows of output and addend, and of `partial`, begin on four elements.
  bool aligned, partial_aligned;

  // What is added to COUNT elements from (row, column) on; column is a multiple of COUNT.
  template <int COUNT>
  __device__ __forceinline__ void prepare(int64_t row, int64_t column, float (&extra)[COUNT]) const {
#pragma unroll
    for (int q = 0; q < COUNT; q++) extra[q] = 0.0f;
    const int64_t left = columns - column;
    if (partial != nullptr || row >= rows || left <= 0) return;
    const int64_t at = row * stride + column;
    if (addend != nullptr) {
      if (addend_dtype == DType::f32) {
        load_few<COUNT>(static_cast<const float*>(addend) + at, extra, left, aligned);
      } else if (addend_dtype == DType::f16) {
        load_few<COUNT>(static_cast<const f16*>(addend) + at, extra, left, aligned);
      } else {
        load_few<COUNT>(static_cast<const bf16*>(addend) + at, extra, left, aligned);
      }
    }
    if (accumulate) {
      float start[COUNT];
      load_few<COUNT>(static_cast<const float*>(data) + at, start, left, aligned);
#pragma unroll
      for (int q = 0; q < COUNT; q++) extra[q] += start[q];
    }
  }

  // Finishes and stores COUNT elements.
  template <int COUNT>
  __device__ __forceinline__ void store(int64_t row, int64_t column, const float (&sums)[COUNT],
                                        const float (&extra)[COUNT]) const {
    const int64_t left = columns - column;
    if (row >= rows || left <= 0) return;
    if (partial != nullptr) {
      store_few<COUNT>(partial + row * columns + column, sums, left, partial_aligned);
      return;
    }
    float values[COUNT];
#pragma unroll
    for (int q = 0; q < COUNT; q++) {
      values[q] = sums[q];
      if (mean != nullptr && q < left) {
        values[q] = (values[q] - mean[column + q]) * rsqrtf(variance[column + q] + epsilon);
      }
      values[q] += extra[q];
    }
    const int64_t at = row * stride + column;
    if (dtype == DType::f32) {
      store_few<COUNT>(static_cast<float*>(data) + at, values, left, aligned);
    } else if (dtype == DType::f16) {
      store_few<COUNT>(static_cast<f16*>(data) + at, values, left, aligned);
    } else {
      store_few<COUNT>(static_cast<bf16*>(data) + at, values, left, aligned);
    }
  }
};

}  // namespace flash_moe
