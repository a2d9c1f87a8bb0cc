#include "shim/shared_memory.h"

#include <link.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "shim/language.h"

namespace flash_moe::shim {

namespace {

constexpr uint64_t nan_pattern = 0xffc1ffc1ffc1ffc1u;
constexpr size_t piece = 256;

// FM_SHARED variables are thread-local, so they lie in this module's block of thread-local storage. So does `place`,
// the one other variable there: nothing else in a module that is built with the shim may be thread-local.
struct Storage {
  uintptr_t own;
  unsigned char* start;
  size_t bytes;
};

int find_storage(dl_phdr_info* info, size_t, void* argument) {
  if (!info->dlpi_tls_data) return 0;
  auto* found = static_cast<Storage*>(argument);
  const uintptr_t own = found->own;
  const auto start = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_TLS || own < start || own >= start + header.p_memsz) continue;
    found->start = reinterpret_cast<unsigned char*>(start);
    found->bytes = header.p_memsz;
    return 1;
  }
  return 0;
}

}  // namespace

void fill_with_nan(void* memory, size_t bytes) {
  auto* out = static_cast<unsigned char*>(memory);
  size_t done = 0;
  for (; done + 8 <= bytes; done += 8) std::memcpy(out + done, &nan_pattern, 8);
  if (done < bytes) std::memcpy(out + done, &nan_pattern, bytes - done);
}

SharedMemory::SharedMemory(size_t dynamic_bytes) : dynamic_bytes_(dynamic_bytes) {
  // Exactly the bytes asked for, so that a sanitizer sees the first one beyond.
  void* memory = nullptr;
  if (dynamic_bytes && posix_memalign(&memory, 128, dynamic_bytes) != 0) std::abort();
  dynamic_ = static_cast<unsigned char*>(memory);

  Storage storage{reinterpret_cast<uintptr_t>(&place), nullptr, 0};
  dl_iterate_phdr(find_storage, &storage);
  if (!storage.start) return;
  auto* hole = reinterpret_cast<unsigned char*>(&place);
  auto* after = hole + sizeof place;
  statics_.push_back({storage.start, static_cast<size_t>(hole - storage.start)});
  statics_.push_back({after, static_cast<size_t>(storage.start + storage.bytes - after)});
  for (const auto& range : statics_) fill_with_nan(range.start, range.bytes);
}

SharedMemory::~SharedMemory() { free(dynamic_); }

void SharedMemory::poison() {
  if (dynamic_bytes_) fill_with_nan(dynamic_, dynamic_bytes_);
  // All variables of all kernels lie there. A launch uses few, those that its first blocks write.
  if (blocks_ > 0 && blocks_ <= 3) find_written();
  for (const auto& range : written_) fill_with_nan(range.start, range.bytes);
  blocks_++;
}

void SharedMemory::find_written() {
  written_.clear();
  for (const auto& range : statics_) {
    for (size_t at = 0; at < range.bytes; at += piece) {
      const size_t bytes = range.bytes - at < piece ? range.bytes - at : piece;
      bool same = true;
      for (size_t i = 0; same && i + 8 <= bytes; i += 8) {
        same = std::memcmp(range.start + at + i, &nan_pattern, 8) == 0;
      }
      if (!same) written_.push_back({range.start + at, bytes});
    }
  }
}

}  // namespace flash_moe::shim
