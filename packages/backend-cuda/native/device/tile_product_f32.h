// A tile of a matrix product in f32 arithmetic, for operands of any float dtype and alignment: the plain twin of
// tile_product.h, with the same members.
//
// A block of 256 threads makes SIZE x SIZE (64 or 128), a thread 4 x 4 or 8 x 8 of it in groups of four. 16 of the inner
// dimension at a time are converted to f32 in registers and stored to one of two shared buffers while the other is
// multiplied. The inner sum of an element runs in one order.
#pragma once

#include <cstdint>

#include "device/cuda.h"
#include "device/half.h"
#include "device/tile_output.h"
#include "device/tile_product.h"
#include "ops/calls.h"

namespace flash_moe {

// values[q] = element index + q where q < left, else 0. `aligned`: index is a multiple of four and the base is aligned
// to four elements.
__device__ __forceinline__ void load_four(const void* data, DType dtype, int64_t index, int64_t left, bool aligned,
                                          float (&values)[4]) {
  if (aligned && left >= 4) {
    if (dtype == DType::f32) return load_vector<4>(static_cast<const float*>(data) + index, values);
    if (dtype == DType::f16) return load_vector<4>(static_cast<const f16*>(data) + index, values);
    return load_vector<4>(static_cast<const bf16*>(data) + index, values);
  }
#pragma unroll
  for (int q = 0; q < 4; q++) values[q] = q < left ? load_float(data, dtype, index + q) : 0.0f;
}

// A row-major matrix of any float dtype as it lies in memory.
struct FloatMatrix {
  const void* data;
  // Statistics of a normalisation along the width; null: none.
  const float* mean;
  const float* variance;
  int64_t rows, width, stride;
  float epsilon;
  DType dtype;
  // All rows begin on four elements.
  bool aligned;

  __device__ __forceinline__ void load(int64_t row, int64_t column, int64_t end, float (&values)[4]) const {
    const int64_t left = row < rows ? (end < width ? end : width) - column : 0;
    load_four(data, dtype, row * stride + column, left, aligned, values);
    if (mean == nullptr) return;
#pragma unroll
    for (int q = 0; q < 4; q++)
      if (q < left) values[q] = (values[q] - mean[column + q]) * rsqrtf(variance[column + q] + epsilon);
  }
};

// Rows of two matrices of one shape in turns of two, for `each_interleaved`.
struct FloatInterleaved {
  const void* first;
  const void* second;
  int64_t rows, width;
  DType dtype;
  bool aligned;

  __device__ __forceinline__ void load(int64_t n, int64_t column, int64_t end, float (&values)[4]) const {
    const int64_t row = n / 4 * 2 + n % 2;
    const int64_t left = row < rows ? (end < width ? end : width) - column : 0;
    load_four(n & 2 ? second : first, dtype, row * width + column, left, aligned, values);
  }
};

template <int SIZE>
struct TileProductF32 {
  static constexpr int threads = 256;
  static constexpr int depth = 16;
  // A thread of the large tile needs more than the 128 registers that a second block would leave it.
  static constexpr int blocks_at_once = SIZE == 128 ? 1 : 2;
  // One group of four more than the tile, so that what a thread stores falls into several banks.
  static constexpr int line_stride = SIZE + 4;
  static constexpr int operand_floats = depth * line_stride;
  static constexpr int shared_floats = 4 * operand_floats;
  // Groups of four rows and columns of a thread; also what it loads of an operand at a time.
  static constexpr int groups = SIZE / 64;

  float sums[4 * groups][4 * groups];

  // `shared`: shared_floats of shared memory.
  template <typename SourceA, typename SourceB>
  __device__ __forceinline__ void run(float4* shared, const SourceA& a, Along along_a, int64_t first_row,
                                      const SourceB& b, Along along_b, int64_t first_column, int64_t begin,
                                      int64_t end) {
    float* const memory = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int r = 0; r < 4 * groups; r++)
#pragma unroll
      for (int c = 0; c < 4 * groups; c++) sums[r][c] = 0.0f;
    const int64_t steps = (end - begin + depth - 1) / depth;
    float next_a[groups][4], next_b[groups][4];
    if (steps > 0) {
      fetch(next_a, a, along_a, first_row, begin, end);
      fetch(next_b, b, along_b, first_column, begin, end);
      place(memory, next_a, along_a);
      place(memory + operand_floats, next_b, along_b);
    }
    __syncthreads();
#pragma unroll 1
    for (int64_t step = 0; step < steps; step++) {
      const bool more = step + 1 < steps;
      float* const now = memory + (step & 1) * 2 * operand_floats;
      float* const then = memory + (~step & 1) * 2 * operand_floats;
      if (more) {
        fetch(next_a, a, along_a, first_row, begin + (step + 1) * depth, end);
        fetch(next_b, b, along_b, first_column, begin + (step + 1) * depth, end);
      }
      multiply(now, now + operand_floats);
      if (more) {
        place(then, next_a, along_a);
        place(then + operand_floats, next_b, along_b);
      }
      __syncthreads();
    }
  }

  // f(row, column, four sums) for all of the tile, in this thread's share of it; column is a multiple of four.
  template <typename F>
  __device__ __forceinline__ void each(F&& f) const {
    each<1>([](int, int, float(&)[1]) {},
            [&](int row, int column, const float(&four)[4], const float(&)[1]) { f(row, column, four); });
  }

  // f(row, column, sum) for the same, in place.
  template <typename F>
  __device__ __forceinline__ void change(F&& f) {
#pragma unroll
    for (int r = 0; r < 4 * groups; r++)
#pragma unroll
      for (int c = 0; c < 4 * groups; c++) f(row_of(r / 4) + r % 4, column_of(c / 4) + c % 4, sums[r][c]);
  }

  // The same for an f that reads memory: prepare(row, column, extra) comes first for several fours, so that its loads are
  // under way together, then f(row, column, sums, extra) for them.
  template <int EXTRA, typename Prepare, typename F>
  __device__ __forceinline__ void each(Prepare&& prepare, F&& f) const {
#pragma unroll
    for (int i = 0; i < groups; i++) {
#pragma unroll
      for (int j = 0; j < groups; j++) {
        float extra[4][EXTRA];
#pragma unroll
        for (int r = 0; r < 4; r++) prepare(row_of(i) + r, column_of(j), extra[r]);
#pragma unroll
        for (int r = 0; r < 4; r++) {
          const float* const from = sums[4 * i + r] + 4 * j;
          const float four[4] = {from[0], from[1], from[2], from[3]};
          f(row_of(i) + r, column_of(j), four, extra[r]);
        }
      }
    }
  }

  // For a B of `FloatInterleaved`: f(row, column of either, two sums of the first matrix, two sums of the second).
  template <typename F>
  __device__ __forceinline__ void each_interleaved(F&& f) const {
#pragma unroll
    for (int r = 0; r < 4 * groups; r++) {
#pragma unroll
      for (int c = 0; c < 4 * groups; c += 4) {
        const float first[2] = {sums[r][c], sums[r][c + 1]}, second[2] = {sums[r][c + 2], sums[r][c + 3]};
        f(row_of(r / 4) + r % 4, column_of(c / 4) / 2, first, second);
      }
    }
  }

 private:
  // A warp has 4 by 8 threads, a block 4 by 2 warps: what a warp reads of either operand is as square as can be.
  __device__ __forceinline__ static int row_of(int group) {
    const int thread = threadIdx.x;
    return thread / 64 * 16 * groups + 16 * group + thread % 32 / 8 * 4;
  }
  __device__ __forceinline__ static int column_of(int group) {
    const int thread = threadIdx.x;
    return thread / 32 % 2 * 32 * groups + 32 * group + thread % 8 * 4;
  }

  template <typename Source>
  __device__ __forceinline__ static void fetch(float (&values)[groups][4], const Source& source, Along along,
                                               int64_t first_line, int64_t k, int64_t end) {
#pragma unroll
    for (int i = 0; i < groups; i++) {
      const int index = i * threads + threadIdx.x;
      const bool inner = along == Along::inner;
      const int64_t row = inner ? first_line + index / 4 : k + index / (SIZE / 4);
      const int64_t column = inner ? k + index % 4 * 4 : first_line + index % (SIZE / 4) * 4;
      source.load(row, column, inner ? end : row < end ? INT64_MAX : 0, values[i]);
    }
  }

  __device__ __forceinline__ static void place(float* tile, const float (&values)[groups][4], Along along) {
#pragma unroll
    for (int i = 0; i < groups; i++) {
      const int index = i * threads + threadIdx.x;
      if (along == Along::inner) {
#pragma unroll
        for (int q = 0; q < 4; q++) tile[(index % 4 * 4 + q) * line_stride + index / 4] = values[i][q];
      } else {
        *reinterpret_cast<float4*>(tile + index / (SIZE / 4) * line_stride + index % (SIZE / 4) * 4) =
            make_float4(values[i][0], values[i][1], values[i][2], values[i][3]);
      }
    }
  }

  __device__ __forceinline__ void multiply(const float* tile_a, const float* tile_b) {
#pragma unroll
    for (int k = 0; k < depth; k++) {
      float4 a[groups], b[groups];
#pragma unroll
      for (int i = 0; i < groups; i++) {
        a[i] = *reinterpret_cast<const float4*>(tile_a + k * line_stride + row_of(i));
        b[i] = *reinterpret_cast<const float4*>(tile_b + k * line_stride + column_of(i));
      }
#pragma unroll
      for (int i = 0; i < groups; i++) {
#pragma unroll
        for (int j = 0; j < groups; j++) {
          add_row(sums[4 * i], j, a[i].x, b[j]);
          add_row(sums[4 * i + 1], j, a[i].y, b[j]);
          add_row(sums[4 * i + 2], j, a[i].z, b[j]);
          add_row(sums[4 * i + 3], j, a[i].w, b[j]);
        }
      }
    }
  }

  __device__ __forceinline__ static void add_row(float (&row)[4 * groups], int j, float a, const float4& b) {
    row[4 * j] = fmaf(a, b.x, row[4 * j]);
    row[4 * j + 1] = fmaf(a, b.y, row[4 * j + 1]);
    row[4 * j + 2] = fmaf(a, b.z, row[4 * j + 2]);
    row[4 * j + 3] = fmaf(a, b.w, row[4 * j + 3]);
  }
};

}  // namespace flash_moe
