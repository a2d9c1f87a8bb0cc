// What the two halves of a pass of the sort share (sort_count, sort_place).
#pragma once

#include "device/cuda.h"

namespace flash_moe {

constexpr int sort_threads = 256;
constexpr int sort_warps = sort_threads / 32;
// Entries to a block: sixteen to a thread, so that the counts of a block are few against its entries.
constexpr int sort_block = 4096;
constexpr int sort_warp_entries = sort_block / sort_warps;
constexpr int sort_max_digit_bits = 9;

// Entries are (key, pair). The first pass makes them out of the ids: pair n has key ids[n], or N where that is no
// expert, so that it sorts last and is then left alone.
struct SortSource {
  const int32_t* ids;
  const uint2* entries;
  uint32_t num_experts;

  FM_DEVICE uint2 operator[](uint32_t n) const {
    if (!ids) return entries[n];
    const int32_t id = ids[n];
    const bool present = id >= 0 && static_cast<uint32_t>(id) < num_experts;
    return make_uint2(present ? static_cast<uint32_t>(id) : num_experts, n);
  }
};

struct SortDigit {
  int shift;
  uint32_t mask;

  FM_DEVICE uint32_t operator()(uint2 entry) const { return entry.x >> shift & mask; }
};

}  // namespace flash_moe
