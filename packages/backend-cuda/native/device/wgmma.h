// Hopper's tensor-core instruction: four consecutive warps multiply matrices that lie in shared memory (wgmma), on their
// own time. Machine code for sm_90a only; elsewhere these functions must not be reached.
//
// Rows of shared memory have 128 bytes, of which chunk c of 16 bytes of row r lies at c ^ (r % 8), as tile_product.h
// describes. The accumulators are TileSums' with one column of warps: lane l of warp w has rows 16 w + l / 4 (+ 8) and
// columns 8 j + 2 (l % 4) (+ 1).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "device/cuda.h"
#include "device/half.h"

#ifdef FLASH_MOE_SHIM
#include <deque>
#include <functional>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "device/async_copy.h"
#include "shim/tensor_core.h"
#endif

#if defined(FLASH_MOE_SHIM) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FM_HAS_WGMMA 1
#endif

namespace flash_moe {

// Where a tile lies in shared memory: bits 0 to 13 its address, 16 to 29 the distance of 64-line blocks (of a tile along
// outer), 32 to 45 the distance of groups of eight rows, each in units of 16 bytes; bits 62, 63: the 128-byte swizzle.
FM_DEVICE uint64_t tile_descriptor(uint32_t address, uint32_t block_bytes, uint32_t group_bytes) {
  const auto field = [](uint32_t bytes) { return static_cast<uint64_t>((bytes & 0x3ffffu) >> 4); };
  return field(address) | field(block_bytes) << 16 | field(group_bytes) << 32 | uint64_t{1} << 62;
}

#ifdef FLASH_MOE_SHIM

namespace shim {

// What a thread has begun and not waited for, by groups; the last one is still open.
using Products = std::deque<std::vector<std::function<void()>>>;

inline Products& pending_products() {
  static std::mutex mutex;
  static std::unordered_map<const Place*, Products> threads;
  const std::lock_guard<std::mutex> lock(mutex);
  Products& groups = threads[place];
  if (groups.empty()) groups.emplace_back();
  return groups;
}

// A block's dynamic memory begins here: on 128 bytes, and on no more.
constexpr uint32_t first_shared_address = 384;

// Element (line, k) of the tile that a descriptor describes. Without a base offset the swizzle counts from multiples of
// 1024 bytes of the address, so that a tile must begin within the first of eight rows.
template <typename T>
inline float tile_element(const unsigned char* memory, uint64_t descriptor, bool along_outer, int line, int k) {
  const auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; };
  if (descriptor >> 46 != uint64_t{1} << 16 || field(0) % 1024 >= 128) std::abort();
  const uint32_t linear = along_outer
                              ? field(0) + line / 64 * field(16) + k / 8 * field(32) + k % 8 * 128 + line % 64 * 2
                              : field(0) + line / 8 * field(32) + line % 8 * 128 + k * 2;
  const uint32_t address = linear ^ (linear >> 3 & 0x70);
  T value;
  std::memcpy(&value, memory + address - first_shared_address, sizeof value);
  return to_float(value);
}

}  // namespace shim

inline uint32_t shared_address(const void* memory) {
  return shim::first_shared_address +
         static_cast<uint32_t>(static_cast<const unsigned char*>(memory) - shim::place->dynamic_shared);
}
inline void open_products() {}
inline void close_products() { shim::pending_products().emplace_back(); }
inline void publish_shared_memory() { shim::copies_of_thread().unpublished = false; }

// Runs what is older than the last PENDING groups: as late as a GPU may, when other data may lie in the tiles by mistake.
template <int PENDING>
inline void wait_products() {
  auto& groups = shim::pending_products();
  while (groups.size() > PENDING + 1) {
    for (const auto& product : groups.front()) product();
    groups.pop_front();
  }
}

template <typename T, bool OUTER_A, bool OUTER_B, int GROUPS>
inline void multiply_add_async(float (&d)[GROUPS][4], uint64_t a, uint64_t b) {
  if (shim::copies_of_thread().unpublished) std::abort();
  const unsigned char* const memory = shim::place->dynamic_shared;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4, lane = static_cast<int>(threadIdx.x) % 32;
  shim::pending_products().back().push_back([&d, a, b, memory, warp, lane] {
    float left[2][16];
    for (int half = 0; half < 2; half++) {
      for (int k = 0; k < 16; k++) {
        left[half][k] = shim::tile_element<T>(memory, a, OUTER_A, 16 * warp + lane / 4 + 8 * half, k);
      }
    }
    for (int j = 0; j < GROUPS; j++) {
      for (int q = 0; q < 2; q++) {
        const int column = 8 * j + lane % 4 * 2 + q;
        float right[16];
        for (int k = 0; k < 16; k++) right[k] = shim::tile_element<T>(memory, b, OUTER_B, column, k);
        for (int half = 0; half < 2; half++) {
          d[j][2 * half + q] = shim::add_products(d[j][2 * half + q], left[half], right);
        }
      }
    }
  });
}

#elif defined(FM_HAS_WGMMA)

FM_DEVICE uint32_t shared_address(const void* memory) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(memory));
}

// Before the first product that uses registers written since.
FM_DEVICE void open_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes a group of products.
FM_DEVICE void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Returns when all but the last PENDING groups are done: their tiles can be overwritten, their sums read.
template <int PENDING>
FM_DEVICE void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// What this thread stored to shared memory can be read by the tensor cores, after a barrier.
FM_DEVICE void publish_shared_memory() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Operands of the instruction: the sums of eight groups of columns from group j on, and what 32, 64 and 128 are called.
#define FM_SUMS_4(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define FM_SUMS_32(j) \
  FM_SUMS_4(j), FM_SUMS_4(j + 1), FM_SUMS_4(j + 2), FM_SUMS_4(j + 3), FM_SUMS_4(j + 4), FM_SUMS_4(j + 5), \
      FM_SUMS_4(j + 6), FM_SUMS_4(j + 7)
#define FM_NAMES_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FM_NAMES_64 FM_NAMES_32 \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FM_NAMES_128 FM_NAMES_64 \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// Of so many columns, with two descriptors and two transpositions after the sums.
#define FM_WGMMA(COLUMNS, TYPE, NAMES, REST, ...) \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" COLUMNS "k16.f32." TYPE "." TYPE " {" NAMES "}, " REST ";" \
               : __VA_ARGS__ \
               : "l"(a), "l"(b), "n"(TRANSPOSED_A), "n"(TRANSPOSED_B))
#define FM_WGMMA_OF_T(COLUMNS, NAMES, REST, ...) \
  if constexpr (std::is_same<T, bf16>::value) { \
    FM_WGMMA(COLUMNS, "bf16", NAMES, REST, __VA_ARGS__); \
  } else { \
    FM_WGMMA(COLUMNS, "f16", NAMES, REST, __VA_ARGS__); \
  }

// d += a b of 64 x 16 by 16 x (8 GROUPS), from the tiles at the descriptors; OUTER: the tile lies along outer.
template <typename T, bool OUTER_A, bool OUTER_B, int GROUPS>
FM_DEVICE void multiply_add_async(float (&d)[GROUPS][4], uint64_t a, uint64_t b) {
  constexpr int TRANSPOSED_A = OUTER_A, TRANSPOSED_B = OUTER_B;
  static_assert(GROUPS == 8 || GROUPS == 16 || GROUPS == 32);
  if constexpr (GROUPS == 8) {
    FM_WGMMA_OF_T("64", FM_NAMES_32, "%32, %33, 1, 1, 1, %34, %35", FM_SUMS_32(0))
  } else if constexpr (GROUPS == 16) {
    FM_WGMMA_OF_T("128", FM_NAMES_64, "%64, %65, 1, 1, 1, %66, %67", FM_SUMS_32(0), FM_SUMS_32(8))
  } else {
    FM_WGMMA_OF_T("256", FM_NAMES_128, "%128, %129, 1, 1, 1, %130, %131", FM_SUMS_32(0), FM_SUMS_32(8), FM_SUMS_32(16),
                  FM_SUMS_32(24))
  }
}

#undef FM_WGMMA_OF_T
#undef FM_WGMMA
#undef FM_NAMES_128
#undef FM_NAMES_64
#undef FM_NAMES_32
#undef FM_SUMS_32
#undef FM_SUMS_4

#endif

}  // namespace flash_moe
