// The shared memory of the running block, filled with NaN before each block: a kernel that reads what it never wrote
// must not find the values of the block before.
#pragma once

#include <cstddef>
#include <vector>

namespace flash_moe::shim {

// NaN as f32, as f16 and as bf16; neither 0 nor -1 as an integer.
void fill_with_nan(void* memory, size_t bytes);

class SharedMemory {
 public:
  explicit SharedMemory(size_t dynamic_bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  unsigned char* dynamic() const { return dynamic_; }
  // Before each block.
  void poison();

 private:
  struct Range {
    unsigned char* start;
    size_t bytes;
  };
  void find_written();

  size_t dynamic_bytes_;
  unsigned char* dynamic_ = nullptr;
  // What the kernel's FM_SHARED variables may lie in, and the pieces of it that blocks of this launch have written.
  std::vector<Range> statics_, written_;
  int blocks_ = 0;
};

}  // namespace flash_moe::shim
