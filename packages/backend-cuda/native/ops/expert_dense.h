// The experts as two matrix products with a mask, chunk by chunk of the experts (experts_forward.h).
#pragma once

#include "ops/calls.h"
#include "runtime/context.h"

namespace flash_moe {

bool can_be_dense(const DeviceLimits& limits, const ExpertsForwardCall& call);
// By the model of expert_costs.h.
double dense_seconds(const DeviceLimits& limits, const ExpertsForwardCall& call);
size_t dense_scratch_bytes(const DeviceLimits& limits, const ExpertsForwardCall& call);

// T: the storage type. Only what can_be_dense.
template <typename T>
void experts_dense(Context& context, const ExpertsForwardCall& call);

}  // namespace flash_moe
