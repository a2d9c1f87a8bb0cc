// The passes over a table that forward and backward of the experts share.
#pragma once

#include "ops/calls.h"
#include "ops/expert_costs.h"
#include "runtime/context.h"

namespace flash_moe {

// How the columns of a table are cut, so that a slice of it stays in the L2 cache.
struct ColumnSlices {
  // Launches of expert_dots.
  int dots;
  // Lanes to a row (16 bytes each) of either kernel: 8 or 16.
  int dots_lanes, sum_lanes;
};

ExpertSizes expert_sizes(const ExpertsShape& shape);
ColumnSlices choose_slices(const DeviceLimits& limits, const ExpertsShape& shape);
// Tells the context what each number of slices of expert_dots and each width of expert_rows_sum is expected to take.
void explain_slices(Context& context, const ExpertsShape& shape);
// As many slices as there can be, for tests.
ColumnSlices finest_slices(const ExpertsShape& shape);

// Whether rows can be read 16 bytes at a time.
bool whole_vectors(const ExpertsShape& shape, std::initializer_list<const void*> pointers);

// dots[t, j] = states[t] . table[ids[t, j]]; ids that are none are counted where `count_errors`.
void expert_dots_pass(Context& context, const ExpertsShape& shape, const ColumnSlices& slices, const Buffer& states,
                      const Buffer& table, float* dots, bool count_errors);

struct RowsSum {
  Buffer table;
  const float* dots;
  // Not null: dots go through the activation and are multiplied by these.
  const float* weights;
  // May be the output.
  Buffer addend;
  Buffer output;
};

// output[t] = round(addend[t] + sum_j c_j table[ids[t, j]]).
void expert_rows_sum_pass(Context& context, const ExpertsShape& shape, const ColumnSlices& slices,
                          const RowsSum& sum);

}  // namespace flash_moe
