// The tile product of tile_product.h by Hopper's wgmma, with the same members: two groups of four warps, each 64 rows of
// the tile by all of its 64, 128 or 256 columns. The operands are read from shared memory by the tensor cores themselves while the threads copy what comes
// next, and `stages` are so many that a copy has several steps' time to arrive.
#pragma once

#include "device/tile_product.h"
#include "device/wgmma.h"

namespace flash_moe {

template <typename T, int COLUMNS, Along ALONG_A, Along ALONG_B>
struct TileProductWgmma : TileSums<128, COLUMNS, 8, 1> {
  using Element = T;
  using Sums = TileSums<128, COLUMNS, 8, 1>;
  using Sums::sums;
  using Sums::threads;
  static constexpr int rows = 128;
  static constexpr int columns = COLUMNS;
  static constexpr int blocks_at_once = 1;
  static constexpr int depth = 64;
  static constexpr int bytes_a = rows * depth * 2;
  static constexpr int stage_bytes = (rows + COLUMNS) * depth * 2;
  // Of 48 KB four fit into a multiprocessor.
  static constexpr int stages = COLUMNS == 256 ? 4 : 6;
  // The swizzle counts from multiples of 1024.
  static constexpr size_t shared_bytes = stages * stage_bytes + 1024;
  static_assert(Sums::parked_bytes <= shared_bytes - 1024);

  template <typename SourceA, typename SourceB>
  FM_DEVICE void run(unsigned char* memory, const SourceA& a, int64_t first_row, const SourceB& b,
                     int64_t first_column, int64_t begin, int64_t end) {
    this->clear();
    add(memory, a, first_row, b, first_column, begin, end);
  }

  template <typename SourceA, typename SourceB>
  FM_DEVICE void add(unsigned char* memory, const SourceA& a, int64_t first_row, const SourceB& b,
                     int64_t first_column, int64_t begin, int64_t end) {
#ifdef FM_HAS_WGMMA
    memory += -shared_address(memory) & 1023u;
    const int steps = static_cast<int>((end - begin + depth - 1) / depth);
    const auto stage = [&](int slot, int step) {
      unsigned char* const at = memory + slot * stage_bytes;
      const int64_t k = begin + static_cast<int64_t>(step) * depth;
      stage_tile<T, rows, ALONG_A, threads>(at, a, first_row, k, end);
      stage_tile<T, COLUMNS, ALONG_B, threads>(at + bytes_a, b, first_column, k, end);
    };
    // One slot fewer is ahead than there could be: the product of the step before may still be reading.
    constexpr int ahead = stages - 2;
#pragma unroll 1
    for (int step = 0; step < ahead; step++) {
      if (step < steps) stage(step, step);
      commit_copies();
    }
    int read = 0, write = ahead;
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
      wait_copies<ahead - 1>();
      publish_shared_memory();
      // All see this step's tiles, and all products but the last are done.
      __syncthreads();
      multiply(memory + read * stage_bytes);
      if (step + ahead < steps) stage(write, step + ahead);
      commit_copies();
      wait_products<1>();
      read = read + 1 == stages ? 0 : read + 1;
      write = write + 1 == stages ? 0 : write + 1;
    }
    wait_products<0>();
    wait_copies<0>();
    __syncthreads();
#else
    // Not selected where it was not compiled: rather an error than a wrong product.
    __trap();
#endif
  }

 private:
#ifdef FM_HAS_WGMMA
  FM_DEVICE void multiply(const unsigned char* tiles) {
    // Lines 64 apart, and 16 of the inner dimension, in bytes of a tile along inner or outer.
    constexpr uint32_t block_bytes = 64 * depth * 2;
    constexpr uint32_t step_a = ALONG_A == Along::inner ? 32 : 2048, step_b = ALONG_B == Along::inner ? 32 : 2048;
    const uint32_t address_a = shared_address(tiles) + threadIdx.x / 128 * block_bytes;
    const uint32_t address_b = shared_address(tiles) + bytes_a;
    open_products();
#pragma unroll
    for (int step = 0; step < depth / 16; step++) {
      multiply_add_async<T, ALONG_A == Along::outer, ALONG_B == Along::outer>(
          sums[0], tile_descriptor(address_a + step * step_a, block_bytes, 1024),
          tile_descriptor(address_b + step * step_b, block_bytes, 1024));
    }
    close_products();
  }
#endif
};

}  // namespace flash_moe
