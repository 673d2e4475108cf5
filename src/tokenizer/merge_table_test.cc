#include "tokenizer/merge_table.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bitnet {
namespace {

std::vector<int32_t> merged(const MergeTable& table, std::vector<int32_t> ids, size_t n_small = 24,
                            std::vector<uint32_t>* first = nullptr) {
  MergeTable::Scratch scratch;
  scratch.ids = std::move(ids);
  table.merge_all(scratch, n_small);
  if (first) *first = scratch.first;
  return scratch.ids;
}

using Ids = std::vector<int32_t>;

TEST(MergeTable, LowestRankFirstThenLeftmost) {
  MergeTable table(3);
  EXPECT_TRUE(table.insert(1, 2, {5, 12}));
  EXPECT_TRUE(table.insert(2, 3, {4, 23}));
  EXPECT_TRUE(table.insert(1, 1, {7, 11}));
  for (const size_t n_small : {0, 24}) {
    EXPECT_EQ(merged(table, {1, 2, 3}, n_small), (Ids{1, 23}));
    EXPECT_EQ(merged(table, {1, 2, 2, 3}, n_small), (Ids{12, 23}));
    EXPECT_EQ(merged(table, {1, 1, 1}, n_small), (Ids{11, 1}));
    EXPECT_EQ(merged(table, {}, n_small), Ids{});
    EXPECT_EQ(merged(table, {9}, n_small), Ids{9});
    EXPECT_EQ(merged(table, {-1, -1, 1, 2, -1}, n_small), (Ids{-1, -1, 12, -1}));
  }
}

TEST(MergeTable, RefusesAPairTwice) {
  MergeTable table(2);
  EXPECT_TRUE(table.insert(1, 2, {0, 3}));
  EXPECT_FALSE(table.insert(1, 2, {1, 4}));
  EXPECT_EQ(table.find(1, 2).id, 3);
  EXPECT_EQ(table.find(2, 1).rank, MergeTable::kNoRank);
}

TEST(MergeTable, ReportsWhereEachResultStarts) {
  MergeTable table(2);
  table.insert(1, 2, {0, 12});
  table.insert(12, 3, {1, 123});
  for (const size_t n_small : {0, 24}) {
    std::vector<uint32_t> first;
    EXPECT_EQ(merged(table, {9, 1, 2, 3, 1, 2, 9}, n_small, &first), (Ids{9, 123, 12, 9}));
    EXPECT_EQ(first, (std::vector<uint32_t>{0, 1, 4, 6}));
  }
}

// The plain scan states what is meant; the heap must give the same for any table, also where ranks tie.
TEST(MergeTable, HeapEqualsScan) {
  const CounterRng rng(7);
  uint64_t counter = 0;
  for (int round = 0; round < 300; ++round) {
    const uint32_t n_symbols = 2 + uint32_t(rng.bits(counter++) % 6), n_ranks = 1 + uint32_t(rng.bits(counter++) % 20);
    MergeTable table(60);
    for (int i = 0; i < 60; ++i) {
      const int32_t left = int32_t(rng.bits(counter++) % (n_symbols + 10)),
                    right = int32_t(rng.bits(counter++) % (n_symbols + 10));
      table.insert(left, right,
                   {uint32_t(rng.bits(counter++) % n_ranks), int32_t(rng.bits(counter++) % (n_symbols + 10))});
    }
    Ids ids(rng.bits(counter++) % 200);
    for (int32_t& id : ids) id = int32_t(rng.bits(counter++) % n_symbols);
    std::vector<uint32_t> scan_first, heap_first;
    ASSERT_EQ(merged(table, ids, 1000, &scan_first), merged(table, ids, 0, &heap_first));
    ASSERT_EQ(scan_first, heap_first);
  }
}

}  // namespace
}  // namespace bitnet
