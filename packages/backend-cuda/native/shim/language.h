// What nvcc adds to C++: qualifiers, built-in variables, vector types and shared memory.
#pragma once

#include <cstddef>
#include <cstdint>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __grid_constant__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

namespace flash_moe::shim {

// Where the running thread stands in its grid. One at a time runs in an OS thread; the scheduler swaps the pointer.
struct Place {
  dim3 thread, block, block_size, grid_size;
  unsigned char* dynamic_shared;
};

extern __thread const Place* place;

}  // namespace flash_moe::shim

#define threadIdx (::flash_moe::shim::place->thread)
#define blockIdx (::flash_moe::shim::place->block)
#define blockDim (::flash_moe::shim::place->block_size)
#define gridDim (::flash_moe::shim::place->grid_size)
constexpr int warpSize = 32;

// The blocks of a grid run one after the other in an OS thread, so one copy for each OS thread is shared by exactly
// the threads of a block. It is filled with NaN before each block (shim/shared_memory.cc).
// ThreadSanitizer does not look at thread-local variables; what it watches runs kernels in one OS thread.
#ifdef FLASH_MOE_SHIM_THREAD_SANITIZER
#define FM_SHARED static
#else
#define FM_SHARED static thread_local
#endif

#define FM_DYNAMIC_SHARED(type, name) \
  type* const name = reinterpret_cast<type*>(::flash_moe::shim::place->dynamic_shared)
