#pragma once

#include "kernels/float_constants.h"

#include <bit>
#include <cmath>
#include <cstdint>

// The float arithmetic of docs/numerics.md as scalar code: IEEE operations in a fixed order, none fused. The vector
// code in cpu/float_ops.inc.h does the same operations on 16 lanes and so gives the same bits.
namespace bitnet::spec {

// Selects like a comparison, so that an unordered pair gives b: what x86's MAXPS and MINPS do.
inline float max(float a, float b) { return a > b ? a : b; }
inline float min(float a, float b) { return a < b ? a : b; }

// Sum of term(0) ... term(n - 1) in 16 lanes (numerics.md 4).
template <class Term>
float lane_sum(int64_t n, const Term& term) {
  float lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % 16] += term(i);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// Sum of term(0) ... term(n - 1) by neighbours in blocks of 256 (numerics.md 5).
template <class Term>
float pair_sum(int64_t n, const Term& term) {
  constexpr int64_t kBlock = 256;
  float sum = 0.0f;
  for (int64_t first = 0; first < n; first += kBlock) {
    float sums[kBlock] = {};
    for (int64_t i = 0; i < kBlock && first + i < n; ++i) sums[i] = term(first + i);
    for (int64_t n_sums = kBlock / 2; n_sums > 0; n_sums /= 2) {
      for (int64_t i = 0; i < n_sums; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
    }
    sum += sums[0];
  }
  return sum;
}

inline float dot(const float* a, const float* b, int64_t n) {
  return lane_sum(n, [&](int64_t i) { return a[i] * b[i]; });
}

// 2^k for 0 <= k + 127 <= 254, k = the integer that the sum with kRoundMagic holds.
inline float power_of_two(float k) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(k + (kRoundMagic + 127.0f)) << 23);
}

inline float exp(float x) {
  x = max(kExpMin, x);  // in this order a NaN stays
  x = min(kExpMax, x);
  const float n = (x * kLog2E + kRoundMagic) - kRoundMagic;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = kExpC6 * r + kExpC5;
  p = p * r + kExpC4;
  p = p * r + kExpC3;
  p = p * r + kExpC2;
  p = ((r * r) * p + r) + 1.0f;
  // In two factors, so that results beyond the normal range round once, to infinity or a subnormal.
  const float n1 = (n * 0.5f + kRoundMagic) - kRoundMagic;
  return (p * power_of_two(n1)) * power_of_two(n - n1);
}

inline float silu(float x) { return x / (1.0f + exp(-x)); }
inline float relu2_gate(float gate, float up) { return gate > 0.0f ? (gate * gate) * up : 0.0f; }

}  // namespace bitnet::spec
