#include "train/core/quantization.h"

#include "base/rng.h"
#include "train/core/plain_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace bitnet {
namespace {

TEST(QuantizationSchedule, IsWholeFromTheBeginningByItself) {
  const QuantizationSchedule schedule;
  EXPECT_EQ(schedule.ends_at(4), 1);
  for (int64_t layer = 0; layer < 4; ++layer) EXPECT_TRUE(schedule.at(1, 4).of(layer).is_exact());
}

// A layer's clock starts layer_steps after that of the layer before it.
TEST(QuantizationSchedule, LayersFollowEachOther) {
  QuantizationSchedule schedule;
  schedule.layer_steps = 10;
  for (const bool last_first : {false, true}) {
    schedule.last_first = last_first;
    for (int64_t step = 1; step < 40; ++step) {
      const LayerQuantization layers = schedule.at(step, 3);
      for (int64_t order = 0; order < 3; ++order) {
        EXPECT_EQ(layers.of(last_first ? 2 - order : order).enabled, step > 10 * order) << step << " " << order;
      }
    }
  }
  EXPECT_EQ(schedule.ends_at(3), 21);
}

TEST(QuantizationSchedule, WidthsFallWhileLambdaRises) {
  QuantizationSchedule schedule;
  const auto widths = parse_widths("8:2, 4:3,2:1");
  ASSERT_TRUE(widths.has_value()) << widths.error().message;
  schedule.widths = *widths;
  schedule.lambda_warmup = 4;
  schedule.layer_steps = 2;
  const int expected[] = {127, 127, 7, 7, 7, 1, 1, 1};  // 2 bits have the three levels of ternary
  for (int64_t step = 1; step <= 8; ++step) {
    EXPECT_EQ(schedule.at(step, 2).of(0).levels, expected[step - 1]) << step;
    EXPECT_EQ(schedule.at(step, 2).of(0).lambda, std::min(1.0, double(step) / 4)) << step;
    EXPECT_EQ(schedule.at(step + 2, 2).of(1).levels, expected[step - 1]) << step;
  }
  EXPECT_FALSE(schedule.at(2, 2).of(1).enabled);
  EXPECT_EQ(schedule.ends_at(2), 9);
  EXPECT_FALSE(schedule.at(8, 2).of(1).enabled && schedule.at(7, 2).of(1).is_exact());
  EXPECT_TRUE(schedule.at(9, 2).of(0).is_exact() && schedule.at(9, 2).of(1).is_exact());
  schedule.lambda_warmup = 20;
  EXPECT_EQ(schedule.ends_at(2), 22);
  EXPECT_FALSE(schedule.at(21, 2).of(1).is_exact());
  EXPECT_TRUE(schedule.at(22, 2).of(1).is_exact());
}

TEST(QuantizationSchedule, WidthsAreChecked) {
  EXPECT_TRUE(parse_widths("")->empty());
  for (const char* const bad :
       {"8", "8:", ":5", "9:5", "1:5", "8:0", "4:5,8:5", "8:5,8:5", "x:5", "8:5;4:5", "8:1e3"}) {
    EXPECT_FALSE(parse_widths(bad).has_value()) << bad;
  }
}

// The nearest of -levels ... levels times mean |w| / sqrt(levels), found by looking at all of them.
TEST(PlainOps, RoundsToTheNearestLevel) {
  constexpr int64_t kOut = 6, kIn = 50;
  const CounterRng rng(8);
  std::vector<double> weights(kOut * kIn);
  double mean = 0;
  for (size_t i = 0; i < weights.size(); ++i) mean += std::fabs(weights[i] = 0.1 * rng.normal(i));
  mean /= double(weights.size());
  ThreadPool pool(1);
  for (const int levels : {1, 3, 7, 127}) {
    PlainOps<double> ops(pool);
    QuantizationOptions options;
    options.levels = levels;
    ops.set_quantization(options);
    PlainOps<double>::Weight weight;
    ops.prepare(weights.data(), nullptr, kOut, kIn, weight);
    std::set<int> used;
    double error = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      double nearest = 1e9;
      int code = 0;
      for (int level = -levels; level <= levels; ++level) {
        const double value = level * mean / std::sqrt(double(levels));
        if (std::fabs(value - weights[i]) < std::fabs(nearest - weights[i])) nearest = value, code = level;
      }
      EXPECT_NEAR(weight.effective[i], nearest, 1e-12);
      used.insert(code);
      error += (nearest - weights[i]) * (nearest - weights[i]);
    }
    EXPECT_GE(used.size(), size_t(std::min(2 * levels + 1, 40)));
    // Of the weights' own square, that of normal values is 0.26, 0.076, 0.016, 0.0004.
    EXPECT_LT(error / double(weights.size()) / 0.01, levels == 1   ? 0.4
                                                     : levels == 3 ? 0.13
                                                     : levels == 7 ? 0.04
                                                                   : 2e-3);
  }
}

}  // namespace
}  // namespace bitnet
