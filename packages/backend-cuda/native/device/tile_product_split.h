// The tile product of tile_product.h for an f32 A and a bf16 B, with f32's accuracy on the tensor cores.
//
// The 24 bits of an f32 are cut into three bf16 of 8 bits each, x = x0 + x1 + x2 exactly, and a bf16 times a bf16 is exact
// in f32; so x b = x0 b + x1 b + x2 b, and all that is lost is lost by the sums, which tensor cores cut off where a plain
// product rounds them. x1 b and x2 b have sums of their own: those of the large part are cut no more often than in a
// product of bf16. (f16 has no room for such parts: its exponent ends at 15.) A part may be 0, which makes NaN of a b that
// is infinite: where x0 b is not finite the others are left out.
#pragma once

#include "device/tile_product.h"
#include "device/tile_product_f32.h"

namespace flash_moe {

FM_DEVICE bool is_finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

// x = parts[0] + parts[1] + parts[2]; infinity and NaN stay whole in the first. Cut off, not rounded, so that nothing
// finite becomes infinite.
FM_DEVICE void split_in_three(float x, uint16_t (&parts)[3]) {
  const uint32_t bits = __float_as_uint(x);
  const bool finite = is_finite(x);
  const bool nan = !finite && (bits & 0x7fffffu) != 0;
  const float rest = finite ? x - __uint_as_float(bits & 0xffff0000u) : 0.0f;
  const uint32_t rest_bits = __float_as_uint(rest);
  parts[0] = nan ? 0x7fc0 : static_cast<uint16_t>(bits >> 16);
  parts[1] = static_cast<uint16_t>(rest_bits >> 16);
  parts[2] = static_cast<uint16_t>(__float_as_uint(rest - __uint_as_float(rest_bits & 0xffff0000u)) >> 16);
}

template <Along ALONG_A, Along ALONG_B>
struct TileProductSplit : TileSums<64, 64, 2, 2> {
  using Sums = TileSums<64, 64, 2, 2>;
  static constexpr int rows = 64;
  static constexpr int columns = 64;
  static constexpr int blocks_at_once = 2;
  static constexpr int depth = 64;
  static constexpr int stages = 2;
  static constexpr int part_bytes = 64 * depth * 2;
  // Three parts of A, then B.
  static constexpr int stage_bytes = 4 * part_bytes;
  static constexpr size_t shared_bytes = stages * stage_bytes;
  static_assert(Sums::parked_bytes <= shared_bytes);

  // A's source is one of tile_product_f32.h, B's one of tile_product.h.
  template <typename SourceA, typename SourceB>
  FM_DEVICE void run(unsigned char* memory, const SourceA& a, int64_t first_row, const SourceB& b,
                     int64_t first_column, int64_t begin, int64_t end) {
    clear();
    float small[row_groups][column_groups][4] = {};
    const int steps = static_cast<int>((end - begin + depth - 1) / depth);
    const auto stage_b = [&](int step) {
      if (step < steps) {
        stage_tile<bf16, columns, ALONG_B, threads>(memory + step % stages * stage_bytes + 3 * part_bytes, b,
                                                    first_column, begin + static_cast<int64_t>(step) * depth, end);
      }
      commit_copies();
    };
    float next[8][4];
    stage_b(0);
    if (steps > 0) {
      fetch(next, a, first_row, begin, end);
      place(memory, next);
    }
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
      const bool more = step + 1 < steps;
      if (more) fetch(next, a, first_row, begin + static_cast<int64_t>(step + 1) * depth, end);
      wait_copies<0>();
      // All see this step's tiles, and all are done with the slot that is filled next.
      __syncthreads();
      stage_b(step + 1);
      multiply(memory + step % stages * stage_bytes, small);
      if (more) place(memory + (step + 1) % stages * stage_bytes, next);
    }
    wait_copies<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < row_groups; i++)
#pragma unroll
      for (int j = 0; j < column_groups; j++)
#pragma unroll
        for (int q = 0; q < 4; q++) {
          if (is_finite(sums[i][j][q])) sums[i][j][q] += small[i][j][q];
        }
  }

 private:
  // Sixteen threads have a row of the tile in shared memory: a line (inner), or 64 lines at one k (outer).
  template <typename Source>
  FM_DEVICE static void fetch(float (&values)[8][4], const Source& source, int64_t first_line, int64_t k, int64_t end) {
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int tile_row = 8 * i + thread / 16, tile_column = thread % 16 * 4;
      if (ALONG_A == Along::inner) {
        source.load(first_line + tile_row, k + tile_column, end, values[i]);
      } else {
        source.load(k + tile_row, first_line + tile_column, k + tile_row < end ? INT64_MAX : 0, values[i]);
      }
    }
  }

  FM_DEVICE static void place(unsigned char* tiles, const float (&values)[8][4]) {
    const int thread = static_cast<int>(threadIdx.x);
    // tile_row % 8 is thread / 16 for all i.
    const int chunk = thread % 16 / 2 ^ thread / 16;
    unsigned char* const to = tiles + thread / 16 * 128 + (chunk << 4) + thread % 2 * 8;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      uint16_t parts[4][3];
#pragma unroll
      for (int q = 0; q < 4; q++) split_in_three(values[i][q], parts[q]);
#pragma unroll
      for (int part = 0; part < 3; part++) {
        *reinterpret_cast<uint2*>(to + part * part_bytes + i * 1024) =
            make_uint2(parts[0][part] | static_cast<uint32_t>(parts[1][part]) << 16,
                       parts[2][part] | static_cast<uint32_t>(parts[3][part]) << 16);
      }
    }
  }

  FM_DEVICE void multiply(const unsigned char* tiles, float (&small)[row_groups][column_groups][4]) {
#pragma unroll
    for (int step = 0; step < depth / 16; step++) {
      uint32_t b[column_groups / 2][4];
#pragma unroll
      for (int j = 0; j < column_groups / 2; j++) {
        TileFragments::load_b<ALONG_B>(b[j], tiles + 3 * part_bytes, warp_column() + 16 * j, step);
      }
#pragma unroll
      for (int part = 2; part >= 0; part--) {
#pragma unroll
        for (int i = 0; i < row_groups; i++) {
          uint32_t a[4];
          TileFragments::load_a<ALONG_A>(a, tiles + part * part_bytes, warp_row() + 16 * i, step);
#pragma unroll
          for (int j = 0; j < column_groups / 2; j++) {
            const uint32_t left[2] = {b[j][0], b[j][1]}, right[2] = {b[j][2], b[j][3]};
            multiply_add<bf16>(part == 0 ? sums[i][2 * j] : small[i][2 * j], a, left);
            multiply_add<bf16>(part == 0 ? sums[i][2 * j + 1] : small[i][2 * j + 1], a, right);
          }
        }
      }
    }
  }
};

}  // namespace flash_moe
