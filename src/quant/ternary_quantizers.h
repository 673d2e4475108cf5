#pragma once

#include "base/result.h"
#include "quant/granularity.h"
#include "quant/ternary.h"

#include <cstdint>
#include <span>
#include <vector>

namespace bitnet {

// How float weights become codes {-1, 0, +1} and a multiplier alpha. Each works on the values that share a scale.
enum class TernaryMethod : uint8_t {
  kAbsmean,       // BitNet b1.58: alpha = mean|w|, zero up to alpha / 2 (absmean_ternarize)
  kAbsmedian,     // the same with the median, which a few large values do not move
  kLeastSquares,  // the codes and alpha with the least squared error of all
  kTwn,           // Li et al. 2016: zero up to 0.7 mean|w|, alpha = the mean of the other |w|
  kLearned,       // from absmean by turns the best codes for alpha and the best alpha for the codes, errors weighted by
                  // `importance`, until neither changes
};
const char* ternary_method_name(TernaryMethod method);

struct TernaryOptions {
  TernaryMethod method = TernaryMethod::kAbsmean;
  Granularity granularity = Granularity::kTensor;  // kTensor, kRow or kGroup
  int64_t group_cols = 128;
  std::span<const float> importance;  // [n_cols] >= 0, of kLearned: how much a column's error matters; empty: alike
};
struct TernaryCodes {
  std::vector<uint8_t> codes;  // w + 1
  TernaryScales scales;        // a scale a row is a group of n_cols columns
};
// Values [n_rows, n_cols] must be finite. Groups that are all zeros have the scale of absmean_ternarize (1e-5).
Result<TernaryCodes> ternarize(std::span<const float> values, int64_t n_rows, int64_t n_cols,
                               const TernaryOptions& options, const TernaryCodecs& codecs = kPlainTernaryCodecs);

// One group. Fills codes and returns alpha > 0.
float ternarize_group(TernaryMethod method, std::span<const float> values, std::span<const float> importance,
                      uint8_t* codes, const TernaryCodecs& codecs = kPlainTernaryCodecs);

}  // namespace bitnet
