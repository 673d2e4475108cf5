#include "tokenizer/merge_table.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace bitnet {

MergeTable::MergeTable(size_t capacity)
    : slots_(std::bit_ceil(2 * capacity + 2)), mask_(slots_.size() - 1), shift_(64 - std::bit_width(mask_)) {}

bool MergeTable::insert(int32_t left, int32_t right, Merge merge) {
  Slot& slot = slots_[slot_of(key(left, right))];
  if (slot.key != kNoKey) return false;
  slot = {key(left, right), merge};
  ++size_;
  return true;
}

void MergeTable::merge_all(Scratch& scratch, size_t n_small) const {
  const size_t n = scratch.ids.size();
  scratch.first.resize(n);
  for (size_t i = 0; i < n; ++i) scratch.first[i] = uint32_t(i);
  if (n < 2) return;
  n <= n_small ? merge_few(scratch) : merge_many(scratch);
}

void MergeTable::merge_few(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  std::vector<uint32_t>& first = scratch.first;
  std::vector<uint32_t>& ranks = scratch.ranks;  // of symbol i and i + 1
  size_t n = ids.size();
  ranks.resize(n);
  const auto rank_at = [&](size_t i) { return i + 1 < n ? find(ids[i], ids[i + 1]).rank : kNoRank; };
  for (size_t i = 0; i < n; ++i) ranks[i] = rank_at(i);
  for (;;) {
    const auto best = std::min_element(ranks.begin(), ranks.begin() + ptrdiff_t(n));
    if (*best == kNoRank) break;
    const size_t i = size_t(best - ranks.begin());
    ids[i] = find(ids[i], ids[i + 1]).id;
    std::copy(ids.begin() + ptrdiff_t(i) + 2, ids.begin() + ptrdiff_t(n), ids.begin() + ptrdiff_t(i) + 1);
    std::copy(first.begin() + ptrdiff_t(i) + 2, first.begin() + ptrdiff_t(n), first.begin() + ptrdiff_t(i) + 1);
    std::copy(ranks.begin() + ptrdiff_t(i) + 2, ranks.begin() + ptrdiff_t(n), ranks.begin() + ptrdiff_t(i) + 1);
    --n;
    ranks[i] = rank_at(i);
    if (i > 0) ranks[i - 1] = rank_at(i - 1);
  }
  ids.resize(n);
  first.resize(n);
}

// Symbols as a doubly linked list and a heap of candidates, rank << 32 | left symbol. A candidate may be out of date:
// it counts only if its left symbol's pair still has that rank.
void MergeTable::merge_many(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  std::vector<int32_t>& next = scratch.next;
  std::vector<int32_t>& previous = scratch.previous;
  std::vector<uint64_t>& heap = scratch.heap;
  const int32_t n = int32_t(ids.size());
  constexpr int32_t kGone = -2;
  next.resize(size_t(n));
  previous.resize(size_t(n));
  for (int32_t i = 0; i < n; ++i) {
    next[size_t(i)] = i + 1 < n ? i + 1 : -1;
    previous[size_t(i)] = i - 1;
  }
  const auto merge_at = [&](int32_t i) {
    const int32_t right = next[size_t(i)];
    return right < 0 ? Merge{} : find(ids[size_t(i)], ids[size_t(right)]);
  };
  heap.clear();
  for (int32_t i = 0; i < n; ++i) {
    const Merge merge = merge_at(i);
    if (merge.rank != kNoRank) heap.push_back(uint64_t(merge.rank) << 32 | uint32_t(i));
  }
  const auto add_candidate = [&](int32_t i) {
    if (i < 0) return;
    const Merge merge = merge_at(i);
    if (merge.rank == kNoRank) return;
    heap.push_back(uint64_t(merge.rank) << 32 | uint32_t(i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const uint64_t candidate = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const int32_t left = int32_t(uint32_t(candidate));
    const Merge merge = next[size_t(left)] == kGone ? Merge{} : merge_at(left);
    if (merge.rank != candidate >> 32) continue;
    const int32_t right = next[size_t(left)], after = next[size_t(right)];
    ids[size_t(left)] = merge.id;
    next[size_t(left)] = after;
    next[size_t(right)] = kGone;
    if (after >= 0) previous[size_t(after)] = left;
    add_candidate(previous[size_t(left)]);
    add_candidate(left);
  }
  size_t n_left = 0;
  for (int32_t i = 0; i >= 0; i = next[size_t(i)], ++n_left) {
    ids[n_left] = ids[size_t(i)];
    scratch.first[n_left] = uint32_t(i);
  }
  ids.resize(n_left);
  scratch.first.resize(n_left);
}

}  // namespace bitnet
