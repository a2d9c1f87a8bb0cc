// Whether this binary's device code can be loaded on the current device.
#pragma once

#include "device/cuda.h"

namespace flash_moe {

// Starts the device's context, if nobody did before.
cudaError_t probe_device_code();

}  // namespace flash_moe
