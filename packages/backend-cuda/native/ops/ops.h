// Every op: enqueues its kernels on the context's stream and returns. Never waits for the device; which kernels run
// depends on sizes and dtypes alone, never on data. Throws `Failure` (runtime/failure.h).
#pragma once

#include "ops/calls.h"
#include "runtime/context.h"

namespace flash_moe {

void linear(Context& context, const LinearCall& call);
void batch_norm_forward(Context& context, const BatchNormForwardCall& call);
void batch_norm_backward(Context& context, const BatchNormBackwardCall& call);
void router_select_forward(Context& context, const RouterSelectForwardCall& call);
void router_select_backward(Context& context, const RouterSelectBackwardCall& call);
void experts_forward(Context& context, const ExpertsForwardCall& call);
void experts_backward(Context& context, const ExpertsBackwardCall& call);
void mlp_forward(Context& context, const MlpForwardCall& call);
void mlp_backward(Context& context, const MlpBackwardCall& call);
void adamw(Context& context, const AdamwCall& call);

}  // namespace flash_moe
