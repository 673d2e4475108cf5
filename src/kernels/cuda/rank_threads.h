#pragma once

#include "base/result.h"

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace bitnet {

// A thread for each of several GPUs, whose work waits for one another's: unlike a ThreadPool's members they all run at
// once, whatever else the machine does. One caller at a time.
class RankThreads {
 public:
  static Result<std::unique_ptr<RankThreads>> create(int n_ranks);
  ~RankThreads();
  RankThreads(const RankThreads&) = delete;
  RankThreads& operator=(const RankThreads&) = delete;

  // job(rank) on each thread; returns when all have returned, with the first error in time: others may
  // follow from it. `on_failure` is called on the first rank that fails, while others may still run.
  Status run(const std::function<Status(int)>& job, const std::function<void()>& on_failure = {});

 private:
  RankThreads() = default;
  void work(int rank);

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable begun_, ended_;
  const std::function<Status(int)>* job_ = nullptr;
  const std::function<void()>* on_failure_ = nullptr;
  uint64_t n_jobs_ = 0;
  int n_running_ = 0;
  std::optional<Error> failure_;
  bool over_ = false;
};

}  // namespace bitnet
