#include "memory/direct_blocks.h"

#include "memory/poison.h"

#include <new>

namespace bitnet {

DirectBlocks::Block DirectBlocks::take(size_t size_bytes, bool huge_pages, bool fresh) {
  const size_t mapped = mapped_bytes(size_bytes);
  if (!fresh) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // The one that was given back last is the likeliest to be in a processor's cache.
    if (Kept* const kept = bins_[bin_of(mapped)]) {
      unlink(kept);
      auto* const data = reinterpret_cast<std::byte*>(kept);
      count_live(1, size_bytes);
      unpoison(data, size_bytes);
      return {data, false};
    }
  }
  Result<std::byte*> data = source_.take(source_, {mapped, 4096, huge_pages});
  if (!data) {
    trim();
    data = source_.take(source_, {mapped, 4096, huge_pages});
    if (!data) return {};
  }
  poison(*data + size_bytes, mapped - size_bytes);
  const std::lock_guard<std::mutex> lock(mutex_);
  count_live(1, size_bytes);
  return {*data, true};
}

void DirectBlocks::release(std::byte* data, size_t size_bytes, bool keep) {
  const size_t mapped = mapped_bytes(size_bytes);
  std::unique_lock<std::mutex> lock(mutex_);
  count_live(-1, size_bytes);
  if (!keep || mapped > limit_bytes_) {
    lock.unlock();
    unpoison(data, mapped);
    source_.give_back(source_, data, mapped);
    return;
  }
  while (use_.kept_bytes + mapped > limit_bytes_) drop_oldest();
  poison(data + sizeof(Kept), mapped - sizeof(Kept));
  unpoison(data, sizeof(Kept));
  Kept*& bin = bins_[bin_of(mapped)];
  auto* const kept = new (data) Kept{mapped, bin, nullptr, newest_, nullptr};
  if (bin != nullptr) bin->previous = kept;
  bin = kept;
  (newest_ != nullptr ? newest_->newer : oldest_) = kept;
  newest_ = kept;
  use_.kept_bytes += mapped;
}

void DirectBlocks::unlink(Kept* kept) {
  if (kept->next != nullptr) kept->next->previous = kept->previous;
  (kept->previous != nullptr ? kept->previous->next : bins_[bin_of(kept->mapped_bytes)]) = kept->next;
  (kept->newer != nullptr ? kept->newer->older : newest_) = kept->older;
  (kept->older != nullptr ? kept->older->newer : oldest_) = kept->newer;
  use_.kept_bytes -= kept->mapped_bytes;
}

// `n`: 1 or -1.
void DirectBlocks::count_live(int n, size_t size_bytes) {
  use_.n_live += uint64_t(n);
  use_.live_bytes += uint64_t(n) * size_bytes;
  use_.mapped_bytes += uint64_t(n) * mapped_bytes(size_bytes);
}

void DirectBlocks::drop_oldest() {
  auto* const data = reinterpret_cast<std::byte*>(oldest_);
  const size_t mapped = oldest_->mapped_bytes;
  unlink(oldest_);
  unpoison(data, mapped);
  source_.give_back(source_, data, mapped);
}

void DirectBlocks::trim() {
  const std::lock_guard<std::mutex> lock(mutex_);
  while (oldest_ != nullptr) drop_oldest();
}

void DirectBlocks::set_limit(uint64_t limit_bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  limit_bytes_ = limit_bytes;
  while (use_.kept_bytes > limit_bytes_) drop_oldest();
}

DirectBlocks::Use DirectBlocks::use() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return use_;
}

}  // namespace bitnet
