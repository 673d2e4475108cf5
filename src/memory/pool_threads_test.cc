#include "base/rng.h"
#include "memory/pool.h"
#include "memory/testing.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace bitnet {
namespace {

TEST(PoolThreads, AThreadThatEndsLeavesItsBlocksToOthers) {
  TestSource source;
  Pool pool({}, source);
  for (int i = 0; i < 50; ++i) {
    std::thread([&] {
      std::vector<void*> blocks;
      for (int j = 0; j < 1000; ++j) blocks.push_back(pool.allocate(256));
      for (void* const block : blocks) pool.release(block, 256);
    }).join();
  }
  EXPECT_EQ(pool.report().cached_bytes, 0u);
  EXPECT_EQ(pool.report().live_bytes(), 0u);
  EXPECT_EQ(source.n_takes, 1) << "the second thread found what the first had left";
}

// Blocks go from hand to hand: each thread fills a slot and empties those of others.
TEST(PoolThreads, AnyThreadMayRelease) {
  struct Slot {
    std::mutex mutex;
    std::byte* data = nullptr;
    size_t size_bytes = 0;
    int mark = 0;
  };
  constexpr int kThreads = 4, kSlots = 256, kTurns = 20000;
  TestSource source;
  {
    Pool pool({}, source);
    std::vector<Slot> slots(kSlots);
    std::atomic<int> n_spoilt{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        const CounterRng rng(7, uint64_t(t));
        for (uint64_t i = 0; i < kTurns; ++i) {
          const uint64_t bits = rng.bits(i);
          Slot& slot = slots[bits % kSlots];
          const size_t size = i % 512 == 0 ? (size_t{300} << 10) + bits % 1000 : (bits >> 16) % 3000 + 1;
          auto* const data = static_cast<std::byte*>(pool.allocate(size));
          std::memset(data, t, size);
          const std::lock_guard<std::mutex> lock(slot.mutex);
          if (slot.data != nullptr) {
            n_spoilt += slot.data[0] != std::byte(slot.mark) || slot.data[slot.size_bytes - 1] != std::byte(slot.mark);
            pool.release(slot.data, slot.size_bytes);
          }
          slot.data = data;
          slot.size_bytes = size;
          slot.mark = t;
        }
      });
    }
    for (int i = 0; i < 20; ++i) (void)pool.report();  // while they are at it
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(n_spoilt, 0);
    for (const Slot& slot : slots) pool.release(slot.data, slot.size_bytes);
    EXPECT_EQ(pool.report().live_bytes(), 0u);
    pool.trim();
    EXPECT_EQ(source.live_bytes(), 0u);
  }
}

TEST(PoolThreads, TrackingChangesWhileOthersAllocate) {
  Pool pool;
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      while (!stop) {
        void* const small = pool.allocate(100);
        void* const large = pool.allocate(size_t{400} << 10);
        pool.release(small, 100);
        pool.release(large, size_t{400} << 10);
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    pool.set_tracking(i % 3 == 0 ? Tracking::kFull : i % 3 == 1 ? Tracking::kSampled : Tracking::kOff);
    EXPECT_LE(pool.report().n_direct, 3u);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(pool.report().sites.empty()) << "all that was noted has gone";
}

TEST(PoolThreads, APoolMayGoBeforeTheThreadsThatUsedIt) {
  std::atomic<int> step{0};
  auto pool = std::make_unique<Pool>();
  std::thread thread([&] {
    pool->release(pool->allocate(40), 40);
    step = 1;
    step.notify_all();
    step.wait(1);
    Pool another;  // this thread's cache of the first is dropped
    another.release(another.allocate(40), 40);
  });
  step.wait(0);
  pool.reset();
  step = 2;
  step.notify_all();
  thread.join();
}

// A thread_local of the program that releases when its thread's caches are gone already.
TEST(PoolThreads, MemoryCanComeBackWhileAThreadEnds) {
  static Pool* const pool = new Pool;  // thread_local destructors below outlive the test's body
  struct Late {
    void* data = nullptr;
    ~Late() { pool->release(data, 100); }
  };
  std::thread([] {
    thread_local Late late;  // made before the caches, so destroyed after them
    late.data = nullptr;
    late.data = pool->allocate(100);
  }).join();
  EXPECT_EQ(pool->report().live_bytes(), 0u);
  delete pool;
}

}  // namespace
}  // namespace bitnet
