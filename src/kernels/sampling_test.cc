#include "kernels/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace bitnet {
namespace {

// Against the C library's, which is within one unit in the last place.
TEST(Sampling, ExpIsWithinAFewUnitsInTheLastPlace) {
  const CounterRng rng(3);
  double worst = 0;
  for (uint64_t i = 0; i < 1'000'000; ++i) {
    const double x = -std::pow(10.0, 6.0 * rng.uniform(2 * i) - 3.2) * rng.uniform(2 * i + 1);
    if (x < -708) continue;
    const double want = std::exp(x), found = exp_not_positive(x);
    worst = std::max(worst, std::abs(found - want) / (std::nextafter(want, 2.0) - want));
  }
  EXPECT_LE(worst, 3.0);
  EXPECT_GT(worst, 0.0);
}

TEST(Sampling, ExpOfSpecialValues) {
  EXPECT_EQ(exp_not_positive(0.0), 1.0);
  EXPECT_EQ(exp_not_positive(-0.0), 1.0);
  EXPECT_GT(exp_not_positive(-708.0), std::numeric_limits<double>::min());
  EXPECT_EQ(exp_not_positive(-708.1), 0.0);
  EXPECT_EQ(exp_not_positive(-std::numeric_limits<double>::infinity()), 0.0);
  EXPECT_EQ(exp_not_positive(std::numeric_limits<double>::quiet_NaN()), 0.0);
}

TEST(Sampling, WeightsAreRelativeToTheLargestLogit) {
  EXPECT_EQ(sampling_weight(3.5f, 3.5f, 0.7f), 1.0);
  EXPECT_NEAR(sampling_weight(1.0f, 3.0f, 0.5f), std::exp(-4.0), 1e-17);
  EXPECT_EQ(sampling_weight(-std::numeric_limits<float>::infinity(), 3.0f, 0.5f), 0.0);
  EXPECT_EQ(sampling_weight(-3e38f, 3e38f, 1e-38f), 0.0);
}

}  // namespace
}  // namespace bitnet
