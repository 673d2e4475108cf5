#include "memory/profile.h"

#include "memory/keeper.h"
#include "memory/size_class.h"

#include <algorithm>
#include <array>
#include <vector>

namespace bitnet {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kSmallMachine_bytes = uint64_t{2} << 30;
constexpr size_t kLeastCache_bytes = 4 << 10, kMostCache_bytes = 256 << 10;

uint64_t most_kept_bytes(const MemoryLimits& limits) {
  return limits.limit_bytes == 0 ? 64 * kMiB : limits.limit_bytes / 16;
}

// What is not much more than `best`.
bool nearly(uint64_t n, uint64_t best) { return n <= best + best / 20 + 1; }

}  // namespace

const char* profile_name(Profile profile) {
  switch (profile) {
    case Profile::kSmall: return "small";
    case Profile::kServer: return "server";
    case Profile::kTraining: return "training";
  }
  return "server";
}

Profile fitting_profile(Profile wanted, const MemoryLimits& limits) {
  return limits.limit_bytes > 0 && limits.limit_bytes < kSmallMachine_bytes ? Profile::kSmall : wanted;
}

PoolOptions pool_options(Profile profile, const MemoryLimits& limits) {
  PoolOptions options;
  switch (profile) {
    case Profile::kSmall: options = {kLeastCache_bytes, 0, 1000, false}; break;
    case Profile::kServer: options = {32 << 10, 128 * kMiB, 1000, false}; break;
    // A step may take seconds, and the next one wants the same memory.
    case Profile::kTraining: options = {64 << 10, 512 * kMiB, 5000, true}; break;
  }
  options.kept_bytes = std::min(options.kept_bytes, most_kept_bytes(limits));
  return options;
}

void configure_host_pool(Profile wanted) {
  const MemoryLimits limits = read_memory_limits();
  PoolOptions options = pool_options(fitting_profile(wanted, limits), limits);
  if (start_pool_keeper(host_pool(), options.decay_ms)) options.decay_ms = 0;  // the keeper's work alone
  host_pool().configure(options);
}

TraceCost trace_cost(const AllocationTrace& trace, const PoolOptions& options) {
  TraceCost cost;
  std::array<uint64_t, kSizeClasses> n_cached{};
  uint64_t kept_bytes = 0;  // as if they could lie anywhere
  std::vector<uint64_t> sizes(trace.n_blocks);
  const auto at_once = [&](int index) {
    return std::max<uint64_t>(1, options.thread_cache_bytes / kClassShapes[size_t(index)].size_bytes);
  };
  for (const AllocationTrace::Event& event : trace.events) {
    const bool release = event.size_bytes == 0;
    if (!release) sizes[event.block] = event.size_bytes;
    const size_t size_bytes = sizes[event.block];
    if (size_bytes <= kSmallLimit_bytes) {
      uint64_t& n = n_cached[size_t(size_class(size_bytes))];
      const uint64_t n_batch = at_once(size_class(size_bytes));
      if (release) {
        n = n == 2 * n_batch ? n_batch : n + 1;
      } else if (n > 0) {
        --n;
      } else {
        n = n_batch - 1;
        ++cost.n_refills;
      }
      continue;
    }
    if (release) {
      kept_bytes = std::min(kept_bytes + size_bytes, options.kept_bytes);
    } else {
      cost.n_maps += kept_bytes < size_bytes;
      kept_bytes -= std::min<uint64_t>(kept_bytes, size_bytes);
    }
  }
  return cost;
}

PoolOptions adapt_options(const AllocationTrace& trace, const MemoryLimits& limits) {
  PoolOptions options;
  options.thread_cache_bytes = kMostCache_bytes;
  options.kept_bytes = most_kept_bytes(limits);
  const TraceCost best = trace_cost(trace, options);
  for (size_t bytes = kLeastCache_bytes; bytes < kMostCache_bytes; bytes *= 2) {
    PoolOptions smaller = options;
    smaller.thread_cache_bytes = bytes;
    if (!nearly(trace_cost(trace, smaller).n_refills, best.n_refills)) continue;
    options.thread_cache_bytes = bytes;
    break;
  }
  const uint64_t most = options.kept_bytes;
  for (uint64_t bytes = 0; bytes < most; bytes = std::max(kMiB, 2 * bytes)) {
    PoolOptions smaller = options;
    smaller.kept_bytes = bytes;
    if (!nearly(trace_cost(trace, smaller).n_maps, best.n_maps)) continue;
    options.kept_bytes = bytes;
    break;
  }
  return options;
}

}  // namespace bitnet
