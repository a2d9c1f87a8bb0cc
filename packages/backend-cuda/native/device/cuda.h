// The CUDA language: NVIDIA's own headers, or their CPU twin (shim/) where FLASH_MOE_SHIM is defined.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef FLASH_MOE_SHIM

#include "shim/cuda.h"

#else

#include <cuda_fp16.h>
#include <cuda_runtime.h>

// Shared memory of fixed size: FM_SHARED float tile[32][33];
#define FM_SHARED __shared__

// The dynamic shared memory of the launch: FM_DYNAMIC_SHARED(float, values); gives `float* values`, 128-byte aligned.
#define FM_DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(128) unsigned char fm_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(fm_dynamic_shared)

#endif

// A small function of a kernel.
#define FM_DEVICE __device__ __forceinline__

namespace flash_moe {

constexpr unsigned full_mask = 0xffffffffu;
constexpr int warp_size = 32;

// The same on host and device, where the rounding up of a quotient decides the size of a grid.
__host__ __device__ constexpr int64_t ceil_div(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

__host__ __device__ constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

}  // namespace flash_moe
