#include "memory/direct_blocks.h"

#include "memory/poison.h"

#include <algorithm>

namespace bitnet {
namespace {

constexpr size_t kMostKept = 256;  // blocks; few enough to look through

}  // namespace

DirectBlocks::Block DirectBlocks::take(size_t size_bytes, bool huge_pages, bool fresh) {
  const size_t mapped = mapped_bytes(size_bytes);
  if (!fresh) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // The one that was given back last is the likeliest to be in a cache.
    const auto found =
        std::find_if(kept_.rbegin(), kept_.rend(), [&](const Kept& kept) { return kept.mapped_bytes == mapped; });
    if (found != kept_.rend()) {
      std::byte* const data = found->data;
      kept_.erase(std::next(found).base());
      use_.kept_bytes -= mapped;
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
  while (use_.kept_bytes + mapped > limit_bytes_ || kept_.size() >= kMostKept) drop_oldest();
  poison(data, mapped);
  kept_.push_back({data, mapped});
  use_.kept_bytes += mapped;
}

// `n`: 1 or -1.
void DirectBlocks::count_live(int n, size_t size_bytes) {
  use_.n_live += uint64_t(n);
  use_.live_bytes += uint64_t(n) * size_bytes;
  use_.mapped_bytes += uint64_t(n) * mapped_bytes(size_bytes);
}

void DirectBlocks::drop_oldest() {
  const Kept oldest = kept_.front();
  kept_.erase(kept_.begin());
  use_.kept_bytes -= oldest.mapped_bytes;
  unpoison(oldest.data, oldest.mapped_bytes);
  source_.give_back(source_, oldest.data, oldest.mapped_bytes);
}

void DirectBlocks::trim() {
  const std::lock_guard<std::mutex> lock(mutex_);
  while (!kept_.empty()) drop_oldest();
}

void DirectBlocks::set_limit(uint64_t limit_bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  limit_bytes_ = limit_bytes;
  kept_.reserve(kMostKept + 1);  // so that giving back takes no memory
  while (use_.kept_bytes > limit_bytes_) drop_oldest();
}

DirectBlocks::Use DirectBlocks::use() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return use_;
}

}  // namespace bitnet
