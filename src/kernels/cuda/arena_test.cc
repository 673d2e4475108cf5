#include "kernels/cuda/arena.h"

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

TEST(Arena, AnEmptyOneHasNothing) { EXPECT_EQ(Arena().take(1), nullptr); }

}  // namespace
}  // namespace bitnet
