// The gradients of the experts as matrix products with a mask, chunk by chunk of the experts (experts_backward.h).
#pragma once

#include "ops/calls.h"
#include "ops/expert_dense_passes.h"
#include "runtime/context.h"

namespace flash_moe {

bool can_be_dense(const DeviceLimits& limits, const ExpertsBackwardCall& call);
// By the model of expert_costs.h, but for compact gradients of the tables.
double dense_seconds(const DeviceLimits& limits, const ExpertsBackwardCall& call);
size_t dense_scratch_bytes(const DeviceLimits& limits, const ExpertsBackwardCall& call);

// Of a call that can_be_dense.
class DenseBackward {
 public:
  DenseBackward(Context& context, const ExpertsBackwardCall& call);

  // of_up[t, j] = x[t] . down[ids[t, j]], of_down[t, j] = d[t] . up[ids[t, j]]; ids that are none are counted.
  void dots(float* of_up, float* of_down);
  // The gradients of the hidden states and dense ones of the tables, from what rows of d and of x and down are multiplied
  // by (expert_pair_grad).
  void sums(const float* of_up, const float* of_down);

 private:
  Context& context_;
  const ExpertsBackwardCall& call_;
  const DensePlan plan_;
  const DenseList list_;
};

}  // namespace flash_moe
