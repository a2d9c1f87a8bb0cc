#include "ops/linear.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "device/tile_product_wgmma.h"
#include "kernels/linear_combine.cuh"
#include "kernels/linear_mma.cuh"
#include "kernels/linear_rows.cuh"
#include "kernels/linear_split.cuh"
#include "kernels/linear_tiled.cuh"
#include "ops/ops.h"

namespace flash_moe {

namespace {

// Up to so many rows, a product by a transposed matrix reads the matrix row by row instead of in tiles.
constexpr int64_t few_rows = 16;
// A piece of the inner sum is worth its own tile from here on.
constexpr int64_t least_piece = 512;
constexpr int64_t most_pieces = 16;

Along along(bool contiguous_is_inner) { return contiguous_is_inner ? Along::inner : Along::outer; }

TileOutput output_of(const MatrixProduct& p) {
  TileOutput output{};
  output.data = p.output.data;
  output.addend = p.addend ? p.addend.data : nullptr;
  output.addend_dtype = p.addend.dtype;
  if (p.output_norm) {
    output.mean = p.output_norm.mean.as<float>();
    output.variance = p.output_norm.variance.as<float>();
    output.epsilon = static_cast<float>(p.output_norm.epsilon);
  }
  output.rows = p.rows;
  output.columns = p.columns;
  output.stride = p.output_stride;
  output.dtype = p.output.dtype;
  output.accumulate = p.accumulate;
  output.aligned = is_aligned(p.output.data, p.output.dtype, p.output_stride, 4) &&
                   (!p.addend || is_aligned(p.addend.data, p.addend.dtype, p.output_stride, 4));
  output.partial_aligned = p.columns % 4 == 0;
  return output;
}

FloatMatrix float_matrix(const Operand& operand, int64_t rows, int64_t width, int elements) {
  FloatMatrix matrix{};
  matrix.data = operand.data;
  matrix.rows = rows;
  matrix.width = width;
  matrix.stride = operand.stride;
  matrix.dtype = operand.dtype;
  matrix.aligned = is_aligned(operand.data, operand.dtype, operand.stride, elements);
  return matrix;
}

FloatMatrix input_of(const MatrixProduct& p, int elements) {
  FloatMatrix a = float_matrix(p.a, p.transpose_a ? p.inner : p.rows, p.transpose_a ? p.rows : p.inner, elements);
  if (p.input_norm) {
    a.mean = p.input_norm.mean.as<float>();
    a.variance = p.input_norm.variance.as<float>();
    a.epsilon = static_cast<float>(p.input_norm.epsilon);
  }
  return a;
}

// How many pieces the inner sum is cut into when there are so many tiles: enough to fill the multiprocessors.
int64_t piece_count(const Context& context, int64_t tiles, int64_t inner) {
  const double tuned = context.limits().tuning.pieces;
  if (tuned > 0) return std::max<int64_t>(1, std::min({static_cast<int64_t>(tuned), inner / 64, most_pieces}));
  const int64_t wanted = context.limits().multiprocessors / tiles;
  return std::max<int64_t>(1, std::min({wanted, inner / least_piece, most_pieces}));
}

// Runs `tiles(output, pieces, piece)`, and combines the pieces where there are several.
template <typename Tiles>
void in_pieces(Context& context, const MatrixProduct& p, int64_t tile_count, const Tiles& tiles) {
  TileOutput output = output_of(p);
  const int64_t wanted = piece_count(context, tile_count, p.inner);
  // Whole steps, so that pieces begin aligned.
  const int64_t piece = round_up(ceil_div(p.inner, wanted), 64);
  const int64_t pieces = p.inner == 0 ? 1 : ceil_div(p.inner, piece);
  if (pieces == 1) {
    tiles(output, pieces, piece);
    return;
  }
  Scratch partial(context, static_cast<size_t>(pieces * p.rows * p.columns) * sizeof(float), "pieces of a product");
  output.partial = partial.as<float>();
  tiles(output, pieces, piece);
  output.partial = nullptr;
  launch(context, "linear_combine", linear_combine, ceil_div(p.rows * ceil_div(p.columns, 4), 256), 256, 0,
         static_cast<const float*>(partial.as<float>()), static_cast<int>(pieces), output);
}

template <typename T, int ROWS>
void launch_rows(Context& context, const LinearRows& parameters) {
  const TileOutput& output = parameters.output;
  const int64_t blocks =
      ceil_div(ceil_div(output.columns, 2), 4 / parameters.warps) * ceil_div(output.rows, ROWS);
  launch(context, "linear_rows", linear_rows<T, ROWS>, blocks, 128, 0, parameters);
}

template <typename T>
void by_rows(Context& context, const MatrixProduct& p) {
  LinearRows parameters{};
  parameters.a = input_of(p, 8);
  parameters.a.aligned = parameters.a.aligned && is_aligned(p.b.data, p.b.dtype, p.b.stride, 8);
  parameters.b = p.b.data;
  parameters.output = output_of(p);
  // Pairs of columns that would not give each multiprocessor eight warps are worked on by four.
  const int64_t pairs = ceil_div(p.columns, 2) * ceil_div(p.rows, 8);
  parameters.warps = pairs < 8 * context.limits().multiprocessors && p.inner > 256 ? 4 : 1;
  if (p.rows == 1) {
    launch_rows<T, 1>(context, parameters);
  } else if (p.rows <= 4) {
    launch_rows<T, 4>(context, parameters);
  } else {
    launch_rows<T, 8>(context, parameters);
  }
}

template <int SIZE>
void by_tiles(Context& context, const MatrixProduct& p) {
  LinearTiled parameters{};
  parameters.a = input_of(p, 4);
  parameters.b = float_matrix(p.b, p.transpose_b ? p.columns : p.inner, p.transpose_b ? p.inner : p.columns, 4);
  parameters.along_a = along(!p.transpose_a);
  parameters.along_b = along(p.transpose_b);
  parameters.inner = p.inner;
  const int64_t count = ceil_div(p.rows, SIZE) * ceil_div(p.columns, SIZE);
  in_pieces(context, p, count, [&](const TileOutput& output, int64_t pieces, int64_t piece) {
    parameters.output = output;
    parameters.piece = piece;
    launch(context, "linear_tiled", linear_tiled<SIZE>, count * pieces, TileProductF32<SIZE>::threads, 0, parameters);
  });
}

template <Along ALONG_A, Along ALONG_B>
void by_split(Context& context, const MatrixProduct& p) {
  using Product = TileProductSplit<ALONG_A, ALONG_B>;
  LinearSplit parameters{};
  parameters.a = input_of(p, 4);
  parameters.b = {static_cast<const bf16*>(p.b.data), p.transpose_b ? p.columns : p.inner, p.transpose_b ? p.inner : p.columns, p.b.stride,
                  is_aligned(p.b.data, p.b.dtype, p.b.stride, 8)};
  parameters.inner = p.inner;
  const int64_t count = ceil_div(p.rows, Product::rows) * ceil_div(p.columns, Product::columns);
  in_pieces(context, p, count, [&](const TileOutput& output, int64_t pieces, int64_t piece) {
    parameters.output = output;
    parameters.piece = piece;
    launch(context, "linear_split", linear_split<Product>, count * pieces, Product::threads, Product::shared_bytes,
           parameters);
  });
}

template <typename Product>
void in_tiles_of(Context& context, const MatrixProduct& p) {
  using T = typename Product::Element;
  LinearMma<T> parameters{};
  parameters.a = {static_cast<const T*>(p.a.data), p.transpose_a ? p.inner : p.rows,
                  p.transpose_a ? p.rows : p.inner, p.a.stride, is_aligned(p.a.data, p.a.dtype, p.a.stride, 8)};
  parameters.b.first = static_cast<const T*>(p.b.data);
  parameters.b.second = static_cast<const T*>(p.b.second);
  parameters.b.rows = p.transpose_b ? p.columns : p.inner;
  parameters.b.split = p.b.second == nullptr ? parameters.b.rows : p.b.split;
  parameters.b.width = p.transpose_b ? p.inner : p.columns;
  parameters.b.aligned = is_aligned(p.b.data, p.b.dtype, p.b.stride, 8) &&
                         is_aligned(p.b.second, p.b.dtype, p.b.stride, 8);
  parameters.inner = p.inner;
  const int64_t count = ceil_div(p.rows, Product::rows) * ceil_div(p.columns, Product::columns);
  in_pieces(context, p, count, [&](const TileOutput& output, int64_t pieces, int64_t piece) {
    parameters.output = output;
    parameters.piece = piece;
    launch(context, "linear_mma", linear_mma<Product>, count * pieces, Product::threads,
           Product::shared_bytes, parameters);
  });
}

template <typename T, Along ALONG_A, Along ALONG_B>
void by_tensor_cores(Context& context, const MatrixProduct& p) {
  switch (choose_tiles(context, p.rows, p.columns, true)) {
    case Tiles::wgmma_128_by_256:
      return in_tiles_of<TileProductWgmma<T, 256, ALONG_A, ALONG_B>>(context, p);
    case Tiles::wgmma_128_by_128:
      return in_tiles_of<TileProductWgmma<T, 128, ALONG_A, ALONG_B>>(context, p);
    case Tiles::wgmma_128_by_64:
      return in_tiles_of<TileProductWgmma<T, 64, ALONG_A, ALONG_B>>(context, p);
    case Tiles::of_128:
      return in_tiles_of<TileProduct<T, 128, 128, ALONG_A, ALONG_B>>(context, p);
    case Tiles::of_64:
      return in_tiles_of<TileProduct<T, 64, 64, ALONG_A, ALONG_B>>(context, p);
  }
}

template <typename T>
void by_tensor_cores(Context& context, const MatrixProduct& p) {
  if (p.transpose_a) {
    by_tensor_cores<T, Along::outer, Along::outer>(context, p);
  } else if (p.transpose_b) {
    by_tensor_cores<T, Along::inner, Along::inner>(context, p);
  } else {
    by_tensor_cores<T, Along::inner, Along::outer>(context, p);
  }
}

// Off until it has been measured: FLASH_MOE_WGMMA=1 turns it on where it is there.
bool wants_wgmma() {
  const char* const wanted = std::getenv("FLASH_MOE_WGMMA");
  return wanted != nullptr && std::strcmp(wanted, "1") == 0;
}

// The instruction is in machine code for 9.0 alone, not in what a driver makes of older PTX.
bool has_wgmma(const Context& context) {
  using Largest = TileProductWgmma<bf16, 256, Along::inner, Along::inner>;
  const DeviceLimits& limits = context.limits();
  return limits.compute_capability == 90 && limits.ptx == 90 && limits.shared_bytes_per_block >= Largest::shared_bytes;
}

// UNSUPPORTED where the tuned kernel is not one for such operands on this device.
Tiles tuned_tiles(const Context& context, bool half) {
  const std::string& wanted = context.limits().tuning.tiles;
  if (wanted == "of_64") return Tiles::of_64;
  if (wanted == "of_128") return Tiles::of_128;
  if (!half) return Tiles::of_128;
  if (!has_wgmma(context)) {
    throw Failure("UNSUPPORTED", "tuning asks for tiles by wgmma, which needs a Hopper and machine code for it");
  }
  if (wanted == "wgmma_128_by_64") return Tiles::wgmma_128_by_64;
  return wanted == "wgmma_128_by_128" ? Tiles::wgmma_128_by_128 : Tiles::wgmma_128_by_256;
}

}  // namespace

bool is_aligned(const void* data, DType dtype, int64_t stride, int elements) {
  const int64_t size = is_half(dtype) ? 2 : 4;
  const int64_t unit = std::min<int64_t>(16, elements * size);
  // A row that is no multiple of `elements` would be read beyond its end.
  return reinterpret_cast<uintptr_t>(data) % unit == 0 && stride % elements == 0;
}

Tiles choose_tiles(const Context& context, int64_t rows, int64_t columns, bool half) {
  if (!context.limits().tuning.tiles.empty()) return tuned_tiles(context, half);
  const int64_t multiprocessors = context.limits().multiprocessors;
  const auto rounds = [&](int64_t tile_rows, int64_t tile_columns) {
    return ceil_div(ceil_div(rows, tile_rows) * ceil_div(columns, tile_columns), multiprocessors);
  };
  // Of up to 64 rows, at least half of its tile would be for nothing.
  if (half && rows > 64 && wants_wgmma() && has_wgmma(context)) {
    // In a step, shared memory takes 1,024, 640 and 448 cycles for operands that come and are read. Of equals, the one
    // that reads the least from L2.
    const int64_t of_256 = 16 * rounds(128, 256), of_128 = 10 * rounds(128, 128), of_64 = 7 * rounds(128, 64);
    if (of_256 <= of_128 && of_256 <= of_64) return Tiles::wgmma_128_by_256;
    return of_128 <= of_64 ? Tiles::wgmma_128_by_128 : Tiles::wgmma_128_by_64;
  }
  // A tile of a quarter takes about a third of the time.
  return 3 * rounds(128, 128) <= rounds(64, 64) ? Tiles::of_128 : Tiles::of_64;
}

void multiply(Context& context, const MatrixProduct& p) {
  if (p.rows == 0 || p.columns == 0) return;
  const bool both_half = is_half(p.a.dtype) && is_half(p.b.dtype);
  const std::string& tuned = context.limits().tuning.products;
  const bool by_row = tuned.empty() ? p.rows <= few_rows : tuned == "rows";
  if (by_row && !p.transpose_a && p.transpose_b && p.b.stride == p.inner) {
    if (p.b.dtype == DType::f32) return by_rows<float>(context, p);
    if (p.b.dtype == DType::f16) return by_rows<f16>(context, p);
    return by_rows<bf16>(context, p);
  }
  // No op needs both transposed.
  if (both_half && !p.input_norm && !(p.transpose_a && p.transpose_b)) {
    if (p.a.dtype == DType::f16) return by_tensor_cores<f16>(context, p);
    return by_tensor_cores<bf16>(context, p);
  }
  // A is f32 here, or 16-bit to be normalised. Narrow outputs would leave most of a tile's products idle.
  if (p.b.dtype == DType::bf16 && p.columns >= 16 && !(p.transpose_a && p.transpose_b)) {
    if (p.transpose_a) return by_split<Along::outer, Along::outer>(context, p);
    if (p.transpose_b) return by_split<Along::inner, Along::inner>(context, p);
    return by_split<Along::inner, Along::outer>(context, p);
  }
  if (choose_tiles(context, p.rows, p.columns, false) == Tiles::of_128) return by_tiles<128>(context, p);
  by_tiles<64>(context, p);
}

void linear(Context& context, const LinearCall& call) {
  MatrixProduct product;
  product.rows = call.rows;
  product.inner = call.inner;
  product.columns = call.columns;
  product.a.data = call.a.data;
  product.a.dtype = call.a.dtype;
  product.a.stride = call.transpose_a ? call.rows : call.inner;
  product.b.data = call.b.data;
  product.b.dtype = call.b.dtype;
  product.b.stride = call.transpose_b ? call.inner : call.columns;
  product.transpose_a = call.transpose_a;
  product.transpose_b = call.transpose_b;
  product.output = call.output;
  product.output_stride = call.columns;
  product.accumulate = call.accumulate;
  product.input_norm = call.input_norm;
  product.output_norm = call.output_norm;
  multiply(context, product);
}

}  // namespace flash_moe
