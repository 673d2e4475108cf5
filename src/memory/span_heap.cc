#include "memory/span_heap.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

namespace bitnet {
namespace {

constexpr size_t kPage_bytes = 4096;

}  // namespace

std::byte* Span::data() const {
  return reinterpret_cast<std::byte*>(Segment::of(this)) + size_t(first_page) * kPoolPage_bytes;
}

size_t Span::touched_bytes() const {
  const size_t carved_bytes = size_t{n_carved} * kClassShapes[size_t(size_class)].size_bytes;
  const size_t whole_bytes = (carved_bytes + kPage_bytes - 1) / kPage_bytes * kPage_bytes;
  return std::max(whole_bytes, n_touched * kPoolPage_bytes);
}

Span* Span::of(const void* block) {
  Segment* const segment = Segment::of(block);
  const size_t page = (reinterpret_cast<uintptr_t>(block) - reinterpret_cast<uintptr_t>(segment)) / kPoolPage_bytes;
  return &segment->spans[segment->first_page[page]];
}

void SpanList::push(Span* span) {
  span->previous = nullptr;
  span->next = front_;
  if (front_ != nullptr) front_->previous = span;
  front_ = span;
}

void SpanList::remove(Span* span) {
  if (span->next != nullptr) span->next->previous = span->previous;
  (span->previous != nullptr ? span->previous->next : front_) = span->next;
  span->next = span->previous = nullptr;
}

SpanHeap::~SpanHeap() {
  while (segments_ != nullptr) give_back(segments_);
}

bool SpanHeap::add_segment() {
  Result<std::byte*> memory = source_.take(source_, {Segment::kSize_bytes, Segment::kSize_bytes});
  if (!memory) return false;
  auto* const segment = new (*memory) Segment;
#ifdef BN_ADDRESS_SANITIZER
  __lsan_register_root_region(*memory, Segment::kSize_bytes);
#endif
  poison(*memory + kPoolPage_bytes, Segment::kSize_bytes - kPoolPage_bytes);
  Span* const run = &segment->spans[1];
  run->first_page = 1;
  run->n_pages = uint16_t(Segment::kUsablePages);
  segment->next = segments_;
  if (segments_ != nullptr) segments_->previous = segment;
  segments_ = segment;
  ++n_segments_;
  list_free(run);
  return true;
}

void SpanHeap::give_back(Segment* segment) {
  auto* const data = reinterpret_cast<std::byte*>(segment);
#ifdef BN_ADDRESS_SANITIZER
  __lsan_unregister_root_region(data, Segment::kSize_bytes);
#endif
  unpoison(data, Segment::kSize_bytes);
  if (segment->next != nullptr) segment->next->previous = segment->previous;
  (segment->previous != nullptr ? segment->previous->next : segments_) = segment->next;
  --n_segments_;
  source_.give_back(source_, data, Segment::kSize_bytes);
}

void SpanHeap::list_free(Span* run) {
  Segment* const segment = Segment::of(run);
  run->size_class = -1;
  segment->first_page[run->first_page] = uint8_t(run->first_page);
  segment->first_page[run->first_page + run->n_pages - 1] = uint8_t(run->first_page);
  free_[run->n_pages].push(run);
  has_free_[run->n_pages / 64] |= uint64_t{1} << (run->n_pages % 64);
  n_free_segments_ += run->n_pages == Segment::kUsablePages;
}

void SpanHeap::unlist_free(Span* run) {
  n_free_segments_ -= run->n_pages == Segment::kUsablePages;
  SpanList& list = free_[run->n_pages];
  list.remove(run);
  if (list.front() == nullptr) has_free_[run->n_pages / 64] &= ~(uint64_t{1} << (run->n_pages % 64));
}

// The smallest run that is long enough.
Span* SpanHeap::find_free(size_t n_pages) {
  for (size_t word = n_pages / 64; word < has_free_.size(); ++word) {
    uint64_t bits = has_free_[word];
    if (word == n_pages / 64) bits &= ~uint64_t{0} << (n_pages % 64);
    if (bits != 0) return free_[word * 64 + size_t(std::countr_zero(bits))].front();
  }
  return nullptr;
}

Span* SpanHeap::take(int size_class) {
  const size_t n_pages = kClassShapes[size_t(size_class)].n_pages;
  const std::lock_guard<std::mutex> lock(mutex_);
  Span* span = find_free(n_pages);
  if (span == nullptr) {
    if (!add_segment()) return nullptr;
    span = find_free(n_pages);
  }
  unlist_free(span);
  Segment* const segment = Segment::of(span);
  if (const size_t rest = span->n_pages - n_pages; rest > 0) {
    Span* const behind = &segment->spans[span->first_page + n_pages];
    behind->first_page = uint16_t(span->first_page + n_pages);
    behind->n_pages = uint16_t(rest);
    behind->n_touched = std::min(span->n_touched, behind->n_pages);
    behind->recent = span->recent;
    list_free(behind);
  }
  span->n_pages = uint16_t(n_pages);
  span->n_touched = std::min(span->n_touched, span->n_pages);
  span->size_class = int16_t(size_class);
  span->free = nullptr;
  span->n_carved = span->n_used = 0;
  std::memset(segment->first_page + span->first_page, span->first_page, n_pages);
  n_span_pages_ += n_pages;
  return span;
}

void SpanHeap::release(Span* span) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Segment* const segment = Segment::of(span);
  n_span_pages_ -= span->n_pages;
  span->n_touched = uint16_t((span->touched_bytes() + kPoolPage_bytes - 1) / kPoolPage_bytes);
  span->recent = true;
  const size_t end = span->first_page + span->n_pages;
  if (end < Segment::kPages && segment->spans[end].size_class < 0) {
    Span* const behind = &segment->spans[end];
    unlist_free(behind);
    span->n_pages = uint16_t(span->n_pages + behind->n_pages);
    span->n_touched = uint16_t(span->n_touched + behind->n_touched);
  }
  if (span->first_page > 1) {
    Span* const before = &segment->spans[segment->first_page[span->first_page - 1]];
    if (before->size_class < 0) {
      unlist_free(before);
      before->n_pages = uint16_t(before->n_pages + span->n_pages);
      before->n_touched = uint16_t(before->n_touched + span->n_touched);
      before->recent = true;
      span = before;
    }
  }
  if (span->n_pages == Segment::kUsablePages && n_free_segments_ > 0) {
    give_back(segment);  // one that is free is kept
  } else {
    list_free(span);
  }
}

void SpanHeap::forget(Span* run) {
  if (source_.forget == nullptr || run->n_touched == 0) return;
  source_.forget(source_, run->data(), run->n_pages * kPoolPage_bytes);
  run->n_touched = 0;
}

void SpanHeap::trim() {
  const std::lock_guard<std::mutex> lock(mutex_);
  while (Span* const run = free_[Segment::kUsablePages].front()) {
    unlist_free(run);
    give_back(Segment::of(run));
  }
  for (const SpanList& list : free_) {
    for (Span* run = list.front(); run != nullptr; run = run->next) forget(run);
  }
}

bool SpanHeap::decay() {
  const std::lock_guard<std::mutex> lock(mutex_);
  bool others = false;
  for (const SpanList& list : free_) {
    for (Span* run = list.front(); run != nullptr;) {
      Span* const next = run->next;
      if (run->recent) {
        others = true;
        run->recent = false;
      } else if (run->n_pages == Segment::kUsablePages) {
        unlist_free(run);
        give_back(Segment::of(run));
      } else {
        forget(run);
      }
      run = next;
    }
  }
  return others;
}

SpanHeap::Use SpanHeap::use() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  uint64_t n_kept_pages = 0;
  for (const SpanList& list : free_) {
    for (const Span* run = list.front(); run != nullptr; run = run->next) n_kept_pages += run->n_touched;
  }
  return {n_segments_ * Segment::kSize_bytes, n_span_pages_ * kPoolPage_bytes,
          (n_kept_pages + n_segments_) * kPoolPage_bytes};
}

}  // namespace bitnet
