// Runs a grid on the CPU. The threads of a block are fibers of one OS thread: one runs until it waits for others or
// ends, so a kernel that forgets a barrier reads what was not written yet, in every order but a lucky one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace flash_moe::shim {

struct Launch {
  const char* name;
  int64_t blocks;
  int threads;
  size_t shared_bytes;
  // Runs the kernel for the current thread.
  void (*body)(void*);
  void* argument;
};

// Ends the process with a message where the kernel could hang or misbehave on a GPU.
void run_grid(const Launch& launch);

// Waits until all threads of the block that have not ended are here.
void block_barrier(const char* file, int line);

// Waits until every lane of `mask` is here with the same mask, line and `combine`. The last to come calls `combine`
// with the lanes' records (null for those not in the mask), which leaves each lane's result in its own record.
void warp_converge(unsigned mask, void* record, void (*combine)(void** records, unsigned mask), const char* file,
                   int line);

// The lane's index in its warp.
int lane_index();

}  // namespace flash_moe::shim
