#pragma once

#include "memory/source.h"

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>

namespace bitnet {

// The host's pages, counted; a chosen request, or all from it on, is refused.
class TestSource : public MemorySource {
 public:
  TestSource() : MemorySource{"test", take_pages, give_back_pages, forget_pages} {}

  std::atomic<int64_t> n_takes{0};
  std::atomic<int64_t> fails_at{-1};  // the number of a request, from 0 on; -1: never
  std::atomic<bool> keeps_failing{false};
  std::atomic<int64_t> n_forgotten{0};
  uint64_t live_bytes() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    uint64_t n_bytes = 0;
    for (const auto& [data, size_bytes] : live_) n_bytes += size_bytes;
    return n_bytes;
  }

 private:
  static TestSource& of(const MemorySource& self) {
    return const_cast<TestSource&>(static_cast<const TestSource&>(self));
  }
  static Result<std::byte*> take_pages(const MemorySource& self, const MemoryRequest& request) {
    TestSource& source = of(self);
    const int64_t number = source.n_takes.fetch_add(1), fails_at = source.fails_at.load();
    if (fails_at >= 0 && (number == fails_at || (source.keeps_failing && number > fails_at))) {
      return make_error(ErrorCode::kResource, "request {} is refused", number);
    }
    Result<std::byte*> data = host_source().take(host_source(), request);
    if (data) {
      const std::lock_guard<std::mutex> lock(source.mutex_);
      source.live_[*data] = request.size_bytes;
    }
    return data;
  }
  // Takes back what it gave, whole.
  static void give_back_pages(const MemorySource& self, std::byte* data, size_t size_bytes) {
    TestSource& source = of(self);
    {
      const std::lock_guard<std::mutex> lock(source.mutex_);
      const auto found = source.live_.find(data);
      if (found == source.live_.end() || found->second != size_bytes) std::abort();
      source.live_.erase(found);
    }
    host_source().give_back(host_source(), data, size_bytes);
  }
  static void forget_pages(const MemorySource& self, std::byte* data, size_t size_bytes) {
    ++of(self).n_forgotten;
    host_source().forget(host_source(), data, size_bytes);
  }

  mutable std::mutex mutex_;
  std::map<std::byte*, size_t> live_;
};

}  // namespace bitnet
