// The 16-bit storage types, and loads and stores of any storage type as f32.
#pragma once

#include "device/cuda.h"

namespace flash_moe {

struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};
using f32 = float;

// Exact.
FM_DEVICE float to_float(float value) { return value; }
FM_DEVICE float to_float(bf16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }
FM_DEVICE float to_float(f16 value) {
#ifdef FLASH_MOE_SHIM
  const unsigned sign = (value.bits & 0x8000u) << 16, exponent = value.bits >> 10 & 31, fraction = value.bits & 1023u;
  // A subnormal is a whole number of 2^-24.
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * static_cast<float>(fraction) * 0x1p-24f;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
#else
  return __half2float(__ushort_as_half(value.bits));
#endif
}

// To the nearest, ties to even; beyond the range is infinite, NaN stays NaN.
template <typename T>
FM_DEVICE T from_float(float value);

template <>
FM_DEVICE float from_float<float>(float value) {
  return value;
}

template <>
FM_DEVICE bf16 from_float<bf16>(float value) {
  const unsigned bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

template <>
FM_DEVICE f16 from_float<f16>(float value) {
#ifdef FLASH_MOE_SHIM
  const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {0x7fff};
  // 65520 is the first that rounds to 65536.
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 leaves the multiple of 2^-24 in the low bits, rounded by the adder.
    const unsigned rounded = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u;
    return {static_cast<uint16_t>(sign | rounded)};
  }
  const unsigned rounded = magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1);
  return {static_cast<uint16_t>(sign | rounded >> 13)};
#else
  return {__half_as_ushort(__float2half_rn(value))};
#endif
}

template <typename T>
FM_DEVICE float load(const T& value) {
  return to_float(value);
}
template <typename T>
FM_DEVICE void store(T& to, float value) {
  to = from_float<T>(value);
}

// Whether `N` values from here can be loaded and stored at once.
template <int N, typename T>
FM_DEVICE bool is_vector(const T* address) {
  constexpr size_t bytes = N * sizeof(T) < 16 ? N * sizeof(T) : 16;
  return reinterpret_cast<uintptr_t>(address) % bytes == 0;
}

// N consecutive values (4 or 8) in accesses of up to 16 bytes; the address must be a multiple of that.
template <int N>
FM_DEVICE void load_vector(const float* from, float (&values)[N]) {
  static_assert(N % 4 == 0);
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    const float4 part = *reinterpret_cast<const float4*>(from + i);
    values[i] = part.x, values[i + 1] = part.y, values[i + 2] = part.z, values[i + 3] = part.w;
  }
}

// A pair of 16-bit values, the first in the low half.
template <typename T>
FM_DEVICE void unpack(unsigned pair, float& first, float& second) {
  first = to_float(T{static_cast<uint16_t>(pair & 0xffffu)});
  second = to_float(T{static_cast<uint16_t>(pair >> 16)});
}
template <typename T>
FM_DEVICE unsigned pack(float first, float second) {
  return from_float<T>(first).bits | static_cast<unsigned>(from_float<T>(second).bits) << 16;
}

template <int N, typename T>
FM_DEVICE void load_vector(const T* from, float (&values)[N]) {
  static_assert(sizeof(T) == 2 && (N == 4 || N % 8 == 0));
  if constexpr (N == 4) {
    const uint2 part = *reinterpret_cast<const uint2*>(from);
    unpack<T>(part.x, values[0], values[1]);
    unpack<T>(part.y, values[2], values[3]);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      const uint4 part = *reinterpret_cast<const uint4*>(from + i);
      unpack<T>(part.x, values[i], values[i + 1]);
      unpack<T>(part.y, values[i + 2], values[i + 3]);
      unpack<T>(part.z, values[i + 4], values[i + 5]);
      unpack<T>(part.w, values[i + 6], values[i + 7]);
    }
  }
}

template <int N>
FM_DEVICE void store_vector(float* to, const float (&values)[N]) {
  static_assert(N % 4 == 0);
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    *reinterpret_cast<float4*>(to + i) = make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]);
  }
}

template <int N, typename T>
FM_DEVICE void store_vector(T* to, const float (&values)[N]) {
  static_assert(sizeof(T) == 2 && (N == 4 || N % 8 == 0));
  if constexpr (N == 4) {
    *reinterpret_cast<uint2*>(to) = make_uint2(pack<T>(values[0], values[1]), pack<T>(values[2], values[3]));
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      *reinterpret_cast<uint4*>(to + i) =
          make_uint4(pack<T>(values[i], values[i + 1]), pack<T>(values[i + 2], values[i + 3]),
                     pack<T>(values[i + 4], values[i + 5]), pack<T>(values[i + 6], values[i + 7]));
    }
  }
}

}  // namespace flash_moe
