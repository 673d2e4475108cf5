#include "train/trainer.h"

#include "kernels/backend.h"
#include "train/test_trainer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bitnet {
namespace {

class CudaTrainer : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto backend = make_backend("cuda"); !backend) GTEST_SKIP() << backend.error().message;
  }
  CudaTrainer() : options_(testing::tiled_run(folder_)) {}

  // Trains in a folder of its own, stopping after each of `stops`.
  std::vector<double> train(const std::string& name, const std::string& device, const std::string& precision,
                            std::vector<int64_t> stops = {}) {
    TrainOptions options = options_;
    options.run = folder_.path() + "/" + name;
    options.device = device;
    options.precision = precision;
    stops.push_back(options.steps);
    std::vector<double> losses;
    for (const int64_t stop : stops) {
      TrainCallbacks callbacks;
      callbacks.on_step = [&](const StepReport& report) { losses.push_back(report.loss); };
      callbacks.on_valid = [&](int64_t, double loss) { losses.push_back(loss); };
      if (testing::train_until(options, stop, callbacks) == nullptr) break;
    }
    return losses;
  }
  std::string exported(const std::string& name) const { return testing::exported_weights(folder_, name); }

  testing::TemporaryFolder folder_;
  TrainOptions options_;
};

TEST_F(CudaTrainer, LearnsAsOnTheProcessor) {
  const std::vector<double> cpu = train("cpu", "cpu", "bf16"), exact = train("exact", "cuda", "float32"),
                            bf16 = train("bf16", "cuda", "bf16");
  ASSERT_EQ(cpu.size(), exact.size());
  ASSERT_EQ(cpu.size(), bf16.size());
  EXPECT_NEAR(exact[0], cpu[0], 1e-5);
  for (size_t i = 0; i < cpu.size(); ++i) {
    EXPECT_NEAR(exact[i], cpu[i], 0.03 * cpu[i]) << i;
    EXPECT_NEAR(bf16[i], cpu[i], 0.05 * cpu[i]) << i;
  }
  EXPECT_LT(bf16.back(), 0.6 * bf16.front());
}

TEST_F(CudaTrainer, ResumesToTheSameBytes) {
  options_.ema = 0.9;
  options_.lambda_warmup = 8;
  options_.log_every = 1;
  for (const char* const precision : {"bf16", "float32"}) {
    const std::string name = precision;
    const std::vector<double> whole = train("whole" + name, "cuda", precision);
    const std::vector<double> parts = train("parts" + name, "cuda", precision, {3, 20, 31});
    EXPECT_EQ(whole, parts);
    const std::string bytes = exported("whole" + name);
    EXPECT_GT(bytes.size(), 10000u);
    EXPECT_TRUE(bytes == exported("parts" + name));
  }
}

TEST_F(CudaTrainer, RefusesWhatItDoesNotCompute) {
  options_.run = folder_.path() + "/refused";
  options_.device = "cuda";
  const auto refusal = [&] {
    const auto trainer = Trainer::create(options_);
    return trainer ? std::string("accepted") : trainer.error().message;
  };
  options_.optimizer = "muon";
  EXPECT_EQ(refusal(), "optimizer is muon: on a GPU there are adamw and sgd");
  options_.optimizer = "adamw";
  options_.weight_scale = "learned";
  EXPECT_EQ(refusal(), "weight_scale is learned: on a GPU it is absmean");
  options_.weight_scale = "absmean";
  options_.bits = "8:4";
  options_.device = "cuda";
  auto trainer = Trainer::create(options_);
  ASSERT_TRUE(trainer.has_value()) << trainer.error().message;
  const auto step = (*trainer)->train_step();
  ASSERT_FALSE(step.has_value());
  EXPECT_EQ(step.error().message, "bits are given: on a GPU a layer's weights are float or ternary");
  options_.bits.clear();
  options_.device = "cuda:99";
  EXPECT_NE(refusal().find("CUDA devices, numbered from 0"), std::string::npos);
}

}  // namespace
}  // namespace bitnet
