#include "train/core/graph.h"
#include "train/core/plain_ops.h"
#include "train/test_frozen_ops.h"
#include "train/test_model.h"

#include <gtest/gtest.h>

#include <cmath>

namespace bitnet {
namespace {

constexpr int64_t kSequences = 2, kPositions = 7;

// Nothing of it is as in small_config() but the vocabulary.
ModelConfig teacher_config() {
  ModelConfig c = small_config();
  c.architecture = "llama";
  c.n_layers = 3;
  c.d_model = 32;
  c.d_ff = 28;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = c.rope_dim = 8;
  c.sub_norms = c.tied_head = c.ternary = false;
  c.gate_activation = GateActivation::kSilu;
  return c;
}

struct Case {
  const char* name;
  DistillationOptions options;
  bool quantize;
};
class Distillation : public testing::TestWithParam<Case> {};

// Each tensor's gradient of the student's loss at several places against central differences in double.
TEST_P(Distillation, GradientsEqualFiniteDifferences) {
  const DistillationOptions& options = GetParam().options;
  const ModelConfig config = small_config(), teacher = teacher_config();
  const ParameterLayout layout = ParameterLayout::make(config), teacher_layout = ParameterLayout::make(teacher);
  std::vector<double> parameters = random_parameters<double>(config, layout, 5);
  const std::vector<double> teacher_parameters = random_parameters<double>(teacher, teacher_layout, 6);
  const TestRope rope(config, kPositions), teacher_rope(teacher, kPositions);
  ThreadPool pool(1);
  QuantizationOptions none;
  none.enabled = false;
  PlainOps<double> teacher_ops(pool);
  Graph<PlainOps<double>> teacher_graph(teacher, teacher_layout, teacher_rope.view, teacher_ops,
                                        {kSequences, kPositions, true});
  teacher_graph.prepare(teacher_parameters.data(), none);
  FrozenOps ops(pool);
  Graph<FrozenOps> graph(config, layout, rope.view, ops, {kSequences, kPositions, false});
  const LayerQuantization quantization(GetParam().quantize ? QuantizationOptions() : none);
  const std::vector<int32_t> ids = random_ids(kSequences * kPositions, config.vocab_size, 1);
  std::vector<int32_t> targets = random_ids(kSequences * kPositions, config.vocab_size, 2);
  targets[3] = targets[12] = -1;  // do not count

  const auto taught = teacher_graph.teach(ids, options.layer);
  const Graph<FrozenOps>::Lesson lesson = {taught.head, taught.heads};
  std::vector<double> gradients(parameters.size());
  graph.prepare(parameters.data(), quantization);
  const DistillationLoss loss = graph.distill(ids, targets, lesson, options, 1.0, gradients.data());
  ops.freeze();
  EXPECT_EQ(loss.cross_entropy, [&] {
    PlainOps<double> plain(pool);
    Graph<PlainOps<double>> other(config, layout, rope.view, plain, {kSequences, kPositions, false});
    other.prepare(parameters.data(), quantization);
    return other.evaluate(ids, targets);
  }());
  EXPECT_GT(options.logits > 0 ? loss.logits : loss.attention, 0.01);
  std::vector<double> ignored(parameters.size());
  const auto loss_now = [&] {
    ops.rewind();
    graph.prepare(parameters.data(), quantization);
    return graph.distill(ids, targets, lesson, options, 1.0, ignored.data()).total(options);
  };
  EXPECT_NEAR(loss_now(), loss.total(options), 1e-9);
  for (const ParameterSlice& slice : layout.slices()) {
    const CounterRng rng(9, uint64_t(slice.offset));
    for (uint64_t i = 0; i < 5; ++i) {
      const size_t at = size_t(slice.offset) + size_t(rng.bits(i) % uint64_t(slice.n_values));
      const double value = parameters[at], h = 1e-5;
      parameters[at] = value + h;
      const double above = loss_now();
      parameters[at] = value - h;
      const double below = loss_now();
      parameters[at] = value;
      const double expected = (above - below) / (2 * h);
      EXPECT_NEAR(gradients[at], expected, 1e-7 + 1e-5 * std::fabs(expected)) << slice.name << " " << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, Distillation,
                         testing::Values(Case{"Logits", {0.7, 1, 0}, false},
                                         Case{"TemperedLogits", {1.5, 2.5, 0}, true},
                                         Case{"RelationsOfTheLastLayer", {0, 1, 1.3, 1, 2}, false},
                                         Case{"RelationsOfTheFirstLayer", {0, 1, 5.0, 2, 1}, true},
                                         Case{"Both", {0.5, 0.8, 2.0, 1, 2}, true}),
                         [](const auto& losses) { return std::string(losses.param.name); });

// The formulas of docs/training.md, a probability at a time.
TEST(DistillationLosses, AreTheFormulas) {
  constexpr int64_t kTokens = kSequences * kPositions, kVocab = 11, kCols = 12, kTeacherCols = 20, kHeads = 4;
  const CounterRng rng(3);
  uint64_t at = 0;
  const auto values = [&](int64_t n) {
    std::vector<double> out(static_cast<size_t>(n));
    for (double& value : out) value = rng.normal(at++);
    return out;
  };
  std::vector<double> x = values(kTokens * kCols), table = values(kVocab * kCols);
  std::vector<double> y = values(kTokens * kTeacherCols), teacher_table = values(kVocab * kTeacherCols);
  std::vector<double> dx(x.size()), dtable(table.size());
  std::vector<int32_t> targets(kTokens, 4);
  targets[5] = -1;
  ThreadPool pool(1);
  PlainOps<double> ops(pool);
  const auto softmax = [](std::vector<double> scores) {
    double z = 0;
    for (double& score : scores) z += score = std::exp(score);
    for (double& score : scores) score /= z;
    return scores;
  };
  const auto divergence = [](const std::vector<double>& p, const std::vector<double>& q) {
    double sum = 0;
    for (size_t i = 0; i < p.size(); ++i) sum += p[i] * std::log(p[i] / q[i]);
    return sum;
  };
  const auto dot = [](const double* a, const double* b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
  };
  double logits = 0, relations = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    if (targets[size_t(t)] < 0) continue;
    std::vector<double> own, aim;
    for (int64_t v = 0; v < kVocab; ++v) {
      own.push_back(dot(&x[size_t(t * kCols)], &table[size_t(v * kCols)], kCols) / 1.7);
      aim.push_back(dot(&y[size_t(t * kTeacherCols)], &teacher_table[size_t(v * kTeacherCols)], kTeacherCols) / 1.7);
    }
    logits += divergence(softmax(aim), softmax(own));
    for (int64_t head = 0; head < kHeads; ++head) {
      own.clear(), aim.clear();
      const int64_t n = kCols / kHeads, m = kTeacherCols / kHeads;
      for (int64_t j = t - t % kPositions; j <= t; ++j) {
        own.push_back(dot(&x[size_t(t * kCols + head * n)], &x[size_t(j * kCols + head * n)], n) / std::sqrt(3.0));
        aim.push_back(dot(&y[size_t(t * kTeacherCols + head * m)], &y[size_t(j * kTeacherCols + head * m)], m) /
                      std::sqrt(5.0));
      }
      relations += divergence(softmax(aim), softmax(own)) / kHeads;
    }
  }
  const Rows<double> rows{x.data(), kTokens, kCols}, d{dx.data(), kTokens, kCols};
  const Rows<double> teacher{y.data(), kTokens, kTeacherCols};
  DistillationOptions options;
  options.logits = 1;
  options.temperature = 1.7;
  const DistillationLoss loss = ops.distilled_cross_entropy(
      rows, table.data(), kVocab, targets, {teacher, teacher_table.data()}, options, 1.0, d, dtable.data());
  EXPECT_NEAR(loss.logits, logits, 1e-9);
  const AttentionShape shape{kSequences, kPositions, 4, 4, 3};
  EXPECT_NEAR(ops.relations(shape, rows, teacher, targets, kHeads, 1.0, d), relations, 1e-9);

  // A student that is its teacher has nothing to learn from it.
  const auto own_head = [&](double weight, std::vector<double>& out) {
    options.logits = weight;
    out.assign(x.size(), 0);
    std::vector<double> dhead(table.size());
    return ops.distilled_cross_entropy(rows, table.data(), kVocab, targets, {rows, table.data()}, options, 1.0,
                                       {out.data(), kTokens, kCols}, dhead.data());
  };
  std::vector<double> with, without;
  EXPECT_NEAR(own_head(5, with).logits, 0, 1e-12);
  own_head(0, without);
  for (size_t i = 0; i < with.size(); ++i) EXPECT_NEAR(with[i], without[i], 1e-12);
}

}  // namespace
}  // namespace bitnet
