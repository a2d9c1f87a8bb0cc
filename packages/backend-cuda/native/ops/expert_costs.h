// How long the experts take, roughly: the model that strategies are chosen by, from sizes and the device alone.
//
// Routing is taken to be uniform: P = T k pairs meet E = N (1 - exp(-P / N)) different experts. Gathering one row per
// pair moves P rows from L2 to the multiprocessors, whatever the order. From memory it moves every different row once,
// and again each time it is met after the cache has dropped it: with a share h of the rows in use that stays in the
// cache, E + (P - E)(1 - h) rows. Rates are those of one multiprocessor, or of the whole device for its memory; they
// are round numbers of data sheets and published measurements, and only their ratios matter.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "runtime/context.h"

namespace flash_moe {

struct DeviceRates {
  // Bytes per second from memory and from L2.
  double memory, cache;
  // Bytes of the L2 cache that a table can count on: on large chips a line may be held in both halves of it.
  double cache_bytes;
  // Floating-point operations per second of the tensor cores on 16-bit operands by mma.sync, and in f32 without them,
  // of one multiprocessor.
  double tensor, plain;
  int multiprocessors;
  // Seconds from one launch to the next of a stream, with the tail of a grid.
  double launch;

  explicit DeviceRates(const DeviceLimits& limits) {
    const int generation = limits.compute_capability / 10;
    const bool server = limits.compute_capability % 10 == 0;
    multiprocessors = limits.multiprocessors;
    const Tuning& tuned = limits.tuning;
    const auto rate = [](double measured, double usual) { return measured > 0 ? measured : usual; };
    cache_bytes = rate(tuned.cache_share, 0.5) * static_cast<double>(limits.l2_bytes);
    memory = rate(tuned.memory, !server ? 0.8e12 : generation >= 10 ? 7e12 : generation == 9 ? 4e12 : 1.7e12);
    cache = rate(tuned.cache, 42e9 * multiprocessors);
    tensor = rate(tuned.tensor, !server ? 0.7e12 : generation >= 9 ? 4e12 : 2.3e12);
    plain = rate(tuned.plain, generation >= 9 || !server ? 0.35e12 : 0.15e12);
    launch = rate(tuned.launch, 3e-6);
  }
};

struct ExpertSizes {
  double tokens, hidden, experts, pairs;
  double element_bytes;

  double row_bytes() const { return hidden * element_bytes; }
  double distinct() const { return experts * -std::expm1(-pairs / experts); }
};

// One piece of `bytes` of a row per pair.
inline double gather_seconds(const DeviceRates& rates, const ExpertSizes& sizes, double bytes) {
  const double distinct = sizes.distinct();
  const double held = std::min(1.0, rates.cache_bytes / std::max(1.0, distinct * bytes));
  const double from_memory = distinct + std::max(0.0, sizes.pairs - distinct) * (1 - held);
  return std::max(from_memory * bytes / rates.memory, sizes.pairs * bytes / rates.cache);
}

// expert_dots in `slices` launches: each reads the ids again and adds to the dots.
inline double dots_seconds(const DeviceRates& rates, const ExpertSizes& sizes, int slices) {
  const double list = sizes.pairs * 12 / rates.cache;
  return slices * (gather_seconds(rates, sizes, sizes.row_bytes() / slices) + list + rates.launch);
}

// expert_rows_sum with blocks of `bytes` of a row.
inline double rows_sum_seconds(const DeviceRates& rates, const ExpertSizes& sizes, double bytes) {
  const double slices = std::max(1.0, sizes.row_bytes() / bytes);
  const double list = sizes.pairs * 12 / rates.cache;
  return slices * (gather_seconds(rates, sizes, std::min(bytes, sizes.row_bytes())) + list) + rates.launch;
}

// expert_forward: both rows of a pair at once.
inline double fused_seconds(const DeviceRates& rates, const ExpertSizes& sizes) {
  return gather_seconds(rates, sizes, 2 * sizes.row_bytes()) + rates.launch;
}

// How many slices of columns expert_dots goes over: the fewest of the cheapest, each whole in `step_bytes`.
inline int best_dots_slices(const DeviceRates& rates, const ExpertSizes& sizes, double step_bytes) {
  int best = 1;
  for (int slices = 2; slices * step_bytes <= sizes.row_bytes() && slices <= 64; slices *= 2) {
    if (dots_seconds(rates, sizes, slices) < dots_seconds(rates, sizes, best)) best = slices;
  }
  return best;
}

// The gradient of `tables` tables of `rows` rows by gathers: the pairs are sorted by expert, then the row of a token is
// read for each; all rows are written in f32, and read before where they are added to.
inline double table_grad_seconds(const DeviceRates& rates, const ExpertSizes& sizes, int tables, double rows,
                                 bool accumulate) {
  if (tables == 0) return 0;
  const ExpertSizes states{sizes.tokens, sizes.hidden, sizes.tokens, sizes.pairs, sizes.element_bytes};
  const double written = (accumulate ? 2 : 1) * rows * sizes.hidden * 4 / rates.memory;
  const double each = gather_seconds(rates, states, sizes.row_bytes()) + written + 2 * rates.launch;
  // Two digits; a pass reads and writes 8 bytes a pair, in five launches, and four more find each expert's pairs.
  return tables * each + sizes.pairs * 80 / rates.memory + 14 * rates.launch;
}

// A matrix product in tiles, of which the device makes as many at a time as it has multiprocessors.
inline double product_seconds(const DeviceRates& rates, double rate, double rows, double columns, double inner,
                              double tile) {
  const double tiles = std::ceil(rows / tile) * std::ceil(columns / tile);
  const double waves = std::max(1.0, tiles / rates.multiprocessors);
  return waves * 2 * tile * tile * inner / rate + rates.launch;
}

}  // namespace flash_moe
