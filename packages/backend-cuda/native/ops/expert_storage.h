// From the dtypes of a call to the types of a kernel.
#pragma once

#include <utility>

#include "kernels/expert_row.cuh"
#include "ops/calls.h"

namespace flash_moe {

// f(T{}) with T the storage type.
template <typename F>
void with_storage(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f16:
      return std::forward<F>(f)(f16{});
    case DType::bf16:
      return std::forward<F>(f)(bf16{});
    default:
      return std::forward<F>(f)(float{});
  }
}

// Null where the buffer is absent.
template <typename T>
FloatOr<T> float_or(const Buffer& buffer) {
  return {buffer.present ? buffer.data : nullptr, buffer.dtype == DType::f32};
}

}  // namespace flash_moe
