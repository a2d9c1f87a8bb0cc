#include "runtime/staging.h"

#include <chrono>

#include "runtime/cuda_error.h"

namespace flash_moe {

namespace {

constexpr size_t small_block = 64 << 10;
// Memory that cannot be paged out is the whole machine's loss.
constexpr size_t most_bytes = size_t{64} << 20;

}  // namespace

Staging::~Staging() {
  for (Block* block : blocks_) {
    cudaEventDestroy(block->event);
    cudaFreeHost(block->data);
    delete block;
  }
  cudaGetLastError();
}

Staging::Block* Staging::find_free(size_t bytes) {
  for (Block* block : blocks_) {
    if (block->held || block->bytes < bytes) continue;
    const cudaError_t state = cudaEventQuery(block->event);
    if (state == cudaErrorNotReady) continue;
    check(state, "cannot ask whether a transfer is done");
    return block;
  }
  return nullptr;
}

Staging::Block* Staging::take(size_t bytes) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    if (Block* block = find_free(bytes)) {
      block->held = true;
      return block;
    }
    const size_t size = bytes <= small_block ? small_block : largest_block;
    bool fits = false;
    for (const Block* block : blocks_) fits |= block->bytes >= bytes;
    if (total_ + size <= most_bytes || !fits) {
      auto* block = new Block;
      block->bytes = size;
      cudaError_t error = cudaHostAlloc(&block->data, size, cudaHostAllocDefault);
      if (error == cudaSuccess) {
        error = cudaEventCreateWithFlags(&block->event, cudaEventDisableTiming);
        if (error != cudaSuccess) cudaFreeHost(block->data);
      }
      if (error != cudaSuccess) {
        delete block;
        fail(error, "cannot get " + std::to_string(size) + " bytes of page-locked host memory");
      }
      block->held = true;
      blocks_.push_back(block);
      total_ += size;
      return block;
    }
    // Events do not notify: look again soon.
    returned_.wait_for(lock, std::chrono::microseconds(100));
  }
}

void Staging::give_after(Block* block, cudaStream_t stream) {
  const cudaError_t error = cudaEventRecord(block->event, stream);
  give(block);
  check(error, "cannot record an event");
}

void Staging::give(Block* block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  block->held = false;
  returned_.notify_one();
}

}  // namespace flash_moe
