#pragma once

#include "memory/limits.h"
#include "memory/pool.h"
#include "memory/trace.h"

#include <cstdint>
#include <string_view>

namespace bitnet {

// What a program is mostly doing with memory.
enum class Profile : uint8_t {
  kSmall,     // a machine or a control group with little: nothing is kept back
  kServer,    // sessions come and go
  kTraining,  // the same large blocks again each step
};
const char* profile_name(Profile profile);

// kSmall below 2 GiB, else as asked for.
Profile fitting_profile(Profile wanted, const MemoryLimits& limits);
// Never keeps back more than a sixteenth of the limit.
PoolOptions pool_options(Profile profile, const MemoryLimits& limits);

// The pool of the process, for what the program is about to do on this machine; from the first call on with a keeper
// (memory/keeper.h).
void configure_host_pool(Profile wanted);

// What a trace would cost the pool.
struct TraceCost {
  uint64_t n_refills = 0;  // of a thread's cache
  uint64_t n_maps = 0;     // large blocks for which what is kept is not enough
};
TraceCost trace_cost(const AllocationTrace& trace, const PoolOptions& options);
// The smallest caches with which the trace costs hardly more than with the largest ones that the limits allow.
PoolOptions adapt_options(const AllocationTrace& trace, const MemoryLimits& limits);

}  // namespace bitnet
