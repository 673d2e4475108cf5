#include "train/cuda/cuda_ranks_engine.h"

#include "kernels/cuda/rank_threads.h"
#include "model/forward.h"
#include "train/cuda/cuda_rank.h"
#include "train/test_model.h"
#include "train/test_trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

namespace bitnet {
namespace {

// Two GPUs train as one does. Where there is one only, a run of one rank takes the same way.
class CudaRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto backend = make_backend("cuda"); !backend) GTEST_SKIP() << backend.error().message;
    if (const Status nccl = Collectives::available(); !nccl) GTEST_SKIP() << nccl.error().message;
  }
  static bool has_two() { return make_backend("cuda:1").has_value(); }
};

// No whole vectors, words or pieces anywhere.
ModelConfig odd_config() {
  ModelConfig c = small_config();
  c.d_model = 52;
  c.d_ff = 75;
  c.head_dim = c.rope_dim = 10;
  c.n_ctx_train = 37;
  return c;
}

// A bucket for each layer's linears.
ModelConfig wide_config() {
  ModelConfig c = small_config();
  c.n_layers = 3;
  c.d_model = c.d_ff = 1024;
  c.n_heads = 16;
  c.n_kv_heads = 4;
  c.head_dim = c.rope_dim = 64;
  c.n_ctx_train = 37;
  return c;
}

TrainRanks ranks_of(int n) {
  TrainRanks ranks;
  ranks.n = n;
  ranks.devices.clear();
  for (int i = 0; i < n; ++i) ranks.devices.push_back("cuda:" + std::to_string(i));
  return ranks;
}

EngineOptions options_for(int n_ranks, int64_t n_sequences, TrainPrecision precision) {
  EngineOptions options;
  options.device = "cuda";
  options.precision = precision;
  options.graph = {n_sequences / std::max(n_ranks, 1), 37, false};
  options.keeps_average = true;
  if (n_ranks > 0) options.ranks = ranks_of(n_ranks);
  return options;
}

// n_ranks 0: without ranks.
std::unique_ptr<TrainEngine> engine_of(const ModelConfig& config, const ParameterLayout& layout,
                                       const EngineOptions& options, bool ranks, uint64_t seed) {
  auto engine = ranks ? make_cuda_ranks_engine(config, layout, options) : make_train_engine(config, layout, options);
  EXPECT_TRUE(engine.has_value()) << engine.error().message;
  if (!engine) return nullptr;
  const std::vector<float> parameters = random_parameters<float>(config, layout, seed);
  std::copy(parameters.begin(), parameters.end(), (*engine)->parameters().begin());
  (*engine)->average() = (*engine)->parameters();
  const Status sent = (*engine)->send();
  EXPECT_TRUE(sent.has_value()) << (sent ? "" : sent.error().message);
  return *std::move(engine);
}

struct Trained {
  std::vector<double> losses, norms;
  std::vector<float> gradients, parameters, average, moments;  // gradients of the first step
  double valid = 0;
};

// Some steps of two parts each, which the engine gets in n_calls pieces.
Trained train(TrainEngine& engine, const ModelConfig& config, int64_t n_sequences,
              const std::vector<QuantizationOptions>& steps, int64_t n_calls = 1) {
  Trained trained;
  const int64_t n = n_sequences * 37;
  const auto in_pieces = [&](std::span<const int32_t> ids, std::span<const int32_t> targets,
                             const auto& call) -> Status {
    const size_t n_piece = ids.size() / size_t(n_calls);
    for (size_t at = 0; at < ids.size(); at += n_piece) {
      BN_RETURN_IF_ERROR(call(ids.subspan(at, n_piece), targets.subspan(at, n_piece)));
    }
    return ok();
  };
  const Status status = [&]() -> Status {
    for (size_t step = 0; step < steps.size(); ++step) {
      BN_RETURN_IF_ERROR(engine.prepare(steps[step], false));
      BN_RETURN_IF_ERROR(engine.begin_step(2 * n_calls));
      for (uint64_t part = 0; part < 2; ++part) {
        std::vector<int32_t> targets = random_ids(n, config.vocab_size, 100 + step + part);
        targets[5] = -1;
        BN_RETURN_IF_ERROR(in_pieces(random_ids(n, config.vocab_size, step + part), targets,
                                     [&](auto ids, auto goals) { return engine.backpropagate(ids, goals, 0.01f); }));
      }
      BN_ASSIGN_OR_RETURN(const StepSums sums, engine.step_sums());
      trained.losses.push_back(sums.loss);
      trained.norms.push_back(sums.gradient_norm);
      if (step == 0) {
        BN_ASSIGN_OR_RETURN(const auto gradients, engine.gradients());
        trained.gradients.assign(gradients.begin(), gradients.end());
      }
      BN_RETURN_IF_ERROR(engine.update({int64_t(step) + 1, 1e-2, 0.1, 0.7}));
      BN_RETURN_IF_ERROR(engine.move_average(0.6f, 0.4f));
    }
    BN_RETURN_IF_ERROR(engine.prepare(steps.back(), true));
    BN_RETURN_IF_ERROR(in_pieces(random_ids(n, config.vocab_size, 9), random_ids(n, config.vocab_size, 10),
                                 [&](auto ids, auto goals) -> Status {
                                   BN_ASSIGN_OR_RETURN(const double loss, engine.evaluate(ids, goals));
                                   trained.valid += loss;
                                   return ok();
                                 }));
    BN_RETURN_IF_ERROR(engine.fetch());
    trained.parameters.assign(engine.parameters().begin(), engine.parameters().end());
    trained.average.assign(engine.average().begin(), engine.average().end());
    for (const Optimizer::State& state : engine.optimizer_states()) {
      const auto* const values = reinterpret_cast<const float*>(state.bytes.data());
      trained.moments.insert(trained.moments.end(), values, values + state.bytes.size() / sizeof(float));
    }
    return ok();
  }();
  EXPECT_TRUE(status.has_value()) << (status ? "" : status.error().message);
  return trained;
}

std::vector<QuantizationOptions> several_steps(bool enabled) {
  std::vector<QuantizationOptions> steps(4);
  for (QuantizationOptions& step : steps) step.enabled = enabled;
  steps[0].lambda = steps[1].lambda = 0.5;
  return steps;
}

double difference(const std::vector<float>& a, const std::vector<float>& b, int64_t begin, int64_t n) {
  double error = 0, norm = 0;
  for (int64_t i = begin; i < begin + n; ++i) {
    error += std::pow(double(a[size_t(i)]) - double(b[size_t(i)]), 2);
    norm += std::pow(double(a[size_t(i)]), 2);
  }
  return std::sqrt(error / std::max(norm, 1e-30));
}

// A single rank's reductions are copies: the same bits as without ranks.
TEST_F(CudaRanks, OneRankHasTheBitsOfOneGpu) {
  const ModelConfig config = odd_config();
  const ParameterLayout layout = ParameterLayout::make(config);
  for (const TrainPrecision precision : {TrainPrecision::kBf16, TrainPrecision::kFloat32}) {
    for (const OptimizerKind kind : {OptimizerKind::kAdamW, OptimizerKind::kSgd}) {
      EngineOptions options = options_for(1, 2, precision);
      options.optimizer.kind = kind;
      const auto plain = engine_of(config, layout, options, false, 3),
                 rank = engine_of(config, layout, options, true, 3);
      ASSERT_TRUE(plain && rank);
      const Trained want = train(*plain, config, 2, several_steps(true));
      const Trained found = train(*rank, config, 2, several_steps(true));
      EXPECT_EQ(want.losses, found.losses);
      EXPECT_EQ(want.valid, found.valid);
      EXPECT_EQ(want.gradients, found.gradients);
      EXPECT_EQ(want.parameters, found.parameters);
      EXPECT_EQ(want.average, found.average);
      EXPECT_EQ(want.moments, found.moments);
      for (size_t i = 0; i < want.norms.size(); ++i) EXPECT_NEAR(want.norms[i], found.norms[i], 1e-12 * want.norms[i]);
    }
  }
}

// Sums of gradients in another order: rounding of float32, where no code lies so near to a half that it turns.
TEST_F(CudaRanks, TwoRanksTrainAsOneGpuDoes) {
  if (!has_two()) GTEST_SKIP() << "wants two GPUs";
  const ModelConfig config = odd_config();
  const ParameterLayout layout = ParameterLayout::make(config);
  for (const bool quantized : {false, true}) {
    double least = 1;
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      const auto one = engine_of(config, layout, options_for(0, 4, TrainPrecision::kFloat32), false, seed);
      const auto two = engine_of(config, layout, options_for(2, 4, TrainPrecision::kFloat32), true, seed);
      ASSERT_TRUE(one && two);
      std::vector<QuantizationOptions> steps = several_steps(quantized);
      if (quantized) steps[0].lambda = 1;
      const Trained want = train(*one, config, 4, steps), found = train(*two, config, 4, steps);
      ASSERT_EQ(want.gradients.size(), found.gradients.size());
      EXPECT_NEAR(found.losses[0], want.losses[0], 1e-5 * want.losses[0]);
      EXPECT_NEAR(found.norms[0], want.norms[0], 1e-2 * want.norms[0]);
      double worst = 0;
      for (const ParameterSlice& slice : layout.slices()) {
        worst = std::max(worst, difference(want.gradients, found.gradients, slice.offset, slice.n_values));
      }
      EXPECT_LT(worst, 5e-2) << seed;
      least = std::min(least, worst);
      if (quantized) continue;
      EXPECT_NEAR(found.valid, want.valid, 1e-4 * want.valid);
      EXPECT_LT(worst, 2e-6) << seed;
      EXPECT_LT(difference(want.parameters, found.parameters, 0, int64_t(want.parameters.size())), 1e-5);
      EXPECT_LT(difference(want.average, found.average, 0, int64_t(want.average.size())), 1e-5);
      for (size_t i = 0; i < want.losses.size(); ++i)
        EXPECT_NEAR(found.losses[i], want.losses[i], 1e-4 * want.losses[i]);
    }
    EXPECT_LT(least, 2e-6) << quantized;
  }
}

// Gradients that are reduced while the backward pass goes on. One GPU that computes the sequences as the ranks do, so
// many at a time, has the same activations to the last bit: nothing differs but the order in which four parts add up.
TEST_F(CudaRanks, TwoRanksReduceEveryLayerWhenItIsThrough) {
  if (!has_two()) GTEST_SKIP() << "wants two GPUs";
  const ModelConfig config = wide_config();
  const ParameterLayout layout = ParameterLayout::make(config);
  ASSERT_EQ(ShardLayout::make(config, 2).buckets().size(), 4u);
  for (const TrainPrecision precision : {TrainPrecision::kBf16, TrainPrecision::kFloat32}) {
    EngineOptions of_one = options_for(0, 2, precision), of_two = options_for(2, 4, precision);
    of_one.optimizer.kind = of_two.optimizer.kind = OptimizerKind::kSgd;
    const auto one = engine_of(config, layout, of_one, false, 1), two = engine_of(config, layout, of_two, true, 1);
    ASSERT_TRUE(one && two);
    const std::vector<QuantizationOptions> whole(1);
    const Trained want = train(*one, config, 4, whole, 2), found = train(*two, config, 4, whole);
    ASSERT_EQ(want.gradients.size(), found.gradients.size());
    EXPECT_NEAR(found.losses[0], want.losses[0], 1e-12 * want.losses[0]);
    EXPECT_NEAR(found.norms[0], want.norms[0], 1e-6 * want.norms[0]);
    for (const ParameterSlice& slice : layout.slices()) {
      EXPECT_LT(difference(want.gradients, found.gradients, slice.offset, slice.n_values), 2e-6) << slice.name;
      EXPECT_LT(difference(want.parameters, found.parameters, slice.offset, slice.n_values), 2e-6) << slice.name;
    }
  }
}

// Ranks themselves, without an engine.
class TwoCudaRanks : public CudaRanks {
 protected:
  void SetUp() override {
    CudaRanks::SetUp();
    if (IsSkipped()) return;
    if (!has_two()) GTEST_SKIP() << "wants two GPUs";
    const auto host = make_backend("cpu");
    auto rope = make_rope_tables(**host, config_, 37);
    ASSERT_TRUE(rope.has_value());
    rope_ = *std::move(rope);
    auto threads = RankThreads::create(2);
    ASSERT_TRUE(threads.has_value());
    threads_ = *std::move(threads);
    const int devices[] = {0, 1};
    for (int member = 0; member < 2; ++member) {
      auto made = CudaRank::create(config_, shards_, options_, rope_.view, member);
      ASSERT_TRUE(made.has_value()) << made.error().message;
      ranks_[member] = *std::move(made);
    }
    auto collectives = Collectives::create(devices);
    ASSERT_TRUE(collectives.has_value()) << collectives.error().message;
    collectives_ = *std::move(collectives);
    for (auto& rank : ranks_) rank->connect(*collectives_);
  }
  ~TwoCudaRanks() override {
    for (auto& rank : ranks_) {
      if (rank) rank->drain();
    }
    collectives_.reset();
  }
  template <class Job>
  Status run(const Job& job) {
    return threads_->run([&](int member) { return job(member, *ranks_[member]); }, [&] { collectives_->abort(); });
  }

  const ModelConfig config_ = odd_config();
  const ParameterLayout layout_ = ParameterLayout::make(config_);
  const ShardLayout shards_ = ShardLayout::make(config_, 2);
  const EngineOptions options_ = options_for(2, 4, TrainPrecision::kBf16);
  RopeTables rope_;
  std::unique_ptr<RankThreads> threads_;
  std::unique_ptr<Collectives> collectives_;
  std::unique_ptr<CudaRank> ranks_[2];
};

TEST_F(TwoCudaRanks, HaveTheSameWeightsAfterSomeSteps) {
  const std::vector<float> parameters = random_parameters<float>(config_, layout_, 5);
  const int64_t n = 2 * 37;
  const std::vector<int32_t> shown = random_ids(n, config_.vocab_size, 50),
                             goals = random_ids(n, config_.vocab_size, 51);
  double losses[2] = {};
  const Status status = run([&](int member, CudaRank& rank) -> Status {
    BN_RETURN_IF_ERROR(rank.send(CudaRank::Values::kParameters, layout_, member == 0 ? parameters.data() : nullptr));
    for (int64_t step = 1; step <= 6; ++step) {
      const std::vector<int32_t> ids = random_ids(n, config_.vocab_size, uint64_t(10 * step + member));
      const std::vector<int32_t> targets = random_ids(n, config_.vocab_size, uint64_t(10 * step + member + 5));
      BN_RETURN_IF_ERROR(rank.prepare({}, false));
      BN_RETURN_IF_ERROR(rank.begin_step(1));
      BN_RETURN_IF_ERROR(rank.backpropagate(ids, targets, 0.01f));
      BN_RETURN_IF_ERROR(rank.step_sums());
      BN_RETURN_IF_ERROR(rank.update({step, 1e-2, 0.1, 1.0}));
    }
    BN_RETURN_IF_ERROR(rank.prepare({}, false));
    // Each alone computes the loss of the same sequences.
    for (const int alone : {0, 1}) {
      const bool mine = alone == member;
      BN_ASSIGN_OR_RETURN(const double loss,
                          rank.evaluate(mine ? shown : std::vector<int32_t>(), mine ? goals : std::vector<int32_t>()));
      if (mine) losses[alone] = loss;
    }
    return ok();
  });
  ASSERT_TRUE(status.has_value()) << status.error().message;
  EXPECT_GT(losses[0], 0);
  EXPECT_EQ(losses[0], losses[1]);
  for (const ParameterSlice& slice : layout_.slices()) {
    if (slice.spec.kind != WeightKind::kLinear) continue;
    const auto a = ranks_[0]->linear(slice.spec), b = ranks_[1]->linear(slice.spec);
    ASSERT_TRUE(a.has_value() && b.has_value());
    EXPECT_EQ(a->alpha, b->alpha) << slice.name;
    EXPECT_TRUE(std::equal(a->codes.begin(), a->codes.end(), b->codes.begin(), b->codes.end())) << slice.name;
  }
}

TEST_F(TwoCudaRanks, DoNotWaitForOneThatFailed) {
  const auto begin = std::chrono::steady_clock::now();
  const Status failed = run([&](int member, CudaRank& rank) -> Status {
    if (member == 1) return make_error(ErrorCode::kResource, "this rank has no more memory");
    BN_RETURN_IF_ERROR(rank.begin_step(1));
    BN_RETURN_IF_ERROR(rank.step_sums());
    return ok();
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "this rank has no more memory");
  const Status later = run([&](int, CudaRank& rank) { return rank.prepare({}, false); });
  ASSERT_FALSE(later);
  EXPECT_NE(later.error().message.find("no longer work together"), std::string::npos) << later.error().message;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

class CudaRanksTrainer : public CudaRanks {
 protected:
  CudaRanksTrainer() : options_(testing::tiled_run(folder_)) {
    options_.ema = 0.9;
    options_.lambda_warmup = 8;
  }
  void SetUp() override {
    CudaRanks::SetUp();
    if (!IsSkipped() && !has_two()) GTEST_SKIP() << "wants two GPUs";
  }

  struct Part {
    const char* device;
    int64_t end;
  };
  // Trains in a folder of its own, one part after the other.
  std::vector<double> train(const std::string& name, const std::vector<Part>& parts) {
    TrainOptions options = options_;
    options.run = folder_.path() + "/" + name;
    std::vector<double> losses;
    for (const Part& part : parts) {
      options.device = part.device;
      TrainCallbacks callbacks;
      callbacks.on_step = [&](const StepReport& report) { losses.push_back(report.loss); };
      callbacks.on_valid = [&](int64_t, double loss) { losses.push_back(loss); };
      if (testing::train_until(options, part.end, callbacks) == nullptr) break;
    }
    return losses;
  }
  std::string exported(const std::string& name) const { return testing::exported_weights(folder_, name); }

  testing::TemporaryFolder folder_;
  TrainOptions options_;
};

TEST_F(CudaRanksTrainer, ResumesToTheSameBytesAndGoesOnWithAnotherNumber) {
  for (const char* const precision : {"bf16", "float32"}) {
    options_.precision = precision;
    const std::string name = precision;
    const std::vector<double> one = train("one" + name, {{"cuda:0", 40}}),
                              two = train("two" + name, {{"cuda:0,1", 40}});
    const std::vector<double> parts = train("parts" + name, {{"cuda:0,1", 3}, {"cuda:0,1", 20}, {"cuda:0,1", 40}});
    const std::vector<double> mixed = train("mixed" + name, {{"cuda:0,1", 15}, {"cuda:0", 22}, {"cuda:1,0", 40}});
    EXPECT_EQ(two, parts);
    EXPECT_GT(exported("two" + name).size(), 10000u);
    EXPECT_TRUE(exported("two" + name) == exported("parts" + name));
    ASSERT_EQ(one.size(), two.size());
    ASSERT_EQ(one.size(), mixed.size());
    EXPECT_NEAR(two[0], one[0], 1e-5);
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_NEAR(two[i], one[i], 0.05 * one[i]) << i;
      EXPECT_NEAR(mixed[i], one[i], 0.05 * one[i]) << i;
    }
    EXPECT_LT(two.back(), 0.7 * two.front());
  }
}

TEST_F(CudaRanksTrainer, SharesABatchWithoutAccumulation) {
  options_.batch = 8;
  options_.accumulation = 1;
  options_.steps = 6;
  options_.ema = 0;
  options_.lambda_warmup = 0;
  options_.precision = "float32";
  const std::vector<double> one = train("one", {{"cuda:0", 6}}), two = train("two", {{"cuda:0,1", 6}});
  ASSERT_EQ(one.size(), two.size());
  // A code that turns is worth so much (docs/training.md).
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(two[i], one[i], (i == 0 ? 1e-6 : 1e-2) * one[i]) << i;
  options_.batch = 7;
  options_.run = folder_.path() + "/refused";
  options_.device = "cuda:0,1";
  const auto refused = Trainer::create(options_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("cannot be shared evenly among 2 ranks"), std::string::npos);
}

}  // namespace
}  // namespace bitnet
