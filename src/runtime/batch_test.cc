#include "runtime/batch.h"

#include "runtime/test_models.h"

#include <gtest/gtest.h>

namespace bitnet {
namespace {

TEST(Batch, ADeviceWithoutStepsOfSeveralSequencesIsRefused) {
  const Model model = load_tiny("bitnet-packed");
  const auto batch = Batch::create(model, {});
  ASSERT_FALSE(batch);
  EXPECT_EQ(batch.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(batch.error().message.find("cpu"), std::string::npos) << batch.error().message;
}

TEST(Batch, PagesOfPositions) {
  EXPECT_EQ(Batch::pages_of(0), 0);
  EXPECT_EQ(Batch::pages_of(1), 1);
  EXPECT_EQ(Batch::pages_of(64), 1);
  EXPECT_EQ(Batch::pages_of(65), 2);
}

}  // namespace
}  // namespace bitnet
