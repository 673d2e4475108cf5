#include "memory/region_heap.h"

#include "base/rng.h"
#include "memory/keeper.h"
#include "memory/pool.h"
#include "memory/testing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

namespace bitnet {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

bool all_are(const std::byte* data, size_t size_bytes, std::byte value) {
  return std::all_of(data, data + size_bytes, [&](std::byte b) { return b == value; });
}
std::byte* take(Pool& pool, size_t size_bytes) { return static_cast<std::byte*>(pool.allocate(size_bytes)); }

TEST(RegionHeap, WhatWasGivenBackServesBlocksOfEverySize) {
  TestSource source;
  Pool pool({}, source);
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(take(pool, kMiB / 2));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(reinterpret_cast<uintptr_t>(blocks[size_t(i)]) % 64, 0u);
  // The two in the middle, in either order, become one.
  for (const bool forwards : {true, false}) {
    pool.release(blocks[forwards ? 1 : 2], kMiB / 2);
    pool.release(blocks[forwards ? 2 : 1], kMiB / 2);
    std::byte* const larger = take(pool, kMiB);
    EXPECT_EQ(larger, blocks[1]);
    pool.release(larger, kMiB);
    blocks[1] = take(pool, kMiB / 2);
    blocks[2] = take(pool, kMiB / 2);
    EXPECT_LT(blocks[1], blocks[2]);
  }
  EXPECT_EQ(source.n_takes, 1);
  for (std::byte* const block : blocks) pool.release(block, kMiB / 2);
  pool.trim();
  EXPECT_EQ(source.live_bytes(), 0u);
}

// Blocks of all large sizes, zeroed or not, while pages are given up in between: zeroed ones are zero, whatever lay
// there, and the others keep what they hold.
TEST(RegionHeap, ContentsSurviveWhatIsGivenUpAroundThem) {
  TestSource source;
  PoolOptions options;
  options.kept_bytes = 24 * kMiB;
  options.decay_ms = 0;
  Pool pool(options, source);
  struct Block {
    std::byte* data;
    size_t size_bytes;
    std::byte mark;
  };
  std::vector<Block> live;
  const CounterRng rng(11);
  for (uint64_t i = 0; i < 1500; ++i) {
    const uint64_t bits = rng.bits(i);
    if (live.size() < 24 && bits % 8 < 5) {
      const size_t size = kSmallLimit_bytes + 1 + (bits >> 8) % (size_t{64} << 10 << (bits >> 40) % 7);
      const bool zeroed = (bits >> 4) % 2 == 0;
      std::byte* const data = zeroed ? pool.allocate_zeroed(size, true) : take(pool, size);
      ASSERT_NE(data, nullptr);
      if (zeroed) {
        ASSERT_TRUE(all_are(data, size, std::byte{0})) << i;
      }
      live.push_back({data, size, std::byte(bits >> 56 | 1)});
      std::memset(data, int(live.back().mark), size);
    } else if (!live.empty()) {
      const size_t at = (bits >> 8) % live.size();
      ASSERT_TRUE(all_are(live[at].data, live[at].size_bytes, live[at].mark)) << i;
      pool.release(live[at].data, live[at].size_bytes);
      live[at] = live.back();
      live.pop_back();
      ASSERT_LE(pool.report().kept_bytes, options.kept_bytes + kMiB / 4) << i;
    }
    if (i % 16 == 0) pool.decay();
    if (i % 200 == 0) pool.trim();
  }
  for (const Block& block : live) {
    ASSERT_TRUE(all_are(block.data, block.size_bytes, block.mark));
    pool.release(block.data, block.size_bytes);
  }
  pool.trim();
  EXPECT_EQ(pool.report().held_bytes(), 0u);
  EXPECT_EQ(source.live_bytes(), 0u);
}

TEST(RegionHeap, DecayGivesBackWhatNoBlockHadSinceTheCallBeforeTheLast) {
  TestSource source;
  PoolOptions options;
  options.decay_ms = 0;
  Pool pool(options, source);
  std::byte* const stays = take(pool, kMiB);
  std::byte* const rare = take(pool, kMiB);
  std::byte* const wall = take(pool, kMiB);  // the two are no neighbours
  std::byte* const frequent = take(pool, kMiB);
  std::byte* const end = take(pool, kMiB);
  std::byte* const large = take(pool, 20 * kMiB);
  std::memset(rare, 7, kMiB);
  std::memset(stays, 9, kMiB);
  pool.release(rare, kMiB);
  pool.release(large, 20 * kMiB);
  pool.release(frequent, kMiB);
  const int64_t n_mapped = source.n_takes;
  for (int tick = 0; tick < 5; ++tick) {
    std::byte* const again = take(pool, kMiB);
    EXPECT_EQ(again, frequent) << "the newest is taken first";
    pool.release(again, kMiB);
    const uint64_t kept_before = pool.report().kept_bytes;
    EXPECT_EQ(kept_before >= 21 * kMiB, tick < 2) << tick << ": " << kept_before;
    EXPECT_TRUE(pool.decay()) << "what is taken again and again stays";
  }
  EXPECT_EQ(source.n_takes, n_mapped);
  EXPECT_EQ(source.live_bytes(), DirectBlocks::kRegion_bytes) << "the region of the large block is gone";
  EXPECT_GE(pool.report().kept_bytes, kMiB - 8192);
  EXPECT_LE(pool.report().kept_bytes, kMiB);
  EXPECT_TRUE(all_are(stays, kMiB, std::byte{9}));
  EXPECT_FALSE(pool.decay() && pool.decay()) << "nothing is left to do";
  EXPECT_EQ(pool.report().kept_bytes, 0u);
  for (std::byte* const block : {stays, wall, end}) pool.release(block, kMiB);
  (void)pool.decay();
  EXPECT_FALSE(pool.decay());
  EXPECT_EQ(source.live_bytes(), 0u) << "a free region goes as a whole";
}

// Waves of sizes as a program's phases have: beside live ones little is held once a phase has lasted.
TEST(RegionHeap, HardlyMoreIsHeldThanLivesAfterAWhile) {
  PoolOptions options;
  options.decay_ms = 0;
  Pool pool(options);
  const CounterRng rng(13);
  std::vector<std::pair<void*, size_t>> live;
  uint64_t live_bytes = 0;
  for (uint64_t i = 0; i < 4000; ++i) {
    const uint64_t bits = rng.bits(i);
    if (live.size() < 60 || (live.size() < 150 && bits % 2 == 0)) {
      const size_t size = kSmallLimit_bytes + 1 + (bits >> 8) % (kMiB << (i / 1000 % 2) * 2);
      live.emplace_back(pool.allocate(size), size);
      live_bytes += size;
    } else {
      const size_t at = (bits >> 8) % live.size();
      pool.release(live[at].first, live[at].second);
      live_bytes -= live[at].second;
      live[at] = live.back();
      live.pop_back();
    }
  }
  EXPECT_GT(double(pool.report().held_bytes()), 1.05 * double(live_bytes)) << "this is no test of decay()";
  (void)pool.decay();
  (void)pool.decay();
  EXPECT_LT(double(pool.report().held_bytes()), 1.05 * double(live_bytes));
  for (const auto& [data, size] : live) pool.release(data, size);
}

TEST(RegionHeap, BlocksInAFreshRegionKnowThatTheyAreZero) {
  TestSource source;
  RegionHeap heap(source, 0);
  EXPECT_EQ(heap.take(kMiB).data, nullptr);
  const RegionHeap::Block first = heap.take_new(kMiB, 8 * kMiB, false), second = heap.take(kMiB);
  EXPECT_GE(first.zero_end - first.zero_begin, kMiB - 8192);
  std::memset(first.data, 1, kMiB);
  std::memset(second.data, 1, kMiB);
  heap.release(first.data, true);
  const RegionHeap::Block again = heap.take(kMiB);
  EXPECT_EQ(again.data, first.data);
  EXPECT_EQ(again.zero_begin, again.zero_end) << "it was written";
  heap.release(again.data, false);
  const RegionHeap::Block forgotten = heap.take(kMiB);
  EXPECT_EQ(forgotten.data, first.data);
  EXPECT_GE(forgotten.zero_end - forgotten.zero_begin, kMiB - 8192);
  EXPECT_TRUE(all_are(forgotten.data + forgotten.zero_begin, forgotten.zero_end - forgotten.zero_begin, std::byte{0}));
  EXPECT_TRUE(all_are(second.data, kMiB, std::byte{1}));
}

TEST(RegionHeap, AReleaseDecaysWhenItIsTime) {
  PoolOptions options;
  options.decay_ms = 20;
  Pool pool(options);
  pool.release(pool.allocate(10 * kMiB), 10 * kMiB);
  const auto release_later = [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    pool.release(pool.allocate(kMiB), kMiB);
  };
  EXPECT_GE(pool.report().kept_bytes, 10 * kMiB - 8192);
  for (int i = 0; i < 3; ++i) release_later();
  EXPECT_LE(pool.report().kept_bytes, kMiB);
}

TEST(PoolKeeper, GivesBackWhileNothingHappens) {
  Pool& pool = host_pool();
  ASSERT_TRUE(start_pool_keeper(pool, 10));
  for (int turn = 0; turn < 2; ++turn) {  // it sleeps in between
    pool.release(pool.allocate(10 * kMiB), 10 * kMiB);
    for (int i = 0; i < 1000 && pool.report().kept_bytes >= kMiB; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_LT(pool.report().kept_bytes, kMiB);
  }
}

TEST(DirectBlocks, ThreadsKeepToTheirOwnMemoryAndTheLimitIsOfAll) {
  TestSource source;
  PoolOptions options;
  options.kept_bytes = 16 * kMiB;
  options.decay_ms = 0;
  Pool pool(options, source);
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        std::vector<void*> blocks;
        for (int k = 0; k < 8; ++k) blocks.push_back(pool.allocate(kMiB + size_t(t) * 4096));
        std::memset(blocks[size_t(i % 8)], t, kMiB);
        for (void* const block : blocks) pool.release(block, kMiB + size_t(t) * 4096);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.report().n_direct, 0u);
  EXPECT_LE(pool.report().kept_bytes, options.kept_bytes);
  pool.trim();
  EXPECT_EQ(source.live_bytes(), 0u);
  // Their homes are free for the threads that follow.
  std::thread([&] { pool.release(pool.allocate(kMiB), kMiB); }).join();
  const int64_t n_takes = source.n_takes;
  for (int i = 0; i < 8; ++i) std::thread([&] { pool.release(pool.allocate(kMiB), kMiB); }).join();
  EXPECT_EQ(source.n_takes, n_takes) << "each found what the one before had left";
}

}  // namespace
}  // namespace bitnet
