#include "runtime/perplexity.h"

#include "base/result.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace bitnet {
namespace {

// log of the sum of exp(logits), in order of ids.
double log_sum_exp(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double(logit) - max);
  return max + std::log(sum);
}

struct Score {
  double nll_sum = 0;
  int64_t n_tokens = 0;
};

// Scores tokens [first, end) of `ids` in the window that begins at `begin` < first.
Status score_window(Session& session, std::span<const int32_t> ids, int64_t begin, int64_t first, int64_t end,
                    const PerplexityOptions& options, Score& score) {
  BN_RETURN_IF_ERROR(session.truncate(0));
  // Position p of the window predicts token begin + p + 1: the last token of the window predicts none of it.
  const std::span<const int32_t> context = ids.subspan(size_t(begin), size_t(first - 1 - begin));
  const std::span<const int32_t> predicting = ids.subspan(size_t(first - 1), size_t(end - first));
  if (!context.empty()) BN_RETURN_IF_ERROR(session.append(context));
  return session.append(predicting, [&](int64_t position, std::span<const float> logits) {
    const int64_t index = begin + position + 1;
    score.nll_sum += negative_log_likelihood(logits, ids[size_t(index)]);
    ++score.n_tokens;
    return !options.on_logits || options.on_logits(index, logits);
  });
}

Status check_ids(std::span<const int32_t> ids, int64_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size) {
      return invalid_argument("token id {} (number {} of {}) is outside the vocabulary of {} tokens", ids[i], i,
                              ids.size(), vocab_size);
    }
  }
  return ok();
}

}  // namespace

double negative_log_likelihood(std::span<const float> logits, int32_t id) {
  return log_sum_exp(logits) - double(logits[size_t(id)]);
}

double kl_divergence(std::span<const float> base, std::span<const float> other) {
  const double base_log_sum = log_sum_exp(base), other_log_sum = log_sum_exp(other);
  double kl = 0;
  for (size_t i = 0; i < base.size(); ++i) {
    const double log_p = double(base[i]) - base_log_sum, log_q = double(other[i]) - other_log_sum;
    const double p = std::exp(log_p);
    if (p > 0) kl += p * (log_p - log_q);
  }
  return kl;
}

Result<PerplexityResult> perplexity(Session& session, std::span<const int32_t> ids, const PerplexityOptions& options) {
  session.want_logits(0);
  const int64_t n_ctx = options.n_ctx == 0 ? session.n_ctx() : options.n_ctx;
  const int64_t stride = options.stride == 0 ? n_ctx : options.stride;
  if (n_ctx < 2 || n_ctx > session.n_ctx()) {
    return invalid_argument("perplexity windows of {} tokens, expected 2 to the session's {}", n_ctx, session.n_ctx());
  }
  if (stride < 1 || stride > n_ctx) {
    return invalid_argument("perplexity stride is {}, expected 1 to the window's {}", stride, n_ctx);
  }
  if (ids.size() < 2) return invalid_argument("perplexity needs at least 2 tokens, found {}", ids.size());
  BN_RETURN_IF_ERROR(check_ids(ids, session.model().info().vocab_size));

  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const int64_t n = int64_t(ids.size());
  Score score;
  PerplexityResult result;
  int64_t n_seen = 0;  // tokens that windows so far held
  for (int64_t begin = 0; n_seen < n; begin += stride) {
    const int64_t end = std::min(begin + n_ctx, n);
    const int64_t first = std::max(n_seen, begin + 1);
    if (first < end) BN_RETURN_IF_ERROR(score_window(session, ids, begin, first, end, options, score));
    n_seen = end;
    result.n_tokens = score.n_tokens;
    result.nll = score.nll_sum / double(score.n_tokens);
    result.perplexity = std::exp(result.nll);
    result.tokens_per_s = double(score.n_tokens) / std::chrono::duration<double>(Clock::now() - start).count();
    if (options.on_progress && !options.on_progress(double(end) / double(n), result)) {
      return make_error(ErrorCode::kInterrupted, "stopped on request after {} of {} tokens", end, n);
    }
  }
  BN_RETURN_IF_ERROR(session.truncate(0));
  return result;
}

}  // namespace bitnet
