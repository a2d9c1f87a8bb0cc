// The router: which kernel runs is decided by the numbers of keys, k, and the shared memory of a block.
#include <algorithm>

#include "kernels/router_bisect.cuh"
#include "kernels/router_grad.cuh"
#include "kernels/router_staircase.cuh"
#include "kernels/router_staircase_long.cuh"
#include "ops/check_sizes.h"
#include "ops/ops.h"

namespace flash_moe {
namespace {

// Up to this k the pairs that can be among the best fit the registers of a warp.
constexpr int64_t staircase_limit = 64;
// Up to this many keys an axis fits the registers of a warp.
constexpr int64_t short_axis = 512;
// What the lists of the tokens that are worked on at the same time may take, unless one token needs more.
constexpr int64_t scratch_budget = int64_t{256} << 20;
// Of a block, beside the lists: what reductions and scans use.
constexpr int64_t own_shared_bytes = 2048;

template <int LARGEST>
void launch_staircase(Context& context, const RouterSelectForwardCall& call) {
  const int keys_x = static_cast<int>(call.keys_x), keys_y = static_cast<int>(call.keys_y);
  const int top_k = static_cast<int>(call.top_k);
  const int64_t longest = std::max(call.keys_x, call.keys_y);
  if (longest > short_axis) {
    launch(context, "router_staircase_long", router_staircase_long<LARGEST>, call.tokens, router_long_threads, 0,
           call.logits.as<float>(), call.ids.as<int32_t>(), call.weights.as<float>(), keys_x, keys_y, top_k,
           call.normalize_weights);
    return;
  }
  auto kernel = router_staircase<16, LARGEST>;
  if (longest <= 256) kernel = router_staircase<8, LARGEST>;
  if (longest <= 128) kernel = router_staircase<4, LARGEST>;
  launch(context, "router_staircase", kernel, ceil_div(call.tokens, router_staircase_threads / 32),
         router_staircase_threads, 0, call.logits.as<float>(), call.ids.as<int32_t>(), call.weights.as<float>(),
         call.tokens, keys_x, keys_y, top_k, call.normalize_weights);
}

template <int THREADS, bool IN_SHARED>
void launch_bisect(Context& context, const RouterSelectForwardCall& call, const BisectLayout& layout, int64_t blocks,
                   unsigned char* scratch) {
  launch(context, "router_bisect", router_bisect<THREADS, IN_SHARED>, blocks, THREADS,
         IN_SHARED ? static_cast<size_t>(layout.bytes) : 0, call.logits.as<float>(), call.ids.as<int32_t>(),
         call.weights.as<float>(), call.tokens, layout, call.normalize_weights, scratch);
}

void bisect(Context& context, const RouterSelectForwardCall& call) {
  const BisectLayout layout = bisect_layout(call.keys_x, call.keys_y, call.top_k);
  const int64_t work = std::max(call.keys_x + call.keys_y, call.top_k);
  if (layout.bytes + own_shared_bytes <= static_cast<int64_t>(context.limits().shared_bytes_per_block)) {
    if (work <= 1024) return launch_bisect<128, true>(context, call, layout, call.tokens, nullptr);
    if (work <= 4096) return launch_bisect<256, true>(context, call, layout, call.tokens, nullptr);
    return launch_bisect<512, true>(context, call, layout, call.tokens, nullptr);
  }
  const int64_t fitting = std::max<int64_t>(1, scratch_budget / layout.bytes);
  const int64_t blocks = std::min({call.tokens, fitting, int64_t{4} * context.limits().multiprocessors});
  const Scratch scratch(context, static_cast<size_t>(blocks * layout.bytes), "router: sorted keys and pairs");
  launch_bisect<512, false>(context, call, layout, blocks, scratch.as<unsigned char>());
}

}  // namespace

void router_select_forward(Context& context, const RouterSelectForwardCall& call) {
  if (call.tokens == 0) return;
  check_counted("topK", call.top_k);
  if (context.limits().tuning.router == "bisect") return bisect(context, call);
  if (call.top_k <= 16) return launch_staircase<16>(context, call);
  if (call.top_k <= 32) return launch_staircase<32>(context, call);
  if (call.top_k <= staircase_limit) return launch_staircase<64>(context, call);
  bisect(context, call);
}

namespace {

// By the shape alone, since the order of sums depends on it: what fits the 48 KiB that any device gives a block.
constexpr int64_t grad_sums_bytes = 40 * 1024;

template <int WARPS>
void launch_grad(Context& context, const RouterSelectBackwardCall& call) {
  const int threads = router_grad_threads<WARPS>, tokens_per_block = threads / (32 * WARPS);
  const int64_t copy_bytes = 4 * (call.keys_x + call.keys_y);
  const int64_t copies = std::min<int64_t>(WARPS, grad_sums_bytes / (tokens_per_block * copy_bytes));
  const RouterGradParams params{call.tokens,
                                static_cast<int>(call.keys_x),
                                static_cast<int>(call.keys_y),
                                static_cast<int>(call.top_k),
                                call.normalize_weights,
                                call.accumulate,
                                static_cast<int>(copies)};
  launch(context, "router_grad", router_grad<WARPS>, ceil_div(call.tokens, tokens_per_block), threads,
         static_cast<size_t>(tokens_per_block * copies * copy_bytes), call.logits.as<float>(), call.ids.as<int32_t>(),
         call.grad_weights.as<float>(), call.grad_logits.as<float>(), params, context.id_errors());
}

}  // namespace

void router_select_backward(Context& context, const RouterSelectBackwardCall& call) {
  if (call.tokens == 0) return;
  check_counted("topK", call.top_k);
  const bool is_short = call.top_k <= staircase_limit && call.keys_x + call.keys_y <= 2 * short_axis;
  if (is_short) return launch_grad<1>(context, call);
  launch_grad<8>(context, call);
}

}  // namespace flash_moe
