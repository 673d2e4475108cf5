#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// The allocations and releases of a program in their order. Blocks are numbered by their allocation.
struct AllocationTrace {
  struct Event {
    uint64_t size_bytes = 0;  // 0: a release
    uint32_t block = 0;
  };
  std::vector<Event> events;
  uint32_t n_blocks = 0;

  void allocate(uint64_t size_bytes) { events.push_back({size_bytes == 0 ? 1 : size_bytes, n_blocks++}); }
  void release(uint32_t block) { events.push_back({0, block}); }
};

// About two bytes an event: after eight of magic and the number of events, one little-endian base-128 number each:
// 2 * size, or 2 * (blocks allocated since) + 1 for a release.
std::string encode(const AllocationTrace& trace);
// Refuses what encode() did not write: releases of blocks that are not live, sizes of 0.
Result<AllocationTrace> decode_trace(std::string_view bytes, const std::string& name);

}  // namespace bitnet
