#include "runtime/graph_cache.h"

namespace flash_moe {

RecordedCall& GraphCache::find(std::string_view key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    shrink(seen_, most_seen - 1);
    seen_.push_front({std::string(key), {}, &seen_});
    by_key_.emplace(seen_.front().key, seen_.begin());
    return seen_.front().call;
  }
  const auto entry = found->second;
  const auto move_to = [&](Entries& list) {
    list.splice(list.begin(), *entry->list, entry);
    entry->list = &list;
  };
  if (entry->call.graph) {
    move_to(graphs_);
  } else {
    // One that was refused its graph comes from the list of graphs.
    move_to(seen_);
    if (entry->call.worth_a_graph()) {
      // It gets one now.
      make_room(entry->call.scratch_bytes);
      move_to(graphs_);
    }
  }
  return entry->call;
}

void GraphCache::clear(const RecordedCall* keep) noexcept {
  shrink(graphs_, 0, keep);
  shrink(seen_, 0, keep);
}

void GraphCache::make_room(size_t scratch_bytes) noexcept {
  size_t kept = 0, held = scratch_bytes;
  for (const Entry& entry : graphs_) {
    held += entry.call.scratch_bytes;
    if (kept + 1 == most_graphs || held > most_graph_scratch) break;
    kept++;
  }
  shrink(graphs_, kept);
}

void GraphCache::shrink(Entries& entries, size_t most, const RecordedCall* keep) noexcept {
  for (auto entry = entries.end(); entries.size() > most && entry != entries.begin();) {
    --entry;
    if (&entry->call == keep) continue;
    drop(entry->call);
    by_key_.erase(entry->key);
    entry = entries.erase(entry);
  }
}

void GraphCache::drop(RecordedCall& call) noexcept {
  if (call.graph) cudaGraphExecDestroy(call.graph);
  pool_.give(call.scratch, call.scratch_bytes, MemoryUseKind::scratch);
  call.graph = nullptr;
  call.scratch = nullptr;
}

}  // namespace flash_moe
