#include "ops/experts_forward.h"

#include <cmath>
#include <limits>

#include "kernels/expert_combine.cuh"
#include "kernels/expert_forward.cuh"
#include "ops/check_sizes.h"
#include "ops/expert_dense.h"
#include "ops/expert_passes.h"
#include "ops/expert_storage.h"
#include "ops/ops.h"

namespace flash_moe {

namespace {

// What a warp holds of a token, of both rows and of the sum must fit its registers.
bool can_fuse(const ExpertsForwardCall& call) {
  return call.hidden_size <= (call.down.dtype == DType::f32 ? 1024 : 2048) &&
         whole_vectors(call, {call.hidden_states.data, call.down.data, call.up.data});
}

// Blocks to a token: one, or with few tokens as many as keep the device busy, each with work for all of its warps.
int64_t fused_splits(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  if (limits.tuning.splits > 0) return std::min(static_cast<int64_t>(limits.tuning.splits), call.top_k);
  const int64_t wanted = 4 * limits.multiprocessors / call.tokens;
  return std::max<int64_t>(1, std::min(wanted, ceil_div(call.top_k, 8)));
}

template <typename T>
void fused(Context& context, const ExpertsForwardCall& call) {
  const int64_t splits = fused_splits(context.limits(), call);
  const size_t bytes = splits > 1 ? static_cast<size_t>(call.tokens * splits * call.hidden_size) * 4 : 0;
  const Scratch partials(context, bytes, "sums of splits");
  const int64_t warps = std::min<int64_t>(8, ceil_div(call.top_k, splits));
  const FloatOr<T> addend = float_or<T>(call.addend), output = float_or<T>(call.output);
  const auto run = [&](auto kernel) {
    launch(context, "expert_forward", kernel, call.tokens * splits, 32 * warps, 0, call.hidden_states.as<T>(),
           call.down.as<T>(), call.up.as<T>(), call.ids.as<int32_t>(), call.weights.as<float>(), addend, output,
           partials.template as<float>(), call.hidden_size, call.num_experts, call.top_k, splits, call.activation,
           context.id_errors());
  };
  if (call.hidden_size <= 32 * 16) {
    run(expert_forward<T, 16>);
  } else if (sizeof(T) == 4 || call.hidden_size <= 32 * 32) {
    run(expert_forward<T, 32>);
  } else {
    // Never of f32.
    run(expert_forward<T, sizeof(T) == 4 ? 32 : 64>);
  }
  if (splits == 1) return;
  launch(context, "expert_combine", expert_combine<T>, ceil_div(call.tokens * call.hidden_size, 128), 128, 0,
         partials.as<float>(), addend, output, call.tokens, call.hidden_size, splits);
}

void sliced(Context& context, const ExpertsForwardCall& call) {
  const Scratch dots(context, static_cast<size_t>(call.tokens * call.top_k) * 4, "inner products");
  const ColumnSlices slices = choose_slices(context.limits(), call);
  expert_dots_pass(context, call, slices, call.hidden_states, call.down, dots.as<float>(), true);
  expert_rows_sum_pass(context, call, slices,
                       {call.up, dots.as<float>(), call.weights.as<float>(), call.addend, call.output});
}

constexpr ExpertsStrategy strategies[] = {ExpertsStrategy::fused, ExpertsStrategy::sliced, ExpertsStrategy::dense};
const char* name_of(ExpertsStrategy strategy) { return experts_strategy_names[static_cast<int>(strategy)]; }

ExpertsStrategy tuned_strategy(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  for (const ExpertsStrategy strategy : strategies) {
    if (limits.tuning.experts != name_of(strategy)) continue;
    if (std::isfinite(experts_forward_seconds(limits, call, strategy))) return strategy;
  }
  throw Failure("UNSUPPORTED", "tuning asks for the experts to be " + limits.tuning.experts +
                                   ", which a call of these sizes cannot be");
}

double sliced_seconds(const DeviceRates& rates, const ExpertSizes& sizes) {
  return dots_seconds(rates, sizes, best_dots_slices(rates, sizes, 8 * 16)) +
         std::min(rows_sum_seconds(rates, sizes, 8 * 16), rows_sum_seconds(rates, sizes, 16 * 16));
}

}  // namespace

double experts_forward_seconds(const DeviceLimits& limits, const ExpertsForwardCall& call,
                               ExpertsStrategy strategy) {
  constexpr double never = std::numeric_limits<double>::infinity();
  const DeviceRates rates(limits);
  const ExpertSizes sizes = expert_sizes(call);
  switch (strategy) {
    case ExpertsStrategy::fused:
      return can_fuse(call) ? fused_seconds(rates, sizes) : never;
    case ExpertsStrategy::sliced:
      return sliced_seconds(rates, sizes);
    case ExpertsStrategy::dense:
      return can_be_dense(limits, call) ? dense_seconds(limits, call) : never;
  }
  return never;
}

ExpertsStrategy choose_experts_strategy(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  if (!limits.tuning.experts.empty()) return tuned_strategy(limits, call);
  ExpertsStrategy best = ExpertsStrategy::sliced;
  double seconds = experts_forward_seconds(limits, call, best);
  for (const ExpertsStrategy strategy : {ExpertsStrategy::fused, ExpertsStrategy::dense}) {
    const double other = experts_forward_seconds(limits, call, strategy);
    if (other >= seconds) continue;
    best = strategy;
    seconds = other;
  }
  return best;
}

size_t experts_forward_scratch_bytes(const DeviceLimits& limits, const ExpertsForwardCall& call,
                                     ExpertsStrategy strategy) {
  if (call.tokens == 0) return 0;
  if (strategy == ExpertsStrategy::dense) return dense_scratch_bytes(limits, call);
  if (strategy == ExpertsStrategy::sliced) return static_cast<size_t>(call.tokens * call.top_k) * 4;
  const int64_t splits = fused_splits(limits, call);
  return splits > 1 ? static_cast<size_t>(call.tokens * splits * call.hidden_size) * 4 : 0;
}

void experts_forward_by(Context& context, const ExpertsForwardCall& call, ExpertsStrategy strategy) {
  if (call.tokens == 0) return;
  check_counted("hiddenSize", call.hidden_size);
  check_counted("topK", call.top_k);
  if (strategy == ExpertsStrategy::sliced) return sliced(context, call);
  with_storage(call.down.dtype, [&](auto element) {
    using T = decltype(element);
    if (strategy == ExpertsStrategy::fused) {
      fused<T>(context, call);
    } else {
      experts_dense<T>(context, call);
    }
  });
}

void experts_forward(Context& context, const ExpertsForwardCall& call) {
  if (call.tokens == 0) return;
  if (context.explains()) {
    for (const ExpertsStrategy strategy : strategies) {
      context.expect(name_of(strategy), experts_forward_seconds(context.limits(), call, strategy));
    }
    explain_slices(context, call);
  }
  experts_forward_by(context, call, choose_experts_strategy(context.limits(), call));
}

}  // namespace flash_moe
