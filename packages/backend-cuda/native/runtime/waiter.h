// Waits for the device in a thread of its own, and tells what came of it, in order of submission.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include "device/cuda.h"

namespace flash_moe {

class Waiter {
 public:
  // Called once in the waiter's thread; `error` is what the device said when it was waited for.
  using Task = std::function<void(cudaError_t error)>;

  explicit Waiter(int device);
  // Finishes all tasks first.
  ~Waiter();
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  // Runs the task when the work that the stream has by now is done.
  void after(cudaStream_t stream, Task task);
  // The number of tasks that have not run.
  size_t waiting();
  void stop() noexcept;
  // Runs no task any more, and waits until this thread asks nothing of the driver, but not for ever: the device may hang.
  // For when the process exits, where Node calls nobody (process.exit(), an exception) and CUDA's own handlers leave a
  // driver that no thread may ask anything.
  void abandon() noexcept;

 private:
  struct Entry {
    cudaEvent_t event;
    Task task;
  };
  void run();
  void run_tasks();
  cudaEvent_t take_event();

  const int device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> entries_;
  std::vector<cudaEvent_t> free_events_;
  bool stopping_ = false, abandoned_ = false, ended_ = false;
  std::thread thread_;
  std::list<Waiter*>::iterator place_;
};

}  // namespace flash_moe
