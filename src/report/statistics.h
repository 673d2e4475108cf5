#pragma once

#include <cstdint>
#include <span>

namespace bitnet {

// Statistics of repeated measurements. Pure functions without state, thread-safe; what is drawn at random comes from a
// fixed seed, so the same numbers give the same answer. Values must be finite. Of no values every answer is 0.

struct Interval {
  double low = 0, high = 0;
  bool contains(double value) const { return low <= value && value <= high; }
};

// The quantile q in [0, 1] by a line between the two nearest of the sorted values (type 7 of Hyndman and Fan, 1996;
// NumPy's default).
double quantile(std::span<const double> values, double q);
double median(std::span<const double> values);
double mean(std::span<const double> values);
double standard_deviation(std::span<const double> values);  // with n - 1; 0 of a single value

struct Summary {
  int64_t n = 0;
  double mean = 0, deviation = 0;
  double p5 = 0, p50 = 0, p95 = 0;
  Interval median_interval;  // at `confidence`, by bootstrap
};
Summary summarize(std::span<const double> values, double confidence = 0.95);

// Percentile bootstrap (Efron, 1979) of the median, and of median(b) / median(a) for two independent samples of
// positive values.
Interval bootstrap_median(std::span<const double> values, double confidence);
Interval bootstrap_median_ratio(std::span<const double> a, std::span<const double> b, double confidence);

// P(T <= t) of Wilcoxon's signed-rank statistic of n values that are symmetric around 0, exact.
double signed_rank_probability(int64_t n, int64_t t);

enum class Verdict : uint8_t {
  kFaster,        // the whole interval of the ratio lies above 1
  kSlower,        // or below 1
  kNoDifference,  // or holds 1
  kTooFewPairs,   // not even the same sign in all pairs would decide
};
const char* verdict_name(Verdict verdict);  // "faster", "slower", "no difference", "too few pairs"

// Two programs measured in turn: pair i holds base[i] and other[i], speeds of the same minute, so that what disturbs
// the machine for longer than a pair falls out. Everything is about d = log(other / base).
struct PairedComparison {
  int64_t n_pairs = 0;
  double ratio = 1;          // other / base: exp of the Hodges-Lehmann estimate, the median of (d_i + d_j) / 2, i <= j
  Interval ratio_interval;   // exact, of the signed-rank test: order statistics of the same averages (Tukey, 1949)
  double signed_rank_p = 1;  // two-sided, assumes that d is symmetric
  double sign_p = 1;         // two-sided, assumes nothing of its shape
  Verdict verdict = Verdict::kTooFewPairs;
  double detectable = 0;  // the farther end of the interval from 1: what may have gone unseen
};
// n_pairs^3 operations; the shorter of the two counts. Speeds must be positive. Where the order within the pairs
// alternates, an advantage of the second place falls out too.
PairedComparison compare_paired(std::span<const double> base, std::span<const double> other, double confidence);

// Pairs that a verdict needs at least: those with 2 / 2^n <= 1 - confidence.
int64_t least_pairs(double confidence);

}  // namespace bitnet
