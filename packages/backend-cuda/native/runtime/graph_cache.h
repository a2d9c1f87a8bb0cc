// Graphs of calls that repeat: one submission instead of a launch for each kernel.
#pragma once

#include <cstddef>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "device/cuda.h"
#include "runtime/memory_pool.h"

namespace flash_moe {

struct RecordedCall {
  // What running it without a graph showed.
  int runs = 0, launches = 0;
  size_t scratch_bytes = 0;
  // A graph cannot hold it.
  bool refused = false;

  cudaGraphExec_t graph = nullptr;
  // The graph's own scratch: its addresses are part of it.
  void* scratch = nullptr;

  // One launch is as quick without a graph. Large calls gain nothing, and their scratch would be kept for ever.
  static constexpr size_t most_scratch = size_t{16} << 20;
  bool worth_a_graph() const { return !refused && runs >= 1 && launches >= 2 && scratch_bytes <= most_scratch; }
};

class GraphCache {
 public:
  explicit GraphCache(MemoryPool& pool) : pool_(pool) {}
  ~GraphCache() { clear(); }
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // The call of this key, which becomes the most recently used. It stays until the next `find` or `clear`.
  RecordedCall& find(std::string_view key);
  // Forgets all calls but `keep`. Replays that are in flight are not disturbed.
  void clear(const RecordedCall* keep = nullptr) noexcept;

 private:
  struct Entry;
  using Entries = std::list<Entry>;
  struct Entry {
    std::string key;
    RecordedCall call;
    // The one that it is in.
    Entries* list;
  };

  // Calls that occur once pass through the first list; graphs are in the second, where they would otherwise be pushed
  // out by those. Room for the calls of a deep model, forward and backward: they come round in order, and of a list that
  // is shorter than the round each would be pushed out before it comes again.
  static constexpr size_t most_seen = 2048, most_graphs = 1024;
  static constexpr size_t most_graph_scratch = size_t{256} << 20;
  void make_room(size_t scratch_bytes) noexcept;
  void shrink(Entries& entries, size_t most, const RecordedCall* keep = nullptr) noexcept;
  void drop(RecordedCall& call) noexcept;

  MemoryPool& pool_;
  // Most recent first.
  Entries seen_, graphs_;
  // Keys are those of the entries.
  std::unordered_map<std::string_view, Entries::iterator> by_key_;
};

}  // namespace flash_moe
