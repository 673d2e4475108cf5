#include "memory/region_heap.h"

#include "memory/poison.h"

#include <algorithm>
#include <new>

namespace bitnet {
namespace {

constexpr size_t kPage_bytes = 4096, kLine_bytes = 64;
constexpr size_t kHeader_bytes = (sizeof(Region) + kLine_bytes - 1) / kLine_bytes * kLine_bytes;

constexpr size_t kMostBlock_bytes = size_t{PTRDIFF_MAX} / 2;

constexpr size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

// Regions of whole granules, of which there are kMostGranules at most.
constexpr size_t granule_bytes_of(size_t region_bytes) {
  size_t granule_bytes = kPage_bytes;
  while (round_up(region_bytes, granule_bytes) / granule_bytes > Region::kMostGranules) granule_bytes *= 2;
  return granule_bytes;
}

bool has(const Region::Bits& bits, size_t i) { return (bits[i / 64] >> i % 64 & 1) != 0; }
void clear(Region::Bits& bits, size_t i) { bits[i / 64] &= ~(uint64_t{1} << i % 64); }

// Calls fn(word, mask) for the words of the bits from `begin` on.
template <class Fn>
void each_word(size_t begin, size_t end, const Fn& fn) {
  for (size_t word = begin / 64; word * 64 < end; ++word) {
    uint64_t mask = ~uint64_t{0};
    if (word == begin / 64) mask &= ~uint64_t{0} << begin % 64;
    if (end - word * 64 < 64) mask &= (uint64_t{1} << end % 64) - 1;
    fn(word, mask);
  }
}
// The number of bits that were not set before.
size_t set(Region::Bits& bits, size_t begin, size_t end) {
  size_t n_new = 0;
  each_word(begin, end, [&](size_t word, uint64_t mask) {
    n_new += size_t(std::popcount(mask & ~bits[word]));
    bits[word] |= mask;
  });
  return n_new;
}
size_t count(const Region::Bits& bits, size_t begin, size_t end) {
  size_t n = 0;
  each_word(begin, end, [&](size_t word, uint64_t mask) { n += size_t(std::popcount(bits[word] & mask)); });
  return n;
}

// The granules that lie in a free run and nowhere else.
struct Granules {
  size_t begin, end;
};
Granules granules_within(Run* run) {
  Region* const region = run->region;
  const size_t begin = region->granule(run->data() - 1) + 1;
  return {begin, std::max(begin, region->granule(run->end()))};
}

// A header as part of the memory of a free run, or as one.
void bury(Run* run) { poison(run, sizeof(Run)); }
void unearth(Run* run) {
  unpoison(run, sizeof(Run));
  poison(run->red_zone, sizeof run->red_zone);
}

}  // namespace

Run* Region::first() { return reinterpret_cast<Run*>(data() + kHeader_bytes); }

RegionHeap::~RegionHeap() {
  while (regions_ != nullptr) {
    Region* const region = regions_;
    regions_ = region->next;
    const size_t size_bytes = region->size_bytes;
    unpoison(region, size_bytes);
    source_.give_back(source_, region->data(), size_bytes);
  }
}

size_t RegionHeap::exact_region_bytes(size_t size_bytes) {
  size_bytes = round_up(size_bytes, kLine_bytes) + kHeader_bytes + sizeof(Run);
  return round_up(size_bytes, granule_bytes_of(size_bytes));
}

RegionHeap::Block RegionHeap::take_new(size_t block_bytes, size_t region_bytes, bool huge_pages) {
  if (block_bytes > kMostBlock_bytes) return {};
  const size_t size_bytes = std::max(exact_region_bytes(block_bytes), region_bytes);
  const Result<std::byte*> memory = source_.take(source_, {size_bytes, kPage_bytes, huge_pages});
  if (!memory) return {};
  auto* const region = new (*memory) Region{};
  region->size_bytes = size_bytes;
  region->granule_log = std::countr_zero(granule_bytes_of(size_bytes));
  region->heap = this;
  region->next = regions_;
  if (regions_ != nullptr) regions_->previous = region;
  regions_ = region;
  poison(*memory + kHeader_bytes, size_bytes - kHeader_bytes);
  Run* const run = region->first();
  unearth(run);
  run->size_bytes = size_bytes - kHeader_bytes;
  run->region = region;
  touch(region, region->data(), run->data());
  list(run);
  return carve(run, block_bytes);
}

void RegionHeap::list(Run* run) {
  run->free = true;
  const size_t bin = bin_of(run->size_bytes);
  run->previous = nullptr;
  run->next = bins_[bin];
  if (run->next != nullptr) run->next->previous = run;
  bins_[bin] = run;
  has_free_[bin / 64] |= uint64_t{1} << bin % 64;
}

void RegionHeap::unlist(Run* run) {
  run->free = false;
  const size_t bin = bin_of(run->size_bytes);
  if (run->next != nullptr) run->next->previous = run->previous;
  (run->previous != nullptr ? run->previous->next : bins_[bin]) = run->next;
  if (bins_[bin] == nullptr) has_free_[bin / 64] &= ~(uint64_t{1} << bin % 64);
}

// One of about the size, if there is one; it is likely to have been a block of just this size, and the newest is the
// likeliest to be in a processor's cache. Else one of the smallest that are certainly long enough.
Run* RegionHeap::find(size_t run_bytes) {
  const size_t bin = bin_of(run_bytes);
  int n_left = 8;
  for (Run* run = bins_[bin]; run != nullptr && n_left > 0; run = run->next, --n_left) {
    if (run->size_bytes >= run_bytes) return run;
  }
  for (size_t word = (bin + 1) / 64; word < has_free_.size(); ++word) {
    uint64_t bits = has_free_[word];
    if (word == (bin + 1) / 64) bits &= ~uint64_t{0} << (bin + 1) % 64;
    if (bits != 0) return bins_[word * 64 + size_t(std::countr_zero(bits))];
  }
  return nullptr;
}

RegionHeap::Block RegionHeap::take(size_t size_bytes) {
  if (size_bytes > kMostBlock_bytes) return {};
  Run* const run = find(round_up(size_bytes, kLine_bytes) + sizeof(Run));
  return run == nullptr ? Block{} : carve(run, size_bytes);
}

RegionHeap::Block RegionHeap::carve(Run* run, size_t size_bytes) {
  const size_t run_bytes = round_up(size_bytes, kLine_bytes) + sizeof(Run);
  unlist(run);
  Region* const region = run->region;
  Block block{run->data(), 0, 0};
  // The first and the last granule may be a neighbour's too.
  const size_t first = region->granule(block.data), last = region->granule(block.data + size_bytes - 1);
  if (first + 1 < last && count(region->touched, first + 1, last) == 0) {
    block.zero_begin = size_t(region->data() + ((first + 1) << region->granule_log) - block.data);
    block.zero_end = size_t(region->data() + (last << region->granule_log) - block.data);
  }
  if (run->size_bytes >= run_bytes + 2 * sizeof(Run)) {
    auto* const rest = reinterpret_cast<Run*>(reinterpret_cast<std::byte*>(run) + run_bytes);
    unearth(rest);
    rest->size_bytes = run->size_bytes - run_bytes;
    rest->before = run;
    rest->region = region;
    run->size_bytes = run_bytes;
    if (rest->end() < region->data() + region->size_bytes) reinterpret_cast<Run*>(rest->end())->before = rest;
    touch(region, block.data, rest->data());
    list(rest);
  } else {
    touch(region, block.data, run->end());
  }
  live_run_bytes_ += run->size_bytes;
  unpoison(block.data, size_bytes);
  return block;
}

void RegionHeap::touch(Region* region, const std::byte* begin, const std::byte* end) {
  touched_bytes_ += set(region->touched, region->granule(begin), region->granule(end - 1) + 1) << region->granule_log;
}

void RegionHeap::release(std::byte* data, bool keep) {
  Run* run = Run::of(data);
  Region* const region = run->region;
  live_run_bytes_ -= run->size_bytes;
  set(region->recent, region->granule(data), region->granule(run->end() - 1) + 1);
  poison(data, run->size_bytes - sizeof(Run));
  if (run->end() < region->data() + region->size_bytes) {
    if (Run* const behind = reinterpret_cast<Run*>(run->end()); behind->free) {
      unlist(behind);
      run->size_bytes += behind->size_bytes;
      bury(behind);
    }
  }
  if (Run* const before = run->before; before != nullptr && before->free) {
    unlist(before);
    before->size_bytes += run->size_bytes;
    bury(run);
    run = before;
  }
  if (run->end() < region->data() + region->size_bytes) reinterpret_cast<Run*>(run->end())->before = run;
  list(run);
  if (!keep && !give_back_if_free(run)) forget(run, true);
}

// The pages of a free run, or those of them that no block had lately; true if there are others.
bool RegionHeap::forget(Run* run, bool recent_too) {
  Region* const region = run->region;
  const Granules within = granules_within(run);
  bool others = false;
  for (size_t i = within.begin; i < within.end;) {
    size_t n = 0;
    while (i + n < within.end && has(region->touched, i + n) && (recent_too || !has(region->recent, i + n))) ++n;
    if (n > 0 && source_.forget != nullptr) {
      source_.forget(source_, region->data() + (i << region->granule_log), n << region->granule_log);
      for (size_t k = i; k < i + n; ++k) clear(region->touched, k);
      touched_bytes_ -= n << region->granule_log;
    }
    i += n;
    if (i == within.end) break;
    others = others || has(region->touched, i);
    ++i;
  }
  return others;
}

bool RegionHeap::give_back_if_free(Run* run) {
  Region* const region = run->region;
  if (run->before != nullptr || run->end() != region->data() + region->size_bytes) return false;
  unlist(run);
  if (region->next != nullptr) region->next->previous = region->previous;
  (region->previous != nullptr ? region->previous->next : regions_) = region->next;
  const size_t size_bytes = region->size_bytes;
  touched_bytes_ -= count(region->touched, 0, size_bytes >> region->granule_log) << region->granule_log;
  unpoison(region, size_bytes);
  source_.give_back(source_, reinterpret_cast<std::byte*>(region), size_bytes);
  return true;
}

bool RegionHeap::decay() {
  bool others = false;
  for (Region* region = regions_; region != nullptr;) {
    Region* const next = region->next;
    bool gone = false, is_recent = false;
    for (const uint64_t word : region->recent) is_recent = is_recent || word != 0;
    const std::byte* const end = region->data() + region->size_bytes;
    for (Run* run = region->first(); !gone; run = reinterpret_cast<Run*>(run->end())) {
      if (run->free) {
        gone = !is_recent && give_back_if_free(run);
        if (!gone && forget(run, false)) others = true;
      }
      if (gone || run->end() == end) break;
    }
    if (!gone) {
      region->recent = {};
      others = others || (is_recent && region->first()->free && region->first()->end() == end);
    }
    region = next;
  }
  return others;
}

void RegionHeap::trim() {
  for (Region* region = regions_; region != nullptr;) {
    Region* const next = region->next;
    const std::byte* const end = region->data() + region->size_bytes;
    for (Run* run = region->first();; run = reinterpret_cast<Run*>(run->end())) {
      if (run->free) {
        if (give_back_if_free(run)) break;
        forget(run, true);
      }
      if (run->end() == end) break;
    }
    region = next;
  }
}

size_t RegionHeap::free_touched_bytes() const {
  size_t n_bytes = 0;
  for (Region* region = regions_; region != nullptr; region = region->next) {
    const std::byte* const end = region->data() + region->size_bytes;
    for (Run* run = region->first();; run = reinterpret_cast<Run*>(run->end())) {
      if (run->free) {
        const Granules within = granules_within(run);
        n_bytes += count(region->touched, within.begin, within.end) << region->granule_log;
      }
      if (run->end() == end) break;
    }
  }
  return n_bytes;
}

}  // namespace bitnet
