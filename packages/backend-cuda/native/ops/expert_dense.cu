#include "ops/expert_dense.h"

#include "device/tile_product_wgmma.h"
#include "kernels/expert_dense_gates.cuh"
#include "kernels/expert_dense_sum.cuh"
#include "ops/expert_dense_passes.h"
#include "ops/expert_passes.h"

namespace flash_moe {

namespace {

int64_t element_bytes(const ExpertsShape& shape) { return shape.down.dtype == DType::f32 ? 4 : 2; }

int64_t parts_of(const ExpertsShape& shape) {
  if (shape.down.dtype == DType::f32) return coefficient_parts<float>;
  return shape.down.dtype == DType::f16 ? coefficient_parts<f16> : coefficient_parts<bf16>;
}

// Of a token and an expert, the gated activation is kept, in parts of the storage dtype.
DensePlan plan_of(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  return {limits, call, element_bytes(call) * parts_of(call)};
}

}  // namespace

bool can_be_dense(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  return whole_vectors(call, {call.hidden_states.data, call.down.data, call.up.data, call.addend.data,
                              call.output.data}) &&
         dense_fits(limits, call);
}

double dense_seconds(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  const DensePlan plan = plan_of(limits, call);
  const DeviceRates rates(limits);
  const double rate = call.down.dtype == DType::f32 ? rates.plain : rates.tensor;
  const double blocks = std::ceil(static_cast<double>(call.tokens) / static_cast<double>(plan.tokens));
  const double chunks = std::ceil(static_cast<double>(call.num_experts) / static_cast<double>(plan.chunk));
  const double tokens = static_cast<double>(plan.tokens), hidden = static_cast<double>(call.hidden_size);
  const double chunk = static_cast<double>(plan.chunk), tile = static_cast<double>(plan.tile);
  const double gates = product_seconds(rates, rate, tokens, chunk, hidden, tile);
  const double sum = product_seconds(rates, rate, tokens, hidden * static_cast<double>(plan.shares),
                                     static_cast<double>(plan.share_experts * parts_of(call)), tile);
  const ExpertSizes sizes = expert_sizes(call);
  const double tables = 2 * sizes.experts * sizes.row_bytes() / rates.memory;
  return blocks * std::max(chunks * (gates + sum), tables) + DenseList::seconds(rates, sizes) + rates.launch;
}

size_t dense_scratch_bytes(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  const DensePlan plan = plan_of(limits, call);
  const int64_t gated = plan.stride(parts_of(call)) * element_bytes(call);
  const int64_t partials = plan.shares * call.hidden_size * 4;
  return DenseList::scratch_bytes(call, plan) + static_cast<size_t>(plan.tokens * (gated + partials));
}

namespace {

// Gates and Sum: the tiles of the two products, of one size.
template <typename Gates, typename Sum>
void run_chunks(Context& context, const ExpertsForwardCall& call, const DensePlan& plan, const DenseList& list) {
  using T = typename Gates::Element;
  constexpr int64_t size = Gates::size;
  const int64_t hidden = call.hidden_size, stride = plan.stride(coefficient_parts<T>);
  const Scratch gated(context, static_cast<size_t>(plan.tokens * stride) * sizeof(T), "gated activations");
  const Scratch partials(context, static_cast<size_t>(plan.tokens * plan.shares * hidden) * 4, "sums of shares");
  const auto* const states = call.hidden_states.as<T>();
  for (int64_t first = 0; first < call.tokens; first += plan.tokens) {
    const int64_t tokens = std::min(plan.tokens, call.tokens - first);
    const int64_t row_tiles = ceil_div(tokens, size);
    for (int64_t expert = 0; expert < call.num_experts; expert += plan.chunk) {
      const int64_t experts = std::min(plan.chunk, call.num_experts - expert);
      launch(context, "expert_dense_gates", expert_dense_gates<Gates>, row_tiles * ceil_div(experts, size),
             Gates::threads, shared_bytes_with_cells<Gates>, Gates::operand(states + first * hidden, tokens, hidden),
             Gates::operand(call.down.as<T>() + expert * hidden, experts, hidden),
             list.entries() + first * call.top_k, list.offsets() + first * (plan.tiles + 1), gated.as<T>(), expert,
             plan.share_experts, stride, plan.tiles, call.top_k, call.activation);
      launch(context, "expert_dense_sum", expert_dense_sum<Sum>, plan.shares * row_tiles * ceil_div(hidden, size),
             Sum::threads, Sum::shared_bytes, Sum::operand(gated.as<T>(), tokens, stride),
             Sum::operand(call.up.as<T>() + expert * hidden, experts, hidden), list.factors() + first,
             partials.as<float>(), plan.shares, plan.share_experts, expert > 0);
    }
    dense_combine<T>(context, call, plan, first, tokens,
                     {partials.as<float>(), call.up, nullptr, call.addend, call.output});
  }
}

}  // namespace

template <typename T>
void experts_dense(Context& context, const ExpertsForwardCall& call) {
  const DensePlan plan = plan_of(context.limits(), call);
  const DenseList list(context, call, plan, call.weights.as<float>(), std::is_same_v<T, f16>);
  const auto run = [&](auto run_chunks) { run_chunks(context, call, plan, list); };
  constexpr Along inner = Along::inner, outer = Along::outer;
  if constexpr (sizeof(T) == 4) {
    if (plan.tile == 128) return run(run_chunks<ExpertTileF32<128, inner>, ExpertTileF32<128, outer>>);
    run(run_chunks<ExpertTileF32<64, inner>, ExpertTileF32<64, outer>>);
  } else {
    if (plan.tile == 64) {
      return run(run_chunks<ExpertTile<TileProduct<T, 64, 64, inner, inner>>,
                            ExpertTile<TileProduct<T, 64, 64, inner, outer>>>);
    }
    if (dense_takes_wgmma(context, call, plan)) {
      return run(run_chunks<ExpertTile<TileProductWgmma<T, 128, inner, inner>>,
                            ExpertTile<TileProductWgmma<T, 128, inner, outer>>>);
    }
    run(run_chunks<ExpertTile<TileProduct<T, 128, 128, inner, inner>>,
                   ExpertTile<TileProduct<T, 128, 128, inner, outer>>>);
  }
}

template void experts_dense<float>(Context&, const ExpertsForwardCall&);
template void experts_dense<f16>(Context&, const ExpertsForwardCall&);
template void experts_dense<bf16>(Context&, const ExpertsForwardCall&);

}  // namespace flash_moe
