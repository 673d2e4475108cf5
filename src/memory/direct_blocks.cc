#include "memory/direct_blocks.h"

#include "memory/poison.h"

#include <cstdlib>

namespace bitnet {

DirectBlocks::DirectBlocks(const MemorySource& source) : homes_{{{source, 0}, {source, 1}, {source, 2}, {source, 3}}} {}

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
  Home& home = homes_[number % kHomes];
  Block block = alone ? Block{} : take_old(home, size_bytes);
  if (block.data == nullptr) block = take_new(home, size_bytes, alone);
  if (block.data != nullptr) return block;
  trim();
  block = take_new(home, size_bytes, alone);
  for (size_t i = 0; !alone && block.data == nullptr && i < kHomes; ++i) block = take_old(homes_[i], size_bytes);
  return block;
}

DirectBlocks::Block DirectBlocks::take_old(Home& home, size_t size_bytes) {
  return in(home, [&](Home& h) {
    const Block block = h.heap_for(size_bytes).take(size_bytes);
    h.count(block, size_bytes);
    return block;
  });
}

DirectBlocks::Block DirectBlocks::take_new(Home& home, size_t size_bytes, bool alone) {
  return in(home, [&](Home& h) {
    const bool large = alone || size_bytes > kShared_bytes;
    // Where nothing is kept every region is a block's own.
    const bool shared = !large && limit_bytes_.load(std::memory_order_relaxed) > 0;
    const bool huge_pages = !alone && (large || huge_pages_.load(std::memory_order_relaxed));
    const Block block = (large ? h.large : h.shared).take_new(size_bytes, shared ? kRegion_bytes : 0, huge_pages);
    h.count(block, size_bytes);
    return block;
  });
}

void DirectBlocks::release(std::byte* data, size_t size_bytes, bool alone) {
  RegionHeap& heap = *Run::of(data)->region->heap;
  in(homes_[heap.home], [&](Home& home) {
    --home.n_live;
    home.live_bytes -= size_bytes;
    const int64_t kept_bytes = kept_bytes_.load(std::memory_order_relaxed) + home.kept_bytes() - home.counted_bytes;
    const int64_t others_bytes = int64_t{kHomes - 1} * untold_bytes();  // that they may not have told
    const auto limit_bytes = int64_t(limit_bytes_.load(std::memory_order_relaxed));
    heap.release(data, !alone && kept_bytes + others_bytes + int64_t(size_bytes) <= limit_bytes);
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
