#include "memory/pool.h"

#include <fmt/format.h>

#include <time.h>
#include <algorithm>
#include <cstring>
#include <iterator>

namespace bitnet {
namespace {

// Half of the most blocks of one size in a thread's cache, and the blocks that the first and any later refill bring.
constexpr size_t kMostAtOnce = 2048;
constexpr uint32_t kFirstBatch = 8, kMostBatch = 256;

uint64_t next_pool_id() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

int64_t now_ms() {
  timespec now;
#ifdef CLOCK_MONOTONIC_COARSE
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
  ::clock_gettime(CLOCK_MONOTONIC, &now);
#endif
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

bool is_small(size_t size_bytes) { return size_bytes - 1 < kSmallLimit_bytes; }

}  // namespace

Pool::Pool(const PoolOptions& options, const MemorySource& source)
    : id_(next_pool_id()), heap_(source), direct_(source) {
  configure(options);
}

Pool::~Pool() { forget_thread_caches(caches_); }

void Pool::configure(const PoolOptions& options) {
  thread_cache_bytes_.store(options.thread_cache_bytes, std::memory_order_relaxed);
  decay_ms_.store(options.decay_ms, std::memory_order_relaxed);
  direct_.configure(options.kept_bytes, options.huge_pages);
}

// The usual case of allocate() and release() is kept free of calls but the last, so that it needs no stack.
void* Pool::allocate(size_t size_bytes) noexcept {
  const RecentCache recent = recent_cache;
  const Tracking watching = watching_.load(std::memory_order_relaxed);
  if (is_small(size_bytes) && recent.pool_id == id_) [[likely]] {
    ThreadCache& cache = *recent.cache;
    if (watching == Tracking::kOff ||
        (watching == Tracking::kSampled && (cache.until_sample_bytes -= int64_t(size_bytes)) >= 0)) [[likely]] {
      const int index = size_class(size_bytes);
      ThreadCache::List& list = cache.list(index);
      if (list.head == nullptr) [[unlikely]]
        return refill_unwatched(cache, index, size_bytes);
      FreeBlock* const block = list.pop();
      unpoison(block, size_bytes);
      return block;
    }
  }
  return allocate_watched(size_bytes, __builtin_return_address(0));
}

void* Pool::refill_unwatched(ThreadCache& cache, int index, size_t size_bytes) noexcept {
  void* const data = refill(&cache, index);
  if (data != nullptr) unpoison(data, size_bytes);
  return data;
}

void* Pool::allocate_watched(size_t size_bytes, const void* address) noexcept {
  return allocate_block(size_bytes, false, true, CallSite{nullptr, 0, address});
}

std::byte* Pool::allocate_zeroed(size_t size_bytes, bool huge_pages, CallSite site) noexcept {
  return allocate_block(size_bytes, true, huge_pages, site);
}

std::byte* Pool::allocate_block(size_t size_bytes, bool zeroed, bool huge_pages, const CallSite& site) noexcept {
  size_bytes = std::max<size_t>(size_bytes, 1);
  std::byte* data = nullptr;
  if (is_small(size_bytes)) {
    ThreadCache* const cache = my_cache();
    const int index = size_class(size_bytes);
    data = static_cast<std::byte*>(cache != nullptr && cache->lists[size_t(index)].head != nullptr
                                       ? cache->lists[size_t(index)].pop()
                                       : refill(cache, index));
    if (data == nullptr) return nullptr;
    unpoison(data, size_bytes);
    if (zeroed) std::memset(data, 0, size_bytes);
  } else {
    const ThreadCache* const cache = my_cache();
    const DirectBlocks::Block block = direct_.take(size_bytes, !huge_pages, cache == nullptr ? 0 : cache->home);
    data = block.data;
    if (data == nullptr) return nullptr;
    if (zeroed) {
      std::memset(data, 0, block.zero_begin);
      std::memset(data + block.zero_end, 0, size_bytes - block.zero_end);
    }
  }
  const Tracking watching = watching_.load(std::memory_order_relaxed);
  if (watching == Tracking::kOff) return data;
  if (const Observer observer = observer_.load(std::memory_order_acquire)) observer({data, size_bytes, false});
  const Tracking level = tracker_.level();
  if (level == Tracking::kSampled) {
    ThreadCache* const cache = my_cache();
    if (cache != nullptr && !is_small(size_bytes)) cache->until_sample_bytes -= int64_t(size_bytes);
    if (cache == nullptr || cache->until_sample_bytes >= 0) return data;
    cache->until_sample_bytes = Tracker::kSample_bytes;
  }
  if (level != Tracking::kOff) tracker_.add(data, size_bytes, site);
  return data;
}

void Pool::release(void* data, size_t size_bytes) noexcept {
  const RecentCache recent = recent_cache;
  if (is_small(size_bytes) && recent.pool_id == id_ && data != nullptr && !tracker_.watches(data) &&
      observer_.load(std::memory_order_relaxed) == nullptr) [[likely]] {
    const int index = size_class(size_bytes);
    ThreadCache::List& list = recent.cache->list(index);
    poison(data, size_bytes);
    if (list.push(static_cast<FreeBlock*>(data)) > list.limit) [[unlikely]]
      flush(list, index, list.limit / 2);
    return;
  }
  release_watched(data, size_bytes, true);
}

void Pool::release_zeroed(void* data, size_t size_bytes, bool huge_pages) noexcept {
  release_watched(data, size_bytes, huge_pages);
}

// `keep`: a large block may serve others.
void Pool::release_watched(void* data, size_t size_bytes, bool keep) noexcept {
  if (data == nullptr) return;
  size_bytes = std::max<size_t>(size_bytes, 1);
  if (const Observer observer = observer_.load(std::memory_order_acquire)) observer({data, size_bytes, true});
  if (tracker_.watches(data)) tracker_.remove(data);
  release_block(data, size_bytes, keep);
}

void Pool::release_block(void* data, size_t size_bytes, bool keep) noexcept {
  if (!is_small(size_bytes)) {
    direct_.release(static_cast<std::byte*>(data), size_bytes, !keep);
    note_release();
    return decay_when_due();
  }
  const int index = size_class(size_bytes);
  poison(data, size_bytes);
  ThreadCache* const cache = my_cache();
  if (cache == nullptr) {
    auto* const block = static_cast<FreeBlock*>(data);
    set_next(block, nullptr);
    return give_central(index, block);
  }
  ThreadCache::List& list = cache->lists[size_t(index)];
  if (list.push(static_cast<FreeBlock*>(data)) > list.limit) flush(list, index, list.limit / 2);
}

// One block to the caller, others to the cache, if there is one.
void* Pool::refill(ThreadCache* cache, int index) noexcept {
  uint32_t n_taken = 0;
  if (cache == nullptr) return take_central(index, 1, n_taken);
  ThreadCache::List& list = cache->lists[size_t(index)];
  FreeBlock* const blocks = take_central(index, std::max(1u, list.n_batch), n_taken);
  if (blocks == nullptr) return nullptr;
  list.n_batch = std::min({2 * list.n_batch, kMostBatch, list.limit / 2});
  list.head = next_of(blocks);
  list.n.store(n_taken - 1, std::memory_order_relaxed);
  return blocks;
}

FreeBlock* Pool::take_central(int index, uint32_t n_wanted, uint32_t& n_taken) noexcept {
  const ClassShape& shape = kClassShapes[size_t(index)];
  Central& central = central_[size_t(index)];
  const std::lock_guard<std::mutex> lock(central.mutex);
  FreeBlock* taken = nullptr;
  for (n_taken = 0; n_taken < n_wanted;) {
    Span* span = central.spans.front();
    if (span == nullptr) {
      if (n_taken > 0) break;  // a part of what is wanted will do
      span = heap_.take(index);
      if (span == nullptr) return nullptr;
      central.spans.push(span);
    }
    for (; n_taken < n_wanted && span->free != nullptr; ++n_taken) {
      FreeBlock* const block = span->free;
      span->free = next_of(block);
      ++span->n_used;
      set_next(block, taken);
      taken = block;
    }
    // From the last to the first, so that they are handed out by rising addresses.
    const uint32_t n_new = std::min(n_wanted - n_taken, shape.n_blocks - span->n_carved);
    for (uint32_t i = n_new; i-- > 0;) {
      auto* const block = reinterpret_cast<FreeBlock*>(span->data() + size_t(span->n_carved + i) * shape.size_bytes);
      set_next(block, taken);
      taken = block;
    }
    central.touched_bytes -= span->n_carved == 0 ? 0 : span->touched_bytes();
    span->n_carved += n_new;
    central.touched_bytes += span->n_carved == 0 ? 0 : span->touched_bytes();
    span->n_used += n_new;
    n_taken += n_new;
    if (span->free == nullptr && span->n_carved == shape.n_blocks) central.spans.remove(span);
  }
  central.n_out += n_taken;
  return taken;
}

void Pool::give_central(int index, FreeBlock* blocks) noexcept {
  const ClassShape& shape = kClassShapes[size_t(index)];
  Central& central = central_[size_t(index)];
  const std::lock_guard<std::mutex> lock(central.mutex);
  while (blocks != nullptr) {
    FreeBlock* const block = blocks;
    blocks = next_of(block);
    Span* const span = Span::of(block);
    const bool was_full = span->free == nullptr && span->n_carved == shape.n_blocks;
    set_next(block, span->free);
    span->free = block;
    --span->n_used;
    --central.n_out;
    if (was_full) central.spans.push(span);
    // The last span with blocks to give stays, or one block going to and fro would take and release it each time.
    if (span->n_used == 0 && (central.spans.front() != span || span->next != nullptr)) {
      central.spans.remove(span);
      central.touched_bytes -= span->touched_bytes();
      heap_.release(span);
      note_release();
    }
  }
}

void Pool::flush(ThreadCache::List& list, int index, uint32_t n_left) noexcept {
  const uint32_t n = list.n.load(std::memory_order_relaxed);
  if (n <= n_left) return;
  // The newest stay: the caches of the processor have them.
  FreeBlock* given = list.head;
  if (n_left == 0) {
    list.head = nullptr;
  } else {
    FreeBlock* last = list.head;
    for (uint32_t i = 1; i < n_left; ++i) last = next_of(last);
    given = next_of(last);
    set_next(last, nullptr);
  }
  list.n.store(n_left, std::memory_order_relaxed);
  give_central(index, given);
}

void Pool::adopt(ThreadCache& cache) noexcept {
  const size_t cache_bytes = thread_cache_bytes_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < size_t(kSizeClasses); ++i) {
    const size_t at_once = std::clamp<size_t>(cache_bytes / kClassShapes[i].size_bytes, 1, kMostAtOnce);
    cache.lists[i].limit = cache_bytes == 0 ? 0 : uint32_t(2 * at_once);
    cache.lists[i].n_batch = std::min(kFirstBatch, cache.lists[i].limit / 2);
  }
  cache.until_sample_bytes = Tracker::kSample_bytes;
  const std::lock_guard<std::mutex> lock(caches_mutex_);
  const auto home = std::min_element(n_at_home_.begin(), n_at_home_.end());
  ++*home;
  cache.home = size_t(home - n_at_home_.begin());
  cache.next_of_pool = caches_;
  caches_ = &cache;
}

void Pool::retire(ThreadCache& cache) noexcept {
  for (size_t i = 0; i < size_t(kSizeClasses); ++i) flush(cache.lists[i], int(i), 0);
  const std::lock_guard<std::mutex> lock(caches_mutex_);
  --n_at_home_[cache.home];
  ThreadCache** link = &caches_;
  while (*link != &cache) link = &(*link)->next_of_pool;
  *link = cache.next_of_pool;
}

void Pool::set_watching(Tracking level, Observer observer) {
  tracker_.set_level(level);
  observer_.store(observer, std::memory_order_release);
  watching_.store(observer != nullptr ? Tracking::kFull : level, std::memory_order_relaxed);
}

void Pool::trim() noexcept {
  if (ThreadCache* const cache = my_cache()) {
    for (size_t i = 0; i < size_t(kSizeClasses); ++i) flush(cache->lists[i], int(i), 0);
  }
  for (Central& central : central_) {
    const std::lock_guard<std::mutex> lock(central.mutex);
    for (Span* span = central.spans.front(); span != nullptr;) {
      Span* const next = span->next;
      if (span->n_used == 0) {
        central.spans.remove(span);
        central.touched_bytes -= span->n_carved == 0 ? 0 : span->touched_bytes();
        heap_.release(span);
      }
      span = next;
    }
  }
  heap_.trim();
  direct_.trim();
}

bool Pool::decay() noexcept {
  const bool small_ones = heap_.decay();
  return direct_.decay() || small_ones;
}

void Pool::wait_for_release() noexcept {
  released_.wait(false);
  released_.store(false);
}

void Pool::note_release() noexcept {
  if (released_.load(std::memory_order_relaxed)) return;
  released_.store(true);
  released_.notify_one();
}

void Pool::decay_when_due() noexcept {
  const int64_t decay_ms = decay_ms_.load(std::memory_order_relaxed);
  if (decay_ms == 0) return;
  const int64_t now = now_ms();
  int64_t due = next_decay_ms_.load(std::memory_order_relaxed);
  if (now < due || !next_decay_ms_.compare_exchange_strong(due, now + decay_ms, std::memory_order_relaxed)) return;
  if (due != 0) decay();  // 0: the first release of all
}

PoolReport Pool::report() const {
  PoolReport report;
  std::array<uint64_t, kSizeClasses> n_cached{};
  {
    const std::lock_guard<std::mutex> lock(caches_mutex_);
    for (const ThreadCache* cache = caches_; cache != nullptr; cache = cache->next_of_pool) {
      for (size_t i = 0; i < size_t(kSizeClasses); ++i) {
        n_cached[i] += cache->lists[i].n.load(std::memory_order_relaxed);
      }
    }
  }
  for (size_t i = 0; i < size_t(kSizeClasses); ++i) {
    uint64_t n_out = 0;
    {
      const std::lock_guard<std::mutex> lock(central_[i].mutex);
      n_out = central_[i].n_out;
      report.touched_bytes += central_[i].touched_bytes;
    }
    // Threads go on while they are counted.
    const uint64_t n_live = n_out - std::min(n_out, n_cached[i]);
    report.n_small += n_live;
    report.small_bytes += n_live * kClassShapes[i].size_bytes;
    report.cached_bytes += std::min(n_out, n_cached[i]) * kClassShapes[i].size_bytes;
  }
  const SpanHeap::Use heap = heap_.use();
  const DirectBlocks::Use direct = direct_.use();
  report.span_bytes = heap.span_bytes;
  report.segment_bytes = heap.segment_bytes;
  report.n_direct = direct.n_live;
  report.direct_bytes = direct.live_bytes;
  report.mapped_bytes = direct.mapped_bytes;
  report.kept_bytes = direct.kept_bytes + heap.kept_bytes;
  report.tracking = tracker_.level();
  report.sites = tracker_.sites();
  return report;
}

std::string describe(const PoolReport& report, size_t n_sites) {
  const auto mib = [](uint64_t n_bytes) { return double(n_bytes) * 0x1p-20; };
  std::string text;
  const auto out = std::back_inserter(text);
  fmt::format_to(out, "live: {} small blocks, {:.2f} MiB; {} large ones, {:.2f} MiB\n", report.n_small,
                 mib(report.small_bytes), report.n_direct, mib(report.direct_bytes));
  fmt::format_to(out, "held: {:.2f} MiB; free in it: {:.2f} MiB in threads' caches, {:.2f} MiB kept for others\n",
                 mib(report.held_bytes()), mib(report.cached_bytes), mib(report.kept_bytes));
  for (size_t i = 0; i < std::min(n_sites, report.sites.size()); ++i) {
    const SiteUse& use = report.sites[i];
    fmt::format_to(out, "{:10.2f} MiB in {} blocks of {}\n", mib(use.size_bytes), use.n_blocks, use.site);
  }
  if (report.sites.size() > n_sites) fmt::format_to(out, "and {} more places\n", report.sites.size() - n_sites);
  return text;
}

namespace host_pool_detail {

constinit std::atomic<Pool*> pool{nullptr};

Pool& make() {
  static Pool& made = *new Pool;
  pool.store(&made, std::memory_order_release);
  return made;
}

}  // namespace host_pool_detail

}  // namespace bitnet
