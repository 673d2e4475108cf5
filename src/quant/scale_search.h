#pragma once

#include <algorithm>
#include <array>
#include <cmath>

// The scale, or scale and minimum, for which a group of values comes closest to a few integer levels. A number of steps
// around the obvious one are tried; for the levels that each gives, the best scale is a least-squares fit.
namespace bitnet {

inline float round_half_even(float v) {
  constexpr float kRounder = 12582912.0f;  // for |v| < 2^22
  return (v + kRounder) - kRounder;
}

// s for values s * q, q in [-steps, steps - 1]. 0 for a group of zeros.
template <int kValues>
float best_symmetric_scale(const float* x, int steps) {
  float largest = 0.0f;
  for (int i = 0; i < kValues; ++i) {
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  if (std::fabs(largest) < 1e-15f) return 0.0f;
  const float low = -float(steps), high = float(steps - 1);
  float best_scale = 0.0f, best_gain = -1.0f;
  for (int step = -9; step <= 9; ++step) {
    // Units of the largest value, so that squares neither overflow nor vanish; it becomes the level -steps.
    const float inverse = low - 0.1f * float(step);
    float xq = 0.0f, qq = 0.0f;
    for (int i = 0; i < kValues; ++i) {
      const float unit = x[i] / largest, q = std::clamp(round_half_even(unit * inverse), low, high);
      xq += unit * q;
      qq += q * q;
    }
    if (qq > 0.0f && xq * xq > best_gain * qq) {  // the error falls by xq^2 / qq
      best_gain = xq * xq / qq;
      best_scale = xq / qq;
    }
  }
  return best_scale * largest;
}

struct AffineScale {
  float scale = 0.0f;  // >= 0
  float min = 0.0f;
};
// For values scale * q + min, q in [0, levels - 1]; where `below_zero`, min <= 0.
template <int kValues>
AffineScale best_affine_scale(const float* x, int levels, bool below_zero) {
  float low = x[0], high = x[0];
  for (int i = 1; i < kValues; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  if (below_zero) low = std::min(low, 0.0f);
  if (!(high - low > 1e-15f)) return {0.0f, low};
  const float range = high - low, top = float(levels - 1);
  AffineScale best{range / top, low};
  double best_error = -1.0;
  for (int step = -6; step <= 10; ++step) {
    const float inverse = (top + 0.1f * float(step)) / range;
    double q1 = 0, q2 = 0, x1 = 0, xq = 0;
    for (int i = 0; i < kValues; ++i) {
      const float q = std::clamp(round_half_even((x[i] - low) * inverse), 0.0f, top);
      q1 += double(q);
      q2 += double(q) * double(q);
      x1 += double(x[i]);
      xq += double(x[i]) * double(q);
    }
    const double determinant = kValues * q2 - q1 * q1;
    if (determinant <= 0) continue;
    double scale = (kValues * xq - x1 * q1) / determinant, min = (x1 * q2 - q1 * xq) / determinant;
    if (below_zero && min > 0) {
      min = 0;
      scale = xq / q2;
    }
    if (scale <= 0) continue;
    double error = 0;
    for (int i = 0; i < kValues; ++i) {
      const double q = std::clamp(std::nearbyint((double(x[i]) - min) / scale), 0.0, double(top));
      const double off = scale * q + min - double(x[i]);
      error += off * off;
    }
    if (best_error < 0 || error < best_error) {
      best_error = error;
      best = {float(scale), float(min)};
    }
  }
  return best;
}

}  // namespace bitnet
