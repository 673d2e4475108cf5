#pragma once

#include "memory/source.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace bitnet {

struct Region;

// Stands in front of every block of a region and of every free run. Neighbours of a free run are never free.
struct Run {
  std::byte red_zone[16];  // poisoned: where a block that is too short is written beyond its end
  size_t size_bytes;       // with this header, a multiple of 64
  Run* before;             // in the region; null for its first
  Region* region;
  Run *next, *previous;  // free ones of about the same size
  bool free;

  std::byte* data() { return reinterpret_cast<std::byte*>(this + 1); }
  std::byte* end() { return reinterpret_cast<std::byte*>(this) + size_bytes; }
  static Run* of(std::byte* data) { return reinterpret_cast<Run*>(data) - 1; }
};
static_assert(sizeof(Run) == 64);

// A piece of the source; this stands at its beginning. Which pages of it take room is known for granules of one page,
// or of as many as it takes for there to be no more than kMostGranules.
struct Region {
  static constexpr size_t kMostGranules = 8192;
  using Bits = std::array<uint64_t, kMostGranules / 64>;

  size_t size_bytes;
  int granule_log;
  class RegionHeap* heap;
  Region *next, *previous;  // of the heap's
  Bits touched;             // by somebody since the source gave or forgot them
  Bits recent;              // part of a block since the last decay()

  std::byte* data() { return reinterpret_cast<std::byte*>(this); }
  Run* first();
  size_t granule(const std::byte* at) { return size_t(at - data()) >> granule_log; }
};

// Blocks of any size next to each other in regions; free neighbours become one, so that what was given back serves
// blocks of every size. Not thread-safe.
class RegionHeap {
 public:
  RegionHeap(const MemorySource& source, size_t number) : home(number), source_(source) {}
  ~RegionHeap();  // blocks that are still out go too
  RegionHeap(const RegionHeap&) = delete;
  RegionHeap& operator=(const RegionHeap&) = delete;

  const size_t home;  // the owner's number for it

  struct Block {
    std::byte* data = nullptr;            // on a cache line
    size_t zero_begin = 0, zero_end = 0;  // bytes of it that are zero for certain
  };
  // Null data where no region has a free run that is long enough.
  Block take(size_t size_bytes);
  // A block at the beginning of a new region, which is as large as it must be and at least `region_bytes`. Null data
  // where the source has no more.
  Block take_new(size_t size_bytes, size_t region_bytes, bool huge_pages);
  // Of a region for one block.
  static size_t exact_region_bytes(size_t size_bytes);
  // `keep`: its pages stay for another block.
  void release(std::byte* data, bool keep);

  // Forgets the pages of free runs that no block had since the call before the last; true if others are left for later.
  bool decay();
  // Forgets the pages of all free runs; free regions go back to the source.
  void trim();

  // Pages that take room, those of free runs among them, and the runs of live blocks.
  size_t touched_bytes() const { return touched_bytes_; }
  size_t live_run_bytes() const { return live_run_bytes_; }
  // Of the pages that take room, those that lie in free runs.
  size_t free_touched_bytes() const;

 private:
  static constexpr size_t kBins = 64 * 16;  // 16 an octave
  static size_t bin_of(size_t size_bytes) {
    const int log = 63 - std::countl_zero(uint64_t(size_bytes));
    return size_t(log) * 16 + (size_bytes >> (log - 4)) % 16;
  }
  Run* find(size_t run_bytes);
  Block carve(Run* run, size_t size_bytes);
  void list(Run* run);
  void unlist(Run* run);
  void touch(Region* region, const std::byte* begin, const std::byte* end);
  bool forget(Run* run, bool recent_too);
  bool give_back_if_free(Run* run);

  const MemorySource& source_;
  Region* regions_ = nullptr;
  std::array<Run*, kBins> bins_{};  // the newest first
  std::array<uint64_t, kBins / 64> has_free_{};
  size_t touched_bytes_ = 0, live_run_bytes_ = 0;
};

}  // namespace bitnet
