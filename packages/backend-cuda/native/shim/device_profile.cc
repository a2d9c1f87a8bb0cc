#include "shim/device_profile.h"

#include <cstdio>
#include <cstdlib>
#include <string>

namespace flash_moe::shim {

namespace {

// Of a block at most, by the table of compute capabilities in NVIDIA's programming guide.
size_t shared_bytes_of(int sm) {
  switch (sm) {
    case 80:
    case 87:
      return 163 << 10;
    case 90:
    case 100:
    case 103:
    case 110:
      return 227 << 10;
    default:
      return 99 << 10;
  }
}

DeviceProfile from_environment() {
  DeviceProfile profile;
  const char* text = std::getenv("FLASH_MOE_SHIM_DEVICE");
  std::string rest = text ? text : "";
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    const std::string entry = rest.substr(0, comma);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    const auto equals = entry.find('=');
    const std::string name = entry.substr(0, equals);
    const long long value = equals == std::string::npos ? 0 : std::atoll(entry.c_str() + equals + 1);
    if (name == "count") {
      profile.count = static_cast<int>(value);
    } else if (name == "driver") {
      profile.driver = static_cast<int>(value);
    } else if (name == "sm") {
      profile.sm = static_cast<int>(value);
    } else if (name == "ptx") {
      profile.ptx = static_cast<int>(value);
    } else if (name == "multiprocessors") {
      profile.multiprocessors = static_cast<int>(value);
    } else if (name == "l2") {
      profile.l2 = static_cast<size_t>(value);
    } else if (name == "shared") {
      profile.shared = static_cast<size_t>(value);
    } else if (name == "memory") {
      profile.memory = static_cast<size_t>(value);
    } else {
      std::fprintf(stderr, "shim: FLASH_MOE_SHIM_DEVICE has no \"%s\"\n", name.c_str());
      std::abort();
    }
  }
  if (profile.ptx == 0) profile.ptx = profile.sm;
  if (profile.shared == 0) profile.shared = shared_bytes_of(profile.sm);
  return profile;
}

}  // namespace

const DeviceProfile& device_profile() {
  static const DeviceProfile profile = from_environment();
  return profile;
}

}  // namespace flash_moe::shim
