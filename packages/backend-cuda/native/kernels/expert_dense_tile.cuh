// The products of the dense kernels of the experts: tensor cores for 16-bit storage, plain f32 arithmetic for f32.
#pragma once

#include "device/tile_order.h"
#include "device/tile_product.h"
#include "device/tile_product_f32.h"

namespace flash_moe {

// Blocks that a multiprocessor should have room for: f32 arithmetic takes the registers of one.
template <typename T>
constexpr int expert_dense_blocks = sizeof(T) == 4 ? 1 : 2;

// tile = A B with A [rows, inner] and B [columns, inner] (Along::inner) or [inner, columns] (Along::outer), both plain
// row-major matrices of whole 16 bytes a row.
template <typename T, int TILE, Along ALONG_B>
struct ExpertTile {
  using Product = TileProduct<T, TILE, TILE, Along::inner, ALONG_B>;
  static constexpr int threads = Product::threads;
  static constexpr size_t shared_bytes = Product::shared_bytes;
  Product product;

  FM_DEVICE void run(unsigned char* memory, const T* a, int64_t rows, int64_t a_stride, int64_t first_row, const T* b,
                     int64_t b_rows, int64_t b_width, int64_t first_column, int64_t begin, int64_t end) {
    const Matrix<T> left{a, rows, a_stride, a_stride, true};
    const Matrix<T> right{b, b_rows, b_width, b_width, true};
    product.run(memory, left, first_row, right, first_column, begin, end);
  }

  // f(row, column, sum, sum to its right) for this thread's sums, which f may change: the fragments of mma.h.
  template <typename F>
  FM_DEVICE void each(F&& f) {
    const int thread = static_cast<int>(threadIdx.x);
    const int first_row = thread / 64 * (TILE / 2) + thread % 32 / 4;
    const int first_column = thread / 32 % 2 * (TILE / 2) + 2 * (thread % 4);
#pragma unroll
    for (int i = 0; i < Product::row_groups; i++) {
#pragma unroll
      for (int j = 0; j < Product::column_groups; j++) {
#pragma unroll
        for (int q = 0; q < 4; q += 2)
          f(first_row + 16 * i + 4 * q, first_column + 8 * j, product.sums[i][j][q], product.sums[i][j][q + 1]);
      }
    }
  }
};

template <int TILE, Along ALONG_B>
struct ExpertTile<float, TILE, ALONG_B> {
  using Product = TileProductF32<TILE>;
  static constexpr int threads = Product::threads;
  static constexpr size_t shared_bytes = Product::shared_floats * sizeof(float);
  Product product;

  FM_DEVICE void run(unsigned char* memory, const float* a, int64_t rows, int64_t a_stride, int64_t first_row,
                     const float* b, int64_t b_rows, int64_t b_width, int64_t first_column, int64_t begin,
                     int64_t end) {
    const FloatMatrix left{a, nullptr, nullptr, rows, a_stride, a_stride, 0, DType::f32, true};
    const FloatMatrix right{b, nullptr, nullptr, b_rows, b_width, b_width, 0, DType::f32, true};
    product.run(reinterpret_cast<float4*>(memory), left, Along::inner, first_row, right, ALONG_B, first_column, begin,
                end);
  }

  template <typename F>
  FM_DEVICE void each(F&& f) {
    constexpr int groups = Product::groups;
    const int thread = static_cast<int>(threadIdx.x);
    const int first_row = thread / 64 * 16 * groups + thread % 32 / 8 * 4;
    const int first_column = thread / 32 % 2 * 32 * groups + thread % 8 * 4;
#pragma unroll
    for (int r = 0; r < 4 * groups; r++) {
#pragma unroll
      for (int c = 0; c < 4 * groups; c += 2)
        f(first_row + r / 4 * 16 + r % 4, first_column + c / 4 * 32 + c % 4, product.sums[r][c],
          product.sums[r][c + 1]);
    }
  }
};

}  // namespace flash_moe
