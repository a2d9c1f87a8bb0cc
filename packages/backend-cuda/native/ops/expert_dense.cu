#include "ops/expert_dense.h"

#include "device/tile_product_wgmma.h"
#include "kernels/expert_dense_combine.cuh"
#include "kernels/expert_dense_gates.cuh"
#include "kernels/expert_dense_sum.cuh"
#include "kernels/expert_tile_list.cuh"
#include "ops/expert_passes.h"
#include "ops/expert_storage.h"
#include "ops/linear.h"

namespace flash_moe {

namespace {

// How the work is cut.
struct DensePlan {
  // Of tokens, experts and columns: 64 where 128 would leave multiprocessors without work.
  int64_t tile;
  // Tokens that go through all chunks before the next ones do, and experts of a chunk: their gated activations stay in
  // the L2 cache between the two products.
  int64_t tokens, chunk;
  // Into how many sums the experts of a chunk are shared out, and experts of each.
  int64_t shares, share_experts;
  // Tiles of experts.
  int64_t tiles;

  DensePlan(const DeviceLimits& limits, const ExpertsForwardCall& call) {
    const bool is_f32 = call.down.dtype == DType::f32;
    const int64_t element = is_f32 ? 4 : 2;
    const int64_t processors = limits.multiprocessors;
    tokens = std::max<int64_t>(1, std::min<int64_t>(call.tokens, is_f32 ? 1024 : 2048));
    const auto tiles_of = [&](int64_t size) {
      return ceil_div(tokens, size) * std::min(ceil_div(call.hidden_size, size), ceil_div(call.num_experts, size));
    };
    tile = tiles_of(128) >= processors / 2 ? 128 : 64;
    if (limits.tuning.dense_tile > 0) tile = limits.tuning.dense_tile > 64 ? 128 : 64;
    tiles = ceil_div(call.num_experts, tile);
    const int64_t cached = limits.tuning.dense_chunk > 0
                               ? static_cast<int64_t>(limits.tuning.dense_chunk)
                               : static_cast<int64_t>(limits.l2_bytes) / 2 / (tokens * element);
    chunk = std::min(round_up(std::max<int64_t>(cached, 1024), 128), tiles * tile);
    // Two blocks to a multiprocessor; of the numbers that fill the last round as well, the smallest.
    const int64_t output_tiles = ceil_div(tokens, tile) * ceil_div(call.hidden_size, tile);
    shares = 1;
    for (int64_t more = 2; more <= 8 && more * 4 * tile <= chunk; more++) {
      const int64_t rounds = ceil_div(output_tiles * shares, 2 * processors);
      if (ceil_div(output_tiles * more, 2 * processors) * shares < rounds * more) shares = more;
    }
    share_experts = round_up(ceil_div(chunk, shares), tile);
  }
};

}  // namespace

bool can_be_dense(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  const auto shared = static_cast<int64_t>(limits.shared_bytes_per_block);
  // The list of a token is sorted with counts per warp and tile; half a KiB is left for what is not dynamic.
  return whole_vectors(call, {call.hidden_states.data, call.down.data, call.up.data, call.addend.data,
                              call.output.data}) &&
         ceil_div(call.num_experts, 64) * expert_tile_list_warps * 4 + 512 <= shared && shared >= 98304;
}

double dense_seconds(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  const DensePlan plan(limits, call);
  const DeviceRates rates(limits);
  const double rate = call.down.dtype == DType::f32 ? rates.plain : rates.tensor;
  const double blocks = std::ceil(static_cast<double>(call.tokens) / static_cast<double>(plan.tokens));
  const double chunks = std::ceil(static_cast<double>(call.num_experts) / static_cast<double>(plan.chunk));
  const double tokens = static_cast<double>(plan.tokens), hidden = static_cast<double>(call.hidden_size);
  const double chunk = static_cast<double>(plan.chunk), tile = static_cast<double>(plan.tile);
  const double gates = product_seconds(rates, rate, tokens, chunk, hidden, tile);
  const double sum = product_seconds(rates, rate, tokens, hidden * static_cast<double>(plan.shares),
                                     static_cast<double>(plan.share_experts), tile);
  const ExpertSizes sizes = expert_sizes(call);
  const double tables = 2 * sizes.experts * sizes.row_bytes() / rates.memory;
  const double list = sizes.pairs * 24 / rates.cache + 2 * rates.launch;
  return blocks * std::max(chunks * (gates + sum), tables) + list;
}

size_t dense_scratch_bytes(const DeviceLimits& limits, const ExpertsForwardCall& call) {
  const DensePlan plan(limits, call);
  const int64_t element = call.down.dtype == DType::f32 ? 4 : 2;
  return static_cast<size_t>(call.tokens * call.top_k * 8 + call.tokens * (plan.tiles + 2) * 4 +
                             plan.tokens * (plan.chunk * element + plan.shares * call.hidden_size * 4));
}

namespace {

// Gates and Sum: the tiles of the two products, of one size.
template <typename Gates, typename Sum>
void run_chunks(Context& context, const ExpertsForwardCall& call, const DensePlan& plan, const uint2* list,
                const uint32_t* offsets, const float* factors) {
  using T = typename Gates::Element;
  constexpr int64_t size = Gates::size;
  const int64_t hidden = call.hidden_size;
  const Scratch gated(context, static_cast<size_t>(plan.tokens * plan.chunk) * sizeof(T), "gated activations");
  const Scratch partials(context, static_cast<size_t>(plan.tokens * plan.shares * hidden) * 4, "sums of shares");
  const auto* const states = call.hidden_states.as<T>();
  for (int64_t first = 0; first < call.tokens; first += plan.tokens) {
    const int64_t tokens = std::min(plan.tokens, call.tokens - first);
    const int64_t row_tiles = ceil_div(tokens, size);
    for (int64_t expert = 0; expert < call.num_experts; expert += plan.chunk) {
      const int64_t experts = std::min(plan.chunk, call.num_experts - expert);
      launch(context, "expert_dense_gates", expert_dense_gates<Gates>, row_tiles * ceil_div(experts, size),
             Gates::threads, expert_dense_gates_shared_bytes<Gates>,
             Gates::operand(states + first * hidden, tokens, hidden),
             Gates::operand(call.down.as<T>() + expert * hidden, experts, hidden), list + first * call.top_k,
             offsets + first * (plan.tiles + 1), gated.as<T>(), expert, plan.chunk, plan.tiles, call.top_k,
             call.activation);
      launch(context, "expert_dense_sum", expert_dense_sum<Sum>, plan.shares * row_tiles * ceil_div(hidden, size),
             Sum::threads, Sum::shared_bytes, Sum::operand(gated.as<T>(), tokens, plan.chunk),
             Sum::operand(call.up.as<T>() + expert * hidden, experts, hidden), factors + first, partials.as<float>(),
             plan.shares, plan.share_experts, expert > 0);
    }
    const auto from = [&](const Buffer& buffer) {
      FloatOr<T> rows = float_or<T>(buffer);
      const int64_t bytes = first * hidden * (rows.is_f32 ? 4 : static_cast<int64_t>(sizeof(T)));
      if (rows.data) rows.data = static_cast<unsigned char*>(rows.data) + bytes;
      return rows;
    };
    launch(context, "expert_dense_combine", expert_dense_combine<T>, tokens, expert_dense_combine_threads, 0,
           partials.as<float>(), states + first * hidden, call.down.as<T>(), call.up.as<T>(),
           call.ids.as<int32_t>() + first * call.top_k, call.weights.as<float>() + first * call.top_k,
           from(call.addend), from(call.output), hidden, call.num_experts, call.top_k, plan.shares, call.activation);
  }
}

}  // namespace

template <typename T>
void experts_dense(Context& context, const ExpertsForwardCall& call) {
  const DensePlan plan(context.limits(), call);
  const Scratch list(context, static_cast<size_t>(call.tokens * call.top_k) * 8, "experts by tile");
  const Scratch offsets(context, static_cast<size_t>(call.tokens * (plan.tiles + 1)) * 4, "places of tiles");
  const Scratch factors(context, static_cast<size_t>(call.tokens) * 4, "scales of tokens");
  constexpr bool scaled = std::is_same_v<T, f16>;
  launch(context, "expert_tile_list", expert_tile_list<scaled>, call.tokens, expert_tile_list_threads,
         static_cast<size_t>(expert_tile_list_warps * plan.tiles) * 4, call.ids.as<int32_t>(),
         call.weights.as<float>(), list.as<uint2>(), offsets.as<uint32_t>(), factors.as<float>(), call.num_experts,
         call.top_k, plan.tiles, plan.tile, context.id_errors());
  const auto run = [&](auto run_chunks) {
    run_chunks(context, call, plan, list.as<uint2>(), offsets.as<uint32_t>(), factors.as<float>());
  };
  constexpr Along inner = Along::inner, outer = Along::outer;
  if constexpr (sizeof(T) == 4) {
    if (plan.tile == 128) return run(run_chunks<ExpertTileF32<128, inner>, ExpertTileF32<128, outer>>);
    run(run_chunks<ExpertTileF32<64, inner>, ExpertTileF32<64, outer>>);
  } else {
    if (plan.tile == 64) {
      return run(run_chunks<ExpertTile<TileProduct<T, 64, 64, inner, inner>>,
                            ExpertTile<TileProduct<T, 64, 64, inner, outer>>>);
    }
    // Where other products take Hopper's instruction, so do these.
    const Tiles tiles = choose_tiles(context, plan.tokens, call.hidden_size * plan.shares, true);
    if (tiles == Tiles::wgmma_128_by_128 || tiles == Tiles::wgmma_128_by_64) {
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
