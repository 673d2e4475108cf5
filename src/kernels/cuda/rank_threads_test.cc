#include "kernels/cuda/rank_threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

namespace bitnet {
namespace {

TEST(RankThreads, AllRanksRunAtOnce) {
  constexpr int kRanks = 5;
  const auto threads = RankThreads::create(kRanks);
  ASSERT_TRUE(threads);
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> n_here = 0;
    const Status status = (*threads)->run([&](int) -> Status {
      ++n_here;
      while (n_here < kRanks) std::this_thread::yield();  // for ever, should one come after another
      return ok();
    });
    EXPECT_TRUE(status);
    EXPECT_EQ(n_here, kRanks);
  }
}

TEST(RankThreads, TellTheFirstErrorInTimeAndGoOn) {
  const auto threads = RankThreads::create(3);
  ASSERT_TRUE(threads);
  std::atomic<bool> failed = false;
  const auto job = [&](int rank) -> Status {
    if (rank == 1) return ok();
    while (rank == 0 && !failed) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(rank == 0 ? 50 : 0));
    failed = true;
    return make_error(ErrorCode::kResource, "rank {}", rank);
  };
  EXPECT_EQ((*threads)->run(job).error().message, "rank 2");
  EXPECT_TRUE((*threads)->run([](int) -> Status { return ok(); }));
}

}  // namespace
}  // namespace bitnet
