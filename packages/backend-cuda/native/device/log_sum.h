// log-softmax of an axis: l - best - log sum exp(l - best).
#pragma once

#include <cmath>

#include "device/cuda.h"

namespace flash_moe {

// `best` is the largest logit, clamped to the finite numbers. 0 for -infinity; NaN and infinity pass through.
FM_DEVICE float softmax_term(float logit, float best) { return expf(__fsub_rn(logit, best)); }

// Of the sum of an axis' terms. Not finite where the axis has no log-softmax: one that holds NaN or infinity, or
// nothing but -infinity.
FM_DEVICE float log_of_sum(float sum) { return sum < INFINITY ? logf(sum) : NAN; }

}  // namespace flash_moe
