// AdamW: 16 bytes of the parameter per thread where rows allow it, else an element.
#include <algorithm>
#include <cmath>

#include "kernels/adamw.cuh"
#include "ops/ops.h"

namespace flash_moe {
namespace {

// Enough to keep the memory busy; more would only find that their rows are not used.
constexpr int64_t compact_blocks_per_multiprocessor = 16;

// In double precision, rounded once.
AdamwSettings settings_of(const AdamwCall& call) {
  const double step = static_cast<double>(call.step);
  return {static_cast<float>(call.gradient_scale),
          static_cast<float>(1.0 - call.learning_rate * call.weight_decay),
          static_cast<float>(call.beta1),
          static_cast<float>(1.0 - call.beta1),
          static_cast<float>(call.beta2),
          static_cast<float>(1.0 - call.beta2),
          static_cast<float>(call.learning_rate / (1.0 - std::pow(call.beta1, step))),
          static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(call.beta2, step))),
          static_cast<float>(call.epsilon)};
}

bool is_aligned(const Buffer& buffer) { return reinterpret_cast<uintptr_t>(buffer.data) % 16 == 0; }

template <typename P, int WIDTH>
void launch_step(Context& context, const AdamwCall& call) {
  const AdamwBuffers buffers{call.master ? call.master.as<float>() : nullptr, call.first_moment.as<float>(),
                             call.second_moment.as<float>(), call.gradient.as<float>()};
  const AdamwSettings settings = settings_of(call);
  if (!call.compact) {
    launch(context, "adamw", adamw_step<P, WIDTH, false>, ceil_div(call.rows * call.columns, adamw_threads * WIDTH),
           adamw_threads, 0, call.parameter.as<P>(), buffers, settings, call.rows, call.columns, int64_t{0}, nullptr,
           nullptr, nullptr);
    return;
  }
  // One at least, for the count is looked at even where no row can be used.
  const int64_t most = compact_blocks_per_multiprocessor * context.limits().multiprocessors;
  const int64_t blocks =
      std::clamp<int64_t>(ceil_div(call.capacity * (call.columns / WIDTH), adamw_threads), 1, most);
  launch(context, "adamw", adamw_step<P, WIDTH, true>, blocks, adamw_threads, 0, call.parameter.as<P>(), buffers,
         settings, call.rows, call.columns, call.capacity, call.ids.as<int32_t>(), call.count.as<int32_t>(),
         context.id_errors());
}

template <typename P>
void step(Context& context, const AdamwCall& call) {
  constexpr int width = 16 / sizeof(P);
  // Compact, every row begins a word of its own.
  const int64_t unit = call.compact ? call.columns : call.rows * call.columns;
  const bool aligned = is_aligned(call.parameter) && is_aligned(call.first_moment) &&
                       is_aligned(call.second_moment) && is_aligned(call.gradient) &&
                       (!call.master || is_aligned(call.master));
  if (aligned && unit % width == 0) return launch_step<P, width>(context, call);
  launch_step<P, 1>(context, call);
}

}  // namespace

void adamw(Context& context, const AdamwCall& call) {
  if (call.columns == 0 || (call.rows == 0 && !call.compact)) return;
  if (call.parameter.dtype == DType::f16) return step<f16>(context, call);
  if (call.parameter.dtype == DType::bf16) return step<bf16>(context, call);
  step<float>(context, call);
}

}  // namespace flash_moe
