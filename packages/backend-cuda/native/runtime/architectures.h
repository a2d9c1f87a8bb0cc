// What device code this binary was built with.
#pragma once

#include <string>

namespace flash_moe {

enum class DeviceCode {
  present,
  // Compute capability below 8.0.
  too_old,
  // Only PTX would do, and the driver is older than the compiler that made it.
  driver_cannot_translate,
  absent,
};

// For a device of this compute capability (90 is 9.0) under a driver of this version (12040 is CUDA 12.4).
DeviceCode code_for(int compute_capability, int driver_version);

// "8.0, 9.0 and newer devices by PTX"
std::string architectures_text();

}  // namespace flash_moe
