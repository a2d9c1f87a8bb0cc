#include "ops/experts_backward.h"

#include <cmath>
#include <limits>

#include "kernels/expert_pair_grad.cuh"
#include "kernels/expert_table_combine.cuh"
#include "kernels/expert_table_grad.cuh"
#include "ops/check_sizes.h"
#include "ops/expert_costs.h"
#include "ops/expert_dense_backward.h"
#include "ops/expert_major.h"
#include "ops/expert_passes.h"
#include "ops/expert_storage.h"
#include "ops/ops.h"
#include "runtime/cuda_error.h"

namespace flash_moe {

namespace {

bool has_table_gradients(const ExpertsBackwardCall& call) {
  if (call.layout == TableLayout::compact) return true;
  return call.layout == TableLayout::dense && (call.grad_down || call.grad_up);
}

// Dense gradients that are overwritten have a row for every expert, which is set to zero where it is unused. All others
// are gone over by the experts in use, of which there are no more than pairs.
bool row_per_expert(const ExpertsBackwardCall& call) {
  return call.layout == TableLayout::dense && !call.accumulate_tables;
}

int64_t table_rows(const ExpertsBackwardCall& call) {
  return row_per_expert(call) ? call.num_experts : std::min(call.tokens * call.top_k, call.num_experts);
}

// Windows of sorted pairs in which a cut can begin that is not the first of its expert.
int64_t cut_windows(int64_t pairs) { return pairs > expert_cut ? ceil_div(pairs, expert_cut) : 0; }

void clear(Context& context, const Buffer& buffer, int64_t elements) {
  if (!buffer || elements == 0) return;
  clear(context, buffer.data, static_cast<size_t>(elements) * 4, "clearing a gradient");
}

template <typename T, int VECTOR>
void launch_table_gradient(Context& context, const ExpertsBackwardCall& call, const ExpertSegments& order,
                           const float* coefficients, const Buffer& states, const Buffer& gradient, float* partials) {
  const int64_t windows = cut_windows(order.pairs);
  const int64_t warps = (order.rows + windows) * ceil_div(call.hidden_size, 32 * VECTOR);
  launch(context, "expert_table_grad", expert_table_grad<T, VECTOR>,
         ceil_div(warps, expert_table_grad_threads / 32), expert_table_grad_threads, 0, order, coefficients,
         states.as<T>(), gradient.as<float>(), partials, windows, call.hidden_size, call.top_k,
         call.accumulate_tables, row_per_expert(call));
}

void table_gradient(Context& context, const ExpertsBackwardCall& call, const ExpertSegments& order,
                    const float* coefficients, const Buffer& states, const Buffer& gradient, float* partials) {
  if (!gradient) return;
  const bool vectors = whole_vectors(call, {states.data, gradient.data});
  with_storage(states.dtype, [&](auto element) {
    using T = decltype(element);
    if (vectors) {
      launch_table_gradient<T, full_vector<T>>(context, call, order, coefficients, states, gradient, partials);
    } else {
      launch_table_gradient<T, 1>(context, call, order, coefficients, states, gradient, partials);
    }
  });
  const int64_t windows = cut_windows(order.pairs);
  const int64_t warps = windows * ceil_div(call.hidden_size, expert_table_combine_columns);
  launch(context, "expert_table_combine", expert_table_combine, ceil_div(warps, expert_table_combine_threads / 32),
         expert_table_combine_threads, 0, order, partials, gradient.as<float>(), windows, call.hidden_size);
}

// of_up and of_down: what the rows of d and of x are multiplied by, per pair.
void table_gradients(Context& context, const ExpertsBackwardCall& call, const float* of_up, const float* of_down) {
  const auto pairs = static_cast<uint32_t>(call.tokens * call.top_k);
  const auto num_experts = static_cast<uint32_t>(call.num_experts);
  const auto rows = static_cast<uint32_t>(table_rows(call));
  const bool ranked = !row_per_expert(call);
  const bool compact = call.layout == TableLayout::compact;
  const auto* const ids = call.ids.as<int32_t>();
  const Scratch sorted(context, pairs * sizeof(uint2), "sorted pairs");
  sort_by_expert(context, ids, pairs, num_experts, sorted.as<uint2>());

  const Scratch places(context, ranked ? size_t{4} * pairs : 0, "places of experts");
  const Scratch segments(context, rows * sizeof(uint2), "segments of experts");
  const Scratch own_ids(context, ranked && !compact ? size_t{4} * rows : 0, "experts in use");
  ExpertRows used{};
  used.segments = segments.as<uint2>();
  used.rows = rows;
  if (ranked) {
    used.places = places.as<uint32_t>();
    used.ids = compact ? call.used_ids.as<int32_t>() : own_ids.as<int32_t>();
  }
  if (compact) used.count = call.used_count.as<int32_t>();
  find_expert_rows(context, sorted.as<uint2>(), pairs, num_experts, used);

  const size_t partial_bytes = static_cast<size_t>(cut_windows(pairs) * call.hidden_size) * 4;
  const Scratch partials(context, partial_bytes, "sums of cuts");
  const ExpertSegments order{sorted.as<uint2>(), used.segments, used.places,
                             compact ? nullptr : used.ids, rows, pairs, num_experts};
  table_gradient(context, call, order, of_down, call.hidden_states, call.grad_down, partials.as<float>());
  table_gradient(context, call, order, of_up, call.grad_output, call.grad_up, partials.as<float>());
}

size_t table_gradients_scratch_bytes(const ExpertsBackwardCall& call) {
  const int64_t pairs = call.tokens * call.top_k;
  const auto list = static_cast<size_t>(pairs) * sizeof(uint2);
  const bool ranked = !row_per_expert(call);
  const size_t segments = static_cast<size_t>(table_rows(call)) *
                          (sizeof(uint2) + (ranked && call.layout == TableLayout::dense ? 4 : 0));
  const size_t places = ranked ? static_cast<size_t>(pairs) * 4 : 0;
  const size_t after = places + segments +
                       std::max(ranked ? scan_scratch_bytes(pairs) : 0,
                                static_cast<size_t>(cut_windows(pairs) * call.hidden_size) * 4);
  return list + std::max(sort_scratch_bytes(pairs, call.num_experts), after);
}

// Of both ways: the gradients of the weights, and what the rows are multiplied by, in place of their inner products.
void pair_gradients(Context& context, const ExpertsBackwardCall& call, float* of_up, float* of_down) {
  const int64_t pairs = call.tokens * call.top_k;
  launch(context, "expert_pair_grad", expert_pair_grad, ceil_div(pairs, 256), 256, 0, of_up, of_down,
         call.weights.as<float>(), call.ids.as<int32_t>(), call.grad_weights.as<float>(), pairs, call.num_experts,
         call.activation, call.accumulate_weights);
}

void gathered_backward(Context& context, const ExpertsBackwardCall& call, float* of_up, float* of_down) {
  const ColumnSlices slices = choose_slices(context.limits(), call);
  expert_dots_pass(context, call, slices, call.hidden_states, call.down, of_up, true);
  expert_dots_pass(context, call, slices, call.grad_output, call.up, of_down, false);
  pair_gradients(context, call, of_up, of_down);
  if (!call.grad_hidden_states) return;
  const Buffer addend = call.accumulate_hidden_states ? call.grad_hidden_states : Buffer{};
  expert_rows_sum_pass(context, call, slices, {call.down, of_down, nullptr, addend, call.grad_hidden_states});
}

void dense_backward(Context& context, const ExpertsBackwardCall& call, float* of_up, float* of_down) {
  DenseBackward dense(context, call);
  dense.dots(of_up, of_down);
  pair_gradients(context, call, of_up, of_down);
  dense.sums(of_up, of_down);
}

const char* name_of(ExpertsBackwardStrategy strategy) {
  return experts_backward_strategy_names[static_cast<int>(strategy)];
}

double gathered_seconds(const DeviceLimits& limits, const ExpertsBackwardCall& call) {
  const DeviceRates rates(limits);
  const ExpertSizes sizes = expert_sizes(call);
  double seconds = 2 * dots_seconds(rates, sizes, best_dots_slices(rates, sizes, 8 * 16));
  if (call.grad_hidden_states) {
    seconds += std::min(rows_sum_seconds(rates, sizes, 8 * 16), rows_sum_seconds(rates, sizes, 16 * 16));
  }
  if (call.layout != TableLayout::dense) return seconds;
  const int tables = (call.grad_down ? 1 : 0) + (call.grad_up ? 1 : 0);
  const double rows = row_per_expert(call) ? sizes.experts : sizes.distinct();
  return seconds + table_grad_seconds(rates, sizes, tables, rows, call.accumulate_tables);
}

}  // namespace

double experts_backward_seconds(const DeviceLimits& limits, const ExpertsBackwardCall& call,
                                ExpertsBackwardStrategy strategy) {
  if (strategy == ExpertsBackwardStrategy::gathered) return gathered_seconds(limits, call);
  return can_be_dense(limits, call) ? dense_seconds(limits, call) : std::numeric_limits<double>::infinity();
}

ExpertsBackwardStrategy choose_experts_backward_strategy(const DeviceLimits& limits, const ExpertsBackwardCall& call) {
  const double dense = experts_backward_seconds(limits, call, ExpertsBackwardStrategy::dense);
  const std::string& tuned = limits.tuning.experts_backward;
  if (tuned == name_of(ExpertsBackwardStrategy::dense) && std::isinf(dense)) {
    throw Failure("UNSUPPORTED", "tuning asks for the experts' backward to be dense, which this call cannot be");
  }
  const bool is_dense = tuned.empty()
                            ? dense < experts_backward_seconds(limits, call, ExpertsBackwardStrategy::gathered)
                            : tuned == name_of(ExpertsBackwardStrategy::dense);
  return is_dense ? ExpertsBackwardStrategy::dense : ExpertsBackwardStrategy::gathered;
}

size_t experts_backward_scratch_bytes(const DeviceLimits& limits, const ExpertsBackwardCall& call,
                                      ExpertsBackwardStrategy strategy) {
  const int64_t pairs = call.tokens * call.top_k;
  if (pairs == 0) return 0;
  const auto dots = static_cast<size_t>(pairs) * 8;
  const bool dense = strategy == ExpertsBackwardStrategy::dense;
  const bool gathers_tables = has_table_gradients(call) && !(dense && call.layout == TableLayout::dense);
  return dots + std::max(dense ? dense_scratch_bytes(limits, call) : 0,
                         gathers_tables ? table_gradients_scratch_bytes(call) : 0);
}

void experts_backward_by(Context& context, const ExpertsBackwardCall& call, ExpertsBackwardStrategy strategy) {
  const int64_t pairs = call.tokens * call.top_k;
  if (pairs == 0) {
    if (call.layout == TableLayout::compact) clear(context, call.used_count, 1);
    if (!row_per_expert(call)) return;
    clear(context, call.grad_down, call.num_experts * call.hidden_size);
    clear(context, call.grad_up, call.num_experts * call.hidden_size);
    return;
  }
  check_counted("hiddenSize", call.hidden_size);
  check_counted("topK", call.top_k);
  const Scratch up_scratch(context, static_cast<size_t>(pairs) * 4, "inner products with down");
  const Scratch down_scratch(context, static_cast<size_t>(pairs) * 4, "inner products with up");
  auto* const of_up = up_scratch.as<float>();
  auto* const of_down = down_scratch.as<float>();
  const bool dense = strategy == ExpertsBackwardStrategy::dense;
  if (dense) {
    dense_backward(context, call, of_up, of_down);
  } else {
    gathered_backward(context, call, of_up, of_down);
  }
  if (!has_table_gradients(call) || (dense && call.layout == TableLayout::dense)) return;
  table_gradients(context, call, of_up, of_down);
}

void experts_backward(Context& context, const ExpertsBackwardCall& call) {
  if (context.explains()) {
    for (const auto strategy : {ExpertsBackwardStrategy::gathered, ExpertsBackwardStrategy::dense}) {
      context.expect(name_of(strategy), experts_backward_seconds(context.limits(), call, strategy));
    }
  }
  experts_backward_by(context, call, choose_experts_backward_strategy(context.limits(), call));
}

}  // namespace flash_moe
