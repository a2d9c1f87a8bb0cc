// An open device: what the addon makes a backend of. Used from one thread, except where it is said.
//
// Every function throws `Failure`: OUT_OF_MEMORY, DEVICE_LOST (then, and from then on), BACKEND_FAILED with CUDA's
// name and text, DISPOSED after `close`.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "runtime/failure.h"
#include "runtime/survey.h"

namespace flash_moe {

struct OpenOptions {
  // Of the survey; -1: the first that can be opened.
  int device = -1;
  // What buffers and scratch may come to together; 0: all memory of the device.
  size_t memory_limit = 0;
  // Repeated calls become CUDA graphs.
  bool graphs = true;
};

struct MemoryUse {
  // Of buffers; of intermediates inside ops, and of those that graphs hold; the most that both came to.
  size_t live_bytes, scratch_bytes, peak_bytes, limit_bytes;
  // Given back but kept, for the next allocation.
  size_t cached_bytes;
};

// How everything that was enqueued before has ended.
struct Outcome {
  // Null when well.
  const Failure* failure;
  // Expert ids out of range, since the outcome before.
  uint32_t id_errors;
};

struct KernelTime {
  // The op that it belongs to, as `run` was told.
  const char* op;
  const char* kernel;
  double nanoseconds;
};

// What the model of costs expects of one of the ways that an op has.
struct ExpectedTime {
  const char* op;
  std::string way;
  double nanoseconds;
};

// Called once, on the device's own waiting thread, in order of submission. Must not call the device.
using Done = std::function<void(const Outcome&)>;

class Device : public Context {
 public:
  // UNAVAILABLE with the survey's refusal; OUT_OF_MEMORY where not even the basics fit.
  static std::unique_ptr<Device> open(const OpenOptions& options);

  virtual const DeviceInfo& info() const = 0;
  virtual MemoryUse memory() const = 0;

  // Null for 0 bytes. 256-byte aligned. Not zeroed: the contents are whatever was there.
  virtual void* alloc(size_t bytes, bool zeroed, const std::string& label) = 0;
  // With the bytes of `alloc`. Work that was enqueued before still has the memory. Does nothing after `close`.
  virtual void free(void* data, size_t bytes) noexcept = 0;

  // The host's memory is free when the call returns.
  virtual void write(void* to, const void* from, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual void zero(void* to, size_t bytes) = 0;
  // The bytes as they are after all that was enqueued before. `to` is host memory that stays until `done` was called.
  virtual void read(const void* from, void* to, size_t bytes, Done done) = 0;
  virtual void sync(Done done) = 0;

  // Runs an op. `key` is all that it depends on: which op, its sizes, scalars and addresses. Calls with equal keys may
  // be replayed as a graph; no key (0 bytes) never is.
  virtual void run(const char* name, const void* key, size_t key_bytes, const std::function<void(Context&)>& op) = 0;

  // Takes the scratch that the op will need and gives it back: OUT_OF_MEMORY where it cannot be had. Nothing runs.
  virtual void reserve(const char* name, const std::function<void(Context&)>& op) = 0;

  // From now on every kernel is timed, until `stop_timing`, whose callback gets the times in order.
  virtual void start_timing() = 0;
  virtual void stop_timing(std::function<void(const Outcome&, const std::vector<KernelTime>&)> done) = 0;

  // Of the ops since `start_timing`, for each that is chosen by a model: what it expected.
  virtual const std::vector<ExpectedTime>& expectations() const = 0;
  // From now on: see runtime/tuning.h. Graphs are forgotten.
  virtual void tune(const Tuning& tuning) = 0;

  // Forgets graphs, with the scratch that they keep.
  virtual void reclaim() = 0;

  // Why the device is lost, empty if it is not. From any thread.
  virtual std::string loss() const = 0;
  // As if the device had vanished: what waits is told, and all calls from now on throw DEVICE_LOST.
  virtual void lose(const std::string& reason) = 0;

  // Waits for the work in flight, whose callbacks are called, and frees everything. Harmless when repeated. Also when
  // the driver is shutting down.
  virtual void close() noexcept = 0;
};

}  // namespace flash_moe
