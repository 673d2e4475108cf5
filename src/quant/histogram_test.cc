#include "quant/histogram.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace bitnet {
namespace {

std::vector<float> normals(size_t n, uint64_t seed, float deviation = 1.0f) {
  const CounterRng rng(seed);
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = float(rng.normal(i)) * deviation;
  return x;
}
double squared_error(const std::vector<float>& x, double clip, int bits) {
  const double levels = (1 << (bits - 1)) - 1, step = clip / levels;
  double error = 0;
  for (const float v : x) {
    const double q = std::clamp(std::nearbyint(double(v) / step), -levels, levels) * step;
    error += (double(v) - q) * (double(v) - q);
  }
  return error;
}

TEST(Histogram, CountsWhateverTheOrderOfTheRanges) {
  std::vector<float> x = normals(100000, 1);
  x[99999] = 300.0f;  // the range grows last
  StreamingHistogram whole, parts, other;
  whole.add(x);
  parts.add(std::span(x).first(40000));
  other.add(std::span(x).subspan(40000));
  parts.add(other);
  EXPECT_EQ(parts.n(), 100000);
  EXPECT_EQ(parts.absmax(), 300.0f);
  EXPECT_EQ(std::accumulate(whole.bins().begin(), whole.bins().end(), int64_t{0}), 100000);
  EXPECT_TRUE(std::equal(whole.bins().begin(), whole.bins().end(), parts.bins().begin()));
  EXPECT_NEAR(parts.mean_square(), 1.0 + 0.9, 0.05);
}

TEST(Histogram, PercentilesAreThoseOfTheSortedValues) {
  const std::vector<float> x = normals(50000, 2, 3.0f);
  StreamingHistogram histogram;
  histogram.add(x);
  std::vector<float> magnitudes;
  for (const float v : x) magnitudes.push_back(std::fabs(v));
  std::sort(magnitudes.begin(), magnitudes.end());
  for (const double share : {0.01, 0.25, 0.5, 0.9, 0.99, 0.999}) {
    // Within a bin of the values on both sides of that place, which lie far apart in the tail.
    const size_t at = size_t(share * 50000);
    EXPECT_GE(histogram.percentile(share), magnitudes[at - 2] - 1.01f * histogram.bin_width()) << share;
    EXPECT_LE(histogram.percentile(share), magnitudes[at + 1] + 1.01f * histogram.bin_width()) << share;
  }
  EXPECT_EQ(histogram.percentile(1.0), magnitudes.back());
}

TEST(Histogram, TheClipOfLeastErrorIsThat) {
  const std::vector<float> x = normals(30000, 3);
  StreamingHistogram histogram;
  histogram.add(x);
  for (const int bits : {3, 4, 6}) {
    const double clip = double(histogram.clip_by_squared_error(bits)), error = squared_error(x, clip, bits);
    for (const double other : {0.5, 0.8, 0.9, 1.1, 1.25, 2.0})
      EXPECT_LT(error, 1.01 * squared_error(x, clip * other, bits));
    EXPECT_LT(error, squared_error(x, double(histogram.absmax()), bits)) << bits;
  }
}

TEST(Histogram, OutliersAreCutOffByEveryRule) {
  std::vector<float> x = normals(100000, 4);
  x[5] = 60.0f;
  StreamingHistogram histogram;
  histogram.add(x);
  EXPECT_LT(histogram.clip_by_squared_error(4), 8.0f);
  EXPECT_LT(histogram.clip_by_kl(8), 20.0f);
  EXPECT_LT(histogram.clip_by_entropy(4), 8.0f);
  EXPECT_GT(histogram.clip_by_kl(8), 2.0f);
}

TEST(Histogram, ZerosAndBadValues) {
  StreamingHistogram histogram;
  EXPECT_EQ(histogram.percentile(0.5), 0.0f);
  histogram.add(std::vector<float>{0.0f, 0.0f, std::nanf(""), INFINITY});
  EXPECT_EQ(histogram.n(), 2);
  EXPECT_EQ(histogram.n_nonfinite(), 2);
  EXPECT_EQ(histogram.absmax(), 0.0f);
  EXPECT_EQ(histogram.clip_by_squared_error(8), 0.0f);
  EXPECT_EQ(histogram.clip_by_kl(8), 0.0f);
}

}  // namespace
}  // namespace bitnet
