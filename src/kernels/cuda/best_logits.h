#pragma once

#include "kernels/fused_model.h"

#include <algorithm>
#include <limits>
#include <span>

namespace bitnet {

// Logits of which only the best one is known: every other is minus infinity.
inline void put_best(const BestToken& best, float* logits, int64_t vocab_size) {
  std::fill_n(logits, vocab_size, -std::numeric_limits<float>::infinity());
  logits[best.id] = best.logit;
}

// A step that wants one row of logits, of which the best is enough. step_best(best) computes that.
template <class StepBest>
Status step_for_best(MatrixView logits, const StepBest& step_best) {
  BestToken best;
  BN_RETURN_IF_ERROR(step_best(std::span<BestToken>(&best, 1)));
  put_best(best, logits.data, logits.n_cols);
  return ok();
}

}  // namespace bitnet
