// What kernels take on the device, by an event before and after each.
#pragma once

#include <vector>

#include "device/cuda.h"
#include "runtime/cuda_error.h"
#include "runtime/device.h"

namespace flash_moe {

class KernelTimer {
 public:
  KernelTimer() = default;
  ~KernelTimer() {
    for (const Span& span : spans_) {
      cudaEventDestroy(span.start);
      if (span.end) cudaEventDestroy(span.end);
    }
    cudaGetLastError();
  }
  KernelTimer(const KernelTimer&) = delete;
  KernelTimer& operator=(const KernelTimer&) = delete;

  void begin(const char* op, const char* kernel, cudaStream_t stream) {
    spans_.push_back({op, kernel, record(stream), nullptr});
  }
  void end(cudaStream_t stream) { spans_.back().end = record(stream); }

  // When all of it has run.
  std::vector<KernelTime> times() const {
    std::vector<KernelTime> all;
    for (const Span& span : spans_) {
      float milliseconds = 0;
      // A launch that failed has no end.
      if (!span.end || cudaEventElapsedTime(&milliseconds, span.start, span.end) != cudaSuccess) continue;
      all.push_back({span.op, span.kernel, milliseconds * 1e6});
    }
    return all;
  }

 private:
  struct Span {
    const char* op;
    const char* kernel;
    cudaEvent_t start, end;
  };

  static cudaEvent_t record(cudaStream_t stream) {
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDefault), "cannot make an event");
    const cudaError_t error = cudaEventRecord(event, stream);
    if (error == cudaSuccess) return event;
    cudaEventDestroy(event);
    fail(error, "cannot record an event");
  }

  std::vector<Span> spans_;
};

}  // namespace flash_moe
