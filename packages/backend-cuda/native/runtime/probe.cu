#include "runtime/probe.h"

namespace flash_moe {

namespace {

__global__ void probe() {}

}  // namespace

cudaError_t probe_device_code() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(probe));
}

}  // namespace flash_moe
