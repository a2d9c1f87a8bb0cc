// BatchNorm: statistics in chunks of 64 tokens, their combination, and one stream over the elements.
#include "kernels/batch_norm_apply.cuh"
#include "kernels/batch_norm_grad.cuh"
#include "kernels/batch_norm_grad_partials.cuh"
#include "kernels/batch_norm_grad_sums.cuh"
#include "kernels/batch_norm_partials.cuh"
#include "kernels/batch_norm_statistics.cuh"
#include "ops/ops.h"

namespace flash_moe {
namespace {

int64_t finish_blocks(int64_t features) { return ceil_div(features, warp_size); }

Scratch take_partials(Context& context, int64_t tokens, int64_t features) {
  return Scratch(context, static_cast<size_t>(FeatureTile::chunks(tokens) * 3 * features * 4),
                 "batchNorm: sums of chunks");
}

template <typename X>
void apply(Context& context, const BatchNormForwardCall& call, const float* rest) {
  launch(context, "batch_norm_apply", batch_norm_apply<X>, FeatureTile::blocks(call.tokens, call.features),
         FeatureTile::threads, 0, call.input.as<X>(), call.mean.as<float>(), call.variance.as<float>(), rest,
         call.output.as<float>(), call.tokens, call.features, static_cast<float>(call.epsilon));
}

template <typename X>
void forward(Context& context, const BatchNormForwardCall& call) {
  const int64_t tokens = call.tokens, features = call.features;
  if (!call.training) return apply<X>(context, call, nullptr);
  const Scratch partials = take_partials(context, tokens, features);
  const Scratch rest(context, static_cast<size_t>(features * 4), "batchNorm: what rounding left of the means");
  launch(context, "batch_norm_partials", batch_norm_partials<X>, FeatureTile::blocks(tokens, features),
         FeatureTile::threads, 0, call.input.as<X>(), partials.as<float>(), tokens, features);
  const double count = static_cast<double>(tokens);
  const BatchNormTraining training{count / (count - 1),          call.momentum,
                                   call.mean.as<float>(),         call.variance.as<float>(),
                                   call.running_mean.as<float>(), call.running_variance.as<float>(),
                                   rest.as<float>()};
  launch(context, "batch_norm_statistics", batch_norm_statistics, finish_blocks(features), batch_norm_finish_threads,
         0, partials.as<float>(), tokens, features, training);
  apply<X>(context, call, rest.as<float>());
}

template <typename X>
void apply_backward(Context& context, const BatchNormBackwardCall& call, const float* means) {
  launch(context, "batch_norm_grad", batch_norm_grad<X>, FeatureTile::blocks(call.tokens, call.features),
         FeatureTile::threads, 0, call.input.as<X>(), call.mean.as<float>(), call.variance.as<float>(),
         call.grad_output.as<float>(), means, call.grad_input.as<float>(), call.tokens, call.features,
         static_cast<float>(call.epsilon), call.accumulate);
}

template <typename X>
void backward(Context& context, const BatchNormBackwardCall& call) {
  const int64_t tokens = call.tokens, features = call.features;
  if (!call.training) return apply_backward<X>(context, call, nullptr);
  const Scratch partials = take_partials(context, tokens, features);
  const Scratch means(context, static_cast<size_t>(2 * features * 4), "batchNorm: means over the batch");
  launch(context, "batch_norm_grad_partials", batch_norm_grad_partials<X>, FeatureTile::blocks(tokens, features),
         FeatureTile::threads, 0, call.input.as<X>(), call.mean.as<float>(), call.variance.as<float>(),
         call.grad_output.as<float>(), partials.as<float>(), tokens, features, static_cast<float>(call.epsilon));
  launch(context, "batch_norm_grad_sums", batch_norm_grad_sums, finish_blocks(features), batch_norm_finish_threads,
         0, partials.as<float>(), means.as<float>(), tokens, features);
  apply_backward<X>(context, call, means.as<float>());
}

}  // namespace

void batch_norm_forward(Context& context, const BatchNormForwardCall& call) {
  if (call.tokens == 0) return;
  if (call.input.dtype == DType::f16) return forward<f16>(context, call);
  if (call.input.dtype == DType::bf16) return forward<bf16>(context, call);
  forward<float>(context, call);
}

void batch_norm_backward(Context& context, const BatchNormBackwardCall& call) {
  if (call.tokens == 0) return;
  if (call.input.dtype == DType::f16) return backward<f16>(context, call);
  if (call.input.dtype == DType::bf16) return backward<bf16>(context, call);
  backward<float>(context, call);
}

}  // namespace flash_moe
