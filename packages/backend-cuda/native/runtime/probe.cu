#include "runtime/probe.h"

namespace flash_moe {

namespace {

__global__ void probe() {}

}  // namespace

cudaError_t probe_device_code(int& ptx) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(probe));
  if (error == cudaSuccess) ptx = attributes.ptxVersion;
  return error;
}

}  // namespace flash_moe
