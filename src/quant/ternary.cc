#include "quant/ternary.h"

#include "quant/past_cache.h"

#include <algorithm>
#include <cmath>

namespace bitnet {

float absmean_ternarize(std::span<const float> weights, uint8_t* codes, const TernaryCodecs& codecs) {
  const int64_t n = int64_t(weights.size());
  double lanes[kMagnitudeLanes] = {}, sum = 0;
  codecs.add_magnitudes(weights.data(), n - n % kMagnitudeLanes, lanes);
  for (int64_t i = n - n % kMagnitudeLanes; i < n; ++i)
    lanes[i % kMagnitudeLanes] += double(std::fabs(weights[size_t(i)]));
  for (const double lane : lanes) sum += lane;
  const float mean = n == 0 ? 0.0f : float(sum / double(n));
  const float scale = 1.0f / (mean > 1e-5f ? mean : 1e-5f);
  PastCache out(codecs, codes, n);
  for (int64_t i = 0, some; i < n; i += some) {
    some = std::min(out.blocks_at_once(1), n - i);
    // clamp(round half even(v), -1, 1): a half goes to the even 0, so only more than a half counts.
    codecs.round_to_codes(weights.data() + i, some, scale, out.room());
    out.add(some);
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
