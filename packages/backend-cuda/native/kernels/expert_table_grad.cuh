// Purpose: the gradient of a table: per expert, the weighted sum of the rows of its tokens.
// Equation: gradient[row of e] (+)= sum over the pairs p of e, in order, of coefficients[p] states[p / k].
// Shapes: order: the sorted pairs and their segments; coefficients [pairs], states [tokens, hidden], gradient
//   [rows, hidden] f32; partials [windows, hidden] f32.
// Parallelisation: a warp per row and slice of 32 * VECTOR columns sums the first 256 pairs of its expert, eight rows
//   under way at a time; a warp per window of 256 sorted pairs sums the later cut that begins there into `partials`
//   (expert_table_combine adds these). All rows of one slice come first, then those of the next.
// Why: every row of the gradient is written once, by one warp, in one order: no float atomics. With `clear`, rows
//   without pairs become zero here instead of in a pass of their own over the whole table. Slices come one after the
//   other, so that the states of many tokens stay in the L2 cache.
#pragma once

#include "kernels/expert_row.cuh"
#include "kernels/expert_segments.cuh"

namespace flash_moe {

constexpr int expert_table_grad_threads = 128;

template <int VECTOR>
FM_DEVICE void write_gradient(float* at, const float (&sums)[VECTOR], bool accumulate) {
  if constexpr (VECTOR == 1) {
    *at = accumulate ? *at + sums[0] : sums[0];
  } else {
#pragma unroll
    for (int q = 0; q < VECTOR; q += 4) {
      float4* const to = reinterpret_cast<float4*>(at + q);
      float4 value = make_float4(sums[q], sums[q + 1], sums[q + 2], sums[q + 3]);
      if (accumulate) {
        const float4 old = *to;
        value = make_float4(old.x + value.x, old.y + value.y, old.z + value.z, old.w + value.w);
      }
      // Not read again soon: it should not push the states out of the cache.
      __stcs(to, value);
    }
  }
}

template <typename T, int VECTOR>
__global__ void __launch_bounds__(expert_table_grad_threads, 7)
    expert_table_grad(ExpertSegments order, const float* coefficients, const T* states, float* gradient,
                      float* partials, uint32_t windows, int hidden, int top_k, bool accumulate, bool clear) {
  constexpr int batch = 8;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * (expert_table_grad_threads / 32) + threadIdx.x / 32;
  const int64_t items = static_cast<int64_t>(order.rows) + windows;
  const int64_t slice = warp / items;
  const uint32_t item = static_cast<uint32_t>(warp - slice * items);
  const int64_t column = (slice * 32 + lane) * VECTOR;
  if (slice * 32 * VECTOR >= hidden) return;

  float sums[VECTOR] = {};
  uint32_t begin, end;
  float* to;
  if (item < order.rows) {
    const uint2 segment = order.segments[item];
    if (segment.x == segment.y && !clear) return;
    begin = segment.x;
    end = min(segment.y, segment.x + expert_cut);
    // An unused row of the compact form has no id either.
    to = gradient + order.gradient_row(item) * hidden;
  } else {
    ExpertCut cut;
    if (!find_cut(order, item - order.rows, cut)) return;
    begin = cut.begin;
    end = min(cut.segment.y, cut.begin + expert_cut);
    to = partials + static_cast<int64_t>(item - order.rows) * hidden;
    accumulate = false;
  }

  for (uint32_t base = begin; base < end; base += 32) {
    const uint32_t count = min(32u, end - base);
    uint32_t token = 0;
    float coefficient = 0;
    if (static_cast<uint32_t>(lane) < count) {
      const uint32_t pair = order.sorted[base + static_cast<uint32_t>(lane)].y;
      token = pair / static_cast<uint32_t>(top_k);
      coefficient = coefficients[pair];
    }
    for (uint32_t start = 0; start < count; start += batch) {
      RowPiece<T, VECTOR> pieces[batch];
      float factors[batch];
#pragma unroll
      for (int u = 0; u < batch; u++) {
        const int from = static_cast<int>(start) + u;
        const int64_t row = __shfl_sync(full_mask, token, from);
        factors[u] = __shfl_sync(full_mask, coefficient, from);
        pieces[u] = zero_piece<T, VECTOR>();
        if (static_cast<uint32_t>(from) < count && column < hidden)
          pieces[u] = load_piece<T, VECTOR>(states + row * hidden + column);
      }
#pragma unroll
      for (int u = 0; u < batch; u++) add_piece(pieces[u], factors[u], sums);
    }
  }
  if (column < hidden) write_gradient(to + column, sums, accumulate);
}

}  // namespace flash_moe
