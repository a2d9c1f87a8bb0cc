// The backward of the experts: what memory it takes. The op itself is in ops.h.
#pragma once

#include "ops/calls.h"
#include "runtime/context.h"

namespace flash_moe {

// 8 T k for two numbers per pair; with gradients of the tables also 8 T k for the sorted pairs, 8 min(T k, N) (dense,
// overwritten: 8 N) for where each expert's lie, 4 H ceil(T k / 256) for the sums of experts with over 256 pairs, and
// while sorting about 9 T k more.
size_t experts_backward_scratch_bytes(const DeviceLimits& limits, const ExpertsBackwardCall& call);

}  // namespace flash_moe
