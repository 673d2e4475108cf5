#include "quant/ternary_quantizers.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace bitnet {
namespace {

constexpr float kFloor = 1e-5f;  // of a scale, as absmean_ternarize has it

// |w| > threshold keeps its sign, the rest is 0.
void cut(std::span<const float> values, float threshold, uint8_t* codes) {
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] = uint8_t(1 + (values[i] > threshold) - (values[i] < -threshold));
  }
}

double mean_magnitude(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += double(std::fabs(v));
  return values.empty() ? 0.0 : sum / double(values.size());
}

float absmedian(std::span<const float> values, uint8_t* codes) {
  std::vector<float> magnitudes(values.size());
  std::transform(values.begin(), values.end(), magnitudes.begin(), [](float v) { return std::fabs(v); });
  const auto middle = magnitudes.begin() + int64_t(magnitudes.size() / 2);
  std::nth_element(magnitudes.begin(), middle, magnitudes.end());
  float median = *middle;
  if (magnitudes.size() % 2 == 0) median = 0.5f * (median + *std::max_element(magnitudes.begin(), middle));
  const float scale = 1.0f / std::max(median, kFloor);
  for (size_t i = 0; i < values.size(); ++i) {
    const float v = values[i] * scale;
    codes[i] = uint8_t(1 + (v > 0.5f) - (v < -0.5f));
  }
  return 1.0f / scale;
}

// With the k largest magnitudes kept, the best alpha is their mean and the squared error falls by (their sum)^2 / k. So
// of all 3^n codes only n + 1 can be best, and sorting finds them.
float least_squares(std::span<const float> values, uint8_t* codes) {
  std::vector<float> magnitudes(values.size());
  std::transform(values.begin(), values.end(), magnitudes.begin(), [](float v) { return std::fabs(v); });
  std::sort(magnitudes.begin(), magnitudes.end(), std::greater<>());
  double sum = 0, best_gain = 0, alpha = double(kFloor);
  float threshold = magnitudes.front();  // values above it are kept
  for (size_t k = 0; k < magnitudes.size() && magnitudes[k] > 0.0f; ++k) {
    sum += double(magnitudes[k]);
    // Equal magnitudes stay together: a cut between them is never better than one beside them.
    if (k + 1 < magnitudes.size() && magnitudes[k + 1] == magnitudes[k]) continue;
    const double gain = sum * sum / double(k + 1);
    if (gain <= best_gain) continue;
    best_gain = gain;
    alpha = sum / double(k + 1);
    threshold = k + 1 < magnitudes.size() ? magnitudes[k + 1] : 0.0f;
  }
  cut(values, threshold, codes);
  return std::max(float(alpha), 1e-30f);
}

float twn(std::span<const float> values, uint8_t* codes) {
  cut(values, float(0.7 * mean_magnitude(values)), codes);
  double sum = 0;
  int64_t n = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (codes[i] == 1) continue;
    sum += double(std::fabs(values[i]));
    ++n;
  }
  return n == 0 ? kFloor : std::max(float(sum / double(n)), 1e-30f);
}

// Each turn lowers the weighted error or ends, so this ends; 100 turns are far more than any weight takes.
float learned(std::span<const float> values, std::span<const float> importance, uint8_t* codes,
              const TernaryCodecs& codecs) {
  float alpha = absmean_ternarize(values, codes, codecs);
  for (int turn = 0; turn < 100; ++turn) {
    double sum = 0, weight = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      if (codes[i] == 1) continue;
      const double w = importance.empty() ? 1.0 : double(importance[i % importance.size()]);
      sum += w * double(std::fabs(values[i]));
      weight += w;
    }
    if (weight <= 0) return alpha;
    const float next = std::max(float(sum / weight), 1e-30f);
    cut(values, next / 2, codes);
    if (next == alpha) break;
    alpha = next;
  }
  return alpha;
}

}  // namespace

const char* ternary_method_name(TernaryMethod method) {
  switch (method) {
    case TernaryMethod::kAbsmean: return "absmean";
    case TernaryMethod::kAbsmedian: return "absmedian";
    case TernaryMethod::kLeastSquares: return "lsq";
    case TernaryMethod::kTwn: return "twn";
    case TernaryMethod::kLearned: return "learned";
  }
  return "unknown";
}

float ternarize_group(TernaryMethod method, std::span<const float> values, std::span<const float> importance,
                      uint8_t* codes, const TernaryCodecs& codecs) {
  if (values.empty()) return kFloor;
  switch (method) {
    case TernaryMethod::kAbsmean: return absmean_ternarize(values, codes, codecs);
    case TernaryMethod::kAbsmedian: return absmedian(values, codes);
    case TernaryMethod::kLeastSquares: return least_squares(values, codes);
    case TernaryMethod::kTwn: return twn(values, codes);
    case TernaryMethod::kLearned: return learned(values, importance, codes, codecs);
  }
  return kFloor;
}

Result<TernaryCodes> ternarize(std::span<const float> values, int64_t n_rows, int64_t n_cols,
                               const TernaryOptions& options, const TernaryCodecs& codecs) {
  BN_RETURN_IF_ERROR(finite_matrix(values, n_rows, n_cols));
  if (!options.importance.empty() && int64_t(options.importance.size()) != n_cols) {
    return invalid_argument("{} importances for {} columns", options.importance.size(), n_cols);
  }
  TernaryCodes out;
  out.codes.resize(values.size());
  int64_t group = n_cols;
  switch (options.granularity) {
    case Granularity::kTensor:
      out.scales.tensor = ternarize_group(options.method, values, options.importance, out.codes.data(), codecs);
      return out;
    case Granularity::kRow: break;
    case Granularity::kGroup: group = options.group_cols; break;
    case Granularity::kColumn: return unsupported("ternary scales are for a tensor, a row or a group of columns");
  }
  if (group < 1 || n_cols % group != 0) {
    return invalid_argument("groups of {} columns do not divide rows of {}", group, n_cols);
  }
  out.scales.group_cols = group;
  for (size_t at = 0; at < values.size(); at += size_t(group)) {
    const auto importance = options.importance.empty() ? options.importance
                                                       : options.importance.subspan(at % size_t(n_cols), size_t(group));
    out.scales.groups.push_back(
        ternarize_group(options.method, values.subspan(at, size_t(group)), importance, out.codes.data() + at, codecs));
  }
  out.scales.tensor = out.scales.groups.front();
  return out;
}

}  // namespace bitnet
