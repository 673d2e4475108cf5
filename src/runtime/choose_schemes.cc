#include "runtime/plan_precision.h"

#include <algorithm>
#include <limits>

namespace bitnet {

// least[u]: the least loss of the weights so far in at most u units of memory. Sizes are rounded up, so that a plan
// never exceeds its budget.
std::optional<std::vector<size_t>> choose_schemes(std::span<const PlannedWeight> weights, uint64_t budget_bytes) {
  constexpr uint64_t kUnits = 20000;
  constexpr double kNever = std::numeric_limits<double>::infinity();
  const uint64_t unit = std::max<uint64_t>(1, budget_bytes / kUnits), n_units = budget_bytes / unit;
  std::vector<double> least(size_t(n_units) + 1, 0.0);
  std::vector<std::vector<uint8_t>> choices;
  for (const PlannedWeight& weight : weights) {
    std::vector<double> next(least.size(), kNever);
    std::vector<uint8_t> choice(least.size(), 0);
    for (size_t k = 0; k < weight.schemes.size(); ++k) {
      const SchemeEffect& effect = weight.schemes[k];
      const uint64_t size = (effect.bytes + unit - 1) / unit;
      for (uint64_t u = size; u <= n_units; ++u) {
        const double loss = least[size_t(u - size)] + effect.kl;
        if (loss >= next[size_t(u)]) continue;
        next[size_t(u)] = loss;
        choice[size_t(u)] = uint8_t(k);
      }
    }
    least = std::move(next);
    choices.push_back(std::move(choice));
  }
  if (least.back() == kNever) return std::nullopt;
  std::vector<size_t> chosen(weights.size());
  uint64_t u = n_units;
  for (size_t i = weights.size(); i-- > 0;) {
    chosen[i] = choices[i][size_t(u)];
    u -= (weights[i].schemes[chosen[i]].bytes + unit - 1) / unit;
  }
  return chosen;
}

}  // namespace bitnet
