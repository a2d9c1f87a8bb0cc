// What the made-up device of the shim looks like.
#pragma once

#include <cstddef>

namespace flash_moe::shim {

// From FLASH_MOE_SHIM_DEVICE, as in "sm=80,multiprocessors=108,memory=1073741824"; each name below. The default is a
// small Hopper: few multiprocessors and a small L2 make small test cases take the paths of large ones.
struct DeviceProfile {
  // 0: a machine with a driver and no device. -1: no driver.
  int count = 1;
  int driver = 13000;
  int sm = 90;
  // That the kernels come from; 0: as new as the device.
  int ptx = 0;
  int multiprocessors = 4;
  size_t l2 = 256 << 10;
  // 0: what a block can have at most on a GPU of this `sm`.
  size_t shared = 0;
  size_t memory = size_t{4} << 30;
};

const DeviceProfile& device_profile();

}  // namespace flash_moe::shim
