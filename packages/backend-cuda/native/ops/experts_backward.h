// The backward of the experts: which way it goes, and what memory each takes. The op itself is in ops.h.
#pragma once

#include "ops/calls.h"
#include "runtime/context.h"

namespace flash_moe {

enum class ExpertsBackwardStrategy {
  // expert_dots, expert_rows_sum and expert_table_grad: a row per pair, in expert-major order for the tables.
  gathered,
  // expert_dense_dots, expert_dense_sum and expert_dense_table_grad: matrix products with a mask, where a token takes
  // many of the experts. Coefficients are multiplied in three exact parts of bf16, so none is rounded.
  // Compact gradients of the tables are gathered all the same.
  dense,
};

constexpr const char* experts_backward_strategy_names[] = {"gathered", "dense"};

// What the model expects (expert_costs.h), but for compact gradients of the tables, which take as long either way; infinite
// where a strategy is not possible. `dense` is for bf16, with rows of whole 16 bytes and experts that are few enough to
// count in shared memory (experts_forward.h).
double experts_backward_seconds(const DeviceLimits& limits, const ExpertsBackwardCall& call,
                                ExpertsBackwardStrategy strategy);

// The least of these: from sizes, dtype and device alone.
ExpertsBackwardStrategy choose_experts_backward_strategy(const DeviceLimits& limits, const ExpertsBackwardCall& call);

// The op by a given strategy, which must be a possible one.
void experts_backward_by(Context& context, const ExpertsBackwardCall& call, ExpertsBackwardStrategy strategy);

// Scratch of a strategy, 8 T k for two numbers per pair and
//   gathered  with gradients of the tables 8 T k for the sorted pairs, 8 min(T k, N) (dense, overwritten: 8 N) for where
//             each expert's lie, 4 H ceil(T k / 256) for the sums of experts with over 256 pairs, and while sorting about
//             9 T k more;
//   dense     8 T k + 4 T (N / tile + 2) + (tokens of a block) (6 bytes * experts of a chunk for each of two matrices +
//             4 S H), the last about as much as the L2 cache holds; for compact gradients, what `gathered` takes for the
//             tables, where that is more.
size_t experts_backward_scratch_bytes(const DeviceLimits& limits, const ExpertsBackwardCall& call,
                                      ExpertsBackwardStrategy strategy);

}  // namespace flash_moe
