#pragma once

#include "bitnet/session.h"

#include <cstdint>
#include <functional>
#include <span>

namespace bitnet {

struct PerplexityResult {
  double nll = 0;           // mean over the scored tokens, natural logarithm
  double perplexity = 1;    // exp(nll)
  int64_t n_tokens = 0;     // scored
  double tokens_per_s = 0;  // scored tokens a second of wall time
};

struct PerplexityOptions {
  int64_t n_ctx = 0;   // tokens a window; 0: the session's
  int64_t stride = 0;  // tokens between the beginnings of two windows, 1 to n_ctx; 0: n_ctx
  // After each window: the share done, 0 to 1, and the result so far. False stops (kInterrupted). May be empty.
  std::function<bool(double done, const PerplexityResult& so_far)> on_progress;
  // For each scored token: its index in `ids` and the logits that predict it. False stops. May be empty.
  std::function<bool(int64_t index, std::span<const float> logits)> on_logits;
};

// Perplexity over sliding windows, as Hugging Face defines it for fixed-length models. Windows begin at 0, stride,
// 2 stride, ...; window b holds the tokens [b, min(b + n_ctx, n)) and the last is the first to reach n. Each window
// starts from an empty cache. In a window every token that no window before it held is scored, given all tokens of the
// window to its left; the first token of a window has none there and is never scored. So with stride = n_ctx each
// window of m tokens scores m - 1, and with a smaller stride all tokens but the very first are scored once.
//
//   nll = sum over scored tokens of (log sum exp(logits) - logits[token]) / number of scored tokens
//
// Sums run in double, in order of ids and of tokens. `ids` are used as they are: no begin-of-text token is added. The
// session is emptied before and after.
Result<PerplexityResult> perplexity(Session& session, std::span<const int32_t> ids,
                                    const PerplexityOptions& options = {});

// -log softmax(logits)[id] in double.
double negative_log_likelihood(std::span<const float> logits, int32_t id);
// KL(P || Q) = sum p (log p - log q) in double, P = softmax(base), Q = softmax(other); both [vocab_size].
double kl_divergence(std::span<const float> base, std::span<const float> other);

}  // namespace bitnet
