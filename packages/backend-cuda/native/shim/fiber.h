// A second stack in the same OS thread, and the switch to it and back.
#pragma once

#include <cstddef>

namespace flash_moe::shim {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Prepares to run `entry(argument)` at the next resume. Only for a fiber that has ended, or is new.
  void start(void (*entry)(void*), void* argument);
  // Runs the fiber until it suspends or ends. Only from outside all fibers.
  void resume();
  // Goes back to the caller of resume. Only from inside.
  void suspend();

 private:
  static void enter(Fiber* fiber);
  void leave(bool ended);

  void* memory_;
  void* own_;
  void* caller_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  // What the sanitizers know of both stacks.
  void* own_fake_ = nullptr;
  void* caller_fake_ = nullptr;
  const void* caller_bottom_ = nullptr;
  size_t caller_size_ = 0;
  void* own_history_ = nullptr;
  void* caller_history_ = nullptr;
};

}  // namespace flash_moe::shim
