// The pairs (token, slot) in expert-major order: what the gradients of the tables are summed in.
#pragma once

#include "kernels/expert_segments.cuh"
#include "runtime/context.h"

namespace flash_moe {

// Writes the pairs sorted by expert, those of one expert in their own order, what is no expert last: (expert, pair)
// each. A stable counting sort by digits of the id, so its cost follows the pairs and not N.
void sort_by_expert(Context& context, const int32_t* ids, uint32_t pairs, uint32_t num_experts, uint2* sorted);

// Scratch that sort_by_expert takes for itself, at most.
size_t sort_scratch_bytes(int64_t pairs, int64_t num_experts);

// Where a list of pairs lies by expert, in memory of the caller.
struct ExpertRows {
  // [pairs]; null where rows are the experts themselves.
  uint32_t* places;
  // [rows]
  uint2* segments;
  uint32_t rows;
  // [rows], which experts are in use, and their number; null where rows are the experts themselves.
  int32_t* ids;
  int32_t* count;
};

// Fills `rows`; takes scan_scratch_bytes(pairs) where there are places.
void find_expert_rows(Context& context, const uint2* sorted, uint32_t pairs, uint32_t num_experts,
                      const ExpertRows& rows);

// Exclusive prefix sums in place.
void prefix_sums(Context& context, uint32_t* values, int64_t size);
size_t scan_scratch_bytes(int64_t size);

}  // namespace flash_moe
