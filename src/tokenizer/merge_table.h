#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitnet {

// Which neighbours merge, in what order of preference, into what.
class MergeTable {
 public:
  static constexpr uint32_t kNoRank = 0xffffffff;
  struct Merge {
    uint32_t rank = kNoRank;  // the lowest goes first, the leftmost of equals
    int32_t id = -1;
  };

  explicit MergeTable(size_t capacity = 0);
  // False when the pair is there already. At most `capacity` pairs; ids are not negative.
  bool insert(int32_t left, int32_t right, Merge merge);
  Merge find(int32_t left, int32_t right) const { return slots_[slot_of(key(left, right))].merge; }
  size_t size() const { return size_; }

  // Buffers of merge_all, kept between calls so that a piece costs no allocation.
  struct Scratch {
    std::vector<int32_t> ids;     // in: the symbols; out: what is left of them
    std::vector<uint32_t> first;  // out: the index of each result's first symbol
    std::vector<uint32_t> ranks;
    std::vector<int32_t> next, previous;
    std::vector<uint64_t> heap;
  };
  // Merges the neighbours of lowest rank, leftmost first, until none are left. Symbols below 0 never merge.
  // O(n log n) in the number of symbols. `n_small`: up to how many a plain scan is used (tests set it).
  void merge_all(Scratch& scratch, size_t n_small = 24) const;

 private:
  static constexpr uint64_t kNoKey = ~uint64_t{0};
  static uint64_t key(int32_t left, int32_t right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }
  size_t slot_of(uint64_t key) const {
    size_t i = (key * 0x9e3779b97f4a7c15u) >> shift_;
    while (slots_[i].key != key && slots_[i].key != kNoKey) i = (i + 1) & mask_;
    return i;
  }
  void merge_few(Scratch& scratch) const;
  void merge_many(Scratch& scratch) const;

  struct Slot {
    uint64_t key = kNoKey;
    Merge merge;
  };
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
  size_t size_ = 0;
};

}  // namespace bitnet
