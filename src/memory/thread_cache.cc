#include "memory/thread_cache.h"

#include "memory/pool.h"

#include <mutex>
#include <new>

namespace bitnet {

constinit thread_local RecentCache recent_cache;

namespace {

// Held while a thread that ends gives its blocks to pools, and while a pool goes away: neither may vanish meanwhile.
std::mutex& registry_mutex() {
  static std::mutex& mutex = *new std::mutex;  // threads may end after main() has
  return mutex;
}

constinit thread_local bool thread_ended = false;

// All caches of a thread, for the thread's end.
struct CachesOfThread {
  ThreadCache* first = nullptr;

  ~CachesOfThread() {
    thread_ended = true;
    recent_cache = {};
    const std::lock_guard<std::mutex> lock(registry_mutex());
    while (first != nullptr) {
      ThreadCache* const cache = first;
      first = cache->next_of_thread;
      if (cache->pool != nullptr) cache->pool->retire(*cache);
      delete cache;
    }
  }
  // Caches whose pool is gone.
  void drop_orphans() {
    const std::lock_guard<std::mutex> lock(registry_mutex());
    for (ThreadCache** link = &first; *link != nullptr;) {
      ThreadCache* const cache = *link;
      if (cache->pool == nullptr) {
        *link = cache->next_of_thread;
        delete cache;
      } else {
        link = &cache->next_of_thread;
      }
    }
  }
};
thread_local CachesOfThread caches_of_thread;

}  // namespace

ThreadCache* find_thread_cache(Pool& pool, uint64_t pool_id) noexcept {
  if (thread_ended) return nullptr;
  for (ThreadCache* cache = caches_of_thread.first; cache != nullptr; cache = cache->next_of_thread) {
    if (cache->pool_id == pool_id) {
      recent_cache = {pool_id, cache};
      return cache;
    }
  }
  caches_of_thread.drop_orphans();
  auto* const cache = new (std::nothrow) ThreadCache;
  if (cache == nullptr) return nullptr;
  cache->pool_id = pool_id;
  cache->pool = &pool;
  cache->next_of_thread = caches_of_thread.first;
  caches_of_thread.first = cache;
  pool.adopt(*cache);
  recent_cache = {pool_id, cache};
  return cache;
}

void forget_thread_caches(ThreadCache* first_of_pool) noexcept {
  const std::lock_guard<std::mutex> lock(registry_mutex());
  for (ThreadCache* cache = first_of_pool; cache != nullptr; cache = cache->next_of_pool) cache->pool = nullptr;
}

}  // namespace bitnet
