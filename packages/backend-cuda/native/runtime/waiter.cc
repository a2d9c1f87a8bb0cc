#include "runtime/waiter.h"

#include <chrono>
#include <cstdlib>

#include "runtime/cuda_error.h"

namespace flash_moe {

namespace {

// Sleeping costs some 50 microseconds of waking up, which short work would notice.
constexpr auto patience = std::chrono::microseconds(100);
// For what a device still does when the process exits.
constexpr auto last_patience = std::chrono::seconds(2);

cudaError_t wait_for(cudaEvent_t event) {
  const auto start = std::chrono::steady_clock::now();
  do {
    const cudaError_t state = cudaEventQuery(event);
    if (state != cudaErrorNotReady) return state;
    std::this_thread::yield();
  } while (std::chrono::steady_clock::now() - start < patience);
  return cudaEventSynchronize(event);
}

// Never destroyed: the process may be at its end.
struct Waiters {
  std::mutex mutex;
  std::list<Waiter*> all;
};
Waiters& waiters() {
  static Waiters* const one = new Waiters;
  return *one;
}

void abandon_all() {
  Waiters& open = waiters();
  const std::lock_guard<std::mutex> lock(open.mutex);
  for (Waiter* waiter : open.all) waiter->abandon();
}

}  // namespace

Waiter::Waiter(int device) : device_(device), thread_([this] { run(); }) {
  Waiters& open = waiters();
  const std::lock_guard<std::mutex> lock(open.mutex);
  // Handlers run last first: CUDA has a context by now, and with it its own handlers, which come after this one.
  [[maybe_unused]] static const int registered = std::atexit(abandon_all);
  place_ = open.all.insert(open.all.end(), this);
}

Waiter::~Waiter() {
  {
    Waiters& open = waiters();
    const std::lock_guard<std::mutex> lock(open.mutex);
    open.all.erase(place_);
  }
  stop();
  for (const cudaEvent_t event : free_events_) cudaEventDestroy(event);
  cudaGetLastError();
}

void Waiter::stop() noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Waiter::abandon() noexcept {
  std::unique_lock<std::mutex> lock(mutex_);
  stopping_ = abandoned_ = true;
  changed_.notify_all();
  changed_.wait_for(lock, last_patience, [this] { return ended_; });
  if (thread_.joinable()) thread_.detach();
}

void Waiter::after(cudaStream_t stream, Task task) {
  const cudaEvent_t event = take_event();
  const cudaError_t error = cudaEventRecord(event, stream);
  if (error != cudaSuccess) {
    cudaEventDestroy(event);
    fail(error, "cannot record an event");
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.push_back({event, std::move(task)});
  }
  changed_.notify_one();
}

size_t Waiter::waiting() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return entries_.size();
}

cudaEvent_t Waiter::take_event() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_events_.empty()) {
      const cudaEvent_t event = free_events_.back();
      free_events_.pop_back();
      return event;
    }
  }
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "cannot make an event");
  return event;
}

void Waiter::run() {
  cudaSetDevice(device_);
  run_tasks();
  const std::lock_guard<std::mutex> lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

void Waiter::run_tasks() {
  for (;;) {
    Entry* entry = nullptr;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !entries_.empty(); });
      if (entries_.empty() || abandoned_) return;
      // A deque's elements stay where they are when others are added behind.
      entry = &entries_.front();
    }
    const cudaError_t error = wait_for(entry->event);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (abandoned_) return;
    }
    entry->task(error);
    entry->task = nullptr;
    const std::lock_guard<std::mutex> lock(mutex_);
    free_events_.push_back(entry->event);
    entries_.pop_front();
  }
}

}  // namespace flash_moe
