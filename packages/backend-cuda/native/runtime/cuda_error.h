// CUDA's errors as the codes of FlashMoeError.
#pragma once

#include <string>

#include "device/cuda.h"
#include "runtime/failure.h"

namespace flash_moe {

// DEVICE_LOST for an error that the device does not recover from, OUT_OF_MEMORY, UNAVAILABLE for a device that cannot
// be used at all, otherwise BACKEND_FAILED.
const char* error_code(cudaError_t error);

// "cudaErrorIllegalAddress (700): an illegal memory access was encountered"
std::string describe(cudaError_t error);

// Throws a Failure that says what was being done. Clears the thread's last error, so that the next call is not blamed.
[[noreturn]] void fail(cudaError_t error, const std::string& doing);

inline void check(cudaError_t error, const char* doing) {
  if (error != cudaSuccess) fail(error, doing);
}

}  // namespace flash_moe
