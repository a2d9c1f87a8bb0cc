// The sums of a tile in the fragments of tensor cores (mma.h), and how an epilogue goes through them.
#pragma once

#include <cstdint>

#include "device/cuda.h"
#include "device/half.h"

namespace flash_moe {

// ROWS x COLUMNS sums of WARP_ROWS by WARP_COLUMNS warps; a warp has groups of 16 rows and of 8 columns. wgmma's
// accumulators are the same with one column of warps.
template <int ROWS, int COLUMNS, int WARP_ROWS, int WARP_COLUMNS>
struct TileSums {
  static constexpr int threads = 32 * WARP_ROWS * WARP_COLUMNS;
  static constexpr int row_groups = ROWS / WARP_ROWS / 16;
  static constexpr int column_groups = COLUMNS / WARP_COLUMNS / 8;
  // What `each` takes of shared memory.
  static constexpr size_t parked_bytes = ROWS * (COLUMNS + 8) * sizeof(float);

  float sums[row_groups][column_groups][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < row_groups; i++)
#pragma unroll
      for (int j = 0; j < column_groups; j++)
#pragma unroll
        for (int q = 0; q < 4; q++) sums[i][j][q] = 0.0f;
  }

  // f(row, column, sum) for all of the tile, in this thread's share of it, in place.
  template <typename F>
  __device__ __forceinline__ void change(F&& f) {
#pragma unroll
    for (int j = 0; j < column_groups; j++) {
#pragma unroll
      for (int i = 0; i < row_groups; i++) {
#pragma unroll
        for (int q = 0; q < 4; q++) f(row_of(i) + q / 2 * 8, column_of(j) + q % 2, sums[i][j][q]);
      }
    }
  }

  // f(row, column, four sums) in whole rows: the sums go through shared memory, so that what is stored lies together and
  // f is compiled a few times only.
  template <typename F>
  __device__ __forceinline__ void each(unsigned char* memory, F&& f) const {
    each<1>(
        memory, [](int, int, float(&)[1]) {},
        [&](int row, int column, const float(&four)[4], const float(&)[1]) { f(row, column, four); });
  }

  // The same for an f that reads memory: prepare(row, column, extra) comes first for several fours, so that its loads are
  // under way together, then f(row, column, sums, extra) for them.
  template <int EXTRA, typename Prepare, typename F>
  __device__ __forceinline__ void each(unsigned char* memory, Prepare&& prepare, F&& f) const {
    float* const parked = park(memory);
    constexpr int fours = COLUMNS / 4;
    constexpr int rows_at_once = threads / fours;
    const int column = static_cast<int>(threadIdx.x) % fours * 4;
    for_rows<rows_at_once, ROWS, EXTRA>(
        static_cast<int>(threadIdx.x) / fours,
        [&](int row, float(&extra)[EXTRA]) { prepare(row, column, extra); },
        [&](int row, const float(&extra)[EXTRA]) {
          float four[4];
          load_vector<4>(parked + row * parked_stride + column, four);
          f(row, column, four, extra);
        });
  }

  // For a B of two matrices (`Interleaved`): f(row, column of either, sums of the first, sums of the second), COLUMNS / 2
  // columns of each.
  template <typename F>
  __device__ __forceinline__ void each_interleaved(unsigned char* memory, F&& f) const {
    float* const parked = park(memory);
    constexpr int fours = COLUMNS / 8;
    const int column = static_cast<int>(threadIdx.x) % fours * 4;
    for_rows<threads / fours, ROWS, 1>(
        static_cast<int>(threadIdx.x) / fours, [](int, float(&)[1]) {},
        [&](int row, const float(&)[1]) {
          const float* const at = parked + row * parked_stride + column / 8 * 16 + column % 8;
          float first[4], second[4];
          load_vector<4>(at, first);
          load_vector<4>(at + 8, second);
          f(row, column, first, second);
        });
  }

 protected:
  __device__ __forceinline__ static int warp_row() {
    return static_cast<int>(threadIdx.x) / 32 / WARP_COLUMNS * (ROWS / WARP_ROWS);
  }
  __device__ __forceinline__ static int warp_column() {
    return static_cast<int>(threadIdx.x) / 32 % WARP_COLUMNS * (COLUMNS / WARP_COLUMNS);
  }
  __device__ __forceinline__ static int row_of(int group) {
    return warp_row() + 16 * group + static_cast<int>(threadIdx.x) % 32 / 4;
  }
  __device__ __forceinline__ static int column_of(int group) {
    return warp_column() + 8 * group + 2 * (static_cast<int>(threadIdx.x) % 4);
  }

 private:
  // Eight more than the tile is wide, so that the fragments of a warp fall into all banks.
  static constexpr int parked_stride = COLUMNS + 8;

  __device__ __forceinline__ float* park(unsigned char* memory) const {
    float* const parked = reinterpret_cast<float*>(memory);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < row_groups; i++) {
#pragma unroll
      for (int j = 0; j < column_groups; j++) {
        float* const at = parked + row_of(i) * parked_stride + column_of(j);
        *reinterpret_cast<float2*>(at) = make_float2(sums[i][j][0], sums[i][j][1]);
        *reinterpret_cast<float2*>(at + 8 * parked_stride) = make_float2(sums[i][j][2], sums[i][j][3]);
      }
    }
    __syncthreads();
    return parked;
  }

  // Every STEP-th row from `first` on, four of them at a time.
  template <int STEP, int END, int EXTRA, typename Prepare, typename F>
  __device__ __forceinline__ static void for_rows(int first, Prepare&& prepare, F&& f) {
    static_assert(END % (4 * STEP) == 0);
#pragma unroll 1
    for (int row = first; row < END; row += 4 * STEP) {
      float extra[4][EXTRA];
#pragma unroll
      for (int q = 0; q < 4; q++) prepare(row + q * STEP, extra[q]);
#pragma unroll
      for (int q = 0; q < 4; q++) f(row + q * STEP, extra[q]);
    }
  }
};

}  // namespace flash_moe
