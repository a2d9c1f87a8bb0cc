#include "runtime/survey.h"

#include <cstdio>

#include "device/cuda.h"
#include "runtime/architectures.h"
#include "runtime/cuda_error.h"

namespace flash_moe {

namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string capability_text(int capability) {
  return std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

// The oldest Linux driver of the runtime's CUDA version.
const char* oldest_driver() { return CUDART_VERSION >= 13000 ? "580" : "525"; }

std::string uuid_text(const char* bytes) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; i++) {
    char pair[4];
    std::snprintf(pair, sizeof pair, "%02x", static_cast<unsigned char>(bytes[i]));
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += pair;
  }
  return text;
}

std::string refusal_of(const DeviceInfo& device, int driver_version) {
  switch (code_for(device.compute_capability, driver_version)) {
    case DeviceCode::present:
      return "";
    case DeviceCode::too_old:
      return device.name + " has compute capability " + capability_text(device.compute_capability) +
             ", older than 8.0 (Ampere)";
    case DeviceCode::driver_cannot_translate:
      return "this binary has no machine code for " + device.name + " (compute capability " +
             capability_text(device.compute_capability) + "), and its driver (CUDA " + version_text(driver_version) +
             ") cannot translate the PTX of CUDA " + version_text(CUDART_VERSION) + ": update the driver to " +
             oldest_driver() + " or newer";
    case DeviceCode::absent:
      return "this binary has no code for " + device.name + " (compute capability " +
             capability_text(device.compute_capability) + "): it was built for " + architectures_text();
  }
  return "";
}

std::string refusal_of(cudaError_t error, const Survey& found) {
  switch (error) {
    case cudaErrorInsufficientDriver:
      if (found.driver_version == 0) return "no NVIDIA driver was found (libcuda.so.1 cannot be loaded)";
      return "the NVIDIA driver is too old: it supports CUDA " + version_text(found.driver_version) +
             ", this binary needs " + version_text(found.runtime_version) + ", so driver " + oldest_driver() +
             " or newer";
    case cudaErrorNoDevice:
      return "there is an NVIDIA driver, and no device that it lets this process use (look at CUDA_VISIBLE_DEVICES)";
    default:
      return "the NVIDIA driver cannot be used: " + describe(error);
  }
}

}  // namespace

Survey survey() {
  Survey found;
  cudaRuntimeGetVersion(&found.runtime_version);
  if (cudaDriverGetVersion(&found.driver_version) != cudaSuccess) found.driver_version = 0;
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    cudaGetLastError();
    found.refusal = refusal_of(error == cudaSuccess ? cudaErrorNoDevice : error, found);
    return found;
  }
  bool any = false;
  for (int index = 0; index < count; index++) {
    DeviceInfo device;
    device.index = index;
    cudaDeviceProp properties;
    const cudaError_t failed = cudaGetDeviceProperties(&properties, index);
    if (failed != cudaSuccess) {
      cudaGetLastError();
      device.refusal = "device " + std::to_string(index) + " cannot be described: " + describe(failed);
      found.devices.push_back(device);
      continue;
    }
    device.name = properties.name;
    device.compute_capability = properties.major * 10 + properties.minor;
    device.multiprocessors = properties.multiProcessorCount;
    device.memory_bytes = properties.totalGlobalMem;
    device.l2_bytes = static_cast<size_t>(properties.l2CacheSize);
    device.shared_bytes_per_block = properties.sharedMemPerBlockOptin;
    device.uuid = uuid_text(properties.uuid.bytes);
    char pci[32];
    std::snprintf(pci, sizeof pci, "%04x:%02x:%02x.0", properties.pciDomainID, properties.pciBusID,
                  properties.pciDeviceID);
    device.pci = pci;
    device.refusal = refusal_of(device, found.driver_version);
    any |= device.refusal.empty();
    found.devices.push_back(device);
  }
  if (any) return found;
  for (const DeviceInfo& device : found.devices) {
    found.refusal += (found.refusal.empty() ? "" : "; ") + device.refusal;
  }
  return found;
}

}  // namespace flash_moe
