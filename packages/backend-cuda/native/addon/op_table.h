// The ops by their numbers, which are their places in the list of @flash-moe/core.
#pragma once

#include <cstddef>

#include "addon/decode_calls.h"
#include "ops/ops.h"

namespace flash_moe {

struct OpEntry {
  // As JavaScript calls it.
  const char* name;
  // Runs the call in the block.
  void (*run)(Context& context, const double* block);
  // Whether the same call comes again: adamw has its step, which never does.
  bool repeats;
};

template <typename Call, void (*op)(Context&, const Call&)>
void run_call(Context& context, const double* block) {
  op(context, read_call<Call>(block));
}

constexpr OpEntry op_table[] = {
    {"linear", run_call<LinearCall, linear>, true},
    {"batchNormForward", run_call<BatchNormForwardCall, batch_norm_forward>, true},
    {"batchNormBackward", run_call<BatchNormBackwardCall, batch_norm_backward>, true},
    {"routerSelectForward", run_call<RouterSelectForwardCall, router_select_forward>, true},
    {"routerSelectBackward", run_call<RouterSelectBackwardCall, router_select_backward>, true},
    {"expertsForward", run_call<ExpertsForwardCall, experts_forward>, true},
    {"expertsBackward", run_call<ExpertsBackwardCall, experts_backward>, true},
    {"mlpForward", run_call<MlpForwardCall, mlp_forward>, true},
    {"mlpBackward", run_call<MlpBackwardCall, mlp_backward>, true},
    {"adamw", run_call<AdamwCall, adamw>, false},
};

constexpr int op_count = sizeof(op_table) / sizeof(op_table[0]);

// Calls `use` with an empty call of the op's type.
template <typename Use>
void with_call_of(int op, Use&& use) {
  switch (op) {
    case 0:
      return use(LinearCall{});
    case 1:
      return use(BatchNormForwardCall{});
    case 2:
      return use(BatchNormBackwardCall{});
    case 3:
      return use(RouterSelectForwardCall{});
    case 4:
      return use(RouterSelectBackwardCall{});
    case 5:
      return use(ExpertsForwardCall{});
    case 6:
      return use(ExpertsBackwardCall{});
    case 7:
      return use(MlpForwardCall{});
    case 8:
      return use(MlpBackwardCall{});
    case 9:
      return use(AdamwCall{});
  }
}

// How many numbers a call of the op has.
inline int call_length(int op) {
  CallMeasure measure;
  with_call_of(op, [&](auto call) { visit_fields(measure, call); });
  return measure.length;
}

}  // namespace flash_moe
