// Page-locked host memory, through which all data goes to the device and comes back: from other memory CUDA would
// make the calling thread wait.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

#include "device/cuda.h"

namespace flash_moe {

class Staging {
 public:
  // Larger transfers go in pieces.
  static constexpr size_t largest_block = size_t{4} << 20;

  struct Block {
    void* data = nullptr;
    size_t bytes = 0;
    // The work that uses it last.
    cudaEvent_t event = nullptr;
    // Somebody has it, beyond what the event tells.
    bool held = false;
  };

  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // A block of at least `bytes`, up to `largest_block`. Waits where very many are in use. Throws.
  Block* take(size_t bytes);
  // It is free when what the stream has by now is done.
  void give_after(Block* block, cudaStream_t stream);
  // It is free now. From any thread.
  void give(Block* block);

 private:
  Block* find_free(size_t bytes);

  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<Block*> blocks_;
  size_t total_ = 0;
};

}  // namespace flash_moe
