#pragma once

#include "memory/poison.h"
#include "memory/size_class.h"

#include <array>
#include <atomic>
#include <cstdint>

namespace bitnet {

class Pool;

// One thread's free blocks of one pool. Only that thread changes it; others read the counts.
struct ThreadCache {
  struct List {
    FreeBlock* head = nullptr;
    std::atomic<uint32_t> n{0};
    uint32_t limit = 0;    // beyond it half goes back to the pool
    uint32_t n_batch = 0;  // that the next refill brings: more each time, so that a few blocks carve no whole span

    FreeBlock* pop() {
      FreeBlock* const block = head;
      head = next_of(block);
      n.store(n.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
      return block;
    }
    // The number of blocks then.
    uint32_t push(FreeBlock* block) {
      set_next(block, head);
      head = block;
      const uint32_t count = n.load(std::memory_order_relaxed) + 1;
      n.store(count, std::memory_order_relaxed);
      return count;
    }
  };
  std::array<List, kSizeClasses> lists;
  List& list(int size_class) { return lists.data()[size_class]; }
  size_t home = 0;  // of its large blocks
  int64_t until_sample_bytes = 0;
  uint64_t pool_id = 0;
  Pool* pool = nullptr;  // null once the pool is gone; under the registry's mutex
  ThreadCache* next_of_thread = nullptr;
  ThreadCache* next_of_pool = nullptr;  // under the pool's mutex
};

// The cache that this thread used last, found without a call.
struct RecentCache {
  uint64_t pool_id = 0;
  ThreadCache* cache = nullptr;
};
// initial-exec: an offset from a register instead of a call; 16 bytes fit even a library that is loaded late.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local RecentCache recent_cache;

// This thread's cache of the pool, made when there is none. Null where there is no memory for one or the thread is
// about to end.
ThreadCache* find_thread_cache(Pool& pool, uint64_t pool_id) noexcept;
// Forgets all caches of a pool that goes away; their threads must no longer use it.
void forget_thread_caches(ThreadCache* first_of_pool) noexcept;

}  // namespace bitnet
