#include "ops/expert_dense_backward.h"

#include "device/tile_product_wgmma.h"
#include "kernels/expert_dense_coefficients.cuh"
#include "kernels/expert_dense_dots.cuh"
#include "kernels/expert_dense_sum.cuh"
#include "kernels/expert_dense_table_again.cuh"
#include "ops/expert_passes.h"

namespace flash_moe {

namespace {

constexpr int64_t parts = coefficient_parts<bf16>;

// Of a token and an expert, a coefficient in parts is kept for each of two matrices, in all of the L2 cache: what is
// dropped from it is read from memory while tensor cores are the bottleneck.
DensePlan plan_of(const DeviceLimits& limits, const ExpertsBackwardCall& call) { return {limits, call, 2 * parts}; }

// Which coefficients the gradients that are asked for take.
struct Wanted {
  bool states, down, up;

  explicit Wanted(const ExpertsBackwardCall& call)
      : states(call.grad_hidden_states), down(call.layout == TableLayout::dense && call.grad_down),
        up(call.layout == TableLayout::dense && call.grad_up) {}

  bool of_down() const { return states || down; }
  int matrices() const { return (of_down() ? 1 : 0) + (up ? 1 : 0); }
};

size_t matrix_bytes(const DensePlan& plan) {
  return static_cast<size_t>(plan.tokens * plan.stride(parts)) * sizeof(bf16);
}

size_t partial_bytes(const DensePlan& plan, const ExpertsBackwardCall& call) {
  return static_cast<size_t>(plan.tokens * plan.shares * call.hidden_size) * 4;
}

// A word for each row of each tile of a table's gradient.
size_t spoiled_bytes(const DensePlan& plan, const ExpertsBackwardCall& call) {
  const Wanted wanted(call);
  if (!wanted.down && !wanted.up) return 0;
  return static_cast<size_t>(round_up(plan.chunk, plan.tile) * ceil_div(call.hidden_size, plan.tile)) * 4;
}

template <Along A, Along B>
using Tile64 = ExpertTile<TileProduct<bf16, 64, 64, A, B>>;
template <Along A, Along B>
using Tile128 = ExpertTile<TileProduct<bf16, 128, 128, A, B>>;
template <Along A, Along B>
using TileWgmma = ExpertTile<TileProductWgmma<bf16, 128, A, B>>;

// f(Tile{}), with the tile of a product of operands along A and B.
template <Along A, Along B, typename F>
void with_tile(const Context& context, const ExpertsBackwardCall& call, const DensePlan& plan, F&& f) {
  if (plan.tile == 64) return f(Tile64<A, B>{});
  if (dense_takes_wgmma(context, call, plan)) return f(TileWgmma<A, B>{});
  f(Tile128<A, B>{});
}

}  // namespace

bool can_be_dense(const DeviceLimits& limits, const ExpertsBackwardCall& call) {
  return call.down.dtype == DType::bf16 && dense_fits(limits, call) &&
         whole_vectors(call, {call.hidden_states.data, call.down.data, call.up.data, call.grad_output.data,
                              call.grad_hidden_states.data, call.grad_down.data, call.grad_up.data});
}

double dense_seconds(const DeviceLimits& limits, const ExpertsBackwardCall& call) {
  const DensePlan plan = plan_of(limits, call);
  const DeviceRates rates(limits);
  const Wanted wanted(call);
  const ExpertSizes sizes = expert_sizes(call);
  const double blocks = std::ceil(sizes.tokens / static_cast<double>(plan.tokens));
  const double chunks = std::ceil(sizes.experts / static_cast<double>(plan.chunk));
  const double tokens = static_cast<double>(plan.tokens), chunk = static_cast<double>(plan.chunk);
  // A product, or what it reads of a table or writes for one if that takes longer.
  const auto product = [&](double rows, double columns, double inner, double table_bytes) {
    return std::max(
        product_seconds(rates, rates.tensor, rows, columns, inner, static_cast<double>(plan.tile)),
        table_bytes / rates.memory);
  };
  double of_chunk = 0;
  if (wanted.matrices() > 0) of_chunk += wanted.matrices() * tokens * chunk * 2 * parts / rates.cache + rates.launch;
  if (wanted.states) {
    of_chunk += product(tokens, static_cast<double>(plan.shares) * sizes.hidden,
                        static_cast<double>(parts * plan.share_experts), chunk * sizes.row_bytes());
  }
  const double written = (call.accumulate_tables || blocks > 1 ? 2 : 1) * chunk * sizes.hidden * 4;
  const int tables = (wanted.down ? 1 : 0) + (wanted.up ? 1 : 0);
  of_chunk += tables * (product(chunk, sizes.hidden, parts * tokens, written) + rates.launch);
  return DenseList::seconds(rates, sizes) +
         product(sizes.tokens, 2 * sizes.experts, sizes.hidden, 2 * sizes.experts * sizes.row_bytes()) +
         blocks * (chunks * of_chunk + (wanted.states ? rates.launch : 0));
}

size_t dense_scratch_bytes(const DeviceLimits& limits, const ExpertsBackwardCall& call) {
  const DensePlan plan = plan_of(limits, call);
  const Wanted wanted(call);
  return DenseList::scratch_bytes(call, plan) + static_cast<size_t>(wanted.matrices()) * matrix_bytes(plan) +
         (wanted.states ? partial_bytes(plan, call) : 0) + spoiled_bytes(plan, call);
}

DenseBackward::DenseBackward(Context& context, const ExpertsBackwardCall& call)
    : context_(context), call_(call), plan_(plan_of(context.limits(), call)),
      list_(context, call, plan_, nullptr, false) {}

void DenseBackward::dots(float* of_up, float* of_down) {
  const int64_t hidden = call_.hidden_size;
  const auto product = [&](const Buffer& states, const Buffer& table, float* to) {
    return ExpertDenseDots<bf16>{{states.as<bf16>(), call_.tokens, hidden, hidden, true},
                                 {table.as<bf16>(), call_.num_experts, hidden, hidden, true},
                                 to};
  };
  with_tile<Along::inner, Along::inner>(context_, call_, plan_, [&](auto tile) {
    using Tile = decltype(tile);
    launch(context_, "expert_dense_dots", expert_dense_dots<Tile>, 2 * ceil_div(call_.tokens, Tile::size) * plan_.tiles,
           Tile::threads, shared_bytes_with_cells<Tile>, product(call_.hidden_states, call_.down, of_up),
           product(call_.grad_output, call_.up, of_down), list_.entries(), list_.offsets(), plan_.tiles, call_.top_k);
  });
}

void DenseBackward::sums(const float* of_up, const float* of_down) {
  const Wanted wanted(call_);
  if (wanted.matrices() == 0) return;
  const DensePlan& plan = plan_;
  const int64_t hidden = call_.hidden_size, stride = plan.stride(parts);
  const Scratch down_scratch(context_, wanted.of_down() ? matrix_bytes(plan) : 0, "coefficients of x and down");
  const Scratch up_scratch(context_, wanted.up ? matrix_bytes(plan) : 0, "coefficients of d");
  const Scratch spoiled(context_, spoiled_bytes(plan, call_), "rows that are not finite");
  const Scratch partials(context_, wanted.states ? partial_bytes(plan, call_) : 0, "sums of shares");
  bf16* const down_matrix = wanted.of_down() ? down_scratch.as<bf16>() : nullptr;
  bf16* const up_matrix = wanted.up ? up_scratch.as<bf16>() : nullptr;

  const auto make_matrices = plan.tile == 64 ? expert_dense_coefficients<64> : expert_dense_coefficients<128>;
  for (int64_t first = 0; first < call_.tokens; first += plan.tokens) {
    const int64_t tokens = std::min(plan.tokens, call_.tokens - first);
    const int64_t row_tiles = ceil_div(tokens, plan.tile), column_tiles = ceil_div(hidden, plan.tile);
    const uint2* const entries = list_.entries() + first * call_.top_k;
    const uint32_t* const offsets = list_.offsets() + first * (plan.tiles + 1);
    const float* const own_of_up = of_up + first * call_.top_k;
    const float* const own_of_down = of_down + first * call_.top_k;
    for (int64_t expert = 0; expert < call_.num_experts; expert += plan.chunk) {
      const int64_t experts = std::min(plan.chunk, call_.num_experts - expert);
      const int64_t chunk_tiles = ceil_div(experts, plan.tile);
      launch(context_, "expert_dense_coefficients", make_matrices,
             ceil_div(tokens * chunk_tiles, expert_dense_coefficients_threads / 32), expert_dense_coefficients_threads,
             0, entries, offsets, own_of_up, own_of_down, up_matrix, down_matrix, tokens,
             expert / plan.tile, chunk_tiles, plan.tiles, plan.share_experts, stride, call_.top_k);
      if (wanted.states) {
        with_tile<Along::inner, Along::outer>(context_, call_, plan, [&](auto tile) {
          using Tile = decltype(tile);
          launch(context_, "expert_dense_sum", expert_dense_sum<Tile>,
                 plan.shares * row_tiles * column_tiles, Tile::threads, Tile::shared_bytes,
                 Tile::operand(down_matrix, tokens, stride),
                 Tile::operand(call_.down.as<bf16>() + expert * hidden, experts, hidden), list_.factors() + first,
                 partials.as<float>(), plan.shares, plan.share_experts, expert > 0);
        });
      }
      const auto table_gradient = [&](const bf16* matrix, const float* coefficients, const Buffer& states,
                                      const Buffer& gradient) {
        const ExpertDenseTable table{matrix, states.as<bf16>() + first * hidden,
                                     gradient.as<float>() + expert * hidden, spoiled.as<uint32_t>(),
                                     tokens, experts, hidden, plan.share_experts, stride,
                                     call_.accumulate_tables || first > 0};
        const int64_t blocks = ceil_div(experts, plan.tile) * column_tiles;
        with_tile<Along::outer, Along::outer>(context_, call_, plan, [&](auto tile) {
          using Tile = decltype(tile);
          launch(context_, "expert_dense_table_grad", expert_dense_table_grad<Tile>, blocks, Tile::threads,
                 Tile::shared_bytes, table);
        });
        launch(context_, "expert_dense_table_again",
               plan.tile == 64 ? expert_dense_table_again<64> : expert_dense_table_again<128>,
               blocks * plan.tile / (expert_dense_table_again_threads / 32),
               expert_dense_table_again_threads, 0, table, coefficients, entries, offsets, expert / plan.tile, plan.tiles,
               call_.top_k);
      };
      if (wanted.down) table_gradient(down_matrix, own_of_down, call_.hidden_states, call_.grad_down);
      if (wanted.up) table_gradient(up_matrix, own_of_up, call_.grad_output, call_.grad_up);
    }
    if (!wanted.states) continue;
    const Buffer addend = call_.accumulate_hidden_states ? call_.grad_hidden_states : Buffer{};
    dense_combine<bf16>(context_, call_, plan, first, tokens,
                        {partials.as<float>(), call_.down, of_down, addend, call_.grad_hidden_states});
  }
}

}  // namespace flash_moe
