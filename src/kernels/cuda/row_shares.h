#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace bitnet {

// Rows of a matrix, which are columns of what it gives.
struct RowShare {
  int64_t first = 0;
  int64_t n = 0;
};

// Every rank's rows of a matrix, one after the other: whole groups where there are such, else whole tiles of 16 rows.
// The shares differ by one of them at most.
inline std::vector<RowShare> share_rows(int64_t n_rows, int64_t n_groups, int n_ranks) {
  const int64_t unit = n_groups > 0 ? n_rows / n_groups : 16, n_units = (n_rows + unit - 1) / unit;
  std::vector<RowShare> shares;
  for (int64_t rank = 0; rank < n_ranks; ++rank) {
    const int64_t first = n_units * rank / n_ranks * unit, end = n_units * (rank + 1) / n_ranks * unit;
    shares.push_back({first, std::min(end, n_rows) - first});
  }
  return shares;
}
inline int64_t total_rows(const std::vector<RowShare>& shares) { return shares.back().first + shares.back().n; }
inline int64_t widest_share(const std::vector<RowShare>& shares) {
  return std::max_element(shares.begin(), shares.end(), [](const auto& a, const auto& b) { return a.n < b.n; })->n;
}

}  // namespace bitnet
