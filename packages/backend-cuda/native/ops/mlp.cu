#include <algorithm>

#include "device/tile_product_wgmma.h"
#include "kernels/mlp_gate_up_mma.cuh"
#include "kernels/mlp_gate_up_rows.cuh"
#include "kernels/mlp_gate_up_tiled.cuh"
#include "kernels/mlp_grad.cuh"
#include "kernels/mlp_grad_mma.cuh"
#include "ops/linear.h"
#include "ops/mlp.h"
#include "ops/ops.h"

namespace flash_moe {

namespace {

// Up to so many tokens, weights are read row by row instead of in tiles.
constexpr int64_t few_tokens = 16;
struct Projection {
  FloatMatrix x;
  const void* gate;
  const void* up;
  int64_t units;
  Activation activation;
};

FloatMatrix states(const MlpShape& call, int64_t first_token, int64_t tokens) {
  FloatMatrix x{};
  const int64_t size = is_half(call.hidden_states.dtype) ? 2 : 4;
  x.data = call.hidden_states.as<char>() + first_token * call.hidden_size * size;
  x.rows = tokens;
  x.width = x.stride = call.hidden_size;
  x.dtype = call.hidden_states.dtype;
  return x;
}

bool all_aligned(const Projection& p, int elements) {
  const DType dtype = p.x.dtype;
  return is_aligned(p.x.data, dtype, p.x.stride, elements) && is_aligned(p.gate, dtype, p.x.stride, elements) &&
         is_aligned(p.up, dtype, p.x.stride, elements);
}

template <typename T, int ROWS>
void gate_up_rows(Context& context, const Projection& p, float* hidden) {
  MlpGateUpRows parameters{p.x, p.gate, p.up, hidden, p.units, p.activation, 1};
  parameters.x.aligned = all_aligned(p, 8);
  const int64_t row_groups = ceil_div(p.x.rows, ROWS);
  // Units that would not give each multiprocessor eight warps are worked on by four.
  if (p.units * row_groups < 8 * context.limits().multiprocessors && p.x.width > 256) parameters.warps = 4;
  launch(context, "mlp_gate_up_rows", mlp_gate_up_rows<T, ROWS>,
         ceil_div(p.units, 4 / parameters.warps) * row_groups, 128, 0, parameters);
}

template <typename T>
void gate_up_rows(Context& context, const Projection& p, float* hidden) {
  if (p.x.rows == 1) return gate_up_rows<T, 1>(context, p, hidden);
  if (p.x.rows <= 4) return gate_up_rows<T, 4>(context, p, hidden);
  gate_up_rows<T, 8>(context, p, hidden);
}

template <typename Product, typename T>
void gate_up_mma(Context& context, const Projection& p, T* hidden, T* projections) {
  const bool aligned = all_aligned(p, 8);
  const MlpGateUpMma<T> parameters{
      {static_cast<const T*>(p.x.data), p.x.rows, p.x.width, p.x.stride, aligned},
      {static_cast<const T*>(p.gate), static_cast<const T*>(p.up), p.units, p.x.width, aligned},
      hidden,
      projections,
      p.activation};
  const int64_t blocks = ceil_div(p.x.rows, Product::rows) * ceil_div(p.units, Product::columns / 2);
  launch(context, "mlp_gate_up_mma", mlp_gate_up_mma<Product>, blocks, Product::threads, Product::shared_bytes,
         parameters);
}

template <int SIZE>
void gate_up_tiled(Context& context, const Projection& p, float* hidden, float* projections) {
  MlpGateUpTiled parameters{
      p.x, {p.gate, p.up, p.units, p.x.width, p.x.dtype, all_aligned(p, 4)}, hidden, projections, p.activation};
  parameters.x.aligned = parameters.weights.aligned;
  const int64_t blocks = ceil_div(p.x.rows, SIZE) * ceil_div(p.units, SIZE / 2);
  launch(context, "mlp_gate_up_tiled", mlp_gate_up_tiled<SIZE>, blocks, TileProductF32<SIZE>::threads, 0, parameters);
}

// The gated intermediate [tokens, units], or the two projections [tokens, 2 units], in T.
template <typename T>
void gate_up(Context& context, const Projection& p, T* hidden, T* projections) {
  constexpr bool half = sizeof(T) == 2;
  const Tiles tiles = choose_tiles(context, p.x.rows, 2 * p.units, half);
  if constexpr (half) {
    constexpr Along inner = Along::inner;
    switch (tiles) {
      case Tiles::wgmma_128_by_256:
        return gate_up_mma<TileProductWgmma<T, 256, inner, inner>>(context, p, hidden, projections);
      case Tiles::wgmma_128_by_128:
        return gate_up_mma<TileProductWgmma<T, 128, inner, inner>>(context, p, hidden, projections);
      case Tiles::wgmma_128_by_64:
        return gate_up_mma<TileProductWgmma<T, 64, inner, inner>>(context, p, hidden, projections);
      case Tiles::of_128:
        return gate_up_mma<TileProduct<T, 128, 128, inner, inner>>(context, p, hidden, projections);
      case Tiles::of_64:
        return gate_up_mma<TileProduct<T, 64, 64, inner, inner>>(context, p, hidden, projections);
    }
  } else {
    if (tiles == Tiles::of_128) return gate_up_tiled<128>(context, p, hidden, projections);
    gate_up_tiled<64>(context, p, hidden, projections);
  }
}

char* at(const Buffer& buffer, int64_t index) {
  return buffer.as<char>() + index * (is_half(buffer.dtype) ? 2 : 4);
}

Buffer from(const Buffer& buffer, int64_t index) {
  Buffer rest = buffer;
  if (buffer && buffer.data != nullptr) rest.data = at(buffer, index);
  return rest;
}

// The intermediate times `down`, plus the addend, for tokens from first_token on.
void project_down(Context& context, const MlpForwardCall& call, int64_t first_token, int64_t tokens,
                  const void* hidden, DType dtype) {
  MatrixProduct product;
  product.rows = tokens;
  product.inner = call.intermediate_size;
  product.columns = product.output_stride = call.hidden_size;
  product.a.data = hidden;
  product.a.dtype = dtype;
  product.a.stride = call.intermediate_size;
  product.b.data = call.down.data;
  product.b.dtype = call.down.dtype;
  product.b.stride = call.intermediate_size;
  product.transpose_b = true;
  product.output = from(call.output, first_token * call.hidden_size);
  product.addend = from(call.addend, first_token * call.hidden_size);
  multiply(context, product);
}

template <typename T>
void forward(Context& context, const MlpForwardCall& call, int64_t most_scratch_bytes) {
  const int64_t units = call.intermediate_size;
  const std::string& tuned = context.limits().tuning.products;
  const bool by_rows = tuned.empty() ? call.tokens <= few_tokens : tuned == "rows";
  const int64_t row_bytes = std::max<int64_t>(1, units) * static_cast<int64_t>(by_rows ? sizeof(float) : sizeof(T));
  // Tokens do not meet, so the parts change no bit. Whole tiles of them.
  const int64_t part = std::max<int64_t>(128, most_scratch_bytes / row_bytes / 128 * 128);
  const int64_t most = std::min(part, call.tokens);
  Scratch hidden(context, static_cast<size_t>(most * row_bytes), "the intermediate of the MLP");
  for (int64_t first = 0; first < call.tokens; first += part) {
    const int64_t tokens = std::min(part, call.tokens - first);
    const Projection p{states(call, first, tokens), call.gate.data, call.up.data, units, call.activation};
    if (by_rows) {
      gate_up_rows<T>(context, p, hidden.as<float>());
      project_down(context, call, first, tokens, hidden.as<float>(), DType::f32);
    } else {
      gate_up<T>(context, p, hidden.as<T>(), nullptr);
      project_down(context, call, first, tokens, hidden.as<T>(), call.hidden_states.dtype);
    }
  }
}

// One part of the units: from `first` on, `units` of them.
template <typename T>
struct Part {
  int64_t first, units;
  // [tokens, 2 units]: the projections, then their gradients. [tokens, units]: the intermediate.
  T* projections;
  T* hidden;
};

template <typename Product, typename T>
void grad_mma(Context& context, const MlpBackwardCall& call, const Part<T>& part) {
  const DType dtype = call.hidden_states.dtype;
  const T* const down = call.down.as<T>() + part.first;
  const MlpGradMma<T> parameters{
      {call.grad_output.as<T>(), call.tokens, call.hidden_size, call.hidden_size,
       is_aligned(call.grad_output.data, dtype, call.hidden_size, 8)},
      {down, call.hidden_size, part.units, call.intermediate_size, is_aligned(down, dtype, call.intermediate_size, 8)},
      part.projections,
      part.hidden,
      call.activation};
  const int64_t blocks = ceil_div(call.tokens, Product::rows) * ceil_div(part.units, Product::columns);
  launch(context, "mlp_grad_mma", mlp_grad_mma<Product>, blocks, Product::threads, Product::shared_bytes, parameters);
}

// The projections become their gradients, and the intermediate is made.
template <typename T>
void projection_gradients(Context& context, const MlpBackwardCall& call, const Part<T>& part) {
  if constexpr (sizeof(T) == 2) {
    constexpr Along inner = Along::inner, outer = Along::outer;
    switch (choose_tiles(context, call.tokens, part.units, true)) {
      case Tiles::wgmma_128_by_256:
        return grad_mma<TileProductWgmma<T, 256, inner, outer>>(context, call, part);
      case Tiles::wgmma_128_by_128:
        return grad_mma<TileProductWgmma<T, 128, inner, outer>>(context, call, part);
      case Tiles::wgmma_128_by_64:
        return grad_mma<TileProductWgmma<T, 64, inner, outer>>(context, call, part);
      case Tiles::of_128:
        return grad_mma<TileProduct<T, 128, 128, inner, outer>>(context, call, part);
      case Tiles::of_64:
        return grad_mma<TileProduct<T, 64, 64, inner, outer>>(context, call, part);
    }
  } else {
    MatrixProduct product;
    product.rows = call.tokens;
    product.inner = call.hidden_size;
    product.columns = product.output_stride = part.units;
    product.a = {call.grad_output.data, DType::f32, call.hidden_size};
    product.b = {call.down.as<float>() + part.first, DType::f32, call.intermediate_size};
    product.output.data = part.hidden;
    product.output.present = true;
    multiply(context, product);
    launch(context, "mlp_grad", mlp_grad, ceil_div(call.tokens * part.units, 256), 256, 0, part.projections,
           part.hidden, call.tokens, part.units, call.activation);
  }
}

template <typename T>
void states_gradient(Context& context, const MlpBackwardCall& call, const Part<T>& part, bool accumulate) {
  const DType dtype = call.hidden_states.dtype;
  const int64_t offset = part.first * call.hidden_size;
  MatrixProduct product;
  product.rows = call.tokens;
  product.columns = product.output_stride = call.hidden_size;
  product.output = call.grad_hidden_states;
  product.accumulate = accumulate;
  product.a = {part.projections, dtype, 2 * part.units};
  product.b = {at(call.gate, offset), dtype, call.hidden_size};
  if constexpr (sizeof(T) == 2) {
    // One sum over the units of both.
    product.inner = 2 * part.units;
    product.b.second = at(call.up, offset);
    product.b.split = part.units;
    multiply(context, product);
  } else {
    product.inner = part.units;
    multiply(context, product);
    product.accumulate = true;
    product.a.data = part.projections + part.units;
    product.b.data = at(call.up, offset);
    multiply(context, product);
  }
}

template <typename T>
void weight_gradients(Context& context, const MlpBackwardCall& call, const Part<T>& part) {
  const DType dtype = call.hidden_states.dtype;
  MatrixProduct product;
  product.inner = call.tokens;
  product.transpose_a = true;
  const auto projection = [&](const Buffer& gradient, bool accumulate, const T* a) {
    if (!gradient) return;
    product.rows = part.units;
    product.columns = product.output_stride = call.hidden_size;
    product.a = {a, dtype, 2 * part.units};
    product.b = {call.hidden_states.data, dtype, call.hidden_size};
    product.output = from(gradient, part.first * call.hidden_size);
    product.accumulate = accumulate;
    multiply(context, product);
  };
  projection(call.grad_gate, call.accumulate_gate, part.projections);
  projection(call.grad_up, call.accumulate_up, part.projections + part.units);
  if (!call.grad_down) return;
  product.rows = call.hidden_size;
  product.columns = part.units;
  product.output_stride = call.intermediate_size;
  product.a = {call.grad_output.data, dtype, call.hidden_size};
  product.b = {part.hidden, dtype, part.units};
  product.output = from(call.grad_down, part.first);
  product.accumulate = call.accumulate_down;
  multiply(context, product);
}

template <typename T>
void backward(Context& context, const MlpBackwardCall& call, int64_t most_scratch_bytes) {
  const int64_t unit_bytes = 3 * call.tokens * static_cast<int64_t>(sizeof(T));
  const int64_t part_units = std::max<int64_t>(128, most_scratch_bytes / unit_bytes / 128 * 128);
  const int64_t most = std::min(part_units, call.intermediate_size);
  Scratch projections(context, static_cast<size_t>(2 * call.tokens * most) * sizeof(T), "projections of the MLP");
  Scratch hidden(context, static_cast<size_t>(call.tokens * most) * sizeof(T), "the intermediate of the MLP");
  for (int64_t first = 0; first < call.intermediate_size; first += part_units) {
    const Part<T> part{first, std::min(part_units, call.intermediate_size - first), projections.as<T>(),
                       hidden.as<T>()};
    const int64_t offset = first * call.hidden_size;
    const Projection p{states(call, 0, call.tokens), at(call.gate, offset), at(call.up, offset), part.units,
                       call.activation};
    gate_up<T>(context, p, nullptr, part.projections);
    projection_gradients<T>(context, call, part);
    if (call.grad_hidden_states) {
      states_gradient<T>(context, call, part, call.accumulate_hidden_states || first > 0);
    }
    weight_gradients<T>(context, call, part);
  }
}

void clear(Context& context, const Buffer& gradient, bool accumulate, int64_t elements) {
  if (!gradient || accumulate || elements == 0) return;
  clear(context, gradient.data, static_cast<size_t>(elements) * sizeof(float), "cannot clear a gradient of the MLP");
}

}  // namespace

void mlp_forward_in_parts(Context& context, const MlpForwardCall& call, int64_t most_scratch_bytes) {
  if (call.tokens == 0) return;
  switch (call.hidden_states.dtype) {
    case DType::f16:
      return forward<f16>(context, call, most_scratch_bytes);
    case DType::bf16:
      return forward<bf16>(context, call, most_scratch_bytes);
    default:
      return forward<float>(context, call, most_scratch_bytes);
  }
}

void mlp_backward_in_parts(Context& context, const MlpBackwardCall& call, int64_t most_scratch_bytes) {
  if (!(call.grad_hidden_states || call.grad_gate || call.grad_up || call.grad_down)) return;
  if (call.tokens == 0) {
    const int64_t elements = call.intermediate_size * call.hidden_size;
    clear(context, call.grad_gate, call.accumulate_gate, elements);
    clear(context, call.grad_up, call.accumulate_up, elements);
    clear(context, call.grad_down, call.accumulate_down, elements);
    return;
  }
  switch (call.hidden_states.dtype) {
    case DType::f16:
      return backward<f16>(context, call, most_scratch_bytes);
    case DType::bf16:
      return backward<bf16>(context, call, most_scratch_bytes);
    default:
      return backward<float>(context, call, most_scratch_bytes);
  }
}

void mlp_forward(Context& context, const MlpForwardCall& call) {
  mlp_forward_in_parts(context, call, mlp_scratch_bytes);
}

void mlp_backward(Context& context, const MlpBackwardCall& call) {
  mlp_backward_in_parts(context, call, mlp_scratch_bytes);
}

}  // namespace flash_moe
