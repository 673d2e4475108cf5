#include "kernels/cuda/rank_threads.h"

#include <system_error>

namespace bitnet {

Result<std::unique_ptr<RankThreads>> RankThreads::create(int n_ranks) {
  std::unique_ptr<RankThreads> made(new RankThreads);
  made->results_.resize(size_t(n_ranks), ok());
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

Status RankThreads::run(const std::function<Status(int)>& job) {
  std::unique_lock<std::mutex> lock(mutex_);
  job_ = &job;
  n_running_ = int(threads_.size());
  ++n_jobs_;
  begun_.notify_all();
  ended_.wait(lock, [&] { return n_running_ == 0; });
  for (Status& result : results_) {
    if (!result) return std::move(result.error());
  }
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
    results_[size_t(rank)] = std::move(result);
    if (--n_running_ == 0) ended_.notify_one();
  }
}

}  // namespace bitnet
