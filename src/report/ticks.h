#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace bitnet {

// Multiples of 1, 2 or 5 times a power of ten, so that about `n` of them lie in [low, high], low < high.
inline std::vector<double> round_ticks(double low, double high, int n) {
  const double raw = (high - low) / n, power = std::pow(10, std::floor(std::log10(raw)));
  const double digit = raw / power;
  const double step = power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
  std::vector<double> values;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) {
    values.push_back(std::abs(i) < 0.5 ? 0 : i * step);
  }
  return values;
}

}  // namespace bitnet
