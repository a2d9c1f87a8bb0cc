// What the kernels' counters of 32 bits cannot go over.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/failure.h"

namespace flash_moe {

// A loop's counter goes beyond its end by less than a step, and no kernel steps by more than 512.
constexpr int64_t most_counted = INT32_MAX - 511;

inline void check_counted(const char* name, int64_t value) {
  if (value <= most_counted) return;
  throw Failure("INVALID_ARGUMENT", std::string(name) + " is " + std::to_string(value) +
                                        "; kernels of the cuda backend go up to " + std::to_string(most_counted));
}

}  // namespace flash_moe
