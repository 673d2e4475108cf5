#include "train/cpu/cpu_ops.h"

#include "kernels/cpu/dispatch.h"
#include "model/forward.h"
#include "train/core/graph.h"
#include "train/core/plain_ops.h"
#include "train/test_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

constexpr int64_t kSequences = 3, kPositions = 37;

ModelConfig odd_config(bool llama) {
  ModelConfig c = small_config();
  c.d_model = 52;  // no whole vectors, tiles or pairs anywhere
  c.d_ff = 75;
  c.head_dim = c.rope_dim = 10;
  c.n_ctx_train = kPositions;
  if (llama) {
    c.architecture = "llama";
    c.sub_norms = c.tied_head = false;
    c.gate_activation = GateActivation::kSilu;
  }
  return c;
}

struct Pass {
  double loss = 0;
  std::vector<double> gradients;
};

template <class Ops>
Pass run(const ModelConfig& config, const ParameterLayout& layout, Ops& ops, const QuantizationOptions& quantization,
         uint64_t seed) {
  using Real = typename Ops::Real;
  const std::vector<Real> parameters = random_parameters<Real>(config, layout, seed);
  const TestRope rope(config, kPositions);
  Graph<Ops> graph(config, layout, rope.view, ops, {kSequences, kPositions, false});
  const std::vector<int32_t> ids = random_ids(kSequences * kPositions, config.vocab_size, 1);
  std::vector<int32_t> targets = random_ids(kSequences * kPositions, config.vocab_size, 2);
  targets[5] = -1;
  graph.prepare(parameters.data(), quantization);
  std::vector<Real> gradients(parameters.size());
  Pass pass;
  pass.loss = graph.backpropagate(ids, targets, Real(0.01), gradients.data());
  pass.gradients.assign(gradients.begin(), gradients.end());
  return pass;
}

Pass run_cpu(const ModelConfig& config, const ParameterLayout& layout, const QuantizationOptions& quantization,
             int n_threads, uint64_t seed = 5) {
  const AttentionShape shape{kSequences, kPositions, config.n_heads, config.n_kv_heads, config.head_dim};
  auto ops = CpuOps::create(config, shape, n_threads);
  EXPECT_TRUE(ops.has_value());
  Pass pass = run(config, layout, **ops, quantization, seed);
  EXPECT_TRUE((*ops)->take_status().has_value());
  return pass;
}

// The largest difference of a tensor, norm over norm.
double largest_difference(const ParameterLayout& layout, const Pass& expected, const Pass& found) {
  double largest = 0;
  for (const ParameterSlice& slice : layout.slices()) {
    double error = 0, norm = 0;
    for (int64_t i = slice.offset; i < slice.offset + slice.n_values; ++i) {
      const double difference = found.gradients[size_t(i)] - expected.gradients[size_t(i)];
      error += difference * difference;
      norm += expected.gradients[size_t(i)] * expected.gradients[size_t(i)];
    }
    largest = std::max(largest, std::sqrt(error / norm));
  }
  return largest;
}

// With some seeds a code lies so near to a half that float32 and double round it differently, which is worth up to
// 1e-2; with the others float32 and the gradients' 16 bits are all that differs.
TEST(CpuOps, GradientsAreThoseOfPlainLoopsInDouble) {
  QuantizationOptions whole, mixed, learned, none, wide;
  wide.levels = 7;
  mixed.lambda = 0.5;
  learned.scale = WeightScale::kLearned;
  none.enabled = false;
  for (const bool llama : {false, true}) {
    for (const QuantizationOptions& quantization : {whole, mixed, learned, none, wide}) {
      const ModelConfig config = odd_config(llama);
      const ParameterLayout layout = ParameterLayout::make(config, quantization.scale == WeightScale::kLearned);
      double least = 1;
      for (uint64_t seed = 1; seed <= 6; ++seed) {
        ThreadPool pool(1);
        PlainOps<double> plain(pool);
        const Pass expected = run(config, layout, plain, quantization, seed);
        const Pass found = run_cpu(config, layout, quantization, 2, seed);
        EXPECT_NEAR(found.loss, expected.loss, 1e-3 * expected.loss);
        const double difference = largest_difference(layout, expected, found);
        EXPECT_LT(difference, 5e-2);
        least = std::min(least, difference);
      }
      EXPECT_LT(least, quantization.enabled ? 3e-4 : 1e-5) << "llama " << llama << " lambda " << quantization.lambda;
    }
  }
}

TEST(CpuOps, BitsDoNotDependOnThreads) {
  for (const double lambda : {1.0, 0.5}) {
    QuantizationOptions quantization;
    quantization.lambda = lambda;
    const ModelConfig config = odd_config(false);
    const ParameterLayout layout = ParameterLayout::make(config);
    const Pass one = run_cpu(config, layout, quantization, 1);
    for (const int n_threads : {2, 3, 5}) {
      const Pass other = run_cpu(config, layout, quantization, n_threads);
      EXPECT_EQ(one.loss, other.loss);
      EXPECT_EQ(one.gradients, other.gradients);
    }
  }
}

template <class Ops>
Pass run_adapters(const ModelConfig& config, const ParameterLayout& layout, Ops& ops, uint64_t seed) {
  using Real = typename Ops::Real;
  const TestBase base(config, seed);
  const std::vector<Real> values(base.values.begin(), base.values.end());
  const std::vector<Real> parameters = random_adapters<Real>(layout, seed);
  const TestRope rope(config, kPositions);
  Graph<Ops> graph(config, layout, rope.view, ops, {kSequences, kPositions, false});
  EXPECT_TRUE(graph.freeze(base.layout, values.data(), Real(1.5),
                           [&](WeightRole role, int64_t layer) { return base.linear(role, layer); }));
  const std::vector<int32_t> ids = random_ids(kSequences * kPositions, config.vocab_size, 1);
  graph.prepare(parameters.data());
  std::vector<Real> gradients(parameters.size());
  Pass pass;
  pass.loss =
      graph.backpropagate(ids, random_ids(kSequences * kPositions, config.vocab_size, 2), Real(0.01), gradients.data());
  pass.gradients.assign(gradients.begin(), gradients.end());
  return pass;
}

TEST(CpuOps, AdaptersHaveTheGradientsOfPlainLoops) {
  for (const bool llama : {false, true}) {
    const ModelConfig config = odd_config(llama);
    const ParameterLayout layout = ParameterLayout::make_adapters(config, 5, all_linears());
    const AttentionShape shape{kSequences, kPositions, config.n_heads, config.n_kv_heads, config.head_dim};
    double least = 1;
    for (uint64_t seed = 1; seed <= 6; ++seed) {
      ThreadPool pool(1);
      PlainOps<double> plain(pool);
      const Pass expected = run_adapters(config, layout, plain, seed);
      Pass found[2];
      for (const int i : {0, 1}) {
        auto ops = CpuOps::create(config, shape, 1 + 2 * i);
        ASSERT_TRUE(ops.has_value());
        found[i] = run_adapters(config, layout, **ops, seed);
        EXPECT_TRUE((*ops)->take_status().has_value());
      }
      EXPECT_EQ(found[0].gradients, found[1].gradients);  // whatever the threads
      EXPECT_NEAR(found[0].loss, expected.loss, 1e-3 * expected.loss);
      const double difference = largest_difference(layout, expected, found[0]);
      EXPECT_LT(difference, 5e-2);
      least = std::min(least, difference);
    }
    EXPECT_LT(least, 3e-4) << "llama " << llama;
  }
}

// A student with its float teacher, of other widths, on the same operations.
struct Lesson {
  DistillationLoss loss;
  Pass pass;
};
template <class Ops>
Lesson learn(Ops& ops, const ModelConfig& teacher_config, const DistillationOptions& options,
             const LayerQuantization& quantization) {
  using Real = typename Ops::Real;
  const ModelConfig config = odd_config(false);
  const ParameterLayout layout = ParameterLayout::make(config), teacher_layout = ParameterLayout::make(teacher_config);
  const std::vector<Real> parameters = random_parameters<Real>(config, layout, 3);
  const std::vector<Real> teacher_parameters = random_parameters<Real>(teacher_config, teacher_layout, 4);
  const TestRope rope(config, kPositions), teacher_rope(teacher_config, kPositions);
  Graph<Ops> teacher(teacher_config, teacher_layout, teacher_rope.view, ops, {kSequences, kPositions, true});
  Graph<Ops> graph(config, layout, rope.view, ops, {kSequences, kPositions, false});
  QuantizationOptions none;
  none.enabled = false;
  teacher.prepare(teacher_parameters.data(), none);
  graph.prepare(parameters.data(), quantization);
  const std::vector<int32_t> ids = random_ids(kSequences * kPositions, config.vocab_size, 1);
  std::vector<int32_t> targets = random_ids(kSequences * kPositions, config.vocab_size, 2);
  targets[5] = -1;
  std::vector<Real> gradients(parameters.size());
  Lesson lesson;
  const auto taught = teacher.teach(ids, options.layer);
  lesson.loss = graph.distill(ids, targets, taught, options, Real(0.01), gradients.data());
  lesson.pass.gradients.assign(gradients.begin(), gradients.end());
  return lesson;
}

ModelConfig wide_teacher() {
  ModelConfig c = odd_config(true);
  c.d_model = 76;
  c.n_layers = 3;
  c.n_heads = 4;
  c.head_dim = c.rope_dim = 22;
  return c;
}
Lesson learn_on_cpu(const DistillationOptions& options, const LayerQuantization& quantization, int n_threads) {
  const ModelConfig config = odd_config(false), teacher = wide_teacher();
  const AttentionShape shape{kSequences, kPositions, config.n_heads, config.n_kv_heads, config.head_dim};
  auto ops = CpuOps::create(config, shape, n_threads, &teacher);
  EXPECT_TRUE(ops.has_value());
  Lesson lesson = learn(**ops, teacher, options, quantization);
  EXPECT_TRUE((*ops)->take_status().has_value());
  return lesson;
}

TEST(CpuOps, LearningFromATeacherIsThatOfPlainLoopsInDouble) {
  QuantizationOptions none, whole;
  none.enabled = false;
  const ParameterLayout layout = ParameterLayout::make(odd_config(false));
  for (const DistillationOptions& options :
       {DistillationOptions{0.7, 2.5, 0}, DistillationOptions{0, 1, 3.0, 2, 2}, DistillationOptions{1, 1, 1, 1, 1}}) {
    ThreadPool pool(1);
    PlainOps<double> plain(pool);
    const Lesson expected = learn(plain, wide_teacher(), options, none);
    const Lesson found = learn_on_cpu(options, none, 2);
    EXPECT_NEAR(found.loss.cross_entropy, expected.loss.cross_entropy, 1e-5 * expected.loss.cross_entropy);
    EXPECT_NEAR(found.loss.logits, expected.loss.logits, 1e-5 * expected.loss.logits);
    EXPECT_NEAR(found.loss.attention, expected.loss.attention, 1e-5 * expected.loss.attention);
    EXPECT_LT(largest_difference(layout, expected.pass, found.pass), 2e-5);
    EXPECT_EQ(expected.loss.attention > 0, options.attention > 0);

    // The first layer still float, the second one with integers; on any number of threads.
    const LayerQuantization half({none, whole});
    PlainOps<double> other(pool);
    const Lesson one = learn_on_cpu(options, half, 1), three = learn_on_cpu(options, half, 3);
    EXPECT_EQ(one.loss.total(options), three.loss.total(options));
    EXPECT_EQ(one.pass.gradients, three.pass.gradients);
    const Pass by_definition = learn(other, wide_teacher(), options, half).pass;
    EXPECT_LT(largest_difference(layout, by_definition, one.pass), 2e-2);  // a code may go the other way
  }
}

// Every instruction set of this machine, product by product, against plain C++.
TEST(TrainingKernels, AreEqualOnEveryInstructionSet) {
  constexpr int64_t kN = 83, kPairs = 21;
  const CounterRng rng(3);
  const auto floats = [&](int64_t n, uint64_t at, double scale) {
    std::vector<float> values(static_cast<size_t>(n));
    for (size_t i = 0; i < values.size(); ++i) values[i] = float(rng.normal(at + i) * scale);
    return values;
  };
  const auto results = [&](const TrainingKernels& k) {
    std::vector<float> all;
    const auto take = [&](const auto& values) { all.insert(all.end(), values.begin(), values.end()); };
    std::vector<int16_t> a(kPairs * 2 * kProductRows), b(kPairs * 2 * kProductCols);
    for (size_t i = 0; i < a.size(); ++i) a[i] = int16_t(int64_t(rng.bits(i) % 64001) - 32000);
    for (size_t i = 0; i < b.size(); ++i) b[i] = int16_t(int64_t(rng.bits(9999 + i) % 255) - 127);
    std::vector<int32_t> c(kProductRows * kProductCols);
    k.product_i16(a.data(), b.data(), kPairs, c.data());
    for (int64_t r = 0; r < kProductRows; ++r) {  // against the definition
      int64_t sum = 0;
      for (int64_t p = 0; p < 2 * kPairs; ++p) {
        sum += int64_t{a[size_t(p / 2 * 2 * kProductRows + 2 * r + p % 2)]} *
               b[size_t(p / 2 * 2 * kProductCols + 2 * r + p % 2)];
      }
      EXPECT_EQ(c[size_t(r * kProductCols + r)], sum);
    }
    const std::vector<float> x = floats(kN, 0, 1), w = floats(kN, 100, 1), g = floats(kN, 200, 1),
                             fa = floats(9 * 16, 0, 1), fb = floats(9 * 40, 500, 1);
    std::vector<float> y = floats(kN, 300, 1), z = floats(kN, 400, 1), tile(kProductRows * kProductCols);
    k.scale_product(c.data(), kN, 0.37f, true, y.data());
    take(y);
    k.product_f32(fa.data(), 16, fb.data(), 40, 9, tile.data());
    take(tile);
    take(std::vector<float>{k.absmax(x.data(), kN), k.sum_squares(x.data(), kN), k.dot(x.data(), w.data(), kN)});
    k.column_absmax(x.data(), 1.7f, kN, z.data());
    take(z);
    std::vector<int16_t> codes(2 * kN);
    k.quantize_i16(x.data(), 9000.0f, kN, codes.data());
    take(codes);
    k.quantize_pairs(x.data(), 2.0f, g.data(), 3.0f, w.data(), kN, codes.data());
    take(codes);
    std::vector<int8_t> p(kN, -7), q(kN, 101);
    k.widen_pairs(p.data(), q.data(), -1, kN, codes.data());
    take(codes);
    k.rms_norm_backward(x.data(), w.data(), 1e-5f, g.data(), kN, true, y.data(), z.data());
    take(y), take(z);
    k.relu2_backward(x.data(), w.data(), g.data(), kN, y.data(), z.data());
    take(y), take(z);
    k.silu_backward(x.data(), w.data(), g.data(), kN, y.data(), z.data());
    take(y), take(z);
    k.softmax_backward(x.data(), 0.3f, 0.25f, kN, y.data());
    k.add_scaled(x.data(), -0.7f, kN, y.data());
    take(y);
    std::vector<float> m = floats(kN, 600, 1), v(kN, 0.5f);
    k.adamw({g.data(), kN, 0.5f, 0.9f, 0.95f, 1e-8f, 0.99f, 0.01f, 1.2f, m.data(), v.data(), y.data()});
    take(m), take(v), take(y);
    return all;
  };
  const std::vector<float> expected = results(kGenericKernels.training);
  for (const CpuKernels* kernels : usable_cpu_kernels())
    EXPECT_EQ(results(kernels->training), expected) << kernels->name;
}

}  // namespace
}  // namespace bitnet
