#pragma once

#include "base/result.h"
#include "base/thread_pool.h"

#include <optional>
#include <utility>
#include <vector>

namespace bitnet {

// Runs fn(begin, end) -> Status on parts of [0, n) and gives the error of the lowest part that failed, whichever thread
// was first.
template <class Fn>
Status parallel_status(ThreadPool& pool, int64_t n, const Fn& fn) {
  std::vector<std::optional<Error>> errors(size_t(pool.n_threads()));
  pool.parallel_for(n, [&](int64_t begin, int64_t end, int thread) {
    Status status = fn(begin, end);
    if (!status) errors[size_t(thread)] = std::move(status.error());
  });
  for (std::optional<Error>& error : errors) {
    if (error) return *std::move(error);
  }
  return ok();
}

}  // namespace bitnet
