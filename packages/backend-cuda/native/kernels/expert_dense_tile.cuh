// The products of the dense kernels of the experts: tensor cores for 16-bit storage, plain f32 arithmetic for f32.
//
// Both have these members: Element, size (of the square tile), threads, blocks_at_once, shared_bytes;
//   operand(data, rows, width): a plain row-major matrix of whole 16 bytes a row;
//   make(memory, a, first_row, b, first_column, begin, end): tile = A B with A [rows, inner] and B [columns, inner]
//     (Along::inner) or [inner, columns] (Along::outer);
//   each(f): f(row, column, sum, sum to its right) for this thread's sums, which f may change;
//   each_four(memory, f): f(row, column, four sums) for all of the tile, through the shared memory.
#pragma once

#include "device/tile_order.h"
#include "device/tile_product.h"
#include "device/tile_product_f32.h"

namespace flash_moe {

// Of a tile's sums in shared memory: rows are a few words longer, so that the lanes of a warp meet no bank twice.
template <int SIZE>
constexpr int cell_stride = SIZE + 8;

// What a kernel takes that has first the product and then its sums there.
template <typename Tile>
constexpr size_t shared_bytes_with_cells = Tile::shared_bytes > sizeof(float) * Tile::size * cell_stride<Tile::size>
                                               ? Tile::shared_bytes
                                               : sizeof(float) * Tile::size * cell_stride<Tile::size>;

// Product: TileProduct or TileProductWgmma.
template <typename Product>
struct ExpertTile : Product {
  using T = typename Product::Element;
  using Element = T;
  static constexpr int size = Product::rows;
  static_assert(Product::rows == Product::columns);

  using Operand = Matrix<T>;
  static Operand operand(const T* data, int64_t rows, int64_t width) { return {data, rows, width, width, true}; }

  FM_DEVICE void make(unsigned char* memory, const Operand& a, int64_t first_row, const Operand& b,
                      int64_t first_column, int64_t begin, int64_t end) {
    Product::run(memory, a, first_row, b, first_column, begin, end);
  }

  template <typename F>
  FM_DEVICE void each(F&& f) {
#pragma unroll
    for (int j = 0; j < Product::Sums::column_groups; j++) {
#pragma unroll
      for (int i = 0; i < Product::Sums::row_groups; i++) {
        f(Product::row_of(i), Product::column_of(j), this->sums[i][j][0], this->sums[i][j][1]);
        f(Product::row_of(i) + 8, Product::column_of(j), this->sums[i][j][2], this->sums[i][j][3]);
      }
    }
  }

  template <typename F>
  FM_DEVICE void each_four(unsigned char* memory, F&& f) const {
    Product::Sums::each(memory, f);
  }
};

template <int SIZE, Along ALONG_B>
struct ExpertTileF32 {
  using Product = TileProductF32<SIZE>;
  using Element = float;
  static constexpr int size = SIZE;
  static constexpr int threads = Product::threads;
  static constexpr int blocks_at_once = 1;
  static constexpr size_t shared_bytes = Product::shared_floats * sizeof(float);
  Product product;

  using Operand = FloatMatrix;
  static Operand operand(const float* data, int64_t rows, int64_t width) {
    return {data, nullptr, nullptr, rows, width, width, 0, DType::f32, true};
  }

  FM_DEVICE void make(unsigned char* memory, const Operand& a, int64_t first_row, const Operand& b,
                      int64_t first_column, int64_t begin, int64_t end) {
    product.run(reinterpret_cast<float4*>(memory), a, Along::inner, first_row, b, ALONG_B, first_column, begin, end);
  }

  // A thread has groups of 4 by 4 sums; a warp 4 by 8 threads, the block 4 by 2 warps.
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

  template <typename F>
  FM_DEVICE void each_four(unsigned char*, F&& f) const {
    product.each(f);
  }
};

}  // namespace flash_moe
