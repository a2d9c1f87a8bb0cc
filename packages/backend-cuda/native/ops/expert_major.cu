#include "ops/expert_major.h"

#include <algorithm>

#include "kernels/expert_first_pairs.cuh"
#include "kernels/expert_used_rows.cuh"
#include "kernels/scan_add.cuh"
#include "kernels/scan_blocks.cuh"
#include "kernels/sort_count.cuh"
#include "kernels/sort_place.cuh"
#include "runtime/cuda_error.h"

namespace flash_moe {

namespace {

struct SortPlan {
  uint32_t blocks;
  int passes;
  int digit_bits;

  SortPlan(int64_t pairs, int64_t num_experts) {
    blocks = static_cast<uint32_t>(ceil_div(pairs, sort_block));
    // Keys go up to N: that one stands for no expert.
    int bits = 1;
    while (num_experts >> bits) bits++;
    passes = static_cast<int>(ceil_div(bits, sort_max_digit_bits));
    digit_bits = static_cast<int>(ceil_div(bits, passes));
  }

  int64_t counts() const { return static_cast<int64_t>(blocks) << digit_bits; }
};

}  // namespace

size_t scan_scratch_bytes(int64_t size) {
  size_t bytes = 0;
  do {
    size = ceil_div(size, scan_block);
    bytes += static_cast<size_t>(size) * 4;
  } while (size > 1);
  return bytes;
}

void prefix_sums(Context& context, uint32_t* values, int64_t size) {
  const int64_t blocks = ceil_div(size, scan_block);
  const Scratch totals(context, static_cast<size_t>(blocks) * 4, "totals of blocks");
  launch(context, "scan_blocks", scan_blocks, blocks, scan_threads, 0, values, totals.as<uint32_t>(), size);
  if (blocks <= 1) return;
  prefix_sums(context, totals.as<uint32_t>(), blocks);
  launch(context, "scan_add", scan_add, ceil_div(size, 256), 256, 0, values, totals.as<uint32_t>(), size);
}

size_t sort_scratch_bytes(int64_t pairs, int64_t num_experts) {
  const SortPlan plan(pairs, num_experts);
  return (plan.passes > 1 ? static_cast<size_t>(pairs) * sizeof(uint2) : 0) +
         static_cast<size_t>(plan.counts()) * 4 + scan_scratch_bytes(plan.counts());
}

void sort_by_expert(Context& context, const int32_t* ids, uint32_t pairs, uint32_t num_experts, uint2* sorted) {
  const SortPlan plan(pairs, num_experts);
  const Scratch counts(context, static_cast<size_t>(plan.counts()) * 4, "counts of digits");
  const Scratch other(context, plan.passes > 1 ? pairs * sizeof(uint2) : 0, "pairs that are being sorted");
  SortSource source{ids, nullptr, num_experts};
  for (int pass = 0; pass < plan.passes; pass++) {
    // The last pass ends in `sorted`.
    uint2* const target = (plan.passes - pass) % 2 == 1 ? sorted : other.as<uint2>();
    const SortDigit digit{pass * plan.digit_bits, (1u << plan.digit_bits) - 1};
    launch(context, "sort_count", sort_count, plan.blocks, sort_threads, 0, source, counts.as<uint32_t>(), pairs,
           plan.blocks, digit);
    prefix_sums(context, counts.as<uint32_t>(), plan.counts());
    launch(context, "sort_place", sort_place, plan.blocks, sort_threads, 0, source, counts.as<uint32_t>(), target,
           pairs, plan.blocks, digit);
    source = {nullptr, target, num_experts};
  }
}

void find_expert_rows(Context& context, const uint2* sorted, uint32_t pairs, uint32_t num_experts,
                      const ExpertRows& rows) {
  const int64_t blocks = ceil_div(pairs, 256);
  clear(context, rows.segments, static_cast<size_t>(rows.rows) * sizeof(uint2), "clearing the segments of experts");
  if (rows.places) {
    launch(context, "expert_first_pairs", expert_first_pairs, blocks, 256, 0, sorted, rows.places, pairs, num_experts);
    prefix_sums(context, rows.places, pairs);
  }
  launch(context, "expert_used_rows", expert_used_rows, blocks, 256, 0, sorted, rows.places, rows.segments, rows.ids,
         rows.count, pairs, num_experts);
}

}  // namespace flash_moe
