#include "runtime/perplexity.h"

#include "runtime/test_models.h"

#include <cmath>

namespace bitnet {
namespace {

TEST(Perplexity, NegativeLogLikelihoodByHand) {
  EXPECT_NEAR(negative_log_likelihood(std::vector<float>{0, 0, 0, 0}, 2), std::log(4.0), 1e-15);
  const std::vector<float> logits = {float(std::log(0.5)), float(std::log(0.3)), float(std::log(0.2))};
  EXPECT_NEAR(negative_log_likelihood(logits, 1), -std::log(0.3), 1e-7);
  // A shift changes nothing, and large logits do not overflow.
  EXPECT_NEAR(negative_log_likelihood(std::vector<float>{1000, 999}, 1), 1 + std::log1p(std::exp(-1.0)), 1e-12);
}

TEST(Perplexity, KlDivergenceByHand) {
  const auto logits = [](std::vector<double> p) {
    std::vector<float> l;
    for (const double v : p) l.push_back(float(std::log(v)));
    return l;
  };
  const std::vector<float> p = logits({0.5, 0.5}), q = logits({0.25, 0.75});
  EXPECT_EQ(kl_divergence(p, p), 0);
  EXPECT_NEAR(kl_divergence(p, q), 0.5 * std::log(2.0) + 0.5 * std::log(0.5 / 0.75), 1e-7);
  EXPECT_NEAR(kl_divergence(q, p), 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-7);
  // What P gives no weight adds nothing, though its logarithm is infinite.
  EXPECT_NEAR(kl_divergence(std::vector<float>{0, -INFINITY}, p), std::log(2.0), 1e-7);
}

struct Expected {
  double nll_sum = 0;
  std::vector<int64_t> scored;
};

// The definition, token by token: the window that scores token j is the first that holds it, and a fresh session is fed
// that window's tokens before j.
Expected by_definition(const Model& model, const std::vector<int32_t>& ids, int64_t n_ctx, int64_t stride) {
  Expected expected;
  const int64_t n = int64_t(ids.size());
  for (int64_t j = 0; j < n; ++j) {
    int64_t begin = 0;
    while (j >= begin + n_ctx) begin += stride;
    if (begin == j) continue;
    Session session = new_session(model);
    EXPECT_TRUE(session.append(std::span(ids).subspan(size_t(begin), size_t(j - begin))));
    double sum = 0;
    for (const float logit : session.logits()) sum += std::exp(double(logit));
    expected.nll_sum += std::log(sum) - double(session.logits()[size_t(ids[size_t(j)])]);
    expected.scored.push_back(j);
  }
  return expected;
}

TEST(Perplexity, EqualsTheDefinition) {
  const Model model = load_tiny("bitnet-packed");
  const std::vector<int32_t> ids = random_ids(45, 512, 11);
  Session session = new_session(model, 8, 1, KvType::kF16, 64);
  struct Window {
    int64_t n_ctx, stride;
    int64_t n_scored;
  };
  for (const Window w : {Window{64, 0, 44}, Window{45, 0, 44}, Window{16, 16, 42}, Window{11, 0, 40}, Window{16, 5, 44},
                         Window{16, 1, 44}, Window{2, 1, 44}, Window{2, 2, 22}, Window{44, 44, 43}}) {
    const Expected expected = by_definition(model, ids, w.n_ctx, w.stride == 0 ? w.n_ctx : w.stride);
    PerplexityOptions options;
    options.n_ctx = w.n_ctx;
    options.stride = w.stride;
    std::vector<int64_t> scored;
    options.on_logits = [&](int64_t index, std::span<const float> logits) {
      EXPECT_EQ(logits.size(), 512u);
      scored.push_back(index);
      return true;
    };
    double last_done = 0;
    options.on_progress = [&](double done, const PerplexityResult&) {
      EXPECT_GT(done, last_done);
      last_done = done;
      return true;
    };
    const Result<PerplexityResult> result = perplexity(session, ids, options);
    ASSERT_TRUE(result) << result.error().message;
    EXPECT_EQ(scored, expected.scored) << w.n_ctx << "/" << w.stride;
    EXPECT_EQ(result->n_tokens, w.n_scored) << w.n_ctx << "/" << w.stride;
    EXPECT_NEAR(result->nll, expected.nll_sum / double(w.n_scored), 1e-10) << w.n_ctx << "/" << w.stride;
    EXPECT_DOUBLE_EQ(result->perplexity, std::exp(result->nll));
    EXPECT_EQ(last_done, 1);
    EXPECT_EQ(session.n_past(), 0);
  }
}

TEST(Perplexity, RefusesWindowsThatCannotBe) {
  const Model model = load_tiny("bitnet-packed");
  Session session = new_session(model, 8, 1, KvType::kF16, 64);
  const std::vector<int32_t> ids = random_ids(10, 512);
  const auto code = [&](int64_t n_ctx, int64_t stride, std::span<const int32_t> tokens) {
    PerplexityOptions options;
    options.n_ctx = n_ctx;
    options.stride = stride;
    const Result<PerplexityResult> result = perplexity(session, tokens, options);
    return result ? 0 : int(result.error().code);
  };
  const int refused = int(ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(65, 0, ids), refused);
  EXPECT_EQ(code(1, 0, ids), refused);
  EXPECT_EQ(code(-4, 0, ids), refused);
  EXPECT_EQ(code(16, 17, ids), refused);
  EXPECT_EQ(code(16, -1, ids), refused);
  EXPECT_EQ(code(16, 16, std::span(ids).first(1)), refused);
  EXPECT_EQ(code(16, 16, {}), refused);
  EXPECT_EQ(code(16, 16, std::vector<int32_t>{1, 512}), refused);  // though the last token is never fed
  EXPECT_EQ(code(16, 16, ids), 0);
}

TEST(Perplexity, StopsWhenAsked) {
  Session session = new_session(load_tiny("bitnet-packed"));
  PerplexityOptions options;
  options.n_ctx = 4;
  int n_calls = 0;
  options.on_progress = [&](double, const PerplexityResult&) { return ++n_calls < 3; };
  const Result<PerplexityResult> result = perplexity(session, random_ids(40, 512), options);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kInterrupted);
  EXPECT_EQ(n_calls, 3);
}

}  // namespace
}  // namespace bitnet
