#include "train/core/optimizer.h"

#include "kernels/cpu/dispatch.h"
#include "tensor/elementwise.h"
#include "tensor/linalg/linalg.h"
#include "train/test_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace bitnet {
namespace {

class Optimizers : public testing::Test {
 protected:
  Optimizers() : layout_(ParameterLayout::make(config_)), start_(random_parameters<float>(config_, layout_, 5)) {}

  // Minimises the sum of squares of p - 1 with gradients of its own.
  std::vector<float> run(OptimizerKind kind, int n_steps, int n_threads, double lr, double weight_decay) {
    OptimizerOptions options;
    options.kind = kind;
    Optimizer optimizer(options, layout_, *usable_cpu_kernels().front());
    ThreadPool pool(n_threads);
    std::vector<float> p = start_, g(p.size());
    for (int step = 1; step <= n_steps; ++step) {
      for (size_t i = 0; i < p.size(); ++i) g[i] = 2 * (p[i] - 1);
      optimizer.update(pool, {step, lr, weight_decay, 0.5}, g.data(), p.data());
    }
    return p;
  }
  double distance(const std::vector<float>& p) const {
    double sum = 0;
    for (const ParameterSlice& slice : layout_.slices()) {
      for (int64_t i = slice.offset; i < slice.offset + slice.n_values; ++i) {
        sum += (double(p[size_t(i)]) - 1) * (double(p[size_t(i)]) - 1);
      }
    }
    return std::sqrt(sum);
  }

  const ModelConfig config_ = small_config();
  const ParameterLayout layout_;
  const std::vector<float> start_;
};

// torch.optim.AdamW's formulas in double.
TEST_F(Optimizers, AdamwIsThatOfPyTorch) {
  const std::vector<float> found = run(OptimizerKind::kAdamW, 20, 2, 0.01, 0.1);
  for (const ParameterSlice& slice : layout_.slices()) {
    for (int64_t i = slice.offset; i < slice.offset + slice.n_values; ++i) {
      double p = start_[size_t(i)], m = 0, v = 0;
      for (int step = 1; step <= 20; ++step) {
        const double g = p - 1;
        if (slice.decays()) p *= 1 - 0.01 * 0.1;
        m = 0.9 * m + 0.1 * g;
        v = 0.95 * v + 0.05 * g * g;
        p -= 0.01 / (1 - std::pow(0.9, step)) * m / (std::sqrt(v) / std::sqrt(1 - std::pow(0.95, step)) + 1e-8);
      }
      ASSERT_NEAR(found[size_t(i)], p, 2e-6) << slice.name;
    }
  }
}

TEST_F(Optimizers, EachGoesDownhill) {
  const double before = distance(start_);
  EXPECT_LT(distance(run(OptimizerKind::kAdamW, 60, 2, 0.05, 0)), 0.1 * before);
  EXPECT_LT(distance(run(OptimizerKind::kAdamW8, 60, 2, 0.05, 0)), 0.1 * before);
  EXPECT_LT(distance(run(OptimizerKind::kSgd, 200, 2, 0.05, 0)), 0.1 * before);
  EXPECT_LT(distance(run(OptimizerKind::kMuon, 60, 1, 0.05, 0)), 0.9 * before);
}

// Muon's polynomial works on the singular values of the gradient one by one and leaves the singular vectors alone, so
// those of what it adds to a matrix are known from an SVD of the gradient.
TEST_F(Optimizers, MuonMapsSingularValuesByItsPolynomial) {
  const double lr = 0.01;
  const std::vector<float> moved = run(OptimizerKind::kMuon, 1, 2, lr, 0);
  int n_matrices = 0;
  for (const ParameterSlice& slice : layout_.slices()) {
    if (slice.is_step || slice.spec.kind != WeightKind::kLinear) continue;
    ++n_matrices;
    const auto matrix_of = [&](const std::vector<float>& values) {
      return *TensorView::of(std::span(values).subspan(size_t(slice.offset), size_t(slice.n_values)), slice.spec.shape);
    };
    std::vector<double> expected = *to_vector<double>(*singular_values(*subtract(matrix_of(start_), 1.0)));
    double squares = 0;
    for (const double s : expected) squares += s * s;
    for (double& s : expected) {
      s /= std::sqrt(squares);
      for (int round = 0; round < 5; ++round) s = 3.4445 * s - 4.7750 * std::pow(s, 3) + 2.0315 * std::pow(s, 5);
      s *= lr * 0.2 * std::sqrt(double(std::max(slice.spec.shape[0], slice.spec.shape[1])));
    }
    std::sort(expected.rbegin(), expected.rend());
    const auto found = *to_vector<double>(*singular_values(*subtract(matrix_of(moved), matrix_of(start_))));
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-3 * lr) << slice.name;
  }
  EXPECT_GT(n_matrices, 0);
}

TEST_F(Optimizers, BitsDoNotDependOnThreads) {
  for (const OptimizerKind kind :
       {OptimizerKind::kAdamW, OptimizerKind::kAdamW8, OptimizerKind::kMuon, OptimizerKind::kSgd}) {
    EXPECT_EQ(run(kind, 5, 1, 0.01, 0.1), run(kind, 5, 3, 0.01, 0.1));
  }
}

// Restored states go on as if nothing had happened.
TEST_F(Optimizers, StatesAreAllThatThereIs) {
  for (const OptimizerKind kind :
       {OptimizerKind::kAdamW, OptimizerKind::kAdamW8, OptimizerKind::kMuon, OptimizerKind::kSgd}) {
    OptimizerOptions options;
    options.kind = kind;
    ThreadPool pool(1);
    Optimizer first(options, layout_, *usable_cpu_kernels().front());
    std::vector<float> p = start_;
    first.update(pool, {1, 0.01, 0.1, 1}, start_.data(), p.data());
    Optimizer second(options, layout_, *usable_cpu_kernels().front());
    auto from = first.states(), to = second.states();
    ASSERT_EQ(from.size(), to.size());
    for (size_t i = 0; i < from.size(); ++i) std::copy(from[i].bytes.begin(), from[i].bytes.end(), to[i].bytes.begin());
    std::vector<float> q = p;
    first.update(pool, {2, 0.01, 0.1, 1}, start_.data(), p.data());
    second.update(pool, {2, 0.01, 0.1, 1}, start_.data(), q.data());
    EXPECT_EQ(p, q);
  }
}

}  // namespace
}  // namespace bitnet
