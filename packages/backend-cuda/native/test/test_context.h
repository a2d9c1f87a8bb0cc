// A Context for the drivers in this folder: scratch straight from the device, so that a sanitizer sees every overrun.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "device/half.h"
#include "ops/calls.h"
#include "runtime/context.h"

#ifdef FLASH_MOE_SHIM
#include "shim/device_profile.h"
#endif

namespace flash_moe::test {

class TestContext : public Context {
 public:
  TestContext() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cannot make a stream");
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0), "cannot describe the device");
    limits_ = {device.multiProcessorCount, static_cast<size_t>(device.l2CacheSize), device.sharedMemPerBlockOptin,
               device.major * 10 + device.minor};
    check(cudaMalloc(reinterpret_cast<void**>(&id_errors_), sizeof(uint32_t)), "cannot allocate");
    check(cudaMemset(id_errors_, 0, sizeof(uint32_t)), "cannot clear");
  }
  ~TestContext() override {
    if (scratch_bytes_ != 0) {
      std::fprintf(stderr, "%zu bytes of scratch were not given back\n", scratch_bytes_);
      std::abort();
    }
    cudaStreamSynchronize(stream_);
    cudaFree(id_errors_);
    cudaStreamDestroy(stream_);
  }

  cudaStream_t stream() const override { return stream_; }
  const DeviceLimits& limits() const override { return limits_; }
  uint32_t* id_errors() const override { return id_errors_; }

  // To take the strategies of another device.
  DeviceLimits& change_limits() { return limits_; }
  // The ids out of range since the last call.
  uint32_t take_id_errors() {
    synchronize();
    uint32_t count = 0;
    check(cudaMemcpy(&count, id_errors_, sizeof count, cudaMemcpyDeviceToHost), "cannot read");
    check(cudaMemset(id_errors_, 0, sizeof count), "cannot clear");
    return count;
  }
  void synchronize() { check(cudaStreamSynchronize(stream_), "a kernel failed"); }
  size_t peak_scratch_bytes() const { return peak_scratch_bytes_; }

 private:
  void* take_scratch(size_t bytes, const char* label) override {
    void* data = nullptr;
    const cudaError_t error = cudaMallocAsync(&data, bytes, stream_);
    if (error != cudaSuccess) fail(error, std::string("cannot allocate ") + label);
    scratch_bytes_ += bytes;
    if (scratch_bytes_ > peak_scratch_bytes_) peak_scratch_bytes_ = scratch_bytes_;
    return data;
  }
  void give_scratch(void* data, size_t bytes) override {
    scratch_bytes_ -= bytes;
    cudaFreeAsync(data, stream_);
  }

  cudaStream_t stream_ = nullptr;
  DeviceLimits limits_{};
  uint32_t* id_errors_ = nullptr;
  size_t scratch_bytes_ = 0, peak_scratch_bytes_ = 0;
};

inline size_t size_of(DType dtype) { return dtype == DType::f16 || dtype == DType::bf16 ? 2 : 4; }

#ifdef FLASH_MOE_SHIM

// The value of the dtype that is nearest to `value`, so that the expected values start from what the device has.
inline double rounded(double value, DType dtype) {
  const float single = static_cast<float>(value);
  if (dtype == DType::f16) return to_float(from_float<f16>(single));
  if (dtype == DType::bf16) return to_float(from_float<bf16>(single));
  return single;
}

// Of all tensors that there were: one number, which must not depend on the order in which threads and blocks ran.
// Printed when the program ends.
struct Digest {
  uint64_t sum = 0;
  ~Digest() { std::printf("digest %016llx\n", static_cast<unsigned long long>(sum)); }
};
inline Digest digest;

// Device memory that holds exactly its elements. Fresh memory of the shim is NaN.
class Tensor {
 public:
  Tensor(DType dtype, int64_t length) : dtype_(dtype), length_(length) {
    if (length > 0) check(cudaMalloc(&data_, length * size_of(dtype)), "cannot allocate");
  }
  Tensor(DType dtype, const std::vector<double>& values) : Tensor(dtype, static_cast<int64_t>(values.size())) {
    for (int64_t i = 0; i < length_; i++) set(i, values[i]);
  }
  ~Tensor() {
    uint64_t hash = 0xcbf29ce484222325u;
    const auto* bytes = static_cast<const unsigned char*>(data_);
    for (size_t i = 0; i < length_ * size_of(dtype_); i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    digest.sum = digest.sum * 31 + hash;
    cudaFree(data_);
  }
  Tensor(Tensor&& other) noexcept : dtype_(other.dtype_), length_(other.length_), data_(other.data_) {
    other.data_ = nullptr;
    other.length_ = 0;
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  operator Buffer() const {
    Buffer buffer;
    buffer.data = data_;
    buffer.dtype = dtype_;
    buffer.present = true;
    return buffer;
  }
  int64_t length() const { return length_; }
  DType dtype() const { return dtype_; }

  void set(int64_t index, double value) {
    switch (dtype_) {
      case DType::f32:
        static_cast<float*>(data_)[index] = static_cast<float>(value);
        break;
      case DType::f16:
        static_cast<f16*>(data_)[index] = from_float<f16>(static_cast<float>(value));
        break;
      case DType::bf16:
        static_cast<bf16*>(data_)[index] = from_float<bf16>(static_cast<float>(value));
        break;
      case DType::i32:
        static_cast<int32_t*>(data_)[index] = static_cast<int32_t>(value);
        break;
    }
  }
  double at(int64_t index) const {
    switch (dtype_) {
      case DType::f32:
        return static_cast<const float*>(data_)[index];
      case DType::f16:
        return to_float(static_cast<const f16*>(data_)[index]);
      case DType::bf16:
        return to_float(static_cast<const bf16*>(data_)[index]);
      case DType::i32:
        return static_cast<const int32_t*>(data_)[index];
    }
    std::abort();
  }
  std::vector<double> values() const {
    std::vector<double> all(static_cast<size_t>(length_));
    for (int64_t i = 0; i < length_; i++) all[i] = at(i);
    return all;
  }
  std::vector<unsigned char> bytes() const {
    const auto* start = static_cast<const unsigned char*>(data_);
    return {start, start + length_ * size_of(dtype_)};
  }

 private:
  DType dtype_;
  int64_t length_;
  void* data_ = nullptr;
};

// `count` values of a normal distribution, rounded to the dtype.
inline std::vector<double> normal(std::mt19937_64& random, DType dtype, int64_t count, double scale = 1) {
  std::normal_distribution<double> distribution(0, scale);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) value = rounded(distribution(random), dtype);
  return values;
}

#endif

// Whether a case is to run: all, but of those that follow one another every `share`-th under ThreadSanitizer, which takes
// a hundred times as long.
inline bool taken([[maybe_unused]] int share) {
#ifdef FLASH_MOE_SHIM_THREAD_SANITIZER
  static int cases = 0;
  return cases++ % share == 0;
#else
  return true;
#endif
}

// Ends the process at the first difference, and says where: a driver's exit code is its result.
inline void expect_close(const std::string& what, const std::vector<double>& actual,
                         const std::vector<double>& expected, double absolute, double relative) {
  if (actual.size() != expected.size()) {
    std::fprintf(stderr, "%s: %zu values, expected %zu\n", what.c_str(), actual.size(), expected.size());
    std::abort();
  }
  for (size_t i = 0; i < actual.size(); i++) {
    const double difference = std::fabs(actual[i] - expected[i]);
    const bool same = actual[i] == expected[i] || (std::isnan(actual[i]) && std::isnan(expected[i]));
    // Written so that NaN is no match.
    if (same || difference <= absolute + relative * std::fabs(expected[i])) continue;
    std::fprintf(stderr, "%s: element %zu is %.9g, expected %.9g\n", what.c_str(), i, actual[i], expected[i]);
    std::abort();
  }
}

inline void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "expected: %s\n", what.c_str());
  std::abort();
}

// Of the failure that the work ends with, whose message has `text` in it; empty where there is none.
template <typename Work>
std::string code_of(Work&& work, const char* text = "") {
  try {
    work();
  } catch (const Failure& failure) {
    expect(std::string(failure.what()).find(text) != std::string::npos,
           std::string("\"") + text + "\" in: " + failure.what());
    return failure.code;
  }
  return "";
}

}  // namespace flash_moe::test
