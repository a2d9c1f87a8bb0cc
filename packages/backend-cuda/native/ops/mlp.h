// The shared MLP with another bound on its scratch memory than the ops have.
#pragma once

#include "ops/calls.h"
#include "runtime/context.h"

namespace flash_moe {

// What intermediates may take before the op goes over tokens (forward) or units (backward) in parts.
constexpr int64_t mlp_scratch_bytes = int64_t{256} << 20;

// Parts have at least 128 tokens or units, whatever the bound.
void mlp_forward_in_parts(Context& context, const MlpForwardCall& call, int64_t most_scratch_bytes);
void mlp_backward_in_parts(Context& context, const MlpBackwardCall& call, int64_t most_scratch_bytes);

}  // namespace flash_moe
