// Tells ThreadSanitizer which accesses to memory are ordered, so that it finds two threads of a block that touch the same
// place with no barrier in between, in whatever order they ran here. The shim's own code is compiled without it.
// Elsewhere all of this is nothing.
#pragma once

#ifdef FLASH_MOE_SHIM_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace flash_moe::shim {

#ifdef FLASH_MOE_SHIM_THREAD_SANITIZER

// A thread may not take over the stack of one that has ended, for it would be blamed for the other's accesses.
constexpr bool stacks_are_shared = false;

// What a thread of a block has seen. Switching from one to the other orders nothing: they are threads of a GPU.
inline void* new_history() { return __tsan_create_fiber(0); }
inline void* current_history() { return __tsan_get_current_fiber(); }
inline void switch_history(void* history) {
  __tsan_switch_to_fiber(history, __tsan_switch_to_fiber_no_sync);
}

// What came before `publish` in one thread comes before what follows `observe` of the same place in another.
inline void publish(void* place) { __tsan_release(place); }
inline void observe(void* place) { __tsan_acquire(place); }

#else

constexpr bool stacks_are_shared = true;

inline void* new_history() { return nullptr; }
inline void* current_history() { return nullptr; }
inline void switch_history(void*) {}
inline void publish(void*) {}
inline void observe(void*) {}

#endif

}  // namespace flash_moe::shim
