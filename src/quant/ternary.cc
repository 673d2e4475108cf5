#include "quant/ternary.h"

#include <array>
#include <cmath>

namespace bitnet {
namespace {

// Sums of absolute values in double, in 8 lanes: exact enough for any matrix, and fast.
double sum_of_magnitudes(std::span<const float> values) {
  std::array<double, 8> lanes{};
  size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    for (size_t k = 0; k < 8; ++k) lanes[k] += double(std::fabs(values[i + k]));
  }
  for (; i < values.size(); ++i) lanes[i % 8] += double(std::fabs(values[i]));
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

float absmean_ternarize(std::span<const float> weights, uint8_t* codes) {
  const float mean = weights.empty() ? 0.0f : float(sum_of_magnitudes(weights) / double(weights.size()));
  const float scale = 1.0f / (mean > 1e-5f ? mean : 1e-5f);
  for (size_t i = 0; i < weights.size(); ++i) {
    // clamp(round half even(v), -1, 1): a half goes to the even 0, so only more than a half counts.
    const float v = weights[i] * scale;
    codes[i] = uint8_t(1 + (v > 0.5f) - (v < -0.5f));
  }
  return 1.0f / scale;
}

bool exact_ternary(std::span<const float> weights, uint8_t* codes, float* alpha) {
  size_t first = 0;
  while (first < weights.size() && weights[first] == 0.0f) ++first;
  const float a = first < weights.size() ? std::fabs(weights[first]) : 1.0f;
  if (!std::isfinite(a)) return false;
  bool exact = true;
  for (size_t i = 0; i < weights.size(); ++i) {
    const float w = weights[i];
    exact &= w == 0.0f || w == a || w == -a;
    codes[i] = uint8_t(1 + (w > 0.0f) - (w < 0.0f));
  }
  *alpha = a;
  return exact;
}

}  // namespace bitnet
