#include "memory/direct_blocks.h"

#include "memory/poison.h"

#include <cstdlib>

namespace bitnet {

DirectBlocks::DirectBlocks(const MemorySource& source)
    : source_(source), homes_{{{source, 0}, {source, 1}, {source, 2}, {source, 3}}} {}

template <class Fn>
auto DirectBlocks::in(Home& home, const Fn& fn) {
  const std::lock_guard<std::mutex> lock(home.mutex);
  auto result = fn(home);
  const int64_t more_bytes = home.kept_bytes() - home.counted_bytes;
  if (std::abs(more_bytes) > untold_bytes()) {
    kept_bytes_.fetch_add(more_bytes, std::memory_order_relaxed);
    home.counted_bytes += more_bytes;
  }
  return result;
}

DirectBlocks::Block DirectBlocks::take(size_t size_bytes, bool alone, size_t number) {
  if (alone) return take_alone(size_bytes);
  Home& home = homes_[number % kHomes];
  Block block = take_from(home, size_bytes, true);
  if (block.data != nullptr) return block;
  trim();
  block = take_from(home, size_bytes, true);
  for (size_t i = 0; block.data == nullptr && i < kHomes; ++i) block = take_from(homes_[i], size_bytes, false);
  return block;
}

DirectBlocks::Block DirectBlocks::take_from(Home& home, size_t size_bytes, bool may_grow) {
  return in(home, [&](Home& h) {
    RegionHeap& heap = h.heap_for(size_bytes);
    Block block = heap.take(size_bytes);
    if (block.data == nullptr && may_grow) {
      // Where nothing is kept a region is a block's own.
      const bool shared = size_bytes <= kShared_bytes && limit_bytes_.load(std::memory_order_relaxed) > 0;
      const bool huge_pages = size_bytes > kShared_bytes || huge_pages_.load(std::memory_order_relaxed);
      if (heap.add_region(size_bytes, shared ? kRegion_bytes : 0, huge_pages)) block = heap.take(size_bytes);
    }
    h.n_live += block.data != nullptr;
    h.live_bytes += block.data != nullptr ? size_bytes : 0;
    return block;
  });
}

DirectBlocks::Block DirectBlocks::take_alone(size_t size_bytes) {
  const size_t mapped = mapped_bytes(size_bytes);
  Result<std::byte*> data = source_.take(source_, {mapped, 4096, false});
  if (!data) {
    trim();
    data = source_.take(source_, {mapped, 4096, false});
    if (!data) return {};
  }
  poison(*data + size_bytes, mapped - size_bytes);
  n_alone_.fetch_add(1, std::memory_order_relaxed);
  alone_bytes_.fetch_add(size_bytes, std::memory_order_relaxed);
  mapped_alone_bytes_.fetch_add(mapped, std::memory_order_relaxed);
  return {*data, 0, size_bytes};
}

void DirectBlocks::release(std::byte* data, size_t size_bytes, bool alone) {
  if (alone) {
    const size_t mapped = mapped_bytes(size_bytes);
    n_alone_.fetch_sub(1, std::memory_order_relaxed);
    alone_bytes_.fetch_sub(size_bytes, std::memory_order_relaxed);
    mapped_alone_bytes_.fetch_sub(mapped, std::memory_order_relaxed);
    unpoison(data, mapped);
    source_.give_back(source_, data, mapped);
    return;
  }
  RegionHeap& heap = *Run::of(data)->region->heap;
  in(homes_[heap.home], [&](Home& home) {
    --home.n_live;
    home.live_bytes -= size_bytes;
    const int64_t kept_bytes = kept_bytes_.load(std::memory_order_relaxed) + home.kept_bytes() - home.counted_bytes;
    const int64_t others_bytes = int64_t{kHomes - 1} * untold_bytes();  // that they may not have told
    heap.release(data, kept_bytes + others_bytes + int64_t(size_bytes) <= int64_t(limit_bytes_.load(std::memory_order_relaxed)));
    return true;
  });
}

void DirectBlocks::configure(uint64_t kept_bytes, bool huge_pages) {
  huge_pages_.store(huge_pages, std::memory_order_relaxed);
  limit_bytes_.store(kept_bytes, std::memory_order_relaxed);
  if (kept_bytes_.load(std::memory_order_relaxed) > int64_t(kept_bytes)) trim();
}

bool DirectBlocks::decay() {
  bool more = false;
  for (Home& home : homes_) {
    more |= in(home, [](Home& h) {
      const bool of_shared = h.shared.decay();
      return h.large.decay() || of_shared;
    });
  }
  return more;
}

void DirectBlocks::trim() {
  for (Home& home : homes_) {
    in(home, [](Home& h) {
      h.shared.trim();
      h.large.trim();
      return true;
    });
  }
}

DirectBlocks::Use DirectBlocks::use() const {
  Use use;
  use.n_live = n_alone_.load(std::memory_order_relaxed);
  use.live_bytes = alone_bytes_.load(std::memory_order_relaxed);
  use.mapped_bytes = mapped_alone_bytes_.load(std::memory_order_relaxed);
  for (const Home& home : homes_) {
    const std::lock_guard<std::mutex> lock(home.mutex);
    const uint64_t kept_bytes = home.shared.free_touched_bytes() + home.large.free_touched_bytes();
    use.n_live += home.n_live;
    use.live_bytes += home.live_bytes;
    use.kept_bytes += kept_bytes;
    use.mapped_bytes += home.shared.touched_bytes() + home.large.touched_bytes() - kept_bytes;
  }
  return use;
}

}  // namespace bitnet
