// What the dense ways of the experts, forward and backward, share: how the work is cut, what each token has in each tile
// of experts, and the sum of the shares.
#pragma once

#include "ops/calls.h"
#include "ops/expert_costs.h"
#include "runtime/context.h"

namespace flash_moe {

// How the work is cut.
struct DensePlan {
  // Of tokens, experts and columns: 64 where 128 would leave multiprocessors without work.
  int64_t tile;
  // Tokens that go through all chunks before the next ones do, and experts of a chunk: what is kept of a chunk stays in
  // the L2 cache between the products.
  int64_t tokens, chunk;
  // Into how many sums the experts of a chunk are shared out, and experts of each.
  int64_t shares, share_experts;
  // Tiles of experts.
  int64_t tiles;

  // Elements of a token in what is kept of a chunk in so many parts: [shares, parts, share_experts].
  int64_t stride(int64_t parts) const { return shares * parts * share_experts; }

  // `cell_bytes`: what is kept of a token and an expert of the chunk.
  DensePlan(const DeviceLimits& limits, const ExpertsShape& shape, int64_t cell_bytes);
};

// Whether the tiles of experts can be counted in shared memory, and there is enough of it for the products.
bool dense_fits(const DeviceLimits& limits, const ExpertsShape& shape);

// Whether the products take Hopper's instruction, as other products would.
bool dense_takes_wgmma(const Context& context, const ExpertsShape& shape, const DensePlan& plan);

// Each token's experts by tiles (expert_tile_list).
class DenseList {
 public:
  // Null weights: slots take their place in the list. `scaled`: gates are scaled for f16.
  DenseList(Context& context, const ExpertsShape& shape, const DensePlan& plan, const float* weights, bool scaled);

  const uint2* entries() const { return entries_.as<uint2>(); }
  const uint32_t* offsets() const { return offsets_.as<uint32_t>(); }
  const float* factors() const { return factors_.as<float>(); }

  static size_t scratch_bytes(const ExpertsShape& shape, const DensePlan& plan);
  static double seconds(const DeviceRates& rates, const ExpertSizes& sizes);

 private:
  Scratch entries_, offsets_, factors_;
};

struct DenseCombine {
  // Of `plan.shares` for each token.
  float* partials;
  Buffer table;
  // Null: of the forward, to be made where they are needed.
  const float* coefficients;
  // May be the output.
  Buffer addend, output;
};

// expert_dense_combine, for tokens [first, first + tokens).
template <typename T>
void dense_combine(Context& context, const ExpertsShape& shape, const DensePlan& plan, int64_t first, int64_t tokens,
                   const DenseCombine& combine);

}  // namespace flash_moe
