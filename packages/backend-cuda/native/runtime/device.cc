#include "runtime/device.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "runtime/cuda_error.h"
#include "runtime/graph_cache.h"
#include "runtime/kernel_timer.h"
#include "runtime/memory_pool.h"
#include "runtime/probe.h"
#include "runtime/staging.h"
#include "runtime/waiter.h"

namespace flash_moe {

namespace {

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// A piece of a read: from page-locked memory to the caller's, in the order of the stream.
struct Piece {
  void* to;
  const void* from;
  size_t bytes;
};
void copy_piece(void* argument) {
  const auto& piece = *static_cast<const Piece*>(argument);
  std::memcpy(piece.to, piece.from, piece.bytes);
}

class OpenDevice : public Device {
 private:
  struct Reset {
    RecordedCall*& running;
    ~Reset() { running = nullptr; }
  };

  struct Rehearsal {
    bool& rehearses;
    ~Rehearsal() { rehearses = false; }
  };

  static void check(cudaError_t error, const std::string& doing) {
    if (error != cudaSuccess) fail(error, doing);
  }

  // Runs the work on this thread's behalf, if the device is there, and remembers when it turns out to be lost.
  template <typename Work>
  auto guarded(Work&& work) {
    if (closed_) throw Failure("DISPOSED", "the device was closed");
    if (lost_) throw Failure("DEVICE_LOST", loss());
    try {
      check(cudaSetDevice(info_.index), "cannot use " + info_.name);
      return work();
    } catch (const Failure& failure) {
      if (std::strcmp(failure.code, "DEVICE_LOST") == 0) lose(failure.what());
      throw;
    }
  }

 public:
  OpenDevice(const DeviceInfo& info, const OpenOptions& options)
      : info_(info), use_graphs_(options.graphs),
        limits_{info.multiprocessors, info.l2_bytes, info.shared_bytes_per_block, info.compute_capability} {
    check(cudaSetDevice(info.index), "cannot use " + info.name);
    try {
      // Makes the context, and loads the code: a binary without code for this device is found out here.
      check(probe_device_code(limits_.ptx), "this binary cannot run on " + info.name);
      check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cannot make a stream");
      const size_t limit = options.memory_limit ? options.memory_limit : info.memory_bytes;
      pool_ = std::make_unique<MemoryPool>(info.index, stream_, limit);
      check(cudaMalloc(reinterpret_cast<void**>(&id_errors_), sizeof(uint32_t)), "cannot allocate the id counter");
      check(cudaMemsetAsync(id_errors_, 0, sizeof(uint32_t), stream_), "cannot clear the id counter");
      check(cudaHostAlloc(reinterpret_cast<void**>(&id_counts_), id_slots * sizeof(uint32_t), cudaHostAllocDefault),
            "cannot get page-locked host memory");
      staging_ = std::make_unique<Staging>();
      graphs_ = std::make_unique<GraphCache>(*pool_);
      pool_->set_reclaim([this] { graphs_->clear(running_); });
      waiter_ = std::make_unique<Waiter>(info.index);
    } catch (...) {
      close();
      throw;
    }
  }

  ~OpenDevice() override { close(); }

  // Context

  cudaStream_t stream() const override { return stream_; }
  const DeviceLimits& limits() const override { return limits_; }
  uint32_t* id_errors() const override { return id_errors_; }

  void launching(const char* name) override {
    launches_++;
    if (timer_) timer_->begin(op_, name, stream_);
  }
  void launched() override {
    if (timer_) timer_->end(stream_);
  }

  bool rehearses() const override { return rehearses_; }

  bool explains() const override { return timer_ != nullptr && !rehearses_; }
  void expect(const std::string& way, double seconds) override {
    expectations_.push_back({op_, way, seconds * 1e9});
  }

  // Device

  const DeviceInfo& info() const override { return info_; }

  MemoryUse memory() const override {
    if (!pool_) return {0, 0, peak_at_close_, 0, 0};
    return {pool_->live(), pool_->scratch(), pool_->peak(), pool_->limit(), pool_->cached()};
  }

  void* alloc(size_t bytes, bool zeroed, const std::string& label) override {
    return guarded([&] {
      void* data = pool_->take(bytes, MemoryUseKind::live, label);
      if (!zeroed || bytes == 0) return data;
      const cudaError_t error = cudaMemsetAsync(data, 0, bytes, stream_);
      if (error != cudaSuccess) {
        pool_->give(data, bytes, MemoryUseKind::live);
        fail(error, "cannot clear " + label);
      }
      return data;
    });
  }

  void free(void* data, size_t bytes) noexcept override {
    if (closed_ || !data) return;
    cudaSetDevice(info_.index);
    pool_->give(data, bytes, MemoryUseKind::live);
  }

  void write(void* to, const void* from, size_t bytes) override {
    guarded([&] {
      for (size_t done = 0; done < bytes; done += Staging::largest_block) {
        const size_t part = std::min(bytes - done, Staging::largest_block);
        Staging::Block* block = staging_->take(part);
        std::memcpy(block->data, static_cast<const char*>(from) + done, part);
        const cudaError_t error =
            cudaMemcpyAsync(static_cast<char*>(to) + done, block->data, part, cudaMemcpyHostToDevice, stream_);
        staging_->give_after(block, stream_);
        check(error, "cannot write to the device");
      }
    });
  }

  void copy(void* to, const void* from, size_t bytes) override {
    guarded([&] {
      if (bytes == 0) return;
      check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "cannot copy on the device");
    });
  }

  void zero(void* to, size_t bytes) override {
    guarded([&] {
      if (bytes == 0) return;
      check(cudaMemsetAsync(to, 0, bytes, stream_), "cannot clear memory of the device");
    });
  }

  void read(const void* from, void* to, size_t bytes, Done done) override {
    guarded([&] {
      if (bytes == 0) return settle(std::move(done));
      Staging::Block* block = staging_->take(std::min(bytes, Staging::largest_block));
      auto pieces = std::make_shared<std::vector<Piece>>();
      try {
        for (size_t at = 0; at < bytes; at += block->bytes) {
          pieces->push_back({static_cast<char*>(to) + at, block->data, std::min(bytes - at, block->bytes)});
        }
        for (size_t i = 0; i < pieces->size(); i++) {
          Piece& piece = (*pieces)[i];
          check(cudaMemcpyAsync(block->data, static_cast<const char*>(from) + i * block->bytes, piece.bytes,
                                cudaMemcpyDeviceToHost, stream_),
                "cannot read from the device");
          // The block is used again by the next piece, so the stream itself empties it; the last waits for us.
          if (i + 1 < pieces->size()) {
            check(cudaLaunchHostFunc(stream_, copy_piece, &piece), "cannot read from the device");
          }
        }
        settle([this, pieces, block, done = std::move(done)](const Outcome& outcome) {
          if (!outcome.failure) copy_piece(&pieces->back());
          staging_->give(block);
          done(outcome);
        });
      } catch (...) {
        // Pieces that the stream has must be through before the list of them goes.
        cudaStreamSynchronize(stream_);
        cudaGetLastError();
        staging_->give(block);
        throw;
      }
    });
  }

  void sync(Done done) override {
    guarded([&] { settle(std::move(done)); });
  }

  void run(const char* name, const void* key, size_t key_bytes, const std::function<void(Context&)>& op) override {
    guarded([&] {
      op_ = name;
      if (!use_graphs_ || key_bytes == 0 || timer_) {
        op(*this);
        return;
      }
      RecordedCall& call = graphs_->find({static_cast<const char*>(key), key_bytes});
      running_ = &call;
      const Reset reset{running_};
      if (!call.graph && call.worth_a_graph()) capture(call, op);
      if (call.graph) {
        check(cudaGraphLaunch(call.graph, stream_), "cannot launch a graph");
        return;
      }
      launches_ = 0;
      scratch_taken_ = 0;
      op(*this);
      call.runs++;
      call.launches = launches_;
      call.scratch_bytes = scratch_taken_;
    });
  }

  void reserve(const char* name, const std::function<void(Context&)>& op) override {
    guarded([&] {
      op_ = name;
      rehearses_ = true;
      const Rehearsal end{rehearses_};
      op(*this);
    });
  }

  void start_timing() override {
    guarded([&] {
      timer_ = std::make_shared<KernelTimer>();
      expectations_.clear();
    });
  }

  void stop_timing(std::function<void(const Outcome&, const std::vector<KernelTime>&)> done) override {
    auto timer = std::exchange(timer_, nullptr);
    guarded([&] {
      settle([timer, done = std::move(done)](const Outcome& outcome) {
        done(outcome, outcome.failure || !timer ? std::vector<KernelTime>() : timer->times());
      });
    });
  }

  const std::vector<ExpectedTime>& expectations() const override { return expectations_; }

  void tune(const Tuning& tuning) override {
    guarded([&] {
      graphs_->clear();
      limits_.tuning = tuning;
    });
  }

  void reclaim() override {
    guarded([&] { graphs_->clear(); });
  }

  std::string loss() const override {
    const std::lock_guard<std::mutex> lock(loss_mutex_);
    return loss_;
  }

  void lose(const std::string& reason) override {
    const std::lock_guard<std::mutex> lock(loss_mutex_);
    if (loss_.empty()) loss_ = reason;
    lost_ = true;
  }

  void close() noexcept override {
    if (closed_) return;
    closed_ = true;
    try {
      cudaSetDevice(info_.index);
      if (stream_) cudaStreamSynchronize(stream_);
      // Its tasks use the staging memory, and are called before that goes.
      if (waiter_) waiter_->stop();
      waiter_.reset();
      timer_.reset();
      graphs_.reset();
      staging_.reset();
      if (pool_) peak_at_close_ = pool_->peak();
      pool_.reset();
      cudaFree(id_errors_);
      cudaFreeHost(id_counts_);
      if (stream_) cudaStreamDestroy(stream_);
      stream_ = nullptr;
      cudaGetLastError();
    } catch (...) {
      // Nothing above throws but for want of host memory, and there is nobody left to tell.
    }
  }

 protected:
  void* take_scratch(size_t bytes, const char* label) override {
    if (capturing_) {
      const size_t start = scratch_taken_;
      scratch_taken_ += aligned(bytes);
      if (scratch_taken_ > capturing_->scratch_bytes) {
        throw Failure("BACKEND_FAILED", std::string("a repeated call takes more scratch than before, for ") + label);
      }
      return bytes ? static_cast<char*>(capturing_->scratch) + start : nullptr;
    }
    scratch_taken_ += aligned(bytes);
    return pool_->take(bytes, MemoryUseKind::scratch, label);
  }
  void give_scratch(void* data, size_t bytes) override {
    if (!capturing_) pool_->give(data, bytes, MemoryUseKind::scratch);
  }

 private:
  // Calls `done` when all that was enqueued so far has ended, with the ids that were out of range until then.
  void settle(Done done) {
    while (waiter_->waiting() >= id_slots) std::this_thread::yield();
    uint32_t* count = id_counts_ + next_id_slot_++ % id_slots;
    *count = 0;
    check(cudaMemcpyAsync(count, id_errors_, sizeof *count, cudaMemcpyDeviceToHost, stream_),
          "cannot read from the device");
    check(cudaMemsetAsync(id_errors_, 0, sizeof *id_errors_, stream_), "cannot clear the id counter");
    waiter_->after(stream_, [this, count, done = std::move(done)](cudaError_t error) {
      if (error != cudaSuccess) {
        cudaGetLastError();
        const Failure failure(error_code(error), "the device failed: " + describe(error));
        if (std::strcmp(failure.code, "DEVICE_LOST") == 0) lose(failure.what());
        done({&failure, 0});
      } else if (lost_) {
        const Failure failure("DEVICE_LOST", loss());
        done({&failure, 0});
      } else {
        done({nullptr, *count});
      }
    });
  }

  // Leaves `call.graph` null and `call.refused` set where the call cannot be captured; then nothing of it has run.
  void capture(RecordedCall& call, const std::function<void(Context&)>& op) {
    cudaGraph_t graph = nullptr;
    try {
      call.scratch = pool_->take(call.scratch_bytes, MemoryUseKind::scratch, "the scratch of a graph");
      // Other threads allocate and wait meanwhile; that is their affair.
      check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cannot begin a graph");
      capturing_ = &call;
      scratch_taken_ = 0;
      try {
        op(*this);
      } catch (...) {
        capturing_ = nullptr;
        cudaStreamEndCapture(stream_, &graph);
        throw;
      }
      capturing_ = nullptr;
      check(cudaStreamEndCapture(stream_, &graph), "cannot end a graph");
      check(cudaGraphInstantiate(&call.graph, graph, 0), "cannot make a graph");
      cudaGraphDestroy(graph);
    } catch (const Failure& failure) {
      if (graph) cudaGraphDestroy(graph);
      cudaGetLastError();
      pool_->give(call.scratch, call.scratch_bytes, MemoryUseKind::scratch);
      call.scratch = nullptr;
      call.graph = nullptr;
      call.refused = true;
      if (std::strcmp(failure.code, "DEVICE_LOST") == 0) throw;
    }
  }

  static constexpr size_t id_slots = 1024;

  const DeviceInfo info_;
  const bool use_graphs_;
  DeviceLimits limits_;
  cudaStream_t stream_ = nullptr;
  uint32_t* id_errors_ = nullptr;
  // Page-locked; the waiter's tasks take turns in it.
  uint32_t* id_counts_ = nullptr;
  size_t next_id_slot_ = 0;
  size_t peak_at_close_ = 0;
  bool closed_ = false;
  std::unique_ptr<MemoryPool> pool_;
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<GraphCache> graphs_;
  std::unique_ptr<Waiter> waiter_;
  std::shared_ptr<KernelTimer> timer_;
  std::vector<ExpectedTime> expectations_;

  // Of the op that runs.
  const char* op_ = "";
  bool rehearses_ = false;
  int launches_ = 0;
  size_t scratch_taken_ = 0;
  // The call that it is, and the same while it is captured.
  RecordedCall *running_ = nullptr, *capturing_ = nullptr;

  mutable std::mutex loss_mutex_;
  std::string loss_;
  std::atomic<bool> lost_{false};
};

}  // namespace

std::unique_ptr<Device> Device::open(const OpenOptions& options) {
  const Survey found = survey();
  if (!found.refusal.empty() && found.devices.empty()) throw Failure("UNAVAILABLE", found.refusal);
  const DeviceInfo* chosen = nullptr;
  for (const DeviceInfo& device : found.devices) {
    if (options.device < 0 ? device.refusal.empty() && !chosen : device.index == options.device) chosen = &device;
  }
  if (!chosen) {
    throw Failure("UNAVAILABLE", options.device < 0 ? found.refusal
                                                    : "there is no CUDA device " + std::to_string(options.device) +
                                                          ": there are " + std::to_string(found.devices.size()));
  }
  if (!chosen->refusal.empty()) throw Failure("UNAVAILABLE", chosen->refusal);
  try {
    return std::make_unique<OpenDevice>(*chosen, options);
  } catch (const Failure& failure) {
    if (std::strcmp(failure.code, "OUT_OF_MEMORY") == 0) throw;
    throw Failure("UNAVAILABLE", failure.what());
  }
}

}  // namespace flash_moe
