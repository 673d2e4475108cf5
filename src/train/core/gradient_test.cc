#include "train/core/graph.h"
#include "train/core/plain_ops.h"
#include "train/test_frozen_ops.h"
#include "train/test_model.h"

#include <gtest/gtest.h>

#include <cmath>

namespace bitnet {
namespace {

constexpr int64_t kSequences = 2, kPositions = 7;

struct Case {
  const char* name;
  bool quantize, sub_norms, tied, silu, recompute, learned;
  double lambda = 1;
  int levels = 1;
  bool first_is_float = false;  // only the second layer is quantised
};

class Gradients : public testing::TestWithParam<Case> {};

// Each tensor's gradient at several places against central differences in double.
TEST_P(Gradients, EqualFiniteDifferences) {
  const Case& param = GetParam();
  ModelConfig config = small_config();
  config.sub_norms = param.sub_norms;
  config.tied_head = param.tied;
  config.gate_activation = param.silu ? GateActivation::kSilu : GateActivation::kRelu2;
  const ParameterLayout layout = ParameterLayout::make(config, param.learned);
  std::vector<double> parameters = random_parameters<double>(config, layout, 5);
  const TestRope rope(config, kPositions);
  ThreadPool pool(1);
  FrozenOps ops(pool);
  QuantizationOptions quantization;
  quantization.enabled = param.quantize;
  quantization.lambda = param.lambda;
  quantization.levels = param.levels;
  if (param.learned) quantization.scale = WeightScale::kLearned;
  std::vector<QuantizationOptions> layers(2, quantization);
  layers[0].enabled = param.quantize && !param.first_is_float;
  Graph<FrozenOps> graph(config, layout, rope.view, ops, {kSequences, kPositions, false});
  const std::vector<int32_t> ids = random_ids(kSequences * kPositions, config.vocab_size, 1);
  std::vector<int32_t> targets = random_ids(kSequences * kPositions, config.vocab_size, 2);
  targets[3] = -1;  // does not count

  // Quantisers speak once: with recomputation they would again.
  std::vector<double> gradients(parameters.size());
  graph.prepare(parameters.data(), LayerQuantization(layers));
  const double loss = graph.backpropagate(ids, targets, 1.0, gradients.data());
  ops.freeze();
  const auto loss_now = [&] {
    ops.rewind();
    graph.prepare(parameters.data(), LayerQuantization(layers));
    return graph.evaluate(ids, targets);
  };
  EXPECT_NEAR(loss_now(), loss, 1e-9);
  for (const ParameterSlice& slice : layout.slices()) {
    const CounterRng rng(9, uint64_t(slice.offset));
    for (uint64_t i = 0; i < 6; ++i) {
      const size_t at = size_t(slice.offset) + size_t(rng.bits(i) % uint64_t(slice.n_values));
      // A step is perturbed less: each weight near it is a kink.
      const double value = parameters[at], h = slice.is_step ? 1e-8 : 1e-5;
      parameters[at] = value + h;
      const double above = loss_now();
      parameters[at] = value - h;
      const double below = loss_now();
      parameters[at] = value;
      double expected = (above - below) / (2 * h);
      if (slice.is_step) {  // LSQ scales this gradient by 1 / sqrt(n) of its matrix
        const auto matrix = std::find_if(layout.slices().begin(), layout.slices().end(), [&](const auto& other) {
          return !other.is_step && other.name + ".step" == slice.name;
        });
        expected /= std::sqrt(double(matrix->n_values));
      }
      EXPECT_NEAR(gradients[at], expected, (slice.is_step ? 2e-6 : 1e-7) + 1e-5 * std::fabs(expected))
          << slice.name << " " << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Graphs, Gradients,
                         testing::Values(Case{"Float", false, true, true, false, false, false},
                                         Case{"FloatLlama", false, false, false, true, false, false},
                                         Case{"SteOfTheBitNetGraph", true, true, true, false, false, false},
                                         Case{"SteOfLlama", true, false, false, true, false, false},
                                         Case{"SteHalfMixedIn", true, true, true, false, false, false, 0.5},
                                         Case{"SteOfFourBits", true, true, true, false, false, false, 1, 7},
                                         Case{"SteOfThreeBitsMixedIn", true, true, true, false, false, false, 0.25, 3},
                                         Case{"SteOfOneLayer", true, true, true, true, false, false, 1, 1, true},
                                         Case{"LearnedSteps", true, true, false, false, false, true}),
                         [](const auto& graph) { return std::string(graph.param.name); });

// Of an adapter's A and B, and through both paths of every layer of the inputs in front of them: base weights are
// constants.
TEST(AdapterGradients, EqualFiniteDifferences) {
  for (const bool all : {true, false}) {
    const ModelConfig config = small_config();
    const TestBase base(config, 5);
    const std::vector<WeightRole> some = {WeightRole::kQ, WeightRole::kDown};
    const ParameterLayout layout = ParameterLayout::make_adapters(config, 3, all ? all_linears() : some);
    std::vector<double> parameters = random_adapters<double>(layout, 6);
    const TestRope rope(config, kPositions);
    ThreadPool pool(1);
    FrozenOps ops(pool);
    Graph<FrozenOps> graph(config, layout, rope.view, ops, {kSequences, kPositions, false});
    const std::vector<double> values(base.values.begin(), base.values.end());
    ASSERT_TRUE(graph.freeze(base.layout, values.data(), 1.5,
                             [&](WeightRole role, int64_t layer) { return base.linear(role, layer); }));
    const std::vector<int32_t> ids = random_ids(kSequences * kPositions, config.vocab_size, 1);
    const std::vector<int32_t> targets = random_ids(kSequences * kPositions, config.vocab_size, 2);
    std::vector<double> gradients(parameters.size());
    graph.prepare(parameters.data());
    const double loss = graph.backpropagate(ids, targets, 1.0, gradients.data());
    ops.freeze();
    const auto loss_now = [&] {
      ops.rewind();
      graph.prepare(parameters.data());
      return graph.evaluate(ids, targets);
    };
    EXPECT_NEAR(loss_now(), loss, 1e-9);
    double largest = 0;
    for (const ParameterSlice& slice : layout.slices()) {
      const CounterRng rng(9, uint64_t(slice.offset));
      for (uint64_t i = 0; i < 6; ++i) {
        const size_t at = size_t(slice.offset) + size_t(rng.bits(i) % uint64_t(slice.n_values));
        constexpr double kStep = 1e-5;
        const double value = parameters[at];
        parameters[at] = value + kStep;
        const double above = loss_now();
        parameters[at] = value - kStep;
        const double below = loss_now();
        parameters[at] = value;
        const double expected = (above - below) / (2 * kStep);
        EXPECT_NEAR(gradients[at], expected, 1e-7 + 1e-5 * std::fabs(expected)) << slice.name << " " << at;
        largest = std::max(largest, std::fabs(expected));
      }
    }
    EXPECT_GT(largest, 1e-2);
  }
}

// Computing a layer again gives the gradients of keeping it, to the last bit.
TEST(Graph, RecomputationChangesNothing) {
  const ModelConfig config = small_config();
  const ParameterLayout layout = ParameterLayout::make(config);
  const std::vector<double> parameters = random_parameters<double>(config, layout, 5);
  const TestRope rope(config, kPositions);
  ThreadPool pool(1);
  const std::vector<int32_t> ids = random_ids(kSequences * kPositions, config.vocab_size, 1);
  std::vector<double> gradients[2];
  for (const bool recompute : {false, true}) {
    PlainOps<double> ops(pool);
    Graph<PlainOps<double>> graph(config, layout, rope.view, ops, {kSequences, kPositions, recompute});
    graph.prepare(parameters.data());
    gradients[recompute].resize(parameters.size());
    graph.backpropagate(ids, ids, 1.0, gradients[recompute].data());
  }
  EXPECT_EQ(gradients[0], gradients[1]);
}

}  // namespace
}  // namespace bitnet
