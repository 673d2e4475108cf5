#pragma once

#include "base/result.h"

#include <chrono>
#include <utility>

namespace bitnet {

// How often something that failed for the moment is tried, and how long it is left alone in between.
struct RetryPolicy {
  int n_attempts = 4;
  std::chrono::microseconds first_wait{1000};
  int factor = 4;  // each wait is so many times the one before
};

// Calls fn() -> Result<T> until it succeeds, fails with an error that is not transient, or has been tried often enough;
// wait(std::chrono::microseconds) in between.
template <class Fn, class Wait>
auto retry(const RetryPolicy& policy, const Fn& fn, const Wait& wait) -> decltype(fn()) {
  std::chrono::microseconds pause = policy.first_wait;
  for (int attempt = 1;; ++attempt) {
    auto result = fn();
    if (result || !result.error().transient) return result;
    if (attempt >= policy.n_attempts) {
      if (attempt > 1) result.error().add_context(fmt::format("tried {} times", attempt));
      return result;
    }
    wait(pause);
    pause *= policy.factor;
  }
}

}  // namespace bitnet
