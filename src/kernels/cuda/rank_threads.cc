#include "kernels/cuda/rank_threads.h"

#include <system_error>
#include <utility>

namespace bitnet {

Result<std::unique_ptr<RankThreads>> RankThreads::create(int n_ranks) {
  std::unique_ptr<RankThreads> made(new RankThreads);
  try {
    for (int rank = 0; rank < n_ranks; ++rank)
      made->threads_.emplace_back([&threads = *made, rank] { threads.work(rank); });
  } catch (const std::system_error& error) {
    return make_error(ErrorCode::kResource, "cannot start a thread for each of {} GPUs: {}", n_ranks, error.what());
  }
  return made;
}

RankThreads::~RankThreads() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    over_ = true;
  }
  begun_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Status RankThreads::run(const std::function<Status(int)>& job, const std::function<void()>& on_failure) {
  std::unique_lock<std::mutex> lock(mutex_);
  job_ = &job;
  on_failure_ = &on_failure;
  n_running_ = int(threads_.size());
  ++n_jobs_;
  begun_.notify_all();
  ended_.wait(lock, [&] { return n_running_ == 0; });
  std::optional<Error> failure = std::exchange(failure_, std::nullopt);
  if (failure) return *std::move(failure);
  return ok();
}

void RankThreads::work(int rank) {
  uint64_t n_done = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    begun_.wait(lock, [&] { return over_ || n_jobs_ != n_done; });
    if (over_) return;
    n_done = n_jobs_;
    const std::function<Status(int)>& job = *job_;
    lock.unlock();
    Status result = job(rank);
    lock.lock();
    if (!result && !failure_) {
      failure_ = std::move(result.error());
      if (*on_failure_) {
        lock.unlock();
        (*on_failure_)();
        lock.lock();
      }
    }
    if (--n_running_ == 0) ended_.notify_one();
  }
}

}  // namespace bitnet
