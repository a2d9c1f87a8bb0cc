// A tile of a matrix product on the tensor cores, for kernels with their own operands and epilogue.
//
//   tile[m, n] = sum_k A[first_row + m, k] B[k, first_column + n],  k in [begin, end),  f16 or bf16, summed in f32
//
// A block of TileProduct::threads threads makes one tile of ROWS x COLUMNS (64 x 64 or 128 x 128;
// TileProductWgmma: 128 x 64, 128 or 256):
//
//   template <typename T>
//   __global__ void __launch_bounds__(128, 2) my_kernel(Matrix<T> x, Matrix<T> w, ...) {
//     using Product = TileProduct<T, 128, 128, Along::inner, Along::inner>;
//     FM_DYNAMIC_SHARED(unsigned char, memory);             // Product::shared_bytes of it
//     Product product;
//     product.run(memory, x, first_row, w, first_column, 0, inner);
//     product.each(memory, [&](int row, int column, const float (&sums)[4]) {
//       // Four elements from (first_row + row, first_column + column) on; column is a multiple of four. Those outside the
//       // matrix come too: guard them.
//     });
//   }
//
// `Along` says for each operand which dimension is contiguous in memory: inner (A [rows, inner], B [columns, inner])
// or outer (A [inner, rows], B [inner, columns]). An operand is anything with the members of `Matrix`: `row(r)` is the
// address of row r as it lies in memory (of index k along outer), null beyond the last, so a gather is
// `table + ids[r] * width`; `width` counts the elements of a row; `aligned` says that all rows begin on 16 bytes.
// After `run`, or `clear` and `add`, a barrier has passed and the shared memory is free for the epilogue. `each` begins
// with a barrier and takes it for itself; `change` does not.
//
// Shared memory holds rows of 128 bytes in which chunk c of 16 bytes of row r lies at c ^ (r % 8): neither the copies in
// nor ldmatrix meet a bank twice, and it is the 128-byte swizzle that wgmma reads.
#pragma once

#include <cstdint>

#include "device/async_copy.h"
#include "device/cuda.h"
#include "device/half.h"
#include "device/mma.h"
#include "device/tile_sums.h"

namespace flash_moe {

enum class Along { inner, outer };

// A plain row-major matrix, as an operand.
template <typename T>
struct Matrix {
  const T* data;
  int64_t rows;
  int64_t width;
  int64_t stride;
  bool aligned;

  __device__ __forceinline__ const T* row(int64_t r) const { return r < rows ? data + r * stride : nullptr; }
};

// Copies a tile of LINES lines (rows of A, columns of B) by 64 of the inner dimension into shared memory, zero where
// there is nothing.
template <typename T, int LINES, Along ALONG, int THREADS, typename Source>
__device__ __forceinline__ void stage_tile(unsigned char* tile, const Source& source, int64_t first_line, int64_t k,
                                           int64_t end) {
  const int thread = threadIdx.x;
  const int chunk = thread % 8;
  unsigned char* const to = tile + (thread / 8) * 128 + ((chunk ^ (thread / 8 % 8)) << 4);
  const auto place = [&](int i, int64_t& left) -> const T* {
    // Row of the tile in shared memory: a line (inner), or one of 64 k of a block of 64 lines (outer).
    const int tile_row = i * (THREADS / 8) + thread / 8;
    int64_t row, column;
    if (ALONG == Along::inner) {
      row = first_line + tile_row;
      column = k + 8 * chunk;
      left = (end < source.width ? end : source.width) - column;
    } else {
      row = k + tile_row % 64;
      column = first_line + tile_row / 64 * 64 + 8 * chunk;
      left = row < end ? source.width - column : 0;
    }
    const T* const from = left > 0 ? source.row(row) : nullptr;
    if (from == nullptr) left = 0;
    return from + (from == nullptr ? 0 : column);
  };
  if (source.aligned) {
#pragma unroll
    for (int i = 0; i < LINES * 8 / THREADS; i++) {
      int64_t left;
      const T* const from = place(i, left);
      const int bytes = left >= 8 ? 16 : 2 * static_cast<int>(left);
      copy_16_async(to + i * (THREADS * 16), from, bytes);
    }
  } else {
#pragma unroll 1
    for (int i = 0; i < LINES * 8 / THREADS; i++) {
      int64_t left;
      const T* const from = place(i, left);
      T* const words = reinterpret_cast<T*>(to + i * (THREADS * 16));
#pragma unroll 1
      for (int q = 0; q < 8; q++) words[q] = q < left ? from[q] : T{0};
    }
  }
}

// Fragments (mma.h) out of a tile in shared memory: 16 lines from `line` on by 16 of the inner dimension, the `step`-th.
struct TileFragments {
  // The 16 bytes of a line that begin at inner index 8 `k8` (inner), or of inner index `k` that begin at line 8 `line8`.
  __device__ __forceinline__ static int inner_offset(int line, int k8) {
    return line * 128 + ((k8 ^ (line % 8)) << 4);
  }
  __device__ __forceinline__ static int outer_offset(int k, int line8) {
    return line8 / 8 * 8192 + k * 128 + (((line8 % 8) ^ (k % 8)) << 4);
  }

  template <Along ALONG>
  __device__ __forceinline__ static void load_a(uint32_t (&fragment)[4], const unsigned char* tile, int line, int step) {
    const int lane = threadIdx.x % 32, low = lane % 8, middle = lane / 8 % 2, high = lane / 16;
    if (ALONG == Along::inner) {
      load_matrices(fragment, tile + inner_offset(line + 8 * middle + low, 2 * step + high));
    } else {
      load_matrices_transposed(fragment, tile + outer_offset(16 * step + 8 * high + low, line / 8 + middle));
    }
  }

  // Two fragments of B: words 0 and 1 for the first eight columns, 2 and 3 for the others.
  template <Along ALONG>
  __device__ __forceinline__ static void load_b(uint32_t (&fragment)[4], const unsigned char* tile, int line, int step) {
    const int lane = threadIdx.x % 32, low = lane % 8, middle = lane / 8 % 2, high = lane / 16;
    if (ALONG == Along::inner) {
      load_matrices(fragment, tile + inner_offset(line + 8 * high + low, 2 * step + middle));
    } else {
      load_matrices_transposed(fragment, tile + outer_offset(16 * step + 8 * middle + low, line / 8 + high));
    }
  }
};

template <typename T, int ROWS, int COLUMNS, Along ALONG_A, Along ALONG_B>
struct TileProduct : TileSums<ROWS, COLUMNS, 2, 2> {
  using Element = T;
  using Sums = TileSums<ROWS, COLUMNS, 2, 2>;
  using Sums::column_groups;
  using Sums::row_groups;
  using Sums::sums;
  using Sums::threads;
  static constexpr int rows = ROWS;
  static constexpr int columns = COLUMNS;
  static constexpr int blocks_at_once = 2;
  static constexpr int depth = 64;
  static constexpr int stages = 3;
  static constexpr int bytes_a = ROWS * depth * 2;
  static constexpr int stage_bytes = (ROWS + COLUMNS) * depth * 2;
  static constexpr size_t shared_bytes = stages * stage_bytes;
  static_assert(Sums::parked_bytes <= shared_bytes);

  template <typename SourceA, typename SourceB>
  __device__ __forceinline__ void run(unsigned char* memory, const SourceA& a, int64_t first_row, const SourceB& b,
                                      int64_t first_column, int64_t begin, int64_t end) {
    this->clear();
    add(memory, a, first_row, b, first_column, begin, end);
  }

  // On top of what the sums are.
  template <typename SourceA, typename SourceB>
  __device__ __forceinline__ void add(unsigned char* memory, const SourceA& a, int64_t first_row, const SourceB& b,
                                      int64_t first_column, int64_t begin, int64_t end) {
    const int steps = static_cast<int>((end - begin + depth - 1) / depth);
    const auto stage = [&](int slot, int step) {
      unsigned char* const at = memory + slot * stage_bytes;
      const int64_t k = begin + static_cast<int64_t>(step) * depth;
      stage_tile<T, ROWS, ALONG_A, threads>(at, a, first_row, k, end);
      stage_tile<T, COLUMNS, ALONG_B, threads>(at + bytes_a, b, first_column, k, end);
    };
#pragma unroll
    for (int step = 0; step < stages - 1; step++) {
      if (step < steps) stage(step, step);
      commit_copies();
    }
    int read = 0, write = stages - 1;
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
      wait_copies<stages - 2>();
      // All see this step's tiles, and all are done with the slot that is filled next.
      __syncthreads();
      if (step + stages - 1 < steps) stage(write, step + stages - 1);
      commit_copies();
      multiply(memory + read * stage_bytes);
      read = read + 1 == stages ? 0 : read + 1;
      write = write + 1 == stages ? 0 : write + 1;
    }
    wait_copies<0>();
    __syncthreads();
  }

 private:
  __device__ __forceinline__ void multiply(const unsigned char* tiles) {
    const unsigned char* const tile_a = tiles;
    const unsigned char* const tile_b = tiles + bytes_a;
#pragma unroll
    for (int step = 0; step < depth / 16; step++) {
      uint32_t a[row_groups][4];
      uint32_t b[column_groups / 2][4];
#pragma unroll
      for (int i = 0; i < row_groups; i++) {
        TileFragments::load_a<ALONG_A>(a[i], tile_a, Sums::warp_row() + 16 * i, step);
      }
#pragma unroll
      for (int j = 0; j < column_groups / 2; j++) {
        TileFragments::load_b<ALONG_B>(b[j], tile_b, Sums::warp_column() + 16 * j, step);
      }
#pragma unroll
      for (int i = 0; i < row_groups; i++) {
#pragma unroll
        for (int j = 0; j < column_groups / 2; j++) {
          const uint32_t left[2] = {b[j][0], b[j][1]}, right[2] = {b[j][2], b[j][3]};
          multiply_add<T>(sums[i][2 * j], a[i], left);
          multiply_add<T>(sums[i][2 * j + 1], a[i], right);
        }
      }
    }
  }
};

// Rows of two matrices of one shape in turns of eight, for `each_interleaved`: tile column n is row
// n / 16 * 8 + n % 8 of matrix n / 8 % 2.
template <typename T>
struct Interleaved {
  const T* first;
  const T* second;
  int64_t rows;
  int64_t width;
  bool aligned;

  __device__ __forceinline__ const T* row(int64_t n) const {
    const int64_t r = n / 16 * 8 + n % 8;
    if (r >= rows) return nullptr;
    return (n & 8 ? second : first) + r * width;
  }
};

// Row-major matrices of one width, stacked: rows from `split` on are those of `second`.
template <typename T>
struct Stacked {
  const T* first;
  const T* second;
  int64_t split;
  int64_t rows;
  int64_t width;
  bool aligned;

  __device__ __forceinline__ const T* row(int64_t r) const {
    if (r >= rows) return nullptr;
    return r < split ? first + r * width : second + (r - split) * width;
  }
};

}  // namespace flash_moe
