// The forward of the experts: which way it goes, and what memory each takes. The op itself is in ops.h.
#pragma once

#include "ops/calls.h"
#include "runtime/context.h"

namespace flash_moe {

enum class ExpertsStrategy {
  // expert_forward: a block per token, or several where there are few tokens; both rows of a pair at once.
  fused,
  // expert_dots, then expert_rows_sum: column slice by column slice, for tables larger than the L2 cache.
  sliced,
  // expert_dense_gates and expert_dense_sum: matrix products with a mask, where a token takes many of the experts.
  // Gated activations are kept in parts of the storage dtype (expert_dense_parts). What is not finite reaches the
  // tokens that chose it and no other, as in the other ways (expert_dense_combine).
  dense,
};

constexpr const char* experts_strategy_names[] = {"fused", "sliced", "dense"};

// What the model expects (expert_costs.h); infinite where a strategy is not possible. `fused` and `dense` need rows of whole 16 bytes, `fused` rows of
// at most 2,048 elements (f32: 1,024), `dense` experts that are few enough to count in shared memory (about 390,000 with
// 100 KB of it, 900,000 with 227).
double experts_forward_seconds(const DeviceLimits& limits, const ExpertsForwardCall& call, ExpertsStrategy strategy);

// The least of these: from sizes, dtype and device alone.
ExpertsStrategy choose_experts_strategy(const DeviceLimits& limits, const ExpertsForwardCall& call);

// The op by a given strategy, which must be a possible one.
void experts_forward_by(Context& context, const ExpertsForwardCall& call, ExpertsStrategy strategy);

// Scratch of a strategy:
//   fused   4 T S H where the k experts of a token are split among S > 1 blocks (few tokens only), else none;
//   sliced  4 T k;
//   dense   8 T k + 4 T (N / tile + 2) + (tokens of a block) (4 or, bf16, 6 bytes * experts of a chunk + 4 S H), about
//           as much as the L2 cache holds.
size_t experts_forward_scratch_bytes(const DeviceLimits& limits, const ExpertsForwardCall& call,
                                     ExpertsStrategy strategy);

}  // namespace flash_moe
