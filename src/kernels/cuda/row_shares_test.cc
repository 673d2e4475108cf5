#include "kernels/cuda/row_shares.h"

#include <gtest/gtest.h>

namespace bitnet {
namespace {

TEST(RowShares, CoverEveryRowOnceInWholeUnits) {
  for (const int64_t n_rows : {16, 48, 515, 2560, 6912, 128256}) {
    for (const int n_ranks : {1, 2, 3, 8}) {
      const std::vector<RowShare> shares = share_rows(n_rows, 0, n_ranks);
      ASSERT_EQ(shares.size(), size_t(n_ranks));
      int64_t next = 0, least = n_rows;
      for (const RowShare& share : shares) {
        EXPECT_EQ(share.first, next);
        if (share.n > 0) {
          EXPECT_EQ(share.first % 16, 0);
        }
        next += share.n;
        least = std::min(least, share.n);
      }
      EXPECT_EQ(next, n_rows);
      EXPECT_EQ(total_rows(shares), n_rows);
      EXPECT_LE(widest_share(shares) - least, 31);  // a tile, and what the last one lacks
    }
  }
}

TEST(RowShares, KeepGroupsTogether) {
  // 20 query heads of 128 with 5 key heads: four query heads stay with each.
  const std::vector<RowShare> q = share_rows(20 * 128, 5, 2), k = share_rows(5 * 128, 5, 2);
  EXPECT_EQ(q[0].n, 2 * 4 * 128);
  EXPECT_EQ(q[1].first, 2 * 4 * 128);
  EXPECT_EQ(q[1].n, 3 * 4 * 128);
  EXPECT_EQ(k[0].n, 2 * 128);
  EXPECT_EQ(k[1].n, 3 * 128);
}

}  // namespace
}  // namespace bitnet
