#include "memory/arena.h"

#include <algorithm>
#include <numeric>

namespace bitnet {

ArenaPlan plan_arena(std::span<const Lifetime> arrays, size_t align_bytes) {
  ArenaPlan plan;
  plan.offsets.resize(arrays.size());
  std::vector<size_t> order(arrays.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return arrays[a].size_bytes > arrays[b].size_bytes; });
  const auto padded = [&](size_t n_bytes) { return (n_bytes + align_bytes - 1) & ~(align_bytes - 1); };
  std::vector<size_t> placed;  // by offset
  for (const size_t array : order) {
    const Lifetime& life = arrays[array];
    size_t at = 0;
    for (const size_t other : placed) {
      const Lifetime& theirs = arrays[other];
      if (theirs.last_step < life.first_step || life.last_step < theirs.first_step) continue;
      if (at + padded(life.size_bytes) <= plan.offsets[other]) break;
      at = std::max(at, plan.offsets[other] + padded(theirs.size_bytes));
    }
    plan.offsets[array] = at;
    plan.size_bytes = std::max(plan.size_bytes, at + padded(life.size_bytes));
    placed.insert(std::upper_bound(placed.begin(), placed.end(), array,
                                   [&](size_t a, size_t b) { return plan.offsets[a] < plan.offsets[b]; }),
                  array);
  }
  return plan;
}

}  // namespace bitnet
