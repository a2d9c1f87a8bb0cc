// Whether this binary's device code can be loaded on the current device, and which.
#pragma once

#include "device/cuda.h"

namespace flash_moe {

// Starts the device's context, if nobody did before. `ptx`: the version of PTX that the code was made from, 90 for 9.0.
cudaError_t probe_device_code(int& ptx);

}  // namespace flash_moe
