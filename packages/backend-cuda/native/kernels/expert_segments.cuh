// The expert-major order of the pairs, as the kernels of the tables' gradients see it.
#pragma once

#include "device/cuda.h"

namespace flash_moe {

FM_DEVICE bool is_first_pair(const uint2* sorted, uint32_t n, uint32_t num_experts) {
  const uint32_t expert = sorted[n].x;
  return expert < num_experts && (n == 0 || sorted[n - 1].x != expert);
}

// A segment of more pairs is cut every so many, from its own first pair on; the cuts are summed apart and then added in
// order, so that one hot expert does not keep a single warp busy while all others are done.
constexpr uint32_t expert_cut = 256;

struct ExpertSegments {
  // [pairs] of (expert, pair), ascending; what is no expert comes last.
  const uint2* sorted;
  // [rows] of (first, last + 1) in `sorted`.
  const uint2* segments;
  // [pairs], or null where a row is the expert itself (expert_used_rows).
  const uint32_t* places;
  // The row of the gradient that row r stands for; null: r.
  const int32_t* row_ids;
  uint32_t rows;
  uint32_t pairs;
  uint32_t num_experts;

  // The row of the pair at n; false if that is no expert.
  FM_DEVICE bool row_at(uint32_t n, uint32_t& row) const {
    const uint32_t expert = sorted[n].x;
    if (expert >= num_experts) return false;
    row = places ? places[n] - (is_first_pair(sorted, n, num_experts) ? 0u : 1u) : expert;
    return true;
  }

  FM_DEVICE int64_t gradient_row(uint32_t row) const { return row_ids ? row_ids[row] : row; }
};

// The cut, but for the first of an expert, that begins in [256 w, 256 w + 256): there is at most one, and its expert
// is the one at 256 w, since cuts of one expert are 256 apart and the first is none of them.
struct ExpertCut {
  uint32_t row;
  // Of the expert.
  uint2 segment;
  uint32_t begin;
};

FM_DEVICE bool find_cut(const ExpertSegments& order, uint32_t window, ExpertCut& cut) {
  const uint32_t at = window * expert_cut;
  if (!order.row_at(at, cut.row)) return false;
  cut.segment = order.segments[cut.row];
  if (cut.segment.x == at) return false;
  cut.begin = cut.segment.x + (at - cut.segment.x + expert_cut - 1) / expert_cut * expert_cut;
  return cut.begin < cut.segment.y;
}

}  // namespace flash_moe
