#include "train/replay.h"

#include <gtest/gtest.h>

namespace bitnet {
namespace {

const std::string kFixture = BITNET_SOURCE_DIR "/tests/data/train/ten_steps.safetensors";

// Ten steps of PyTorch in float32, which float32 repeats to the end.
TEST(Replay, LossesGradientsAndWeightsAreThoseOfPyTorch) {
  const auto report = replay(kFixture, {});
  ASSERT_TRUE(report.has_value()) << report.error().message;
  ASSERT_EQ(report->losses.size(), 10u);
  EXPECT_LT(report->max_loss_diff, 1e-4);
  EXPECT_LT(report->max_grad_rel_diff, 1e-6) << report->worst_grad;
  EXPECT_LT(report->max_final_rel_diff, 1e-4) << report->worst_final;
}

// In another arithmetic the record parts from the third step on: one int8 code that a last bit of float32 rounds the
// other way is worth up to 1e-2 of a later loss (docs/training.md).
TEST(Replay, OtherArithmeticsHaveItsGradientsAndFirstLosses) {
  for (const ReplayArithmetic arithmetic : {ReplayArithmetic::kDouble, ReplayArithmetic::kKernels}) {
    ReplayOptions options;
    options.arithmetic = arithmetic;
    const auto report = replay(kFixture, options);
    ASSERT_TRUE(report.has_value()) << report.error().message;
    ASSERT_EQ(report->losses.size(), 10u);
    EXPECT_LT(report->max_grad_rel_diff, arithmetic == ReplayArithmetic::kKernels ? 2e-4 : 1e-6) << report->worst_grad;
    EXPECT_NEAR(report->losses[0], 5.6092234, 1e-6);
    EXPECT_NEAR(report->losses[1], 5.353353, arithmetic == ReplayArithmetic::kKernels ? 1e-3 : 1e-6);
    EXPECT_LT(report->max_loss_diff, arithmetic == ReplayArithmetic::kDouble ? 1e-3 : 2e-2);
    EXPECT_LT(report->max_final_rel_diff, 2e-2) << report->worst_final;
  }
}

TEST(Replay, RefusesAFileWithoutARun) {
  const auto report = replay(BITNET_SOURCE_DIR "/tests/data/hf/bitnet-packed/model.safetensors", {});
  ASSERT_FALSE(report.has_value());
  EXPECT_NE(report.error().message.find("the metadata do not have n_heads"), std::string::npos)
      << report.error().message;
}

}  // namespace
}  // namespace bitnet
