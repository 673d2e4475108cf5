#include "memory/arena.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace bitnet {
namespace {

TEST(Arena, PiecesAreAlignedAndApart) {
  Arena arena(*Buffer::allocate(4096));
  std::byte* const first = arena.take(1);
  std::byte* const second = arena.take(300);
  ASSERT_TRUE(first != nullptr && second != nullptr);
  EXPECT_EQ(second - first, 256);
  EXPECT_EQ(arena.take(4096 - 256 - 512 + 1), nullptr);
  EXPECT_EQ(arena.take(4096 - 256 - 512), second + 512) << "a piece that did not fit left its room to others";
  EXPECT_EQ(arena.take(1), nullptr);
}

TEST(Arena, ThreadsTakeDifferentPieces) {
  constexpr int kThreads = 4, kPieces = 100;
  Arena arena(*Buffer::allocate(size_t(kThreads * kPieces) * Arena::kAlign_bytes));
  std::vector<std::vector<std::byte*>> taken(kThreads);
  std::vector<std::thread> threads;
  for (std::vector<std::byte*>& mine : taken) {
    threads.emplace_back([&] {
      for (int i = 0; i < kPieces; ++i) mine.push_back(arena.take(1 + size_t(i)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<std::byte*> all;
  for (const auto& mine : taken) all.insert(all.end(), mine.begin(), mine.end());
  std::sort(all.begin(), all.end());
  ASSERT_NE(all.front(), nullptr);
  for (size_t i = 1; i < all.size(); ++i) EXPECT_EQ(all[i] - all[i - 1], 256);
}

TEST(ArenaPlan, ArraysOfTheSameStepLieApart) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const CounterRng rng(seed);
    std::vector<Lifetime> arrays;
    for (uint64_t i = 0; i < 40; ++i) {
      const auto first = int32_t(rng.bits(3 * i) % 20);
      arrays.push_back({rng.bits(3 * i + 1) % 5000, first, first + int32_t(rng.bits(3 * i + 2) % 5)});
    }
    const ArenaPlan plan = plan_arena(arrays, 64);
    size_t sum_bytes = 0, busiest_bytes = 0;
    for (int32_t step = 0; step < 25; ++step) {
      size_t n_bytes = 0;
      for (const Lifetime& a : arrays) n_bytes += a.first_step <= step && step <= a.last_step ? a.size_bytes : 0;
      busiest_bytes = std::max(busiest_bytes, n_bytes);
    }
    for (size_t i = 0; i < arrays.size(); ++i) {
      EXPECT_EQ(plan.offsets[i] % 64, 0u);
      EXPECT_LE(plan.offsets[i] + arrays[i].size_bytes, plan.size_bytes);
      sum_bytes += arrays[i].size_bytes;
      for (size_t j = 0; j < i; ++j) {
        const bool together =
            arrays[i].first_step <= arrays[j].last_step && arrays[j].first_step <= arrays[i].last_step;
        const bool apart = plan.offsets[i] + arrays[i].size_bytes <= plan.offsets[j] ||
                           plan.offsets[j] + arrays[j].size_bytes <= plan.offsets[i];
        EXPECT_TRUE(!together || apart) << i << " and " << j;
      }
    }
    EXPECT_GE(plan.size_bytes, busiest_bytes);
    EXPECT_LT(plan.size_bytes, sum_bytes / 2);
    EXPECT_LT(double(plan.size_bytes), 1.3 * double(busiest_bytes));
  }
}

TEST(ArenaPlan, KnowsSmallCases) {
  EXPECT_EQ(plan_arena({}).size_bytes, 0u);
  const Lifetime one[] = {{100, 0, 0}};
  EXPECT_EQ(plan_arena(one).size_bytes, 128u);
  const Lifetime turns[] = {{100, 0, 1}, {200, 2, 3}, {50, 1, 2}};
  const ArenaPlan plan = plan_arena(turns);
  EXPECT_EQ(plan.offsets[0], 0u);
  EXPECT_EQ(plan.offsets[1], 0u);
  EXPECT_EQ(plan.offsets[2], 256u);
  EXPECT_EQ(plan.size_bytes, 320u);
}

TEST(Arena, AnEmptyOneHasNothing) { EXPECT_EQ(Arena().take(1), nullptr); }

}  // namespace
}  // namespace bitnet
