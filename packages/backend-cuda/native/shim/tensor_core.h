// The arithmetic of a tensor core, as inaccurate as NVIDIA's are known to be.
#pragma once

#include <cmath>
#include <cstdint>

#include "shim/intrinsics.h"

namespace flash_moe::shim {

// sum + left . right, of 16 exact products. A GPU does not round each addition: it cuts all terms off at the last place
// of the largest one's f32, and the sum likewise (M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh, Numerical behavior of
// NVIDIA tensor cores, PeerJ Computer Science 7:e330, 2021). Eight at a time and without the bits that newer
// generations keep beyond the last place: no chip since Ampere is worse.
inline float add_products(float sum, const float (&left)[16], const float (&right)[16]) {
  for (int start = 0; start < 16; start += 8) {
    double terms[9] = {sum}, largest = std::fabs(static_cast<double>(sum)), plain = sum;
    for (int k = 0; k < 8; k++) {
      const double product = static_cast<double>(left[start + k]) * right[start + k];
      terms[k + 1] = product;
      plain += product;
      largest = std::fmax(largest, std::fabs(product));
    }
    if (largest == 0 || !std::isfinite(plain)) {
      sum = static_cast<float>(plain);
      continue;
    }
    // The power of two below it.
    const double power = bit_cast<double>(bit_cast<uint64_t>(largest) & 0x7ff0000000000000u);
    const double place = power * 0x1p-23, scale = 0x1p23 / power;
    double total = 0;
    for (const double term : terms) total += static_cast<double>(static_cast<int64_t>(term * scale));
    total *= place;
    sum = static_cast<float>(total);
    if (std::isfinite(sum) && std::fabs(static_cast<double>(sum)) > std::fabs(total)) sum = std::nextafterf(sum, 0.0f);
  }
  return sum;
}

}  // namespace flash_moe::shim
