#include "runtime/architectures.h"

#include "device/cuda.h"

// Both come from the build script, as lists: machine code, and the PTX that the driver translates for others.
#ifndef FLASH_MOE_MACHINE_CODE
#define FLASH_MOE_MACHINE_CODE 80, 86, 89, 90, 100, 120
#endif
#ifndef FLASH_MOE_PTX
#define FLASH_MOE_PTX 80
#endif

namespace flash_moe {

namespace {

constexpr int machine_code[] = {FLASH_MOE_MACHINE_CODE};
constexpr int ptx[] = {FLASH_MOE_PTX};

}  // namespace

DeviceCode code_for(int compute_capability, int driver_version) {
  if (compute_capability < 80) return DeviceCode::too_old;
  // Machine code runs on its own major version, from its minor version on.
  for (const int built : machine_code) {
    if (built / 10 == compute_capability / 10 && built <= compute_capability) return DeviceCode::present;
  }
  for (const int built : ptx) {
    if (built > compute_capability) continue;
    return driver_version >= CUDART_VERSION ? DeviceCode::present : DeviceCode::driver_cannot_translate;
  }
  return DeviceCode::absent;
}

std::string architectures_text() {
  std::string text;
  for (const int built : machine_code) {
    text += (text.empty() ? "" : ", ") + std::to_string(built / 10) + "." + std::to_string(built % 10);
  }
  return text;
}

}  // namespace flash_moe
