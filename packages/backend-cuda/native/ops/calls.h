// The ops of the Backend contract as plain structs: the C++ twin of packages/core/src/ops.ts, where every
// shape, equation and rule is written. Arguments were validated by core before they come here.
#pragma once

#include <cstdint>

namespace flash_moe {

enum class DType : int { f32 = 0, f16 = 1, bf16 = 2, i32 = 3 };

// Silu is x sigmoid(x); gelu uses erf.
enum class Activation : int { silu = 0, gelu = 1, gelu_tanh = 2, relu = 3 };

// Device memory; `data` is null where an optional buffer is absent, or where it holds no element.
struct Buffer {
  void* data = nullptr;
  DType dtype = DType::f32;
  bool present = false;

  explicit operator bool() const { return present; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

struct NormStatistics {
  bool present = false;
  Buffer mean, variance;
  double epsilon = 0;

  explicit operator bool() const { return present; }
};

struct LinearCall {
  int64_t rows, inner, columns;
  Buffer a, b, output;
  bool transpose_a, transpose_b, accumulate;
  NormStatistics input_norm, output_norm;
};

struct BatchNormForwardCall {
  int64_t tokens, features;
  Buffer input, output;
  double epsilon;
  bool training;
  Buffer mean, variance;
  // Training only.
  double momentum;
  Buffer running_mean, running_variance;
};

struct BatchNormBackwardCall {
  int64_t tokens, features;
  bool training;
  double epsilon;
  Buffer input, mean, variance, grad_output, grad_input;
  bool accumulate;
};

struct RouterShape {
  int64_t tokens, keys_x, keys_y, top_k;
  bool normalize_weights;
};

struct RouterSelectForwardCall : RouterShape {
  Buffer logits, ids, weights;
};

struct RouterSelectBackwardCall : RouterShape {
  Buffer logits, ids, grad_weights, grad_logits;
  bool accumulate;
};

struct ExpertsShape {
  int64_t tokens, hidden_size, num_experts, top_k;
  Activation activation;
  Buffer hidden_states, down, up, ids, weights;
};

struct ExpertsForwardCall : ExpertsShape {
  Buffer addend, output;
};

enum class TableLayout : int { none = 0, dense = 1, compact = 2 };

struct ExpertsBackwardCall : ExpertsShape {
  Buffer grad_output, grad_hidden_states, grad_weights;
  TableLayout layout;
  Buffer grad_down, grad_up;
  // Compact only.
  Buffer used_ids, used_count;
  bool accumulate_hidden_states, accumulate_weights, accumulate_tables;
};

struct MlpShape {
  int64_t tokens, hidden_size, intermediate_size;
  Activation activation;
  Buffer hidden_states, gate, up, down;
};

struct MlpForwardCall : MlpShape {
  Buffer addend, output;
};

struct MlpBackwardCall : MlpShape {
  Buffer grad_output, grad_hidden_states, grad_gate, grad_up, grad_down;
  bool accumulate_hidden_states, accumulate_gate, accumulate_up, accumulate_down;
};

struct AdamwCall {
  int64_t rows, columns;
  Buffer parameter, master, first_moment, second_moment, gradient;
  bool compact;
  int64_t capacity;
  Buffer ids, count;
  int64_t step;
  double learning_rate, beta1, beta2, epsilon, weight_decay, gradient_scale;
};

}  // namespace flash_moe
