#include "memory/pool.h"

#include "base/rng.h"
#include "memory/pool_vector.h"
#include "memory/testing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

namespace bitnet {
namespace {

struct Block {
  std::byte* data = nullptr;
  size_t size_bytes = 0;
  std::byte mark{};
};

TEST(SizeClass, RoundsUpByAnEighthAtMostAndKeepsCacheLines) {
  int last = 0;
  for (size_t size = 1; size <= kSmallLimit_bytes; ++size) {
    const int index = size_class(size);
    ASSERT_TRUE(index == last || index == last + 1) << size;
    ASSERT_GE(class_bytes(index), size);
    if (index > 0) {
      ASSERT_LT(class_bytes(index - 1), size);
    }
    if (size > 128) {
      ASSERT_LE(class_bytes(index), size + size / 8 + 1) << size;
    }
    if (size % 64 == 0) {
      ASSERT_EQ(class_bytes(index) % 64, 0u) << size;
    }
    last = index;
  }
  EXPECT_EQ(last, kSizeClasses - 1);
  for (const ClassShape& shape : kClassShapes) {
    EXPECT_GE(shape.n_blocks, 4u);
    EXPECT_LE(shape.n_pages, Segment::kUsablePages);
    const size_t rest = shape.n_pages * kPoolPage_bytes - size_t{shape.n_blocks} * shape.size_bytes;
    EXPECT_LE(rest * 16, shape.n_pages * kPoolPage_bytes) << shape.size_bytes;
  }
}

// Blocks of random sizes, from a byte to megabytes, in random order: each keeps what was written into all of it.
TEST(Pool, BlocksLieApartAndKeepTheirContents) {
  TestSource source;
  {
    Pool pool({}, source);
    const CounterRng rng(1);
    std::vector<Block> live;
    for (uint64_t i = 0; i < 40000; ++i) {
      const uint64_t bits = rng.bits(i);
      if (live.size() < 500 && bits % 8 < 5) {
        const int log = int(bits >> 8 & 0xff) % 22;  // up to 4 MiB, seldom
        const size_t size = ((bits >> 16) % (size_t{1} << (log < 19 || i % 16 == 0 ? log : 10))) + 1;
        Block block{static_cast<std::byte*>(pool.allocate(size)), size, std::byte(bits >> 56)};
        ASSERT_NE(block.data, nullptr);
        ASSERT_EQ(reinterpret_cast<uintptr_t>(block.data) % 16, 0u);
        std::memset(block.data, int(block.mark), size);
        live.push_back(block);
      } else if (!live.empty()) {
        const size_t at = (bits >> 20) % live.size();
        const Block block = live[at];
        ASSERT_TRUE(
            std::all_of(block.data, block.data + block.size_bytes, [&](std::byte b) { return b == block.mark; }));
        pool.release(block.data, block.size_bytes);
        live[at] = live.back();
        live.pop_back();
      }
    }
    uint64_t small_bytes = 0, n_small = 0;
    for (const Block& block : live) {
      if (block.size_bytes > kSmallLimit_bytes) continue;
      ++n_small;
      small_bytes += class_bytes(size_class(block.size_bytes));
    }
    const PoolReport report = pool.report();
    EXPECT_EQ(report.n_small, n_small);
    EXPECT_EQ(report.small_bytes, small_bytes);
    EXPECT_EQ(report.n_direct, live.size() - n_small);
    for (const Block& block : live) pool.release(block.data, block.size_bytes);
    EXPECT_EQ(pool.report().live_bytes(), 0u);
    pool.trim();
    EXPECT_EQ(pool.report().held_bytes(), 0u) << "what is free was put together again";
    EXPECT_EQ(source.live_bytes(), 0u);
  }
  EXPECT_EQ(source.live_bytes(), 0u);
}

TEST(Pool, HasNoGapAndNoCeiling) {
  Pool pool;
  for (const size_t size : {size_t{0}, size_t{1}, kSmallLimit_bytes - 1, kSmallLimit_bytes, kSmallLimit_bytes + 1,
                            size_t{512} << 10, size_t{768} << 10, (size_t{1} << 20) + 1, size_t{100} << 20}) {
    auto* const data = static_cast<std::byte*>(pool.allocate(size));
    ASSERT_NE(data, nullptr) << size;
    if (size > 0) data[0] = data[size - 1] = std::byte{1};
    pool.release(data, size);
  }
  EXPECT_EQ(pool.allocate(SIZE_MAX), nullptr);
  EXPECT_EQ(pool.allocate(SIZE_MAX / 2), nullptr);
  pool.release(nullptr, 5);
}

TEST(Pool, ZeroedMemoryIsZeroWhoeverHadItBefore) {
  Pool pool;
  for (const bool huge_pages : {true, false}) {
    for (const size_t size : {size_t{64}, size_t{5000}, size_t{3} << 20}) {
      for (int turn = 0; turn < 3; ++turn) {
        std::byte* const data = pool.allocate_zeroed(size, huge_pages);
        ASSERT_NE(data, nullptr);
        EXPECT_TRUE(std::all_of(data, data + size, [](std::byte b) { return b == std::byte{0}; }));
        std::memset(data, 7, size);
        pool.release_zeroed(data, size, huge_pages);
      }
    }
  }
}

TEST(Pool, MemoryThatFillsUpSlowlyIsNeverUsedAgain) {
  TestSource source;
  Pool pool({}, source);
  std::byte* const data = pool.allocate_zeroed(size_t{3} << 20, false);
  std::memset(data, 7, size_t{3} << 20);
  pool.release_zeroed(data, size_t{3} << 20, false);
  EXPECT_EQ(source.live_bytes(), 0u);
}

TEST(Pool, ALargeBlockFollowsAnotherOfItsSize) {
  TestSource source;
  PoolOptions options;
  options.kept_bytes = uint64_t{8} << 20;
  Pool pool(options, source);
  constexpr size_t kSize_bytes = size_t{3} << 20;
  void* const first = pool.allocate(kSize_bytes);
  pool.release(first, kSize_bytes);
  EXPECT_EQ(pool.allocate(kSize_bytes - 100), first);
  EXPECT_EQ(source.n_takes, 1);
  void* const second = pool.allocate(kSize_bytes);
  void* const third = pool.allocate(kSize_bytes);
  pool.release(first, kSize_bytes - 100);
  pool.release(second, kSize_bytes);
  pool.release(third, kSize_bytes);
  EXPECT_LE(pool.report().kept_bytes, options.kept_bytes) << "the oldest went";
  EXPECT_GT(pool.report().kept_bytes, 0u);
  pool.trim();
  EXPECT_EQ(source.live_bytes(), 0u);
}

// Every request of the source fails in turn, alone or with all after it: null or a good block, and nothing is lost.
TEST(Pool, ARefusedRequestIsNullAndNothingIsLost) {
  const auto exercise = [](Pool& pool) {
    int n_refused = 0;
    std::vector<Block> live;
    for (size_t i = 0; i < 300; ++i) {
      const size_t size = i % 10 == 0 ? size_t{300} << 10 : (i * 7919) % 100000 + 1;
      void* const data = i % 3 == 0 ? pool.allocate_zeroed(size, i % 2 == 0) : pool.allocate(size);
      n_refused += data == nullptr;
      if (data == nullptr) continue;
      std::memset(data, int(i), size);
      live.push_back({static_cast<std::byte*>(data), size, {}});
    }
    for (const Block& block : live) pool.release(block.data, block.size_bytes);
    return n_refused;
  };
  TestSource counting;
  {
    Pool pool({}, counting);
    EXPECT_EQ(exercise(pool), 0);
  }
  ASSERT_GT(counting.n_takes, 10);
  for (const bool keeps_failing : {false, true}) {
    for (int64_t n = 0; n < counting.n_takes; ++n) {
      TestSource source;
      source.fails_at = n;
      source.keeps_failing = keeps_failing;
      {
        Pool pool({}, source);
        const int n_refused = exercise(pool);
        if (keeps_failing) {
          EXPECT_GT(n_refused, 0);
        }
        if (!keeps_failing) {
          EXPECT_LE(n_refused, 1);
        }
        EXPECT_EQ(pool.report().live_bytes(), 0u);
      }
      ASSERT_EQ(source.live_bytes(), 0u) << n;
    }
  }
}

TEST(Pool, ALargeBlockThatIsRefusedIsAskedForAgainWhenTheKeptOnesAreGone) {
  TestSource source;
  Pool pool({}, source);
  void* const first = pool.allocate(size_t{1} << 20);
  pool.release(first, size_t{1} << 20);
  EXPECT_GT(pool.report().kept_bytes, 0u);
  source.fails_at = 1;
  void* const second = pool.allocate(size_t{2} << 20);
  EXPECT_NE(second, nullptr);
  EXPECT_EQ(pool.report().kept_bytes, 0u);
  pool.release(second, size_t{2} << 20);
}

TEST(Pool, FreeNeighboursBecomeOneAndFreePagesAreForgotten) {
  TestSource source;
  Pool pool({}, source);
  std::vector<void*> blocks;
  for (int i = 0; i < 4000; ++i) blocks.push_back(pool.allocate(1000));
  const PoolReport full = pool.report();
  EXPECT_GE(full.span_bytes, 4000u * 1000u);
  void* const kept = blocks.back();
  blocks.pop_back();
  for (void* const block : blocks) pool.release(block, 1000);
  pool.trim();
  EXPECT_GT(source.n_forgotten, 0);
  EXPECT_LE(pool.report().span_bytes, 64u << 10) << "one span holds the block that is left";
  // What was freed serves another class.
  const int64_t n_takes = source.n_takes;
  void* const other = pool.allocate(30000);
  EXPECT_EQ(source.n_takes, n_takes);
  pool.release(other, 30000);
  pool.release(kept, 1000);
}

TEST(Pool, FragmentationStaysLowWhenSizesChange) {
  Pool pool;
  const CounterRng rng(5);
  std::vector<Block> live;
  uint64_t live_bytes = 0;
  // Waves of different sizes; each releases nearly all of the one before.
  for (uint64_t wave = 0; wave < 8; ++wave) {
    const size_t largest = size_t{64} << wave;
    std::vector<Block> kept;
    for (const Block& block : live) {
      if (rng.bits(live_bytes++) % 64 == 0) {
        kept.push_back(block);
      } else {
        pool.release(block.data, block.size_bytes);
      }
    }
    live = std::move(kept);
    while (live.size() < 20000) {
      const size_t size = rng.bits(wave << 32 | live.size()) % largest + 1;
      live.push_back({static_cast<std::byte*>(pool.allocate(size)), size, {}});
    }
  }
  pool.trim();
  uint64_t asked_bytes = 0;
  for (const Block& block : live) asked_bytes += block.size_bytes;
  EXPECT_LT(double(pool.report().held_bytes()), 1.25 * double(asked_bytes));
  for (const Block& block : live) pool.release(block.data, block.size_bytes);
}

TEST(PoolVector, IsAVectorInThePool) {
  const uint64_t before = host_pool().report().live_bytes();
  {
    PoolVector<float> values(100000, 1.5f);
    values.resize(200000);
    EXPECT_EQ(values[99999], 1.5f);
    EXPECT_EQ(values[199999], 0.0f);
    EXPECT_GE(host_pool().report().live_bytes(), before + 200000 * sizeof(float));
  }
  EXPECT_EQ(host_pool().report().live_bytes(), before);
  EXPECT_THROW(PoolVector<float>(size_t{1} << 60), std::bad_alloc);
}

}  // namespace
}  // namespace bitnet
