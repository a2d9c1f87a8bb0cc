// Pieces of rows in registers: what the kernels of the experts read tables and states with.
#pragma once

#include "device/cuda.h"
#include "device/half.h"

namespace flash_moe {

// What one lane reads of a row at once: 16 bytes, or a single element where rows are not made of whole 16 bytes.
template <typename T>
constexpr int full_vector = 16 / static_cast<int>(sizeof(T));

template <typename T, int VECTOR>
struct RowPiece {
  static_assert(VECTOR == full_vector<T>);
  uint4 words;
};

template <typename T>
struct RowPiece<T, 1> {
  T element;
};

template <typename T, int VECTOR>
FM_DEVICE RowPiece<T, VECTOR> load_piece(const T* at) {
  if constexpr (VECTOR == 1) {
    return {*at};
  } else {
    return {__ldg(reinterpret_cast<const uint4*>(at))};
  }
}

template <typename T, int VECTOR>
FM_DEVICE RowPiece<T, VECTOR> zero_piece() {
  if constexpr (VECTOR == 1) {
    return {from_float<T>(0.0f)};
  } else {
    return {make_uint4(0, 0, 0, 0)};
  }
}

template <typename T, int VECTOR>
FM_DEVICE void unpack_piece(const RowPiece<T, VECTOR>& piece, float (&values)[VECTOR]) {
  if constexpr (VECTOR == 1) {
    values[0] = to_float(piece.element);
  } else {
    const uint32_t words[4] = {piece.words.x, piece.words.y, piece.words.z, piece.words.w};
#pragma unroll
    for (int q = 0; q < 4; q++) {
      if constexpr (sizeof(T) == 4) {
        values[q] = __uint_as_float(words[q]);
      } else {
        unpack<T>(words[q], values[2 * q], values[2 * q + 1]);
      }
    }
  }
}

// sum + factors . piece
template <typename T, int VECTOR>
FM_DEVICE float dot_piece(const RowPiece<T, VECTOR>& piece, const float (&factors)[VECTOR], float sum) {
  float values[VECTOR];
  unpack_piece(piece, values);
#pragma unroll
  for (int q = 0; q < VECTOR; q++) sum = __fmaf_rn(values[q], factors[q], sum);
  return sum;
}

// sums += factor * piece
template <typename T, int VECTOR>
FM_DEVICE void add_piece(const RowPiece<T, VECTOR>& piece, float factor, float (&sums)[VECTOR]) {
  float values[VECTOR];
  unpack_piece(piece, values);
#pragma unroll
  for (int q = 0; q < VECTOR; q++) sums[q] = __fmaf_rn(factor, values[q], sums[q]);
}

// An operand whose dtype is f32 or the storage dtype T, decided by the call and not by the compiler: it is touched
// once per output, so a branch costs nothing and halves the number of kernels.
template <typename T>
struct FloatOr {
  void* data;
  bool is_f32;

  FM_DEVICE float load(int64_t n) const {
    return is_f32 ? static_cast<const float*>(data)[n] : to_float(static_cast<const T*>(data)[n]);
  }
  FM_DEVICE void store(int64_t n, float value) const {
    if (is_f32) {
      static_cast<float*>(data)[n] = value;
    } else {
      static_cast<T*>(data)[n] = from_float<T>(value);
    }
  }

  // Four from n on, which begin on a multiple of four elements.
  FM_DEVICE void load_four(int64_t n, float (&values)[4]) const {
    if (is_f32) return load_vector<4>(static_cast<const float*>(data) + n, values);
    load_vector<4>(static_cast<const T*>(data) + n, values);
  }
  FM_DEVICE void store_four(int64_t n, const float (&values)[4]) const {
    if (is_f32) return store_vector<4>(static_cast<float*>(data) + n, values);
    store_vector<4>(static_cast<T*>(data) + n, values);
  }
};

}  // namespace flash_moe
