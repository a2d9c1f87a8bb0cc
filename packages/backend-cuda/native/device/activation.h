// The activation functions of experts and shared MLP, with their derivatives, in f32.
#pragma once

#include "device/cuda.h"
#include "ops/calls.h"

namespace flash_moe {

__device__ __forceinline__ float sigmoid(float x) {
  // exp(-|x|) cannot overflow, and nothing cancels for negative x.
  const float e = expf(-fabsf(x));
  return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}

// The tail itself, not its complement: nothing cancels for negative x.
__device__ __forceinline__ float normal_distribution(float x) { return 0.5f * erfcf(-0.70710678f * x); }

// 2 sqrt(2 / pi) (x + 0.044715 x^3); beyond 30 its sigmoid is 0 or 1.
__device__ __forceinline__ float tanh_argument(float x) {
  const float c = fminf(fmaxf(x, -30.0f), 30.0f);
  return 1.5957691f * (c + 0.044715f * c * c * c);
}

__device__ __forceinline__ float activate(Activation kind, float x) {
  switch (kind) {
    case Activation::gelu:
      return x * normal_distribution(x);
    case Activation::gelu_tanh:
      // The clamp would turn NaN into a number, the factor x keeps it.
      return x * sigmoid(tanh_argument(x));
    case Activation::relu:
      // Not fmaxf, which drops NaN.
      return x < 0.0f ? 0.0f : x;
    default:
      return x * sigmoid(x);
  }
}

__device__ __forceinline__ float activation_slope(Activation kind, float x) {
  switch (kind) {
    case Activation::gelu: {
      const float c = x > 20.0f ? 20.0f : x < -20.0f ? -20.0f : x;
      return normal_distribution(c) + c * expf(-0.5f * c * c) * 0.39894228f;
    }
    case Activation::gelu_tanh: {
      const float c = x > 30.0f ? 30.0f : x < -30.0f ? -30.0f : x;
      const float s = sigmoid(1.5957691f * (c + 0.044715f * c * c * c));
      return s + c * s * (1.0f - s) * 1.5957691f * (1.0f + 0.134145f * c * c);
    }
    case Activation::relu:
      return x > 0.0f ? 1.0f : 0.0f;
    default: {
      const float c = x > 200.0f ? 200.0f : x < -200.0f ? -200.0f : x;
      const float s = sigmoid(c);
      return s + c * s * (1.0f - s);
    }
  }
}

}  // namespace flash_moe
