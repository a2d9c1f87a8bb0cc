// log-softmax of an axis: l - best - log sum exp(l - best).
#pragma once

#include <cmath>

#include "device/cuda.h"

namespace flash_moe {

// exp(x) for x <= 0, with a relative error of a few 2^-24 (1 + |x|), and 0 below -87: what a term of a sum of at least
// 1 needs. A third of the instructions of expf.
#ifdef FLASH_MOE_SHIM

inline float term_exp(float x) { return expf(x); }

#else

FM_DEVICE float term_exp(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.44269504f * x));
  return result;
}

#endif

// `best` is the largest logit, clamped to the finite numbers. 0 for -infinity; NaN and infinity pass through.
FM_DEVICE float softmax_term(float logit, float best) { return term_exp(__fsub_rn(logit, best)); }

// Of the sum of an axis' terms. Not finite where the axis has no log-softmax: one that holds NaN or infinity, or
// nothing but -infinity.
FM_DEVICE float log_of_sum(float sum) { return sum < INFINITY ? logf(sum) : NAN; }

}  // namespace flash_moe
