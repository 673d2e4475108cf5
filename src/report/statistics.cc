#include "report/statistics.h"

#include "base/rng.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace bitnet {
namespace {

constexpr int kResamples = 4000;  // the ends of a 95% interval then move by less than a tenth of its width
constexpr uint64_t kSeed = 0x62656e6368;

double sorted_quantile(std::span<const double> sorted, double q) {
  const double at = q * double(sorted.size() - 1);
  const size_t below = std::min(size_t(at), sorted.size() - 1), above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - double(below)) * (sorted[above] - sorted[below]);
}

// The median of as many values as there are, drawn with replacement; draw `index` of stream `rng`.
double resampled_median(std::span<const double> values, const CounterRng& rng, uint64_t index,
                        std::vector<double>& scratch) {
  scratch.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const double u = rng.uniform(index * values.size() + i);
    scratch[i] = values[std::min(size_t(u * double(values.size())), values.size() - 1)];
  }
  std::sort(scratch.begin(), scratch.end());
  return sorted_quantile(scratch, 0.5);
}

Interval percentiles(std::vector<double> draws, double confidence) {
  std::sort(draws.begin(), draws.end());
  const double tail = (1 - confidence) / 2;
  return {sorted_quantile(draws, tail), sorted_quantile(draws, 1 - tail)};
}

// How often each sum of ranks comes up, as a share: subsets of {1, ..., n} by their sum.
std::vector<double> rank_sum_shares(int64_t n) {
  std::vector<double> shares(size_t(n * (n + 1) / 2 + 1), 0.0);
  shares[0] = 1;
  int64_t largest = 0;
  for (int64_t rank = 1; rank <= n; ++rank) {
    largest += rank;
    for (int64_t sum = largest; sum >= 0; --sum) {
      const double without = shares[size_t(sum)], with = sum >= rank ? shares[size_t(sum - rank)] : 0;
      shares[size_t(sum)] = (without + with) / 2;
    }
  }
  return shares;
}

// P(T <= t).
double up_to(const std::vector<double>& shares, int64_t t) {
  double sum = 0;
  for (int64_t i = 0; i <= std::min(t, int64_t(shares.size()) - 1); ++i) sum += shares[size_t(i)];
  return std::min(1.0, sum);
}

// The largest t with P(T <= t) <= tail, or -1.
int64_t critical_rank_sum(const std::vector<double>& shares, double tail) {
  double sum = 0;
  for (size_t t = 0; t < shares.size(); ++t) {
    sum += shares[t];
    if (sum > tail) return int64_t(t) - 1;
  }
  return int64_t(shares.size()) - 1;
}

// P(at most k heads of n throws) and its mirror image.
double two_sided_sign_probability(int64_t n, int64_t k) {
  double term = std::exp2(-double(n)), sum = 0;
  for (int64_t i = 0; i <= std::min(k, n - k); ++i) {
    sum += term;
    term *= double(n - i) / double(i + 1);
  }
  return std::min(1.0, 2 * sum);
}

}  // namespace

double quantile(std::span<const double> values, double q) {
  if (values.empty()) return 0;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted_quantile(sorted, std::clamp(q, 0.0, 1.0));
}

double median(std::span<const double> values) { return quantile(values, 0.5); }

double mean(std::span<const double> values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

double standard_deviation(std::span<const double> values) {
  if (values.size() < 2) return 0;
  const double average = mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - average) * (value - average);
  return std::sqrt(sum / double(values.size() - 1));
}

Summary summarize(std::span<const double> values, double confidence) {
  return {int64_t(values.size()), mean(values),           standard_deviation(values),          quantile(values, 0.05),
          quantile(values, 0.5),  quantile(values, 0.95), bootstrap_median(values, confidence)};
}

Interval bootstrap_median(std::span<const double> values, double confidence) {
  if (values.empty()) return {};
  const CounterRng rng(kSeed);
  std::vector<double> draws(kResamples), scratch;
  for (int i = 0; i < kResamples; ++i) draws[size_t(i)] = resampled_median(values, rng, uint64_t(i), scratch);
  return percentiles(std::move(draws), confidence);
}

Interval bootstrap_median_ratio(std::span<const double> a, std::span<const double> b, double confidence) {
  if (a.empty() || b.empty()) return {};
  const CounterRng rng_a(kSeed, 1), rng_b(kSeed, 2);
  std::vector<double> draws(kResamples), scratch;
  for (int i = 0; i < kResamples; ++i) {
    draws[size_t(i)] =
        resampled_median(b, rng_b, uint64_t(i), scratch) / resampled_median(a, rng_a, uint64_t(i), scratch);
  }
  return percentiles(std::move(draws), confidence);
}

double signed_rank_probability(int64_t n, int64_t t) { return up_to(rank_sum_shares(n), t); }

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kFaster: return "faster";
    case Verdict::kSlower: return "slower";
    case Verdict::kNoDifference: return "no difference";
    case Verdict::kTooFewPairs: return "too few pairs";
  }
  return "unknown";
}

PairedComparison compare_paired(std::span<const double> base, std::span<const double> other, double confidence) {
  PairedComparison result;
  const size_t n = std::min(base.size(), other.size());
  result.n_pairs = int64_t(n);
  if (n == 0) return result;
  std::vector<double> d(n), averages;
  for (size_t i = 0; i < n; ++i) d[i] = std::log(other[i] / base[i]);
  averages.reserve(n * (n + 1) / 2);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) averages.push_back((d[i] + d[j]) / 2);
  }
  std::sort(averages.begin(), averages.end());
  result.ratio = std::exp(sorted_quantile(averages, 0.5));

  // The signed-rank statistic is the number of averages above 0; equal ones count on both sides.
  const auto below = std::lower_bound(averages.begin(), averages.end(), 0.0) - averages.begin();
  const auto above = averages.end() - std::upper_bound(averages.begin(), averages.end(), 0.0);
  const auto ties = ptrdiff_t(averages.size()) - below - above;
  const std::vector<double> shares = rank_sum_shares(int64_t(n));
  result.signed_rank_p = std::min(1.0, 2 * up_to(shares, std::min(below, above) + ties / 2));
  // Pairs without a difference say nothing about its sign.
  const int64_t n_less = std::count_if(d.begin(), d.end(), [](double value) { return value < 0; });
  const int64_t n_more = std::count_if(d.begin(), d.end(), [](double value) { return value > 0; });
  result.sign_p = two_sided_sign_probability(n_less + n_more, n_less);

  const int64_t critical = critical_rank_sum(shares, (1 - confidence) / 2);
  if (critical < 0) {
    result.ratio_interval = {std::exp(averages.front()), std::exp(averages.back())};
    return result;
  }
  const size_t k = size_t(critical);  // as many averages beyond each end as the test lets pass
  result.ratio_interval = {std::exp(averages[k]), std::exp(averages[averages.size() - 1 - k])};
  result.verdict = result.ratio_interval.low > 1    ? Verdict::kFaster
                   : result.ratio_interval.high < 1 ? Verdict::kSlower
                                                    : Verdict::kNoDifference;
  result.detectable = std::max(std::abs(1 - result.ratio_interval.low), std::abs(result.ratio_interval.high - 1));
  return result;
}

int64_t least_pairs(double confidence) {
  int64_t n = 1;
  while (n < 60 && std::exp2(1 - double(n)) > 1 - confidence) ++n;
  return n;
}

}  // namespace bitnet
