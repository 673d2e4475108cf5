#pragma once

#include "kernels/cpu/cpu_stream.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace bitnet {

// Hands out [0, total) to the stream's threads. A thread takes an ever smaller share of what is left: on a shared
// machine threads run at different speeds, and with equal shares each product would wait for the slowest.
class Shares {
 public:
  Shares(CpuStream& stream, int64_t total, int64_t least = 1)
      : next_(stream.next_item()), total_(total), least_(least) {
    n_threads_ = stream.pool().n_threads();
    next_.store(0, std::memory_order_relaxed);
  }
  // fn(begin, end) for one share after the other until none is left; by every thread.
  template <class Fn>
  void take(const Fn& fn) {
    int64_t begin = next_.load(std::memory_order_relaxed);
    while (begin < total_) {
      const int64_t end = std::min(total_, begin + std::max(least_, (total_ - begin) / (2 * n_threads_)));
      if (!next_.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      fn(begin, end);
      begin = next_.load(std::memory_order_relaxed);
    }
  }

 private:
  std::atomic<int64_t>& next_;
  int64_t total_, least_;
  int64_t n_threads_;
};

// fn(begin, end, thread) for all shares by all threads.
template <class Fn>
void parallel_shares(CpuStream& stream, int64_t total, const Fn& fn) {
  Shares shares(stream, total);
  stream.pool().run([&](int thread) { shares.take([&](int64_t begin, int64_t end) { fn(begin, end, thread); }); });
}

}  // namespace bitnet
