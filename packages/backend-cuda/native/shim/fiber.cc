#include "shim/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#include "shim/order_of_memory.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace flash_moe::shim {

namespace {

constexpr size_t stack_bytes = 256 << 10;
constexpr size_t guard_bytes = 16 << 10;

#if defined(__x86_64__)

// Saves the registers that a callee must keep, exchanges the stacks, and returns on the other one.
extern "C" void flash_moe_shim_switch(void** save, void* to);
asm(R"(
.text
.globl flash_moe_shim_switch
.hidden flash_moe_shim_switch
.type flash_moe_shim_switch,@function
flash_moe_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size flash_moe_shim_switch,.-flash_moe_shim_switch
// The first return of a fiber comes here, with its object in r12 and its function in r13.
.globl flash_moe_shim_begin
.hidden flash_moe_shim_begin
.type flash_moe_shim_begin,@function
flash_moe_shim_begin:
  movq %r12, %rdi
  callq *%r13
  ud2
.size flash_moe_shim_begin,.-flash_moe_shim_begin
)");
extern "C" void flash_moe_shim_begin();

#endif

}  // namespace

Fiber::Fiber() {
  own_history_ = new_history();
  memory_ = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory_ == MAP_FAILED || mprotect(memory_, guard_bytes, PROT_NONE) != 0) {
    std::perror("shim: no memory for a stack");
    std::abort();
  }
#if !defined(__x86_64__)
  own_ = new ucontext_t;
  caller_ = new ucontext_t;
#endif
}

Fiber::~Fiber() {
  munmap(memory_, guard_bytes + stack_bytes);
#if !defined(__x86_64__)
  delete static_cast<ucontext_t*>(own_);
  delete static_cast<ucontext_t*>(caller_);
#endif
}

void Fiber::start(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
#if defined(__x86_64__)
  auto** top = reinterpret_cast<void**>(static_cast<char*>(memory_) + guard_bytes + stack_bytes);
  *--top = nullptr;
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(flash_moe_shim_begin);
  *--top = nullptr;                                          // rbp
  *--top = nullptr;                                          // rbx
  *--top = this;                                             // r12
  *--top = reinterpret_cast<void*>(&Fiber::enter);           // r13
  *--top = nullptr;                                          // r14
  *--top = nullptr;                                          // r15
  own_ = top;
#else
  auto* own = static_cast<ucontext_t*>(own_);
  getcontext(own);
  own->uc_stack.ss_sp = static_cast<char*>(memory_) + guard_bytes;
  own->uc_stack.ss_size = stack_bytes;
  own->uc_link = nullptr;
  const auto bits = reinterpret_cast<uint64_t>(this);
  makecontext(own, reinterpret_cast<void (*)()>(+[](unsigned low, unsigned high) {
                enter(reinterpret_cast<Fiber*>(uint64_t{high} << 32 | low));
              }),
              2, static_cast<unsigned>(bits), static_cast<unsigned>(bits >> 32));
#endif
}

void Fiber::enter(Fiber* fiber) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &fiber->caller_bottom_, &fiber->caller_size_);
#endif
  fiber->entry_(fiber->argument_);
  fiber->leave(true);
}

void Fiber::resume() {
  caller_history_ = current_history();
  switch_history(own_history_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&caller_fake_, static_cast<char*>(memory_) + guard_bytes, stack_bytes);
#endif
#if defined(__x86_64__)
  flash_moe_shim_switch(&caller_, own_);
#else
  swapcontext(static_cast<ucontext_t*>(caller_), static_cast<ucontext_t*>(own_));
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(caller_fake_, nullptr, nullptr);
#endif
}

void Fiber::suspend() { leave(false); }

void Fiber::leave(bool ended) {
  switch_history(caller_history_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(ended ? nullptr : &own_fake_, caller_bottom_, caller_size_);
#else
  (void)ended;
#endif
#if defined(__x86_64__)
  flash_moe_shim_switch(&own_, caller_);
#else
  swapcontext(static_cast<ucontext_t*>(own_), static_cast<ucontext_t*>(caller_));
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(own_fake_, &caller_bottom_, &caller_size_);
#endif
}

}  // namespace flash_moe::shim
