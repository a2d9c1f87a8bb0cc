// What a device's strategies, and the model that chooses them, are made to be: for measuring, never for a result.
#pragma once

#include <string>

namespace flash_moe {

// Empty or 0: as the model says.
struct Tuning {
  // Ways by their names: of ExpertsStrategy; of ExpertsBackwardStrategy; of Tiles; "rows" or "tiles" for products by a transposed matrix; "bisect".
  std::string experts, experts_backward, tiles, products, router;
  // ColumnSlices; blocks to a token of expert_forward; side of a tile and experts of a chunk of the dense ways; pieces of
  // an inner sum.
  double dots_slices = 0, dots_lanes = 0, sum_lanes = 0, splits = 0, dense_tile = 0, dense_chunk = 0, pieces = 0;
  // DeviceRates, in its units; the share of the L2 cache that a table can count on.
  double memory = 0, cache = 0, cache_share = 0, tensor = 0, plain = 0, launch = 0;
};

// "experts=dense dense_chunk=2048": any of the above, in any order. INVALID_ARGUMENT for a name or a value that is none.
Tuning parse_tuning(const std::string& text);

}  // namespace flash_moe
