// Matrix products, for `linear` itself and for the ops that are made of them.
#pragma once

#include "ops/calls.h"
#include "runtime/context.h"

namespace flash_moe {

// An operand as it lies in memory: rows `stride` elements apart. With `second`, rows from `split` on lie there instead,
// both parts without gaps.
struct Operand {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;
  const void* second = nullptr;
  int64_t split = 0;
};

// output[rows, columns] (+)= norm(op(a)) op(b), then norm, then + addend; rounded once. Rows of the output and of the
// addend are `output_stride` apart.
struct MatrixProduct {
  int64_t rows = 0, inner = 0, columns = 0;
  Operand a, b;
  bool transpose_a = false, transpose_b = false;
  Buffer output, addend;
  int64_t output_stride = 0;
  bool accumulate = false;
  NormStatistics input_norm, output_norm;
};

void multiply(Context& context, const MatrixProduct& product);

inline bool is_half(DType dtype) { return dtype == DType::f16 || dtype == DType::bf16; }

// Whether rows so far apart all begin on `elements` elements.
bool is_aligned(const void* data, DType dtype, int64_t stride, int elements);

// The kernel that makes tiles on the tensor cores or in f32 arithmetic.
enum class Tiles { of_64, of_128, wgmma_128_by_64, wgmma_128_by_128, wgmma_128_by_256 };

// For a product of so many rows and columns: large tiles are faster each, but few of them leave multiprocessors idle.
// `half`: both operands are 16-bit.
Tiles choose_tiles(const Context& context, int64_t rows, int64_t columns, bool half);

}  // namespace flash_moe
