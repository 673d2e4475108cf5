#pragma once

#include "memory/poison.h"
#include "memory/size_class.h"
#include "memory/source.h"

#include <array>
#include <cstdint>
#include <mutex>

namespace bitnet {

// A run of pages: free, or cut into blocks of one class.
struct Span {
  Span* next = nullptr;
  Span* previous = nullptr;
  FreeBlock* free = nullptr;  // blocks that came back
  uint32_t n_carved = 0;      // blocks that were ever handed out; the pages behind them are untouched
  uint32_t n_used = 0;        // of them, not in `free`
  uint16_t first_page = 0;
  uint16_t n_pages = 0;
  uint16_t n_touched = 0;   // of the pages, those that somebody may have touched before it was taken; the most, if free
  int16_t size_class = -1;  // -1: free pages
  bool recent = false;      // of free pages: some were a span's since the last decay()

  std::byte* data() const;
  // Pages that take room, small ones.
  size_t touched_bytes() const;
  // The span that a block lies in.
  static Span* of(const void* block);
};

class SpanList {
 public:
  Span* front() const { return front_; }
  void push(Span* span);
  void remove(Span* span);

 private:
  Span* front_ = nullptr;
};

// 4 MiB of the source, aligned to its size: a page of bookkeeping, then pages that are handed out.
struct Segment {
  static constexpr size_t kSize_bytes = size_t{4} << 20;
  static constexpr size_t kPages = kSize_bytes / kPoolPage_bytes;
  static constexpr size_t kUsablePages = kPages - 1;

  static Segment* of(const void* data) {
    return reinterpret_cast<Segment*>(reinterpret_cast<uintptr_t>(data) & ~uintptr_t(kSize_bytes - 1));
  }
  Span spans[kPages];            // at the index of their first page
  uint8_t first_page[kPages]{};  // of the span that a page belongs to; for free runs at both ends only
  Segment* next = nullptr;       // of the heap's
  Segment* previous = nullptr;
};
static_assert(sizeof(Segment) <= kPoolPage_bytes);

// Runs of pages out of segments; neighbours that are free become one. Thread-safe.
class SpanHeap {
 public:
  explicit SpanHeap(const MemorySource& source) : source_(source) {}
  ~SpanHeap();  // blocks that are still out go too
  SpanHeap(const SpanHeap&) = delete;
  SpanHeap& operator=(const SpanHeap&) = delete;

  // Null where the source has no more.
  Span* take(int size_class);
  void release(Span* span);
  // Free segments go back to the source, other free pages are forgotten.
  void trim();
  // The same for runs that were free at the call before already; true if others are left for later calls.
  bool decay();

  struct Use {
    uint64_t segment_bytes = 0, span_bytes = 0;
    uint64_t kept_bytes = 0;  // free pages that somebody has touched
  };
  Use use() const;

 private:
  bool add_segment();
  void give_back(Segment* segment);
  void list_free(Span* run);
  void unlist_free(Span* run);
  Span* find_free(size_t n_pages);
  void forget(Span* run);

  const MemorySource& source_;
  mutable std::mutex mutex_;
  std::array<SpanList, Segment::kPages> free_;             // runs by their number of pages
  std::array<uint64_t, Segment::kPages / 64> has_free_{};  // bits
  Segment* segments_ = nullptr;
  uint64_t n_segments_ = 0, n_free_segments_ = 0, n_span_pages_ = 0;
};

}  // namespace bitnet
