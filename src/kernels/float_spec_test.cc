#include "kernels/float_spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace bitnet {
namespace {

TEST(FloatSpec, LaneSumFollowsTheWrittenOrder) {
  // Lane 0 holds 2^24 + 1 + 1 = 2^24 (each 1 is lost), lane 8 holds 2: folded first, it survives.
  std::vector<float> terms(40, 0.0f);
  terms[0] = 16777216.0f;
  terms[16] = terms[32] = 1.0f;
  terms[8] = 2.0f;
  const auto sum = [&](int64_t n) { return spec::lane_sum(n, [&](int64_t i) { return terms[size_t(i)]; }); };
  EXPECT_EQ(sum(40), 16777218.0f);
  EXPECT_EQ(sum(8), 16777216.0f);
  EXPECT_EQ(sum(0), 0.0f);
}

TEST(FloatSpec, FoldAddsTheLaneEightAwayFirst) {
  // (1e8 + -1e8) + (1 + 0) is 1; adding neighbours first would lose the 1.
  std::vector<float> terms(16, 0.0f);
  terms[0] = 1e8f;
  terms[8] = -1e8f;
  terms[1] = 1.0f;
  EXPECT_EQ(spec::lane_sum(16, [&](int64_t i) { return terms[size_t(i)]; }), 1.0f);
}

TEST(FloatSpec, PairSumAddsNeighbours) {
  // (2^24 + 1) + (1 + 1) loses one of the three 1s, in order all are lost.
  std::vector<float> terms(600, 0.0f);
  const auto sum = [&](int64_t n) { return spec::pair_sum(n, [&](int64_t i) { return terms[size_t(i)]; }); };
  EXPECT_EQ(sum(0), 0.0f);
  terms[0] = 16777216.0f;
  terms[1] = terms[2] = terms[3] = 1.0f;
  EXPECT_EQ(sum(3), 16777216.0f);
  EXPECT_EQ(sum(4), 16777218.0f);
  // Not neighbours: each is lost alone.
  terms = std::vector<float>(600, 0.0f);
  terms[0] = 16777216.0f;
  terms[1] = terms[4] = 1.0f;
  EXPECT_EQ(sum(256), 16777216.0f);
  // The two halves of a block meet last.
  terms[1] = terms[4] = 0.0f;
  terms[128] = terms[255] = 1.0f;
  EXPECT_EQ(sum(256), 16777218.0f);
}

TEST(FloatSpec, PairSumAddsBlocksInOrder) {
  std::vector<float> terms(600, 0.0f);
  const auto sum = [&](int64_t n) { return spec::pair_sum(n, [&](int64_t i) { return terms[size_t(i)]; }); };
  terms[0] = 16777216.0f;
  terms[256] = terms[512] = 1.0f;  // of two blocks: lost one after the other
  EXPECT_EQ(sum(600), 16777216.0f);
  terms[257] = 1.0f;
  terms[512] = 0.0f;
  EXPECT_EQ(sum(600), 16777218.0f);
  EXPECT_EQ(sum(257), 16777216.0f);
}

// In units of the last place of the exact result.
double ulps_off(float x) {
  const double exact = std::exp(double(x));
  const float rounded = float(exact);
  const double ulp = double(std::nextafter(rounded, std::numeric_limits<float>::infinity())) - double(rounded);
  return std::fabs(double(spec::exp(x)) - exact) / ulp;
}

TEST(FloatSpec, ExpIsWithinTwoUlps) {
  double worst = 0.0;
  for (double x = -103.0; x < 88.7; x += 0.00037) worst = std::max(worst, ulps_off(float(x)));
  EXPECT_LT(worst, 2.0);
  for (double x = -1e-3; x < 1e-3; x += 1.7e-8) worst = std::max(worst, ulps_off(float(x)));
  EXPECT_LT(worst, 2.0);
}

TEST(FloatSpec, ExpOfSpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(spec::exp(0.0f), 1.0f);
  EXPECT_EQ(spec::exp(-0.0f), 1.0f);
  EXPECT_EQ(spec::exp(-infinity), 0.0f);
  EXPECT_EQ(spec::exp(-104.5f), 0.0f);
  EXPECT_EQ(spec::exp(infinity), infinity);
  EXPECT_EQ(spec::exp(89.0f), infinity);
  EXPECT_GT(spec::exp(-103.0f), 0.0f);
  EXPECT_LT(spec::exp(88.7f), infinity);
  EXPECT_TRUE(std::isnan(spec::exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST(FloatSpec, Activations) {
  EXPECT_EQ(spec::relu2_gate(-3.0f, std::numeric_limits<float>::quiet_NaN()), 0.0f);
  EXPECT_EQ(spec::relu2_gate(3.0f, -2.0f), -18.0f);
  EXPECT_EQ(spec::silu(0.0f), 0.0f);
  EXPECT_NEAR(spec::silu(1.0f), 0.7310586, 1e-6);
  EXPECT_NEAR(spec::silu(-200.0f), 0.0, 1e-30);
}

}  // namespace
}  // namespace bitnet
