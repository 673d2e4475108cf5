#pragma once

#include "memory/direct_blocks.h"
#include "memory/span_heap.h"
#include "memory/thread_cache.h"
#include "memory/tracker.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace bitnet {

struct PoolOptions {
  // Of one size that a thread's cache holds at most, about; twice that before half goes back.
  size_t thread_cache_bytes = 32 << 10;
  // Of large blocks given back that are kept for the next ones.
  uint64_t kept_bytes = uint64_t{64} << 20;
  // What no block had for so long goes back to the source, before twice that time has passed, with the release of a
  // large block. 0: not by itself.
  int64_t decay_ms = 1000;
  // Blocks of 32 KiB to 2 MiB lie in huge pages too: fewer page faults, at the price of up to 2 MiB that nobody asked
  // for.
  bool huge_pages = false;
};

struct PoolReport {
  uint64_t n_small = 0, small_bytes = 0;    // live blocks of up to kSmallLimit_bytes, in the sizes of their classes
  uint64_t cached_bytes = 0;                // free ones in threads' caches
  uint64_t span_bytes = 0;                  // pages cut into small blocks, live or not
  uint64_t touched_bytes = 0;               // of those, the pages that blocks were handed out of
  uint64_t segment_bytes = 0;               // taken from the source for small blocks
  uint64_t n_direct = 0, direct_bytes = 0;  // live blocks beyond
  uint64_t mapped_bytes = 0;                // pages for those
  uint64_t kept_bytes = 0;                  // pages of blocks given back and not yet to the source, small or large
  Tracking tracking = Tracking::kOff;
  std::vector<SiteUse> sites;  // of the live blocks that were noted

  uint64_t live_bytes() const { return small_bytes + direct_bytes; }
  // What nobody else can have.
  uint64_t held_bytes() const { return touched_bytes + mapped_bytes + kept_bytes; }
};
// Lines for people, the `n_sites` largest sites among them.
std::string describe(const PoolReport& report, size_t n_sites = 10);

// What an allocation or a release was, for those who record them.
struct PoolEvent {
  const void* data;
  size_t size_bytes;
  bool released;
};

// Blocks of any size out of one source of the host's memory: small ones by size class, through a cache a thread; larger
// ones next to each other in regions, without a ceiling. Blocks lie on multiples of 16 bytes, large ones and sizes that
// are multiples of 64 on whole cache lines. Their size is given again when they go back, and any thread may give them
// back; one that ends leaves its cache to the others. Thread-safe.
class Pool {
 public:
  // The source outlives the pool, the pool its blocks.
  explicit Pool(const PoolOptions& options = {}, const MemorySource& source = host_source());
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // At least `size_bytes`, not cleared. Null where the source has no more.
  void* allocate(size_t size_bytes) noexcept;
  // `size_bytes` as asked for. Null is fine.
  void release(void* data, size_t size_bytes) noexcept;

  // The same, cleared. `huge_pages`: false for memory that fills up slowly; it is then fresh from the source, and
  // pages that nobody touches cost nothing.
  std::byte* allocate_zeroed(size_t size_bytes, bool huge_pages, CallSite site = CallSite::here()) noexcept;
  void release_zeroed(void* data, size_t size_bytes, bool huge_pages) noexcept;

  // Caches that threads have already keep their sizes.
  void configure(const PoolOptions& options);
  // From now on; notes of live blocks stay.
  void set_tracking(Tracking level) { set_watching(level, observer_.load(std::memory_order_relaxed)); }
  // Called for each allocation and release, in the thread that does it, until it is set to null.
  using Observer = void (*)(const PoolEvent& event);
  void set_observer(Observer observer) { set_watching(tracker_.level(), observer); }

  // Gives back to the source what is free; other threads keep their caches.
  void trim() noexcept;
  // Gives back what no block had since the call before the last; true if something is left for later calls. Releases of
  // large blocks do it when it is time (PoolOptions::decay_ms), or a keeper (memory/keeper.h).
  bool decay() noexcept;
  // Returns once large blocks were released since the call before, or small ones that were many.
  void wait_for_release() noexcept;
  PoolReport report() const;

  // For threads' caches: a new one, and one whose thread ends.
  void adopt(ThreadCache& cache) noexcept;
  void retire(ThreadCache& cache) noexcept;

 private:
  // The blocks of one class that no thread's cache has.
  struct alignas(64) Central {
    mutable std::mutex mutex;
    SpanList spans;  // with blocks to give
    uint64_t n_out = 0;
    uint64_t touched_bytes = 0;  // pages of its spans that blocks were carved from
  };

  ThreadCache* my_cache() noexcept {
    return recent_cache.pool_id == id_ ? recent_cache.cache : find_thread_cache(*this, id_);
  }
  [[gnu::noinline]] void* refill_unwatched(ThreadCache& cache, int size_class, size_t size_bytes) noexcept;
  [[gnu::noinline]] void* allocate_watched(size_t size_bytes, const void* address) noexcept;
  std::byte* allocate_block(size_t size_bytes, bool zeroed, bool huge_pages, const CallSite& site) noexcept;
  [[gnu::noinline]] void release_watched(void* data, size_t size_bytes, bool keep) noexcept;
  void release_block(void* data, size_t size_bytes, bool keep) noexcept;
  void* refill(ThreadCache* cache, int size_class) noexcept;
  FreeBlock* take_central(int size_class, uint32_t n_wanted, uint32_t& n_taken) noexcept;
  void give_central(int size_class, FreeBlock* blocks) noexcept;
  [[gnu::noinline]] void flush(ThreadCache::List& list, int size_class, uint32_t n_left) noexcept;
  void set_watching(Tracking level, Observer observer);
  void note_release() noexcept;
  void decay_when_due() noexcept;

  const uint64_t id_;  // of no other pool, ever
  SpanHeap heap_;
  DirectBlocks direct_;
  std::array<Central, kSizeClasses> central_;
  Tracker tracker_;
  std::atomic<Observer> observer_{nullptr};
  std::atomic<Tracking> watching_{Tracking::kOff};  // the tracker's level; kFull with an observer
  std::atomic<size_t> thread_cache_bytes_;
  std::atomic<int64_t> decay_ms_, next_decay_ms_{0};
  std::atomic<bool> released_{false};  // something that decay() would give back
  mutable std::mutex caches_mutex_;
  ThreadCache* caches_ = nullptr;
  std::array<uint32_t, DirectBlocks::kHomes> n_at_home_{};  // threads
};

namespace host_pool_detail {
extern constinit std::atomic<Pool*> pool;
Pool& make();
}  // namespace host_pool_detail

// The pool of the process, for Buffer and PoolVector. It is never destroyed.
inline Pool& host_pool() {
  Pool* const pool = host_pool_detail::pool.load(std::memory_order_acquire);
  return pool != nullptr ? *pool : host_pool_detail::make();
}

}  // namespace bitnet
