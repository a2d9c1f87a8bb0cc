#include "ops/expert_passes.h"

#include "kernels/expert_dots.cuh"
#include "kernels/expert_rows_sum.cuh"
#include "ops/expert_storage.h"

namespace flash_moe {

ExpertSizes expert_sizes(const ExpertsShape& shape) {
  return {static_cast<double>(shape.tokens), static_cast<double>(shape.hidden_size),
          static_cast<double>(shape.num_experts), static_cast<double>(shape.tokens) * static_cast<double>(shape.top_k),
          shape.down.dtype == DType::f32 ? 4.0 : 2.0};
}

ColumnSlices choose_slices(const DeviceLimits& limits, const ExpertsShape& shape) {
  const DeviceRates rates(limits);
  const ExpertSizes sizes = expert_sizes(shape);
  ColumnSlices slices{};
  const Tuning& tuned = limits.tuning;
  slices.dots = tuned.dots_slices > 0 ? static_cast<int>(tuned.dots_slices) : best_dots_slices(rates, sizes, 8 * 16);
  slices.dots_lanes = sizes.row_bytes() / slices.dots <= 8 * 16 ? 8 : 16;
  const bool narrow = rows_sum_seconds(rates, sizes, 8 * 16) < rows_sum_seconds(rates, sizes, 16 * 16);
  slices.sum_lanes = narrow || sizes.row_bytes() <= 8 * 16 ? 8 : 16;
  if (tuned.dots_lanes > 0) slices.dots_lanes = static_cast<int>(tuned.dots_lanes);
  if (tuned.sum_lanes > 0) slices.sum_lanes = static_cast<int>(tuned.sum_lanes);
  return slices;
}

void explain_slices(Context& context, const ExpertsShape& shape) {
  const DeviceRates rates(context.limits());
  const ExpertSizes sizes = expert_sizes(shape);
  for (int slices = 1; slices * 8 * 16 <= sizes.row_bytes() && slices <= 64; slices *= 2) {
    context.expect("dots_slices=" + std::to_string(slices), dots_seconds(rates, sizes, slices));
  }
  for (const int lanes : {8, 16}) {
    context.expect("sum_lanes=" + std::to_string(lanes), rows_sum_seconds(rates, sizes, lanes * 16));
  }
}

ColumnSlices finest_slices(const ExpertsShape& shape) {
  const double row_bytes = expert_sizes(shape).row_bytes();
  return {static_cast<int>(std::max(1.0, std::ceil(row_bytes / (8 * 16)))), 8, 8};
}

bool whole_vectors(const ExpertsShape& shape, std::initializer_list<const void*> pointers) {
  if (shape.hidden_size * (shape.down.dtype == DType::f32 ? 4 : 2) % 16 != 0) return false;
  for (const void* pointer : pointers) {
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  }
  return true;
}

namespace {

template <typename T, int VECTOR, int LANES>
void launch_dots(Context& context, const ExpertsShape& shape, int slices, const Buffer& states, const Buffer& table,
                 float* dots, bool count_errors) {
  const int64_t warps = shape.tokens * ceil_div(shape.top_k, 32);
  const int64_t blocks = ceil_div(warps, expert_dots_threads / 32);
  const int64_t width = round_up(ceil_div(shape.hidden_size, slices), VECTOR * LANES);
  for (int64_t low = 0; low < shape.hidden_size; low += width) {
    launch(context, "expert_dots", expert_dots<T, VECTOR, LANES>, blocks, expert_dots_threads, 0, states.as<T>(),
           table.as<T>(), shape.ids.as<int32_t>(), dots, shape.tokens, shape.hidden_size, shape.num_experts,
           shape.top_k, low, std::min(low + width, shape.hidden_size), low > 0,
           count_errors && low == 0 ? context.id_errors() : nullptr);
  }
}

template <typename T, int VECTOR, int LANES>
void launch_rows_sum(Context& context, const ExpertsShape& shape, const RowsSum& sum) {
  const int64_t slices = ceil_div(shape.hidden_size, VECTOR * LANES);
  launch(context, "expert_rows_sum", expert_rows_sum<T, VECTOR, LANES>, shape.tokens * slices,
         expert_rows_sum_threads, 0, sum.table.as<T>(), shape.ids.as<int32_t>(), sum.dots, sum.weights,
         shape.activation, float_or<T>(sum.addend), float_or<T>(sum.output), shape.tokens, shape.hidden_size,
         shape.num_experts, shape.top_k);
}

}  // namespace

void expert_dots_pass(Context& context, const ExpertsShape& shape, const ColumnSlices& slices, const Buffer& states,
                      const Buffer& table, float* dots, bool count_errors) {
  const bool vectors = whole_vectors(shape, {states.data, table.data});
  with_storage(table.dtype, [&](auto element) {
    using T = decltype(element);
    if (!vectors) {
      launch_dots<T, 1, 16>(context, shape, 1, states, table, dots, count_errors);
    } else if (slices.dots_lanes == 8) {
      launch_dots<T, full_vector<T>, 8>(context, shape, slices.dots, states, table, dots, count_errors);
    } else {
      launch_dots<T, full_vector<T>, 16>(context, shape, slices.dots, states, table, dots, count_errors);
    }
  });
}

void expert_rows_sum_pass(Context& context, const ExpertsShape& shape, const ColumnSlices& slices,
                          const RowsSum& sum) {
  const bool vectors = whole_vectors(shape, {sum.table.data});
  with_storage(sum.table.dtype, [&](auto element) {
    using T = decltype(element);
    if (!vectors) {
      launch_rows_sum<T, 1, 16>(context, shape, sum);
    } else if (slices.sum_lanes == 8) {
      launch_rows_sum<T, full_vector<T>, 8>(context, shape, sum);
    } else {
      launch_rows_sum<T, full_vector<T>, 16>(context, shape, sum);
    }
  });
}

}  // namespace flash_moe
