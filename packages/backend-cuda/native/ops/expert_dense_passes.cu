#include "ops/expert_dense_passes.h"

#include <algorithm>

#include "kernels/expert_dense_combine.cuh"
#include "kernels/expert_tile_list.cuh"
#include "ops/expert_storage.h"
#include "ops/linear.h"

namespace flash_moe {

DensePlan::DensePlan(const DeviceLimits& limits, const ExpertsShape& shape, int64_t cell_bytes) {
  const bool is_f32 = shape.down.dtype == DType::f32;
  const int64_t processors = limits.multiprocessors;
  tokens = std::max<int64_t>(1, std::min<int64_t>(shape.tokens, is_f32 ? 1024 : 2048));
  constexpr int64_t most_shares = 8;
  const auto can_share = [&](int64_t experts, int64_t size) {
    return std::max<int64_t>(1, std::min(most_shares, experts / (4 * size)));
  };
  const auto tiles_of = [&](int64_t size) {
    return ceil_div(tokens, size) * std::min(ceil_div(shape.hidden_size, size) * can_share(shape.num_experts, size),
                                             ceil_div(shape.num_experts, size));
  };
  tile = tiles_of(128) >= processors / 2 ? 128 : 64;
  if (limits.tuning.dense_tile > 0) tile = limits.tuning.dense_tile > 64 ? 128 : 64;
  tiles = ceil_div(shape.num_experts, tile);
  const int64_t cached = limits.tuning.dense_chunk > 0
                             ? static_cast<int64_t>(limits.tuning.dense_chunk)
                             : static_cast<int64_t>(limits.l2_bytes) / 2 / (tokens * cell_bytes);
  chunk = std::min(round_up(std::max<int64_t>(cached, 1024), 128), tiles * tile);
  // Two blocks to a multiprocessor; of the numbers that fill the last round as well, the smallest.
  const int64_t output_tiles = ceil_div(tokens, tile) * ceil_div(shape.hidden_size, tile);
  shares = 1;
  for (int64_t more = 2; more <= can_share(chunk, tile); more++) {
    const int64_t rounds = ceil_div(output_tiles * shares, 2 * processors);
    if (ceil_div(output_tiles * more, 2 * processors) * shares < rounds * more) shares = more;
  }
  share_experts = round_up(ceil_div(chunk, shares), tile);
}

bool dense_fits(const DeviceLimits& limits, const ExpertsShape& shape) {
  const auto shared = static_cast<int64_t>(limits.shared_bytes_per_block);
  // The list of a token is sorted with counts per warp and tile; half a KiB is left for what is not dynamic.
  return ceil_div(shape.num_experts, 64) * expert_tile_list_warps * 4 + 512 <= shared && shared >= 98304;
}

bool dense_takes_wgmma(const Context& context, const ExpertsShape& shape, const DensePlan& plan) {
  if (plan.tile != 128) return false;
  const Tiles tiles = choose_tiles(context, plan.tokens, shape.hidden_size * plan.shares, true);
  return tiles != Tiles::of_64 && tiles != Tiles::of_128;
}

DenseList::DenseList(Context& context, const ExpertsShape& shape, const DensePlan& plan, const float* weights,
                     bool scaled)
    : entries_(context, static_cast<size_t>(shape.tokens * shape.top_k) * 8, "experts by tile"),
      offsets_(context, static_cast<size_t>(shape.tokens * (plan.tiles + 1)) * 4, "places of tiles"),
      factors_(context, static_cast<size_t>(shape.tokens) * 4, "scales of tokens") {
  launch(context, "expert_tile_list", scaled ? expert_tile_list<true> : expert_tile_list<false>, shape.tokens,
         expert_tile_list_threads, static_cast<size_t>(expert_tile_list_warps * plan.tiles) * 4,
         shape.ids.as<int32_t>(), weights, entries_.as<uint2>(), offsets_.as<uint32_t>(), factors_.as<float>(),
         shape.num_experts, shape.top_k, plan.tiles, plan.tile, context.id_errors());
}

size_t DenseList::scratch_bytes(const ExpertsShape& shape, const DensePlan& plan) {
  return static_cast<size_t>(shape.tokens * shape.top_k * 8 + shape.tokens * (plan.tiles + 2) * 4);
}

double DenseList::seconds(const DeviceRates& rates, const ExpertSizes& sizes) {
  return sizes.pairs * 24 / rates.cache + rates.launch;
}

template <typename T>
void dense_combine(Context& context, const ExpertsShape& shape, const DensePlan& plan, int64_t first, int64_t tokens,
                   const DenseCombine& combine) {
  const int64_t hidden = shape.hidden_size, pair = first * shape.top_k;
  const auto from = [&](const Buffer& buffer) {
    FloatOr<T> rows = float_or<T>(buffer);
    const int64_t bytes = first * hidden * (rows.is_f32 ? 4 : static_cast<int64_t>(sizeof(T)));
    if (rows.data) rows.data = static_cast<unsigned char*>(rows.data) + bytes;
    return rows;
  };
  launch(context, "expert_dense_combine", expert_dense_combine<T>, tokens, expert_dense_combine_threads, 0,
         combine.partials, shape.hidden_states.as<T>() + first * hidden, shape.down.as<T>(), combine.table.as<T>(),
         shape.ids.as<int32_t>() + pair, shape.weights.as<float>() + pair,
         combine.coefficients ? combine.coefficients + pair : nullptr, from(combine.addend), from(combine.output),
         hidden, shape.num_experts, shape.top_k, plan.shares, shape.activation);
}

template void dense_combine<float>(Context&, const ExpertsShape&, const DensePlan&, int64_t, int64_t,
                                   const DenseCombine&);
template void dense_combine<f16>(Context&, const ExpertsShape&, const DensePlan&, int64_t, int64_t,
                                 const DenseCombine&);
template void dense_combine<bf16>(Context&, const ExpertsShape&, const DensePlan&, int64_t, int64_t,
                                  const DenseCombine&);

}  // namespace flash_moe
