// Failures on demand, for the tests of what a backend does about them.
#pragma once

#include "shim/runtime_api.h"

namespace flash_moe::shim {

enum class FaultPoint { allocation, pinned_allocation, launch, copy, device, count };

// The call at `point` after `successes` more of them fails with `error`, once. An error that loses a GPU (an illegal
// address, say) is not returned by that call: as on a GPU, every later one returns it, until `clear_faults`.
// From outside the process: FLASH_MOE_SHIM_FAULT=launch:3:700 (point, successes, number of the error).
void fail_later(FaultPoint point, int successes, cudaError_t error);
void clear_faults();

// Bytes of device memory that are allocated now.
size_t allocated_bytes();

}  // namespace flash_moe::shim
