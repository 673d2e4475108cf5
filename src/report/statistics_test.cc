#include "report/statistics.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace bitnet {
namespace {

const std::vector<double> kSpeeds = {12.1, 11.8, 12.5, 30.0, 11.9, 12.0, 12.3};
const std::vector<double> kBase = {100, 101, 99, 102, 98, 100, 103, 97, 100, 101};
const std::vector<double> kOther = {104, 103, 101, 109, 99, 102, 101, 100, 105, 104.5};

// [numpy.quantile(x, q) for q in (0, .05, .25, .5, .95, 1)], numpy.mean(x), numpy.std(x, ddof=1); NumPy 1.24
TEST(Statistics, QuantilesEqualNumpy) {
  const double expected[][2] = {{0, 11.8}, {0.05, 11.83}, {0.25, 11.95}, {0.5, 12.1}, {0.95, 24.75}, {1, 30}};
  for (const auto& [q, value] : expected) EXPECT_NEAR(quantile(kSpeeds, q), value, 1e-12) << q;
  EXPECT_DOUBLE_EQ(mean(kSpeeds), 14.657142857142858);
  EXPECT_NEAR(standard_deviation(kSpeeds), 6.769750646037401, 1e-12);
  EXPECT_EQ(median(std::vector<double>{4, 1, 3, 2}), 2.5);
  const Summary summary = summarize(kSpeeds);
  EXPECT_EQ(summary.n, 7);
  EXPECT_EQ(summary.p50, 12.1);
  EXPECT_NEAR(summary.p95, 24.75, 1e-12);
}

TEST(Statistics, OfNothingIsZero) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(mean({}), 0);
  EXPECT_EQ(standard_deviation(std::vector<double>{3}), 0);
  EXPECT_EQ(bootstrap_median({}, 0.95).high, 0);
  EXPECT_EQ(compare_paired({}, {}, 0.95).verdict, Verdict::kTooFewPairs);
}

// scipy.stats.bootstrap((x,), numpy.median, n_resamples=200000, method='percentile'): (11.9, 12.5); SciPy 1.10.
// The median of a resample is one of the values, so few draws give the same ends.
TEST(Statistics, BootstrapEqualsScipy) {
  const Interval interval = bootstrap_median(kSpeeds, 0.95);
  EXPECT_EQ(interval.low, 11.9);
  EXPECT_EQ(interval.high, 12.5);
}

// r = median(rng.choice(b, (400000, 10)), 1) / median(rng.choice(a, (400000, 10)), 1) with NumPy;
// numpy.quantile(r, (.025, .975)): 0.88725, 0.94030
TEST(Statistics, BootstrapOfARatio) {
  const std::vector<double> a = {100, 104, 98, 101, 120, 99, 103, 100.5, 97, 102};
  const std::vector<double> b = {90, 95, 92, 91, 94, 89.5, 93, 110, 92.5, 90.5};
  const Interval interval = bootstrap_median_ratio(a, b, 0.95);
  EXPECT_NEAR(interval.low, 0.88725, 3e-3);
  EXPECT_NEAR(interval.high, 0.94030, 3e-3);
}

// Of 100 samples of 15 values from a skewed distribution, the interval holds the true median in about 95.
TEST(Statistics, BootstrapCoversTheMedian) {
  int n_covered = 0;
  constexpr int kTrials = 400;
  for (int trial = 0; trial < kTrials; ++trial) {
    const CounterRng rng(7, uint64_t(trial));
    std::vector<double> values(15);
    for (size_t i = 0; i < values.size(); ++i) values[i] = std::exp(rng.normal(i));
    n_covered += bootstrap_median(values, 0.95).contains(1) ? 1 : 0;
  }
  EXPECT_GE(n_covered, kTrials * 90 / 100);
  EXPECT_LE(n_covered, kTrials * 99 / 100);
}

// Sums of all subsets of {1..n}, counted in Python with itertools.product; n = 20 with SciPy's table.
TEST(Statistics, SignedRankDistribution) {
  EXPECT_DOUBLE_EQ(signed_rank_probability(5, 0), 0.03125);
  EXPECT_DOUBLE_EQ(signed_rank_probability(8, 3), 0.01953125);
  EXPECT_DOUBLE_EQ(signed_rank_probability(10, 8), 0.0244140625);
  EXPECT_NEAR(signed_rank_probability(20, 52), 0.02422046661376953, 1e-12);
  EXPECT_DOUBLE_EQ(signed_rank_probability(3, 100), 1);
  EXPECT_EQ(signed_rank_probability(3, -1), 0);
}

// d = numpy.log(other / base); scipy.stats.wilcoxon(d, mode='exact').pvalue: 0.005859375;
// exp(numpy.median of all (d[i] + d[j]) / 2, i <= j): 1.0273006; scipy.stats.binomtest(1, 10).pvalue: 0.021484375.
// The interval: every theta for which the test of d - theta, by counting all 1024 signs, has p > 0.05 (or 0.01).
TEST(Statistics, PairedComparisonEqualsScipy) {
  const PairedComparison paired = compare_paired(kBase, kOther, 0.95);
  EXPECT_EQ(paired.n_pairs, 10);
  EXPECT_NEAR(paired.ratio, 1.0273006057885226, 1e-12);
  EXPECT_DOUBLE_EQ(paired.signed_rank_p, 0.005859375);
  EXPECT_DOUBLE_EQ(paired.sign_p, 0.021484375);
  EXPECT_NEAR(paired.ratio_interval.low, 1.01021, 1e-5);
  EXPECT_NEAR(paired.ratio_interval.high, 1.04403, 1e-5);
  EXPECT_EQ(paired.verdict, Verdict::kFaster);
  EXPECT_NEAR(paired.detectable, 0.04403, 1e-5);
  const PairedComparison strict = compare_paired(kBase, kOther, 0.99);
  EXPECT_NEAR(strict.ratio_interval.low, 1.0001, 1e-4);
  EXPECT_NEAR(strict.ratio_interval.high, 1.05151, 1e-4);
  EXPECT_EQ(strict.verdict, Verdict::kFaster);
  EXPECT_EQ(compare_paired(kBase, kOther, 0.999).verdict, Verdict::kTooFewPairs) << "2 / 1024 is more than 0.001";
  EXPECT_EQ(compare_paired(kOther, kBase, 0.95).verdict, Verdict::kSlower);
}

TEST(Statistics, EqualSpeedsDifferNowhere) {
  const PairedComparison paired = compare_paired(kBase, kBase, 0.95);
  EXPECT_EQ(paired.ratio, 1);
  EXPECT_EQ(paired.verdict, Verdict::kNoDifference);
  EXPECT_EQ(paired.signed_rank_p, 1);
  EXPECT_EQ(paired.sign_p, 1);
}

TEST(Statistics, LeastPairs) {
  EXPECT_EQ(least_pairs(0.95), 6);  // 2 / 2^6 = 0.031
  EXPECT_EQ(least_pairs(0.99), 8);
  const std::vector<double> slow(6, 90), fast = {100, 101, 102, 103, 104, 105};
  EXPECT_EQ(compare_paired(fast, slow, 0.95).verdict, Verdict::kSlower);
  EXPECT_EQ(compare_paired(std::span(fast).first(5), std::span(slow).first(5), 0.95).verdict, Verdict::kTooFewPairs);
}

// A machine that others use too: its speed wanders from pair to pair, single runs vary by 3%, one in ten is held up by
// a fifth, and what runs second is 1% faster. The order alternates.
std::vector<double> noisy_speeds(uint64_t seed, int n_pairs, bool other, double factor) {
  const CounterRng rng(seed, other ? 1 : 2), shared(seed, 3);
  std::vector<double> speeds;
  double drift = 0;
  for (int i = 0; i < n_pairs; ++i) {
    drift += 0.05 * shared.normal(uint64_t(i));
    const bool second = (i % 2 == 0) == other;
    const double held_up = rng.uniform(1000 + uint64_t(i)) < 0.1 ? 0.8 : 1;
    speeds.push_back(100 * factor * held_up * (second ? 1.01 : 1) * std::exp(drift + 0.03 * rng.normal(uint64_t(i))));
  }
  return speeds;
}

double share_of_verdicts(Verdict wanted, bool or_opposite, double factor, int n_pairs) {
  constexpr int kTrials = 2000;
  int n = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto base = noisy_speeds(uint64_t(trial), n_pairs, false, 1);
    const auto other = noisy_speeds(uint64_t(trial), n_pairs, true, factor);
    const Verdict verdict = compare_paired(base, other, 0.95).verdict;
    n += verdict == wanted || (or_opposite && verdict == Verdict::kFaster) ? 1 : 0;
  }
  return double(n) / kTrials;
}

// The exact test of 12 pairs rejects 4.25% of equal pairs (P(T <= 13) twice); three standard errors of 2000 trials are
// 1.35%.
TEST(Statistics, EqualProgramsAreRarelyReportedDifferent) {
  const double share = share_of_verdicts(Verdict::kSlower, true, 1.0, 12);
  EXPECT_LT(share, 0.056);
  EXPECT_GT(share, 0.015) << "a test that never rejects finds nothing either";
}

TEST(Statistics, APlantedSlowDownIsFound) {
  EXPECT_GT(share_of_verdicts(Verdict::kSlower, false, 0.90, 12), 0.75);
  EXPECT_GT(share_of_verdicts(Verdict::kSlower, false, 0.90, 24), 0.98);
  EXPECT_GT(share_of_verdicts(Verdict::kSlower, false, 0.80, 12), 0.99);
}

}  // namespace
}  // namespace bitnet
