#include "shim/grid.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "shim/fiber.h"
#include "shim/language.h"
#include "shim/order_of_memory.h"
#include "shim/shared_memory.h"

namespace flash_moe::shim {

__thread const Place* place = nullptr;

namespace {

enum class State { fresh, runnable, at_warp, at_block, ended };

class Block;

struct Thread {
  // First, so that the scheduler's `place` leads to the thread.
  Place place;
  Block* block;
  Fiber* fiber;
  State state;
  const char* file;
  int line;
  // Of the warp operation it waits in.
  unsigned mask;
  void* record;
  void (*combine)(void**, unsigned);
  // Places to publish at: what it did before it waits, and what it may know afterwards.
  char before, after;
};

// The order in which threads and blocks run. A right kernel gives the same bits in all.
struct Order {
  enum Kind { forward, reverse, shuffled } kind = forward;
  uint64_t seed = 0;

  static Order from_environment() {
    const char* text = std::getenv("FLASH_MOE_SHIM_ORDER");
    Order order;
    if (!text || !*text || std::strcmp(text, "forward") == 0) return order;
    if (std::strcmp(text, "reverse") == 0) {
      order.kind = reverse;
      return order;
    }
    char* end = nullptr;
    order.kind = shuffled;
    order.seed = std::strtoull(text, &end, 10);
    if (end == text || *end) {
      std::fprintf(stderr, "shim: FLASH_MOE_SHIM_ORDER is %s, expected forward, reverse or a number\n", text);
      std::abort();
    }
    return order;
  }

  // A permutation of 0 .. count - 1; another one at each call where they are shuffled.
  void fill(std::vector<int>& places, int count) {
    if (kind != shuffled && static_cast<int>(places.size()) == count) return;
    places.resize(count);
    for (int i = 0; i < count; i++) places[i] = kind == reverse ? count - 1 - i : i;
    if (kind != shuffled) return;
    for (int i = count - 1; i > 0; i--) std::swap(places[i], places[next() % (i + 1)]);
  }

  // One of the grid's blocks for each step; for `shuffled` a stride that shares no factor with their number.
  struct Blocks {
    int64_t count, start, stride;
    int64_t at(int64_t step) const {
      return static_cast<int64_t>((static_cast<__int128>(step) * stride + start) % count);
    }
  };
  Blocks blocks(int64_t count) {
    if (kind == forward || count < 2) return {count, 0, 1};
    if (kind == reverse) return {count, count - 1, count - 1};
    int64_t stride = static_cast<int64_t>(next() % count);
    while (divisor(stride, count) != 1) stride = (stride + 1) % count;
    return {count, static_cast<int64_t>(next() % count), stride};
  }

 private:
  static int64_t divisor(int64_t a, int64_t b) {
    while (b) {
      const int64_t rest = a % b;
      a = b;
      b = rest;
    }
    return a;
  }
  // splitmix64
  uint64_t next() {
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
};

// The fibers of a launch. They come from a store that is never destroyed, for a stack costs system calls.
class Fibers {
 public:
  ~Fibers() {
    Store& all = store();
    const std::lock_guard<std::mutex> lock(all.mutex);
    all.free.insert(all.free.end(), free_.begin(), free_.end());
  }
  Fiber* take() {
    Fiber* fiber = nullptr;
    if (!free_.empty()) {
      fiber = free_.back();
      free_.pop_back();
      return fiber;
    }
    Store& all = store();
    const std::lock_guard<std::mutex> lock(all.mutex);
    if (all.free.empty()) return new Fiber;
    fiber = all.free.back();
    all.free.pop_back();
    return fiber;
  }
  void give(Fiber* fiber) { free_.push_back(fiber); }

 private:
  struct Store {
    std::mutex mutex;
    std::vector<Fiber*> free;
  };
  static Store& store() {
    static Store* const one = new Store;
    return *one;
  }

  std::vector<Fiber*> free_;
};

class Block {
 public:
  Block(const Launch& launch, Fibers& fibers, Order& order)
      : launch_(launch),
        fibers_(fibers),
        order_(order),
        threads_(launch.threads),
        runnable_((launch.threads + 31) / 32) {}

  void run(int64_t index, unsigned char* dynamic_shared) {
    for (int i = 0; i < launch_.threads; i++) {
      Thread& thread = threads_[i];
      thread.place = {dim3(i), dim3(static_cast<unsigned>(index)), dim3(launch_.threads),
                      dim3(static_cast<unsigned>(launch_.blocks)), dynamic_shared};
      thread.block = this;
      thread.fiber = nullptr;
      thread.state = State::fresh;
      runnable_[i / 32] |= 1u << (i % 32);
    }
    ended_ = waiting_ = 0;
    publish(&start_);
    const int warps = static_cast<int>(runnable_.size());
    while (ended_ < launch_.threads) {
      order_.fill(warp_order_, warps);
      for (const int warp : warp_order_) run_warp(warp);
      if (ended_ < launch_.threads) release();
    }
    observe(&end_);
    if (stacks_are_shared) return;
    for (const Thread& thread : threads_) fibers_.give(thread.fiber);
  }

  void wait_for_block(Thread& thread, const char* file, int line) {
    thread.state = State::at_block;
    thread.file = file;
    thread.line = line;
    waiting_++;
    // In turns: a quick thread is at the next barrier before a slow one has left this.
    char* const barrier = &barriers_[generation_ % 2];
    publish(barrier);
    suspend(thread);
    observe(barrier);
  }

  void wait_for_warp(Thread& thread, unsigned mask, void* record, void (*combine)(void**, unsigned),
                     const char* file, int line) {
    thread.file = file;
    thread.line = line;
    thread.mask = mask;
    thread.record = record;
    thread.combine = combine;
    thread.state = State::at_warp;
    const int lane = lane_of(thread), start = index_of(thread) - lane;
    if (!(mask >> lane & 1)) fail(thread, "is not in the mask of its own warp operation");
    bool complete = true;
    void* records[32] = {};
    for (int other = 0; other < 32; other++) {
      if (!(mask >> other & 1)) continue;
      if (start + other >= launch_.threads) fail(thread, "waits for a lane beyond the end of the block");
      Thread& peer = threads_[start + other];
      records[other] = peer.record;
      if (peer.state == State::ended) fail(thread, "waits in a warp operation for a lane that has ended");
      // A lane that waits elsewhere may still come, from a branch. One that cannot is found in `release`.
      complete &= peer.state == State::at_warp && peer.mask == mask && peer.combine == combine && peer.line == line &&
                  peer.file == file;
    }
    publish(&thread.before);
    if (!complete) {
      suspend(thread);
      observe(&thread.after);
      return;
    }
    for (int other = 0; other < 32; other++) {
      if (mask >> other & 1) observe(&threads_[start + other].before);
    }
    combine(records, mask);
    for (int other = 0; other < 32; other++) {
      if (mask >> other & 1) publish(&threads_[start + other].after);
    }
    for (int other = 0; other < 32; other++) {
      if (!(mask >> other & 1)) continue;
      threads_[start + other].state = State::runnable;
      if (other != lane) runnable_[start / 32] |= 1u << other;
    }
  }

 private:
  static int index_of(const Thread& thread) { return static_cast<int>(thread.place.thread.x); }
  static int lane_of(const Thread& thread) { return index_of(thread) % 32; }

  void run_warp(int warp) {
    while (runnable_[warp]) {
      order_.fill(lane_order_, 32);
      for (const int lane : lane_order_) {
        const unsigned bit = 1u << lane;
        if (!(runnable_[warp] & bit)) continue;
        runnable_[warp] &= ~bit;
        resume(threads_[warp * 32 + lane]);
      }
    }
  }

  void resume(Thread& thread) {
    if (thread.state == State::fresh) {
      thread.state = State::runnable;
      thread.fiber = fibers_.take();
      thread.fiber->start(
          [](void* argument) {
            auto* self = static_cast<Thread*>(argument);
            const Launch& launch = self->block->launch_;
            observe(&self->block->start_);
            launch.body(launch.argument);
            publish(&self->block->end_);
            self->state = State::ended;
          },
          &thread);
    }
    const Place* before = place;
    place = &thread.place;
    thread.fiber->resume();
    place = before;
    if (thread.state == State::ended) {
      if (stacks_are_shared) fibers_.give(thread.fiber);
      ended_++;
    }
  }

  void suspend(Thread& thread) { thread.fiber->suspend(); }

  // Nobody can run: either all that have not ended stand at the same barrier, or they would stand there for ever.
  void release() {
    const Thread* first = nullptr;
    for (const Thread& thread : threads_) {
      if (thread.state == State::ended) continue;
      if (thread.state != State::at_block) {
        for (const Thread& other : threads_) {
          if (other.state != State::ended && other.line != thread.line) report(other);
        }
        fail(thread, "waits in a warp operation that not all lanes of its mask reach");
      }
      if (!first) first = &thread;
      if (thread.line != first->line || thread.file != first->file) {
        report(*first);
        fail(thread, "waits at another barrier than the rest of its block");
      }
    }
    for (int i = 0; i < launch_.threads; i++) {
      if (threads_[i].state != State::at_block) continue;
      threads_[i].state = State::runnable;
      runnable_[i / 32] |= 1u << (i % 32);
    }
    waiting_ = 0;
    generation_++;
  }

  void report(const Thread& thread) const {
    std::fprintf(stderr, "shim: kernel %s, block %u of %lld, thread %d of %d, at %s:%d, mask %08x\n", launch_.name,
                 thread.place.block.x, static_cast<long long>(launch_.blocks), index_of(thread), launch_.threads,
                 thread.file, thread.line, thread.state == State::at_warp ? thread.mask : 0);
  }

  [[noreturn]] void fail(const Thread& thread, const char* what) const {
    report(thread);
    std::fprintf(stderr, "shim: this thread %s (%d of %d threads have ended)\n", what, ended_, launch_.threads);
    std::abort();
  }

  const Launch& launch_;
  Fibers& fibers_;
  Order& order_;
  std::vector<Thread> threads_;
  // By warp, a bit for each lane.
  std::vector<unsigned> runnable_;
  std::vector<int> warp_order_, lane_order_;
  int ended_ = 0, waiting_ = 0, generation_ = 0;
  // Places to publish at: the start and the end of the block, and its barriers.
  char start_ = 0, end_ = 0, barriers_[2] = {};
};

Thread& current() {
  return *const_cast<Thread*>(reinterpret_cast<const Thread*>(place));
}

}  // namespace

void run_grid(const Launch& launch) {
  static Order order = Order::from_environment();
  Order now = order;
  Fibers fibers;
  SharedMemory shared(launch.shared_bytes);
  Block block(launch, fibers, now);
  const auto blocks = now.blocks(launch.blocks);
  for (int64_t step = 0; step < launch.blocks; step++) {
    shared.poison();
    block.run(blocks.at(step), shared.dynamic());
  }
}

void block_barrier(const char* file, int line) {
  Thread& thread = current();
  thread.block->wait_for_block(thread, file, line);
}

void warp_converge(unsigned mask, void* record, void (*combine)(void**, unsigned), const char* file, int line) {
  Thread& thread = current();
  thread.block->wait_for_warp(thread, mask, record, combine, file, line);
}

int lane_index() { return static_cast<int>(place->thread.x) % 32; }

}  // namespace flash_moe::shim
