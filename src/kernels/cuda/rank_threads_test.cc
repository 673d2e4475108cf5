#include "kernels/cuda/rank_threads.h"

#include <gtest/gtest.h>

#include <atomic>

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

TEST(RankThreads, TellTheFirstRanksErrorAndGoOn) {
  const auto threads = RankThreads::create(3);
  ASSERT_TRUE(threads);
  const auto job = [](int rank) -> Status {
    if (rank == 0) return ok();
    return make_error(ErrorCode::kResource, "rank {}", rank);
  };
  EXPECT_EQ((*threads)->run(job).error().message, "rank 1");
  EXPECT_TRUE((*threads)->run([](int) -> Status { return ok(); }));
}

}  // namespace
}  // namespace bitnet
