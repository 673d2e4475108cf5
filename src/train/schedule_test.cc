#include "train/schedule.h"

#include <gtest/gtest.h>

namespace bitnet {
namespace {

ScheduleOptions options(ScheduleKind kind) {
  ScheduleOptions o;
  o.kind = kind;
  o.n_steps = 1000;
  o.n_warmup = 100;
  o.lr = 1.0;
  return o;
}

TEST(Schedule, WarmsUpAndEndsAtTheFinalShare) {
  for (const ScheduleKind kind :
       {ScheduleKind::kTwoStage, ScheduleKind::kCosine, ScheduleKind::kWsd, ScheduleKind::kLinear}) {
    EXPECT_DOUBLE_EQ(rates_at(options(kind), 1).lr, 0.01);
    EXPECT_DOUBLE_EQ(rates_at(options(kind), 50).lr, 0.5);
    EXPECT_DOUBLE_EQ(rates_at(options(kind), 100).lr, 1.0);
    EXPECT_NEAR(rates_at(options(kind), 1000).lr, 0.0, 1e-12);
    double before = 1.0;
    for (int64_t step = 101; step <= 1000; ++step) {
      const double lr = rates_at(options(kind), step).lr;
      EXPECT_LE(lr, before);
      before = lr;
    }
  }
}

TEST(Schedule, HalfWay) {
  EXPECT_NEAR(rates_at(options(ScheduleKind::kCosine), 550).lr, 0.5, 1e-12);
  EXPECT_NEAR(rates_at(options(ScheduleKind::kLinear), 550).lr, 0.5, 1e-12);
  EXPECT_NEAR(rates_at(options(ScheduleKind::kWsd), 800).lr, 1.0, 1e-12);
  EXPECT_NEAR(rates_at(options(ScheduleKind::kWsd), 910).lr, 0.5, 1e-12);
}

// Training Tips, section 3.1: the peak and the decay drop in the second half.
TEST(Schedule, TwoStages) {
  const ScheduleOptions o = options(ScheduleKind::kTwoStage);
  EXPECT_NEAR(rates_at(o, 500).lr, 1 - 400.0 / 900, 1e-12);
  EXPECT_NEAR(rates_at(o, 501).lr, 2.0 / 3 * (1 - 401.0 / 900), 1e-12);
  EXPECT_EQ(rates_at(o, 500).weight_decay, 0.1);
  EXPECT_EQ(rates_at(o, 501).weight_decay, 0.0);
}

}  // namespace
}  // namespace bitnet
