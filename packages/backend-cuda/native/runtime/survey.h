// Which devices there are, and why those that cannot be used cannot.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace flash_moe {

struct DeviceInfo {
  int index = -1;
  std::string name;
  // 10 * major + minor.
  int compute_capability = 0;
  int multiprocessors = 0;
  size_t memory_bytes = 0, l2_bytes = 0, shared_bytes_per_block = 0;
  // "GPU-..." as nvidia-smi prints it, and "0000:01:00.0".
  std::string uuid, pci;
  // One sentence; empty where the device can be opened.
  std::string refusal;
};

struct Survey {
  // One sentence why nothing can be opened: no driver, a driver too old (with both versions), no device, or the
  // refusal of each device. Empty where a device can be opened.
  std::string refusal;
  // As CUDA counts: 12040 is 12.4. The driver's is 0 where there is none.
  int driver_version = 0, runtime_version = 0;
  std::vector<DeviceInfo> devices;
};

// Never throws and prints nothing. Opens the driver, which takes a while the first time.
Survey survey();

}  // namespace flash_moe
