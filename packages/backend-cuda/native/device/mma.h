// Tensor-core instructions that a whole warp executes together: 8 x 8 matrices out of shared memory (ldmatrix), and
// products of 16 x 16 by 16 x 8 (mma.sync m16n8k16).
//
// Fragments, with g = lane / 4 and t = lane % 4:
//   a[0] (row g, inner 2t and 2t + 1), a[1] row g + 8, a[2] inner + 8, a[3] both;
//   b[0] (inner 2t and 2t + 1, column g), b[1] inner + 8;
//   d[0], d[1] (row g, columns 2t and 2t + 1), d[2], d[3] row g + 8.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "device/cuda.h"
#include "device/half.h"

#ifdef FLASH_MOE_SHIM
#include "shim/tensor_core.h"
#endif

namespace flash_moe {

#ifdef FLASH_MOE_SHIM

namespace shim {

struct LoadMatrices {
  const void* row;
  bool transposed;
  uint32_t* fragment;
};

// Run once for the warp, when all of its lanes have come.
inline void load_matrices(void** records, unsigned) {
  for (int lane = 0; lane < 32; lane++) {
    const auto& own = *static_cast<const LoadMatrices*>(records[lane]);
    for (int matrix = 0; matrix < 4; matrix++) {
      uint16_t pair[2];
      for (int q = 0; q < 2; q++) {
        const int row = own.transposed ? 2 * (lane % 4) + q : lane / 4;
        const int column = own.transposed ? lane / 4 : 2 * (lane % 4) + q;
        const void* const from = static_cast<const LoadMatrices*>(records[8 * matrix + row])->row;
        if (reinterpret_cast<uintptr_t>(from) % 16 != 0) std::abort();
        std::memcpy(&pair[q], static_cast<const uint16_t*>(from) + column, sizeof(uint16_t));
      }
      own.fragment[matrix] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
  }
}

struct MultiplyAdd {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

template <typename T>
inline void multiply_add(void** records, unsigned) {
  const auto half = [](uint32_t word, int index) {
    return to_float(T{static_cast<uint16_t>(word >> (16 * index))});
  };
  float a[16][16], b[8][16];
  for (int lane = 0; lane < 32; lane++) {
    const auto& own = *static_cast<const MultiplyAdd*>(records[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int q = 0; q < 2; q++) {
      a[g][2 * t + q] = half(own.a[0], q);
      a[g + 8][2 * t + q] = half(own.a[1], q);
      a[g][2 * t + 8 + q] = half(own.a[2], q);
      a[g + 8][2 * t + 8 + q] = half(own.a[3], q);
      b[g][2 * t + q] = half(own.b[0], q);
      b[g][2 * t + 8 + q] = half(own.b[1], q);
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    float* const d = static_cast<const MultiplyAdd*>(records[lane])->d;
    for (int q = 0; q < 4; q++) d[q] = add_products(d[q], a[lane / 4 + q / 2 * 8], b[lane % 4 * 2 + q % 2]);
  }
}

}  // namespace shim

inline void load_matrices(uint32_t (&fragment)[4], const void* row) {
  shim::LoadMatrices record{row, false, fragment};
  shim::warp_converge(full_mask, &record, shim::load_matrices, __FILE__, __LINE__);
}
inline void load_matrices_transposed(uint32_t (&fragment)[4], const void* row) {
  shim::LoadMatrices record{row, true, fragment};
  shim::warp_converge(full_mask, &record, shim::load_matrices, __FILE__, __LINE__);
}
template <typename T>
inline void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  shim::MultiplyAdd record{d, a, b};
  shim::warp_converge(full_mask, &record, shim::multiply_add<T>, __FILE__, __LINE__);
}

#else

// Four 8 x 8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8, and receives of each
// matrix elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4.
__device__ __forceinline__ void load_matrices(uint32_t (&fragment)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}

// The same with each matrix transposed on the way.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&fragment)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}

// d += a b: exact products of 16-bit operands, summed in f32.
template <typename T>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

template <>
__device__ __forceinline__ void multiply_add<bf16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ __forceinline__ void multiply_add<f16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

}  // namespace flash_moe
