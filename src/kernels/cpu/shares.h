#pragma once

#include "kernels/cpu/cpu_stream.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace bitnet {

// Hands out [0, total) to the stream's threads: fn(begin, end, thread). A thread takes an ever smaller share of what is
// left: on a shared machine threads run at different speeds, and with equal shares each product would wait for the
// slowest.
template <class Fn>
void parallel_shares(CpuStream& stream, int64_t total, const Fn& fn) {
  const int64_t n_threads = stream.pool().n_threads();
  std::atomic<int64_t>& next = stream.next_item();
  next.store(0, std::memory_order_relaxed);
  stream.pool().run([&](int thread) {
    int64_t begin = next.load(std::memory_order_relaxed);
    while (begin < total) {
      const int64_t end = begin + std::max<int64_t>(1, (total - begin) / (2 * n_threads));
      if (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      fn(begin, end, thread);
      begin = next.load(std::memory_order_relaxed);
    }
  });
}

}  // namespace bitnet
