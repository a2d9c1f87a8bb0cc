// Which tile of a product a block makes.
#pragma once

#include <cstdint>

#include "device/cuda.h"

namespace flash_moe {

struct TilePlace {
  int64_t row, column;
};

// Tiles that run at the same time should share operands in L2: eight rows of tiles are gone through column by column.
__device__ __forceinline__ TilePlace tile_place(int64_t index, int64_t row_tiles, int64_t column_tiles) {
  constexpr int64_t band = 8;
  const int64_t first_row = index / (band * column_tiles) * band;
  const int64_t left = row_tiles - first_row;
  const int64_t rows = left < band ? left : band;
  const int64_t within = index - first_row * column_tiles;
  return {first_row + within % rows, within / rows};
}

}  // namespace flash_moe
