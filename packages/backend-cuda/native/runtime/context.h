// What an op works with: the stream of its backend, scratch memory, the device's sizes, and the launch of kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "device/cuda.h"
#include "runtime/failure.h"
#include "runtime/tuning.h"

namespace flash_moe {

// What strategies are chosen from.
struct DeviceLimits {
  int multiprocessors;
  size_t l2_bytes;
  // The most that a block can have after cudaFuncSetAttribute raised its limit.
  size_t shared_bytes_per_block;
  // 10 * major + minor.
  int compute_capability;
  // The PTX that the kernels come from, which may be older than the device: as a compute capability.
  int ptx = compute_capability;
  Tuning tuning{};
};

class Context;

// Memory that only one op uses. It goes back to the pool when this object does, in the order of the stream: work
// that was enqueued before still has it.
class Scratch {
 public:
  Scratch(Context& context, size_t bytes, const char* label);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  Context& context_;
  void* data_;
  size_t bytes_;
};

class Context {
 public:
  virtual ~Context() = default;

  virtual cudaStream_t stream() const = 0;
  virtual const DeviceLimits& limits() const = 0;
  // Kernels count ids that are out of range here with atomicAdd; the backend looks at the next await.
  virtual uint32_t* id_errors() const = 0;
  // Whether the op is only to take the scratch that it needs: then nothing is enqueued.
  virtual bool rehearses() const { return false; }
  // Around each launch, where kernels are timed.
  virtual void launching(const char*) {}
  virtual void launched() {}
  // Whether somebody wants to know what the model of costs expects of the ways that an op has; then `expect` is told.
  virtual bool explains() const { return false; }
  virtual void expect(const std::string& /*way*/, double /*seconds*/) {}

 protected:
  friend class Scratch;
  // 256-byte aligned; throws OUT_OF_MEMORY with the label.
  virtual void* take_scratch(size_t bytes, const char* label) = 0;
  virtual void give_scratch(void* data, size_t bytes) = 0;
};

inline Scratch::Scratch(Context& context, size_t bytes, const char* label)
    : context_(context), data_(context.take_scratch(bytes, label)), bytes_(bytes) {}

inline Scratch::~Scratch() { context_.give_scratch(data_, bytes_); }

// kernel<<<blocks, threads, shared_bytes, stream>>>(arguments...), with its errors thrown and its dynamic shared
// memory allowed. Blocks lie along x alone (up to 2^31 - 1); none is launched for 0 blocks.
template <typename... Parameters, typename... Arguments>
void launch(Context& context, const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads,
            size_t shared_bytes, Arguments... arguments);

// Zeroes memory in the order of the stream; `doing` is what an error says.
void clear(Context& context, void* data, size_t bytes, const char* doing);

}  // namespace flash_moe

#include "runtime/launch.h"
