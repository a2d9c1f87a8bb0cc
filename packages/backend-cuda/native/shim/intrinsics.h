// CUDA's device functions, those that the kernels use.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "shim/grid.h"

namespace flash_moe::shim {

template <typename To, typename From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <typename T>
struct Exchange {
  T value;
  // The lane whose value this one takes.
  int source;
  T result;
};

template <typename T>
void exchange(void** records, unsigned mask) {
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    auto* mine = static_cast<Exchange<T>*>(records[lane]);
    auto* other = static_cast<Exchange<T>*>(records[mine->source]);
    // A value of a lane that does not take part is undefined on a GPU. Here it is a pattern that shows.
    if (other) {
      mine->result = other->value;
    } else {
      std::memset(&mine->result, 0xff, sizeof(T));
    }
  }
}

template <typename T>
inline T shuffle(unsigned mask, T value, int source, const char* file, int line) {
  Exchange<T> record{value, source, value};
  warp_converge(mask, &record, exchange<T>, file, line);
  return record.result;
}

template <typename T, typename Operation>
void reduce(void** records, unsigned mask) {
  bool first = true;
  T total{};
  for (int lane = 0; lane < 32; lane++) {
    if (!records[lane] || !(mask >> lane & 1)) continue;
    const T value = *static_cast<T*>(records[lane]);
    total = first ? value : Operation::combine(total, value);
    first = false;
  }
  for (int lane = 0; lane < 32; lane++) {
    if (mask >> lane & 1) *static_cast<T*>(records[lane]) = total;
  }
}

struct Add { template <typename T> static T combine(T a, T b) { return a + b; } };
struct Least { template <typename T> static T combine(T a, T b) { return b < a ? b : a; } };
struct Greatest { template <typename T> static T combine(T a, T b) { return a < b ? b : a; } };
struct And { template <typename T> static T combine(T a, T b) { return a & b; } };
struct Or { template <typename T> static T combine(T a, T b) { return a | b; } };
struct Xor { template <typename T> static T combine(T a, T b) { return a ^ b; } };

template <typename Operation, typename T>
inline T warp_reduce(unsigned mask, T value, const char* file, int line) {
  warp_converge(mask, &value, reduce<T, Operation>, file, line);
  return value;
}

inline void nothing(void**, unsigned) {}

inline void match(void** records, unsigned mask) {
  uint64_t values[32];
  for (int lane = 0; lane < 32; lane++) {
    if (mask >> lane & 1) values[lane] = *static_cast<uint64_t*>(records[lane]);
  }
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    uint64_t same = 0;
    for (int other = 0; other < 32; other++) {
      if ((mask >> other & 1) && values[other] == values[lane]) same |= uint64_t{1} << other;
    }
    *static_cast<uint64_t*>(records[lane]) = same;
  }
}

}  // namespace flash_moe::shim

// The place of the call, so that threads that meet at different barriers are told apart.
#define FM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(FM_HERE) { flash_moe::shim::block_barrier(file, line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, FM_HERE) {
  flash_moe::shim::warp_converge(mask, nullptr, flash_moe::shim::nothing, file, line);
}

template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, FM_HERE) {
  const int lane = flash_moe::shim::lane_index();
  const int start = lane & ~(width - 1);
  return flash_moe::shim::shuffle(mask, value, start + (source & (width - 1)), file, line);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, FM_HERE) {
  const int lane = flash_moe::shim::lane_index();
  const int start = lane & ~(width - 1);
  const int source = lane - static_cast<int>(delta);
  return flash_moe::shim::shuffle(mask, value, source < start ? lane : source, file, line);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, FM_HERE) {
  const int lane = flash_moe::shim::lane_index();
  const int end = (lane & ~(width - 1)) + width;
  const int source = lane + static_cast<int>(delta);
  return flash_moe::shim::shuffle(mask, value, source >= end ? lane : source, file, line);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, FM_HERE) {
  const int lane = flash_moe::shim::lane_index();
  const int end = (lane & ~(width - 1)) + width;
  const int source = lane ^ bits;
  return flash_moe::shim::shuffle(mask, value, source >= end ? lane : source, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, FM_HERE) {
  const unsigned bit = predicate ? 1u << flash_moe::shim::lane_index() : 0;
  return flash_moe::shim::warp_reduce<flash_moe::shim::Or>(mask, bit, file, line);
}
inline int __any_sync(unsigned mask, int predicate, FM_HERE) {
  return flash_moe::shim::warp_reduce<flash_moe::shim::Or>(mask, predicate ? 1 : 0, file, line);
}
inline int __all_sync(unsigned mask, int predicate, FM_HERE) {
  return flash_moe::shim::warp_reduce<flash_moe::shim::And>(mask, predicate ? 1 : 0, file, line);
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, FM_HERE) {
  return flash_moe::shim::warp_reduce<flash_moe::shim::Add>(mask, value, file, line);
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, FM_HERE) {
  return flash_moe::shim::warp_reduce<flash_moe::shim::Least>(mask, value, file, line);
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, FM_HERE) {
  return flash_moe::shim::warp_reduce<flash_moe::shim::Greatest>(mask, value, file, line);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, FM_HERE) {
  return flash_moe::shim::warp_reduce<flash_moe::shim::And>(mask, value, file, line);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, FM_HERE) {
  return flash_moe::shim::warp_reduce<flash_moe::shim::Or>(mask, value, file, line);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, FM_HERE) {
  return flash_moe::shim::warp_reduce<flash_moe::shim::Xor>(mask, value, file, line);
}
template <typename T>
inline unsigned __match_any_sync(unsigned mask, T value, FM_HERE) {
  uint64_t record = 0;
  std::memcpy(&record, &value, sizeof value);
  flash_moe::shim::warp_converge(mask, &record, flash_moe::shim::match, file, line);
  return static_cast<unsigned>(record);
}

#undef FM_HERE

// Blocks may run in several OS threads.
template <typename T>
inline T atomicAdd(T* address, T value) {
  static_assert(sizeof(T) >= 4 && static_cast<T>(0.5) == 0, "sums of floats by atomics have no fixed order");
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <typename T>
inline T atomicSub(T* address, T value) {
  return __atomic_fetch_sub(address, value, __ATOMIC_RELAXED);
}
template <typename T>
inline T atomicOr(T* address, T value) {
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}
template <typename T>
inline T atomicAnd(T* address, T value) {
  return __atomic_fetch_and(address, value, __ATOMIC_RELAXED);
}
template <typename T>
inline T atomicExch(T* address, T value) {
  return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
template <typename T>
inline T atomicCAS(T* address, T expected, T value) {
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <typename T>
inline T atomicMax(T* address, T value) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
template <typename T>
inline T atomicMin(T* address, T value) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < old && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

template <typename T>
inline T __ldg(const T* address) { return *address; }
template <typename T>
inline T __ldcs(const T* address) { return *address; }
template <typename T>
inline T __ldcg(const T* address) { return *address; }
template <typename T>
inline void __stcs(T* address, T value) { *address = value; }
template <typename T>
inline void __stcg(T* address, T value) { *address = value; }

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
inline int __clzll(long long value) { return value ? __builtin_clzll(static_cast<unsigned long long>(value)) : 64; }
inline unsigned __brev(unsigned value) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; bit++) reversed |= (value >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t{a} * b) >> 32); }

inline unsigned __float_as_uint(float value) { return flash_moe::shim::bit_cast<unsigned>(value); }
inline int __float_as_int(float value) { return flash_moe::shim::bit_cast<int>(value); }
inline float __uint_as_float(unsigned bits) { return flash_moe::shim::bit_cast<float>(bits); }
inline float __int_as_float(int bits) { return flash_moe::shim::bit_cast<float>(bits); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float rsqrtf(float value) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(value))); }

using std::isfinite;
using std::isinf;
using std::isnan;

#define FM_SHIM_EXTREMES(T)                       \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
FM_SHIM_EXTREMES(int)
FM_SHIM_EXTREMES(unsigned)
FM_SHIM_EXTREMES(long)
FM_SHIM_EXTREMES(unsigned long)
FM_SHIM_EXTREMES(long long)
FM_SHIM_EXTREMES(unsigned long long)
#undef FM_SHIM_EXTREMES
// Like CUDA's: the number where the other is NaN.
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

[[noreturn]] inline void __trap() {
  std::fprintf(stderr, "shim: __trap\n");
  std::abort();
}
