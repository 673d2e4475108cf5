#pragma once

#include "base/host_device.h"
#include "base/rng.h"

#include <cstdint>
#include <cstring>

// What drawing a token computes (docs/numerics.md 16), the same on the host and on a device: plain IEEE operations in
// double, none fused.
namespace bitnet {

// A draw among the top_k largest logits.
struct TokenSampling {
  float temperature = 1.0f;  // > 0
  int32_t top_k = 1;         // >= 1
  float top_p = 1.0f;        // 1: off
  float min_p = 0.0f;        // 0: off
  uint64_t seed = 0;
  bool operator==(const TokenSampling&) const = default;
};

// exp(x) for x <= 0, within 2 units in the last place; 0 below -708, where a double is about to lose its precision, and
// for a NaN. exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, exp(r) by its Taylor series to r^13.
BN_HOST_DEVICE inline double exp_not_positive(double x) {
  constexpr double kRound = 0x1.8p52;  // adding and subtracting it rounds to an integer, half to even
  constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;  // n * high is exact
  if (!(x >= -708.0)) return 0.0;
  const double n = (x * 0x1.71547652b82fep0 + kRound) - kRound;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = (r * r) * p + r;
  const uint64_t bits = uint64_t(int64_t(n) + 1023) << 52;  // of 2^n, n from -1022 on
  double power;
  std::memcpy(&power, &bits, sizeof(power));
  return (p + 1.0) * power;
}

// A token's weight where the largest logit is `max_logit`.
BN_HOST_DEVICE inline double sampling_weight(float logit, float max_logit, float temperature) {
  return exp_not_positive((double(logit) - double(max_logit)) / double(temperature));
}

// In [0, 1), of draw number `draw`.
BN_HOST_DEVICE inline double sampling_point(uint64_t seed, uint64_t draw) { return CounterRng(seed).uniform(draw); }

}  // namespace bitnet
