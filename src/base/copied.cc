#include "base/copied.h"

#include <atomic>

namespace bitnet {
namespace {

std::atomic<uint64_t> n_read{0}, n_moved{0}, n_transferred{0};

}  // namespace

CopiedBytes copied_bytes() {
  return {n_read.load(std::memory_order_relaxed), n_moved.load(std::memory_order_relaxed),
          n_transferred.load(std::memory_order_relaxed)};
}

void count_read(uint64_t n_bytes) { n_read.fetch_add(n_bytes, std::memory_order_relaxed); }
void count_moved(uint64_t n_bytes) { n_moved.fetch_add(n_bytes, std::memory_order_relaxed); }
void count_transferred(uint64_t n_bytes) { n_transferred.fetch_add(n_bytes, std::memory_order_relaxed); }

}  // namespace bitnet
